"""Weight decay with NAG: what moves with a gradient of zero, and by how much."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn

from gluon_tricks.models.zoo import get_model
from gluon_tricks.optim.regularize import no_bias_decay

LRS = [0.1, 0.5, 0.0, 0.2]  # for four steps, as from a schedule


@pytest.fixture
def net():
    """A convolution and a dense layer with biases, BatchNorm between; nothing is zero or one."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=2), nn.BatchNorm(in_channels=4),
            nn.Dense(3, in_units=4 * 2 * 2))
    net.initialize()
    rng = np.random.default_rng(0)
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(rng.uniform(0.5, 1.5, parameter.shape)))
    return net


def values(net):
    return {name: parameter.data().asnumpy().copy()
            for name, parameter in net._collect_params_with_prefix().items()
            if parameter.grad_req != "null"}


def steps_without_gradient(net, wd=0.01, momentum=0.9):
    trainer = gluon.Trainer(net.collect_params(), "nag",
                            {"learning_rate": 1.0, "momentum": momentum, "wd": wd}, kvstore=None)
    for lr in LRS:
        with autograd.record():
            out = net(mx.nd.ones((2, 2, 4, 4))) * 0
        out.backward()
        trainer.set_learning_rate(lr)
        trainer.step(2)


def nag(weight, wd=0.01, momentum=0.9):
    """MXNet's rule in float64 when the loss's gradient is 0.

    lr * gradient is in the buffer; and the kernel, working in place, writes the weight first, so
    that the buffer's share of the decay is that of the new weight.
    """
    weight, buffer = weight.astype(np.float64), np.zeros(weight.shape)
    for lr in LRS:
        ahead = momentum * buffer - lr * wd * weight
        weight = weight + momentum * ahead - lr * wd * weight
        buffer = momentum * buffer - lr * wd * weight
    return weight


WEIGHTS = {"0.weight", "2.weight"}
SPARED = {"0.bias", "1.gamma", "1.beta", "2.bias"}


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_without_bias_decay_only_weights_shrink_and_as_nag_says(net, momentum):
    no_bias_decay(net.collect_params())
    before = values(net)
    steps_without_gradient(net, momentum=momentum)
    after = values(net)
    assert after.keys() == WEIGHTS | SPARED
    for name in SPARED:
        assert after[name].tobytes() == before[name].tobytes(), name
    for name in WEIGHTS:
        np.testing.assert_allclose(after[name], nag(before[name], momentum=momentum), rtol=3e-7)
        assert (np.abs(after[name]) < np.abs(before[name])).all()


def test_otherwise_all_shrink(net):
    before = values(net)
    steps_without_gradient(net)
    for name, value in values(net).items():
        np.testing.assert_allclose(value, nag(before[name]), rtol=3e-7)


def test_the_loss_still_moves_what_is_spared(net):
    no_bias_decay(net.collect_params())
    before = values(net)
    trainer = gluon.Trainer(net.collect_params(), "nag", {"learning_rate": 0.1}, kvstore=None)
    with autograd.record():
        loss = (net(mx.nd.random.normal(shape=(2, 2, 4, 4))) ** 2).sum()
    loss.backward()
    trainer.step(2)
    assert all((value != before[name]).any() for name, value in values(net).items()
               if name != "0.bias")  # which precedes a BatchNorm


@pytest.mark.parametrize(("name", "spared_trainable"), [
    ("resnet50_v1d", 2 * 55 + 1),  # 55 BatchNorms, one dense bias
    ("resnet50_v1", 2 * 53 + 32 + 1),  # besides the biases of two 1x1 convolutions per block
    ("mobilenet1.0", 2 * 27 + 1), ("vgg11", 11)])
def test_all_of_a_network_but_its_weights_is_spared(name, spared_trainable):
    net = get_model(name, classes=10)
    named = net.collect_params()
    spared = no_bias_decay(named)
    trainable = [key for key in spared if named[key].grad_req != "null"]
    assert len(trainable) == spared_trainable
    for key, parameter in named.items():
        weight = key.endswith("_weight")
        assert parameter.wd_mult == (1.0 if weight else 0.0)
        assert (key in spared) == (not weight)
