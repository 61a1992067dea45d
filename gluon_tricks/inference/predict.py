"""Classifies image files with a trained network: paths in, the most likely classes out, in order.
"""

import contextlib
import dataclasses
import glob
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mxnet as mx
import numpy as np

from gluon_tricks.augment.crop import MAX_PIXELS
from gluon_tricks.classification import weights
from gluon_tricks.classification.loaders import eval_transform
from gluon_tricks.data.classes import read_classes
from gluon_tricks.data.decode import decode_whole
from gluon_tricks.data.folder import SUFFIXES
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.data.transforms import EvalTransform
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference.trained import Trained, load
from gluon_tricks.parallel.device import find_device

_MAX_BYTES = 8 * MAX_PIXELS  # 4 channels of 16 bits; reading a video by mistake would fill memory


class ImageFile(NamedTuple):
    """An image file to classify."""

    path: str
    fault: str = ""  # why there is nothing to read, if that is known already


class Candidate(NamedTuple):
    """A class that an image may show."""

    number: int
    label: str
    probability: float


class Prediction(NamedTuple):
    """The most likely classes of an image, the best first; empty if it could not be read."""

    path: str
    top: list[Candidate]
    error: str | None = None


def open_network(source: Path | None, names: Path | None, *, num_gpus: int,
                 **given: Any) -> tuple[Trained, mx.Context]:
    """Load a network, ready to predict; returns it with its device.

    Its parameters are those of `source`, or GluonCV's of `given["model"]`; `given` are settings as
    for `trained.load`. `names` is a file with the classes' names. Raises InputError.
    """
    device = find_device(num_gpus, "float32")
    trained = load(source or weights.of_zoo(given["model"]), device, **given)
    if names is None:
        return trained, device
    classes = read_classes(names)
    if len(classes) != len(trained.classes):
        raise InputError(f"--classes {names} names {len(classes)} classes, {trained.path} is for "
                         f"{len(trained.classes)}: give the names of the set it was trained on")
    return dataclasses.replace(trained, classes=classes), device


def find_images(names: Iterable[str], lines: Iterable[bytes] = ()) -> Iterator[ImageFile]:
    """Yield the image files that a command line names.

    A name is a file, a folder (its images, recursively and sorted, without following links), a
    `glob` pattern (the files that match, sorted) or "-": a file or folder for each of `lines`,
    which are read as they are needed. A name without any file yields one with a fault.
    """
    for name in names:
        path = os.path.expanduser(name)
        if name == "-":
            paths = (os.fsdecode(line.rstrip(b"\r\n")) for line in lines)
            yield from itertools.chain.from_iterable(map(_of_path, filter(None, paths)))
        elif glob.has_magic(path) and not os.path.lexists(path):
            yield from _or_fault(_of_pattern(path), path, "no file matches it")
        else:
            yield from _of_path(path)


def _of_path(path: str) -> Iterator[ImageFile]:
    if os.path.isdir(path):
        return _or_fault(_of_folder(path), path, f"it contains no image ({', '.join(SUFFIXES)})")
    return iter([ImageFile(path)])


def _or_fault(images: Iterator[ImageFile], path: str, fault: str) -> Iterator[ImageFile]:
    """`images`, or a single one with a fault if there are none."""
    first = next(images, ImageFile(path, fault))
    return itertools.chain([first], images)


def _of_pattern(pattern: str) -> Iterator[ImageFile]:
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(path):
            yield ImageFile(path)


def _of_folder(folder: str) -> Iterator[ImageFile]:
    """A folder's images, sorted by the parts of their paths. Keeps one folder's names in memory at
    a time."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        yield ImageFile(folder, error.strerror)
        return
    for name, is_folder in inside:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _of_folder(path)
        elif name.lower().endswith(SUFFIXES):
            yield ImageFile(path)


def predict(trained: Trained, images: Iterable[ImageFile], device: mx.Context, *, top: int = 5,
            batch_size: int = 32, workers: int = 4) -> Iterator[Prediction]:
    """Yield the `top` most likely classes of each image, or all if there are fewer, in order.

    Threads prepare the images ahead of use, as for validation; a batch's predictions come when it
    is done. Raises RunFault if a logit is not finite.
    """
    transform = eval_transform(trained.settings)
    cv2.setNumThreads(0)  # the threads are ours; OpenCV's own would compete with them
    with contextlib.closing(ordered_map(lambda image: _prepare(image, transform), images,
                                        workers)) as prepared:
        while batch := list(itertools.islice(prepared, batch_size)):
            inputs = [pixels for _, pixels, _ in batch if pixels is not None]
            tops = iter(_classify(trained, np.stack(inputs), device, top) if inputs else ())
            for path, pixels, fault in batch:
                yield Prediction(path, [], fault) if pixels is None else \
                    Prediction(path, next(tops))


def _prepare(image: ImageFile, transform: EvalTransform) -> tuple[str, np.ndarray | None, str]:
    """Read an image: its path, the network's input, (3, size, size) float32, or None and why."""
    path, fault = image
    try:
        if not fault:
            return path, transform.apply(decode_whole(_read(path))).transpose(2, 0, 1), ""
    except OSError as error:
        fault = error.strerror or str(error)
    except ValueError as error:
        fault = str(error)
    return path, None, fault


def _read(path: str) -> bytes:
    """The bytes of a file. Raises OSError, and ValueError for what cannot be an image."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe might never end
        raise ValueError("it is not a regular file")
    if status.st_size > _MAX_BYTES:
        raise ValueError(f"its {status.st_size} bytes are more than those of any image that can be "
                         "decoded")
    with open(path, "rb") as file:
        return file.read()


def _classify(trained: Trained, images: np.ndarray, device: mx.Context,
              top: int) -> list[list[Candidate]]:
    """The most likely classes of each image of (batch, 3, size, size) float32."""
    logits = trained.network(mx.nd.array(images, ctx=device)).astype("float32").asnumpy()
    if not np.isfinite(logits).all():
        raise RunFault(f"{trained.path}: the network's outputs are not finite, these parameters "
                       "are from a run that diverged")
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return [[Candidate(number, trained.classes[number], float(row[number])) for number in best]
            for best, row in zip(order.tolist(), probabilities, strict=True)]
