"""Which records a rank reads, and when: a pure function of (seed, epoch, step, rank).

Training: an epoch is a permutation of all records, cut into global batches; an incomplete last one
is dropped. Rank r of R takes the r-th of R equal shares of each, so R ranks with batch b see what
one process with batch R * b sees. Evaluation: each record exactly once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_PERMUTATION, _LABELS = 1, 2  # separate streams of one seed


def _rng(seed: int, stream: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, stream, epoch]))


def epoch_permutation(records: int, seed: int, epoch: int) -> np.ndarray:
    """The order of all records in one epoch: (records,) int64."""
    return _rng(seed, _PERMUTATION, epoch).permutation(records)


def shuffle_labels(labels: np.ndarray, seed: int) -> np.ndarray:
    """Shuffle the labels among the records: a network trained on them can learn nothing."""
    return _rng(seed, _LABELS, 0).permutation(labels)


@dataclass(frozen=True)
class TrainOrder:
    """Batches of record indices, reshuffled each epoch, the same number on every rank."""

    records: int
    batch_size: int  # per rank
    seed: int
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1  # batches per update

    @property
    def global_batch(self) -> int:
        """Samples per step over all ranks."""
        return self.batch_size * self.world_size

    @property
    def steps(self) -> int:
        """Batches per epoch: those of complete updates."""
        return self.records // (self.global_batch * self.accumulate) * self.accumulate

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[np.ndarray]:
        """This rank's batches of an epoch from `start_step` on, each (batch_size,) int64."""
        order = epoch_permutation(self.records, self.seed, epoch)
        for step in range(start_step, self.steps):
            start = step * self.global_batch + self.rank * self.batch_size
            yield order[start:start + self.batch_size]


@dataclass(frozen=True)
class EvalOrder:
    """Batches that cover each record once over all ranks; the last one may be smaller."""

    records: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    @property
    def steps(self) -> int:
        return -(-len(range(self.rank, self.records, self.world_size)) // self.batch_size)

    @property
    def steps_of_longest_rank(self) -> int:
        """Batches of the rank that has the most."""
        return -(-self.records // (self.world_size * self.batch_size))

    def batches(self, epoch: int = 0, start_step: int = 0) -> Iterator[np.ndarray]:
        """This rank's batches, the same in every epoch."""
        own = np.arange(self.rank, self.records, self.world_size)
        for step in range(start_step, self.steps):
            yield own[step * self.batch_size:(step + 1) * self.batch_size]
