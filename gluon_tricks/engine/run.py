"""What the parts of a run share."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config.settings import RunSettings
from gluon_tricks.engine.stopping import StopRequest
from gluon_tricks.engine.task import Loader, Task
from gluon_tricks.models.freezing import frozen_names
from gluon_tricks.models.parameters import is_statistic, named_arrays, set_arrays
from gluon_tricks.optim.ema import WeightAverage
from gluon_tricks.optim.gluoncv_schedule import gluoncv_lr_at
from gluon_tricks.optim.schedule import lr_at
from gluon_tricks.optim.update import ParameterUpdater
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.runlog import RunLog


@dataclass(frozen=True)
class Run:
    """All that a run's steps need; only `progress` changes."""

    settings: RunSettings
    task: Task
    device: mx.Context
    network: HybridBlock
    updater: ParameterUpdater
    average: WeightAverage | None
    train_data: Loader
    val_data: Loader
    log: RunLog
    progress: Progress
    stop: StopRequest
    ranks: Ranks
    checkpoint: Path | None = None  # what it was resumed from

    def agree_statistics(self) -> None:
        """Average BatchNorm's running statistics over ranks, since each rank has its own.

        The weight average's copies are averaged in the same way: the mean of averages is the
        average of means. Frozen ones are equal already, and averaging could change their last bits.
        """
        frozen = frozen_names(self.network)
        mx.nd.waitall()  # a backward pass writes statistics, unknown to MXNet's engine
        for part, arrays in (("network", named_arrays(self.network)),
                             ("average", self.average.arrays if self.average else {})):
            self.ranks.average({f"{part}:{name}": array for name, array in arrays.items()
                                if is_statistic(name) and name not in frozen})
        mx.nd.waitall()

    @contextlib.contextmanager
    def weights_to_keep(self) -> Iterator[None]:
        """Give the network its averaged weights, if there are any, for the length of the block."""
        if self.average is None:
            yield
            return
        mx.nd.waitall()  # a backward pass writes statistics, unknown to MXNet's engine
        own = {name: array.copy() for name, array in named_arrays(self.network).items()}
        try:
            set_arrays(self.network, self.average.arrays)
            yield
        finally:
            set_arrays(self.network, own)

    @functools.cached_property
    def lr(self) -> Callable[[int], float]:
        """The learning rate of an update, a function of its number alone."""
        rule = gluoncv_lr_at if self.settings.gluoncv_compat else lr_at
        return functools.partial(rule, **self.settings.schedule())

    @property
    def updates_done(self) -> int:
        """Updates since the run's start, skipped ones included."""
        done = self.progress.epoch * self.steps + self.progress.step
        return done // self.settings.accumulate

    @functools.cached_property
    def steps(self) -> int:
        """Batches per epoch, a multiple of --accumulate."""
        return self.settings.steps_per_epoch * self.settings.accumulate
