"""Mixed precision: the dynamic loss scale (arXiv 1710.03740; arXiv 1812.01187, section 3.2).

Weights, activations and gradients are FP16; BatchNorm's parameters and statistics, the loss, the
master weights and the update are FP32. The loss is multiplied by a scale so that small gradients do
not round to zero, and the update divides by it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mxnet as mx

START, GREATEST, LEAST = 2.0**16, 2.0**24, 1.0  # of a dynamic scale
GROW_AFTER = 2000  # updates without an overflow
_CHUNK = 200  # arrays per kernel


class LossScale(NamedTuple):
    """A dynamic loss scale, as a checkpoint stores it."""

    scale: float = START
    clean: int = 0  # updates without an overflow since the scale last changed
    overflows: int = 0  # skipped updates of the run

    def after(self, overflow: bool, grow_after: int = GROW_AFTER) -> "LossScale":
        """Halve after an overflow, whose update is skipped; double after `grow_after` clean ones.
        """
        if overflow:
            return LossScale(max(self.scale / 2, LEAST), 0, self.overflows + 1)
        if self.clean + 1 == grow_after:
            return self._replace(scale=min(self.scale * 2, GREATEST), clean=0)
        return self._replace(clean=self.clean + 1)


def all_finite(arrays: Sequence[mx.nd.NDArray]) -> bool:
    """Whether all values of arrays on one device are finite. Waits for the device, once."""
    if not arrays:
        return True
    good = mx.nd.ones((1,), ctx=arrays[0].context)
    for dtype in dict.fromkeys(array.dtype for array in arrays):  # a kernel takes one type
        alike = [array for array in arrays if array.dtype == dtype]
        for start in range(0, len(alike), _CHUNK):
            part = alike[start:start + _CHUNK]
            mx.nd.multi_all_finite(*part, num_arrays=len(part), init_output=False, out=good)
    return bool(good.asscalar())
