"""Complete runs of a tiny network: which batches make which update, with which values."""

import os
import signal
import time
from contextlib import ExitStack

import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_tricks.classification import task
from gluon_tricks.classification.start import make_task, train
from gluon_tricks.data import loader
from gluon_tricks.engine import benchmark, step
from gluon_tricks.engine import train as engine
from gluon_tricks.errors import RunFault, Stopped
from gluon_tricks.optim.update import ParameterUpdater
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.scores import Scores

pytestmark = pytest.mark.usefixtures("tiny")
NOT_FINITE = Scores(7, np.nan, {"top1": 0.5, "top5": 1.0})


@pytest.fixture
def normalised(monkeypatch):
    """Every model name gives a network with BatchNorm."""
    def network(name, classes, **_):
        net = nn.HybridSequential()
        net.add(nn.Conv2D(4, 5, strides=4, in_channels=3), nn.BatchNorm(in_channels=4),
                nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(classes, in_units=4))
        return net

    monkeypatch.setattr("gluon_tricks.classification.network.get_model", network)


@pytest.fixture
def watch(monkeypatch):
    """watch(place, name): the arguments and the result of each call from now on."""
    def start(place, name):
        calls, original = [], getattr(place, name)

        def watched(*arguments, **named):
            result = original(*arguments, **named)
            calls.append((arguments, result))
            return result
        monkeypatch.setattr(place, name, watched)
        return calls
    return start


def poison(monkeypatch, *places):
    """Put NaN into these batches of the first epoch."""
    def epoch(self, number=0, start_step=0, original=loader.RecordLoader.epoch):
        for batch in original(self, number, start_step):
            if number == 0 and batch.step in places and self.order.records == 21:
                batch.images[:] = np.nan
            yield batch

    monkeypatch.setattr(loader.RecordLoader, "epoch", epoch)


def leave_out(monkeypatch, *places):
    """Make these batches empty in each epoch, as if all their records were damaged."""
    monkeypatch.setattr(engine, "timed", lambda run, batches: (
        loader.Batch(*(part[:0] for part in batch[:3]), batch.step)
        if batch.step in places else batch for batch in batches))


@pytest.mark.parametrize("compat", [False, True])
def test_each_batch_is_mixed_anew_and_its_smoothed_labels_alike(settings, watch, compat):
    drawn, made = watch(task, "mixup"), watch(task.Classification, "inputs")
    train(settings(mixup=True, label_smoothing=0.3, batch_size=4, gluoncv_compat=compat))
    shares = [arguments[2].asnumpy() for arguments, _ in drawn]
    partners = [arguments[3].asnumpy() for arguments, _ in drawn]
    true, other = (0.8, 0.1) if compat else (0.7, 0.15)
    smoothed = np.full((3, 3), other) + (true - other) * np.eye(3)
    for (_, found), lam, partner in zip(made, shares, partners, strict=True):
        labels = found.labels.asnumpy()
        assert found.partner_labels.asnumpy().tolist() == labels[partner].tolist()
        assert np.array_equal(found.lam.asnumpy(), lam)
        want = lam[:, None] * smoothed[labels] + (1 - lam[:, None]) * smoothed[labels[partner]]
        np.testing.assert_allclose(found.targets.asnumpy(), want, rtol=1e-5)
        assert not compat or (len(set(lam)) == 1 and partner.tolist() == [3, 2, 1, 0])
    assert len({tuple(lam) for lam in shares}) == 10
    assert compat or len({float(share) for lam in shares for share in lam}) == 40


@pytest.mark.parametrize("random", [True, False])
def test_each_batch_has_a_seed_of_its_own_where_one_is_needed(settings, watch, monkeypatch, random):
    monkeypatch.setattr("gluon_tricks.classification.task.is_random", lambda network: random)
    seeds = watch(step, "step_seed")
    train(settings(batch_size=2, accumulate=2, seed=3))
    assert [arguments for arguments, _ in seeds] == [
        (3, number, 0) for number in range(20 * random)]


def test_with_accumulation_a_bad_batch_is_named_by_its_update(settings, monkeypatch):
    poison(monkeypatch, 5, 7)
    with pytest.raises(RunFault, match=r"the loss is nan at update 2, lr"):
        train(settings(batch_size=2, accumulate=2, log_interval=50))


def test_what_is_left_of_an_update_counts_by_its_samples(settings, monkeypatch):
    made = []

    def apply(self, number, lr, rescale, original=ParameterUpdater.apply):
        made.append((number, rescale))
        original(self, number, lr, rescale)

    monkeypatch.setattr(ParameterUpdater, "apply", apply)
    leave_out(monkeypatch, 1, 4, 5, 9)
    train(settings(batch_size=2, accumulate=2))
    first = [(0, 1 / 2), (1, 1 / 4), (3, 1 / 4), (4, 1 / 2)]
    assert made == first + [(update + 5, rescale) for update, rescale in first]


@pytest.mark.parametrize(("accumulate", "bad", "update"), [(1, 3, (3,)), (2, 3, (2, 3)),
                                                           (2, 0, (0, 1))])
