"""The exponential moving average of a network's weights."""

from collections.abc import Collection, Mapping

import mxnet as mx


def decay_at(update: int, decay: float) -> float:
    """The decay of update u = 0, 1, ...: min(decay, (1 + u) / (10 + u)), so that the average does
    not cling to the initial weights."""
    return min(decay, (1 + update) / (10 + update))


class WeightAverage:
    """average <- d average + (1 - d) weight after each update, in FP32, on the weights' device.

    `weights` maps names to the trained arrays; BatchNorm's running statistics are averaged too.
    `arrays` maps the same names to the averages. decay is in [0, 1).

    `after` maps some of the names to an array that the same operator writes: on the CPU BatchNorm
    writes its running statistics in the backward pass, and MXNet's engine does not know. Reading
    beta's gradient, which that pass writes too, orders the read after it.

    `constant` names weights that never change: their average is bit-identical to them.
    """

    def __init__(self, weights: Mapping[str, mx.nd.NDArray], decay: float,
                 after: Mapping[str, mx.nd.NDArray] | None = None,
                 constant: Collection[str] = ()):
        self._weights, self._decay, self._after = dict(weights), decay, after or {}
        self._constant = constant
        self.arrays = {name: weight.astype("float32") for name, weight in weights.items()}

    def load(self, arrays: Mapping[str, mx.nd.NDArray]) -> None:
        """Copy another average's `arrays`. Raises KeyError if one is missing."""
        for name, average in self.arrays.items():
            average[:] = arrays[name]

    def update(self, number: int) -> None:
        """Average in the weights as update `number` (from 0) left them. Does not wait."""
        left = 1 - decay_at(number, self._decay)
        for name, average in self.arrays.items():
            if name in self._constant:
                continue
            weight = self._weights[name].astype("float32", copy=False)
            if name in self._after:
                weight = weight + mx.nd.zeros_like(self._after[name])
            # One kernel: sgd_update's w <- (1 - lr wd) w - lr rescale_grad g.
            mx.nd.sgd_update(average, weight, out=average, lr=left, wd=1.0, rescale_grad=-1.0)
