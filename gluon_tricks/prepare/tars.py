"""Reads images inside a tar, or inside the tars in a tar, without unpacking anything."""

import bisect
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gluon_tricks import files
from gluon_tricks.errors import InputError

Progress = Callable[[Iterable], Iterable]  # wraps an iterable in a progress bar
_END = bytes(512)  # the block after a tar's last member


class Member(NamedTuple):
    """A file in a tar."""

    name: str  # in a tar of tars CLASS/NAME, as in the unpacked folders
    offset: int  # of its bytes, from the start of the outermost tar
    size: int


class Members:
    """Where the files in a tar are. Reading is thread-safe."""

    def __init__(self, tar: Path, members: Iterable[Member]):
        self.tar = tar
        # Only the names are Python objects: ImageNet has 1.3 million members.
        members = sorted(members)
        self.names = [member.name for member in members]
        self._places = np.array([member[1:] for member in members], np.int64).reshape(-1, 2)

    def __iter__(self) -> Iterator[Member]:
        for name, (offset, size) in zip(self.names, self._places.tolist(), strict=True):
            yield Member(name, offset, size)

    def _place(self, name: str) -> tuple[int, int]:
        offset, size = self._places[bisect.bisect_left(self.names, name)].tolist()
        return offset, size

    def size(self, name: str) -> int:
        return self._place(name)[1]

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises ValueError if the tar has become too short."""
        offset, size = self._place(name)
        file = os.open(self.tar, os.O_RDONLY)
        try:
            data = os.pread(file, size, offset)
        finally:
            os.close(file)
        if len(data) < size:
            raise ValueError(f"{self.tar} ends inside it")
        return data


def flat(tar: Path) -> Iterator[Member]:
    """The files in a tar; folders are dropped from their names."""
    with open(tar, "rb") as file:
        for member in _files(file, str(tar)):
            yield Member(Path(member.name).name, member.offset_data, member.size)


def nested(tar: Path, progress: Progress = iter) -> Iterator[Member]:
    """The files in the tars CLASS.tar in a tar, as CLASS/NAME."""
    with open(tar, "rb") as file:
        inner = []
        for member in _files(file, str(tar)):
            if not member.name.endswith(".tar"):
                raise InputError(f"{tar} contains {member.name!r}, not one CLASS.tar per class: "
                                 "it is not the training set as downloaded")
            inner.append(member)
        for outer in progress(inner):
            window = _Window(file, outer.offset_data, outer.size)
            name = Path(outer.name).stem
            for member in _files(window, f"{tar}, {outer.name}"):
                yield Member(f"{name}/{Path(member.name).name}",
                             outer.offset_data + member.offset_data, member.size)


class _Window:
    """A part of a file as a file of its own, with what tarfile needs to read one."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self._file, self._start, self._size, self._at = file, start, size, 0

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        self._at = position + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def read(self, size: int) -> bytes:
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(size, self._size - self._at)))
        self._at += len(data)
        return data


def _files(file: IO[bytes] | _Window, name: str) -> Iterator[tarfile.TarInfo]:
    """The files in a tar; folders are skipped.

    Raises InputError if it is not a tar, is truncated or damaged, or contains something that is not
    a regular file.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # otherwise tarfile keeps each
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise InputError(f"{name} contains {member.name!r}, which is not a regular "
                                     "file: make the tar again, of regular files")
                yield member
            end = tar.offset
    except tarfile.TarError as error:
        raise InputError(f"{name} is not a tar, or is truncated or damaged ({error}): compare its "
                         "checksum, download it again") from error
    # tarfile stops silently at an invalid header, and if the file ends after a member.
    file.seek(end)
    block = file.read(512)
    if block != _END and (block or not isinstance(file, _Window)):  # a tar's tars may lack it
        raise InputError(f"{name} is truncated or damaged at byte {end}: compare its checksum, "
                         "download it again")


def listed(tar: Path, cache: Path, members: Callable[[Path], Iterable[Member]]) -> Members:
    """The members of a tar, read from `cache` if it was written for this very file.

    Their headers are all over the tar: a seek for each of ImageNet's 1.3 million images. Raises
    InputError if two members have the same name, there are none, or a .lst cannot hold a name.
    """
    status = os.stat(tar)
    identity = json.dumps([str(tar.absolute()), status.st_size, status.st_mtime_ns]) + "\n"
    if cache.is_file():
        with open(cache) as file:
            if file.readline() == identity:
                fields = (line.rstrip("\n").split("\t") for line in file)
                return Members(tar, (Member(name, int(offset), int(size))
                                     for name, offset, size in fields))
    found = Members(tar, _printable(tar, members(tar)))
    for first, second in zip(found.names, found.names[1:], strict=False):
        if first == second:
            raise InputError(f"{tar} contains {first} twice: make the tar again")
    if not found.names:
        raise InputError(f"{tar} contains no files: download it again")
    cache.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(cache) as part, open(part, "w") as file:
        file.write(identity)
        file.writelines(f"{name}\t{offset}\t{size}\n" for name, offset, size in found)
    return found


def _printable(tar: Path, members: Iterable[Member]) -> Iterator[Member]:
    for member in members:
        if not member.name.isprintable():
            raise InputError(f"{tar}: the name {member.name!r} cannot be written to a .lst: rename "
                             "it")
        yield member
