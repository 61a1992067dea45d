"""The parts of a run, made from its settings."""

import contextlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config import Settings
from gluon_tricks.data import native
from gluon_tricks.data.backends import cores
from gluon_tricks.data.check import quick_check
from gluon_tricks.data.image_record_iter import ImageRecordLoader
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder, shuffle_labels
from gluon_tricks.data.recipes import EvalTransform, TrainTransform
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError
from gluon_tricks.models.zoo import get_model
from gluon_tricks.optim.regularize import no_bias_decay


def device(settings: Settings) -> mx.Context:
    """The device to train on. Raises InputError where it is not there."""
    if settings.num_gpus == 0:
        return mx.cpu()
    if settings.num_gpus > 1:
        raise InputError(f"--num-gpus {settings.num_gpus}: this version trains on one device; "
                         "take --num-gpus 1")
    if mx.context.num_gpus() == 0:
        raise InputError(f"--num-gpus {settings.num_gpus}: MXNet sees no GPU here; take "
                         "--num-gpus 0, or install mxnet-cu112 beside an NVIDIA driver")
    return mx.gpu(0)


def network(settings: Settings) -> HybridBlock:
    """The network of settled settings, cast to their dtype, not initialised.

    Raises InputError where the name or an option is unknown, where the network cannot take
    pictures of that size, and where it is no classifier.
    """
    options = {name: value for name, value in (("last_gamma", settings.last_gamma),
                                               ("dropout", settings.dropout)) if value}
    net = get_model(settings.model, classes=settings.num_classes, **options)
    net.cast(settings.dtype)  # BatchNorm stays in FP32
    size, want = settings.input_size, (settings.batch_size, settings.num_classes)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where MXNet prints a failure's arguments
            _, shapes, _ = net(mx.sym.var("data")).infer_shape(
                data=(settings.batch_size, 3, size, size))
    except (mx.MXNetError, AttributeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"--model {settings.model} cannot classify pictures of {size}x{size} "
                         f"(--input-size): {reason}") from error
    if shapes != [want]:
        raise InputError(f"--model {settings.model} is no classifier: it gives {shapes}, "
                         f"not one output of shape {want}")
    return net


def initialize(net: HybridBlock, settings: Settings, where: mx.Context) -> None:
    """Xavier, uniform in +-sqrt(6 / (d_in + d_out)); biases 0, BatchNorm 1 and 0 (section 2.1)."""
    size = settings.input_size
    # GluonCV's networks leave shapes open. Infer them: a forward pass would have oneDNN reorder
    # the weights in the background, which races with whatever reads them next.
    net.infer_shape(mx.nd.zeros((1, 3, size, size), dtype=settings.dtype))
    for name, parameter in net.collect_params().items():
        if name.endswith("weight"):  # VGG brings an initialiser of its own
            parameter.init = None
    mx.random.seed(_fold(settings.seed))
    net.initialize(mx.init.Xavier(), ctx=where)
    hybridize(net, settings)


def _fold(seed: int) -> int:
    """64 bits into the 31 that MXNet's seed has; a seed of 31 bits stays as it is."""
    return (seed ^ seed >> 31 ^ seed >> 62) & 0x7FFFFFFF


def hybridize(net: HybridBlock, settings: Settings) -> None:
    """Compile the network, unless the settings or the network forbid it.

    A hybrid network keeps the graph of its first pass. Where that depends on the mode (GluonCV's
    DropBlock asks whether it trains), prediction would run training's graph, or the reverse.
    """
    with autograd.train_mode():
        training = _operators(net)
    with autograd.predict_mode():
        predicting = _operators(net)
    if settings.mode != "imperative" and training == predicting:
        net.hybridize(static_alloc=True, static_shape=True)


def _operators(net: HybridBlock) -> list[str]:
    return [node["op"] for node in json.loads(net(mx.sym.var("data")).tojson())["nodes"]]


def trainer(net: HybridBlock, settings: Settings) -> gluon.Trainer:
    """NAG; weight decay on weights alone where asked."""
    if settings.no_wd:
        no_bias_decay(net.collect_params())
    options = {"learning_rate": settings.lr, "momentum": settings.momentum, "wd": settings.wd,
               "multi_precision": settings.dtype == "float16"}
    return gluon.Trainer(net.collect_params(), "nag", options, kvstore=None)


Loader = RecordLoader | ImageRecordLoader


