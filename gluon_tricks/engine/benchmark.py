"""How fast a run's parts are, by themselves: its updates on made-up data, its input pipeline."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mxnet as mx
import numpy as np

from gluon_tricks.classification.loaders import damaged_records, open_records, train_loader
from gluon_tricks.classification.network import build_network, build_teacher, initialize
from gluon_tricks.classification.settle import resolve, resolve_without_data
from gluon_tricks.config.settings import Settings
from gluon_tricks.data.loader import Batch
from gluon_tricks.engine.start import assemble
from gluon_tricks.engine.stopping import StopRequest
from gluon_tricks.engine.train import train_epoch
from gluon_tricks.parallel.device import find_device
from gluon_tricks.parallel.ranks import join
from gluon_tricks.runs.agreement import agreed
from gluon_tricks.runs.resume import Start
from gluon_tricks.runs.scores import Sums

WARM_UP = 2  # updates, or batches, before the clock starts: MXNet compiles in the first ones


def synthetic_batch(settings: Settings, step: int = 0) -> Batch:
    """Normal noise of the shapes that settled settings ask for; the same whatever the step."""
    rng = np.random.default_rng(settings.seed)
    shape = (settings.batch_size, 3, settings.input_size, settings.input_size)
    return Batch(rng.standard_normal(shape, np.float32).astype(settings.array_dtype),
                 rng.integers(settings.num_classes, size=settings.batch_size, dtype=np.int32),
                 np.arange(settings.batch_size), step)


class SyntheticLoader:
    """`steps` times the same batch: what a run takes in place of a set's loader."""

    backend, backend_note = "synthetic", ""

    def __init__(self, settings: Settings):
        self.steps, self.skipped = 0, set()
        self._batch = synthetic_batch(settings)

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        return (self._batch._replace(step=step) for step in range(start_step, self.steps))


class SyntheticRun:
    """A run on made-up data, up to `most` updates at a time; its folder lasts as long as `stack`.

    The settings need not be settled; what the data would decide is ImageNet's.
    """

    def __init__(self, settings: Settings, most: int, stack: ExitStack):
        ranks = stack.enter_context(join(settings.world_size))
        ranks.check_same(agreed(settings))
        settings = resolve_without_data(dataclasses.replace(
            settings, num_training_samples=most * settings.global_batch, save_dir=None,
            resume=None, resume_params=None, resume_states=None, resume_epoch=0,
            checkpoint_steps=0, tensorboard=False, warmup_epochs=0, warmup_updates=0,
            warmup_lr=0.0, warmup_mode="linear"))
        device = find_device(settings.num_gpus, settings.dtype, ranks.local_rank)
        networks = build_network(settings), build_teacher(settings, device)
        initialize(networks[0], settings, device)
        self._loader = SyntheticLoader(settings)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.run, _ = assemble(settings, device, networks, (self._loader, self._loader),
                               Start(folder, None, []), StopRequest(ranks), stack, ranks)

    def seconds(self, updates: int) -> float:
        """What so many updates take, as the engine makes them."""
        self._loader.steps = updates * self.run.settings.accumulate
        mx.nd.waitall()
        self.run.ranks.wait()
        started = time.perf_counter()
        train_epoch(self.run)
        mx.nd.waitall()
        taken = time.perf_counter() - started
        self.run.progress.step, self.run.progress.trained = 0, Sums()
        return taken


def training_speed(settings: Settings, updates: int) -> float | None:
    """Samples/s of `updates` updates on made-up data, of all devices; for the first rank."""
    with ExitStack() as stack:
        made_up = SyntheticRun(settings, updates, stack)
        made_up.seconds(min(WARM_UP, updates))
        speed = updates * made_up.run.settings.global_batch / made_up.seconds(updates)
        return speed if made_up.run.ranks.first else None


def input_speed(settings: Settings, batches: int) -> tuple[float, str]:
    """Samples/s that the training set is read, decoded and augmented at, and by which backend.

    Passes follow one another until `batches` are made.
    """
    with open_records(settings, "train") as records:
        settings = resolve(settings, len(records), records.class_count())
        with train_loader(settings, records,
                                damaged_records(settings, records)) as loader:
            made = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
            for batch in itertools.islice(made, WARM_UP):
                del batch  # its memory is for the next one
            started, samples = time.perf_counter(), 0
            for batch in itertools.islice(made, batches):
                samples += len(batch.labels)
            return samples / (time.perf_counter() - started), loader.backend
