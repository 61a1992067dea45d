"""Builds a run's data sets and their loaders from the settings."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gluon_tricks.classification.settings import Settings
from gluon_tricks.data import native
from gluon_tricks.data.backends import cores
from gluon_tricks.data.check import quick_check
from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.image_record_iter import ImageRecordLoader
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder, shuffle_labels
from gluon_tricks.data.sets import ImageSet, open_set
from gluon_tricks.data.transforms import EvalTransform, TenCropTransform, TrainTransform
from gluon_tricks.errors import InputError
from gluon_tricks.machine.processor import cores_for_this_rank, local_ranks
from gluon_tricks.parallel.ranks import Ranks

Loader = RecordLoader | ImageRecordLoader


def open_records(settings: Settings, part: str, classes: list[str] | None = None) -> ImageSet:
    """Open the data set of `part`, "train" or "val", that the settings name.

    A folder is labeled by `classes`, the training set's. Raises InputError if there is no such set,
    or the data backend cannot read it.
    """
    found = open_set(*settings.rec_paths(part), settings.image_folder(part), classes)
    if isinstance(found, FolderSet) and settings.data_backend == "mxnet":
        raise InputError(f"--data-backend mxnet reads only RecordIO, and {found.path} is a folder "
                         "of images: pack it with scripts/im2rec.py, or use another "
                         "--data-backend")
    return found


def train_loader(settings: Settings, records: ImageSet, skipped: Iterable[int] = (),
                 ranks: Ranks | None = None) -> Loader:
    """Shuffled, augmented batches of a rank's share, from resolved settings; `skipped` are the
    indices of damaged records."""
    ranks = ranks or Ranks()
    order = TrainOrder(len(records), settings.batch_size, settings.seed, ranks.rank, ranks.size,
                       accumulate=settings.accumulate)
    if settings.data_backend == "mxnet":
        return ImageRecordLoader.train(
            records, order, size=settings.input_size, seed=settings.seed,
            area=settings.crop_area or (1.0, 1.0),
            color_jitter=settings.color_jitter, pca_noise=settings.pca_noise,
            mean=settings.rgb_mean, std=settings.rgb_std, workers=_workers(settings))
    labels = shuffle_labels(records.labels, settings.seed) if settings.shuffle_labels else None
    return RecordLoader(records, train_transform(settings), order, seed=settings.seed,
                        labels=labels, **loading(settings, training=True), skipped=skipped)


def eval_loader(settings: Settings, records: ImageSet, skipped: Iterable[int] = (),
                ranks: Ranks | None = None, crops: int = 1) -> Loader:
    """Every record once, over all ranks. Raises InputError if a label is beyond the classes.

    With 10 `crops` of each image a batch has a tenth as many images, so it is no larger.
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
    """What training does to an image, from resolved settings."""
    return TrainTransform(
        size=settings.input_size, area=settings.crop_area or (1.0, 1.0),
        padding=4 if settings.crop == "pad" else None, color_jitter=settings.color_jitter,
        pca_noise=settings.pca_noise, mean=settings.rgb_mean, std=settings.rgb_std,
        antialias=settings.antialias, auto_augment=settings.auto_augment,
        gluoncv_jitter=settings.gluoncv_compat)


def eval_transform(settings: Settings, crops: int = 1) -> EvalTransform:
    """What validation does to an image; with 10 `crops` a TenCropTransform."""
    resize = None if settings.crop == "pad" else round(settings.input_size / settings.crop_ratio)
    kind = {1: EvalTransform, 10: TenCropTransform}[crops]
    return kind(size=settings.input_size, resize=resize, mean=settings.rgb_mean,
                std=settings.rgb_std, antialias=settings.antialias)


def _workers(settings: Settings) -> int:
    """Threads of this process: its share of the machine's, but at least 4 if 4 are asked for."""
    wanted = settings.num_data_workers
    if not wanted:
        return cores_for_this_rank(cores())
    return max(-(-wanted // local_ranks()), min(wanted, 4))


def loading(settings: Settings, *, training: bool) -> dict[str, Any]:
    """The arguments that training and evaluation loaders share.

    Raises InputError if the DCT shortcut is asked for and the native decoder is missing.
    """
    missing = native.why_not()
    if missing and settings.data_backend == "auto" and settings.dct_shortcut in ("train", "always"):
        raise InputError(f"--dct-shortcut {settings.dct_shortcut} needs the native decoder, but "
                         f"{missing}")
    wanted = settings.dct_shortcut or ("never" if settings.data_backend == "opencv" else "train")
    return {"workers": _workers(settings), "backend": settings.data_backend,
            "dct_shortcut": wanted == "always" or (training and wanted == "train"),
            "skip_damaged": settings.on_bad_record == "skip", "dtype": settings.array_dtype}


def resolve_backend(settings: Settings, loader: Loader) -> Settings:
    """The settings with the data backend that a training loader chose, and with how it decodes
    large crops."""
    shortcut = "train" if loader.backend == "native" and settings.crop == "resized" else "never"
    return dataclasses.replace(settings, data_backend=loader.backend,
                               dct_shortcut=settings.dct_shortcut or shortcut)


def damaged_records(settings: Settings, records: ImageSet) -> list[int]:
    """Indices of the records that certainly cannot be decoded, found without decoding.

    Raises InputError for the first of them unless the settings say to skip them, and if all records
    are damaged.
    """
    found = quick_check(records, _workers(settings))
    if found and settings.on_bad_record == "fail":
        index, damage = found[0]
        raise InputError(f"{records.name(index)}: {damage.reason}; {len(found)} of {len(records)} "
                         "records are damaged: fix them (pack a .rec again), or skip them with "
                         "--on-bad-record skip")
    if len(found) == len(records):
        raise InputError(f"{records.path}: all {len(records)} records are damaged: fix them (pack "
                         "a .rec again)")
    return [index for index, _ in found]


def check_labels(records: ImageSet, labels: Sequence[int], classes: int) -> None:
    """Raise InputError, naming the first record whose label is beyond the classes."""
    beyond = np.flatnonzero(np.asarray(labels) >= classes)
    if len(beyond):
        raise InputError(f"{records.name(beyond[0])}, has the label {labels[beyond[0]]}, beyond "
                         f"the network's {classes} classes; pack the set with the training set's "
                         "classes (im2rec.py --classes), or give --num-classes")
