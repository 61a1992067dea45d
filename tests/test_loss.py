"""Label smoothing and cross-entropy against closed forms in float64."""

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from gluon_tricks.loss import SoftmaxCrossEntropy, smooth_labels

ONEDNN = 1e-5  # its log_softmax is right to about 3e-6, absolutely


def reference(logits, target):
    """-sum q log softmax(z) in float64; `target` are probabilities."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -(target * log_softmax).sum(axis=1)


def smoothed(labels, classes, eps):
    target = np.full((len(labels), classes), eps / (classes - 1))
    target[np.arange(len(labels)), labels] = 1 - eps
    return target


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (6, 5)).astype(np.float32), np.array([0, 4, 2, 2, 1, 3], np.int32)


def test_smooth_labels_by_hand():
    got = smooth_labels(mx.nd, mx.nd.array([2, 0], dtype="int32"), classes=5, eps=0.1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.asnumpy(), [[0.025, 0.025, 0.9, 0.025, 0.025],
                                               [0.9, 0.025, 0.025, 0.025, 0.025]], rtol=1e-6)


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
    np.testing.assert_array_equal(dense.asnumpy(),
                                  SoftmaxCrossEntropy(5, 0.1)(logits, labels).asnumpy())


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
    data = mx.nd.array(logits)
    data.attach_grad()
    loss = SoftmaxCrossEntropy(5, 0.0 if dense else 0.1, dense)
    with autograd.record():
        value = loss(data, mx.nd.array(target if dense else labels))
    value.backward()
    numeric, h = np.empty_like(logits, np.float64), 1e-5
    for column in range(5):
        step = h * np.eye(5)[column]
        numeric[:, column] = (reference(logits + step, target)
                              - reference(logits - step, target)) / (2 * h)
    np.testing.assert_allclose(data.grad.asnumpy(), numeric, atol=ONEDNN)


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
