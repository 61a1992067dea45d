"""The loss and a task's parts, summed on the device so that no step waits for it."""

import math
from collections.abc import Sequence

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.runs.scores import Sums


class _Joined(HybridBlock):
    """Of a batch's losses, their sum, and the sums of its parts behind it: float64."""

    def hybrid_forward(self, F, losses, parts=None):
        total = F.reshape(F.cast(losses, "float64").sum(), shape=(1,))
        return total if parts is None else F.concat(total, parts, dim=0)


class Tally:
    """Sums of all batches since it was made, and of those before, which `start` summed."""

    def __init__(self, parts: Sequence[str] = (), start: Sums | None = None):
        self._names, self._joined = tuple(parts), _Joined()
        self._joined.hybridize()
        start = start or Sums()
        self._count = start.count
        self._start = Sums(start.count, start.loss,
                           {name: start.parts.get(name, 0.0) for name in self._names})
        self._total: mx.nd.NDArray | None = None
        self._first_bad: mx.nd.NDArray | None = None

    def add(self, losses: mx.nd.NDArray, parts: mx.nd.NDArray | None = None, *, count: int,
            number: int = 0) -> None:
        """Add a batch of `count` samples: their losses (samples,), sums of the parts (parts,)
        float64. Does not wait. `number` is the update's, for `first_bad`."""
        sums = self._joined(losses) if parts is None else self._joined(losses, parts)
        if self._total is None:
            start = [self._start.loss, *self._start.parts.values()]
            self._total = mx.nd.array(start, ctx=sums.context, dtype="float64")
            self._first_bad = mx.nd.full((1,), math.inf, ctx=sums.context, dtype="float64")
        self._total = self._total + sums
        own = sums[0:1]
        # 0 for a finite loss, NaN for another, which no comparison is true of.
        bad = mx.nd.where((own - own) == 0, mx.nd.full((1,), math.inf, ctx=own.context,
                                                       dtype="float64"),
                          mx.nd.full((1,), number, ctx=own.context, dtype="float64"))
        self._first_bad = mx.nd.minimum(self._first_bad, bad)
        self._count += count

    def mark(self) -> tuple:
        """What `rewind` takes to forget all that comes after. Does not wait."""
        return self._count, self._total, self._first_bad

    def rewind(self, mark: tuple) -> None:
        """Be as when `mark` was taken. Does not wait."""
        self._count, self._total, self._first_bad = mark

    def sums(self) -> Sums:
        """Waits for the device."""
        if self._total is None:
            return self._start
        loss, *parts = self._total.asnumpy().tolist()
        return Sums(self._count, loss, dict(zip(self._names, parts, strict=True)))

    def first_bad(self) -> int | None:
        """The first update whose loss was not finite, None if all were. Waits."""
        found = math.inf if self._first_bad is None else float(self._first_bad.asscalar())
        return None if math.isinf(found) else int(found)
