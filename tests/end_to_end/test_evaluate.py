"""`evaluate.py` as a user runs it: text, JSON, and one line for what does not fit."""

import json
import math
import re

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.data.classes import write_classes
from gluon_tricks.data.record import RecordWriter
from gluon_tricks.models.zoo import get_model

LABELS = [3, 1, 0, 2, 4, 5, 3, 3, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, jpeg):
    """val.rec of nine pictures of six classes; parameters that always say 3, then 1, 4, 5, 0."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    with RecordWriter(folder / "val") as writer:
        for key, label in enumerate(LABELS):
            writer.write(key, label, jpeg(rng.integers(0, 256, (50, 40, 3), np.uint8)))
    net = get_model("resnet18_v1", classes=6)
    net.initialize()
    parameters = net._collect_params_with_prefix()
    parameters["output.weight"].set_data(mx.nd.zeros((6, 512)))
    parameters["output.bias"].set_data(mx.nd.array([0.5, 4, 0, 5, 3, 1]))
    net.save_parameters(str(folder / "net.params"))
    return folder


@pytest.fixture
def arguments(folder):
    return ("--model", "resnet18_v1", "--rec-val", folder / "val.rec", "--input-size", "32",
            "--batch-size", "4", "-j", "1")


def test_text(script, arguments, folder):
    done = script("evaluate", *arguments, "--params", folder / "net.params")
    assert done.returncode == 0
    assert re.fullmatch(r"data backend: (native|opencv .*)\n", done.stderr)
    loss = np.mean([loss_of(label) for label in LABELS])
    assert done.stdout == (f"top-1 33.33% (3), top-5 88.89% (8), loss {loss:.4f}, 9 pictures\n")


def loss_of(label):
    logits = [0.5, 4, 0, 5, 3, 1]
    return math.log(sum(math.exp(value) for value in logits)) - logits[label]


def test_json(script, arguments, folder):
    done = script("evaluate", *arguments, "--params", folder / "net.params", "--json",
                  "--num-classes", "6")
    assert done.returncode == 0
    assert re.fullmatch(r"data backend: (native|opencv .*)\n", done.stderr)
    got = json.loads(done.stdout)
    assert got.pop("loss") == pytest.approx(np.mean([loss_of(label) for label in LABELS]), rel=1e-5)
    assert got == {"count": 9, "top1": 3 / 9, "top5": 8 / 9, "correct1": 3, "correct5": 8}


@pytest.mark.parametrize(("changes", "said"), [
    (("--params", "nowhere.params"), ["nowhere.params is missing"]),
    (("--params", "net.params", "--model", "resnet18_v1d"), ["net.params", "another network"])],
    ids=["missing", "another network"])
def test_what_does_not_fit_is_refused_in_one_line(refused, arguments, folder, changes, said):
    there = [folder / part if part.endswith(".params") else part for part in changes]
    line = refused("evaluate", *arguments, *there)
    assert all(words in line for words in said), line


def test_labels_beyond_the_classes_are_refused(refused, folder, jpeg, tmp_path):
    with RecordWriter(tmp_path / "val") as writer:
        for key, label in enumerate([5, 6]):
            writer.write(10 + key, label, jpeg(np.full((40, 40, 3), 90, np.uint8)))
    write_classes(tmp_path / "val.classes.json", list("abcdefg"))
    line = refused("evaluate", "--model", "resnet18_v1", "--params", folder / "net.params",
                   "--rec-val", tmp_path / "val.rec", "--input-size", "32")
    assert "key 11" in line and "label 6" in line and "6 classes" in line


def test_the_parameters_must_be_named(refused, arguments):
    assert "--params" in refused("evaluate", *arguments)


NOTHING = "evaluate", "--model", "resnet18_v1", "--params", "none.params", "--rec-val", "none.rec"


def test_the_flags_of_the_pipeline_are_known(refused):
    assert "none.rec is missing" in refused(*NOTHING, "--antialias", "--dct-shortcut", "always",
                                            "--on-bad-record", "skip")


def test_a_shortcut_of_training_alone_is_refused(refused):
    assert "take always or never" in refused(*NOTHING, "--dct-shortcut", "train")
