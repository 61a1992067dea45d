"""Progress survives JSON to the bit, and anything else is refused."""

import json
import math

import pytest

from gluon_tricks.optim.precision import LossScale
from gluon_tricks.runs.progress import Progress, from_format_1
from gluon_tricks.runs.scores import Scores, Sums


def progress():
    third, tiny = 1 / 3, math.nextafter(0, 1)
    return Progress(epoch=3, step=7, trained=Sums(21, third, {"top1": tiny}), seconds=0.1 + 0.2,
                    waited=1e-300, loss_scale=LossScale(2.0**20, 7, 2), bad_updates=4,
                    best_epoch=2, best=Scores(7, third, {"top1": 2 / 7, "top5": 1.0}), last=None)


@pytest.mark.parametrize("kept", [progress(), Progress()])
def test_there_and_back(kept):
    again = Progress.from_json(json.loads(json.dumps(kept.to_json())))
    assert again == kept
    for part in ("trained", "loss_scale", "best"):
        assert type(getattr(again, part)) is type(getattr(kept, part))


def test_the_next_epoch():
    now = progress()
    now.next_epoch()
    assert (now.epoch, now.step, now.trained, now.seconds, now.waited) == (4, 0, Sums(), 0, 0)
    assert (now.loss_scale, now.best_epoch) == (LossScale(2.0**20, 7, 2), 2)


@pytest.mark.parametrize("name", sorted(vars(Progress())))
def test_a_name_that_is_missing_is_named(name):
    state = json.loads(json.dumps(progress().to_json()))
    del state[name]
    with pytest.raises(ValueError, match=f"'{name}'"):
        Progress.from_json(state)


@pytest.mark.parametrize(("name", "value"), [
    ("colour", 1), ("epoch", "3"), ("epoch", -2), ("epoch", 1.0), ("epoch", True), ("epoch", None),
    ("seconds", "0"), ("seconds", None), ("trained", None), ("trained", [1, 2.0, 3.0]),
    ("trained", {"count": 1}), ("trained", {"count": 1, "loss": 2.0, "parts": {"top1": "4"}}),
    ("trained", {"count": 1, "loss": 2, "parts": {}}), ("loss_scale", None),
    ("best", {"count": 1, "loss": 2.0, "figures": {"top1": 1}}),
    ("loss_scale", [2.0, 1, [0]]), ("best", []), ("best", "abcdef"), ("last", 7)])
def test_a_value_that_is_none_is_named(name, value):
    state = json.loads(json.dumps(progress().to_json()))
    with pytest.raises(ValueError, match=f"'{name}'"):
        Progress.from_json({**state, name: value})


def test_the_task_s_names_must_be_there():
    state = json.loads(json.dumps(progress().to_json()))
    assert Progress.from_json(state, ("top1",), "top5") == progress()
    with pytest.raises(ValueError, match="'trained'"):
        Progress.from_json(state, ("top1", "top3"), "top1")
    with pytest.raises(ValueError, match="'best'"):
        Progress.from_json(state, ("top1",), "mAP")
    begun = json.loads(json.dumps(Progress().to_json()))
    assert Progress.from_json(begun, ("anything",), "mAP") == Progress()


FORMAT_1 = {"epoch": 2, "step": 5, "trained": [20, 30.5, 7.25, 12.0], "seconds": 1.5,
            "waited": 0.25, "loss_scale": [65536.0, 3, 1], "bad_updates": 0, "best_epoch": 1,
            "best": [7, 1.25, 0.42857142857142855, 1.0, 3, 7], "last": None}


def test_format_1_is_read():
    assert Progress.from_json(from_format_1(FORMAT_1), ("top1",), "top1") == Progress(
        2, 5, Sums(20, 30.5, {"top1": 7.25}), 1.5, 0.25, LossScale(65536.0, 3, 1), 0, 1,
        Scores(7, 1.25, {"top1": 3 / 7, "top5": 1.0}), None)
    begun = from_format_1({**FORMAT_1, "trained": [0, 0.0, 0.0, 0.0]})
    assert Progress.from_json(begun, ("top1",), "top1").trained == Sums()


@pytest.mark.parametrize("change", [
    {"trained": None}, {"trained": [1, 2.0, 3.0]}, {"trained": [1, 2.0, "3", 4.0]},
    {"best": 7}, {"best": [7, 1.0]}, {"best": ["7", 1.0, 0.5, 1.0, 3, 7]}, {"last": "abcd"}],
    ids=str)
def test_what_format_1_never_held_is_refused(change):
    with pytest.raises(ValueError, match=r"format 1|'(trained|best|last)'"):
        Progress.from_json(from_format_1({**FORMAT_1, **change}), ("top1",), "top1")
