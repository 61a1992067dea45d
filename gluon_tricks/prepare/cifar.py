"""Packs CIFAR-10's binary files, as Gluon downloads them, into RecordIO of lossless PNGs.

A .bin holds records of 3073 bytes: a label from 0 to 9, then 32 x 32 values each of red, green and
blue, row by row.
"""

import contextlib
import gzip
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import portalocker

from gluon_tricks.data.classes import CIFAR10_CLASSES, classes_text
from gluon_tricks.data.record import RecordWriter
from gluon_tricks.errors import InputError

FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
         "val": ("test_batch.bin",)}
IMAGES = 10_000  # per file
ARCHIVE, SHA1 = "cifar-10-binary.tar.gz", "fab780a1e191a7eda0f345501ccd62d20f7ed891"  # Gluon's
_REPOSITORY = "gluon/dataset/cifar10"
_FOLDER = "cifar-10-batches-bin"  # where the authors' own archive unpacks to
_SIDE = 32
_LENGTH = 1 + 3 * _SIDE * _SIDE  # bytes of a record
_AGAIN = "remove it to have it unpacked from the archive or downloaded again"


def cifar10_records(root: str | Path = "~/.mxnet/datasets/cifar10", *,
                    images: int | None = IMAGES) -> Path:
    """Make ROOT/rec, with train and val as .rec, .idx and .classes.json; `root` then works as
    --data-dir.

    The first call makes it, completely or not at all; other processes wait. The .bin files are
    taken from ROOT, else unpacked from the archive there, else downloaded. `images` is how many
    each must hold; None: any number. Raises InputError if they are unavailable or damaged.
    """
    root = Path(root).expanduser()
    out = root / "rec"
    if not _made(out):
        with _alone(root):
            if not _made(out):
                _make(root, out, images)
    return out


def read_binary(path: Path, images: int | None = IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 RGB and labels (n,) uint8 of a .bin. Raises InputError if its
    length or a label is wrong."""
    data = np.fromfile(path, np.uint8)
    count, rest = divmod(len(data), _LENGTH)
    if rest or not count:
        raise InputError(f"{path} has {len(data)} bytes, not a multiple of {_LENGTH}: {_AGAIN}")
    if images not in (None, count):
        raise InputError(f"{path} has {count} images, not {images}: {_AGAIN}")
    rows = data.reshape(count, _LENGTH)
    labels = rows[:, 0]
    wrong = np.flatnonzero(labels >= len(CIFAR10_CLASSES))
    if len(wrong):
        raise InputError(f"{path}: image {wrong[0]} has the label {labels[wrong[0]]}, "
                         f"but there are {len(CIFAR10_CLASSES)} classes: {_AGAIN}")
    return rows[:, 1:].reshape(count, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), labels


def _made(out: Path) -> bool:
    if not out.exists():
        return False
    for part in FILES:
        for ending in ("rec", "idx"):
            if not (out / f"{part}.{ending}").is_file():
                raise InputError(f"{out} has no {part}.{ending}: remove the folder to have it made "
                                 "again")
    return True


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Lock ROOT: one process at a time."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = portalocker.Lock(root / ".lock", "a", flags=portalocker.LockFlags.EXCLUSIVE)
        lock.acquire()
    except (OSError, portalocker.LockException) as error:
        raise InputError(f"{root} is not writable ({error}) and has no rec/train.rec: choose "
                         "another folder") from error
    try:
        yield
    finally:
        lock.release()


def _make(root: Path, out: Path, images: int | None) -> None:
    """Write all files to a temporary folder, then rename it."""
    binaries = _binaries(root)
    with _aside(root / ".rec.part") as aside:
        for part, names in FILES.items():
            with RecordWriter(aside / part) as writer:
                writer.attach(aside / f"{part}.classes.json", classes_text(CIFAR10_CLASSES))
                key = 0
                for name in names:
                    for image, label in zip(*read_binary(binaries[name], images), strict=True):
                        writer.write(key, float(label), _png(image))
                        key += 1
        os.rename(aside, out)


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A temporary folder, removed at the end, or by the next call if the process was killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def _binaries(root: Path) -> dict[str, Path]:
    """The path of each .bin, after unpacking or downloading those that are missing."""
    names = [name for part in FILES.values() for name in part]
    for place in (root, root / _FOLDER):
        if all((place / name).is_file() for name in names):
            return {name: place / name for name in names}
    missing = {name for name in names if not (root / name).is_file()}
    if not (root / ARCHIVE).is_file():
        _download(root, min(missing))
    _unpack(root, missing)
    return {name: root / name for name in names}


def _download(root: Path, missing: str) -> None:
    from mxnet.gluon.utils import _get_repo_file_url, download  # late: MXNet takes seconds

    try:
        with contextlib.redirect_stdout(sys.stderr):  # it reports its progress
            download(_get_repo_file_url(_REPOSITORY, ARCHIVE), path=str(root), sha1_hash=SHA1)
    except Exception as error:  # from requests; UserWarning if the checksum does not match
        (root / ARCHIVE).unlink(missing_ok=True)  # whatever it is, it is not Gluon's
        raise InputError(f"{root} has no {missing}, and {ARCHIVE} cannot be downloaded "
                         f"({str(error).splitlines()[0][:200]}): put that archive, or its six .bin "
                         "files, there") from error


def _unpack(root: Path, wanted: set[str]) -> None:
    """Unpack some files from the archive, whatever folder they are in."""
    archive = root / ARCHIVE
    with _aside(root / ".unpacked.part") as aside:
        try:
            with gzip.open(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as tar:
                for member in tar:
                    name = member.name.rpartition("/")[2]
                    if member.isfile() and name in wanted:
                        with open(aside / name, "wb") as file:
                            shutil.copyfileobj(tar.extractfile(member), file)
                while unzipped.read(1 << 20):  # at the end gzip compares its checksum
                    pass
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{archive} is damaged ({error}): remove it to have it downloaded "
                             "again") from error
        missing = wanted - {path.name for path in aside.iterdir()}
        if missing:
            raise InputError(f"{archive} has no {min(missing)}: remove it to have CIFAR-10's "
                             "binary version downloaded")
        for name in wanted:
            os.replace(aside / name, root / name)
