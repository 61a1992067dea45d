"""Reads a .rec back, record by record: finds damaged records, and rebuilds the .idx."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gluon_tricks import files
from gluon_tricks.data.check import Damage
from gluon_tricks.data.classes import read_classes
from gluon_tricks.data.decode import decode_whole
from gluon_tricks.data.record import (
    open_descriptor,
    read_frame,
    read_index,
    record_id,
    scan,
    unpack_sample,
)
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import InputError


@dataclass
class Report:
    """What `verify` found."""

    records: int
    classes: int = 0  # different labels among the undamaged records
    labels: tuple[int, int] | None = None  # lowest and highest
    damaged: list[Damage] = field(default_factory=list)
    unlisted: int = 0  # bytes of the .rec that belong to no record of the .idx

    @property
    def intact(self) -> bool:
        return not self.damaged and not self.unlisted


def verify(prefix: Path, *, workers: int,
           progress: Callable[[Iterable], Iterable] = iter) -> Report:
    """Read and decode each record that PREFIX.idx lists.

    A record is damaged if none starts at its offset, if it is truncated, if its image does not
    decode or is truncated, or if its label is not an integer from 0 or not among the names in
    PREFIX.classes.json. Changed bytes within a JPEG's data go unnoticed: a JPEG has no checksum.
    Raises InputError if a file is missing or is not a .idx.
    """
    rec, classes_file = Path(f"{prefix}.rec"), Path(f"{prefix}.classes.json")
    keys, offsets = (column.tolist() for column in read_index(f"{prefix}.idx"))
    classes = len(read_classes(classes_file)) if classes_file.is_file() else None
    with open_descriptor(rec) as file:

        def check(offset: int) -> tuple[int, int] | str:
            try:
                payload, next_offset = read_frame(file, offset)
                sample = unpack_sample(payload)
                _check_label(sample.label, classes)
                decode_whole(sample.image)
            except (ValueError, OSError) as error:
                return str(error)
            return int(sample.label), next_offset

        report, labels, ends = Report(len(keys)), set(), {}
        with contextlib.closing(ordered_map(check, offsets, workers)) as results:
            for key, offset, result in zip(keys, offsets, progress(results), strict=True):
                if isinstance(result, str):
                    report.damaged.append(Damage(key, offset, result))
                else:
                    labels.add(result[0])
                    ends[offset] = result[1]
        report.damaged += _overlaps(dict(zip(offsets, keys, strict=True)), ends)
        if not report.damaged:
            listed = sum(end - start for start, end in ends.items())
            report.unlisted = os.fstat(file).st_size - listed
    if labels:
        report.classes, report.labels = len(labels), (min(labels), max(labels))
    return report


def _overlaps(key_at: dict[int, int], ends: dict[int, int]) -> list[Damage]:
    """Records that overlap the next one; `ends` maps starts to ends."""
    starts = sorted(ends)
    return [Damage(key_at[start], start, "it overlaps the next record")
            for start, following in itertools.pairwise(starts)
            if ends[start] > following]


def _check_label(label: float, classes: int | None) -> None:
    if not label >= 0 or label % 1:
        raise ValueError(f"the label {label:g} is not an integer from 0")
    if classes is not None and label >= classes:
        raise ValueError(f"the label {label:g} is beyond the {classes} named classes")


def reindex(prefix: Path) -> int:
    """Rebuild PREFIX.idx from PREFIX.rec; returns the number of records.

    Keys are the ids in the records' headers if they are distinct, else 0, 1, 2, ... Raises
    InputError if PREFIX.idx exists already or the .rec is damaged.
    """
    idx = Path(f"{prefix}.idx")
    if idx.exists():
        raise InputError(f"{idx} already exists: move it away first")
    keys, offsets = [], []
    for offset, payload in scan(f"{prefix}.rec"):
        keys.append(record_id(payload))
        offsets.append(offset)
    if len(set(keys)) < len(keys):
        keys = list(range(len(offsets)))
    files.write_text(idx, "".join(f"{key}\t{offset}\n"
                                  for key, offset in zip(keys, offsets, strict=True)))
    return len(offsets)
