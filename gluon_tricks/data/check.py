"""A quick look at every record of a set before training: what surely cannot be decoded."""

import contextlib
import hashlib
from typing import NamedTuple

from gluon_tricks.data.decode import check_size, check_whole, decode, webp_length
from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.header import Header, ShortHeader, read_header
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import RunFault

_FIRST, _LAST = 4096, 64  # bytes that are read of a picture's start and end
_CHUNK = 1024  # records that a thread checks at a time


class Damage(NamedTuple):
    """A record that cannot be used."""

    key: int | str  # of a picture in a folder, its path there
    offset: int
    reason: str


def quick_check(records: ImageSet, workers: int) -> list[tuple[int, Damage]]:
    """The records whose picture `decode_whole` would surely refuse, with their indices, in order.

    Found by the start and the end of each picture, without decoding: no picture at all or one of
    another format, a damaged header, more than MAX_PIXELS pixels, a JPEG, PNG or WebP that is cut
    short. (A BMP says so only when it is decoded, which is as quick.) What is damaged between start
    and end goes unnoticed; scripts/im2rec.py --verify decodes everything.
    Raises RunFault, naming the record, where the disk refuses to read.
    """
    def check(start: int) -> list[tuple[int, Damage]]:
        found = []
        for index in range(start, min(start + _CHUNK, len(records))):
            try:
                _check_record(records, index)
            except OSError as error:  # the disk's fault: nothing to leave a record out for
                raise RunFault(f"{records.name(index)}: {error.strerror or error}") from error
            except ValueError as error:
                # What RecordSet.read raises names the record; its cause gives the bare reason.
                found.append((index, Damage(records.keys[index], int(records.offsets[index]),
                                            str(error.__cause__ or error))))
        return found

    with contextlib.closing(ordered_map(check, range(0, len(records), _CHUNK), workers)) as chunks:
        return [damage for chunk in chunks for damage in chunk]


def fingerprint(records: ImageSet) -> str:
    """A hash of a set's .idx, or its files' names and sizes, and labels: the same for the same
    records in the same order."""
    numbers = [records.offsets, records.lengths, records.labels]
    if isinstance(records, FolderSet):
        parts = ["\0".join(records.keys).encode()]
    else:
        parts, numbers = [], [records.keys, *numbers]
    parts += [each.astype("<i8").tobytes() for each in numbers]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _check_record(records: ImageSet, index: int) -> None:
    """Raises ValueError where the record's picture cannot be decoded."""
    first = _FIRST
    while True:
        size, head, tail = records.read_ends(index, first, _LAST)
        if not size:
            raise ValueError("its picture is empty: it has no bytes")
        try:
            header = read_header(head)
            break
        except ShortHeader:
            if size <= first:
                raise
            first *= 16  # a preview or a colour profile stands in the header
    check_size(header)
    if not _ends_well(header, head, size, tail):
        picture = records.read(index)  # other bytes may follow the end
        check_whole(header, picture)
        if header.kind == "BMP":
            decode(picture)


def _ends_well(header: Header, head: bytes, size: int, tail: bytes) -> bool:
    """Whether start and end say already that the picture is whole."""
    if header.kind == "JPEG":
        return tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")
    if header.kind == "WebP":
        return webp_length(head) <= size
    return header.kind == "PNG" and b"IEND" in tail
