"""Regularization: weight decay, L1, and gradient clipping."""

from collections.abc import Iterable, Sequence

import mxnet as mx
from mxnet.gluon import Parameter, ParameterDict

from gluon_tricks.optim.norm import square_sum


def no_bias_decay(parameters: ParameterDict) -> list[str]:
    """Decay only the weights of convolutions and dense layers (arXiv 1812.01187, section 3.1).

    Sets the decay of every other parameter (biases, BatchNorm's gamma and beta) to 0 and returns
    their names.
    """
    spared = [name for name in parameters if not name.endswith("weight")]
    for name in spared:
        parameters[name].wd_mult = 0.0
    return spared


def add_l1(parameters: Iterable[Parameter], strength: float) -> None:
    """L1 regularization: add strength * sign(w) to the gradient of each weight w of a convolution
    or dense layer. Does not wait for the device."""
    for parameter in parameters:
        if parameter.name.endswith("weight"):
            gradient = parameter.grad()
            gradient[:] = gradient + strength * mx.nd.sign(parameter.data())


def clip_norm(gradients: Sequence[mx.nd.NDArray], most: float, rescale: float = 1.0) -> None:
    """Scale the gradients together so that the norm of rescale * gradients is at most `most`.

    g <- g * min(1, most / |rescale * g|), with the norm over all arrays (arXiv 1211.5063). Computed
    in FP32, in place; a norm below `most` changes no bit. Does not wait for the device.
    """
    norm = rescale * mx.nd.sqrt(mx.nd.add_n(*map(square_sum, gradients)))
    factor = mx.nd.minimum(most / (norm + 1e-12), 1.0)
    for gradient in gradients:
        scaled = mx.nd.broadcast_mul(gradient.astype("float32", copy=False),
                                     factor.reshape((1,) * gradient.ndim))
        gradient[:] = scaled.astype(gradient.dtype, copy=False)
