"""`predict.py` as a user runs it."""

import io
import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model

from gluon_tricks.errors import InputError
from gluon_tricks.inference import predict

LOGITS = [0.5, 4, 0, 5, 3, 1]
SHARES = [math.exp(logit) / sum(map(math.exp, LOGITS)) for logit in LOGITS]
SCRIPT = Path(__file__).parents[2] / "scripts" / "predict.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, jpeg):
    """A run whose network says the same of all pictures; four pictures, and one cut short."""
    folder = tmp_path_factory.mktemp("predict")
    net = get_model("cifar_resnet20_v1", classes=6)
    net.initialize()
    net(mx.nd.ones((1, 3, 32, 32)))
    net.output.weight.set_data(mx.nd.zeros((6, 64)))
    net.output.bias.set_data(mx.nd.array(LOGITS))
    (folder / "run").mkdir()
    net.save_parameters(str(folder / "run" / "best.params"))
    (folder / "run" / "config.json").write_text('{"model": "cifar_resnet20_v1"}')
    (folder / "run" / "classes.json").write_text(json.dumps(
        {"classes": ["ant", "bee", "cat", "dog", "eel", "fly"]}))
    (folder / "pictures" / "in").mkdir(parents=True)
    picture = jpeg(np.full((50, 40, 3), 90, np.uint8))
    for name in ("1.jpg", "in/3.jpg", "4.jpg", "\udcff.jpg"):  # the last is no UTF-8
        (folder / "pictures" / name).write_bytes(picture)
    (folder / "pictures" / "2.jpg").write_bytes(picture[:-9])
    return folder


def test_text_of_a_folder(folder):
    done = subprocess.run([sys.executable, SCRIPT, "--run", "run", "--batch-size", "2", "pictures",
                           "--top", "3"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "pictures/2.jpg: cannot be read: its JPEG is truncated\n"
    classes = "".join(f"{100 * SHARES[number]:8.2f}%  {name}\n"
                      for number, name in ((3, "dog"), (1, "bee"), (4, "eel")))
    assert done.stdout == "".join(f"pictures/{name}\n{classes}"
                                  for name in ("1.jpg", "4.jpg", "in/3.jpg", "\\udcff.jpg"))


def best(path):
    return {"path": path, "top": [{"class": 3, "label": "dog",
                                   "probability": pytest.approx(SHARES[3], abs=1e-6)}]}


def test_json_of_a_list_and_a_pattern_with_parameters_of_their_own(folder):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--params", "run/best.params", "--model", "cifar_resnet20_v1",
         "--json", "-", "--top", "1", "pictures/i*/*"], cwd=folder, capture_output=True, text=True,
        input="pictures/4.jpg\npictures/1.jpg\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(map(json.loads, done.stdout.splitlines())) == [
        best(f"pictures/{name}") for name in ("4.jpg", "1.jpg", "in/3.jpg")]


@pytest.fixture
def listed(folder, monkeypatch):
    """listed(stdin): main's exit code on a list, in this process."""
    def run(stdin):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "argv", ["predict.py", "--run", str(folder / "run"), "--json",
                                          "--top=1", "-"])
        monkeypatch.chdir(folder)
        return runpy.run_path(str(SCRIPT), run_name="predict")["main"]()
    return run


def test_what_cannot_be_read_has_its_own_json_object(listed, capsys):
    assert listed(b"\xfe.jpg\npictures/\xff.jpg\n") == 2
    assert list(map(json.loads, capsys.readouterr().out.splitlines())) == [
        {"path": "\udcfe.jpg", "error": "No such file or directory"}, best("pictures/\udcff.jpg")]


def test_an_empty_list_is_refused(listed):
    with pytest.raises(InputError, match="no picture was given: the list on stdin is empty"):
        listed(b"\n")


@pytest.mark.parametrize(("arguments", "said"), [
    (("a.jpg",), "which network? Give --run"), (("--run", "."), "IMAGE"),
    (("--run", ".", "--model", "resnet18_v1", "a.jpg"), "--model has no meaning with --run"),
    (("--run", ".", "--params", "b", "a.jpg"), "--params has no meaning with --run"),
    (("--run", "nowhere", "a.jpg"), "--run nowhere is no folder"),
    (("--params", "b.params", "a.jpg"), "--params b.params is missing"),
    (("--run", ".", "--top", "0", "a.jpg"), "--top: 0: must be at least 1"),
    (("--run", ".", "--num-gpus", "2", "a.jpg"), "--num-gpus"),
    (("--run", ".", "--batch", "2", "a.jpg"), "--batch")], ids=lambda value: str(value)[:40])
def test_flags_that_do_not_fit_are_refused_in_one_line(refused, arguments, said):
    assert said in refused("predict", *arguments)


@pytest.fixture
def main(folder, monkeypatch):
    """main(arguments): the exit code, in this process."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
        monkeypatch.chdir(folder)
        return runpy.run_path(str(SCRIPT), run_name="predict")["main"]()
    return run


def test_five_classes_without_names_or_with_those_that_are_given(main, folder, tmp_path, capsys):
    (tmp_path / "net.params").write_bytes((folder / "run" / "best.params").read_bytes())
    network = ("--params", tmp_path / "net.params", "--model", "cifar_resnet20_v1")
    assert main(*network, "pictures/1.jpg") == 0
    assert [line.split("%  ")[1] for line in capsys.readouterr().out.splitlines()[1:]] == [
        f"class {number}" for number in (3, 1, 4, 5, 0)]
    assert main(*network, "--classes", "run/classes.json", "pictures/1.jpg", "--top=2") == 0
    assert [line.split("%  ")[1] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "dog", "bee"]


def test_how_pictures_are_prepared_can_be_given(main, monkeypatch):
    given = {}
    monkeypatch.setattr(predict, "open_network", lambda *_, **settings: given.update(settings)
                        or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main("--run", "run", "--input-size", 64, "--crop-ratio", 0.5, "--batch-size", 3, "-j", 2,
             "a.jpg")
    assert given == {"input_size": 64, "crop_ratio": 0.5, "batch_size": 3, "num_data_workers": 2,
                     "num_gpus": 0}
