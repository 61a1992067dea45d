"""Mixup (arXiv 1710.09412; arXiv 1812.01187, section 5.4) of a batch on its device."""

from typing import NamedTuple

import mxnet as mx
import numpy as np


class Pairs(NamedTuple):
    """Which samples are mixed: sample i of a batch with sample partner[i]."""

    lam: np.ndarray  # (batch,) float32 in [0, 1], the share of sample i
    partner: np.ndarray  # (batch,) int32, a permutation


def draw_pairs(rng: np.random.Generator, batch: int, alpha: float) -> Pairs:
    """Draw lam of each pair from Beta(alpha, alpha), and the partners as a random permutation.

    alpha >= 0.001: NumPy's draw never returns for the smallest positive numbers.
    """
    return Pairs(rng.beta(alpha, alpha, batch).astype(np.float32),
                 rng.permutation(batch).astype(np.int32))


def draw_gluoncv_pairs(rng: np.random.Generator, batch: int, alpha: float) -> Pairs:
    """As in GluonCV's script: one lam for the whole batch, the reversed batch as partners."""
    return Pairs(np.full(batch, rng.beta(alpha, alpha), np.float32),
                 np.arange(batch, dtype=np.int32)[::-1].copy())


def mixup(images: mx.nd.NDArray, targets: mx.nd.NDArray, lam: mx.nd.NDArray,
          partner: mx.nd.NDArray) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    """Mix images and targets: x_i <- lam_i x_i + (1 - lam_i) x_partner(i).

    images (batch, ...) and dense targets (batch, classes) are floats; lam (batch,) and partner
    (batch,) are of any type; all are on one device. Returns arrays of the same shapes and types.
    Does not wait for the device. Raises ValueError for integers, which would truncate the shares to
    0 or 1, and for targets that are class numbers.
    """
    if targets.ndim != 2 or any(np.issubdtype(values.dtype, np.integer)
                                for values in (images, targets)):
        raise ValueError(f"images {np.dtype(images.dtype)} or targets {np.dtype(targets.dtype)} "
                         f"{targets.shape}: both must be floats, the targets (batch, classes)")
    return _mixed(images, lam, partner), _mixed(targets, lam, partner)


def _mixed(values: mx.nd.NDArray, lam: mx.nd.NDArray, partner: mx.nd.NDArray) -> mx.nd.NDArray:
    share = lam.astype(values.dtype).reshape((-1,) + (1,) * (values.ndim - 1))
    return share * values + (1 - share) * mx.nd.take(values, partner)
