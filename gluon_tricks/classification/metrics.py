"""Top-1 and top-5 hits summed on the device, the mean over several crops, and the top class."""

from mxnet.gluon.block import HybridBlock


def _hits(F, logits, labels):
    """Whether each label is the top class, and whether it is among the top five: (batch,) each.

    A label's rank is the number of classes with a higher logit, or an equal logit and a lower
    index, as a stable argsort would place it: a network with equal logits for all classes scores
    one class's share. Logits that are not finite are never a hit.
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
    """Counts hits: from logits (batch, classes) and labels (batch,), the sum of top-1 hits and,
    with `five`, of top-5 hits: (1,) or (2,) float64.

    For mixed samples, given the partners' labels and each sample's own share, (batch,) each, hits
    are weighted: lam * hit(label) + (1 - lam) * hit(partner label).
    """

    def __init__(self, five: bool = False, **kwargs):
        super().__init__(**kwargs)
        self._count = 1 + five

    def hybrid_forward(self, F, logits, labels, partner_labels=None, lam=None):
        logits = F.cast(logits, "float32")
        hits = _hits(F, logits, labels)[:self._count]
        if partner_labels is not None:
            hits = [lam * own + (1 - lam) * partner
                    for own, partner in zip(hits, _hits(F, logits, partner_labels), strict=False)]
        return F.stack(*(F.cast(values, "float64").sum() for values in hits)).reshape((-1,))


class MeanOverCrops(HybridBlock):
    """Averages the C crops of each image, adjacent in the batch: log((1/C) sum_c softmax(z_c)).

    Takes logits (batch * C, classes) and gives (batch, classes) float32: logits again, whose
    softmax is the mean of the probabilities. The logarithm stays finite even if a probability
    underflows float32.
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
    """The most probable class of logits (batch, classes), and its probability: (batch, 2) float32.
    Of equal logits the lowest index wins."""

    def hybrid_forward(self, F, logits):
        logits = F.cast(logits, "float32")
        return F.stack(F.argmax(logits, axis=-1), F.max(F.softmax(logits, axis=-1), axis=-1),
                       axis=1)
