"""RecordIO: images with labels in one .rec file, found through a .idx file of byte offsets.

The format is MXNet's. A record is one frame, or several if its bytes contain the magic number:

    magic u32 | kind (3 bits) and length (29 bits) u32 | bytes, padded to 4 with zeros

    kind 0: a complete record; 1, 2, 3: its first, middle and last part, joined by the magic number.

The bytes of an image's record are a header (flag u32, label f32, id u64, id2 u64), then, if flag is
not 0, `flag` labels f32, then the encoded image. All numbers are little-endian.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gluon_tricks.data.classes import read_classes
from gluon_tricks.errors import InputError

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_START = np.dtype([("magic", "<u4"), ("kind_and_length", "<u4"), ("flag", "<u4"),
                   ("label", "<f4"), ("id", "<u8"), ("id2", "<u8"), ("first_label", "<f4")])
_STARTS_WITH = struct.Struct("<III").unpack_from  # _START's magic, kind and length, flag
_MAX_LENGTH = 1 << 29
_LENGTH = _MAX_LENGTH - 1  # the bits that hold it
MAX_LABEL = 1 << 24  # integers below it are exact in float32
_MISSING = "is missing: give the path of a .rec file (scripts/im2rec.py writes one)"


def frame(payload: bytes) -> bytes:
    """One record as stored in the file, split where `payload` contains the magic number."""
    if len(payload) >= _MAX_LENGTH:
        raise ValueError(f"a record of {len(payload)} bytes: RecordIO needs less than 512 MiB")
    cuts = []
    found = payload.find(_MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:  # readers look for it at multiples of four only
            cuts.append(found)
        found = payload.find(_MAGIC_BYTES, found + (4 if found % 4 == 0 else 1))
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)]
    parts = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        kind = 0 if not cuts else 1 if i == 0 else 3 if i == len(cuts) else 2
        parts += [_FRAME.pack(MAGIC, kind << 29 | end - start), payload[start:end],
                  b"\0" * (-(end - start) % 4)]
    return b"".join(parts)


def read_frame(file: int, offset: int) -> tuple[bytes, int]:
    """The record at byte `offset` of an open file descriptor, and the offset of its end.

    Raises ValueError, saying why, if there is no complete record.
    """
    parts = []
    while True:
        head = os.pread(file, 8, offset)
        if len(head) < 8:
            raise ValueError("the file ends here")
        magic, word = _FRAME.unpack(head)
        if magic != MAGIC:
            raise ValueError("no record starts here")
        kind, length = word >> 29, word & _LENGTH
        if kind not in ((2, 3) if parts else (0, 1)):
            raise ValueError("a part of a record is missing here")
        padded = length + -length % 4
        part = os.pread(file, padded, offset + 8)
        if len(part) < padded:
            raise ValueError(f"the file ends {padded - len(part)} bytes before the record does")
        parts.append(part[:length])
        offset += 8 + len(part)
        if kind in (0, 3):
            return _MAGIC_BYTES.join(parts), offset


class Sample(NamedTuple):
    """The content of a record."""

    label: float
    image: bytes  # encoded


def pack_sample(label: float, key: int, image: bytes) -> bytes:
    """The bytes of a record with one label."""
    return _HEADER.pack(0, label, key, 0) + image


def unpack_sample(payload: bytes) -> Sample:
    """Parse a record. Raises ValueError if it is too short or does not have exactly one label."""
    if len(payload) < _HEADER.size:
        raise ValueError(f"a record of {len(payload)} bytes is too short for a header")
    flag, label, _, _ = _HEADER.unpack_from(payload)
    if flag > 1:
        raise ValueError(f"the record has {flag} labels, not one")
    if flag == 1:
        if len(payload) < _HEADER.size + 4:
            raise ValueError("the record ends before its label")
        label, = struct.unpack_from("<f", payload, _HEADER.size)
    return Sample(label, payload[_HEADER.size + 4 * flag:])


def record_id(payload: bytes) -> int:
    """The id in a record's header, which im2rec sets to the key; 0 without a header."""
    return _HEADER.unpack_from(payload)[2] if len(payload) >= _HEADER.size else 0


