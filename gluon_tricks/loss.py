"""The training losses, always in FP32 on FP32 logits, one value per sample."""

import math

from mxnet.gluon.block import HybridBlock


def smooth_labels(F, labels, classes: int, eps: float, uniform: bool = False):
    """Label smoothing: q_y = 1 - eps for the true class, eps / (K - 1) for the other K - 1.

    arXiv 1812.01187, section 5.2; the loss is smallest when the true class's logit leads by
    log((K - 1) (1 - eps) / eps). `uniform` gives the form of arXiv 1512.00567 and GluonCV: eps is
    spread over all K classes, q_y = 1 - eps + eps / K, and eps / K for the other classes.
    Takes class numbers (batch,), returns probabilities (batch, classes) float32. F is mx.nd or
    mx.sym; classes >= 2; eps in [0, 1).
    """
    off_value = eps / classes if uniform else eps / (classes - 1)
    return F.one_hot(labels, depth=classes, on_value=1.0 - (classes - 1) * off_value,
                     off_value=off_value)


def _cross_entropy(F, target, logits):
    """-sum_k q_k log softmax(z)_k, (batch,)."""
    return -F.sum(target * F.log_softmax(logits, axis=-1), axis=-1)


class SoftmaxCrossEntropy(HybridBlock):
    """Cross-entropy -sum_k q_k log softmax(z)_k, with label smoothing for sparse targets.

    Takes logits z (batch, classes) of any float type and a target: sparse (batch,) class numbers,
    smoothed by `label_smoothing`; or, with `dense`, the probabilities q themselves, (batch,
    classes), smoothed beforehand by `smooth_labels`. Returns (batch,) float32.
    Raises ValueError for fewer than two classes or a smoothing outside [0, 1).
    """

    def __init__(self, classes: int, label_smoothing: float = 0.0, dense: bool = False,
                 uniform: bool = False, **kwargs):
        super().__init__(**kwargs)
        if classes < 2 or not 0 <= label_smoothing < 1:
            raise ValueError(f"{classes} classes (needs 2 or more) or label smoothing "
                             f"{label_smoothing} (needs 0 <= eps < 1)")
        if dense and label_smoothing:
            raise ValueError("dense targets are used as they are: smooth them with smooth_labels")
        self._classes, self._eps, self._dense = classes, label_smoothing, dense
        self._uniform = uniform

    def hybrid_forward(self, F, logits, target):
        logits = F.cast(logits, "float32")
        if self._dense:
            return _cross_entropy(F, target, logits)
        # The same as with smooth_labels' target, without its (batch, classes) array.
        scores = F.log_softmax(logits, axis=-1)
        off_value = self._eps / (self._classes if self._uniform else self._classes - 1)
        loss = -(1.0 - self._classes * off_value) * F.pick(scores, target, axis=-1)
        return loss - off_value * F.sum(scores, axis=-1) if off_value else loss


class Distillation(HybridBlock):
    """Knowledge distillation (arXiv 1503.02531; arXiv 1812.01187, section 5.3).

        l(q, softmax(z)) + T^2 l(softmax(r / T), softmax(z / T))                     the paper's
        w l(q, softmax(z)) + (1 - w) T^2 l(softmax(r / T), softmax(z / T))           GluonCV's

    l is the cross-entropy, z the network's logits, r the teacher's, T the temperature, and q the
    target of `hard`, a SoftmaxCrossEntropy, which smooths it or takes it dense. The second line
    applies if `hard_weight` w in [0, 1] is given. T^2 makes up for the gradient through z / T,
    which falls as 1 / T^2.

    Takes z (batch, classes), the target, and r (batch, classes); logits are of any float type.
    Returns (batch,) float32. No gradient reaches r. Raises ValueError for a temperature that is not
    positive and finite, and for a weight outside [0, 1].
    """

    def __init__(self, hard: SoftmaxCrossEntropy, temperature: float = 20.0,
                 hard_weight: float | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 < temperature < math.inf or not 0 <= (hard_weight or 0) <= 1:
            raise ValueError(f"temperature {temperature} (needs 0 < T < inf) or hard_weight "
                             f"{hard_weight} (needs 0 <= w <= 1)")
        self.hard = hard
        self._temperature = temperature
        self._weights = (1.0, 1.0) if hard_weight is None else (hard_weight, 1.0 - hard_weight)

    def hybrid_forward(self, F, logits, target, teacher_logits):
        t = self._temperature
        hard_weight, soft_weight = self._weights
        wanted = F.softmax(F.BlockGrad(F.cast(teacher_logits, "float32")) / t, axis=-1)
        soft = t**2 * _cross_entropy(F, wanted, F.cast(logits, "float32") / t)
        return hard_weight * self.hard(logits, target) + soft_weight * soft
