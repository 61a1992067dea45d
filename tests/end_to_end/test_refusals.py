"""Each script refuses wrong input as a process of its own; most other tests do it in theirs."""

import pytest
from script_modules import SCRIPTS

NAMES = sorted(str(path.relative_to(SCRIPTS).with_suffix(""))
               for folder in ("", "benchmarks") for path in (SCRIPTS / folder).glob("[!_]*.py"))
TRAIN = ("--rec-train", "none.rec", "--rec-val", "none.rec")
WRONG = {
    "benchmarks/input_pipeline": ("--rec", "none.rec"),
    "benchmarks/journeys": ("--json", "none"),
    "benchmarks/measured": ("--check", "--measure", "profile"),
    "benchmarks/scaling": ("--ranks", "1,99"),
    "benchmarks/train_step": ("--loops", "none"),
    "doctor": ("--num-gpus", -1),
    "evaluate": ("--model", "resnet18_v1", "--params", "none.params", "--rec-val", "none.rec"),
    "export": ("none.params", "--model", "resnet18_v1", "--out", "none/a.onnx"),
    "im2rec": ("none", "a"),
    "make_demo": ("demo", "--train", "7"),
    "predict": ("--run", "none", "none.jpg"),
    "prepare_imagenet": ("none", "out"),
    "preview_augment": ("--rec", "none.rec", "--out", "a.png"),
    "profile_model": ("--model", "resnet19"),
    "train_cifar10": TRAIN,
    "train_horovod": ("--no-cuda", *TRAIN),
    "train_imagenet": ("--model", "resnet18_v1", *TRAIN),
}


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_is_exit_code_2_and_one_line(refused_alone, refused, name, tmp_path,
                                                 monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused_alone(name, *WRONG[name])
    assert refused(name, *WRONG[name]) == line
    assert not list(tmp_path.iterdir())
