"""Runs that something is odd about: what a stranger asks for, and what the device has not done."""

import dataclasses
from contextlib import ExitStack

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.metrics import Tally
from gluon_tricks.classification.network import build_teacher, get_model
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.start import train
from gluon_tricks.engine.benchmark import SyntheticRun, synthetic_batch
from gluon_tricks.engine.step import Step
from gluon_tricks.errors import InputError
from gluon_tricks.models.parameters import named_arrays


def test_statistics_that_are_yet_to_be_written_outlive_validation():
    """On the CPU BatchNorm's are written in the backward pass, unknown to MXNet's engine."""
    found = []
    for wait in (mx.nd.waitall, lambda: None):
        with ExitStack() as stack:
            run = SyntheticRun(Settings(model="resnet18_v1", batch_size=8, input_size=64,
                                        num_classes=3, ema=0.5), 1, stack).run
            Step(run, Tally()).take(synthetic_batch(run.settings))
            wait()
            with run.weights_to_keep():
                pass
            mx.nd.waitall()
            found.append({name: array.asnumpy() for name, array in named_arrays(run.network).items()})
    assert all(np.array_equal(array, found[1][name]) for name, array in found[0].items())


@pytest.mark.parametrize(("teacher", "file", "said"), [
    ("resnet18_v1x", None, "the teacher: unknown model 'resnet18_v1x'"),
    ("inceptionv3", None, "the teacher: --teacher inceptionv3 cannot classify pictures of 32x32"),
    ("resnet18_v1", "none.params", "none.params is missing"),
    ("resnet18_v1", "other", "to another network: .* check --teacher"),
    ("resnet18_v1", "classes", r"\(5, 512\), the network's is \(3, 512\); .*check --teacher")])
def test_a_teacher_that_cannot_teach_is_named_as_the_teacher(tmp_path, teacher, file, said):
    settings = resolve(Settings(model="cifar_resnet20_v1", input_size=32), 64, 3)
    for name, model, classes in (("other", "cifar_resnet20_v1", 3), ("classes", "resnet18_v1", 5)):
        net = get_model(model, classes=classes)
        net.initialize()
        net(mx.nd.zeros((1, 3, 32, 32)))
        net.save_parameters(str(tmp_path / name))
    chosen = Settings(**{**vars(settings), "teacher": teacher,
                         "teacher_params": file and str(tmp_path / file)})
    with pytest.raises(InputError, match=said) as caught:
        build_teacher(chosen, mx.cpu())
    assert "--model" not in str(caught.value)


def test_a_whole_run_goes_on_in_another_folder_with_more_epochs_only(settings, tmp_path):
    whole = train(settings()).folder
    other = settings(resume=str(whole), save_dir=str(tmp_path / "other"))
    with pytest.raises(InputError, match="is of a run that is whole: give a greater --num-epochs"):
        train(other)
    with pytest.raises(InputError, match="stands in epoch 3, beyond --num-epochs 1: give more"):
        train(dataclasses.replace(other, num_epochs=1))
    result = train(dataclasses.replace(other, num_epochs=3))  # the folder is free to take
    assert result.best_epoch == 2
    assert (result.folder / "best.params").is_file()


def test_a_process_alone_is_not_told_that_another_left(settings, monkeypatch):
    def fail(*_):
        raise mx.MXNetError("Read error: the device was not connected")

    monkeypatch.setattr("gluon_tricks.engine.step.add_gradients", fail)
    with pytest.raises(mx.MXNetError, match=r"^Read error"):
        train(settings())
