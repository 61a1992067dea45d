"""Fine-tuning's two settings of a network: which parts stay as they are, how fast the last learns.
"""

from mxnet.gluon import nn
from mxnet.gluon.block import Block, HybridBlock

from gluon_tricks.errors import InputError
from gluon_tricks.models.parameters import classifier_parameter_names


def frozen_names(network: HybridBlock) -> frozenset[str]:
    """The structural names that `freeze` has frozen."""
    return getattr(network, "_frozen_names", frozenset())


def names_before(network: HybridBlock, part: str | None) -> set[str]:
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


def freeze(network: HybridBlock, part: str | None) -> None:
    """Let what stands before `part`, --freeze-until's, stay as it is: no gradients, and in its
    BatchNorms the running statistics in place of the batch's. Before the network's first pass."""
    frozen = names_before(network, part)
    network._frozen_names = frozenset(frozen)
    parameters = network._collect_params_with_prefix()
    for name in frozen:
        parameters[name].grad_req = "null"
    kept = {id(parameters[name]) for name in frozen}

    def use_running_statistics(block: Block) -> None:
        own = block._reg_params.values()
        if isinstance(block, nn.BatchNorm) and all(id(parameter) in kept for parameter in own):
            block._kwargs["use_global_stats"] = True

    network.apply(use_running_statistics)


def set_head_lr_mult(network: HybridBlock, lr_mult: float | None) -> None:
    """Let the last layer's learning rate be --lr-mult-head times the others', if it is given."""
    if lr_mult is not None:
        parameters = network._collect_params_with_prefix()
        for name in classifier_parameter_names(network):
            parameters[name].lr_mult = lr_mult
