"""Loaders whose threads make the samples of an order in advance and skip damaged ones."""

import abc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.backends import cores
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
