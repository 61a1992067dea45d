"""Questions to a network's graph: can it be compiled, does it draw random numbers?"""

import json

import mxnet as mx
from mxnet import autograd
from mxnet.gluon.block import HybridBlock


def hybridize(net: HybridBlock, mode: str = "hybrid") -> None:
    """Compile the network, unless `mode` is "imperative" or its graph depends on training mode.

    A hybrid network keeps the graph of its first pass. If that depends on the mode, as with
    GluonCV's DropBlock, prediction would run the training graph, or the reverse.
    """
    with autograd.train_mode():
        training = _operators(net)
    with autograd.predict_mode():
        predicting = _operators(net)
    if mode != "imperative" and training == predicting:
        net.hybridize(static_alloc=True, static_shape=True)


def _operators(net: HybridBlock) -> list[str]:
    return [node["op"] for node in json.loads(net(mx.sym.var("data")).tojson())["nodes"]]


def is_random(net: HybridBlock) -> bool:
    """Whether training the network draws random numbers on the device."""
    with autograd.train_mode():
        return any(word in operator.lower() for operator in _operators(net)
                   for word in ("dropout", "random", "sample"))


def statistics_gradients(net: HybridBlock) -> dict[str, mx.nd.NDArray]:
    """For each running statistic, by structural name, the gradient of the same layer's beta."""
    parameters = net._collect_params_with_prefix()
    return {name: parameters[f"{block}.beta"].grad() for name in parameters
            for block, _, last in [name.rpartition(".")]
            if last in ("running_mean", "running_var")
            and parameters[f"{block}.beta"].grad_req != "null"}
