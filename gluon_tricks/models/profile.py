"""Parameters and multiply-adds of a network, layer by layer, from its symbol graph.

Multiply-adds are those of convolutions and dense layers, as the paper's table 5 counts them
(it calls them FLOPs). Nothing is computed and no device is used: shapes are inferred.
"""

import json
import math
from dataclasses import dataclass

import mxnet as mx
from mxnet.gluon.block import HybridBlock


@dataclass(frozen=True)
class LayerProfile:
    """One layer that has parameters."""

    name: str
    kind: str
    output: tuple[int, ...]  # shape for one image, without the batch axis
    parameters: int  # trainable
    multiply_adds: int


@dataclass(frozen=True)
class Profile:
    """All layers with parameters, in the order of the data flow, and their totals."""

    layers: tuple[LayerProfile, ...]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)


def profile(network: HybridBlock, input_shape: tuple[int, ...] = (3, 224, 224)) -> Profile:
    """Profile `network` for one image of `input_shape` (channels, height, width)."""
    internals = network(mx.sym.var("data")).get_internals()
    _, shapes, _ = internals.infer_shape(data=(1, *input_shape))
    shape_of = dict(zip(internals.list_outputs(), shapes, strict=True))
    nodes = json.loads(internals.tojson())["nodes"]
    structural = {parameter.name: (name, parameter.grad_req != "null")
                  for name, parameter in network._collect_params_with_prefix().items()}

    layers, seen = [], set()
    for node in nodes:
        inputs = [nodes[source]["name"] for source, *_ in node["inputs"]]
        owned = [name for name in inputs if name in structural]
        if not owned:
            continue
        output = shape_of.get(f"{node['name']}_output", ())
        trainable = sum(math.prod(shape_of[name]) for name in owned
                        if structural[name][1] and name not in seen)
        seen.update(owned)
        layers.append(LayerProfile(
            name=structural[owned[0]][0].rpartition(".")[0], kind=node["op"], output=output[1:],
            parameters=trainable,
            multiply_adds=_multiply_adds(node["op"], shape_of[owned[0]], output)))
    return Profile(tuple(layers))


def _multiply_adds(op: str, weight: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Each output value takes one multiply-add per value of its slice of the weight."""
    if op in ("Convolution", "FullyConnected"):
        return math.prod(output) * math.prod(weight[1:])
    return 0
