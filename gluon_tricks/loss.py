"""The training losses, always in FP32 on FP32 logits, one value a sample."""

from mxnet.gluon.block import HybridBlock


def smooth_labels(F, labels, classes: int, eps: float):
    """Label smoothing: q_y = 1 - eps, eps / (K - 1) for the other K - 1 classes.

    arXiv 1812.01187, section 5.2. Takes class numbers (batch,), gives probabilities
    (batch, classes) float32. F is mx.nd or mx.sym; classes >= 2; eps in [0, 1).
    """
    return F.one_hot(labels, depth=classes, on_value=1.0 - eps, off_value=eps / (classes - 1))


class SoftmaxCrossEntropy(HybridBlock):
    """Cross-entropy -sum_k q_k log softmax(z)_k, with label smoothing for sparse targets.

    Takes logits z (batch, classes) of any float type and a target: sparse (batch,) class numbers,
    smoothed by `label_smoothing`; or, with `dense`, the probabilities q themselves, (batch,
    classes), to be smoothed beforehand by `smooth_labels`. Gives (batch,) float32.
    Raises ValueError for fewer than two classes or a smoothing outside [0, 1).
    """

    def __init__(self, classes: int, label_smoothing: float = 0.0, dense: bool = False, **kwargs):
        super().__init__(**kwargs)
        if classes < 2 or not 0 <= label_smoothing < 1:
            raise ValueError(f"{classes} classes (needs 2 or more) or label smoothing "
                             f"{label_smoothing} (needs 0 <= eps < 1)")
        if dense and label_smoothing:
            raise ValueError("dense targets are used as they are: smooth them with smooth_labels")
        self._classes, self._eps, self._dense = classes, label_smoothing, dense

    def hybrid_forward(self, F, logits, target):
        if not self._dense:
            target = smooth_labels(F, target, self._classes, self._eps)
        return -F.sum(target * F.log_softmax(F.cast(logits, "float32"), axis=-1), axis=-1)