class RecordWriter:
    """Writes PREFIX.rec, PREFIX.idx and attached text files.

    They appear, complete, only when the `with` block succeeds, the .idx last; otherwise none does.
    Raises InputError if one of them exists already or another process is writing them.
    """

    def __init__(self, prefix: str | Path):
        self._rec, self._idx = Path(f"{prefix}.rec"), Path(f"{prefix}.idx")
        self._texts: dict[Path, str] = {}
        self._parts: list[Path] = []
        self.kept: dict[int, tuple[int, int]] = {}  # start and end of kept records, by key
        self._refuse_existing(self._rec, self._idx)

    @staticmethod
    def _refuse_existing(*paths: Path) -> None:
        for path in paths:
            if path.exists():
                raise InputError(f"{path} already exists: remove it or choose another prefix")

    def attach(self, path: Path, text: str) -> None:
        """Add a text file that appears together with the .rec."""
        self._refuse_existing(path)
        self._texts[path] = text

    def __enter__(self) -> "RecordWriter":
        try:
            self._rec.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{self._rec.parent} is not a folder: choose another "
                             "prefix") from error
        try:
            self._files = [self._open_part(self._rec, "ab"), self._open_part(self._idx, "a")]
        except BaseException:  # a signal, say
            self._discard()
            raise
        return self

    def _open_part(self, path: Path, mode: str) -> IO:
        """Open for appending, lock, truncate: reuses what a killed process left."""
        part = path.with_name(f"{path.name}.part")
        self._parts.append(part)
        file = open(part, mode)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                raise FileNotFoundError  # the other process has just renamed it
        except (BlockingIOError, FileNotFoundError) as error:
            self._parts.remove(part)  # it belongs to the other process
            file.close()
            raise InputError(f"{part} is being written by another process: let it finish, or "
                             "choose another prefix") from error
        file.truncate(file.seek(self._end_of_kept(path)))
        return file

    def _end_of_kept(self, path: Path) -> int:
        return 0  # prepare/resumable.py keeps more

    def _discard(self) -> None:
        for path in self._parts:
            path.unlink(missing_ok=True)

    def write(self, key: int, label: float, image: bytes) -> None:
        """Append one record; `key` identifies it in the .idx."""
        rec, idx = self._files
        idx.write(f"{key}\t{rec.tell()}\n")
        rec.write(frame(pack_sample(label, key, image)))

    def __exit__(self, kind, error, trace) -> None:
        try:
            for file in self._files:
                file.close()
            if error is None:
                self._show()
        finally:
            self._discard()

    def _show(self) -> None:
        """Give all files their final names, the .idx last, or none of them."""
        for path, text in self._texts.items():
            with self._open_part(path, "a") as file:
                file.write(text)
        finals = [*self._texts, self._rec, self._idx]
        self._parts += finals
        for path in finals:
            os.replace(path.with_name(f"{path.name}.part"), path)
        self._parts.clear()


def read_index(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Keys and byte offsets of a .idx, both (records,) int64, in the file's order."""
    try:
        numbers = np.array(Path(path).read_text().split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} is not a .idx file (lines of key, tab, byte offset): {error}; "
                         "rebuild it with scripts/im2rec.py --reindex") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: rebuild it from its .rec with "
                         "scripts/im2rec.py --reindex") from error
    if len(numbers) % 2:
        raise InputError(f"{path} ends in the middle of a line: rebuild it with "
                         "scripts/im2rec.py --reindex")
    if len(numbers) == 0:
        raise InputError(f"{path} lists no records: pack some images with scripts/im2rec.py")
    return numbers[0::2], numbers[1::2]


def scan(rec: str | Path) -> Iterator[tuple[int, bytes]]:
    """Every record's offset and bytes, from the start of the .rec, without a .idx.

    Raises InputError at the first place without a complete record.
    """
    with open_descriptor(rec) as file:
        offset, size = 0, os.fstat(file).st_size
        while offset < size:
            try:
                payload, next_offset = read_frame(file, offset)
            except ValueError as error:
                raise InputError(f"{rec} is damaged at byte {offset}: {error}") from error
            yield offset, payload
            offset = next_offset


@contextlib.contextmanager
def open_descriptor(path: str | Path) -> Iterator[int]:
    """Open a file descriptor for reading. Raises InputError if the file is missing."""
    try:
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} {_MISSING}") from error
    try:
        yield file
    finally:
        os.close(file)


