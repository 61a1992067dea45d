"""Random numbers of samples: a pure function of (seed, epoch, index), for a whole batch at once.

The generator is Philox4x32-10 (Salmon et al., SC 2011), which turns a counter into four random
words without any state: sample `index` of an epoch has its own counters, so its numbers are the
same whichever worker, rank or resumed run draws them, and beside whichever other samples.
"""

from collections.abc import Sequence

import numpy as np

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox4x32(counter: np.ndarray, key: tuple[int, int], rounds: int = 10) -> np.ndarray:
    """Philox4x32: counters (..., 4) of 32-bit words to as many random words, both as uint64."""
    c0, c1, c2, c3 = np.moveaxis(counter.astype(np.uint64), -1, 0)
    k0, k1 = key
    for _ in range(rounds):
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((b >> _WORD) ^ c1 ^ np.uint64(k0), b & _LOW,
                          (a >> _WORD) ^ c3 ^ np.uint64(k1), a & _LOW)
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


class SampleRng:
    """The random streams of the samples `indices` in one epoch; each draw gives a row a sample.

    seed: 0 <= seed < 2**64; epoch and indices: 0 <= value < 2**32.
    """

    def __init__(self, seed: int, epoch: int, indices: Sequence[int]):
        self._key = seed & 0xFFFFFFFF, seed >> 32
        self._epoch = epoch
        self._indices = np.asarray(indices, np.uint64)
        self._drawn = 0  # counters of each sample's stream that are used up

    def __len__(self) -> int:
        return len(self._indices)

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Uniform in [low, high): (samples, count) float64 of 32 random bits each."""
        blocks = -(-count // 4)
        counter = np.empty((len(self), blocks, 4), np.uint64)
        counter[..., 0] = np.arange(self._drawn, self._drawn + blocks)
        counter[..., 1] = self._indices[:, None]
        counter[..., 2] = self._epoch
        counter[..., 3] = 0
        self._drawn += blocks
        words = philox4x32(counter, self._key).reshape(len(self), -1)[:, :count]
        return low + (high - low) * (words * 2.0**-32)

    def normal(self, count: int, sigma: float = 1.0) -> np.ndarray:
        """Normal with mean 0 and standard deviation sigma: (samples, count) float64, Box-Muller."""
        pairs = -(-count // 2)
        u = self.uniform(2 * pairs)
        radius = np.sqrt(-2 * np.log1p(-u[:, :pairs]))  # 1 - u lies in (0, 1]
        angle = 2 * np.pi * u[:, pairs:]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return sigma * both[:, :count]
