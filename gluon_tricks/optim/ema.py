"""The exponential moving average of a network's weights."""

from collections.abc import Collection, Mapping

import mxnet as mx


def decay_at(update: int, decay: float) -> float:
    """The decay of update 0, 1, ...: least(decay, (1 + u) / (10 + u)), so that the average does not
    cling to the weights a run starts from."""
    return min(decay, (1 + update) / (10 + update))


class WeightAverage:
    """average <- d average + (1 - d) weight after each update, in FP32, on the weights' device.

    `weights` maps names to the arrays that are trained; BatchNorm's running statistics are
    averaged alike. `arrays` maps the same names to the averages. decay in [0, 1).

    `after` names, for some weights, an array that is written by the same operator: on the CPU
    BatchNorm writes its running statistics in the backward pass, and MXNet's engine does not know.
    Reading beta's gradient, which that pass writes, too, puts the reading in its place.

    `constant` names weights that never change: their average is theirs, to the bit.
    """

    def __init__(self, weights: Mapping[str, mx.nd.NDArray], decay: float,
                 after: Mapping[str, mx.nd.NDArray] | None = None,
                 constant: Collection[str] = ()):
        self._weights, self._decay, self._after = dict(weights), decay, after or {}
        self._constant = constant
        self.arrays = {name: weight.astype("float32") for name, weight in weights.items()}

    def load(self, arrays: Mapping[str, mx.nd.NDArray]) -> None:
        """Copy what `arrays` of another one held. Raises KeyError where one is missing."""
        for name, average in self.arrays.items():
            average[:] = arrays[name]

    def update(self, number: int) -> None:
        """Take in the weights as update `number` (from 0) left them. Does not wait."""
        left = 1 - decay_at(number, self._decay)
        for name, average in self.arrays.items():
            if name in self._constant:
                continue
            weight = self._weights[name].astype("float32", copy=False)
            if name in self._after:
                weight = weight + mx.nd.zeros_like(self._after[name])
            # One kernel: sgd_update's w <- (1 - lr wd) w - lr rescale_grad g.
            mx.nd.sgd_update(average, weight, out=average, lr=left, wd=1.0, rescale_grad=-1.0)
