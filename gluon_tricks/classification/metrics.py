"""Top-1 and top-5, summed on the device; probabilities of several crops; the first class."""

from mxnet.gluon.block import HybridBlock


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


class Hits(HybridBlock):
    """Of a batch of logits (batch, classes) and labels (batch,), the sum of top-1 hits and, with
    `five`, behind it that of top-5 hits: (1,) or (2,) float64.

    With a second label of each sample and the first one's share, (batch,) each, hits are weighted:
    lam * hit(label) + (1 - lam) * hit(other).
    """

    def __init__(self, five: bool = False, **kwargs):
        super().__init__(**kwargs)
        self._count = 1 + five

    def hybrid_forward(self, F, logits, labels, others=None, lam=None):
        logits = F.cast(logits, "float32")
        hits = _hits(F, logits, labels)[:self._count]
        if others is not None:
            hits = [lam * own + (1 - lam) * other
                    for own, other in zip(hits, _hits(F, logits, others), strict=False)]
        return F.stack(*(F.cast(values, "float64").sum() for values in hits)).reshape((-1,))


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
