"""Batches of decoded, transformed pictures, made by threads ahead of their use."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.decode import decode
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.recipes import Transform
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError


class Batch(NamedTuple):
    """Some samples."""

    images: np.ndarray  # (batch, 3, size, size) float32
    labels: np.ndarray  # (batch,) int32
    indices: np.ndarray  # (batch,) int64, which records these are


class RecordLoader:
    """Reads the records an order names and transforms their pictures.

    A sample depends on (seed, epoch, record) alone, whatever the number of workers. `labels`
    (records,) stand in for those of the records where given. Decoding and OpenCV release the
    interpreter lock, so threads run side by side. At most `prefetch` batches wait to be used.
    """

    def __init__(self, records: RecordSet, transform: Transform, order: TrainOrder | EvalOrder, *,
                 seed: int = 0, workers: int = 4, prefetch: int = 3,
                 labels: np.ndarray | None = None):
        self.order = order
        self._records, self._transform = records, transform
        self._seed, self._prefetch = seed, prefetch
        self._labels = (records.labels if labels is None else labels).astype(np.int32)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        cv2.setNumThreads(0)  # the threads are ours; OpenCV's own would fight them

    def __enter__(self) -> "RecordLoader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; what they have begun is finished, the rest dropped."""
        self._pool.shutdown(cancel_futures=True)

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on, in order.

        Raises InputError for a record that cannot be read, decoded or transformed.
        """
        waiting: deque[tuple[Batch, list[Future]]] = deque()
        try:
            for indices in self.order.batches(epoch, start_step):
                waiting.append(self._start(indices, epoch))
                if len(waiting) > self._prefetch:
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        finally:
            for _, tasks in waiting:
                for task in tasks:
                    task.cancel()

    def _start(self, indices: np.ndarray, epoch: int) -> tuple[Batch, list[Future]]:
        draws = self._transform.draw(SampleRng(self._seed, epoch, indices))
        size = self._transform.size
        batch = Batch(np.empty((len(indices), 3, size, size), np.float32), self._labels[indices],
                      indices)
        return batch, [self._pool.submit(self._make, batch, draws, row)
                       for row in range(len(indices))]

    def _make(self, batch: Batch, draws, row: int) -> None:
        index = batch.indices[row]
        picture = self._records.read(index)
        try:
            image = self._transform.apply(decode(picture), draws, row)
        except ValueError as error:
            raise InputError(f"{self._records.name(index)}: {error}") from error
        batch.images[row] = image.transpose(2, 0, 1)

    @staticmethod
    def _finish(batch: Batch, tasks: list[Future]) -> Batch:
        for task in tasks:
            task.result()
        return batch
