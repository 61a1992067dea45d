"""Images as files, in one folder per class: listed, and read like records."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gluon_tricks.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_THREADS = 4  # that ask for file sizes: a network disk answers several requests at once


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the folders in it, including links to folders but not hidden ones.

    Raises InputError if there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give a folder with one folder per class, or a "
                         ".lst")
    found = [entry.name for entry in _entries(str(folder))
             if entry.is_dir() and not entry.name.startswith(".")]
    if not found:
        raise InputError(f"{folder} has no class folders: put each class's images in a folder of "
                         "its own")
    return found


def walk(folder: Path, name: str) -> Iterator[tuple[str, os.DirEntry]]:
    """Each image in a class's folder and its subfolders: its path relative to `folder`, its entry.

    Sorted, folder by folder. Links to files are followed, links to folders are not. Raises
    InputError for a folder that cannot be read or a name that cannot be printed.
    """
    for entry in _entries(f"{folder}/{name}"):
        path = f"{name}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder, path)
        elif entry.name[1:].lower().endswith(SUFFIXES) and entry.is_file():
            if not path.isprintable():
                raise InputError(f"{folder}: the name {path!r} cannot be printed, or written to a "
                                 ".lst: rename it")
            yield path, entry


def no_images(folder: Path) -> InputError:
    return InputError(f"{folder} has no images ({', '.join(SUFFIXES)}) in its class folders")


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError as error:
        raise InputError(f"{folder}: {error.strerror}: make it readable, or remove it") from error


class FolderSet:
    """The images of a folder with one folder per class, with RecordSet's interface.

    Labels follow `classes` (those of a training set), else the class folders' sorted names.
    keys: (images,) str, the files' paths relative to the folder, sorted; labels, lengths (in
    bytes), offsets (0, where an image begins in its file): (images,) int64. Raises InputError if
    there are no class folders, no images, or a folder that `classes` does not name.
    """

    def __init__(self, folder: str | Path, classes: list[str] | None = None):
        self.path = Path(folder)
        found = class_folders(self.path)
        self._classes = found if classes is None else list(classes)
        label_of = {name: label for label, name in enumerate(self._classes)}
        unknown = [name for name in found if name not in label_of]
        if unknown:
            raise InputError(f"{self.path / unknown[0]} is not a class of the training set "
                             f"({len(unknown)} such folders): remove it, or train with it")

        def look(name: str) -> list[tuple[str, int]]:
            return [(path, entry.stat().st_size) for path, entry in walk(self.path, name)]

        with ThreadPoolExecutor(_THREADS) as pool:
            listed = list(pool.map(look, found))
        self.keys = [path for images in listed for path, _ in images]
        if not self.keys:
            raise no_images(self.path)
        self.lengths = np.array([size for images in listed for _, size in images], np.int64)
        self.labels = np.repeat(np.array([label_of[name] for name in found], np.int64),
                                [len(images) for images in listed])
        self.offsets = np.zeros(len(self.keys), np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def __enter__(self) -> "FolderSet":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def name(self, index: int) -> str:
        """An image's name in messages: the path of its file."""
        return f"{self.path}/{self.keys[index]}"

    def paths(self, indices: np.ndarray) -> list[bytes]:
        """The paths of some images' files, as the operating system takes them."""
        return [os.fsencode(self.name(index)) for index in indices.tolist()]

    def read(self, index: int) -> bytes:
        """The encoded image. Thread-safe. Raises OSError if its file is gone or cannot be read."""
        with open(self.name(index), "rb", buffering=0) as file:
            return file.read()

    def read_ends(self, index: int, first: int, last: int) -> tuple[int, bytes, bytes]:
        """The length of an image, its first `first` bytes and its last `last`; all of it for either
        if it is shorter. Thread-safe."""
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
