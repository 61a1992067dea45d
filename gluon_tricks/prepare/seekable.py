"""Stores images so that the native decoder reads only what a crop needs.

A JPEG is transcoded, without loss, to segments between restart markers, with an index of their
lengths in a marker of its own (layout: gluon_tricks/_native/transcode.h). It stays a JPEG that any
reader accepts.
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
_HEADER = 1 << 20  # bytes; an index beyond that is not searched for


class Transcoded(NamedTuple):
    """What `transcode_records` did."""

    records: int  # written
    classes: int
    other: int  # of these: not seekable, stored as they were
    damaged: list[str]  # skipped


def _quiet(results: Iterable, total: int) -> Iterable:
    return results


def is_seekable(image: bytes) -> bool:
    """Whether the bytes are a JPEG with an index of its segments."""
    return image[:2] == b"\xff\xd8" and image.find(_INDEX, 0, _HEADER) >= 0


def seekable(image: bytes) -> bytes:
    """Transcode a JPEG, with its pixels and its APPn and COM markers unchanged.

    A progressive JPEG becomes a sequential one. Other formats, and JPEGs that libjpeg reads only
    with a warning or cannot rewrite, are returned unchanged: transcoding would hide what is wrong
    with them. Raises InputError if the native decoder is missing.
    """
    core = native.core()
    if image[:2] != b"\xff\xd8":
        return image
    try:
        return core.transcode(image)
    except ValueError:
        return image


def transcode_records(source: Path, prefix: Path, *, workers: int, skip_damaged: bool = False,
                      progress: Callable[[Iterable, int], Iterable] = _quiet) -> Transcoded:
    """Write the records of SOURCE.rec, found through its .idx, to PREFIX.rec, made seekable.

    Their order, keys and labels are kept, and so are SOURCE.lst and SOURCE.classes.json if they
    exist. Raises InputError if an output exists already, if a file or the native decoder is
    missing, or, unless `skip_damaged`, at the first damaged record, and RunFault if the disk fails
    to read; then nothing is written. `progress` wraps the results, given their number, in a
    progress bar.
    """
    native.core()
    with RecordSet(source) as records:

        def load(index: int) -> bytes | str:
            try:
                image = records.read(index)
                decode_whole(image)
                return seekable(image)
            except InputError as error:  # it names the record
                return str(error)
            except ValueError as error:
                return f"{records.name(index)}: {error}"
            except OSError as error:  # the disk's fault: no reason to skip a record
                raise RunFault(f"{records.name(index)}: {error.strerror or error}") from error

        classes, count = records.class_count(), len(records)
        other, damaged, left_out = 0, [], set()
        with (RecordWriter(prefix) as writer,
              contextlib.closing(ordered_map(load, range(count), workers)) as results):
            lst = _attach_files(source, prefix, writer)
            for index, image in enumerate(progress(results, count)):
                key = int(records.keys[index])
                if isinstance(image, str):
                    if not skip_damaged:
                        raise InputError(f"{image}; skip it with --skip-damaged")
                    damaged.append(image)
                    left_out.add(str(key))
                    continue
                other += not is_seekable(image)
                writer.write(key, float(records.labels[index]), image)
            if len(damaged) == count:
                raise InputError(f"{source}: all {count} records are damaged: copy or pack it "
                                 "again")
            if lst is not None:
                writer.attach(Path(f"{prefix}.lst"), "".join(
                    line for line in lst.splitlines(keepends=True)
                    if line.partition("\t")[0] not in left_out))
    return Transcoded(count - len(damaged), classes, other, damaged)


def _attach_files(source: Path, prefix: Path, writer: RecordWriter) -> str | None:
    """Copy the source's .classes.json and .lst along with the output; returns the .lst's text."""
    classes, listing = source.with_suffix(".classes.json"), source.with_suffix(".lst")
    try:
        if classes.is_file():
            writer.attach(Path(f"{prefix}.classes.json"), classes.read_text())
        if listing.is_file():
            text = listing.read_text()
            writer.attach(Path(f"{prefix}.lst"), text)  # refused now if it exists
            return text
    except UnicodeDecodeError as error:
        raise InputError(f"the .lst or .classes.json next to {source} is not text "
                         f"({error}): move it away") from error
    return None
