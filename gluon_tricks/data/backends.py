"""Decoding and augmenting by one of two backends: OpenCV from Python, or the native decoder.

Both make the same image from the same random numbers, up to resampling. The native one leaves to
OpenCV what it cannot decode: progressive and CMYK JPEGs, other formats, and damaged files.
"""

import os
from typing import Any

import numpy as np

from gluon_tricks.augment import color
from gluon_tricks.augment.crop import ASPECT
from gluon_tricks.data import native
from gluon_tricks.data.decode import decode
from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.data.transforms import EvalTransform, TrainDraws, TrainTransform, Transform
from gluon_tricks.errors import InputError


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def choose(name: str, transform: Transform) -> tuple[str, str]:
    """Resolve `name` ("auto", "native" or "opencv") to a backend, and why, or "".

    Raises InputError if the native one is requested and unavailable.
    """
    if name == "opencv":
        return name, ""
    reason = native.why_not() or (None if type(transform) in (TrainTransform, EvalTransform) else
                                  f"it does not support {type(transform).__name__}")
    if reason is None and getattr(transform, "auto_augment", None):
        reason = "it does not support AutoAugment"
    elif reason is None and getattr(transform, "gluoncv_jitter", False) and transform.color_jitter:
        reason = "it does not support GluonCV's color jitter"
    if reason is None:
        return "native", ""
    if name == "native":
        raise InputError(f"--data-backend native: {reason}")
    return "opencv", f"native: {reason}"


def native_job(records: ImageSet, transform: TrainTransform | EvalTransform, draws: Any,
               indices: np.ndarray, images: np.ndarray, *, channels_last: bool,
               dct_shortcut: bool, stage: str = "complete") -> Any:
    """The native decoder's job for one batch: its run(begin, end) makes those rows.

    run returns the rows that it leaves to OpenCV. `images` is the batch, float32 or float16,
    C-contiguous. `stage` "decoded" or "resampled" stops there (for benchmarks). None for no rows.
    """
    if not len(indices):
        return None
    recipe = native.core().Recipe(
        **_crop(transform), size=transform.size, antialias=transform.antialias,
        shrink=dct_shortcut, half=images.dtype == np.float16,
        channels_last=channels_last, mean=list(transform.mean), std=list(transform.std),
        stage=stage)
    return native.core().Job(recipe, *_places(records, indices), _draws(draws), images)


def _places(records: ImageSet, indices: np.ndarray) -> tuple:
    """Where the native decoder finds images: in files, or in an open .rec."""
    if isinstance(records, FolderSet):
        return (records.paths(indices),)
    return records.fileno(), records.offsets[indices], records.lengths[indices]


def _crop(transform: TrainTransform | EvalTransform) -> dict[str, Any]:
    aspect = list(ASPECT)
    if isinstance(transform, EvalTransform):
        return {"crop": "centered", "shorter_edge": transform.resize or 0, "aspect": aspect}
    if transform.padding is not None:
        return {"crop": "padded", "padding": transform.padding, "aspect": aspect}
    return {"crop": "resized", "aspect": aspect}


def _draws(draws: TrainDraws | None) -> dict[str, np.ndarray | None]:
    if draws is None:
        return {}
    return {"areas": draws.crops.areas, "aspects": draws.crops.aspects,
            "places": draws.crops.places, "flips": draws.flips, "gains": draws.gains,
            "light": None if draws.alphas is None else color.pca_light(draws.alphas)}


def opencv_row(records: ImageSet, transform: Transform, draws: Any, index: int, row: int,
               images: np.ndarray, *, channels_last: bool) -> None:
    """Make one row of a batch. Raises InputError, naming the record, if it is damaged."""
    encoded = records.read(index)
    try:
        image = transform.apply(decode(encoded), draws, row)
    except ValueError as error:
        raise InputError(f"{records.name(index)}: {error}") from error
    images[row] = image if channels_last else np.moveaxis(image, -1, -3)
