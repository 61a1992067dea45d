"""Computes one batch's gradients, and makes an update of the gradients of --accumulate batches."""

import mxnet as mx
import numpy as np
from mxnet import autograd

from gluon_tricks.engine.run import Run
from gluon_tricks.engine.saving import Saver
from gluon_tricks.engine.tally import Tally
from gluon_tricks.engine.task import Batch
from gluon_tricks.models.parameters import is_statistic, named_arrays
from gluon_tricks.optim.precision import all_finite
from gluon_tricks.optim.regularize import add_l1, clip_norm


def add_gradients(run: Run, batch: Batch, tally: Tally) -> mx.nd.NDArray:
    """Run forward and backward on a batch; its samples' losses. Does not wait for the device."""
    number = run.progress.epoch * run.steps + batch.step
    if run.task.random:  # dropout's masks; seeding takes a millisecond
        mx.random.seed(step_seed(run.settings.seed, number, run.ranks.rank), ctx=run.device)
    inputs = run.task.inputs(batch, epoch=run.progress.epoch, rank=run.ranks.rank)
    with autograd.record():
        losses, parts = run.task.losses(run.network, inputs)
    losses.backward(mx.nd.full(losses.shape, loss_scale(run), ctx=run.device))
    tally.add(losses, parts, count=len(batch.indices), number=number // run.settings.accumulate)
    return losses


def loss_scale(run: Run) -> float:
    """What the loss is multiplied by, and the gradients are divided by in the update."""
    wanted = run.settings.loss_scale
    return run.progress.loss_scale.scale if wanted == "dynamic" else wanted or 1.0


def step_seed(seed: int, number: int, rank: int = 0) -> int:
    """MXNet's seed for one batch, 31 bits: its generator's state cannot be saved, so each batch is
    seeded."""
    return int(np.random.SeedSequence([seed, number, rank]).generate_state(1)[0]) >> 1


class Step:
    """Takes batches, and updates the parameters once those of an update are complete."""

    def __init__(self, run: Run, tally: Tally, saver: Saver):
        self._run, self._tally = run, tally
        self._samples = 0  # of the batches since the last update
        self._skipping = Skipping(run, tally, saver) if run.settings.nan == "skip" else None

    def take(self, batch: Batch) -> mx.nd.NDArray | None:
        """Train on a batch. Returns its samples' losses, which the device may not have computed
        yet; None if it has no samples."""
        run, accumulate = self._run, self._run.settings.accumulate
        if self._skipping and batch.step % accumulate == 0:
            self._skipping.remember()
        losses = add_gradients(run, batch, self._tally) if len(batch.indices) else None
        self._samples += len(batch.indices)
        run.progress.step = batch.step + 1
        if run.progress.step % accumulate == 0:
            self._finish()
        return losses

    def _finish(self) -> None:
        """Make the update, unless all its samples were skipped as damaged."""
        run = self._run
        samples = self._samples * run.ranks.size
        if run.settings.on_bad_record == "skip":  # ranks may have different numbers
            samples = int(run.ranks.allreduce([self._samples])[0])
        if samples:
            if not self._samples:  # this rank has nothing to add, but others do
                zero(run.updater.gradients)
            made = make_update(run, run.updates_done - 1, samples)
            if self._skipping:
                self._skipping.judge(made)
        self._samples = 0


class Skipping:
    """Implements --nan skip: a skipped update leaves no trace in scores and statistics."""

    MOST = 50  # in a row: a few bad samples do not cause more

    def __init__(self, run: Run, tally: Tally, saver: Saver):
        self._run, self._tally, self._saver = run, tally, saver
        self._statistics = {name: array for name, array in named_arrays(run.network).items()
                            if is_statistic(name)}
        self._before: dict[str, mx.nd.NDArray] = {}
        self._in_a_row = 0

    def remember(self) -> None:
        """Save what `judge` may restore; call it before the first batch of an update. Waits."""
        self._mark = self._tally.mark()
        self._before = {name: array.copy() for name, array in self._statistics.items()}
        mx.nd.waitall()  # a backward pass writes statistics, unknown to MXNet's engine

    def judge(self, made: bool) -> None:
        """Undo the traces of an update that was not made. Raises RunFault if too many in a row
        were not."""
        if made:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row > self.MOST:
            raise self._saver.diverged(f"{self._in_a_row} updates in a row had gradients that are "
                                       "not finite")
        mx.nd.waitall()
        self._tally.rewind(self._mark)
        for name, array in self._before.items():
            self._statistics[name][:] = array


def make_update(run: Run, number: int, samples: int) -> bool:
    """Update the parameters with the gradients summed over `samples` samples of all ranks.

    Returns whether it was made: with a dynamic loss scale or --nan skip, it is not if a gradient is
    not finite (which waits for the device). All ranks check the same sums, so they agree.
    """
    settings, progress = run.settings, run.progress
    gradients = run.updater.gradients
    # On CPUs at least one group, so that runs are bit-identical: which tensors Horovod fuses varies
    # with timing, and decides the order in which three or more ranks add.
    divided = run.ranks.allreduce_gradients(
        gradients, groups=settings.num_groups or int(settings.num_gpus == 0),
        predivide=settings.grad_predivide, compress=settings.grad_compression == "fp16")
    rescale = divided / (samples * loss_scale(run))
    if settings.l1:  # part of the loss, so it is scaled, checked and clipped with it
        add_l1(run.updater.parameters, settings.l1 / rescale)
    finite = True
    if settings.loss_scale == "dynamic" or settings.nan == "skip":
        finite = all_finite(gradients)
    if settings.loss_scale == "dynamic":
        progress.loss_scale = progress.loss_scale.after(not finite)
    if finite:
        if settings.clip_grad_norm:
            clip_norm(gradients, settings.clip_grad_norm, rescale)
        run.updater.apply(number, run.lr(number), rescale)
        if run.average:
            run.average.update(number)
    elif settings.loss_scale != "dynamic":
        progress.bad_updates += 1
    if settings.accumulate > 1:
        zero(gradients)
    return finite


def zero(arrays: list[mx.nd.NDArray]) -> None:
    """Set arrays to 0, in place."""
    for array in arrays:
        array[:] = 0
