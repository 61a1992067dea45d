"""Pictures stored so that the native decoder reads only what a crop needs.

A JPEG is transcoded, without loss, to segments between restart markers, with an index of their
lengths in a marker of its own (gluon_tricks/_native/transcode.h says its layout). It stays a JPEG
that any reader takes.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from gluon_tricks.data import native
from gluon_tricks.data.decode import decode_whole
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import InputError, RunFault

_INDEX = b"GLUONTRICKS\0"
_HEADER = 1 << 20  # bytes; an index behind more than that is not worth finding


class Transcoded(NamedTuple):
    """What `transcode_records` did."""

    records: int  # written
    classes: int
    other: int  # among them: not seekable, stored as they were
    damaged: list[str]  # left out


def _quiet(results: Iterable, total: int) -> Iterable:
    return results


def is_seekable(picture: bytes) -> bool:
    """Whether the bytes are a JPEG with an index of its segments."""
    return picture[:2] == b"\xff\xd8" and picture.find(_INDEX, 0, _HEADER) >= 0


def seekable(picture: bytes) -> bytes:
    """A JPEG transcoded, its pixels and its APPn and COM markers unchanged.

    A progressive JPEG becomes a sequential one. Other formats, and JPEGs that libjpeg reads only
    with a warning or cannot rewrite, stay as they are: a transcode would hide what is wrong with
    them. Raises InputError where the native decoder is missing.
    """
    core = native.core()
    if picture[:2] != b"\xff\xd8":
        return picture
    try:
        return core.transcode(picture)
    except ValueError:
        return picture


def transcode_records(source: Path, prefix: Path, *, workers: int, skip_damaged: bool = False,
                      progress: Callable[[Iterable, int], Iterable] = _quiet) -> Transcoded:
    """Write the records of SOURCE.rec, found through its .idx, made seekable, to PREFIX.rec.

    Their order, keys and labels are kept, and so are SOURCE.lst and SOURCE.classes.json where they
    are there. Raises InputError where an output is there already, a file is missing, the native
    decoder is, or, unless `skip_damaged`, at the first damaged record, and RunFault where the disk
    refuses to read; then nothing is written.
    `progress` wraps the results, of which there are so many, in a progress bar.
    """
    native.core()
    with RecordSet(source) as records:

        def load(index: int) -> bytes | str:
            try:
                picture = records.read(index)
                decode_whole(picture)
                return seekable(picture)
            except InputError as error:  # it names the record
                return str(error)
            except ValueError as error:
                return f"{records.name(index)}: {error}"
            except OSError as error:  # the disk's fault: nothing to leave a record out for
                raise RunFault(f"{records.name(index)}: {error.strerror or error}") from error

        classes, count = records.class_count(), len(records)
        other, damaged, left_out = 0, [], set()
        with (RecordWriter(prefix) as writer,
              contextlib.closing(ordered_map(load, range(count), workers)) as results):
            beside = _attach_beside(source, prefix, writer)
            for index, picture in enumerate(progress(results, count)):
                key = int(records.keys[index])
                if isinstance(picture, str):
                    if not skip_damaged:
                        raise InputError(f"{picture}; leave it out with --skip-damaged")
                    damaged.append(picture)
                    left_out.add(str(key))
                    continue
                other += not is_seekable(picture)
                writer.write(key, float(records.labels[index]), picture)
            if len(damaged) == count:
                raise InputError(f"{source}: all {count} records are damaged: copy or pack it "
                                 "again")
            if beside is not None:
                writer.attach(Path(f"{prefix}.lst"), "".join(
                    line for line in beside.splitlines(keepends=True)
                    if line.partition("\t")[0] not in left_out))
    return Transcoded(count - len(damaged), classes, other, damaged)


def _attach_beside(source: Path, prefix: Path, writer: RecordWriter) -> str | None:
    """Let what stands beside the source appear with the output; returns the .lst's text."""
    classes, listing = source.with_suffix(".classes.json"), source.with_suffix(".lst")
    try:
        if classes.is_file():
            writer.attach(Path(f"{prefix}.classes.json"), classes.read_text())
        if listing.is_file():
            text = listing.read_text()
            writer.attach(Path(f"{prefix}.lst"), text)  # refused now if it is there
            return text
    except UnicodeDecodeError as error:
        raise InputError(f"{source} has a .lst or .classes.json beside it that is no text "
                         f"({error}): move it away") from error
    return None
