"""Whole runs of a tiny network: what each flag does to the parameters, by other arithmetic."""

import dataclasses
import json

import mxnet as mx
import numpy as np
import pytest
from gluoncv.utils import LRScheduler, LRSequential

from gluon_tricks.classification import task
from gluon_tricks.classification.network import build_network, initialize
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.start import train
from gluon_tricks.data import loader
from gluon_tricks.engine import step
from gluon_tricks.engine import train as engine
from gluon_tricks.errors import RunFault
from gluon_tricks.runs.checkpoint import newest
from gluon_tricks.runs.scores import Scores

pytestmark = pytest.mark.usefixtures("tiny")


def start_of(settings, arrays, tmp_path):
    """The parameters that a run begins with."""
    chosen = resolve(settings, 21, 3)
    net = build_network(chosen)
    initialize(net, chosen, mx.cpu())
    net.save_parameters(str(tmp_path / "start.params"))
    return arrays(tmp_path / "start.params")


def one_update(settings, arrays, tmp_path, name, **changes):
    """The parameters after one update of plain SGD on the whole set."""
    result = train(settings(optimizer="sgd", momentum=0.0, batch_size=21, num_epochs=1,
                            warmup_epochs=0, save_dir=str(tmp_path / name),
                            **{"wd": 0.0, "lr": 0.5, **changes}))
    return arrays(result.folder / "last.params")


def test_accumulated_batches_are_one_larger_batch(settings, arrays, lines, tmp_path):
    large = train(settings(batch_size=6, save_dir=str(tmp_path / "a"), log_interval=1))
    small = train(settings(batch_size=2, accumulate=3, save_dir=str(tmp_path / "b"),
                           log_interval=1))
    a, b = (arrays(run.folder / "last.params") for run in (large, small))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-7)
    a, b = (lines(run.folder, "step") for run in (large, small))
    assert [line["lr"] for line in a] == [line["lr"] for line in b]
    assert [line["loss"] for line in a] == pytest.approx([line["loss"] for line in b], rel=1e-5)
    assert len(a) == 6


def test_l1_pulls_each_weight_by_its_sign(settings, arrays, tmp_path):
    first = start_of(settings(), arrays, tmp_path)
    plain = one_update(settings, arrays, tmp_path, "a")
    pulled = one_update(settings, arrays, tmp_path, "b", l1=0.01)
    for name, start in first.items():
        want = -0.5 * 0.01 * np.sign(start) if name.endswith("weight") else 0 * start
        np.testing.assert_allclose(pulled[name] - plain[name], want, atol=2e-7)


@pytest.mark.parametrize("share", [0.25, 4])
def test_a_gradient_is_clipped_to_its_norm(settings, arrays, tmp_path, share):
    first = start_of(settings(), arrays, tmp_path)
    plain = one_update(settings, arrays, tmp_path, "a")
    gradient = {name: (first[name] - plain[name]) / 0.5 for name in first}
    norm = float(np.sqrt(sum(np.sum(np.square(each, dtype=np.float64))
                             for each in gradient.values())))
    clipped = one_update(settings, arrays, tmp_path, "b", clip_grad_norm=share * norm)
    for name, start in first.items():
        np.testing.assert_allclose(start - clipped[name], min(share, 1) * 0.5 * gradient[name],
                                   rtol=1e-3, atol=1e-7)


def test_linear_scaling_takes_lr_for_256_samples(settings, arrays, tmp_path):
    first = start_of(settings(), arrays, tmp_path)
    plain = one_update(settings, arrays, tmp_path, "a", lr=0.5)
    scaled = one_update(settings, arrays, tmp_path, "b", lr=0.5 * 256, linear_scaling=True)
    for name in first:
        np.testing.assert_allclose(scaled[name] - first[name], 21 * (plain[name] - first[name]),
                                   rtol=1e-3, atol=1e-6)