class RecordSet:
    """A .rec with its .idx, both checked: every record's start is read when the set is opened.

    keys, offsets, labels, lengths: (records,) int64, in the order of the .idx; a length is that
    of the record's bytes in the file, -1 if they are in several parts. Raises InputError, naming
    the file and the record, if a file is missing, the .rec is truncated, the two do not belong
    together, or a label is not a class number.
    """

    def __init__(self, rec: str | Path, idx: str | Path | None = None):
        self.path = Path(rec)
        self.idx_path = Path(idx) if idx else self.path.with_suffix(".idx")
        if not self.path.is_file():
            raise InputError(f"{self.path} {_MISSING}")
        self.keys, self.offsets = read_index(self.idx_path)
        self._file = os.open(self.path, os.O_RDONLY)
        try:
            starts = self._read_starts()
            self._check_layout(starts)
            self.labels = self._check_labels(starts)
            kind, length = starts["kind_and_length"] >> 29, starts["kind_and_length"] & _LENGTH
            self.lengths = np.where(kind == 0, length, -1).astype(np.int64)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.keys)

    def __enter__(self) -> "RecordSet":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def name(self, index: int) -> str:
        """A record's name in messages."""
        return (f"{self.path}, the record with key {self.keys[index]} "
                f"at byte {self.offsets[index]}")

    def fileno(self) -> int:
        """The open .rec's file descriptor; use only positioned reads (pread)."""
        if self._file is not None:
            return self._file
        raise InputError(f"{self.path} was closed while it was in use")

    def read(self, index: int) -> bytes:
        """The encoded image of record `index`. Thread-safe."""
        try:
            return unpack_sample(read_frame(self.fileno(), int(self.offsets[index]))[0]).image
        except ValueError as error:
            raise InputError(f"{self.name(index)}: {error}; "
                             "scripts/im2rec.py --verify lists what is damaged") from error

    def read_ends(self, index: int, first: int, last: int) -> tuple[int, bytes, bytes]:
        """The length of record `index`'s image, its first `first` bytes and its last `last`; all of
        it for either if it is shorter. Thread-safe."""
        offset = int(self.offsets[index])
        start = os.pread(self.fileno(), _START.itemsize + first, offset)
        if len(start) >= _START.itemsize:
            magic, word, flag = _STARTS_WITH(start)
            before = 8 + _HEADER.size + 4 * flag  # bytes of the record before its image
            size = 8 + word - before  # of the image, if the record has one part (kind 0)
            if magic == MAGIC and word < _MAX_LENGTH and flag <= 1 and size >= 0:
                head = start[before:before + min(first, size)]
                if size <= first:
                    return size, head, head[-last:]
                return size, head, os.pread(self._file, last, offset + before + size - last)
        image = self.read(index)
        return len(image), image[:first], image[-last:]

    def class_names(self) -> list[str] | None:
        """The names in the .classes.json next to the .rec; None if there is no such file."""
        path = self.path.with_suffix(".classes.json")
        return read_classes(path) if path.is_file() else None

    def class_count(self) -> int:
        """The number of names in the .classes.json next to the .rec, else the highest label + 1."""
        highest = int(self.labels.max()) + 1
        names = self.class_names()
        if names is None:
            return highest
        if highest > len(names):
            raise InputError(f"{self.path.with_suffix('.classes.json')} names {len(names)} "
                             f"classes, {self.path} has the label {highest - 1}: pack the "
                             "images again")
        return len(names)

    def _read_starts(self) -> np.ndarray:
        def read(offsets: np.ndarray) -> bytes:
            return b"".join(os.pread(self._file, _START.itemsize, offset)
                            .ljust(_START.itemsize, b"\0") for offset in offsets.tolist())

        if self.offsets.min() < 0:
            raise self._mismatch(int(self.offsets.argmin()), "the offset is negative")
        if self.offsets.max() >= 1 << 62:  # more than the system accepts
            raise self._mismatch(int(self.offsets.argmax()), "no file is that long")
        chunks = np.array_split(self.offsets, -(-len(self) // 4096))
        with ThreadPoolExecutor(8) as pool:  # a cold disk serves several reads at once
            return np.frombuffer(b"".join(pool.map(read, chunks)), _START)

    def _mismatch(self, index: int, why: str) -> InputError:
        return InputError(f"{self.idx_path} does not match {self.path}: key {self.keys[index]} "
                          f"says byte {self.offsets[index]}, but {why}; rebuild it with "
                          "scripts/im2rec.py --reindex")

    def _check_layout(self, starts: np.ndarray) -> None:
        """Check that the records, in some order, fill the .rec from first byte to last."""
        size = os.fstat(self._file).st_size
        inside = self.offsets < size
        wrong = np.flatnonzero(inside & (starts["magic"] != MAGIC))
        if len(wrong):
            raise self._mismatch(wrong[0], "no record starts there")
        length = (starts["kind_and_length"] & _LENGTH).astype(np.int64)
        ends = self.offsets + 8 + length + -length % 4
        order = np.argsort(self.offsets)
        for index in np.flatnonzero(inside & (starts["kind_and_length"] >> 29 != 0)):
            try:
                ends[index] = read_frame(self._file, int(self.offsets[index]))[1]
            except ValueError:  # its further parts are missing
                ends[index] = size + 1
        last = order[-1]
        if not inside.all() or ends[last] > size:
            raise InputError(f"{self.path} is truncated: by {self.idx_path} it should have at "
                             f"least {max(ends[last], self.offsets[last] + 8)} bytes, but it "
                             f"has {size}; copy or pack it again")
        expected = np.concatenate([[0], ends[order][:-1]])
        gaps = np.flatnonzero(self.offsets[order] != expected)
        if len(gaps) or ends[last] != size:
            index = order[gaps[0]] if len(gaps) else last
            where = expected[gaps[0]] if len(gaps) else ends[last]
            raise self._mismatch(index, f"the record at byte {where} is not listed")

    def _check_labels(self, starts: np.ndarray) -> np.ndarray:
        labels = np.where(starts["flag"] == 1, starts["first_label"], starts["label"])
        wrong = np.flatnonzero((starts["flag"] > 1) | ~((labels >= 0) & (labels < MAX_LABEL))
                               | (np.floor(labels) != labels))
        if len(wrong):
            index = wrong[0]
            found = (f"{starts['flag'][index]} labels" if starts["flag"][index] > 1
                     else f"the label {labels[index]:g}")
            raise InputError(f"{self.name(index)}, has {found}: a record for classification has "
                             "one, an integer from 0")
        return labels.astype(np.int64)
