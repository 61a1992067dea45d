"""A RecordWriter that resumes after its process was killed.

PREFIX.rec.part and PREFIX.idx.part stay when a run ends early, and the same call resumes after the
last record that the .idx.part lists. Its lines are written after their records are on disk.
PREFIX.prepared.json says what was being written, so that no other call resumes from it.
"""

import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path

from gluon_tricks import files
from gluon_tricks.data.record import RecordWriter, read_frame, record_id, unpack_sample
from gluon_tricks.errors import InputError

_SYNC_EVERY = 64 << 20  # bytes of records, the most that a kill can cost


def fingerprint(lines: Iterable[str]) -> str:
    """A hash of what is to be written."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _state_path(prefix: Path) -> Path:
    return Path(f"{prefix}.prepared.json")


def read_state(prefix: Path) -> dict | None:
    """The content of PREFIX.prepared.json; None if there is no such file."""
    path = _state_path(prefix)
    try:
        state = json.loads(path.read_text())
        if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
            raise ValueError("it has no settings")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): remove it and all other "
                         f"{prefix}.*") from error
    return state


def write_state(prefix: Path, state: dict) -> None:
    files.write_text(_state_path(prefix), json.dumps(state, indent=1) + "\n", sync=True)


def check_same(prefix: Path, state: dict, settings: dict) -> None:
    """Raise InputError, naming the first that differs, if PREFIX was started with other settings.
    """
    for name, value in settings.items():
        there = state["settings"].get(name)
        if there != value:
            what = ("other images, or in another order" if name == "pictures" else
                    f"{name} {_said(there)}, not {_said(value)}")
            raise InputError(f"{prefix}.rec was started with {what}: give the same source and "
                             f"flags, remove {prefix}.*, or choose another folder")


def _said(value: object) -> object:
    return "none" if value is None else value


class ResumableWriter(RecordWriter):
    """Resumes PREFIX.rec.part where a process with the same `settings` stopped.

    `kept` then has the records already written: skip them, in the same order.
    """

    def __init__(self, prefix: Path, settings: dict):
        self._prefix, self._settings = prefix, settings
        state = read_state(prefix)
        self._resumes = state is not None
        if state is not None:
            check_same(prefix, state, settings)
            idx, rec = Path(f"{prefix}.idx"), Path(f"{prefix}.rec")
            if rec.exists() and not idx.exists() and Path(f"{idx}.part").exists():
                os.replace(rec, f"{rec}.part")  # stopped between the last two renames
        super().__init__(prefix)
        self._synced = 0  # bytes of the .rec.part
        self._torn = False  # an exception, from a signal for example, interrupted `_sync`

    def attach(self, path: Path, text: str) -> None:
        if self._resumes:  # a text may already have its final name
            self._texts[path] = text
        else:
            super().attach(path, text)

    def __enter__(self) -> "ResumableWriter":
        super().__enter__()
        try:
            if not self._resumes:
                write_state(self._prefix, {"settings": self._settings})
            self._reader = os.open(f"{self._rec}.part", os.O_RDONLY)
        except BaseException:
            self._discard()
            raise
        self._idx_file, self._files[1] = self._files[1], io.StringIO()
        return self

    def _end_of_kept(self, path: Path) -> int:
        """Where to truncate `path`. Called for the .rec first, when its .part is locked."""
        if not self._resumes or path not in (self._rec, self._idx):
            return 0
        if path == self._rec:
            self._kept_ends = self._find_kept()
        return self._kept_ends[path]

    def _find_kept(self) -> dict[Path, int]:
        """Where the last complete record ends in the .rec.part, and its line in the .idx.part."""
        idx = Path(f"{self._idx}.part")
        text = idx.read_bytes() if idx.exists() else b""
        lines = text[:text.rfind(b"\n") + 1].splitlines(keepends=True)
        end = 0
        with open(f"{self._rec}.part", "rb") as rec:
            while lines:
                try:
                    key, offset = map(int, lines[-1].split())
                    payload, end = read_frame(rec.fileno(), offset)
                    if record_id(payload) != key:
                        raise ValueError
                    break
                except ValueError:
                    lines.pop()
        self._synced = end if lines else 0
        keys, starts = zip(*(map(int, line.split()) for line in lines), strict=True) \
            if lines else ((), ())
        self.kept = dict(zip(keys, itertools.pairwise((*starts, self._synced)), strict=True))
        return {self._rec: self._synced, self._idx: sum(map(len, lines))}

    def read_kept(self, key: int, label: int) -> bytes:
        """A kept record's image. Raises InputError if the record is damaged or a different one."""
        start, end = self.kept[key]
        try:
            payload, next_offset = read_frame(self._reader, start)
            sample = unpack_sample(payload)
            if (record_id(payload), sample.label, next_offset) != (key, label, end):
                raise ValueError("it holds another record")
        except ValueError as error:
            raise InputError(f"{self._rec}.part is damaged at byte {start}: {error}; "
                             f"remove {self._prefix}.*") from error
        return sample.image

    def write(self, key: int, label: float, image: bytes) -> None:
        super().write(key, label, image)
        if self._files[0].tell() - self._synced >= _SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        """Write records first, then their lines; once torn, no more lines, lest one be missing."""
        if self._torn:
            return
        self._torn = True
        rec, lines = self._files
        rec.flush()
        os.fsync(rec.fileno())
        self._idx_file.write(lines.getvalue())
        self._idx_file.flush()
        os.fsync(self._idx_file.fileno())
        self._synced, self._files[1] = rec.tell(), io.StringIO()
        self._torn = False

    def __exit__(self, kind, error, trace) -> None:
        try:
            self._sync()
        except BaseException as fault:
            error = error or fault
            raise
        finally:
            os.close(self._reader)
            self._files[1] = self._idx_file
            super().__exit__(kind, error, trace)

    def _discard(self) -> None:
        """Keep what was written, or nothing if that is empty."""
        part = Path(f"{self._rec}.part")
        if part in self._parts and part.exists() and not part.stat().st_size:
            _state_path(self._prefix).unlink(missing_ok=True)
        else:
            stay = {part, Path(f"{self._idx}.part"), self._rec, self._idx, *self._texts}
            self._parts = [path for path in self._parts if path not in stay]
        super()._discard()
