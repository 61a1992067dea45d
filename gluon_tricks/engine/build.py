"""The parts of a run, made from its settings."""

import contextlib
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config import Settings
from gluon_tricks.data import native
from gluon_tricks.data.backends import cores
from gluon_tricks.data.check import quick_check
from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.image_record_iter import ImageRecordLoader
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder, shuffle_labels
from gluon_tricks.data.recipes import EvalTransform, TenCropTransform, TrainTransform
from gluon_tricks.data.sets import PictureSet, open_set
from gluon_tricks.engine import weights
from gluon_tricks.engine.freezing import freeze, speed_up_the_classifier
from gluon_tricks.engine.parameters import load_parameters
from gluon_tricks.errors import InputError
from gluon_tricks.loss import Distillation, SoftmaxCrossEntropy
from gluon_tricks.models.zoo import get_model
from gluon_tricks.optim import adabound, lars  # noqa: F401, they register themselves
from gluon_tricks.optim.regularize import no_bias_decay
from gluon_tricks.optim.update import Update
from gluon_tricks.parallel import Ranks, check_gpus
from gluon_tricks.processor import has_bfloat16, local_ranks, share


def device(settings: Settings, local_rank: int = 0) -> mx.Context:
    """The device that a rank trains on. Raises InputError where it is not there, or not with that
    dtype."""
    if settings.num_gpus == 0:
        if settings.dtype == "bfloat16":
            _use_bfloat16()
        return mx.cpu()
    check_gpus(settings.num_gpus, local_rank + 1)
    return mx.gpu(local_rank)


def _use_bfloat16() -> None:
    """Let convolutions and dense layers of all networks built from now on compute in bfloat16."""
    if not has_bfloat16():
        raise InputError("--dtype bfloat16 needs a CPU that computes in it (avx512_bf16 in "
                         "/proc/cpuinfo), which this one does not: take float32")
    from mxnet.contrib import amp  # here alone: it changes mx.nd and mx.sym

    amp.init("bfloat16")


def _network_options(settings: Settings) -> dict[str, Any]:
    """The settings that are a network's options; each is false where it is not given."""
    return {"last_gamma": settings.last_gamma, "dropout": settings.dropout,
            "use_se": settings.use_se, "batch_norm": settings.batch_norm,
            "use_gn": settings.use_gn, "use_sk": settings.use_sk, "use_avd": settings.use_avd,
            "dropblock_prob": settings.dropblock_prob}


def network(settings: Settings) -> HybridBlock:
    """The network of settled settings, cast to their dtype, not initialised.

    Raises InputError where the name or an option is unknown, where the network cannot take
    pictures of that size, and where it is no classifier.
    """
    options = {name: value for name, value in _network_options(settings).items() if value}
    net = get_model(settings.model, classes=settings.num_classes, input_size=settings.input_size,
                    **options)
    net.cast(settings.array_dtype)  # BatchNorm stays in FP32
    check_size(net, settings)
    return net


