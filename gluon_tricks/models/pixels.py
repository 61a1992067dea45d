"""A network that takes uint8 pixels and normalizes them itself."""

import mxnet as mx
import numpy as np
from mxnet.gluon.block import HybridBlock


class FromPixels(HybridBlock):
    """Applies `network` to (pixels - mean) / std: (N, H, W, 3) uint8 RGB in, (N, 3, H, W) to it.

    mean and std, of R, G and B on the [0, 255] scale, are constant parameters on `device`. The
    network's own parameters must be initialized.
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
