"""Completes the settings of a run: from flags, from the data, and from other settings."""

import argparse
import dataclasses

from gluon_tricks.classification.rules import validate
from gluon_tricks.classification.settings import Settings
from gluon_tricks.config import presets
from gluon_tricks.config.flags import chosen
from gluon_tricks.errors import InputError

IMAGENET_TRAIN, IMAGENET_CLASSES = 1_281_167, 1000  # what a dry run assumes


def from_flags(flags: argparse.Namespace, preset: presets.Preset = presets.IMAGENET) -> Settings:
    """Valid settings from parsed flags and the preset's defaults. Raises InputError."""
    return validate(Settings(**chosen(Settings, flags, preset)))


def resolve(settings: Settings, records: int, classes: int) -> Settings:
    """Fill in every None that the data or other settings decide, and validate the settings.

    Raises InputError if the flags contradict the data.
    """
    if settings.num_training_samples not in (None, records):
        raise InputError(f"--num-training-samples {settings.num_training_samples}, but the "
                         f"training set has {records} records: drop the flag")
    if settings.num_classes is not None and settings.num_classes < classes:
        raise InputError(f"--num-classes {settings.num_classes}, but the training set has the "
                         f"label {classes - 1}: give at least {classes}")
    if settings.num_classes is None and classes < 2:
        raise InputError("the training set has only one class, and a classifier needs two: "
                         "pack a folder for each class, or give --num-classes")
    return validate(dataclasses.replace(
        settings, num_training_samples=records,
        num_classes=settings.num_classes or classes).filled())


def resolve_without_data(settings: Settings) -> Settings:
    """Like `resolve`, with ImageNet's numbers unless the flags give others."""
    return resolve(settings, settings.num_training_samples or IMAGENET_TRAIN,
                   settings.num_classes or IMAGENET_CLASSES)
