"""Progress survives JSON to the bit, and anything else is refused."""

import json
import math

import pytest

from gluon_tricks.optim.precision import LossScale
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.scores import Scores, Sums


def progress():
    third, tiny = 1 / 3, math.nextafter(0, 1)
    return Progress(epoch=3, step=7, trained=Sums(21, third, 2.5, tiny), seconds=0.1 + 0.2,
                    waited=1e-300, loss_scale=LossScale(2.0**20, 7, 2), bad_updates=4,
                    best_epoch=2, best=Scores(7, third, 2 / 7, 1.0, 2, 7), last=None)


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
    ("trained", {"count": 1}), ("trained", [1, 2.0, 3.0, "4"]), ("loss_scale", None),
    ("loss_scale", [2.0, 1, [0]]), ("best", []), ("best", "abcdef"), ("last", 7)])
def test_a_value_that_is_none_is_named(name, value):
    state = json.loads(json.dumps(progress().to_json()))
    with pytest.raises(ValueError, match=f"'{name}'"):
        Progress.from_json({**state, name: value})
