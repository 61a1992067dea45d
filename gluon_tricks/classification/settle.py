"""Fills in what the data and other settings decide."""

import dataclasses
from typing import Any

from gluon_tricks.config.rules import validate
from gluon_tricks.config.settings import ADAPTIVE, Settings
from gluon_tricks.errors import InputError

IMAGENET_TRAIN, IMAGENET_CLASSES = 1_281_167, 1000  # what a dry run assumes


def resolve(settings: Settings, records: int, classes: int) -> Settings:
    """The settings with every None that the data decides filled in, checked.

    Raises InputError where the flags contradict the data.
    """
    if settings.num_training_samples not in (None, records):
        raise InputError(f"--num-training-samples {settings.num_training_samples}, but the "
                         f"training set has {records} records: leave the flag out")
    if settings.num_classes is not None and settings.num_classes < classes:
        raise InputError(f"--num-classes {settings.num_classes}, but the training set has the "
                         f"label {classes - 1}: give at least {classes}")
    if settings.num_classes is None and classes < 2:
        raise InputError("the training set has one class alone, and a classifier needs two: "
                         "pack a folder for each class, or give --num-classes")
    resized = settings.crop == "resized"
    fitting = {"momentum": (("nag", "sgd", "lars"), 0.9), "lars_eta": (("lars",), 1e-3),
               "final_lr": (("adabound", "amsbound"), 0.1)}
    return validate(dataclasses.replace(
        settings, **{name: _first(getattr(settings, name), default)
                 for name, (optimizers, default) in fitting.items()
                 if settings.optimizer in optimizers},
        lr=_first(settings.lr, 1e-3 if settings.optimizer in ADAPTIVE else 0.1),
        mixup_alpha=_first(settings.mixup_alpha, 0.2) if settings.mixup else None,
        temperature=_first(settings.temperature, 20.0) if settings.teacher else None,
        hard_weight=_first(settings.hard_weight, 0.5 if settings.gluoncv_compat else None)
        if settings.teacher else None,
        loss_scale=_first(settings.loss_scale, "dynamic") if settings.dtype == "float16" else None,
        num_training_samples=records, num_classes=settings.num_classes or classes,
        crop_area=(settings.crop_area or (0.08, 1.0)) if resized else None,
        color_jitter=_first(settings.color_jitter, 0.4 if resized else 0.0),
        pca_noise=_first(settings.pca_noise, 0.1 if resized else 0.0)))


def resolve_without_data(settings: Settings) -> Settings:
    """As `resolve`, for ImageNet where the flags do not say otherwise."""
    return resolve(settings, settings.num_training_samples or IMAGENET_TRAIN,
                   settings.num_classes or IMAGENET_CLASSES)


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
