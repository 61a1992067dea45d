"""A quick check of every record before training: find those that surely cannot be decoded."""

import contextlib
import hashlib
from typing import NamedTuple

from gluon_tricks.data.decode import check_size, check_whole, decode, webp_length
from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.header import Header, ShortHeader, read_header
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import RunFault

_FIRST, _LAST = 4096, 64  # bytes read at an image's start and end
_CHUNK = 1024  # records a thread checks at a time


class Damage(NamedTuple):
    """A record that cannot be used."""

    key: int | str  # for an image in a folder, its path relative to it
    offset: int
    reason: str


def quick_check(records: ImageSet, workers: int) -> list[tuple[int, Damage]]:
    """The records whose image `decode_whole` would surely refuse, with their indices, in order.

    Looks at the start and end of each image, without decoding, for: no image or one of another
    format, a damaged header, more than MAX_PIXELS pixels, a truncated JPEG, PNG or WebP. (A BMP has
    to be decoded, which is as quick.) Damage between start and end goes unnoticed;
    scripts/im2rec.py --verify decodes everything. Raises RunFault, naming the record, if the disk
    fails to read.
    """
    def check(start: int) -> list[tuple[int, Damage]]:
        found = []
        for index in range(start, min(start + _CHUNK, len(records))):
            try:
                _check_record(records, index)
            except OSError as error:  # the disk's fault: no reason to skip a record
                raise RunFault(f"{records.name(index)}: {error.strerror or error}") from error
            except ValueError as error:
                # RecordSet.read's error names the record; its cause is the bare reason.
                found.append((index, Damage(records.keys[index], int(records.offsets[index]),
                                            str(error.__cause__ or error))))
        return found

    with contextlib.closing(ordered_map(check, range(0, len(records), _CHUNK), workers)) as chunks:
        return [damage for chunk in chunks for damage in chunk]


def fingerprint(records: ImageSet) -> str:
    """A hash of a set's .idx (or its file names and sizes) and labels: the same for the same
    records in the same order."""
    numbers = [records.offsets, records.lengths, records.labels]
    if isinstance(records, FolderSet):
        parts = ["\0".join(records.keys).encode()]
    else:
        parts, numbers = [], [records.keys, *numbers]
    parts += [each.astype("<i8").tobytes() for each in numbers]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _check_record(records: ImageSet, index: int) -> None:
    """Raise ValueError if the record's image surely cannot be decoded."""
    first = _FIRST
    while True:
        size, head, tail = records.read_ends(index, first, _LAST)
        if not size:
            raise ValueError("its image is empty (0 bytes)")
        try:
            header = read_header(head)
            break
        except ShortHeader:
            if size <= first:
                raise
            first *= 16  # the header holds a preview or a color profile
    check_size(header)
    if not _ends_well(header, head, size, tail):
        encoded = records.read(index)  # other bytes may follow the end
        check_whole(header, encoded)
        if header.kind == "BMP":
            decode(encoded)


def _ends_well(header: Header, head: bytes, size: int, tail: bytes) -> bool:
    """Whether start and end already show that the image is complete."""
    if header.kind == "JPEG":
        return tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")
    if header.kind == "WebP":
        return webp_length(head) <= size
    return header.kind == "PNG" and b"IEND" in tail
