"""AdaBound's and AMSBound's own promises: the bounds, and a second moment that never decreases."""

import mxnet as mx
import pytest

from gluon_tricks.optim.adabound import AdaBound, AMSBound, bounds


@pytest.mark.parametrize(("t", "low", "high"), [
    (1, 9.99000999000999e-05, 100.1),  # 0.1 (1 - 1 / 1.001), 0.1 (1 + 1000)
    (1000, 0.05, 0.2),
    (10**6, 0.0999000999000999, 0.1001)])
def test_bounds(t, low, high):
    assert bounds(t, final_lr=0.1, gamma=1e-3) == pytest.approx((low, high), rel=1e-9)


def updated(optimizer, weight, gradient, state, lr, t):
    optimizer.set_learning_rate(lr)
    optimizer._index_update_count[0] = t - 1
    optimizer.update(0, weight, gradient, state)
    return weight.asscalar()


@pytest.mark.parametrize(("gradient", "lr", "step"), [
    # m = 0.1 g at the first of its updates, here number 1000. Adam's step of lr 0.1 would be
    # 0.1 sqrt(1 - 0.999^1000) / sqrt(0.001 g^2): 2.51 / g, beyond the maximum step of 0.2
    (1.0, 0.1, 0.2),
    (1.0, 0.05, 0.1),  # the bounds follow the schedule: half the lr, half the maximum step
    (100.0, 0.1, 0.05),  # 0.0251, below the minimum step
    (100.0, 0.05, 0.025),
    (25.0, 0.1, 0.1005827),  # 0.1 * 0.7951761 / 0.7905694, between them
    (25.0, 0.0, 0.0)])
def test_steps_between_bounds_that_follow_the_schedule(gradient, lr, step):
    optimizer = AdaBound(learning_rate=0.1, final_lr=0.1)
    weight = mx.nd.zeros((1,))
    after = updated(optimizer, weight, mx.nd.array([gradient]),
                    optimizer.create_state(0, weight), lr, 1000)
    assert after == pytest.approx(-step * 0.1 * gradient, rel=1e-5)


@pytest.mark.parametrize(("kind", "falls"), [(AdaBound, True), (AMSBound, False)])
def test_amsbounds_second_moment_never_falls(kind, falls):
    """One large gradient, then none: v falls by beta2 = 1/2, the largest v stays at 50."""
    optimizer = kind(learning_rate=0.1, beta1=0.0, beta2=0.5, final_lr=0.1)
    weight = mx.nd.zeros((1,))
    state = optimizer.create_state(0, weight)
    steps, before = [], 0.0
    for t, gradient in enumerate((10.0, 1.0, 1.0), start=1):
        after = updated(optimizer, weight, mx.nd.array([gradient]), state, 0.1, t)
        steps.append(before - after)
        before = after
    v = [50.0, 25.5, 13.25] if falls else [50.0, 50.0, 50.0]
    # beta1 0, so that m = g; Adam's step is within the bounds, the minimum being 0.0003 at t = 3
    want = [0.1 * (1 - 0.5**t)**0.5 / v[t - 1]**0.5 * g for t, g in ((1, 10), (2, 1), (3, 1))]
    assert steps == pytest.approx(want, rel=1e-4)
    assert state[1].asscalar() == pytest.approx(13.25)
    if not falls:
        assert state[2].asscalar() == 50.0


def test_the_gradient_is_cut_where_asked():
    optimizer = AdaBound(learning_rate=0.1, final_lr=0.1, clip_gradient=0.5)
    weight = mx.nd.zeros((2,))
    state = optimizer.create_state(0, weight)
    optimizer.update(0, weight, mx.nd.array([-7.0, 0.25]), state)
    assert state[0].asnumpy().tolist() == pytest.approx([-0.05, 0.025])


@pytest.mark.parametrize("wrong", [
    {"beta1": 1.0}, {"beta2": 1.0}, {"beta1": -0.1}, {"final_lr": 0.0}, {"gamma": 0.0},
    {"epsilon": 0.0}])
def test_what_is_no_optimizer_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdaBound(**wrong)
