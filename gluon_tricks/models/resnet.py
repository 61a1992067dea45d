"""ResNet with the tweaks B, C and D (arXiv 1812.01187, section 4, figure 2), as one set of blocks.

A residual block adds path A (the convolutions) to path B (the shortcut):

    ResNet   path A: 1x1, stride 2 -> 3x3 -> 1x1        path B: 1x1, stride 2        stem: 7x7
    B        path A: 1x1 -> 3x3, stride 2 -> 1x1
    C                                                                                stem: 3 x 3x3
    D                                                   path B: 2x2 average pool, stride 2 -> 1x1

`resnet50_v1` has none of them, `_v1b` has B, `_v1c` B and C, `_v1d` all three. Structural parameter
names are GluonCV's, so that .params files can be exchanged.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from mxnet.gluon import nn
from mxnet.gluon.block import HybridBlock

from gluon_tricks.models.group_norm import GroupNorm
from gluon_tricks.models.pooling import SpatialMean


class Tweaks(NamedTuple):
    """Which of the paper's model tweaks a network has."""

    b: bool = False  # stride 2 of path A in the 3x3 convolution, not in the first 1x1
    c: bool = False  # three 3x3 convolutions instead of the 7x7 stem
    d: bool = False  # an average pool, not the 1x1 convolution, downsamples path B


TWEAKS = {
    "v1": Tweaks(),
    "v1b": Tweaks(b=True),
    "v1c": Tweaks(b=True, c=True),
    "v1d": Tweaks(b=True, c=True, d=True),
}
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3),
          152: (3, 8, 36, 3)}
NAMES = (*(f"resnet{depth}_{version}" for depth in STAGES for version in TWEAKS),
         "resnet50_v1b_gn", "resnet101_v1b_gn")  # with GroupNorm: those that GluonCV has
Norm = Callable[..., HybridBlock]  # a normalization class, called with in_channels


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1,
          bias: bool = False) -> nn.Conv2D:
    """A convolution that preserves height and width at stride 1."""
    return nn.Conv2D(channels, kernel, stride, padding=(kernel // 2) * dilation, dilation=dilation,
                     use_bias=bias, in_channels=in_channels)


def _last(norm: Norm, channels: int, last_gamma: bool) -> HybridBlock:
    """The normalization at the end of a block."""
    return norm(in_channels=channels, gamma_initializer="zeros" if last_gamma else "ones")


def _path_b(in_channels: int, channels: int, stride: int, average_pool: bool,
            norm: Norm) -> HybridBlock:
    """The shortcut of a block that changes shape."""
    path = nn.HybridSequential(prefix="")
    if average_pool:  # child 0 even if there is nothing to pool: names number the children
        path.add(nn.AvgPool2D(stride, stride, ceil_mode=True, count_include_pad=False)
                 if stride > 1 else nn.HybridSequential(prefix=""))
        stride = 1
    path.add(_conv(in_channels, channels, 1, stride), norm(in_channels=channels))
    return path


class BasicBlock(HybridBlock):
    """Path A of ResNet-18 and -34: 3x3 -> 3x3. Input (N, in_channels, H, W).

    `dilations` are those of the first and the second convolution.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilations: tuple[int, int],
                 tweaks: Tweaks, last_gamma: bool, norm: Norm, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.conv1 = _conv(in_channels, width, 3, stride, dilations[0])
            self.bn1 = norm(in_channels=width)
            self.conv2 = _conv(width, width, 3, dilation=dilations[1])
            self.bn2 = _last(norm, width, last_gamma)
            self.downsample = None
            if stride != 1 or in_channels != width:
                self.downsample = _path_b(in_channels, width, stride, tweaks.d, norm)

    def hybrid_forward(self, F, x):
        a = F.relu(self.bn1(self.conv1(x)))
        a = self.bn2(self.conv2(a))
        b = x if self.downsample is None else self.downsample(x)
        return F.relu(a + b)


class Bottleneck(HybridBlock):
    """Path A of ResNet-50 and deeper: 1x1 -> 3x3 -> 1x1, four times as wide at the end.

    Input (N, in_channels, H, W). `dilations[0]` is the 3x3 convolution's.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilations: tuple[int, int],
                 tweaks: Tweaks, last_gamma: bool, norm: Norm, **kwargs):
        super().__init__(**kwargs)
        channels = width * self.expansion
        stride1, stride2 = (1, stride) if tweaks.b else (stride, 1)
        bias = not tweaks.b  # GluonCV's v1 has biases in its 1x1 convolutions
        with self.name_scope():
            self.conv1 = _conv(in_channels, width, 1, stride1, bias=bias)
            self.bn1 = norm(in_channels=width)
            self.conv2 = _conv(width, width, 3, stride2, dilations[0])
            self.bn2 = norm(in_channels=width)
            self.conv3 = _conv(width, channels, 1, bias=bias)
            self.bn3 = _last(norm, channels, last_gamma)
            self.downsample = None
            if stride != 1 or in_channels != channels:
                self.downsample = _path_b(in_channels, channels, stride, tweaks.d, norm)

    def hybrid_forward(self, F, x):
        a = F.relu(self.bn1(self.conv1(x)))
        a = F.relu(self.bn2(self.conv2(a)))
        a = self.bn3(self.conv3(a))
        b = x if self.downsample is None else self.downsample(x)
        return F.relu(a + b)


