"""What a trained network sees in pictures: files in, the likeliest classes out, in order."""

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

_MAX_BYTES = 8 * MAX_PIXELS  # 16 bits of four channels; reading a film by mistake would fill memory


class Picture(NamedTuple):
    """A file to look at."""

    path: str
    fault: str = ""  # why there is nothing to read, where that is known already


class Candidate(NamedTuple):
    """A class that a picture may show."""

    number: int
    label: str
    probability: float


class Prediction(NamedTuple):
    """The likeliest classes of a picture, the best first; none where it could not be read."""

    path: str
    top: list[Candidate]
    error: str | None = None


def open_network(source: Path | None, names: Path | None, *, num_gpus: int,
                 **given: Any) -> tuple[Trained, mx.Context]:
    """A network, ready to predict on the device that comes with it.

    Its parameters are those of `source`, or GluonCV's of `given["model"]`; `given` are settings as
    of `trained.load`. `names` is a file of the classes' names. Raises InputError.
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


def find_pictures(names: Iterable[str], lines: Iterable[bytes] = ()) -> Iterator[Picture]:
    """The pictures that a command line names, one after the other.

    A name is a file, a folder (its pictures, recursively and sorted, without following links), a
    pattern of `glob` (the files that match, sorted) or "-": a file or folder for each of `lines`,
    which are read as they are needed. What stands for no file comes with a fault.
    """
    for name in names:
        path = os.path.expanduser(name)
        if name == "-":
            paths = (os.fsdecode(line.rstrip(b"\r\n")) for line in lines)
            yield from itertools.chain.from_iterable(map(_of_path, filter(None, paths)))
        elif glob.has_magic(path) and not os.path.lexists(path):
            yield from _some(_of_pattern(path), path, "no file matches it")
        else:
            yield from _of_path(path)


def _of_path(path: str) -> Iterator[Picture]:
    if os.path.isdir(path):
        return _some(_of_folder(path), path, f"no picture is in it ({', '.join(SUFFIXES)})")
    return iter([Picture(path)])


def _some(pictures: Iterator[Picture], path: str, fault: str) -> Iterator[Picture]:
    """`pictures`, or, where there is none, one with a fault."""
    first = next(pictures, Picture(path, fault))
    return itertools.chain([first], pictures)


def _of_pattern(pattern: str) -> Iterator[Picture]:
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(path):
            yield Picture(path)


def _of_folder(folder: str) -> Iterator[Picture]:
    """Sorted by the parts of their paths; of the names, one folder's at a time are in memory."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        yield Picture(folder, error.strerror)
        return
    for name, is_folder in inside:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _of_folder(path)
        elif name.lower().endswith(SUFFIXES):
            yield Picture(path)


def predict(trained: Trained, pictures: Iterable[Picture], device: mx.Context, *, top: int = 5,
            batch_size: int = 32, workers: int = 4) -> Iterator[Prediction]:
    """The `top` likeliest classes of each picture, or all where there are fewer, in order.

    Pictures are prepared as validation prepares them, by threads, ahead of use; a batch's
    predictions come when it is done. Raises RunFault where a logit is not finite.
    """
    transform = eval_transform(trained.settings)
    cv2.setNumThreads(0)  # the threads are ours; OpenCV's own would fight them
    with contextlib.closing(ordered_map(lambda picture: _prepare(picture, transform), pictures,
                                        workers)) as prepared:
        while batch := list(itertools.islice(prepared, batch_size)):
            images = [image for _, image, _ in batch if image is not None]
            tops = iter(_classify(trained, np.stack(images), device, top) if images else ())
            for path, image, fault in batch:
                yield Prediction(path, [], fault) if image is None else Prediction(path, next(tops))


def _prepare(picture: Picture, transform: EvalTransform) -> tuple[str, np.ndarray | None, str]:
    """The path, the picture as the network takes it, (3, size, size) float32, and why there is
    none."""
    path, fault = picture
    try:
        if not fault:
            return path, transform.apply(decode_whole(_read(path))).transpose(2, 0, 1), ""
    except OSError as error:
        fault = error.strerror or str(error)
    except ValueError as error:
        fault = str(error)
    return path, None, fault


def _read(path: str) -> bytes:
    """Raises OSError and, for what can be no picture, ValueError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe might never end
        raise ValueError("it is no regular file")
    if status.st_size > _MAX_BYTES:
        raise ValueError(f"its {status.st_size} bytes are more than those of any picture that is "
                         "decoded")
    with open(path, "rb") as file:
        return file.read()


def _classify(trained: Trained, images: np.ndarray, device: mx.Context,
              top: int) -> list[list[Candidate]]:
    """The likeliest classes of each of (batch, 3, size, size) float32."""
    logits = trained.network(mx.nd.array(images, ctx=device)).astype("float32").asnumpy()
    if not np.isfinite(logits).all():
        raise RunFault(f"{trained.path}: the network's outputs are not finite, these parameters "
                       "are of a run that diverged")
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return [[Candidate(number, trained.classes[number], float(row[number])) for number in best]
            for best, row in zip(order.tolist(), probabilities, strict=True)]
