"""The mean over height and width that classifiers end with."""

import numpy as np
from mxnet.gluon import nn
from mxnet.gluon.block import HybridBlock


class SpatialMean(nn.GlobalAvgPool2D):
    """The mean over height and width: (N, C, H, W) to (N, C, 1, 1).

    Output and gradient equal those of GlobalAvgPool2D up to the last bits; the gradient's memory
    layout differs. On a CPU, oneDNN's pooling of few channels (64 of 8x8, as in CIFAR ResNets, but
    not 128) runs its backward pass by reference code, whose gradient has the channels in blocks
    innermost. The BatchNorms before it keep another layout, and for mixed layouts oneDNN has only
    reference code, which is many times slower. The gradient of a mean is in the plain layout.
    Where pooling does not fall back to reference code, the two take the same time.

    Cast to float16 it is GlobalAvgPool2D again. MXNet's mean sums in FP32 but stores the sum in
    FP16 before it divides: 56x56 values of 21 already give infinity, and MXNET_SAFE_ACCUMULATION
    does not change that. FP16 networks run on GPUs, without oneDNN.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._pools = False

    def _alias(self):
        return "pool"  # nodes get the same names as GlobalAvgPool2D's

    def cast(self, dtype):
        super().cast(dtype)
        self._pools = np.dtype(dtype) == np.float16

    def hybrid_forward(self, F, x):
        if self._pools:
            return super().hybrid_forward(F, x)
        return F.mean(x, axis=(2, 3), keepdims=True, name="fwd")


def use_spatial_mean(network: HybridBlock) -> HybridBlock:
    """Replace each GlobalAvgPool2D by a SpatialMean, in place; returns the network.

    The order of the children, and so the parameter names, do not change. Pools in NHWC layout stay,
    and so do those that a block computes itself, without a child.
    """
    means = {}  # a block can be a child of several others

    def replace_children(parent: HybridBlock) -> None:
        for name, child in list(parent._children.items()):
            if type(child) is not nn.GlobalAvgPool2D or child._kwargs["layout"] != "NCHW":
                continue
            mean = means.setdefault(child, SpatialMean(prefix=child.prefix))
            if getattr(parent, name, None) is child:
                setattr(parent, name, mean)
            else:  # a container's
                parent.register_child(mean, name)
    network.apply(replace_children)
    return network
