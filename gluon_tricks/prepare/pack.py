"""Packs images from folders, or from a .lst, into PREFIX.rec, .idx, .lst and .classes.json."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gluon_tricks.data import native
from gluon_tricks.data.classes import classes_text
from gluon_tricks.data.decode import decode_whole
from gluon_tricks.data.folder import class_folders, no_images, walk
from gluon_tricks.data.record import MAX_LABEL, RecordWriter
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import InputError
from gluon_tricks.prepare.resumable import ResumableWriter
from gluon_tricks.prepare.seekable import is_seekable, seekable
from gluon_tricks.prepare.tars import Members

Progress = Callable[[Iterable], Iterable]  # wraps an iterable in a progress bar


class ImageEntry(NamedTuple):
    """One image to pack."""

    key: int
    label: int
    path: str  # relative to the root


class Listing(NamedTuple):
    """All the images to pack."""

    root: Path
    images: list[ImageEntry]
    classes: list[str]
    tar: Members | None = None  # if given, paths are names in it

    def read(self, path: str) -> bytes:
        """An image file's bytes."""
        return (self.root / path).read_bytes() if self.tar is None else self.tar.read(path)

    def size(self, path: str) -> int:
        return (self.root / path).stat().st_size if self.tar is None else self.tar.size(path)


@dataclass(frozen=True)
class Encoding:
    """How images are stored: as the files' own bytes, or re-encoded as JPEGs."""

    pass_through: bool = False
    resize: int | None = None  # length of the shorter edge
    quality: int = 95
    seekable: bool = False  # JPEGs are transcoded losslessly, see prepare/seekable.py


class Packed(NamedTuple):
    """What `pack` did."""

    damaged: list[str]  # skipped
    other: int  # with Encoding.seekable: stored although not seekable


def list_folder(folder: Path, classes: list[str] | None = None, seed: int | None = 0) -> Listing:
    """List a folder with one folder per class, which may have subfolders; seed None: sorted.

    Labels follow `classes` (those of a training set), else the folders' sorted names. Raises
    InputError if there are no class folders, no images, or a folder that `classes` does not name.
    """
    found = class_folders(folder)
    classes = found if classes is None else classes
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise InputError(f"{folder / unknown[0]} is not a class of --classes "
                         f"({len(unknown)} such folders): remove it, or pack without --classes")
    label_of = {name: label for label, name in enumerate(classes)}
    files = [(label_of[name], path) for name in found for path, _ in walk(folder, name)]
    if not files:
        raise no_images(folder)
    return Listing(folder, in_order(files, seed), classes)


def in_order(files: list[tuple[int, str]], seed: int | None) -> list[ImageEntry]:
    """Number the (label, path) of images from 0, shuffled unless seed is None."""
    order = range(len(files)) if seed is None else \
        np.random.Generator(np.random.Philox(key=seed)).permutation(len(files)).tolist()
    return [ImageEntry(key, *files[i]) for key, i in enumerate(order)]


def list_lst(path: Path, root: Path | None = None, classes: list[str] | None = None,
             seed: int | None = 0) -> Listing:
    """Read a .lst (lines of key, tab, label, tab, path), as MXNet's im2rec writes and reads.

    Keys are kept; the order is shuffled unless seed is None. Paths are relative to `root`, else to
    the .lst's own folder. Raises InputError for a malformed line, a duplicate key, or a label that
    `classes` does not name.
    """
    images = []
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} is missing: give a folder or a .lst file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: a .lst has lines of key, label, path") from error
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        try:
            key, label, name = int(fields[0]), float(fields[1]), fields[2]
            valid = 0 <= key < 1 << 63 and 0 <= label < MAX_LABEL and label % 1 == 0
            if len(fields) != 3 or not valid:
                raise ValueError
        except (ValueError, IndexError):
            raise InputError(f"{path}, line {number}: needs a key, one label (an integer from 0) "
                             f"and a path, separated by tabs, has {line[:80]!r}") from None
        images.append(ImageEntry(key, int(label), name))
    if not images:
        raise InputError(f"{path} lists no images")
    if len({image.key for image in images}) < len(images):
        raise InputError(f"{path} uses a key twice: number its lines from 0")
    highest = max(image.label for image in images)
    if classes is None:
        classes = [str(label) for label in range(highest + 1)]
    elif highest >= len(classes):
        raise InputError(f"{path} has the label {highest}, but --classes names only "
                         f"{len(classes)} classes")
    if seed is not None:
        order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(images))
        images = [images[i] for i in order]
    return Listing(root or path.parent, images, classes)


def encode(data: bytes, encoding: Encoding) -> bytes:
    """The bytes to store for an image file's. Raises ValueError if it is not a complete image."""
    image = decode_whole(data)
    if encoding.pass_through:
        return seekable(data) if encoding.seekable else data
    height, width = image.shape[:2]
    scale = encoding.resize / min(height, width) if encoding.resize else 1
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if max(size) > 65500:
        raise ValueError(f"a side of {max(size)} pixels is too long for a JPEG" + (
            ": it is too narrow for --resize" if encoding.resize else ": give --resize"))
    if encoding.resize:
        # Average areas when shrinking: bilinear would alias, and that cannot be undone.
        image = cv2.resize(image, size,
                           interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                        [cv2.IMWRITE_JPEG_QUALITY, encoding.quality])[1].tobytes()
    return seekable(data) if encoding.seekable else data


def pack(listing: Listing, prefix: Path, encoding: Encoding, *, workers: int,
         skip_damaged: bool = False, progress: Progress = iter,
         resumable: dict | None = None) -> Packed:
    """Write PREFIX.rec, .idx, .lst and .classes.json.

    Raises InputError if one of the four exists already, if the native decoder that
    `encoding.seekable` needs is missing, or, unless `skip_damaged`, at the first file that is not a
    complete image; then nothing is written. With `resumable`, settings that identify the output,
    partial output is kept, and the next call resumes from it: see prepare/resumable.py.
    """
    if encoding.seekable:
        native.core()
    writer = RecordWriter(prefix) if resumable is None else ResumableWriter(prefix, resumable)

    def load(image: ImageEntry) -> bytes | str:
        if image.key in writer.kept:
            return writer.read_kept(image.key, image.label)
        try:
            return encode(listing.read(image.path), encoding)
        except (ValueError, OSError) as error:
            return f"{listing.root / image.path}: {getattr(error, 'strerror', None) or error}"

    damaged, written, other = [], [], 0
    with writer, contextlib.closing(ordered_map(load, listing.images, workers)) as results:
        writer.attach(Path(f"{prefix}.classes.json"), classes_text(listing.classes))
        writer.attach(Path(f"{prefix}.lst"), "")  # refused now if it exists, filled below
        for image, data in zip(listing.images, progress(results), strict=True):
            if isinstance(data, str):
                damaged.append(data)
                if not skip_damaged:
                    raise InputError(f"{data}; fix or remove it, or pack with --skip-damaged")
                continue
            other += encoding.seekable and not is_seekable(data)
            if image.key not in writer.kept:
                if len(written) < len(writer.kept):
                    raise InputError(f"{listing.root / image.path} was damaged when {prefix}.rec "
                                     f"was started, and is not any more: remove {prefix}.*")
                writer.write(image.key, image.label, data)
            written.append(f"{image.key}\t{image.label:f}\t{image.path}\n")
        if not written:
            raise InputError(f"{listing.root}: all {len(damaged)} images are damaged")
        writer.attach(Path(f"{prefix}.lst"), "".join(written))
    return Packed(damaged, other)
