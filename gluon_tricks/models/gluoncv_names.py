"""Maps GluonCV's old parameter names to structural ones.

`collect_params().save` writes `resnetv1d0_layers1_conv0_weight`, with a prefix and a counter that
depend on what was built before; `save_parameters` writes `layer1.0.conv1.weight`, as we do. What
follows the network's own prefix is always the same, and pairs the two.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from mxnet.gluon.block import HybridBlock

from gluon_tricks.models import resnet

Value = TypeVar("Value")


def old_names(network: HybridBlock) -> dict[str, str]:
    """Structural names, by the names that GluonCV's version of the network has after its prefix, in
    the order of creation."""
    name = network.prefix.removesuffix("_")
    if isinstance(network, resnet.ResNet) and name in resnet.NAMES:
        network = _gluoncv_resnet(name)
    return _behind_the_prefix(network)


def _behind_the_prefix(network: HybridBlock) -> dict[str, str]:
    structural = {id(parameter): name
                  for name, parameter in network._collect_params_with_prefix().items()}
    return {name.removeprefix(network.prefix): structural[id(parameter)]
            for name, parameter in network.collect_params().items()}


def _gluoncv_resnet(name: str) -> HybridBlock:
    """GluonCV's network for one of our names, without parameters."""
    from gluoncv import model_zoo  # late: importing gluoncv takes seconds
    from gluoncv.model_zoo.resnetv1b import BasicBlockV1b, ResNetV1b

    if name in model_zoo.get_model_list():
        return model_zoo.get_model(name, pretrained=False)
    # GluonCV has no function for v1c and v1d with 18 and 34 layers.
    depth, tweaks, _ = resnet.parts_of(name)
    return ResNetV1b(BasicBlockV1b, resnet.STAGES[depth], deep_stem=tweaks.c, avg_down=tweaks.d,
                     name_prefix="resnet_")


def with_structural_names(network: HybridBlock,
                          arrays: Mapping[str, Value]) -> dict[str, Value]:
    """`arrays` by structural name, if their names are the old ones after any prefix: GluonCV's, or
    ours (as in an exported network). Otherwise they are returned unchanged."""
    if network._collect_params_with_prefix().keys() & arrays.keys():
        return dict(arrays)
    for names in (old_names(network), _behind_the_prefix(network)):
        first = next(iter(names), "")
        for prefix in (name.removesuffix(first) for name in arrays if name.endswith(first)):
            if arrays.keys() == {prefix + name for name in names}:
                return {structural: arrays[prefix + name] for name, structural in names.items()}
        if _without_counters(names) == _without_counters(arrays):  # parts without the prefix
            return dict(zip(names.values(), arrays.values(), strict=True))
    return dict(arrays)


def _without_counters(names: Iterable[str]) -> list[str]:
    return [re.sub(r"\d+", "#", name) for name in names]
