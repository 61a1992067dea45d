"""What the parts of a run share."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config import Settings
from gluon_tricks.engine import build
from gluon_tricks.engine.parameters import arrays_of, set_arrays
from gluon_tricks.engine.progress import Progress
from gluon_tricks.engine.runlog import RunLog
from gluon_tricks.engine.saving import Saver
from gluon_tricks.engine.stopping import StopRequest
from gluon_tricks.optim.ema import WeightAverage
from gluon_tricks.optim.gluoncv_schedule import gluoncv_lr_at
from gluon_tricks.optim.schedule import lr_at
from gluon_tricks.optim.update import Update


@dataclass(frozen=True)
class Run:
    """All that a run's steps need; `progress` alone changes."""

    settings: Settings
    device: mx.Context
    network: HybridBlock
    random: bool  # whether it draws random numbers
    teacher: HybridBlock | None
    loss: HybridBlock
    update: Update
    average: WeightAverage | None
    train_data: build.Loader
    val_data: build.Loader
    log: RunLog
    progress: Progress
    stop: StopRequest
    saver: Saver

    @contextlib.contextmanager
    def weights_to_keep(self) -> Iterator[None]:
        """The network has its averaged weights meanwhile, where there are any."""
        if self.average is None:
            yield
            return
        mx.nd.waitall()  # a backward pass writes statistics, of which MXNet's engine is not told
        own = {name: array.copy() for name, array in arrays_of(self.network).items()}
        try:
            set_arrays(self.network, self.average.arrays)
            yield
        finally:
            set_arrays(self.network, own)

    def lr(self, update: int) -> float:
        """The learning rate of an update, of its number alone."""
        schedule = self.settings.schedule()
        return gluoncv_lr_at(update, **schedule) if self.settings.gluoncv_compat else \
            lr_at(update, **schedule)

    @property
    def updates_done(self) -> int:
        """Updates since the run's start, those of skipped batches included."""
        progress, settings = self.progress, self.settings
        return progress.epoch * settings.steps_per_epoch + progress.step // settings.accumulate

    @property
    def steps(self) -> int:
        """Batches an epoch: whole updates."""
        return self.settings.steps_per_epoch * self.settings.accumulate
