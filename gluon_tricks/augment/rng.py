"""Random numbers of samples: a pure function of (seed, epoch, index), for a batch at a time.

The generator is Philox4x32-10 (Salmon et al., SC 2011), which turns a counter into four random
words without any state: sample `index` of an epoch has its own counters, so its numbers are the
same whichever worker, rank or resumed run draws them, and whichever samples share its batch.
"""

from collections.abc import Sequence

import numpy as np

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_AHEAD = 10  # blocks made at once: a NumPy call costs more than a few unused numbers


def philox4x32(counter: np.ndarray, key: tuple[int, int], rounds: int = 10) -> np.ndarray:
    """Philox4x32: counters (..., 4) of 32-bit words to random words (..., 4), both as uint64."""
    shape = counter.shape
    words = np.ascontiguousarray(counter.reshape(-1, 4).T, np.uint64)
    even, odd = words[0::2], words[1::2]  # words 0 and 2, which are multiplied, and 1 and 3
    keys, factors, weyl = np.array(key, np.uint64)[:, None], _MULTIPLIERS[:, None], _WEYL[:, None]
    for _ in range(rounds):
        product = (even * factors)[::-1]
        even, odd = (product >> _WORD) ^ odd ^ keys, product & _LOW
        keys = (keys + weyl) & _LOW
    return np.stack([even[0], odd[0], even[1], odd[1]], axis=-1).reshape(shape)


def batch_rng(seed: int, epoch: int, step: int, rank: int = 0) -> np.random.Generator:
    """The generator of one batch, for methods that mix its samples."""
    return np.random.default_rng([seed, epoch, step, rank])


class SampleRng:
    """The random streams of the samples `indices` in one epoch; each draw gives a row per sample.

    seed: 0 <= seed < 2**64; epoch and indices: 0 <= value < 2**32.
    """

    def __init__(self, seed: int, epoch: int, indices: Sequence[int]):
        self._key = seed & 0xFFFFFFFF, seed >> 32
        self._epoch = epoch
        self._indices = np.asarray(indices, np.uint64)
        self._words = np.empty((len(self._indices), 0), np.uint64)
        self._made = self._used = 0  # words per sample, in blocks of four

    def __len__(self) -> int:
        return len(self._indices)

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Uniform in [low, high): (samples, count) float64 of 32 random bits each."""
        blocks = -(-count // 4)
        missing = self._used + blocks - self._made
        if missing > 0:
            self._make(max(missing, _AHEAD))
        words = self._words[:, 4 * self._used:4 * self._used + count]
        self._used += blocks
        return low + (high - low) * (words * 2.0**-32)

    def _make(self, blocks: int) -> None:
        counter = np.empty((len(self), blocks, 4), np.uint64)
        counter[..., 0] = np.arange(self._made, self._made + blocks)
        counter[..., 1] = self._indices[:, None]
        counter[..., 2] = self._epoch
        counter[..., 3] = 0
        words = philox4x32(counter, self._key).reshape(len(self), 4 * blocks)
        self._words = np.concatenate([self._words, words], axis=1) if self._made else words
        self._made += blocks

    def normal(self, count: int, sigma: float = 1.0) -> np.ndarray:
        """Normal with mean 0 and standard deviation sigma: (samples, count) float64, Box-Muller."""
        pairs = -(-count // 2)
        u = self.uniform(2 * pairs)
        radius = np.sqrt(-2 * np.log1p(-u[:, :pairs]))  # 1 - u is in (0, 1]
        angle = 2 * np.pi * u[:, pairs:]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return sigma * both[:, :count]
