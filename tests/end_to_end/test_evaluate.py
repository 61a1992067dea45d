"""`evaluate.py` as a user runs it: text, JSON, and one line for what does not fit."""

import json
import math
import re
import runpy
import sys

import mxnet as mx
import numpy as np
import pytest
from processes import ROOT

from gluon_tricks.data.classes import write_classes
from gluon_tricks.data.record import RecordWriter
from gluon_tricks.errors import InputError
from gluon_tricks.models.zoo import get_model

LABELS = [3, 1, 0, 2, 4, 5, 3, 3, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, jpeg):
    """val.rec of nine images of six classes; parameters that always rank 3, 1, 4, 5, 0 first."""
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
    assert done.stdout == (f"top-1 33.33% (3), top-5 88.89% (8), loss {loss:.4f}, calibration "
                           f"error {math.exp(-loss_of(3)) - 3 / 9:.2%}, 9 images\n")


def loss_of(label):
    logits = [0.5, 4, 0, 5, 3, 1]
    return math.log(sum(math.exp(value) for value in logits)) - logits[label]


def test_json_and_files(inside, arguments, folder, tmp_path):
    done = inside("evaluate", *arguments, "--params", folder / "net.params", "--json",
                  "--num-classes", "6", "--confusion", tmp_path / "c.png",
                  "--per-class", tmp_path / "c.csv", "--predictions", tmp_path / "p.csv")
    assert done.returncode == 0
    assert re.fullmatch(r"data backend: (native|opencv .*)\n", done.stderr)
    got = json.loads(done.stdout)
    sure = math.exp(-loss_of(3))
    assert got.pop("loss") == pytest.approx(np.mean([loss_of(label) for label in LABELS]), rel=1e-5)
    assert got.pop("ece") == pytest.approx(sure - 3 / 9, rel=1e-5)
    assert got == {"count": 9, "top1": 3 / 9, "top5": 8 / 9, "correct1": 3, "correct5": 8,
                   "input_size": 32, "crop_ratio": 0.875, "crops": 1}
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "c.csv").read_text() == (
        "class,count,top1,confused_with\n0,1,0.0,3\n1,2,0.0,3\n2,1,0.0,3\n4,1,0.0,3\n5,1,0.0,3\n"
        "3,3,1.0,\n")
    header, *lines = (tmp_path / "p.csv").read_text().splitlines()
    assert header == "key,label,predicted,probability"
    for key, (line, label) in enumerate(zip(lines, LABELS, strict=True)):
        *numbers, probability = line.split(",")
        assert list(map(int, numbers)) == [key, label, 3]
        assert float(probability) == pytest.approx(sure, rel=1e-5)


def test_a_row_for_each_size_and_ratio_of_a_run(inside, folder, tmp_path):
    """In ten crops; the run's folder says what the network is and what input it takes."""
    (tmp_path / "config.json").write_text(json.dumps({
        "model": "resnet18_v1", "num_classes": 6, "input_size": 24, "crop_ratio": 0.75}))
    (tmp_path / "last.params").write_bytes((folder / "net.params").read_bytes())
    done = inside("evaluate", "--run", tmp_path, "--rec-val", folder / "val.rec", "--crops", "10",
                  "--crop-ratio", "0.875,1", "--batch-size", "20", "-j", "1")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"data backend: opencv \(native: it .*\)\n", done.stderr)
    loss = np.mean([loss_of(label) for label in LABELS])
    same = ["10", "33.33%", "88.89%", f"{loss:.4f}", f"{math.exp(-loss_of(3)) - 3 / 9:.2%}", "9"]
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["24", "0.875", *same], ["24", "1.0", *same]]


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


WRONG = [
    ("", "give --run DIR, --model and --params FILE, or --model"),
    ("--params a.params", "give --run DIR"),
    ("--run {here} --params a.params", "--params cannot be combined with --run"),
    ("--run {here}/a.params", "a.params is not a folder: give a run's"),
    ("--run {here} --crops 10 --data-backend native", "native does not support --crops 10"),
    ("--run {here} --crops 10 --data-backend mxnet", "mxnet does not support --crops 10"),
    ("--run {here} --crops 10 --dct-shortcut always", "always does not support --crops 10"),
    ("--run {here} --input-size 32,64 --per-class", "need a single --input-size"),
    ("--run {here} --crop-ratio 0.5,1 --confusion {here}/c.png", "need a single --input-size"),
    ("--run {here} --per-class {here}/c.csv --predictions {here}/c.csv", "name the same file")]


@pytest.mark.parametrize(("flags", "said"), WRONG, ids=[said for _, said in WRONG])
def test_flags_that_do_not_go_together_are_refused(flags, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *flags.format(here=tmp_path).split()])
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        runpy.run_path(ROOT / "scripts" / "evaluate.py")["main"]()
    assert "\n" not in str(caught.value)


def test_the_structure_of_the_parameters_network_is_given_by_flags(arguments, tmp_path, monkeypatch,
                                                                   capsys):
    net = get_model("resnet18_v1b", classes=6, use_gn=True)
    net.initialize()
    net(mx.nd.zeros((1, 3, 32, 32)))
    net.save_parameters(str(tmp_path / "net.params"))
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments), "--params", str(
        tmp_path / "net.params"), "--model", "resnet18_v1b", "--use-gn"])
    runpy.run_path(ROOT / "scripts" / "evaluate.py")["main"]()
    assert capsys.readouterr().out.endswith(" 9 images\n")


@pytest.mark.parametrize(("flags", "said"), [
    ("--confusion {here}/c.jpg", "argument --confusion: {here}/c.jpg: must end in .png"),
    ("--predictions {here}/no/c.csv", "c.csv: there is no folder {here}/no"),
    ("--per-class {here}/d.csv", "argument --per-class: {here}/d.csv: is a folder"),
    ("--predictions /proc/c.csv", "argument --predictions: /proc/c.csv: cannot be written: "),
    ("--input-size 32,x", "argument --input-size: invalid comma-separated list of int"),
    ("--crop-ratio ,", "argument --crop-ratio: needs a number"),
    ("--crops 5", "argument --crops: invalid choice")], ids=str)
def test_files_that_cannot_be_written_are_refused_at_once(flags, said, tmp_path, monkeypatch,
                                                          capsys):
    (tmp_path / "d.csv").mkdir()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *flags.format(here=tmp_path).split()])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(ROOT / "scripts" / "evaluate.py")["main"]()
    line, = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert said.format(here=tmp_path) in line


NOTHING = "evaluate", "--model", "resnet18_v1", "--params", "none.params", "--rec-val", "none.rec"


def test_the_flags_of_the_pipeline_are_known(refused):
    assert "none.rec is missing" in refused(*NOTHING, "--antialias", "--dct-shortcut", "always",
                                            "--on-bad-record", "skip")


def test_a_shortcut_of_training_alone_is_refused(refused):
    assert "use always or never" in refused(*NOTHING, "--dct-shortcut", "train")
