"""Networks so small that their runs take almost no time."""

from mxnet.gluon import nn


def plain(name, classes, **_):
    """Two layers without BatchNorm; `name` and options are those of `get_model`."""
    return _layers(classes, nn.Activation("tanh"))


def normalised(name, classes, **_):
    """Two layers with BatchNorm."""
    return _layers(classes, nn.BatchNorm(in_channels=4))


def frozen(name, classes, **_):
    """Two layers with a BatchNorm that uses its running statistics, not the batch's."""
    return _layers(classes, nn.BatchNorm(in_channels=4, use_global_stats=True))


def dropping(name, classes, **_):
    """Two layers with dropout."""
    return _layers(classes, nn.Dropout(0.5))


def _layers(classes, between):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 5, strides=4, in_channels=3), between,
            nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(classes, in_units=4))
    return net
