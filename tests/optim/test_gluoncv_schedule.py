"""GluonCV's schedule, against its own classes as its ImageNet script combines them."""

import mxnet as mx
import pytest
from gluoncv.utils import LRScheduler, LRSequential
from mxnet import autograd, gluon

from gluon_tricks.optim.gluoncv_schedule import gluoncv_lr_at

LR = 0.4


def gluoncvs(mode, epochs, warmup, steps, step_epochs):
    """As in GluonCV's train_imagenet.py; its schedulers for empty phases stay idle."""
    return LRSequential([
        LRScheduler("linear", base_lr=0, target_lr=LR, nepochs=warmup, iters_per_epoch=steps),
        LRScheduler(mode, base_lr=LR, target_lr=0, nepochs=epochs - warmup, iters_per_epoch=steps,
                    step_epoch=[epoch - warmup for epoch in step_epochs], step_factor=0.1,
                    power=2)])


@pytest.mark.parametrize("mode", ["step", "cosine", "poly"])
@pytest.mark.parametrize(("epochs", "warmup", "steps", "step_epochs"), [
    (12, 0, 7, (3, 6, 9)), (12, 2, 7, (3, 6, 9)), (12, 5, 7, (3, 6, 9)),  # one in the warm-up
    (12, 1, 7, (6, 12)), (6, 5, 3, (5,)), (5, 5, 3, (2,)), (2, 0, 2, (1,)), (120, 5, 20, (30, 60))])
def test_every_update_of_a_run(mode, epochs, warmup, steps, step_epochs):
    reference = gluoncvs(mode, epochs, warmup, steps, step_epochs)
    want = [reference(number) for number in range(1, epochs * steps + 1)]  # see the next test
    got = [gluoncv_lr_at(update, base_lr=LR, updates=epochs * steps, warmup_updates=warmup * steps,
                         decay=mode, step_updates=[epoch * steps for epoch in step_epochs])
           for update in range(epochs * steps)]
    assert got == pytest.approx(want, rel=1e-12, abs=1e-17)
    assert len(set(want)) > 1


@pytest.mark.parametrize("optimizer", ["nag", "sgd", "adam"])
def test_gluons_trainer_counts_updates_from_one(optimizer):
    numbers = []

    class Recorder(mx.lr_scheduler.LRScheduler):
        def __call__(self, num_update):
            numbers.append(num_update)
            return 0.1

    net = gluon.nn.Dense(1, in_units=2)
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), optimizer, {"lr_scheduler": Recorder()})
    for _ in range(3):
        with autograd.record():
            loss = net(mx.nd.ones((1, 2)))
        loss.backward()
        trainer.step(1)
    assert sorted(set(numbers)) == [1, 2, 3]


def test_literals():
    """Four updates: for GluonCV numbers 1, 2, 3 and 3 again of N - 1 = 3."""
    def lrs(**options):
        return [gluoncv_lr_at(update, base_lr=1.0, updates=4, **options) for update in range(4)]
    assert lrs(decay="cosine") == pytest.approx([0.75, 0.25, 0, 0], abs=1e-15)
    assert lrs(decay="poly") == pytest.approx([4 / 9, 1 / 9, 0, 0], abs=1e-15)
    assert lrs(decay="step", step_updates=[2]) == pytest.approx([1, 0.1, 0.1, 0.1])
    assert lrs(decay="constant") == [1, 1, 1, 1]
    assert lrs(decay="constant", warmup_updates=3) == [0.5, 1, 1, 1]
    # phases of one update, where GluonCV divides by zero, are at their end
    assert lrs(decay="poly", warmup_updates=1) == pytest.approx([1, 0.25, 0, 0])
    assert lrs(decay="poly", warmup_updates=3) == pytest.approx([0.5, 1, 0, 0])
    assert gluoncv_lr_at(0, base_lr=1.0, updates=1, decay="poly") == 0
