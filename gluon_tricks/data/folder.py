"""Pictures as files, in a folder of one folder a class: listed, and read like records."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gluon_tricks.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_THREADS = 4  # that ask for files' sizes: a disk over a network answers several at once


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the folders in it, links to folders too; hidden ones do not count.

    Raises InputError where there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give a folder with one folder a class, or a .lst")
    found = [entry.name for entry in _entries(str(folder))
             if entry.is_dir() and not entry.name.startswith(".")]
    if not found:
        raise InputError(f"{folder} has no class folders: put each class's pictures into one")
    return found


def walk(folder: Path, name: str) -> Iterator[tuple[str, os.DirEntry]]:
    """Each picture in a class's folder and the folders in it: its path from `folder` on, its entry.

    Sorted, folder by folder. Links to files are followed, links to folders are not. Raises
    InputError for a folder that cannot be read and a name that cannot be printed.
    """
    for entry in _entries(f"{folder}/{name}"):
        path = f"{name}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder, path)
        elif entry.name[1:].lower().endswith(SUFFIXES) and entry.is_file():
            if not path.isprintable():
                raise InputError(f"{folder}: the name {path!r} cannot be printed, nor stand in a "
                                 ".lst: rename it")
            yield path, entry


def no_pictures(folder: Path) -> InputError:
    return InputError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}) in its class folders")


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError as error:
        raise InputError(f"{folder}: {error.strerror}: allow to read it, or remove it") from error


class FolderSet:
    """The pictures of a folder of one folder a class, with what RecordSet gives.

    Labels follow `classes` (those of a training set), else the class folders' sorted names.
    keys: (pictures,) str, the files' paths from the folder on, sorted; labels, lengths (in bytes),
    offsets (0, where a picture begins in its file): (pictures,) int64. Raises InputError for no
    class folders, no pictures, or a folder that `classes` does not name.
    """

    def __init__(self, folder: str | Path, classes: list[str] | None = None):
        self.path = Path(folder)
        found = class_folders(self.path)
        self._classes = found if classes is None else list(classes)
        label_of = {name: label for label, name in enumerate(self._classes)}
        unknown = [name for name in found if name not in label_of]
        if unknown:
            raise InputError(f"{self.path / unknown[0]} is no class of the training set "
                             f"({len(unknown)} such folders): remove it, or train with it")

        def look(name: str) -> list[tuple[str, int]]:
            return [(path, entry.stat().st_size) for path, entry in walk(self.path, name)]

        with ThreadPoolExecutor(_THREADS) as pool:
            listed = list(pool.map(look, found))
        self.keys = [path for pictures in listed for path, _ in pictures]
        if not self.keys:
            raise no_pictures(self.path)
        self.lengths = np.array([size for pictures in listed for _, size in pictures], np.int64)
        self.labels = np.repeat(np.array([label_of[name] for name in found], np.int64),
                                [len(pictures) for pictures in listed])
        self.offsets = np.zeros(len(self.keys), np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def __enter__(self) -> "FolderSet":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Nothing: no file stays open."""

    def name(self, index: int) -> str:
        """How messages call a picture: the path of its file."""
        return f"{self.path}/{self.keys[index]}"

    def paths(self, indices: np.ndarray) -> list[bytes]:
        """The paths of some pictures' files, as the system takes them."""
        return [os.fsencode(self.name(index)) for index in indices.tolist()]

    def read(self, index: int) -> bytes:
        """The encoded picture; any number of threads may read at once. Raises OSError where its
        file has vanished or cannot be read."""
        with open(self.name(index), "rb", buffering=0) as file:
            return file.read()

    def read_ends(self, index: int, first: int, last: int) -> tuple[int, bytes, bytes]:
        """The length of a picture, its `first` bytes and its `last` ones; a shorter one is
        returned whole, in place of either. Any number of threads may read."""
        with open(self.name(index), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(first)
            if size <= first:
                return size, head, head[-last:]
            return size, head, os.pread(file.fileno(), last, max(0, size - last))

    def class_names(self) -> list[str]:
        return self._classes

    def class_count(self) -> int:
        return len(self._classes)