def train_loader(settings: Settings, records: RecordSet, skipped: Iterable[int] = ()) -> Loader:
    """Shuffled, augmented batches; of settled settings. `skipped` names damaged records."""
    order = TrainOrder(len(records), settings.batch_size, settings.seed)
    if settings.data_backend == "mxnet":
        return ImageRecordLoader.train(
            records, order, size=settings.input_size, seed=settings.seed,
            area=settings.crop_area or (1.0, 1.0),
            color_jitter=settings.color_jitter, pca_noise=settings.pca_noise,
            mean=settings.rgb_mean, std=settings.rgb_std, workers=_workers(settings))
    labels = shuffle_labels(records.labels, settings.seed) if settings.shuffle_labels else None
    return RecordLoader(records, train_transform(settings), order, seed=settings.seed,
                        labels=labels, **loading(settings, training=True), skipped=skipped)


def eval_loader(settings: Settings, records: RecordSet, skipped: Iterable[int] = ()) -> Loader:
    """Every record once. Raises InputError where a label is beyond the classes."""
    check_labels(records, records.labels, settings.num_classes)
    order = EvalOrder(len(records), settings.batch_size)
    if settings.data_backend == "mxnet":
        return ImageRecordLoader.evaluation(
            records, order, size=settings.input_size, mean=settings.rgb_mean, std=settings.rgb_std,
            resize=math.ceil(settings.input_size / settings.crop_ratio),  # as GluonCV rounds
            workers=_workers(settings))
    return RecordLoader(records, eval_transform(settings), order, skipped=skipped,
                        **loading(settings, training=False))


def train_transform(settings: Settings) -> TrainTransform:
    """What training does to a picture; of settled settings."""
    return TrainTransform(
        size=settings.input_size, area=settings.crop_area or (1.0, 1.0),
        padding=4 if settings.crop == "pad" else None, color_jitter=settings.color_jitter,
        pca_noise=settings.pca_noise, mean=settings.rgb_mean, std=settings.rgb_std,
        antialias=settings.antialias)


def eval_transform(settings: Settings) -> EvalTransform:
    """What validation does to a picture."""
    resize = None if settings.crop == "pad" else round(settings.input_size / settings.crop_ratio)
    return EvalTransform(size=settings.input_size, resize=resize, mean=settings.rgb_mean,
                         std=settings.rgb_std, antialias=settings.antialias)


def _workers(settings: Settings) -> int:
    return settings.num_data_workers or cores()


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
            "skip_damaged": settings.on_bad_record == "skip", "dtype": settings.dtype}


def damaged_records(settings: Settings, records: RecordSet) -> list[int]:
    """The records that surely cannot be decoded, found without decoding.

    Raises InputError for the first of them unless the settings say to skip them, and where no
    other record is left.
    """
    found = quick_check(records, _workers(settings))
    if found and settings.on_bad_record == "fail":
        index, damage = found[0]
        raise InputError(f"{records.name(index)}: {damage.reason}; {len(found)} of {len(records)} "
                         "records are damaged: pack them again, or leave them out by "
                         "--on-bad-record skip")
    if len(found) == len(records):
        raise InputError(f"{records.path}: all {len(records)} records are damaged; pack it again")
    return [index for index, _ in found]


def skipped_line(loader: Loader) -> str:
    """One line that names damaged records a loader has left out so far, 20 at most; "" for none."""
    if not loader.skipped:
        return ""
    keys = sorted(int(loader.records.keys[index]) for index in loader.skipped)
    shown = ", ".join(map(str, keys[:20])) + (", ..." if len(keys) > 20 else "")
    left_out = "1 damaged record is" if len(keys) == 1 else f"{len(keys)} damaged records are"
    return f"{loader.records.path}: {left_out} left out, by key: {shown}"


def nothing_left(loader: Loader) -> InputError:
    """What to raise where a pass had no record that could be decoded."""
    return InputError(f"{loader.records.path}: no record can be decoded; scripts/im2rec.py "
                      "--verify says what is wrong with each")


def check_labels(records: RecordSet, labels: Sequence[int], classes: int) -> None:
    """Raise InputError, naming the first record whose label is beyond the classes."""
    beyond = np.flatnonzero(np.asarray(labels) >= classes)
    if len(beyond):
        raise InputError(f"{records.name(beyond[0])}, has the label {labels[beyond[0]]}, beyond "
                         f"the network's {classes} classes; pack the set with the training set's "
                         "--classes, or give --num-classes")
