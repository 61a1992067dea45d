"""What a network's graph says: whether it can be compiled, whether it draws random numbers."""

import json

import mxnet as mx
from mxnet import autograd
from mxnet.gluon.block import HybridBlock


def hybridize(net: HybridBlock, mode: str = "hybrid") -> None:
    """Compile the network, unless `mode` is imperative or the network forbids it.

    A hybrid network keeps the graph of its first pass. Where that depends on the mode, as in
    GluonCV's DropBlock, prediction would run training's graph, or the reverse.
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
    """Whether training it draws random numbers on the device."""
    with autograd.train_mode():
        return any(word in operator.lower() for operator in _operators(net)
                   for word in ("dropout", "random", "sample"))


def statistics_gradients(net: HybridBlock) -> dict[str, mx.nd.NDArray]:
    """Of each running statistic, by structural name, the gradient of beta beside it."""
    parameters = net._collect_params_with_prefix()
    return {name: parameters[f"{block}.beta"].grad() for name in parameters
            for block, _, last in [name.rpartition(".")]
            if last in ("running_mean", "running_var")
            and parameters[f"{block}.beta"].grad_req != "null"}
