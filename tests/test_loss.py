"""Cross-entropy, label smoothing and distillation against closed forms in float64."""

import math

import mxnet as mx
import numpy as np
import pytest
from gluoncv.loss import DistillationSoftmaxCrossEntropyLoss
from mxnet import autograd, gluon

from gluon_tricks.loss import Distillation, SoftmaxCrossEntropy, smooth_labels

ONEDNN = 1e-5  # its log_softmax is right to about 3e-6, absolutely


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def reference(logits, target):
    """-sum q log softmax(z) in float64; `target` are probabilities."""
    return -(target * log_softmax(logits)).sum(axis=1)


def distilled(logits, target, teacher, temperature, weights):
    """hard * l(q, softmax(z)) + soft * T^2 l(softmax(r / T), softmax(z / T)) in float64."""
    teacher = np.exp(log_softmax(teacher / temperature))
    return (weights[0] * reference(logits, target)
            + weights[1] * temperature**2 * reference(logits / temperature, teacher))


def smoothed(labels, classes, eps):
    target = np.full((len(labels), classes), eps / (classes - 1))
    target[np.arange(len(labels)), labels] = 1 - eps
    return target


def gluoncv_smooth(label, classes, eta=0.1):
    """As GluonCV's train_imagenet.py has it."""
    return label.one_hot(classes, on_value=1 - eta + eta / classes, off_value=eta / classes)


def slopes(loss, logits, h=1e-5):
    """The gradient of each sample's loss by its logits, by central differences in float64."""
    logits, numeric = logits.astype(np.float64), np.empty(logits.shape)
    for column in range(logits.shape[1]):
        step = h * np.eye(logits.shape[1])[column]
        numeric[:, column] = (loss(logits + step) - loss(logits - step)) / (2 * h)
    return numeric


def with_gradient(loss, logits, *others):
    """The loss, and its gradient by the logits."""
    logits.attach_grad()
    with autograd.record():
        value = loss(logits, *others)
    value.backward()
    return value.asnumpy(), logits.grad.asnumpy()


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (6, 5)).astype(np.float32), np.array([0, 4, 2, 2, 1, 3], np.int32)


@pytest.fixture
def teacher():
    """Its logits for the batch."""
    return np.random.default_rng(7).normal(0, 4, (6, 5)).astype(np.float32)


def test_smooth_labels_by_hand():
    got = smooth_labels(mx.nd, mx.nd.array([2, 0], dtype="int32"), classes=5, eps=0.1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.asnumpy(), [[0.025, 0.025, 0.9, 0.025, 0.025],
                                               [0.9, 0.025, 0.025, 0.025, 0.025]], rtol=1e-6)


@pytest.mark.parametrize(("classes", "eps"), [(5, 0.1), (1000, 0.1), (2, 0.5), (5, 0.0)])
def test_uniform_smoothing_is_gluoncvs(classes, eps):
    labels = mx.nd.array([1, 0, classes - 1], dtype="int32")
    got = smooth_labels(mx.nd, labels, classes, eps, uniform=True).asnumpy()
    np.testing.assert_allclose(got, gluoncv_smooth(labels, classes, eps).asnumpy(), rtol=1e-6)
    np.testing.assert_allclose(got.astype(np.float64).sum(axis=1), 1, rtol=1e-5)
    # eps spread over all K is (K - 1) / K of it spread over the others.
    np.testing.assert_allclose(got, smoothed([1, 0, classes - 1], classes,
                                             eps * (classes - 1) / classes), rtol=1e-6)


def test_uniform_smoothing_reaches_the_loss(batch):
    logits, labels = batch
    got = SoftmaxCrossEntropy(5, 0.1, uniform=True)(mx.nd.array(logits), mx.nd.array(labels))
    np.testing.assert_allclose(got.asnumpy(), reference(logits, smoothed(labels, 5, 0.08)),
                               atol=ONEDNN)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_closed_form(batch, eps, dtype):
    logits, labels = batch
    got = SoftmaxCrossEntropy(5, eps)(mx.nd.array(logits), mx.nd.array(labels, dtype=dtype))
    assert got.shape == (6,) and got.dtype == np.float32
    np.testing.assert_allclose(got.asnumpy(), reference(logits, smoothed(labels, 5, eps)),
                               atol=ONEDNN)


