"""LARS: the trust ratio, what is exempt from it, and momentum with a changing rate."""

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.optim.lars import LayerwiseLARS


def first_step(weight, gradient, **options):
    """w before minus w after one update at lr 1."""
    options = {"learning_rate": 1.0, "eta": 0.01, "wd": 0.5, **options}
    optimizer = LayerwiseLARS(**options)
    array = mx.nd.array(weight)
    optimizer.update(0, array, mx.nd.array(gradient), optimizer.create_state(0, array))
    return np.asarray(weight) - array.asnumpy()


def test_the_trust_ratio_by_hand():
    """|w| = 5, |g| = 13, wd 1/2: 0.01 * 5 / (13 + 2.5) = 0.05 / 15.5, times g + w / 2."""
    step = first_step([[3.0, 4.0]], [[5.0, 12.0]])
    np.testing.assert_allclose(step, np.array([[6.5, 14.0]]) * 0.05 / 15.5, rtol=1e-5)


def test_the_ratio_takes_the_rescaled_and_cut_gradient():
    step = first_step([[3.0, 4.0]], [[50.0, 120.0]], rescale_grad=0.1)
    np.testing.assert_allclose(step, np.array([[6.5, 14.0]]) * 0.05 / 15.5, rtol=1e-5)
    step = first_step([[3.0, 4.0]], [[9.0, 40.0]], clip_gradient=12.0)  # |g| = 15
    np.testing.assert_allclose(step, np.array([[10.5, 14.0]]) * 0.05 / 17.5, rtol=1e-5)


def test_gamma_beta_and_biases_are_left_out():
    np.testing.assert_allclose(first_step([3.0, 4.0], [5.0, 12.0]), [6.5, 14.0], rtol=1e-6)


@pytest.mark.parametrize(("weight", "gradient", "want"), [
    ([[0.0, 0.0]], [[5.0, 12.0]], [[5.0, 12.0]]),
    ([[3.0, 4.0]], [[0.0, 0.0]], [[1.5, 2.0]]),
    ([[0.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]])])
def test_where_a_norm_is_zero_the_ratio_is_one(weight, gradient, want):
    np.testing.assert_allclose(first_step(weight, gradient), want, rtol=1e-6)


@pytest.mark.parametrize("value", [1e-3, None])
def test_norms_of_millions_of_numbers(value):
    """FP32 sums that add one by one lose 1e-3 to 3e-2 here."""
    rng = np.random.default_rng(0)
    shape = (1000, 3000)
    weight = rng.standard_normal(shape).astype("float32") if value is None else \
        np.full(shape, value, "float32")
    step = first_step(weight, np.full(shape, 2.0, "float32"), wd=0.0, eta=1.0)
    ratio = np.linalg.norm(weight.astype(np.float64)) / (2 * 3e6**0.5)
    assert np.median(step) == pytest.approx(2 * ratio, rel=1e-3)


def test_a_change_of_lr_takes_hold_at_once_in_every_parameter():
    """arXiv 1706.02677, section 3: the momentum holds no lr. MXNet's LARS corrects only the first
    of its chunks. Gradient 1, trust eta = 1/2 for w = 1, momentum 1/2, lr 1, 0.1, 0:
    v = 0.5, then the weight 0.5 and trust 1/4: v = 0.5, w = 0.45; then lr 0: w stays."""
    optimizer = LayerwiseLARS(learning_rate=1.0, momentum=0.5, eta=0.5)
    weights = [mx.nd.ones((1, 1)) for _ in range(70)]
    states = [optimizer.create_state(i, weight) for i, weight in enumerate(weights)]
    seen = []
    for lr in (1.0, 0.1, 0.0):
        optimizer.set_learning_rate(lr)
        for i, weight in enumerate(weights):
            optimizer.update(i, weight, mx.nd.ones((1, 1)), states[i])
        seen.append([weight.asscalar() for weight in weights])
    for got, want in zip(seen, (0.5, 0.45, 0.45), strict=True):
        assert got == pytest.approx([want] * 70, rel=1e-6)


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"momentum": -0.1}, {"eta": 0.0}])
def test_what_is_no_optimizer_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LayerwiseLARS(**wrong)
