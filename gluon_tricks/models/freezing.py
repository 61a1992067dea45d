"""Fine-tuning: freeze the first layers, and give the last layer its own learning rate."""

from mxnet.gluon import nn
from mxnet.gluon.block import Block, HybridBlock

from gluon_tricks.errors import InputError
from gluon_tricks.models.parameters import classifier_parameter_names


def frozen_names(network: HybridBlock) -> frozenset[str]:
    """The structural names that `freeze` has frozen."""
    return getattr(network, "_frozen_names", frozenset())


def names_before(network: HybridBlock, part: str | None) -> set[str]:
    """The structural names before `part`, in the network's order; empty if part is None.

    A part is a prefix of such names, up to a dot: layer3, layer3.0.bn1. Raises InputError, listing
    some parts, if the network has no such part or nothing before it.
    """
    if part is None:
        return set()
    names = list(network._collect_params_with_prefix())
    first = next((number for number, name in enumerate(names)
                  if f"{name}.".startswith(f"{part}.")), None)
    if not first:
        wrong = "the network has no such part" if first is None else "nothing comes before it"
        raise InputError(f"--freeze-until {part}: {wrong}; its parts are "
                         f"{', '.join(_parts(names))}")
    return set(names[:first])


def _parts(names: list[str]) -> list[str]:
    """The outermost parts of a network, or those one level deeper if there are few."""
    outer = list(dict.fromkeys(name.partition(".")[0] for name in names))
    if len(outer) > 4:
        return outer
    return list(dict.fromkeys(".".join(name.split(".")[:-1][:2]) or name for name in names))


def freeze(network: HybridBlock, part: str | None) -> None:
    """Freeze what comes before `part` (--freeze-until): no gradients, and its BatchNorms use their
    running statistics. Call it before the network's first forward pass."""
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
    """Multiply the last layer's learning rate by --lr-mult-head, if it is given."""
    if lr_mult is not None:
        parameters = network._collect_params_with_prefix()
        for name in classifier_parameter_names(network):
            parameters[name].lr_mult = lr_mult
