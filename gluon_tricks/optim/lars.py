"""LARS: a learning rate for each layer, for very large batches.

You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks, arXiv 1708.03888, named by
arXiv 1812.01187, section 3.1. For the gradient g of a layer's weights w:

    trust = eta |w| / (|g| + wd |w|)        1 for BatchNorm, biases, and if a norm is 0
    v <- momentum v + trust (g + wd w)
    w <- w - lr v

v does not include the learning rate, so a change of it takes effect at once: the momentum
correction of arXiv 1706.02677, section 3, needed when v includes lr, is built in.
"""

import mxnet as mx

from gluon_tricks.optim.norm import square_sum


@mx.optimizer.Optimizer.register
class LayerwiseLARS(mx.optimizer.Optimizer):
    """LARS (see the module). Parameters with one axis (gamma, beta, biases) are not scaled.

    Raises ValueError for a momentum outside [0, 1) or an eta of 0 or less.
    """

    def __init__(self, learning_rate: float = 0.1, momentum: float = 0.9, eta: float = 1e-3,
                 **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        if not 0 <= momentum < 1 or eta <= 0:
            raise ValueError(f"momentum {momentum} (0 <= momentum < 1) or eta {eta} (above 0)")
        self._momentum, self._eta = momentum, eta

    def create_state(self, index: int, weight: mx.nd.NDArray) -> mx.nd.NDArray:
        """The momentum v."""
        return mx.nd.zeros_like(weight)

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray,
               state: mx.nd.NDArray) -> None:
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        grad = grad * self.rescale_grad
        if self.clip_gradient is not None:
            grad = mx.nd.clip(grad, -self.clip_gradient, self.clip_gradient)
        direction = grad + wd * weight
        if weight.ndim > 1:
            direction = mx.nd.broadcast_mul(direction, self._trust(weight, grad, wd))
        state[:] = self._momentum * state + direction
        weight[:] -= lr * state

    def _trust(self, weight: mx.nd.NDArray, grad: mx.nd.NDArray, wd: float) -> mx.nd.NDArray:
        """The trust ratio: an array of one number, with the weight's number of axes. Does not wait.
        """
        own, slope = mx.nd.sqrt(square_sum(weight)), mx.nd.sqrt(square_sum(grad))
        some = (own > 0) * (slope > 0)
        ratio = self._eta * own / (slope + wd * own + (1 - some))
        ratio = mx.nd.where(some, ratio, mx.nd.ones_like(ratio))
        return ratio.astype(weight.dtype, copy=False).reshape((1,) * weight.ndim)
