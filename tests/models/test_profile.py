"""Parameters and multiply-adds against published counts and hand-computed ones."""

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_tricks.models.profile import profile
from gluon_tricks.models.zoo import get_model

PUBLISHED = [  # parameters; multiply-adds in G: table 5 of arXiv 1812.01187 has 3.8, 4.1, 4.3, 4.3
    ("resnet50_v1", 25_575_912, "3.858"),
    ("resnet50_v1b", 25_557_032, "4.089"),
    ("resnet50_v1c", 25_576_264, "4.329"),
    ("resnet50_v1d", 25_576_264, "4.329"),
]


@pytest.mark.parametrize(("name", "parameters", "multiply_adds"), PUBLISHED)
def test_table_5(name, parameters, multiply_adds):
    result = profile(get_model(name))
    assert result.parameters == parameters
    assert f"{result.multiply_adds / 1e9:.3f}" == multiply_adds


def test_resnet50_v1b_to_the_last_multiply_add():
    """Every convolution by hand: output side^2 * channels out * channels in * kernel area."""
    total = 112**2 * 64 * 3 * 49 + 2048 * 1000
    channels = 64
    for side, width, blocks in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        for block in range(blocks):
            before = 2 * side if block == 0 and side < 56 else side  # the stride is in the 3x3
            total += before**2 * width * channels + side**2 * width * width * 9
            total += side**2 * 4 * width * width
            if block == 0:
                total += side**2 * 4 * width * channels
            channels = 4 * width
    assert profile(get_model("resnet50_v1b")).multiply_adds == total == 4_089_184_256


def test_a_tiny_network_by_hand():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, 2, 1, in_channels=3),  # 9x7 -> 5x4
            nn.BatchNorm(in_channels=8), nn.Activation("relu"),
            nn.Conv2D(6, 3, groups=2, use_bias=False, in_channels=8),  # -> 3x2
            nn.Dense(10, in_units=36))
    result = profile(net, (3, 9, 7))
    rows = [(layer.name, layer.kind, layer.output, layer.parameters, layer.multiply_adds)
            for layer in result.layers]
    assert rows == [
        ("0", "Convolution", (8, 5, 4), 3 * 8 * 9 + 8, 160 * 27),
        ("1", "BatchNorm", (8, 5, 4), 16, 0),
        ("3", "Convolution", (6, 3, 2), 6 * 4 * 9, 36 * 36),
        ("4", "FullyConnected", (10,), 370, 360)]
    assert (result.parameters, result.multiply_adds) == (224 + 16 + 216 + 370, 4320 + 1296 + 360)


def test_a_dense_layer_over_the_last_axis_works_at_every_place():
    net = nn.HybridSequential()
    net.add(nn.Dense(5, flatten=False, in_units=7, use_bias=False))
    result = profile(net, (2, 3, 7))
    assert (result.parameters, result.multiply_adds) == (35, 2 * 3 * 5 * 7)


def test_a_shared_layer_has_its_parameters_once_and_works_twice():
    net = nn.HybridSequential()
    layer = nn.Conv2D(4, 3, padding=1, in_channels=4)
    net.add(layer, nn.Activation("relu"), layer)
    result = profile(net, (4, 8, 8))
    assert result.parameters == 4 * 4 * 9 + 4
    assert result.multiply_adds == 2 * 64 * 4 * 36


def test_frozen_parameters_are_not_counted():
    net = nn.HybridSequential()
    net.add(nn.Dense(5, in_units=6), nn.Dense(3, in_units=5))
    net[0].collect_params().setattr("grad_req", "null")
    assert profile(net, (6,)).parameters == 18


def test_mobilenet_with_its_grouped_convolutions():
    result = profile(get_model("mobilenet1.0"))
    assert result.parameters == 4_231_976  # as Keras counts trainable ones
    assert result.multiply_adds == 568_740_352  # MobileNet's paper says 569 M
    depthwise = [layer for layer in result.layers if layer.output == (32, 112, 112)
                 and layer.kind == "Convolution"]
    assert [layer.multiply_adds for layer in depthwise] == [112**2 * 32 * 27, 112**2 * 32 * 9]


@pytest.mark.parametrize(("name", "size"), [
    ("cifar_resnet20_v1", 32), ("resnet18_v1d", 64), ("se_resnet18_v1", 64),
    ("mobilenetv3_small", 64), ("densenet121", 224), ("inceptionv3", 299),
    ("squeezenet1.0", 224)])
def test_parameters_are_all_the_trainable_ones(name, size):
    net = get_model(name, classes=10)
    result = profile(net, (3, size, size))
    net.infer_shape(mx.nd.zeros((1, 3, size, size)))
    want = sum(math.prod(parameter.shape) for parameter in net.collect_params().values()
               if parameter.grad_req != "null")
    assert result.parameters == want


def test_layers_come_in_the_order_of_the_data_with_their_shapes():
    layers = profile(get_model("resnet18_v1d", classes=10), (3, 32, 48)).layers
    assert [layer.name for layer in layers[:4]] == ["conv1.0", "conv1.1", "conv1.3", "conv1.4"]
    assert layers[0].output == (32, 16, 24)
    last = layers[-1]
    assert (last.name, last.kind, last.output, last.parameters, last.multiply_adds) == (
        "fc", "FullyConnected", (10,), 5130, 5120)
    assert len({layer.name for layer in layers}) == len(layers)


def test_multiply_adds_of_a_convolution_are_counted_by_running_it():
    """With weights and input of ones and no padding each output is its number of products."""
    net = nn.Conv2D(6, (3, 2), strides=(2, 1), dilation=(1, 2), groups=3, in_channels=9,
                    use_bias=False)
    net.initialize(mx.init.One())
    outputs = net(mx.nd.ones((1, 9, 11, 10))).asnumpy()
    assert profile(net, (9, 11, 10)).multiply_adds == int(np.sum(outputs))
