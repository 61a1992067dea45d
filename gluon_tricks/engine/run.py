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
    """All that a run's steps need; `progress` alone changes."""

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
    checkpoint: Path | None = None  # that it was resumed from

    def agree_statistics(self) -> None:
        """Give all ranks the mean of BatchNorm's running statistics, which each has its own of.

        A rank's average of them is averaged alike: the mean of averages is the average of means.
        Frozen ones are alike, and would not keep their last bits.
        """
        frozen = frozen_names(self.network)
        mx.nd.waitall()  # a backward pass writes statistics, of which MXNet's engine is not told
        for part, arrays in (("network", named_arrays(self.network)),
                             ("average", self.average.arrays if self.average else {})):
            self.ranks.average({f"{part}:{name}": array for name, array in arrays.items()
                                if is_statistic(name) and name not in frozen})
        mx.nd.waitall()

    @contextlib.contextmanager
    def weights_to_keep(self) -> Iterator[None]:
        """The network has its averaged weights meanwhile, if there are any."""
        if self.average is None:
            yield
            return
        mx.nd.waitall()  # a backward pass writes statistics, of which MXNet's engine is not told
        own = {name: array.copy() for name, array in named_arrays(self.network).items()}
        try:
            set_arrays(self.network, self.average.arrays)
            yield
        finally:
            set_arrays(self.network, own)

    @functools.cached_property
    def lr(self) -> Callable[[int], float]:
        """The learning rate of an update, of its number alone."""
        rule = gluoncv_lr_at if self.settings.gluoncv_compat else lr_at
        return functools.partial(rule, **self.settings.schedule())

    @property
    def updates_done(self) -> int:
        """Updates since the run's start, those of skipped batches included."""
        done = self.progress.epoch * self.steps + self.progress.step
        return done // self.settings.accumulate

    @functools.cached_property
    def steps(self) -> int:
        """Batches an epoch: those of complete updates."""
        return self.settings.steps_per_epoch * self.settings.accumulate
