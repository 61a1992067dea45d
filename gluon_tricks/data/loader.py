"""Batches of decoded, transformed images, prefetched by threads."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import mxnet as mx
import numpy as np

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data import backends
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.data.threaded import Making, ThreadedLoader
from gluon_tricks.data.transforms import Transform

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