def test_two_classes_by_hand():
    # q = (0.8, 0.2), p = (3/4, 1/4)
    got = SoftmaxCrossEntropy(2, 0.2)(mx.nd.array([[math.log(3), 0.0]]), mx.nd.array([0]))
    want = -(0.8 * math.log(0.75) + 0.2 * math.log(0.25))
    assert got.asscalar() == pytest.approx(want, abs=ONEDNN)


def test_without_smoothing_it_is_gluons_own_loss(batch):
    logits, labels = map(mx.nd.array, batch)
    np.testing.assert_allclose(SoftmaxCrossEntropy(5)(logits, labels).asnumpy(),
                               gluon.loss.SoftmaxCrossEntropyLoss()(logits, labels).asnumpy(),
                               rtol=1e-6)


def test_dense_targets(batch):
    logits, _ = batch
    target = np.random.default_rng(1).dirichlet(np.ones(5), 6)
    got = SoftmaxCrossEntropy(5, dense=True)(mx.nd.array(logits), mx.nd.array(target))
    np.testing.assert_allclose(got.asnumpy(), reference(logits, target), atol=ONEDNN)


def test_dense_smoothed_targets_equal_sparse_smoothing(batch):
    logits, labels = mx.nd.array(batch[0]), mx.nd.array(batch[1], dtype="int32")
    dense = SoftmaxCrossEntropy(5, dense=True)(logits, smooth_labels(mx.nd, labels, 5, 0.1))
    np.testing.assert_allclose(dense.asnumpy(),
                               SoftmaxCrossEntropy(5, 0.1)(logits, labels).asnumpy(), rtol=1e-6)


@pytest.mark.parametrize(("classes", "eps"), [(10, 0.1), (1000, 0.1), (5, 0.3)])
def test_the_optimum_has_the_papers_logit_gap(classes, eps):
    """Section 5.2: log((K - 1)(1 - eps) / eps) between the true logit and each other one."""
    loss = SoftmaxCrossEntropy(classes, eps)
    labels = mx.nd.array([3], dtype="int32")
    logits = mx.nd.random.normal(shape=(1, classes))
    logits.attach_grad()
    for _ in range(60):  # gradient descent, scaled by softmax's curvature, which is about p
        with autograd.record():
            value = loss(logits, labels)
        value.backward()
        logits -= mx.nd.clip(logits.grad / mx.nd.softmax(logits), -1, 1)
    got = logits.asnumpy()[0].astype(np.float64)
    gaps = np.delete(got[3] - got, 3)
    np.testing.assert_allclose(gaps, math.log((classes - 1) * (1 - eps) / eps), rtol=1e-3)


def test_fp16_logits_give_an_fp32_loss(batch):
    logits, labels = batch
    half = logits.astype(np.float16)
    got = SoftmaxCrossEntropy(5, 0.1)(mx.nd.array(half, dtype="float16"),
                                      mx.nd.array(labels, dtype="int32"))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.asnumpy(), reference(half, smoothed(labels, 5, 0.1)),
                               atol=ONEDNN)


@pytest.mark.parametrize("dense", [False, True])
def test_gradient_is_softmax_minus_target(batch, dense):
    logits, labels = batch
    target = smoothed(labels, 5, 0.1)
    _, gradient = with_gradient(SoftmaxCrossEntropy(5, 0.0 if dense else 0.1, dense),
                                mx.nd.array(logits), mx.nd.array(target if dense else labels))
    np.testing.assert_allclose(gradient, slopes(lambda z: reference(z, target), logits),
                               atol=ONEDNN)
    np.testing.assert_allclose(gradient, np.exp(log_softmax(logits)) - target, atol=ONEDNN)


