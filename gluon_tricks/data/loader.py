"""Batches of samples that threads make ahead of their use, in an order, damaged ones skipped.

`ThreadedLoader` is the machinery, `SampleLoader` makes batches of any kind, `RecordLoader` batches
of images of one size with their labels.
"""

import abc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self

import cv2
import mxnet as mx
import numpy as np

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data import backends
from gluon_tricks.data.backends import cores
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.data.transforms import Transform
from gluon_tricks.errors import InputError, RunFault


class Order(Protocol):
    """Which samples a rank reads, and when (order.py)."""

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[np.ndarray]: ...


class Samples(Protocol):
    """What a loader reads from: it has a path, and a name for each sample."""

    path: Any
    keys: Any

    def name(self, index: int) -> str: ...


class SkippedReport:
    """What a loader with `records` and `skipped` reports about damaged records."""

    records: Samples
    skipped: set[int]

    def skipped_line(self) -> str:
        """One line that names the damaged records skipped so far, at most 20; "" if none."""
        if not self.skipped:
            return ""
        keys = sorted(self.records.keys[index] for index in self.skipped)
        shown = ", ".join(map(str, keys[:20])) + (", ..." if len(keys) > 20 else "")
        count = "1 damaged record" if len(keys) == 1 else f"{len(keys)} damaged records"
        return f"{self.records.path}: {count} skipped, by key: {shown}"

    def no_decodable_record(self) -> InputError:
        """The error to raise if no record of a pass could be decoded."""
        return InputError(f"{self.records.path}: no record can be decoded; for a .rec, "
                          "scripts/im2rec.py --verify says what is wrong with each")


class Making(NamedTuple):
    """A batch to be made."""

    batch: Any
    span: int  # rows per task
    make_row: Callable[[int], None]  # raises InputError if its record is damaged
    left: Callable[[range], Iterable[int]] = iter  # makes the rows it can, returns the others


class Pending(NamedTuple):
    """A batch that the threads are making."""

    batch: Any
    indices: np.ndarray
    tasks: list[Future]  # each returns the rows whose records are damaged


