"""The average of the weights, against float64, and next to a network that does not wait."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn

from gluon_tricks.models.graph import statistics_gradients
from gluon_tricks.models.parameters import named_arrays
from gluon_tricks.optim.ema import WeightAverage, decay_at


@pytest.mark.parametrize(("update", "decay"), [
    (0, 0.1), (1, 2 / 11), (8, 0.5), (89990, 0.9999), (89980, 89981 / 89990), (10**9, 0.9999)])
def test_decay_at(update, decay):
    assert decay_at(update, 0.9999) == pytest.approx(decay, rel=1e-12)
    assert decay_at(update, 0.0) == 0


def test_fifty_updates():
    """FP16 weights are averaged in FP32: they move by less than the FP16 steps near 1."""
    rng = np.random.default_rng(0)
    shapes = {"conv": (4, 3, 3, 3), "gamma": (4,), "fc": (5, 7)}
    weights = {name: mx.nd.array(rng.uniform(0.5, 1, shape), dtype=dtype)
               for (name, shape), dtype in zip(shapes.items(), ("float16", "float32", "float16"),
                                               strict=True)}
    average = WeightAverage(weights, 0.7)
    want = {name: weight.asnumpy().astype(np.float64) for name, weight in weights.items()}
    for update in range(50):
        for name, weight in weights.items():
            weight[:] = rng.uniform(0.5, 1, shapes[name])
            d = min(0.7, (1 + update) / (10 + update))
            want[name] = d * want[name] + (1 - d) * weight.asnumpy().astype(np.float64)
        average.update(update)
    for name, array in average.arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array.asnumpy(), want[name], rtol=1e-6, err_msg=name)


def test_it_starts_as_a_copy_and_leaves_the_weights_alone():
    weights = {"w": mx.nd.full((2,), 0.123456789)}
    average = WeightAverage(weights, 0.5)
    assert average.arrays["w"].asnumpy().tobytes() == weights["w"].asnumpy().tobytes()
    weights["w"][:] = 1
    average.arrays["w"][:] = 7
    average.update(0)  # 0.1 * 7 + 0.9 * 1
    assert weights["w"].asnumpy().tolist() == [1, 1]
    assert average.arrays["w"].asnumpy() == pytest.approx(1.6)


def test_load():
    weights = {"w": mx.nd.ones((2,)), "b": mx.nd.ones((3,), dtype="float16")}
    one, other = WeightAverage(weights, 0.5), WeightAverage(weights, 0.5)
    one.arrays["b"][:] = 0.123456789
    other.load(one.arrays)
    assert other.arrays["b"].asnumpy().tobytes() == np.full(3, 0.123456789, "float32").tobytes()
    one.arrays["b"][:] = 0
    assert (other.arrays["b"] != 0).asnumpy().all()  # a copy
    with pytest.raises(KeyError, match="b"):
        other.load({"w": weights["w"]})


@pytest.mark.parametrize("value", [1.0, np.inf, np.nan])
def test_after_adds_nothing_but_order(value):
    weights = {"mean": mx.nd.array([1.0, 2.0])}
    average = WeightAverage(weights, 0.0, {"mean": mx.nd.full((2,), value)})
    weights["mean"][:] = 5
    average.update(0)
    assert average.arrays["mean"].asnumpy().tolist() == [5, 5]


def averaged(wait):
    """The bits of a network's average after six steps, waiting after each operator or never."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3, in_channels=3), nn.BatchNorm(in_channels=16, momentum=0.5),
            nn.Activation("relu"), nn.Conv2D(16, 3, in_channels=16),
            nn.BatchNorm(in_channels=16, momentum=0.5), nn.Dense(4, in_units=16 * 12 * 12))
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    average = WeightAverage(named_arrays(net), 0.9, statistics_gradients(net))
    assert len(average._after) == 4
    batches = [mx.nd.array(np.random.default_rng(step).normal(step, 1 + step, (16, 3, 16, 16)))
               for step in range(6)]
    for step, batch in enumerate(batches):
        with autograd.record():
            loss = (net(batch) ** 2).mean()
        loss.backward()
        if wait:
            mx.nd.waitall()
        average.update(step)
        if wait:
            mx.nd.waitall()
    return {name: array.asnumpy().tobytes() for name, array in average.arrays.items()}


def test_running_statistics_are_averaged_as_the_backward_pass_left_them():
    """On the CPU it writes them, unknown to MXNet's engine."""
    want = averaged(wait=True)
    for _ in range(20):
        assert averaged(wait=False) == want
