"""GroupNorm (arXiv 1803.08494) in place of BatchNorm, with GluonCV's parameter names."""

import numpy as np
from mxnet.gluon.block import HybridBlock


class GroupNorm(HybridBlock):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, (N, C, H, W) to the same shape.

    Mean and variance are taken over a sample's group: C / groups neighboring channels, over height
    and width. gamma and beta are per channel, (C,). Parameter files and arguments are those of
    gluoncv.nn.GroupNorm, which asks a symbol for its shape and so cannot be hybridized, and of
    nn.BatchNorm, where `scale` and `center` say whether gamma and beta are trained; `momentum` is
    ignored.

    FP16 is normalized in FP32, and gamma and beta stay FP32. Raises ValueError if in_channels is
    given and not divisible by groups; if it is not given, shape inference fails instead.
    """

    def __init__(self, groups: int = 32, in_channels: int = 0, epsilon: float = 1e-5,
                 beta_initializer: str = "zeros", gamma_initializer: str = "ones",
                 scale: bool = True, center: bool = True, momentum: float = 0.9, **kwargs):
        super().__init__(**kwargs)
        if in_channels % groups:
            raise ValueError(f"{in_channels} channels cannot be divided into {groups} groups")
        self._groups, self._epsilon = groups, epsilon
        self._half = False
        with self.name_scope():
            for name, init, trained in (("gamma", gamma_initializer, scale),
                                        ("beta", beta_initializer, center)):
                setattr(self, name, self.params.get(
                    name, grad_req="write" if trained else "null", shape=(in_channels,), init=init,
                    allow_deferred_init=True, differentiable=trained))

    def cast(self, dtype):
        self._half = np.dtype(dtype) == np.float16
        super().cast("float32" if self._half else dtype)

    def hybrid_forward(self, F, x, gamma, beta):
        if self._half:
            x = F.cast(x, "float32")
        groups = F.reshape(x, (0, self._groups, -1, 1))
        mean = F.mean(groups, axis=(2, 3), keepdims=True)
        centered = F.broadcast_sub(groups, mean)
        variance = F.mean(F.square(centered), axis=(2, 3), keepdims=True)
        y = F.broadcast_div(centered, F.sqrt(variance + self._epsilon))
        if not self.gamma.shape[0]:  # adding equal shapes lets MXNet infer gamma's and beta's
            first = F.slice(x, (0, None, 0, 0), (1, None, 1, 1))
            split = F.reshape(first, (0, -4, self._groups, -1, 0, 0))  # fails if not divisible
            zeros = F.zeros_like(F.reshape(split, (-1,)))
            gamma, beta = gamma + zeros, beta + zeros
        y = F.broadcast_mul(F.reshape_like(y, x), F.reshape(gamma, (1, -1, 1, 1)))
        y = F.broadcast_add(y, F.reshape(beta, (1, -1, 1, 1)))
        return F.cast(y, "float16") if self._half else y