class ThreadedLoader(SkippedReport, abc.ABC):
    """Batches of the samples that `order` selects, made by threads; at most `prefetch` wait.

    A sample depends only on (seed, epoch, record), whatever the number of workers (0: one per
    core). With `skip_damaged`, damaged records, and those in `skipped` from the start, are dropped
    from their batch, which may even become empty: the number of batches depends only on the order.
    `skipped` collects their indices.
    """

    backend, backend_note = "threads", ""

    def __init__(self, records: Samples, order: Order, *, seed: int, workers: int, prefetch: int,
                 skip_damaged: bool, skipped: Iterable[int]):
        self.records, self.order, self.skipped = records, order, set(skipped)
        self._seed, self._prefetch, self._skip_damaged = seed, prefetch, skip_damaged
        self._pool = ThreadPoolExecutor(workers or cores(), thread_name_prefix="loader")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; tasks in progress are finished, the rest dropped."""
        self._pool.shutdown(cancel_futures=True)

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Any]:
        """The batches of an epoch from `start_step` on, in order.

        Raises InputError for a record that cannot be read, decoded or transformed.
        """
        waiting: deque[Pending] = deque()
        try:
            for step, indices in enumerate(self.order.batches(epoch, start_step), start_step):
                if self.skipped:
                    indices = indices[[index not in self.skipped for index in indices.tolist()]]
                making = self._begin(indices, SampleRng(self._seed, epoch, indices), step)
                waiting.append(Pending(making.batch, indices, [
                    self._pool.submit(self._make, making, indices, rows)
                    for rows in _spans(len(indices), making.span)]))
                if len(waiting) > self._prefetch:
                    yield self._end(waiting.popleft())
            while waiting:
                yield self._end(waiting.popleft())
        finally:
            for pending in waiting:
                for task in pending.tasks:
                    task.cancel()

    def _make(self, making: Making, indices: np.ndarray, rows: range) -> list[int]:
        """Make some rows; returns those whose records are damaged, if they may be skipped."""
        row, damaged = rows.start, []
        try:
            for row in making.left(rows):
                try:
                    making.make_row(row)
                except InputError:
                    if not self._skip_damaged:
                        raise
                    damaged.append(row)
        except InputError:
            raise
        except Exception as error:  # disk fault, out of memory, ...: say where it happened
            raise RunFault(f"{self.records.name(int(indices[row]))}: {error!r}") from error
        return damaged

    def _end(self, pending: Pending) -> Any:
        """Wait for the batch, and drop its damaged records."""
        damaged = [row for task in pending.tasks for row in task.result()]
        self.skipped.update(pending.indices[damaged].tolist())
        return self._made(pending.batch, damaged)

    @abc.abstractmethod
    def _begin(self, indices: np.ndarray, rng: SampleRng, step: int) -> Making:
        """How to make the batch of these records; its random numbers are drawn now."""

    @abc.abstractmethod
    def _made(self, batch: Any, damaged: list[int]) -> Any:
        """The finished batch without its damaged rows."""


def _spans(count: int, length: int) -> Iterator[range]:
    """Split `count` rows into ranges of `length`; the last may be shorter."""
    return (range(begin, min(begin + length, count)) for begin in range(0, count, length))


class SampleLoader(ThreadedLoader):
    """Batches of any kind: `collate` makes one from samples, which may differ in size.

    `make(index, draws)` returns a record's sample, `draw(rng)` the draws for a batch, one per
    sample (None: no draws). `collate(samples, indices, step)` returns the batch of the undamaged
    samples, of which there may be none.
    """

    def __init__(self, records: Samples, order: Order, make: Callable[[int, Any], Any],
                 collate: Callable[[list, np.ndarray, int], Any], *,
                 draw: Callable[[SampleRng], Sequence] | None = None, seed: int = 0,
                 workers: int = 4, prefetch: int = 3, skip_damaged: bool = False,
                 skipped: Iterable[int] = ()):
        super().__init__(records, order, seed=seed, workers=workers, prefetch=prefetch,
                         skip_damaged=skip_damaged, skipped=skipped)
        self._make_sample, self._collate, self._draw = make, collate, draw

    def _begin(self, indices: np.ndarray, rng: SampleRng, step: int) -> Making:
        draws = self._draw(rng) if self._draw else [None] * len(indices)
        samples: list[Any] = [None] * len(indices)

        def make_row(row: int) -> None:
            samples[row] = self._make_sample(int(indices[row]), draws[row])

        return Making((samples, indices, step), 1, make_row)

    def _made(self, batch: tuple[list, np.ndarray, int], damaged: list[int]) -> Any:
        samples, indices, step = batch
        kept = [sample for row, sample in enumerate(samples) if row not in damaged]
        return self._collate(kept, np.delete(indices, damaged), step)


_ROWS = {"native": 8, "opencv": 1}  # per task; native rows are too quick for a task each


class Batch(NamedTuple):
    """A batch of samples."""

    images: np.ndarray  # (batch, 3, size, size), for NHWC (batch, size, size, 3); with several
    #                     crops per image (batch, crops, 3, size, size)
    labels: np.ndarray  # (batch,) int32
    indices: np.ndarray  # (batch,) int64, which records these are
    step: int  # which batch of the epoch this is


class RecordLoader(ThreadedLoader, mx.io.DataIter):
    """Reads the records that an order selects and transforms their images.

    A sample depends only on (seed, epoch, record), whatever the number of workers. `labels`
    (records,), if given, replace those of the records. At most `prefetch` batches wait to be used.
    `backend`: "auto" (the native decoder if it was built), "native" or "opencv"; the attribute
    is the one chosen, and `backend_note` says why. workers 0: one per core.

    dtype "float32" or "float16", layout "NCHW" or "NHWC". `dct_shortcut` lets the native decoder
    decode large crops at a half, a quarter or an eighth of their size. With `skip_damaged`,
    damaged records, and those in `skipped` from the start, are dropped from their batch, which may
    even become empty: the number of batches depends only on the order. `skipped` collects their
    indices.

    `epoch` yields Batches. The class is also an MXNet DataIter (float32 labels, pad 0): `seek` sets
    its position, `reset` advances to the next epoch, and empty batches are skipped.
    """

    def __init__(self, records: ImageSet, transform: Transform, order: TrainOrder | EvalOrder, *,
                 seed: int = 0, workers: int = 4, prefetch: int = 3,
                 labels: np.ndarray | None = None, backend: str = "auto", dtype: str = "float32",
                 layout: str = "NCHW", dct_shortcut: bool = False, skip_damaged: bool = False,
                 skipped: Iterable[int] = ()):
        if (dtype not in ("float32", "float16") or layout not in ("NCHW", "NHWC")
                or backend not in ("auto", "native", "opencv")):
            raise ValueError(f"no such dtype, layout or backend: {dtype}, {layout}, {backend}")
        ThreadedLoader.__init__(self, records, order, seed=seed, workers=workers,
                                prefetch=prefetch, skip_damaged=skip_damaged, skipped=skipped)
        mx.io.DataIter.__init__(self, order.batch_size)
        self.dtype, self.layout = np.dtype(dtype), layout
        self.backend, self.backend_note = backends.choose(backend, transform)
        self._transform, self._dct_shortcut = transform, dct_shortcut
        self._labels = (records.labels if labels is None else labels).astype(np.int32)
        self._buffers: list[np.ndarray] = []
        self._position, self._begun, self._batches = (0, 0), False, None
        cv2.setNumThreads(0)  # OpenCV's own threads would compete with ours

    def close(self) -> None:
        self._batches = None
        super().close()

    def _begin(self, indices: np.ndarray, rng: SampleRng, step: int) -> Making:
        draws = self._transform.draw(rng)
        batch = Batch(self._buffer(len(indices)), self._labels[indices], indices, step)
        job = backends.native_job(
            self.records, self._transform, draws, indices, batch.images,
            channels_last=self.layout == "NHWC", dct_shortcut=self._dct_shortcut,
        ) if self.backend == "native" else None

        def by_opencv(row: int) -> None:
            backends.opencv_row(self.records, self._transform, draws, int(indices[row]), row,
                                batch.images, channels_last=self.layout == "NHWC")

        return Making(batch, _ROWS[self.backend], by_opencv,
                      (lambda rows: job.run(rows.start, rows.stop)) if job else iter)

    def _made(self, batch: Batch, damaged: list[int]) -> Batch:
        if not damaged:
            return batch
        return Batch(*(np.delete(part, damaged, axis=0) for part in batch[:3]), batch.step)

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of one image's output."""
        side, crops = self._transform.size, self._transform.crops
        shape = (3, side, side) if self.layout == "NCHW" else (side, side, 3)
        return shape if crops == 1 else (crops, *shape)

    def _buffer(self, rows: int) -> np.ndarray:
        """Memory for a batch's images; a buffer that nobody holds any more is reused, because the
        system clears new memory first."""
        shape = (rows, *self._shape)
        for buffer in self._buffers:
            # References: the list, this loop, getrefcount's argument. Views would count too.
            if buffer.shape == shape and sys.getrefcount(buffer) == 3:
                return buffer
        buffer = np.empty(shape, self.dtype)
        if rows == self.order.batch_size and len(self._buffers) < self._prefetch + 2:
            self._buffers.append(buffer)
        return buffer

    # MXNet's DataIter interface

    @property
    def provide_data(self) -> list[mx.io.DataDesc]:
        return [mx.io.DataDesc("data", (self.batch_size, *self._shape), self.dtype, self.layout)]

    @property
    def provide_label(self) -> list[mx.io.DataDesc]:
        return [mx.io.DataDesc("softmax_label", (self.batch_size,), np.float32, "N")]

    def seek(self, epoch: int, step: int = 0) -> None:
        """Make `step` of `epoch` the next batch."""
        if epoch < 0 or not 0 <= step <= self.order.steps:
            raise ValueError(f"no step {step} of epoch {epoch}: an epoch has {self.order.steps}")
        self._position, self._begun, self._batches = (epoch, step), False, None

    def reset(self) -> None:
        """Go to the start of the next epoch; do nothing if this one has not begun."""
        if self._begun:
            self.seek(self._position[0] + 1)

    def next(self) -> mx.io.DataBatch:
        """The next batch of the epoch; the last one of an evaluation may be smaller.

        After an error the epoch is over: `reset`, or `seek` past the batch.
        """
        if self._batches is None:
            self._batches = self.epoch(*self._position)
        self._begun = True  # even if it has no batch left, or the first one fails
        batch = next(batch for batch in self._batches if len(batch.labels))
        # The NDArray keeps the shared memory alive. It takes a view, which from_numpy makes
        # read-only.
        images = mx.nd.from_numpy(batch.images.view())
        # No provide_data: Module would take it as the shape of a smaller batch.
        return mx.io.DataBatch([images], [mx.nd.array(batch.labels, dtype="float32")], pad=0,
                               index=batch.indices)
