"""Top-1, top-5 and loss, summed on the device so that no step waits for it."""

from typing import NamedTuple

import mxnet as mx
from mxnet.gluon.block import HybridBlock


class Scores(NamedTuple):
    """Means over `count` samples; top1 and top5 are accuracies from 0 to 1."""

    count: int
    loss: float
    top1: float
    top5: float
    correct1: int
    correct5: int


class _Sums(HybridBlock):
    """Of a batch: summed loss, top-1 hits, top-5 hits, as (3,) float64.

    A label's rank is the number of classes with a higher logit, or an equal one and a lower
    number, which is where argsort would put it: a network that says the same of every class
    scores one class's share. Logits that are not finite are never a hit.
    """

    def hybrid_forward(self, F, loss, logits, labels):
        logits = F.cast(logits, "float32")
        labels = F.expand_dims(F.cast(labels, "float32"), axis=1)
        own = F.pick(logits, F.squeeze(labels, axis=1), axis=1, keepdims=True)
        higher = F.broadcast_greater(logits, own)
        before = F.broadcast_lesser(F.contrib.arange_like(logits, axis=1).reshape((1, -1)), labels)
        rank = F.sum(higher + F.broadcast_equal(logits, own) * before, axis=1)
        total = F.sum(logits, axis=1)
        finite = (total - total) == 0
        sums = [F.cast(values, "float64").sum()
                for values in (loss, (rank < 1) * finite, (rank < 5) * finite)]
        return F.stack(*sums).reshape((-1,))


class Tally:
    """Scores of all batches since it was made."""

    def __init__(self):
        self._sums = _Sums()
        self._sums.hybridize()
        self._total: mx.nd.NDArray | None = None
        self._count = 0

    def update(self, loss: mx.nd.NDArray, logits: mx.nd.NDArray, labels: mx.nd.NDArray) -> None:
        """Add a batch: loss (batch,), logits (batch, classes), labels (batch,). Does not wait."""
        sums = self._sums(loss, logits, labels)
        self._total = sums if self._total is None else self._total + sums
        self._count += len(labels)

    def scores(self) -> Scores:
        """Waits for the device. Raises ValueError where there was no batch."""
        if self._total is None:
            raise ValueError("no batch was counted")
        loss, top1, top5 = self._total.asnumpy().tolist()
        return Scores(self._count, loss / self._count, top1 / self._count, top5 / self._count,
                      int(top1), int(top5))
