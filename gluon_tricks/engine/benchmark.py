"""Measures the parts of a run by themselves: its updates on made-up data, its input pipeline."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx

from gluon_tricks.config.settings import RunSettings
from gluon_tricks.engine.saving import Saver
from gluon_tricks.engine.start import build_run
from gluon_tricks.engine.stopping import StopRequest
from gluon_tricks.engine.task import Batch, Task
from gluon_tricks.engine.train import train_epoch
from gluon_tricks.parallel.device import find_device
from gluon_tricks.parallel.ranks import Ranks, join
from gluon_tricks.runs.agreement import agreed
from gluon_tricks.runs.resume import ResumePoint
from gluon_tricks.runs.scores import Sums

WARM_UP = 2  # updates, or batches, before the clock starts: MXNet compiles during the first ones


class SyntheticLoader:
    """Stands in for a data set's loader: the same batch, `steps` times an epoch."""

    backend, backend_note = "synthetic", ""
    order = SimpleNamespace(records=0, steps_of_longest_rank=0)  # nothing to evaluate on

    def __init__(self, batch: Batch):
        self.steps, self.skipped, self._batch = 0, set(), batch

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        return (self._batch._replace(step=step) for step in range(start_step, self.steps))


class SyntheticRun:
    """A run on made-up data, to time up to `most` updates at once.

    Its folder lasts as long as `stack`. The settings need not be resolved: what the data would
    decide is assumed.
    """

    def __init__(self, settings: RunSettings, task: Task, most: int, stack: ExitStack):
        ranks = stack.enter_context(join(settings.world_size))
        ranks.check_same(agreed(settings))
        settings = task.without_data(dataclasses.replace(
            settings, num_training_samples=most * settings.global_batch, save_dir=None,
            resume=None, checkpoint_steps=0, tensorboard=False, warmup_epochs=0, warmup_updates=0,
            warmup_lr=0.0, warmup_mode="linear"))
        device = find_device(settings.num_gpus, settings.dtype, ranks.local_rank)
        network = task.network(device)
        self._loader = SyntheticLoader(task.example())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.run, _ = build_run(settings, task, device, network, (self._loader, self._loader),
                                ResumePoint(folder, None, []), StopRequest(ranks), stack, ranks,
                                made_up=True)
        self.saver = Saver(self.run)

    def seconds(self, updates: int) -> float:
        """How long the engine takes for so many updates."""
        self._loader.steps = updates * self.run.settings.accumulate
        mx.nd.waitall()
        self.run.ranks.wait()
        started = time.perf_counter()
        train_epoch(self.run, self.saver)
        mx.nd.waitall()
        taken = time.perf_counter() - started
        self.run.progress.step, self.run.progress.trained = 0, Sums()
        return taken


def training_speed(settings: RunSettings, task: Task, updates: int) -> float | None:
    """Samples/s of all devices, over `updates` updates on made-up data; None but for rank 0."""
    with ExitStack() as stack:
        made_up = SyntheticRun(settings, task, updates, stack)
        made_up.seconds(min(WARM_UP, updates))
        speed = updates * made_up.run.settings.global_batch / made_up.seconds(updates)
        return speed if made_up.run.ranks.first else None


def input_speed(settings: RunSettings, task: Task, batches: int) -> tuple[float, str]:
    """Samples/s at which the training set is read, decoded and augmented, and the backend's name.

    Measured over `batches` batches, of as many epochs as that takes.
    """
    with task.open(settings, "train") as train:
        task.resolve(settings, train)
        with task.loader(train, Ranks(), training=True) as loader:
            made = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
            for batch in itertools.islice(made, WARM_UP):
                del batch  # frees its memory for the next one
            started, samples = time.perf_counter(), 0
            for batch in itertools.islice(made, batches):
                samples += len(batch.indices)
            return samples / (time.perf_counter() - started), loader.backend
