"""Top-1, top-5 and loss, summed on the device so that no step waits for it."""

import math

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.runs.scores import Sums


def _hits(F, logits, labels):
    """Whether each label is the first, and among the first five: (batch,) each.

    A label's rank is the number of classes with a higher logit, or an equal one and a lower
    number, which is where argsort would put it: a network that says the same of every class
    scores one class's share. Logits that are not finite are never a hit.
    """
    labels = F.expand_dims(F.cast(labels, "float32"), axis=1)
    own = F.pick(logits, F.squeeze(labels, axis=1), axis=1, keepdims=True)
    higher = F.broadcast_greater(logits, own)
    before = F.broadcast_lesser(F.contrib.arange_like(logits, axis=1).reshape((1, -1)), labels)
    rank = F.sum(higher + F.broadcast_equal(logits, own) * before, axis=1)
    total = F.sum(logits, axis=1)
    finite = (total - total) == 0
    return (rank < 1) * finite, (rank < 5) * finite


class _Sums(HybridBlock):
    """Of a batch: summed loss, top-1 hits, top-5 hits, as (3,) float64.

    With a second label of each sample and the first one's share, hits are weighted:
    lam * hit(label) + (1 - lam) * hit(other).
    """

    def hybrid_forward(self, F, loss, logits, labels, others=None, lam=None):
        logits = F.cast(logits, "float32")
        hits = _hits(F, logits, labels)
        if others is not None:
            hits = [lam * own + (1 - lam) * other
                    for own, other in zip(hits, _hits(F, logits, others), strict=True)]
        sums = [F.cast(values, "float64").sum() for values in (loss, *hits)]
        return F.stack(*sums).reshape((-1,))


class MeanOverCrops(HybridBlock):
    """log((1/C) sum_c softmax(z_c)) of the C crops of each picture, which lie side by side.

    Takes logits (batch * C, classes), gives (batch, classes) float32: logits again, whose softmax
    is the mean of probabilities. The logarithm stays finite where a probability is below the least
    float32.
    """

    def __init__(self, crops: int, **kwargs):
        super().__init__(**kwargs)
        self._crops = crops

    def hybrid_forward(self, F, logits):
        scores = F.log_softmax(F.cast(logits, "float32"), axis=-1)
        scores = F.reshape(scores, shape=(-4, -1, self._crops, -2))
        highest = F.max(scores, axis=1, keepdims=True)
        mean = F.mean(F.exp(F.broadcast_sub(scores, highest)), axis=1)
        return F.squeeze(highest, axis=1) + F.log(mean)


class TopClass(HybridBlock):
    """Of logits (batch, classes), the number of the first class and its probability: (batch, 2)
    float32. Of equal logits the lowest number is first."""

    def hybrid_forward(self, F, logits):
        logits = F.cast(logits, "float32")
        return F.stack(F.argmax(logits, axis=-1), F.max(F.softmax(logits, axis=-1), axis=-1),
                       axis=1)


class Tally:
    """Sums of all batches since it was made, and of those before, which `start` summed."""

    def __init__(self, start: Sums | None = None):
        self._plain, self._mixed = _Sums(), _Sums()
        self._plain.hybridize()
        self._mixed.hybridize()
        start = start or Sums()
        self._count = start.count
        self._total: mx.nd.NDArray | None = None
        self._start = start
        self._first_bad: mx.nd.NDArray | None = None

    def update(self, loss: mx.nd.NDArray, logits: mx.nd.NDArray, labels: mx.nd.NDArray,
               others: mx.nd.NDArray | None = None, lam: mx.nd.NDArray | None = None, *,
               number: int = 0) -> None:
        """Add a batch: loss (batch,), logits (batch, classes), labels (batch,). Does not wait.

        `others` (batch,) and `lam` (batch,) are the second labels of mixed samples and the share
        of the first. `number` is the update's, for `first_bad`.
        """
        sums = self._plain(loss, logits, labels) if others is None else \
            self._mixed(loss, logits, labels, others, lam)
        if self._total is None:
            self._total = mx.nd.array(self._start[1:], ctx=sums.context, dtype="float64")
            self._first_bad = mx.nd.full((1,), math.inf, ctx=sums.context, dtype="float64")
        self._total = self._total + sums
        own = sums[0:1]
        # 0 for a finite loss, none for another, which no comparison is true of.
        bad = mx.nd.where((own - own) == 0, mx.nd.full((1,), math.inf, ctx=own.context,
                                                       dtype="float64"),
                          mx.nd.full((1,), number, ctx=own.context, dtype="float64"))
        self._first_bad = mx.nd.minimum(self._first_bad, bad)
        self._count += len(labels)

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
        return Sums(self._count, *self._total.asnumpy().tolist())

    def first_bad(self) -> int | None:
        """The first update whose loss was not finite, None where all were. Waits."""
        found = math.inf if self._first_bad is None else float(self._first_bad.asscalar())
        return None if math.isinf(found) else int(found)
