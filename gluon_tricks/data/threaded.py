"""Loaders whose samples threads make ahead of their use, in an order, damaged ones left out."""

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
    """What is read: it has a path, and a name for each sample."""

    path: Any
    keys: Any

    def name(self, index: int) -> str: ...


class SkippedReport:
    """Of a loader with `records` and `skipped`, what it says of damaged records."""

    records: Samples
    skipped: set[int]

    def skipped_line(self) -> str:
        """One line that names the damaged records left out so far, 20 at most; "" if there is none.
        """
        if not self.skipped:
            return ""
        keys = sorted(self.records.keys[index] for index in self.skipped)
        shown = ", ".join(map(str, keys[:20])) + (", ..." if len(keys) > 20 else "")
        left_out = "1 damaged record is" if len(keys) == 1 else f"{len(keys)} damaged records are"
        return f"{self.records.path}: {left_out} left out, by key: {shown}"

    def no_decodable_record(self) -> InputError:
        """What to raise if a pass had no record that could be decoded."""
        return InputError(f"{self.records.path}: no record can be decoded; of a .rec, "
                          "scripts/im2rec.py --verify says what is wrong with each")


class Making(NamedTuple):
    """A batch that is to be made."""

    batch: Any
    span: int  # rows that one task of a thread makes
    make_row: Callable[[int], None]  # raises InputError if its record is damaged
    left: Callable[[range], Iterable[int]] = iter  # makes what it can of some rows, gives the rest


class Pending(NamedTuple):
    """A batch that threads are making."""

    batch: Any
    indices: np.ndarray
    tasks: list[Future]  # each gives the rows whose records are damaged


class ThreadedLoader(SkippedReport, abc.ABC):
    """Batches of the samples that `order` names, made by threads; at most `prefetch` wait.

    A sample depends on (seed, epoch, record) alone, whatever the number of workers (0: one a core).
    With `skip_damaged`, damaged records, and those that `skipped` names from the start, are left
    out of their batch, which is so much smaller, even empty: the number of batches depends on the
    order alone. `skipped` collects their numbers.
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
        """Stop the threads; what they have begun is finished, the rest dropped."""
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
        except Exception as error:  # a disk's fault, no memory left, ...: say where it happened
            raise RunFault(f"{self.records.name(int(indices[row]))}: {error!r}") from error
        return damaged

    def _end(self, pending: Pending) -> Any:
        """The batch, without damaged records."""
        damaged = [row for task in pending.tasks for row in task.result()]
        self.skipped.update(pending.indices[damaged].tolist())
        return self._made(pending.batch, damaged)

    @abc.abstractmethod
    def _begin(self, indices: np.ndarray, rng: SampleRng, step: int) -> Making:
        """How to make the batch of these records; what it needs of random numbers is drawn now."""

    @abc.abstractmethod
    def _made(self, batch: Any, damaged: list[int]) -> Any:
        """The batch, whose rows are made but for the damaged ones, which go."""


def _spans(count: int, length: int) -> Iterator[range]:
    """The parts of `count` rows, `length` each but the last."""
    return (range(begin, min(begin + length, count)) for begin in range(0, count, length))


class SampleLoader(ThreadedLoader):
    """Batches of any kind: `collate` makes one of samples, which may differ in size.

    `make(index, draws)` gives the sample of a record, `draw(rng)` the draws of a batch's samples,
    one each (None: none are needed). `collate(samples, indices, step)` gives the batch of those
    that are not damaged, even of none.
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