def _stem(in_channels: int, three_convolutions: bool, norm: Norm) -> HybridBlock:
    """Everything before bn1: 64 channels, stride 2."""
    if not three_convolutions:
        return _conv(in_channels, 64, 7, 2)
    stem = nn.HybridSequential(prefix="")
    stem.add(_conv(in_channels, 32, 3, 2), norm(in_channels=32), nn.Activation("relu"),
             _conv(32, 32, 3), norm(in_channels=32), nn.Activation("relu"),
             _conv(32, 64, 3))
    return stem


class ResNet(HybridBlock):
    """A residual network: (N, in_channels, H, W) images to (N, classes) logits.

    depth: 18, 34, 50, 101 or 152. tweaks: which of B, C and D it has.
    last_gamma: zero gamma (section 3.1): each block's last BatchNorm starts at gamma 0, so that
        a block is its shortcut at first. dropout: share of features dropped before the classifier.
    dilated: for segmentation, stages 3 and 4 keep stage 2's size (1/8 of the input) and dilate
        their convolutions instead.
    norm: the class of all normalization layers.
    """

    def __init__(self, depth: int, tweaks: Tweaks, *, classes: int = 1000, in_channels: int = 3,
                 last_gamma: bool = False, dropout: float = 0.0, dilated: bool = False,
                 norm: Norm = nn.BatchNorm, **kwargs):
        super().__init__(**kwargs)
        self._tweaks, self._of_blocks = tweaks, (tweaks, last_gamma, norm)
        block = BasicBlock if depth < 50 else Bottleneck
        counts = STAGES[depth]
        widths = [64 * block.expansion, 128 * block.expansion, 256 * block.expansion]
        with self.name_scope():
            self.conv1 = _stem(in_channels, tweaks.c, norm)
            self.bn1 = norm(in_channels=64)
            self.maxpool = nn.MaxPool2D(3, 2, 1)
            self.layer1 = self._stage(block, counts[0], 64, 64, stride=1)
            self.layer2 = self._stage(block, counts[1], widths[0], 128, stride=2)
            self.layer3 = self._stage(block, counts[2], widths[1], 256,
                                      stride=1 if dilated else 2, dilation=2 if dilated else 1)
            self.layer4 = self._stage(block, counts[3], widths[2], 512,
                                      stride=1 if dilated else 2, dilation=4 if dilated else 1)
            self.avgpool = SpatialMean()
            self.drop = nn.Dropout(dropout) if dropout > 0 else None
            self.fc = nn.Dense(classes, in_units=512 * block.expansion)

    def _stage(self, block: type, count: int, in_channels: int, width: int, stride: int,
               dilation: int = 1) -> nn.HybridSequential:
        stage = nn.HybridSequential(prefix="")
        first = max(1, dilation // 2)  # the first block still sees the stage before it
        stage.add(block(in_channels, width, stride, (first, dilation), *self._of_blocks))
        for _ in range(count - 1):
            stage.add(block(width * block.expansion, width, 1, (dilation, dilation),
                            *self._of_blocks))
        return stage

    def hybrid_forward(self, F, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.flatten(self.avgpool(x))
        if self.drop is not None:
            x = self.drop(x)
        return self.fc(x)

    def _collect_params_with_prefix(self, prefix=""):
        """The structural names Gluon saves and loads by; for v1, those of GluonCV's v1."""
        names = super()._collect_params_with_prefix()
        if not self._tweaks.b:
            names = {_gluoncv_v1_name(name): parameter for name, parameter in names.items()}
        return {f"{prefix}.{name}" if prefix else name: value for name, value in names.items()}


_V1_TOP = {"conv1": "features.0", "bn1": "features.1", "layer1": "features.4",
           "layer2": "features.5", "layer3": "features.6", "layer4": "features.7", "fc": "output"}
_V1_BLOCK = {"conv1": "body.0", "bn1": "body.1", "conv2": "body.3", "bn2": "body.4",
             "conv3": "body.6", "bn3": "body.7"}


def _gluoncv_v1_name(name: str) -> str:
    """`layer1.0.conv2.weight` -> `features.4.0.body.3.weight`."""
    top, *rest = name.split(".")
    if top.startswith("layer"):
        index, part, *leaf = rest
        rest = [index, _V1_BLOCK.get(part, part), *leaf]
    return ".".join([_V1_TOP[top], *rest])


def parts_of(name: str) -> tuple[int, Tweaks, bool]:
    """The depth, the tweaks and whether there is GroupNorm, from a name, one of NAMES."""
    depth, version, gn = re.fullmatch(r"resnet(\d+)_(v1[bcd]?)(_gn)?", name).groups()
    return int(depth), TWEAKS[version], gn is not None


def resnet(name: str, *, use_gn: bool = False, **options) -> ResNet:
    """The network called `name`, one of NAMES; options are those of `ResNet`."""
    depth, tweaks, gn = parts_of(name)
    if use_gn or gn:
        options["norm"] = GroupNorm
    return ResNet(depth, tweaks, prefix=f"{name}_", **options)