def test_a_skipped_update_leaves_no_statistics_behind(normalised, settings, arrays, lines, tmp_path,
                                                      monkeypatch, accumulate, bad, update):
    chosen = {"nan": "skip", "num_epochs": 1, "ema": 0.5, "batch_size": 4 // accumulate,
              "accumulate": accumulate, "warmup_epochs": 0}
    with monkeypatch.context() as patch:
        poison(patch, bad)
        skipped = train(settings(**chosen, save_dir=str(tmp_path / "a"))).folder
    leave_out(monkeypatch, *update)
    without = train(settings(**chosen, save_dir=str(tmp_path / "b"))).folder
    for file in ("last.params", "checkpoints/000001/model.params"):
        a, b = (arrays(folder / file) for folder in (skipped, without))
        assert {"1.running_mean", "1.running_var"} < a.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
    (a,), (b,) = (lines(folder, "epoch") for folder in (skipped, without))
    assert (a["train_loss"], a["train_top1"]) == (b["train_loss"], b["train_top1"])
    assert (a["bad_updates"], b["bad_updates"]) == (1, 0)


def test_too_many_skipped_updates_in_a_row_end_the_run(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(step.Skipping, "MOST", 2)
    with monkeypatch.context() as patch:
        poison(patch, 0, 1, 3, 4)
        train(settings(nan="skip"))
    poison(monkeypatch, 1, 2, 3)
    with pytest.raises(RunFault, match=r"3 updates in a row .* at update 3, lr"):
        train(settings(nan="skip", save_dir=str(tmp_path / "b")))


def test_a_signal_amid_validation_is_heeded_there(settings, arrays, lines, tmp_path, monkeypatch):
    """The epoch's weights are saved, not their average, and resuming validates them first."""
    def evaluate(*arguments, original=engine.evaluate, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    whole = train(settings(ema=0.5, save_dir=str(tmp_path / "whole"))).folder
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="at update 5, epoch 1"):
        patch.setattr(engine, "evaluate", evaluate)
        train(settings(ema=0.5))
    assert not lines(tmp_path / "run", "epoch")
    resumed = train(settings(ema=0.5, resume="auto")).folder
    for file in ("best.params", "last.params", "checkpoints/000003/model.params"):
        a, b = arrays(whole / file.replace("3", "2")), arrays(resumed / file)
        assert all(np.array_equal(a[name], b[name]) for name in a)
    a, b = (lines(folder, "epoch") for folder in (whole, resumed))
    assert [line["val_loss"] for line in a] == [line["val_loss"] for line in b]


def test_a_lost_parameter_that_the_loss_does_not_show_stops_the_run(settings, monkeypatch):
    """On the CPU, Activation maps NaN to 0, so that the loss stays finite."""
    def network(name, classes, **_):
        net = nn.HybridSequential()
        net.add(nn.Conv2D(4, 5, strides=4, in_channels=3), nn.Activation("relu"), nn.Flatten(),
                nn.Dense(classes, in_units=196))
        return net

    def make_update(run, update, samples, original=step.make_update):
        made = original(run, update, samples)
        if update == 1:
            run.updater.weights[0][:] = np.nan
        return made

    monkeypatch.setattr("gluon_tricks.classification.network.get_model", network)
    monkeypatch.setattr(step, "make_update", make_update)
    with pytest.raises(RunFault, match="a parameter is not finite at update 2, lr"):
        train(settings(log_interval=3))


def test_parameters_whose_validation_loss_is_not_finite_are_not_kept(settings, monkeypatch,
                                                                     tmp_path):
    monkeypatch.setattr(engine, "evaluate", lambda *_, **__: NOT_FINITE)
    with pytest.raises(RunFault, match="the validation loss is nan at update 4, lr"):
        train(settings())
    assert not list((tmp_path / "run").glob("*.params"))


def test_time_and_waiting_for_data_are_those_of_the_whole_epoch(settings, lines, monkeypatch):
    """Even if a signal interrupted it."""
    def epoch(self, number=0, start_step=0, original=loader.RecordLoader.epoch):
        for batch in original(self, number, start_step):
            time.sleep(0.1)
            yield batch

    def make_update(run, update, samples, original=step.make_update):
        if update == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(run, update, samples)

    monkeypatch.setattr(loader.RecordLoader, "epoch", epoch)
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="at update 3, epoch 1"):
        patch.setattr(step, "make_update", make_update)
        train(settings(num_epochs=1))
    (line,) = lines(train(settings(num_epochs=1, resume="auto")).folder, "epoch")
    assert line["seconds"] >= 0.5 and 0.5 <= line["data_wait"] * line["seconds"] <= line["seconds"]


def test_a_run_that_went_on_knows_the_checkpoint_it_began_from(settings, monkeypatch):
    train(settings(num_epochs=1))
    monkeypatch.setattr(engine, "evaluate", lambda *_, **__: NOT_FINITE)
    with pytest.raises(RunFault, match=r"the last good checkpoint is .*checkpoints/000001$"):
        train(settings(num_epochs=2, resume="auto"))


def test_flags_say_how_gradients_are_added_up(settings, monkeypatch):
    """The parameters cannot tell: groups do not change the result."""
    given = []

    def allreduce_gradients(self, gradients, **options):
        given.append((len(gradients), options))
        return 1.0

    monkeypatch.setattr(Ranks, "allreduce_gradients", allreduce_gradients)
    monkeypatch.setattr(benchmark, "join", lambda size: Ranks())
    for flags in ({"num_cpu_ranks": 2, "num_groups": 3, "grad_compression": "fp16",
                   "grad_predivide": 8.0}, {}):
        with ExitStack() as stack:
            benchmark.SyntheticRun(settings(**flags), make_task(), 1, stack).seconds(1)
    assert given == [(4, {"groups": 3, "compress": True, "predivide": 8.0}),
                     (4, {"groups": 1, "compress": False, "predivide": None})]
