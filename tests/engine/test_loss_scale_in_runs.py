"""The loss scale in real updates; in FP32, since CPUs do not compute in FP16."""

import dataclasses
import json
from contextlib import ExitStack

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import make_task
from gluon_tricks.engine import step
from gluon_tricks.engine.benchmark import SyntheticRun
from gluon_tricks.engine.saving import Saver
from gluon_tricks.engine.train import train_epoch
from gluon_tricks.models.parameters import named_arrays
from gluon_tricks.optim.precision import LossScale
from gluon_tricks.runs.progress import Progress

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def run_of():
    """run_of(loss_scale, **flags): a run on made-up data, and what makes its updates."""
    with ExitStack() as stack:
        def make(loss_scale=None, **flags):
            made_up = SyntheticRun(Settings(model="resnet18_v1", batch_size=4, input_size=32,
                                            num_classes=3, momentum=0.5, **flags), make_task(), 3,
                                   stack)
            # No flag gives FP32 a loss scale: it needs none.
            made_up.run = dataclasses.replace(made_up.run, settings=dataclasses.replace(
                made_up.run.settings, loss_scale=loss_scale))
            made_up.saver = Saver(made_up.run)
            return made_up
        yield make


def state(run):
    mx.nd.waitall()
    arrays = {**named_arrays(run.network), **run.updater.arrays()}
    return {name: array.asnumpy() for name, array in arrays.items()}


@pytest.mark.parametrize("loss_scale", ["dynamic", 1024.0])
@pytest.mark.parametrize("flags", [{}, {"accumulate": 2}, {"clip_grad_norm": 1e-3},
                                   {"optimizer": "sgd", "l1": 0.5}], ids=str)
def test_a_scale_of_a_power_of_two_changes_no_bit(run_of, loss_scale, flags):
    plain, scaled = run_of(**flags), run_of(loss_scale, **flags)
    for made_up in (plain, scaled):
        made_up.seconds(3)
    a, b = state(plain.run), state(scaled.run)
    exact = "clip_grad_norm" not in flags and "l1" not in flags
    for name in a:
        if exact:
            assert np.array_equal(a[name], b[name]), name
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_overflow_skips_the_update_and_halves_the_scale(run_of, accumulate, monkeypatch):
    def overflow(run, *arguments, original=step.add_gradients):
        losses = original(run, *arguments)
        run.updater.gradients[-1][0] = np.inf  # one element of the last bias
        return losses

    made_up = run_of("dynamic", accumulate=accumulate)
    run = made_up.run
    before = state(run)
    run.progress.loss_scale = LossScale(scale=512.0, clean=1999)
    with monkeypatch.context() as patch:
        patch.setattr(step, "add_gradients", overflow)
        made_up.seconds(1)
    assert run.progress.loss_scale == LossScale(scale=256.0, clean=0, overflows=1)
    assert run.progress.bad_updates == 0
    after = state(run)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    run.progress.loss_scale = LossScale(scale=256.0, clean=1998, overflows=1)
    made_up.seconds(1)
    assert run.progress.loss_scale == LossScale(scale=256.0, clean=1999, overflows=1)
    made_up.seconds(1)
    assert run.progress.loss_scale == LossScale(scale=512.0, clean=0, overflows=1)
    plain = run_of(accumulate=accumulate)
    plain.seconds(2)
    a, b = state(run), state(plain.run)
    # Another dropout seed changes nothing here: the batch is the same in each update.
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_the_scale_is_in_the_checkpoint_s_state():
    progress = Progress(loss_scale=LossScale(scale=4096.0, clean=17, overflows=3))
    stored = json.loads(json.dumps(progress.to_json()))
    assert stored["loss_scale"] == [4096.0, 17, 3]
    assert Progress.from_json(stored).loss_scale == LossScale(4096.0, 17, 3)


def test_a_run_on_made_up_data_makes_the_updates_it_says(run_of):
    made_up = run_of(accumulate=2)
    seen = []
    made_up.run.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert made_up.seconds(3) > 0
    assert seen == [(4, 3, 32, 32)] * 6
    assert made_up.run.progress.step == 0
    train_epoch(made_up.run, made_up.saver)
    assert len(seen) == 12