def test_the_average_is_validated_and_kept_and_training_goes_on_without_it(settings, arrays,
                                                                           tmp_path):
    chosen = settings(ema=0.5, checkpoint_steps=1, keep=100, lr=0.1)
    average = {name: array.astype(np.float64)
               for name, array in start_of(chosen, arrays, tmp_path).items()}
    folder = train(chosen).folder
    # After each update, and after each epoch's validation, which changes nothing.
    saved = [path for path in sorted((folder / "checkpoints").iterdir()) if path.name.isdecimal()]
    assert len(saved) == 12
    updates = [path for number, path in enumerate(saved, 1) if number % 6]
    for update, path in enumerate(updates):
        decay = min(0.5, (1 + update) / (10 + update))
        weights = arrays(path / "model.params")
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
        found = arrays(path / "average.params")
        for name in average:
            np.testing.assert_allclose(found[name], average[name], rtol=1e-5, atol=1e-7)
    kept, own = arrays(folder / "last.params"), arrays(saved[-1] / "model.params")
    assert all(np.array_equal(kept[name], found[name]) for name in kept)
    assert not any(np.array_equal(kept[name], own[name]) for name in kept)
    plain = train(settings(lr=0.1, save_dir=str(tmp_path / "plain"))).folder
    assert all(np.array_equal(own[name], array)
               for name, array in arrays(plain / "last.params").items())


@pytest.mark.parametrize("mode", ["step", "cosine", "poly"])
def test_with_gluoncv_compat_each_update_s_lr_is_gluoncv_s(settings, lines, mode):
    """As scripts/classification/imagenet/train_imagenet.py builds it; Trainer counts from 1."""
    falls = {"lr_decay_epoch": (2,)} if mode == "step" else {}
    folder = train(settings(gluoncv_compat=True, lr_mode=mode, num_epochs=3, log_interval=1,
                            **falls)).folder
    schedule = LRSequential([
        LRScheduler("linear", base_lr=0, target_lr=0.01, nepochs=1, iters_per_epoch=5),
        LRScheduler(mode, base_lr=0.01, target_lr=0, nepochs=2, iters_per_epoch=5, step_epoch=[1],
                    step_factor=0.1, power=2)])
    found = [line["lr"] for line in lines(folder, "step")]
    assert found == pytest.approx([schedule(update) for update in range(1, 16)], rel=1e-12)


def test_mixup_s_last_epochs_are_without_it(settings, monkeypatch):
    mixed = []

    def mixup(*arguments):
        mixed.append(arguments[3].asnumpy())
        return original(*arguments)

    original = task.mixup
    monkeypatch.setattr(task, "mixup", mixup)
    train(settings(mixup=True, num_epochs=3, mixup_off_epoch=1))
    assert len(mixed) == 10
    assert len({tuple(partner) for partner in mixed}) > 3


def test_the_teacher_sees_the_mixed_pictures_and_stays_as_it_is(settings, arrays, tmp_path,
                                                                monkeypatch):
    seen = {"teacher": [], "network": []}
    chosen = settings(mixup=True, teacher="resnet50_v1", seed=5,
                      teacher_params=str(tmp_path / "start.params"))
    before = start_of(dataclasses.replace(chosen, seed=9), arrays, tmp_path)
    made = []

    def watched(part, original):
        def build_part(*arguments):
            net = original(*arguments)
            net.register_forward_pre_hook(
                lambda _, inputs: seen[part].append((mx.autograd.is_recording(), inputs[0])))
            made.append(net)
            return net
        return build_part

    for part in seen:
        name = f"build_{part}"
        monkeypatch.setattr(task, name, watched(part, getattr(task, name)))
    train(chosen)
    taught = [images.asnumpy() for recording, images in seen["teacher"]
              if isinstance(images, mx.nd.NDArray)]
    learnt = [images.asnumpy() for recording, images in seen["network"]
              if isinstance(images, mx.nd.NDArray) and recording]
    assert len(taught) == 10 and len(learnt) == 10
    assert not any(recording for recording, _ in seen["teacher"])
    assert all(np.array_equal(a, b) for a, b in zip(taught, learnt, strict=True))
    teacher = next(net for net in made if net.collect_params()
                   and all(p.grad_req == "null" for p in net.collect_params().values()))
    for name, array in before.items():
        assert np.array_equal(teacher._collect_params_with_prefix()[name].data().asnumpy(), array)


