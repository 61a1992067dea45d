"""A network that takes pictures' pixels as they are."""

import mxnet as mx
import numpy as np
from mxnet.gluon.block import HybridBlock


class FromPixels(HybridBlock):
    """(N, H, W, 3) uint8 RGB pixels to what `network` gives for (N, 3, H, W) (pixels - mean) / std.

    mean and std, of R, G and B on the [0, 255] scale, are constants among its parameters. The
    network's own parameters are initialised already; these are where they are.
    """

    def __init__(self, network: HybridBlock, mean: tuple[float, ...], std: tuple[float, ...],
                 device: mx.Context, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.mean = self.params.get_constant("mean", np.float32(mean).reshape(1, 3, 1, 1))
            self.std = self.params.get_constant("std", np.float32(std).reshape(1, 3, 1, 1))
        self.network = network
        self.params.initialize(ctx=device)

    def hybrid_forward(self, F, x, mean, std):
        x = F.transpose(F.cast(x, dtype="float32"), axes=(0, 3, 1, 2))
        return self.network(F.broadcast_div(F.broadcast_sub(x, mean), std))
