"""Pictures in folders, or in a .lst, to PREFIX.rec, .idx, .lst and .classes.json."""

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
from gluon_tricks.data.folder import class_folders, no_pictures, walk
from gluon_tricks.data.record import MAX_LABEL, RecordWriter
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import InputError
from gluon_tricks.prepare.resumable import ResumableWriter
from gluon_tricks.prepare.seekable import is_seekable, seekable
from gluon_tricks.prepare.tars import Members

Progress = Callable[[Iterable], Iterable]  # wraps an iterable in a progress bar


class Picture(NamedTuple):
    """One picture to pack."""

    key: int
    label: int
    path: str  # relative to the root


class Listing(NamedTuple):
    """All pictures to pack."""

    root: Path
    pictures: list[Picture]
    classes: list[str]
    tar: Members | None = None  # paths are names in it

    def read(self, path: str) -> bytes:
        """A picture file's bytes."""
        return (self.root / path).read_bytes() if self.tar is None else self.tar.read(path)

    def size(self, path: str) -> int:
        return (self.root / path).stat().st_size if self.tar is None else self.tar.size(path)


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored: as the files' own bytes, or as JPEGs made anew."""

    pass_through: bool = False
    resize: int | None = None  # length of the shorter edge
    quality: int = 95
    seekable: bool = False  # what is a JPEG then is transcoded, without loss: see data/seekable.py


class Packed(NamedTuple):
    """What `pack` did."""

    damaged: list[str]  # left out
    other: int  # stored, with Encoding.seekable, though they are not


def list_folder(folder: Path, classes: list[str] | None = None, seed: int | None = 0) -> Listing:
    """A folder of one folder a class, which may hold further folders; seed None leaves it sorted.

    Labels follow `classes` (those of a training set), else the folders' sorted names. Raises
    InputError for no class folders, no pictures, or a folder that `classes` does not name.
    """
    found = class_folders(folder)
    classes = found if classes is None else classes
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise InputError(f"{folder / unknown[0]} is no class of --classes "
                         f"({len(unknown)} such folders): remove it, or pack without --classes")
    label_of = {name: label for label, name in enumerate(classes)}
    files = [(label_of[name], path) for name in found for path, _ in walk(folder, name)]
    if not files:
        raise no_pictures(folder)
    return Listing(folder, in_order(files, seed), classes)


def in_order(files: list[tuple[int, str]], seed: int | None) -> list[Picture]:
    """(label, path) of each picture, shuffled unless seed is None, with keys that count them."""
    order = range(len(files)) if seed is None else \
        np.random.Generator(np.random.Philox(key=seed)).permutation(len(files)).tolist()
    return [Picture(key, *files[i]) for key, i in enumerate(order)]


def list_lst(path: Path, root: Path | None = None, classes: list[str] | None = None,
             seed: int | None = 0) -> Listing:
    """A .lst (lines of key, tab, label, tab, path), as MXNet's im2rec writes and reads.

    Keys are kept; the order is shuffled unless seed is None. Paths start at `root`, else at the
    .lst's own folder. Raises InputError for a line that is not so, a key given twice, or a label
    that `classes` does not name.
    """
    pictures = []
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} is missing: give a folder or a .lst file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: a .lst has lines of key, label, path") from error
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        try:
            key, label, name = int(fields[0]), float(fields[1]), fields[2]
            whole = 0 <= key < 1 << 63 and 0 <= label < MAX_LABEL and label % 1 == 0
            if len(fields) != 3 or not whole:
                raise ValueError
        except (ValueError, IndexError):
            raise InputError(f"{path}, line {number}: needs a key, one label (whole number from "
                             f"0) and a path between tabs, has {line[:80]!r}") from None
        pictures.append(Picture(key, int(label), name))
    if not pictures:
        raise InputError(f"{path} lists no pictures")
    if len({picture.key for picture in pictures}) < len(pictures):
        raise InputError(f"{path} uses a key twice: number its lines from 0")
    highest = max(picture.label for picture in pictures)
    if classes is None:
        classes = [str(label) for label in range(highest + 1)]
    elif highest >= len(classes):
        raise InputError(f"{path} has the label {highest}, --classes only {len(classes)} classes")
    if seed is not None:
        order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(pictures))
        pictures = [pictures[i] for i in order]
    return Listing(root or path.parent, pictures, classes)


def encode(data: bytes, encoding: Encoding) -> bytes:
    """The bytes to store for a picture file's. Raises ValueError where it is no whole picture."""
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
        # An area mean where it shrinks: bilinear would alias for good.
        image = cv2.resize(image, size,
                           interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                        [cv2.IMWRITE_JPEG_QUALITY, encoding.quality])[1].tobytes()
    return seekable(data) if encoding.seekable else data


def pack(listing: Listing, prefix: Path, encoding: Encoding, *, workers: int,
         skip_damaged: bool = False, progress: Progress = iter,
         resumable: dict | None = None) -> Packed:
    """Write PREFIX.rec, .idx, .lst and .classes.json.

    Raises InputError where one of the four is there already, the native decoder that
    `encoding.seekable` needs is missing, or, unless `skip_damaged`, at the first file that is no
    whole picture; then nothing is written. With `resumable`, settings that say what is written,
    what is written stays, and the next call goes on with it: see data/resumable.py.
    """
    if encoding.seekable:
        native.core()
    writer = RecordWriter(prefix) if resumable is None else ResumableWriter(prefix, resumable)

    def load(picture: Picture) -> bytes | str:
        if picture.key in writer.kept:
            return writer.read_kept(picture.key, picture.label)
        try:
            return encode(listing.read(picture.path), encoding)
        except (ValueError, OSError) as error:
            return f"{listing.root / picture.path}: {getattr(error, 'strerror', None) or error}"

    damaged, written, other = [], [], 0
    with writer, contextlib.closing(ordered_map(load, listing.pictures, workers)) as results:
        writer.attach(Path(f"{prefix}.classes.json"), classes_text(listing.classes))
        writer.attach(Path(f"{prefix}.lst"), "")  # refused now if it is there, filled below
        for picture, data in zip(listing.pictures, progress(results), strict=True):
            if isinstance(data, str):
                damaged.append(data)
                if not skip_damaged:
                    raise InputError(f"{data}; mend or remove it, or pack with --skip-damaged")
                continue
            other += encoding.seekable and not is_seekable(data)
            if picture.key not in writer.kept:
                if len(written) < len(writer.kept):
                    raise InputError(f"{listing.root / picture.path} was damaged when {prefix}.rec "
                                     f"was begun, and is whole now: remove {prefix}.*")
                writer.write(picture.key, picture.label, data)
            written.append(f"{picture.key}\t{picture.label:f}\t{picture.path}\n")
        if not written:
            raise InputError(f"{listing.root}: all {len(damaged)} pictures are damaged")
        writer.attach(Path(f"{prefix}.lst"), "".join(written))
    return Packed(damaged, other)
