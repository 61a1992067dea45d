"""Draws what a network will see, as one image to look at."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.classification.loaders import (
    eval_transform,
    loading,
    open_records,
    train_transform,
)
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.data.backends import cores
from gluon_tricks.data.check import quick_check
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.errors import InputError

_GAP = 4  # white pixels between images


class _Chosen(NamedTuple):
    """An order of a few chosen records, as one batch."""

    indices: np.ndarray

    @property
    def batch_size(self) -> int:
        return len(self.indices)

    def batches(self, epoch: int = 0, start_step: int = 0) -> Iterator[np.ndarray]:
        yield self.indices


def write_preview(path: Path, settings: Settings, *, samples: int, epochs: int) -> str:
    """Write a grid with one row for each of `samples` training records, chosen by the seed.

    The first column shows a record as validation sees it, the others as training sees it in
    `epochs` epochs. Returns the data backend used. Raises InputError if there are fewer records
    than samples or the path cannot be written.
    """
    with open_records(settings, "train") as records:
        settings = resolve(dataclasses.replace(settings, batch_size=1), len(records),
                           max(2, records.class_count()))  # one class is enough for a preview
        damaged = [index for index, _ in quick_check(records, settings.num_data_workers or cores())]
        intact = np.setdiff1d(np.arange(len(records)), damaged)
        if len(intact) < samples:
            raise InputError(f"{records.path} has {len(intact)} undamaged records: --samples "
                             f"{samples} is more than that")
        order = _Chosen(np.sort(intact[SampleRng(settings.seed, 0, intact).uniform(1)[:, 0]
                                       .argsort()[:samples]]))
        with (RecordLoader(records, eval_transform(settings), order,
                           **loading(settings, training=False)) as validation,
              RecordLoader(records, train_transform(settings), order, seed=settings.seed,
                           **loading(settings, training=True)) as training):
            columns = [next(validation.epoch()).images]
            columns += [next(training.epoch(epoch)).images for epoch in range(epochs)]
            backend = training.backend + (
                f" ({training.backend_note})" if training.backend_note else "")
    grid = tile(np.stack(columns, axis=1) * np.float32(settings.rgb_std)[:, None, None]
                + np.float32(settings.rgb_mean)[:, None, None])
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(grid, cv2.COLOR_RGB2BGR))
    except cv2.error:  # a suffix of no known format
        written = False
    if not written:
        raise InputError(f"--out {path} cannot be written: give a .png in an existing folder")
    return backend


def tile(images: np.ndarray) -> np.ndarray:
    """(rows, columns, 3, side, side) in [0, 255] to one RGB uint8 image with white gaps."""
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    padded = np.pad(images, ((0, 0), (0, 0), (0, 0), (_GAP, 0), (_GAP, 0)), constant_values=255)
    rows, columns, _, height, width = padded.shape
    return np.ascontiguousarray(padded.transpose(0, 3, 1, 4, 2)).reshape(
        rows * height, columns * width, 3)
