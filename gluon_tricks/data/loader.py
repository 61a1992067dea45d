"""Batches of decoded, transformed pictures, made by threads ahead of their use."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import mxnet as mx
import numpy as np

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data import backends
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.sets import PictureSet
from gluon_tricks.data.transforms import Transform
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.optim import adabound, lars  # noqa: F401, they register themselves

_ROWS = {"native": 8, "opencv": 1}  # a task; native ones are so short that starting them counts


class Batch(NamedTuple):
    """Some samples."""

    images: np.ndarray  # (batch, 3, size, size), for NHWC (batch, size, size, 3); of several crops
    #                     a picture (batch, crops, 3, size, size)
    labels: np.ndarray  # (batch,) int32
    indices: np.ndarray  # (batch,) int64, which records these are
    step: int  # which batch of the epoch this is


class _Pending(NamedTuple):
    """A batch that threads are making."""

    batch: Batch
    tasks: list[Future]  # each gives the rows whose records are damaged


class RecordLoader(mx.io.DataIter):
    """Reads the records an order names and transforms their pictures.

    A sample depends on (seed, epoch, record) alone, whatever the number of workers. `labels`
    (records,) stand in for those of the records where given. At most `prefetch` batches wait to be
    used. `backend`: "auto" (the native decoder where it was built), "native" or "opencv";
    afterwards the one that was taken, and `backend_note` why. workers 0: one a core.

    dtype "float32" or "float16", layout "NCHW" or "NHWC". `dct_shortcut` lets the native decoder
    decode large crops at a half, a quarter or an eighth of their size. With `skip_damaged`,
    damaged records, and those that `skipped` names from the start, are left out of their batch,
    which is so much smaller, even empty: the number of batches depends on the order alone.
    `skipped` collects their numbers.

    `epoch` gives Batches. The class is also a DataIter of MXNet's (float32 labels, pad 0), whose
    position `seek` sets and whose `reset` goes on to the next epoch; it passes over empty batches.
    """

    def __init__(self, records: PictureSet, transform: Transform, order: TrainOrder | EvalOrder, *,
                 seed: int = 0, workers: int = 4, prefetch: int = 3,
                 labels: np.ndarray | None = None, backend: str = "auto", dtype: str = "float32",
                 layout: str = "NCHW", dct_shortcut: bool = False, skip_damaged: bool = False,
                 skipped: Iterable[int] = ()):
        super().__init__(order.batch_size)
        if (dtype not in ("float32", "float16") or layout not in ("NCHW", "NHWC")
                or backend not in ("auto", "native", "opencv")):
            raise ValueError(f"no such dtype, layout or backend: {dtype}, {layout}, {backend}")
        self.order, self.dtype, self.layout = order, np.dtype(dtype), layout
        self.records = records
        self.backend, self.backend_note = backends.choose(backend, transform)
        self.skipped = set(skipped)
        self._transform, self._seed, self._prefetch = transform, seed, prefetch
        self._labels = (records.labels if labels is None else labels).astype(np.int32)
        self._dct_shortcut, self._skip_damaged = dct_shortcut, skip_damaged
        self._pool = ThreadPoolExecutor(workers or backends.cores(), thread_name_prefix="loader")
        self._buffers: list[np.ndarray] = []
        self._position, self._begun, self._batches = (0, 0), False, None
        cv2.setNumThreads(0)  # the threads are ours; OpenCV's own would fight them

    def __enter__(self) -> "RecordLoader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; what they have begun is finished, the rest dropped."""
        self._batches = None
        self._pool.shutdown(cancel_futures=True)

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on, in order.

        Raises InputError for a record that cannot be read, decoded or transformed.
        """
        waiting: deque[_Pending] = deque()
        try:
            for step, indices in enumerate(self.order.batches(epoch, start_step), start_step):
                waiting.append(self._start(indices, epoch, step))
                if len(waiting) > self._prefetch:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            for pending in waiting:
                for task in pending.tasks:
                    task.cancel()

    def _start(self, indices: np.ndarray, epoch: int, step: int) -> _Pending:
        if self.skipped:
            indices = indices[[index not in self.skipped for index in indices.tolist()]]
        draws = self._transform.draw(SampleRng(self._seed, epoch, indices))
        batch = Batch(self._buffer(len(indices)), self._labels[indices], indices, step)
        job = backends.native_job(
            self.records, self._transform, draws, indices, batch.images,
            channels_last=self.layout == "NHWC", dct_shortcut=self._dct_shortcut,
        ) if self.backend == "native" else None
        rows = _ROWS[self.backend]
        return _Pending(batch, [
            self._pool.submit(self._make, batch, draws, job, range(begin, end))
            for begin, end in _spans(len(indices), rows)])

    def _make(self, batch: Batch, draws: Any, job: Any, rows: range) -> list[int]:
        """Make some rows; returns those whose records are damaged, where they may be skipped."""
        row, damaged = rows.start, []
        try:
            for row in job.run(rows.start, rows.stop) if job else rows:
                if not self._make_by_opencv(batch, draws, row):
                    damaged.append(row)
        except InputError:
            raise
        except Exception as error:  # a disk's fault, no memory left, ...: say where it happened
            raise RunFault(f"{self.records.name(int(batch.indices[row]))}: {error!r}") from error
        return damaged

    def _make_by_opencv(self, batch: Batch, draws: Any, row: int) -> bool:
        try:
            backends.opencv_row(self.records, self._transform, draws, int(batch.indices[row]), row,
                                batch.images, channels_last=self.layout == "NHWC")
        except InputError:
            if not self._skip_damaged:
                raise
            return False
        return True

    def _finish(self, pending: _Pending) -> Batch:
        """The batch, without damaged records."""
        damaged = [row for task in pending.tasks for row in task.result()]
        batch = pending.batch
        self.skipped.update(batch.indices[damaged].tolist())
        if not damaged:
            return batch
        return Batch(*(np.delete(part, damaged, axis=0) for part in batch[:3]), batch.step)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of what is made of a picture."""
        side, crops = self._transform.size, self._transform.crops
        shape = (3, side, side) if self.layout == "NCHW" else (side, side, 3)
        return shape if crops == 1 else (crops, *shape)

    def _buffer(self, rows: int) -> np.ndarray:
        """Memory for a batch's images: some that nobody holds any more, where there is some, for
        the system clears new memory first."""
        shape = (rows, *self._shape)
        for buffer in self._buffers:
            # The list, this loop and getrefcount's argument; views of it would count, too.
            if buffer.shape == shape and sys.getrefcount(buffer) == 3:
                return buffer
        buffer = np.empty(shape, self.dtype)
        if rows == self.order.batch_size and len(self._buffers) < self._prefetch + 2:
            self._buffers.append(buffer)
        return buffer

    # As MXNet's data iterators

    @property
    def provide_data(self) -> list[mx.io.DataDesc]:
        return [mx.io.DataDesc("data", (self.batch_size, *self._shape), self.dtype, self.layout)]

    @property
    def provide_label(self) -> list[mx.io.DataDesc]:
        return [mx.io.DataDesc("softmax_label", (self.batch_size,), np.float32, "N")]

    def seek(self, epoch: int, step: int = 0) -> None:
        """Let the next batch be that of `step` in `epoch`."""
        if epoch < 0 or not 0 <= step <= self.order.steps:
            raise ValueError(f"no step {step} of epoch {epoch}: an epoch has {self.order.steps}")
        self._position, self._begun, self._batches = (epoch, step), False, None

    def reset(self) -> None:
        """Go to the start of the next epoch; does nothing where this one was not begun."""
        if self._begun:
            self.seek(self._position[0] + 1)

    def next(self) -> mx.io.DataBatch:
        """The next batch of the epoch; the last one of an evaluation may be smaller.

        After an error the epoch is over: `reset`, or `seek` behind the batch.
        """
        if self._batches is None:
            self._batches = self.epoch(*self._position)
        self._begun = True  # even if it has no batch left, or the first one fails
        batch = next(batch for batch in self._batches if len(batch.labels))
        # The NDArray keeps the memory that it shares alive. A view, for it is made read-only.
        images = mx.nd.from_numpy(batch.images.view())
        # No provide_data: Module would take it for the shape of a batch that is smaller.
        return mx.io.DataBatch([images], [mx.nd.array(batch.labels, dtype="float32")], pad=0,
                               index=batch.indices)


def _spans(count: int, length: int) -> Iterator[tuple[int, int]]:
    """[begin, end) of the parts of `count` things, `length` each but the last."""
    return ((begin, min(begin + length, count)) for begin in range(0, count, length))



def skipped_line(loader: RecordLoader) -> str:
    """One line that names damaged records a loader has left out so far, 20 at most; "" for none."""
    if not loader.skipped:
        return ""
    keys = sorted(loader.records.keys[index] for index in loader.skipped)
    shown = ", ".join(map(str, keys[:20])) + (", ..." if len(keys) > 20 else "")
    left_out = "1 damaged record is" if len(keys) == 1 else f"{len(keys)} damaged records are"
    return f"{loader.records.path}: {left_out} left out, by key: {shown}"


def nothing_left(loader: RecordLoader) -> InputError:
    """What to raise where a pass had no record that could be decoded."""
    return InputError(f"{loader.records.path}: no record can be decoded; of a .rec, "
                      "scripts/im2rec.py --verify says what is wrong with each")
