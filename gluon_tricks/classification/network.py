"""Builds a run's network, its teacher and its loss from the settings."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification import weights
from gluon_tricks.classification.settings import Settings
from gluon_tricks.config.fields import named
from gluon_tricks.errors import InputError
from gluon_tricks.loss import Distillation, SoftmaxCrossEntropy
from gluon_tricks.models.freezing import freeze, set_head_lr_mult
from gluon_tricks.models.graph import hybridize
from gluon_tricks.models.parameters import load_parameters
from gluon_tricks.models.zoo import get_model


def _options(settings: Settings) -> dict[str, Any]:
    """The settings that are options of the network; those not given are falsy."""
    return {name: getattr(settings, name)
            for name in named(Settings, of_network=("structure", "layer", "start"))}


def build_network(settings: Settings, flag: str = "--model") -> HybridBlock:
    """The network of resolved settings, cast to their dtype, not initialized.

    Raises InputError, whose message names `flag`, if the name or an option is unknown, the network
    cannot take images of that size, or it is not a classifier.
    """
    options = {name: value for name, value in _options(settings).items() if value}
    net = get_model(settings.model, classes=settings.num_classes, input_size=settings.input_size,
                    **options)
    net.cast(settings.array_dtype)  # BatchNorm stays in FP32
    check_size(net, settings, flag)
    return net


def check_size(net: HybridBlock, settings: Settings, flag: str = "--model") -> None:
    """Raise InputError if the network is not a classifier or cannot take images of that size, which
    dense layers fix once they have parameters."""
    size, want = settings.input_size, (settings.batch_size, settings.num_classes)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # MXNet prints a failure's arguments there
            graph = net(mx.sym.var("data"))
            _, shapes, _ = graph.infer_shape(data=(settings.batch_size, 3, size, size),
                                             **_known_shapes(net, graph))
    except (mx.MXNetError, AttributeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        groups = ", or its channels do not divide into 32 groups (--use-gn)" * settings.use_gn
        raise InputError(f"{flag} {settings.model} cannot classify images of {size}x{size} "
                         f"(--input-size){groups}: {reason}") from error
    if shapes != [want]:
        raise InputError(f"{flag} {settings.model} is not a classifier: it gives {shapes}, "
                         f"not one output of shape {want}")


def _known_shapes(net: HybridBlock, graph: mx.sym.Symbol) -> dict[str, tuple[int, ...]]:
    """The shapes of the graph's parameters, except those that depend on the image size."""
    inputs = set(graph.list_inputs())
    return {name: tuple(parameter.shape) for name, parameter in net.collect_params().items()
            if name in inputs and parameter.shape and min(parameter.shape) > 0}


def initialize(net: HybridBlock, settings: Settings, device: mx.Context) -> None:
    """Initialize a network: Xavier, uniform in +-sqrt(6 / (d_in + d_out)); biases 0, BatchNorm 1
    and 0 (section 2.1).

    With --gluoncv-compat MSRAPrelu, as GluonCV does. Freezes what comes before --freeze-until.
    """
    size = settings.input_size
    freeze(net, settings.freeze_until)
    set_head_lr_mult(net, settings.lr_mult_head)
    # GluonCV's networks leave shapes open. Infer them: a forward pass would make oneDNN reorder
    # the weights in the background, which races with whatever reads them next.
    net.infer_shape(mx.nd.zeros((1, 3, size, size), dtype=settings.array_dtype))
    for name, parameter in net.collect_params().items():
        if name.endswith("weight"):  # VGG sets an initializer of its own
            parameter.init = None
    mx.random.seed(_fold(settings.seed))
    net.initialize(mx.init.MSRAPrelu() if settings.gluoncv_compat else mx.init.Xavier(),
                   ctx=device)
    hybridize(net, settings.mode)


def _fold(seed: int) -> int:
    """Fold 64 bits into the 31 of MXNet's seed; a seed of 31 bits is unchanged."""
    return (seed ^ seed >> 31 ^ seed >> 62) & 0x7FFFFFFF


def build_loss(settings: Settings) -> HybridBlock:
    """The training loss of resolved settings."""
    hard = SoftmaxCrossEntropy(settings.num_classes, dense=True) if settings.mixup else \
        SoftmaxCrossEntropy(settings.num_classes, settings.label_smoothing,
                            uniform=settings.gluoncv_compat)
    if settings.teacher is None:
        return hard
    return Distillation(hard, settings.temperature, settings.hard_weight)


def build_teacher(settings: Settings, device: mx.Context) -> HybridBlock | None:
    """The teacher with its parameters, ready to predict; None if the settings name no teacher.

    Raises InputError if its parameters cannot be obtained or are for a different number of classes.
    """
    if settings.teacher is None:
        return None
    net = build_teacher_network(settings)
    with _of_the_teacher():
        given = settings.teacher_params
        path = Path(given).expanduser() if given else \
            weights.find(settings.teacher, "--teacher-params").path
        load_parameters(net, path, device, "--teacher")
    net.collect_params().setattr("grad_req", "null")
    hybridize(net, settings.mode)
    return net


def build_teacher_network(settings: Settings) -> HybridBlock:
    """The teacher without parameters; if --teacher is a folder or a file, with the structure its
    run gave it. Raises InputError as `build_network` does."""
    name, structure = settings.teacher, {}
    with _of_the_teacher():
        is_path = "/" in name or name.endswith(".params") or Path(name).expanduser().exists()
        if is_path and settings.teacher_params:
            raise InputError(f"--teacher {name} is not the name of a network, which "
                             "--teacher-params needs: drop --teacher-params, or give the name")
        if is_path:
            found = weights.find(name, "--teacher-params")
            if found.model is None:
                raise InputError(f"{found.path} does not say which network it is of: give its name "
                                 "with --teacher, and the file with --teacher-params")
            name, structure = found.model, found.settings
        own = {option: getattr(Settings, option) for option in _options(settings)}
        own |= {option: structure[option] for option in named(Settings, of_network="structure")
                if option in structure}
        return build_network(dataclasses.replace(settings, model=name, **own), "--teacher")


@contextlib.contextmanager
def _of_the_teacher() -> Iterator[None]:
    """Prefix errors, to say that they are about the teacher."""
    try:
        yield
    except InputError as error:
        raise InputError(f"the teacher: {error}") from error

