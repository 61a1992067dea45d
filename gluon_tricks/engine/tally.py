"""Sums the loss and a task's parts on the device, so that no step waits for it."""

import math
from collections.abc import Sequence

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.runs.scores import Sums


class _Joined(HybridBlock):
    """The sum of a batch's losses, followed by the sums of its parts: (1 + parts,) float64."""

    def hybrid_forward(self, F, losses, parts=None):
        total = F.reshape(F.cast(losses, "float64").sum(), shape=(1,))
        return total if parts is None else F.concat(total, parts, dim=0)


class Tally:
    """Sums over all batches since it was made, plus those in `start`."""

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
        """Add a batch of `count` samples: losses (samples,), sums of the parts (parts,) float64.
        `number` is the update's, for `first_bad`. Does not wait."""
        sums = self._joined(losses) if parts is None else self._joined(losses, parts)
        if self._total is None:
            start = [self._start.loss, *self._start.parts.values()]
            self._total = mx.nd.array(start, ctx=sums.context, dtype="float64")
            self._first_bad = mx.nd.full((1,), math.inf, ctx=sums.context, dtype="float64")
        self._total = self._total + sums
        own = sums[0:1]
        # 0 for a finite loss, else NaN, which is not equal to 0.
        bad = mx.nd.where((own - own) == 0, mx.nd.full((1,), math.inf, ctx=own.context,
                                                       dtype="float64"),
                          mx.nd.full((1,), number, ctx=own.context, dtype="float64"))
        self._first_bad = mx.nd.minimum(self._first_bad, bad)
        self._count += count

    def mark(self) -> tuple:
        """What `rewind` needs to forget all that is added later. Does not wait."""
        return self._count, self._total, self._first_bad

    def rewind(self, mark: tuple) -> None:
        """Forget all that was added since `mark`. Does not wait."""
        self._count, self._total, self._first_bad = mark

    def sums(self) -> Sums:
        """The sums so far. Waits for the device."""
        if self._total is None:
            return self._start
        loss, *parts = self._total.asnumpy().tolist()
        return Sums(self._count, loss, dict(zip(self._names, parts, strict=True)))

    def first_bad(self) -> int | None:
        """The first update whose loss was not finite; None if all were. Waits."""
        found = math.inf if self._first_bad is None else float(self._first_bad.asscalar())
        return None if math.isinf(found) else int(found)
