"""GluonCV's own networks, with which ours are compared."""

import mxnet as mx
import numpy as np
from gluoncv import model_zoo
from gluoncv.model_zoo.resnetv1b import BasicBlockV1b, ResNetV1b


def build(name, **options):
    """The network called `name`, one of its zoo's or one of ours."""
    tweaks = {"v1c": {"deep_stem": True}, "v1d": {"deep_stem": True, "avg_down": True}}
    blocks = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3]}
    depth, _, version = name.partition("_")
    if depth in blocks and version in tweaks:  # GluonCV has the blocks, but no such function
        return ResNetV1b(BasicBlockV1b, blocks[depth], name_prefix=f"resnet{version}_",
                         **tweaks[version], **options)
    return model_zoo.get_model(name, **options)


def randomize(net, seed):
    """Values with which every parameter and running statistic affects the output."""
    rng = np.random.default_rng(seed)
    for name, parameter in net._collect_params_with_prefix().items():
        shape = parameter.shape
        if name.endswith(("gamma", "running_var")):
            values = rng.uniform(0.4, 1.2, shape)
        else:
            spread = np.sqrt(2 / np.prod(shape[1:])) if name.endswith("weight") else 0.2
            values = rng.standard_normal(shape, np.float32) * np.float32(spread)
        parameter.set_data(mx.nd.array(values))
