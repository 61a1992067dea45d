"""Updates all parameters, and saves and restores the optimizer's state.

MXNet's sgd and nag include the learning rate in their momentum b, as Caffe does: an update with
lr 0 still moves the weights, and a change of lr leaves b as it is. With the gradient g:

    sgd     b <- momentum b - lr (g + wd w)     w <- w + b
    nag     w <- w + momentum (momentum b - lr (g + wd w)) - lr (g + wd w)
            b <- momentum b - lr (g + wd w)     the w just written, since the kernel is in place
"""

from collections.abc import Iterator, Mapping

import mxnet as mx
from mxnet.gluon import Parameter

State = mx.nd.NDArray | tuple | list | None


class ParameterUpdater:
    """Applies an MXNet optimizer to the parameters that have a gradient.

    Replaces gluon.Trainer, which saves its state only as a pickle and counts its updates itself.
    `parameters` maps structural names to initialized parameters on one device.
    """

    def __init__(self, parameters: Mapping[str, Parameter], optimizer: mx.optimizer.Optimizer):
        self._parameters = {name: parameter for name, parameter in parameters.items()
                            if parameter.grad_req != "null"}
        self._optimizer = optimizer
        # The optimizer looks up lr_mult and wd_mult there.
        optimizer.param_dict = dict(enumerate(self._parameters.values()))
        self._states: list[State] = [
            optimizer.create_state_multi_precision(index, parameter.data())
            for index, parameter in enumerate(self._parameters.values())]

    @property
    def parameters(self) -> list[Parameter]:
        """The trained parameters."""
        return list(self._parameters.values())

    @property
    def gradients(self) -> list[mx.nd.NDArray]:
        return [parameter.grad() for parameter in self._parameters.values()]

    @property
    def weights(self) -> list[mx.nd.NDArray]:
        return [parameter.data() for parameter in self._parameters.values()]

    def apply(self, number: int, lr: float, rescale: float) -> None:
        """Apply update `number` (from 0) with the gradients times `rescale`. Does not wait."""
        optimizer = self._optimizer
        optimizer.set_learning_rate(lr)
        optimizer.rescale_grad = rescale
        # Adam's corrections count updates; skipping and resuming must not mislead them.
        optimizer._index_update_count.update(dict.fromkeys(range(len(self._states)), number))
        weights, gradients = self.weights, self.gradients
        for part in self._parts(weights):
            if optimizer.aggregate_num:
                optimizer.update_multi_precision(
                    part, [weights[i] for i in part], [gradients[i] for i in part],
                    [self._states[i] for i in part])
            else:
                for i in part:
                    optimizer.update_multi_precision(i, weights[i], gradients[i], self._states[i])

    def _parts(self, weights: list[mx.nd.NDArray]) -> Iterator[list[int]]:
        """The parameters one kernel may update: of one type, as many as the optimizer allows."""
        most = self._optimizer.aggregate_num or len(weights)
        for dtype in dict.fromkeys(weight.dtype for weight in weights):
            alike = [i for i, weight in enumerate(weights) if weight.dtype == dtype]
            for start in range(0, len(alike), most):
                yield alike[start:start + most]

    def arrays(self) -> dict[str, mx.nd.NDArray]:
        """The optimizer's own arrays (not copies), by parameter name and number."""
        return {f"{name}:{number}": array
                for name, state in zip(self._parameters, self._states, strict=True)
                for number, array in enumerate(_flat(state))}

    def load(self, arrays: Mapping[str, mx.nd.NDArray]) -> None:
        """Copy a saved `arrays()`. Raises ValueError, naming the array, if one does not fit."""
        own = self.arrays()
        unmatched = min(own.keys() ^ arrays.keys(), default=None)
        if unmatched is not None:
            raise ValueError(f"only one side has the optimizer's state {unmatched!r}")
        for name, array in own.items():
            if (array.shape, array.dtype) != (arrays[name].shape, arrays[name].dtype):
                raise ValueError(f"the optimizer's state {name!r} has another shape or type")
            arrays[name].copyto(array)


def _flat(state: State) -> list[mx.nd.NDArray]:
    """The arrays of a state, which is None, an array, or a (nested) tuple or list of these."""
    if state is None:
        return []
    if isinstance(state, mx.nd.NDArray):
        return [state]
    return [array for part in state for array in _flat(part)]
