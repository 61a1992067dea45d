"""Parameter files: written completely or not at all, refused with a reason if damaged."""

import io
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import mxnet as mx
import numpy as np

from gluon_tricks import files
from gluon_tricks.errors import InputError

_FILE = 0x112  # a .params file starts with it
_OLD, _NEW = 0xF993FAC8, (0xF993FAC9, 0xF993FACA)  # an array starts with one of these
_ITEM_SIZES = dict(enumerate((4, 8, 2, 1, 4, 1, 8, 1, 2, 2, 4, 8, 2)))  # by MXNet's type number
_FLOATS = {0: "<f4", 1: "<f8", 2: "<f2"}


def write_arrays(path: Path, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Write a .params file. Raises OSError, and leaves no file, if it could not be completed."""
    try:
        mx.nd.save(str(path), dict(arrays))
        mx.nd.load(str(path))  # on a full disk MXNet silently truncates the file
    except mx.MXNetError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"could not write {path}: {str(error).splitlines()[-1]}") from error


def save_arrays(path: Path, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Write a .params file atomically. Raises OSError if it could not be written."""
    with files.atomic(path) as part:
        write_arrays(part, arrays)


def read_parameters(path: Path) -> dict[str, mx.nd.NDArray]:
    """The arrays of a .params file by name, without Module's `arg:` and `aux:`.

    Raises InputError if it is not a complete .params file with named parameters.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: give a .params file")
    try:
        check_layout(path)
        arrays = mx.nd.load(str(path))
    except (mx.MXNetError, ValueError) as error:
        raise InputError(f"{path} is not a complete .params file: save or copy it again") from error
    if not isinstance(arrays, dict) or not arrays:
        raise InputError(f"{path} has no named parameters: save it with Gluon's save_parameters")
    return {name.removeprefix("arg:").removeprefix("aux:"): array
            for name, array in arrays.items()}


def check_layout(path: Path) -> None:
    """Check that a .params file's sizes add up: MXNet trusts them, and allocates what they say.

    Little-endian: uint64 0x112, 0, number of arrays; for each array uint32 magic, int32 storage (0:
    dense), int32 number of dimensions, int64 for each, int32 device type and id, int32 data type,
    the values; uint64 number of names; for each name uint64 length and UTF-8 bytes. Arrays of
    MXNet 0.12 have no storage; older ones neither magic nor storage, and uint32 dimensions. Raises
    ValueError.
    """
    with open(path, "rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        magic, _, count = _take(file, "<QQQ")
        if magic != _FILE:
            raise ValueError("not a .params file")
        for _ in range(count):
            shape, kind = _array_head(file)
            size = math.prod(shape) * _ITEM_SIZES.get(kind, end)
            if size > end - file.tell():
                raise ValueError("an array beyond the file's end")
            file.seek(size, io.SEEK_CUR)
        names, = _take(file, "<Q")
        if names not in (0, count):
            raise ValueError("not as many names as arrays")
        for _ in range(names):
            length, = _take(file, "<Q")
            if length > end - file.tell():
                raise ValueError("a name beyond the file's end")
            file.read(length).decode()
        if file.tell() != end:
            raise ValueError("bytes after the last name")


def _array_head(file: BinaryIO) -> tuple[tuple[int, ...], int]:
    """An array's shape and MXNet's number for its type, which precede its values."""
    (magic,), storage, number = _take(file, "<I"), 0, "q"
    if magic in _NEW:
        storage, dimensions = _take(file, "<ii")
    elif magic == _OLD:
        dimensions, = _take(file, "<i")
    else:
        dimensions, number = magic, "I"
    if storage != 0 or not 0 < dimensions <= 32:
        raise ValueError("not a dense array")
    shape = _take(file, f"<{dimensions}{number}")
    *_, kind = _take(file, "<iii")
    if min(shape) < 1:
        raise ValueError("an empty array")
    return shape, kind


def read_array(file: BinaryIO) -> np.ndarray:
    """One array of floats, laid out as in `check_layout`, whatever its device. Raises ValueError.
    """
    shape, kind = _array_head(file)
    data = file.read()
    if kind not in _FLOATS or math.prod(shape) * _ITEM_SIZES[kind] != len(data):
        raise ValueError("not a complete array of floats")
    return np.frombuffer(data, _FLOATS[kind]).reshape(shape)


def _take(file: BinaryIO, form: str) -> tuple[int, ...]:
    """Read the next numbers. Raises ValueError if the file ends before them."""
    data = file.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise ValueError("truncated")
    return struct.unpack(form, data)
