"""AdaBound and AMSBound: Adam with step sizes bounded ever more tightly around SGD's.

Luo, Xiong, Liu, Sun: Adaptive Gradient Methods with Dynamic Bound of Learning Rate, ICLR 2019,
arXiv 1902.09843. The gradient g includes the weight decay, t counts updates from 1:

    m <- beta1 m + (1 - beta1) g                v <- beta2 v + (1 - beta2) g^2
    V = v, or for AMSBound the largest v so far
    step = lr sqrt(1 - beta2^t) / (1 - beta1^t) / (sqrt(V) + epsilon)
    w <- w - clip(step, low, high) m
    low  = f (1 - 1 / (gamma t + 1))            high = f (1 + 1 / (gamma t))
    f = final_lr * lr / base_lr, so that the bounds follow the schedule as the step does

As in the authors' own code, Adam's bias correction is included, and the 1 / sqrt(t) of their
algorithm, which their proof needs, is left to the schedule.
"""

import math

import mxnet as mx


def bounds(t: int, final_lr: float, gamma: float) -> tuple[float, float]:
    """The minimum and maximum step size of update t >= 1."""
    return final_lr * (1 - 1 / (gamma * t + 1)), final_lr * (1 + 1 / (gamma * t))


@mx.optimizer.Optimizer.register
class AdaBound(mx.optimizer.Optimizer):
    """AdaBound (see the module). final_lr: the SGD step size it converges to; gamma: how fast.

    Raises ValueError for a beta outside [0, 1) or a final_lr, gamma or epsilon of 0 or less.
    """

    amsbound = False

    def __init__(self, learning_rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999,
                 final_lr: float = 0.1, gamma: float = 1e-3, epsilon: float = 1e-8, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1) or min(final_lr, gamma, epsilon) <= 0:
            raise ValueError(f"beta1 {beta1}, beta2 {beta2} (0 <= beta < 1), final_lr {final_lr}, "
                             f"gamma {gamma} or epsilon {epsilon} (above 0)")
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self._final_lr, self._gamma, self._base_lr = final_lr, gamma, learning_rate

    def create_state(self, index: int, weight: mx.nd.NDArray) -> tuple[mx.nd.NDArray, ...]:
        """m and v, and for AMSBound the largest v."""
        return tuple(mx.nd.zeros_like(weight) for _ in range(3 if self.amsbound else 2))

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray,
               state: tuple[mx.nd.NDArray, ...]) -> None:
        self._update_count(index)
        t = self._index_update_count[index]
        lr, wd = self._get_lr(index), self._get_wd(index)
        grad = grad * self.rescale_grad
        if self.clip_gradient is not None:
            grad = mx.nd.clip(grad, -self.clip_gradient, self.clip_gradient)
        grad = grad + wd * weight

        mean, square, *greatest = state
        mean[:] = self._beta1 * mean + (1 - self._beta1) * grad
        square[:] = self._beta2 * square + (1 - self._beta2) * mx.nd.square(grad)
        for most in greatest:
            most[:] = mx.nd.maximum(most, square)
        denominator = mx.nd.sqrt(greatest[0] if greatest else square) + self._epsilon
        corrected = lr * math.sqrt(1 - self._beta2**t) / (1 - self._beta1**t)
        low, high = bounds(t, self._final_lr * lr / self._base_lr, self._gamma)
        weight[:] -= mx.nd.clip(corrected / denominator, low, high) * mean


@mx.optimizer.Optimizer.register
class AMSBound(AdaBound):
    """AdaBound whose second moment never decreases."""

    amsbound = True