@pytest.mark.parametrize("uniform", [False, True])
def test_fp16_gradients_arrive_in_fp16(batch, uniform):
    """Gaps of up to 1e5 between logits, whose exponentials and sums FP16 does not hold."""
    half = (batch[0] * 1e4).clip(-6e4, 6e4).astype(np.float16)
    half[0] = batch[0][0]
    data = mx.nd.array(half, dtype="float16")
    value, gradient = with_gradient(SoftmaxCrossEntropy(5, 0.1, uniform=uniform), data,
                                    mx.nd.array(batch[1], dtype="int32"))
    target = smoothed(batch[1], 5, 0.08 if uniform else 0.1)
    assert (value.dtype, gradient.dtype) == (np.float32, np.float16)
    np.testing.assert_allclose(value, reference(half, target), rtol=1e-6, atol=ONEDNN)
    np.testing.assert_allclose(gradient, np.exp(log_softmax(half)) - target, rtol=2**-11,
                               atol=ONEDNN)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_huge_logits_stay_finite(eps):
    logits = mx.nd.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, 1e4]])
    logits.attach_grad()
    with autograd.record():
        value = SoftmaxCrossEntropy(3, eps)(logits, mx.nd.array([0, 0, 1], dtype="int32"))
    value.backward()
    # gaps to the highest logit: 0, 2e4, 1e4 and 2e4, 0, 1e4
    want = [eps / 2 * 3e4, (1 - eps) * 2e4 + eps / 2 * 1e4, math.log(3)]
    np.testing.assert_allclose(value.asnumpy(), want, rtol=1e-6, atol=ONEDNN)
    assert np.isfinite(logits.grad.asnumpy()).all()


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_hybridized_equals_imperative(batch, eps):
    logits, labels = mx.nd.array(batch[0]), mx.nd.array(batch[1], dtype="int32")
    loss = SoftmaxCrossEntropy(5, eps)
    want = loss(logits, labels).asnumpy()
    loss.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_allclose(loss(logits, labels).asnumpy(), want, rtol=1e-6)
    np.testing.assert_allclose(loss(logits[:2], labels[:2]).asnumpy(), want[:2], rtol=1e-6)


@pytest.mark.parametrize("arguments", [(1,), (0,), (5, 1.0), (5, -0.1), (5, math.nan),
                                       (5, 0.1, True)])
def test_what_makes_no_loss_is_refused(arguments):
    with pytest.raises(ValueError):
        SoftmaxCrossEntropy(*arguments)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 20.0])
@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("target", ["labels", "smoothed", "dense"])
def test_distillation_and_its_gradient(batch, teacher, temperature, weight, target):
    logits, labels = batch
    weights = (1, 1) if weight is None else (weight, 1 - weight)
    if target == "dense":
        given = wanted = np.random.default_rng(1).dirichlet(np.ones(5), 6)
    else:
        given, wanted = labels, smoothed(labels, 5, 0.1 if target == "smoothed" else 0.0)
    hard = SoftmaxCrossEntropy(5, 0.1 if target == "smoothed" else 0.0, target == "dense")
    value, gradient = with_gradient(Distillation(hard, temperature, weight), mx.nd.array(logits),
                                    mx.nd.array(given), mx.nd.array(teacher))

    def in_float64(z):
        return distilled(z, wanted, teacher, temperature, weights)
    assert (value.shape, value.dtype) == ((6,), np.float32)
    np.testing.assert_allclose(value, in_float64(logits), atol=ONEDNN * (1 + temperature**2))
    np.testing.assert_allclose(gradient, slopes(in_float64, logits, h=1e-4),
                               atol=2 * ONEDNN * temperature)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("sparse", [True, False])
