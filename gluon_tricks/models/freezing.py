"""Fine-tuning's two settings of a network: which parts stay as they are, how fast the last learns.
"""

from mxnet.gluon import nn
from mxnet.gluon.block import Block, HybridBlock

from gluon_tricks.config.settings import Settings
from gluon_tricks.errors import InputError
from gluon_tricks.models.parameters import classifier_names


def frozen_names(network: HybridBlock, part: str | None) -> set[str]:
    """The structural names that stand before `part`, in the network's order; none without a part.

    A part is the beginning of such names, up to a dot: layer3, layer3.0.bn1. Raises InputError,
    listing some, where there is none of that name, or nothing before it.
    """
    if part is None:
        return set()
    names = list(network._collect_params_with_prefix())
    first = next((number for number, name in enumerate(names)
                  if f"{name}.".startswith(f"{part}.")), None)
    if not first:
        wrong = "the network has no such part" if first is None else "nothing stands before it"
        raise InputError(f"--freeze-until {part}: {wrong}; its parts are "
                         f"{', '.join(_parts(names))}")
    return set(names[:first])


def _parts(names: list[str]) -> list[str]:
    """The outermost parts of a network, or those one level deeper where they are few."""
    outer = list(dict.fromkeys(name.partition(".")[0] for name in names))
    if len(outer) > 4:
        return outer
    return list(dict.fromkeys(".".join(name.split(".")[:-1][:2]) or name for name in names))


def freeze(network: HybridBlock, settings: Settings) -> None:
    """Let what stands before --freeze-until stay as it is: no gradients, and in its BatchNorms
    the running statistics in place of the batch's. Before the network's first pass."""
    frozen = frozen_names(network, settings.freeze_until)
    parameters = network._collect_params_with_prefix()
    for name in frozen:
        parameters[name].grad_req = "null"
    kept = {id(parameters[name]) for name in frozen}

    def use_running_statistics(block: Block) -> None:
        own = block._reg_params.values()
        if isinstance(block, nn.BatchNorm) and all(id(parameter) in kept for parameter in own):
            block._kwargs["use_global_stats"] = True

    network.apply(use_running_statistics)


def speed_up_the_classifier(network: HybridBlock, settings: Settings) -> None:
    """Let the last layer's learning rate be --lr-mult-head times the others'."""
    if settings.lr_mult_head is not None:
        parameters = network._collect_params_with_prefix()
        for name in classifier_names(network):
            parameters[name].lr_mult = settings.lr_mult_head