def check_size(net: HybridBlock, settings: Settings) -> None:
    """Raise InputError where the network cannot take pictures of that size, which dense layers
    decide once they have parameters, and where it is no classifier."""
    size, want = settings.input_size, (settings.batch_size, settings.num_classes)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where MXNet prints a failure's arguments
            graph = net(mx.sym.var("data"))
            _, shapes, _ = graph.infer_shape(data=(settings.batch_size, 3, size, size),
                                             **_known_shapes(net, graph))
    except (mx.MXNetError, AttributeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        groups = ", or its channels do not fall into 32 groups (--use-gn)" * settings.use_gn
        raise InputError(f"--model {settings.model} cannot classify pictures of {size}x{size} "
                         f"(--input-size){groups}: {reason}") from error
    if shapes != [want]:
        raise InputError(f"--model {settings.model} is no classifier: it gives {shapes}, "
                         f"not one output of shape {want}")


def _known_shapes(net: HybridBlock, graph: mx.sym.Symbol) -> dict[str, tuple[int, ...]]:
    """The shapes of the graph's parameters, but those that the size of pictures decides."""
    inputs = set(graph.list_inputs())
    return {name: tuple(parameter.shape) for name, parameter in net.collect_params().items()
            if name in inputs and parameter.shape and min(parameter.shape) > 0}


def initialize(net: HybridBlock, settings: Settings, where: mx.Context) -> None:
    """Xavier, uniform in +-sqrt(6 / (d_in + d_out)); biases 0, BatchNorm 1 and 0 (section 2.1).

    GluonCV's is MSRAPrelu. What comes before --freeze-until is frozen.
    """
    size = settings.input_size
    freeze(net, settings)
    # GluonCV's networks leave shapes open. Infer them: a forward pass would have oneDNN reorder
    # the weights in the background, which races with whatever reads them next.
    net.infer_shape(mx.nd.zeros((1, 3, size, size), dtype=settings.array_dtype))
    for name, parameter in net.collect_params().items():
        if name.endswith("weight"):  # VGG brings an initialiser of its own
            parameter.init = None
    mx.random.seed(_fold(settings.seed))
    net.initialize(mx.init.MSRAPrelu() if settings.gluoncv_compat else mx.init.Xavier(), ctx=where)
    hybridize(net, settings)


def _fold(seed: int) -> int:
    """64 bits into the 31 that MXNet's seed has; a seed of 31 bits stays as it is."""
    return (seed ^ seed >> 31 ^ seed >> 62) & 0x7FFFFFFF


def hybridize(net: HybridBlock, settings: Settings) -> None:
    """Compile the network, unless the settings or the network forbid it.

    A hybrid network keeps the graph of its first pass. Where that depends on the mode, as in
    GluonCV's DropBlock, prediction would run training's graph, or the reverse.
    """
    with autograd.train_mode():
        training = _operators(net)
    with autograd.predict_mode():
        predicting = _operators(net)
    if settings.mode != "imperative" and training == predicting:
        net.hybridize(static_alloc=True, static_shape=True)


def _operators(net: HybridBlock) -> list[str]:
    return [node["op"] for node in json.loads(net(mx.sym.var("data")).tojson())["nodes"]]


def is_random(net: HybridBlock) -> bool:
    """Whether training it draws random numbers on the device."""
    with autograd.train_mode():
        return any(word in operator.lower() for operator in _operators(net)
                   for word in ("dropout", "random", "sample"))


def optimizer(settings: Settings) -> mx.optimizer.Optimizer:
    """The optimiser of settled settings, with FP32 master weights where weights are FP16."""
    name = {"lars": "layerwiselars"}.get(settings.optimizer, settings.optimizer)
    options = {"momentum": settings.momentum, "eta": settings.lars_eta,
               "final_lr": settings.final_lr}
    return mx.optimizer.create(
        name, learning_rate=settings.effective_lr, wd=settings.wd,
        multi_precision=settings.dtype == "float16",
        **{option: value for option, value in options.items() if value is not None})


def update(net: HybridBlock, settings: Settings) -> Update:
    """What updates the network's parameters, but for frozen ones; weight decay on weights alone
    where asked."""
    parameters = net.collect_params()
    speed_up_the_classifier(net, settings)
    if settings.no_wd:
        no_bias_decay(parameters)
    if settings.accumulate > 1:
        for parameter in parameters.values():
            if parameter.grad_req != "null":
                parameter.grad_req = "add"
        parameters.zero_grad()
    return Update(net._collect_params_with_prefix(), optimizer(settings))


def statistics_gradients(net: HybridBlock) -> dict[str, mx.nd.NDArray]:
    """Of each running statistic, by structural name, the gradient of beta beside it."""
    parameters = net._collect_params_with_prefix()
    return {name: parameters[f"{block}.beta"].grad() for name in parameters
            for block, _, last in [name.rpartition(".")]
            if last in ("running_mean", "running_var")
            and parameters[f"{block}.beta"].grad_req != "null"}


def loss(settings: Settings) -> HybridBlock:
    """The training loss of settled settings."""
    hard = SoftmaxCrossEntropy(settings.num_classes, dense=True) if settings.mixup else \
        SoftmaxCrossEntropy(settings.num_classes, settings.label_smoothing,
                            uniform=settings.gluoncv_compat)
    if settings.teacher is None:
        return hard
    return Distillation(hard, settings.temperature, settings.hard_weight)


def teacher(settings: Settings, where: mx.Context) -> HybridBlock | None:
    """The teacher with its parameters, ready to predict; None where the settings name none.

    Raises InputError where its parameters cannot be had or are of another number of classes.
    """
    if settings.teacher is None:
        return None
    net = teacher_network(settings)
    with _speaking_of_the_teacher():
        given = settings.teacher_params
        load_parameters(net, Path(given).expanduser() if given else
                        weights.find(settings.teacher).path, where)
    net.collect_params().setattr("grad_req", "null")
    hybridize(net, settings)
    return net


def teacher_network(settings: Settings) -> HybridBlock:
    """The teacher without parameters, with the structure that its run gave it where --teacher is a
    folder or a file. Raises InputError as `network` does."""
    name, structure = settings.teacher, {}
    with _speaking_of_the_teacher():
        place = "/" in name or name.endswith(".params") or Path(name).expanduser().exists()
        if place and settings.teacher_params:
            raise InputError(f"--teacher {name} is no network's name, which --teacher-params "
                             "needs: leave the latter out, or give the name")
        if place:
            found = weights.find(name)
            if found.model is None:
                raise InputError(f"{found.path} does not say which network it is of: give its name "
                                 "by --teacher, and the file by --teacher-params")
            name, structure = found.model, found.settings
        own = {option: getattr(Settings, option) for option in _network_options(settings)}
        own |= {option: structure[option] for option in _STRUCTURE if option in structure}
        return network(dataclasses.replace(settings, model=name, **own))


# The settings of a network that decide which parameters it has.
_STRUCTURE = ("use_se", "batch_norm", "use_gn", "use_sk", "use_avd")


@contextlib.contextmanager
def _speaking_of_the_teacher() -> Iterator[None]:
    """Let errors name the teacher's flag, not the flag of the network that is trained."""
    try:
        yield
    except InputError as error:
        said = str(error).replace("--model", "--teacher").replace("give a .params file",
                                                                  "give a .params file by "
                                                                  "--teacher-params")
        raise InputError(f"the teacher: {said}") from error


def records(settings: Settings, part: str, classes: list[str] | None = None) -> PictureSet:
    """The set of `part`, "train" or "val", that the settings name.

    Where it is a folder, its labels follow `classes`, the training set's. Raises InputError where
    there is none, or not one for the data backend.
    """
    found = open_set(*settings.rec_paths(part), settings.picture_folder(part), classes)
    if isinstance(found, FolderSet) and settings.data_backend == "mxnet":
        raise InputError(f"--data-backend mxnet reads RecordIO alone, and {found.path} is a folder "
                         "of pictures: pack it with scripts/im2rec.py, or take another "
                         "--data-backend")
    return found


Loader = RecordLoader | ImageRecordLoader


def train_loader(settings: Settings, records: PictureSet, skipped: Iterable[int] = (),
                 ranks: Ranks | None = None) -> Loader:
    """Shuffled, augmented batches, a rank's share; of settled settings. `skipped` names damaged
    records."""
    ranks = ranks or Ranks()
    order = TrainOrder(len(records), settings.batch_size, settings.seed, ranks.rank, ranks.size,
                       at_once=settings.accumulate)
    if settings.data_backend == "mxnet":
        return ImageRecordLoader.train(
            records, order, size=settings.input_size, seed=settings.seed,
            area=settings.crop_area or (1.0, 1.0),
            color_jitter=settings.color_jitter, pca_noise=settings.pca_noise,
            mean=settings.rgb_mean, std=settings.rgb_std, workers=_workers(settings))
    labels = shuffle_labels(records.labels, settings.seed) if settings.shuffle_labels else None
    return RecordLoader(records, train_transform(settings), order, seed=settings.seed,
                        labels=labels, **loading(settings, training=True), skipped=skipped)


def eval_loader(settings: Settings, records: PictureSet, skipped: Iterable[int] = (),
                ranks: Ranks | None = None, crops: int = 1) -> Loader:
    """Every record once, over all ranks. Raises InputError where a label is beyond the classes.

    With 10 `crops` of each picture a batch has a tenth of the pictures: it is no larger.
    """
    check_labels(records, records.labels, settings.num_classes)
    ranks = ranks or Ranks()
    order = EvalOrder(len(records), max(1, settings.batch_size // crops), ranks.rank, ranks.size)
    if settings.data_backend == "mxnet":
        return ImageRecordLoader.evaluation(
            records, order, size=settings.input_size, mean=settings.rgb_mean, std=settings.rgb_std,
            resize=math.ceil(settings.input_size / settings.crop_ratio),  # as GluonCV rounds
            workers=_workers(settings))
    return RecordLoader(records, eval_transform(settings, crops), order, skipped=skipped,
                        **loading(settings, training=False))


def train_transform(settings: Settings) -> TrainTransform:
    """What training does to a picture; of settled settings."""
    return TrainTransform(
        size=settings.input_size, area=settings.crop_area or (1.0, 1.0),
        padding=4 if settings.crop == "pad" else None, color_jitter=settings.color_jitter,
        pca_noise=settings.pca_noise, mean=settings.rgb_mean, std=settings.rgb_std,
        antialias=settings.antialias, auto_augment=settings.auto_augment,
        gluoncv_jitter=settings.gluoncv_compat)


def eval_transform(settings: Settings, crops: int = 1) -> EvalTransform:
    """What validation does to a picture; with 10 `crops` a TenCropTransform."""
    resize = None if settings.crop == "pad" else round(settings.input_size / settings.crop_ratio)
    kind = {1: EvalTransform, 10: TenCropTransform}[crops]
    return kind(size=settings.input_size, resize=resize, mean=settings.rgb_mean,
                std=settings.rgb_std, antialias=settings.antialias)


def _workers(settings: Settings) -> int:
    """Threads of this process: its share of what a machine's ranks have together, but 4 at least
    where 4 are asked for."""
    wanted = settings.num_data_workers
    return max(-(-wanted // local_ranks()), min(wanted, 4)) if wanted else share(cores())


def loading(settings: Settings, *, training: bool) -> dict[str, Any]:
    """What all loaders of ours take.

    Raises InputError where the shortcut is asked for and the native decoder is missing.
    """
    missing = native.why_not()
    if missing and settings.data_backend == "auto" and settings.dct_shortcut in ("train", "always"):
        raise InputError(f"--dct-shortcut {settings.dct_shortcut} needs the native decoder, but "
                         f"{missing}")
    wanted = settings.dct_shortcut or ("never" if settings.data_backend == "opencv" else "train")
    return {"workers": _workers(settings), "backend": settings.data_backend,
            "dct_shortcut": wanted == "always" or (training and wanted == "train"),
            "skip_damaged": settings.on_bad_record == "skip", "dtype": settings.array_dtype}


def damaged_records(settings: Settings, records: PictureSet) -> list[int]:
    """The records that surely cannot be decoded, found without decoding.

    Raises InputError for the first of them unless the settings say to skip them, and where no
    other record is left.
    """
    found = quick_check(records, _workers(settings))
    if found and settings.on_bad_record == "fail":
        index, damage = found[0]
        raise InputError(f"{records.name(index)}: {damage.reason}; {len(found)} of {len(records)} "
                         "records are damaged: mend them (a .rec is packed again), or leave them "
                         "out by --on-bad-record skip")
    if len(found) == len(records):
        raise InputError(f"{records.path}: all {len(records)} records are damaged: mend them (a "
                         ".rec is packed again)")
    return [index for index, _ in found]


def skipped_line(loader: Loader) -> str:
    """One line that names damaged records a loader has left out so far, 20 at most; "" for none."""
    if not loader.skipped:
        return ""
    keys = sorted(loader.records.keys[index] for index in loader.skipped)
    shown = ", ".join(map(str, keys[:20])) + (", ..." if len(keys) > 20 else "")
    left_out = "1 damaged record is" if len(keys) == 1 else f"{len(keys)} damaged records are"
    return f"{loader.records.path}: {left_out} left out, by key: {shown}"


def nothing_left(loader: Loader) -> InputError:
    """What to raise where a pass had no record that could be decoded."""
    return InputError(f"{loader.records.path}: no record can be decoded; of a .rec, "
                      "scripts/im2rec.py --verify says what is wrong with each")


def check_labels(records: PictureSet, labels: Sequence[int], classes: int) -> None:
    """Raise InputError, naming the first record whose label is beyond the classes."""
    beyond = np.flatnonzero(np.asarray(labels) >= classes)
    if len(beyond):
        raise InputError(f"{records.name(beyond[0])}, has the label {labels[beyond[0]]}, beyond "
                         f"the network's {classes} classes; give the set those of the training set "
                         "(im2rec.py --classes), or give --num-classes")