def test_a_run_that_no_longer_improves_ends_early(settings, lines, monkeypatch):
    tops = iter((0.1, 0.5, 0.4, 0.5, 0.9, 0.9))
    monkeypatch.setattr(engine, "evaluate", lambda *_, **__: Scores(
        7, 1.0, {"top1": next(tops), "top5": 1.0}))
    result = train(settings(num_epochs=6, early_stop_patience=2))
    assert (result.best_epoch, result.last.figures["top1"]) == (1, 0.5)
    assert [line["epoch"] for line in lines(result.folder, "epoch")] == [0, 1, 2, 3]


def poison(monkeypatch, *places):
    """Let some batches of the first epoch hold what is not a number."""
    def epoch(self, number=0, start_step=0):
        for batch in original(self, number, start_step):
            if number == 0 and batch.step in places and len(batch.labels) == 4:
                batch.images[:] = np.nan
            yield batch

    original = loader.RecordLoader.epoch
    monkeypatch.setattr(loader.RecordLoader, "epoch", epoch)


def test_a_skipped_update_leaves_nothing_behind(settings, arrays, lines, tmp_path, monkeypatch):
    """As though its batch had not been there: parameters, momentum, average and scores."""
    chosen = {"nan": "skip", "lr_mode": "constant", "warmup_epochs": 0, "num_epochs": 1,
              "ema": 0.5, "batch_size": 4}
    poison(monkeypatch, 4)
    skipped = train(settings(**chosen, save_dir=str(tmp_path / "a"))).folder
    # Without the last batch of five: 17 records make four updates, from the same order's start.
    monkeypatch.setattr(engine, "timed", lambda run, batches: (
        batch for batch in batches if batch.step < 4))
    without = train(settings(**chosen, save_dir=str(tmp_path / "b"))).folder
    a, b = (arrays(folder / "last.params") for folder in (skipped, without))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    (a,), (b,) = (lines(folder, "epoch") for folder in (skipped, without))
    assert (a["train_loss"], a["train_top1"], a["bad_updates"]) == (
        b["train_loss"], b["train_top1"], 1)
    assert b["bad_updates"] == 0


def test_a_bad_batch_stops_the_run_at_its_update(settings, monkeypatch):
    poison(monkeypatch, 1, 3)
    with pytest.raises(RunFault, match=r"the loss is nan at update 1, lr 0\.004"):
        train(settings(log_interval=50))


def test_where_all_updates_are_bad_the_run_ends(settings, monkeypatch):
    poison(monkeypatch, *range(5))
    with pytest.raises(RunFault, match="no update of the epoch had finite gradients"):
        train(settings(nan="skip"))


@pytest.mark.parametrize("changes", [
    {"optimizer": "sgd"}, {"optimizer": "adam", "lr": 1e-3}, {"optimizer": "adabound", "lr": 1e-3},
    {"optimizer": "amsbound", "lr": 1e-3}, {"optimizer": "lars"}, {"ema": 0.9, "mixup": True},
    {"nan": "skip", "accumulate": 2, "batch_size": 2}],
    ids=lambda changes: "-".join(map(str, changes.values())))
def test_an_interrupted_run_goes_on_to_the_same_bits(settings, tmp_path, monkeypatch, changes):
    whole = train(settings(checkpoint_steps=1, save_dir=str(tmp_path / "whole"), **changes)).folder

    def interrupted(run, update, samples, original=step.make_update):
        if update == 7:
            raise MemoryError
        return original(run, update, samples)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(step, "make_update", interrupted)
        train(settings(checkpoint_steps=1, **changes))
    resumed = train(settings(checkpoint_steps=1, resume="auto", **changes)).folder
    a, b = (newest(folder)[0] for folder in (whole, resumed))
    assert a.arrays.keys() == b.arrays.keys()
    for kind, arrays in a.arrays.items():
        assert arrays.keys() == b.arrays[kind].keys()
        for name, array in arrays.items():
            assert np.array_equal(array.asnumpy(), b.arrays[kind][name].asnumpy()), (kind, name)
    a, b = ([json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
            for folder in (whole, resumed))
    for line in (*a, *b):
        for measured in ("samples_per_second", "seconds", "data_wait"):
            line.pop(measured, None)
    assert a == b