def test_the_weighted_form_is_gluoncvs(batch, teacher, weight, temperature, sparse):
    """Its soft target is the teacher's softmax already, its dense labels are smoothed before."""
    logits, labels, teacher = mx.nd.array(batch[0]), mx.nd.array(batch[1]), mx.nd.array(teacher)
    theirs = DistillationSoftmaxCrossEntropyLoss(temperature, weight, sparse_label=sparse)
    want = with_gradient(theirs, logits, labels if sparse else gluoncv_smooth(labels, 5),
                         mx.nd.softmax(teacher / temperature))
    hard = SoftmaxCrossEntropy(5, 0.0 if sparse else 0.1, uniform=True)
    got = with_gradient(Distillation(hard, temperature, weight), logits, labels, teacher)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6, atol=1e-6 * temperature**2)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-6 * temperature)


def test_the_temperatures_square_keeps_the_soft_gradient_as_large(batch, teacher):
    """For small logits, where softmax is about (1 + z - mean z) / K: within a tenth."""
    logits, teacher = batch[0] / 50, teacher / 50
    norms = [np.linalg.norm(with_gradient(
        Distillation(SoftmaxCrossEntropy(5), temperature, hard_weight=0.0), mx.nd.array(logits),
        mx.nd.array(batch[1]), mx.nd.array(teacher))[1]) for temperature in (1, 2, 5, 10, 20)]
    gap = logits - teacher
    want = np.linalg.norm(gap - gap.mean(axis=1, keepdims=True)) / 5
    np.testing.assert_allclose(norms, want, rtol=0.1)
    np.testing.assert_allclose(norms, norms[0], rtol=0.1)


def test_no_gradient_reaches_the_teacher(batch, teacher):
    logits, own = mx.nd.array(batch[0]), mx.nd.array(teacher)
    own.attach_grad()
    own.grad[:] = 7  # is overwritten by what arrives
    with autograd.record():
        # Through the logits, too, so that something does arrive.
        value = Distillation(SoftmaxCrossEntropy(5))(logits + 0 * own, mx.nd.array(batch[1]), own)
    value.backward()
    np.testing.assert_array_equal(own.grad.asnumpy(), np.zeros((6, 5)))


def test_distillation_of_fp16_logits(batch, teacher):
    """Among them some whose T^2-fold loss FP16 does not hold."""
    half, own = (array.astype(np.float16) * np.float16(800) for array in (batch[0], teacher))
    loss = Distillation(SoftmaxCrossEntropy(5, 0.1), 20.0)
    value, gradient = with_gradient(loss, mx.nd.array(half, dtype="float16"),
                                    mx.nd.array(batch[1]), mx.nd.array(own, dtype="float16"))

    def in_float64(z):
        return distilled(z, smoothed(batch[1], 5, 0.1), own.astype(np.float64), 20.0, (1, 1))
    want = in_float64(half.astype(np.float64))
    assert want.max() > np.finfo(np.float16).max
    assert (value.dtype, gradient.dtype) == (np.float32, np.float16)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, slopes(in_float64, half, h=1e-3), rtol=2**-10, atol=1e-3)


def test_hybridized_distillation_equals_imperative(batch, teacher):
    loss = Distillation(SoftmaxCrossEntropy(5, 0.1), 4.0, 0.3)
    arrays = mx.nd.array(batch[0]), mx.nd.array(batch[1], dtype="int32"), mx.nd.array(teacher)
    want = with_gradient(loss, *arrays)
    loss.hybridize(static_alloc=True, static_shape=True)
    for got, wanted in zip(with_gradient(loss, *arrays), want, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("temperature", "weight"), [
    (0, None), (-1, 0.5), (math.nan, None), (math.inf, None), (1, -0.1), (1, 1.1), (1, math.nan)])
def test_what_makes_no_distillation_is_refused(temperature, weight):
    with pytest.raises(ValueError, match="temperature"):
        Distillation(SoftmaxCrossEntropy(5), temperature, weight)
