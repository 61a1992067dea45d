"""Checkpoints: folders that appear complete or not at all, checked before anything is used.

    RUN/checkpoints/000007/
        model.params      the network's parameters and statistics, by structural name
        optimizer.params  the optimizer's arrays, by parameter and number
        average.params    the averaged weights, with --ema
        state.json        position, scores, loss scale, settings, versions
        SHA256SUMS        the checksums of all these, as `sha256sum -c` reads them

Arrays are MXNet's .params files, everything else JSON: nothing in a checkpoint can run code. A
folder is written under another name, synced and renamed, and numbers only increase: a run resumes
from the newest complete one, whenever it was killed.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx

import gluon_tricks
from gluon_tricks import files
from gluon_tricks.errors import InputError
from gluon_tricks.models.params_file import read_parameters, write_arrays
from gluon_tricks.runs.progress import from_format_1

FORMAT = 2  # 1 had a classifier's sums and scores as lists; it is still read
SUMS, STATE = "SHA256SUMS", "state.json"


class Checkpoint(NamedTuple):
    """The contents of a checkpoint."""

    arrays: dict[str, dict[str, mx.nd.NDArray]]  # "model", "optimizer", "average"
    state: dict[str, Any]
    path: Path | None = None  # its folder, if it was read


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint as the newest of the run `folder`, then delete all but the `keep` newest.

    Raises OSError if it could not be written; the older ones are then left as they are.
    """
    store = folder / "checkpoints"
    store.mkdir(exist_ok=True)
    number = max(map(int, (path.name for path in _numbered(store))), default=0) + 1
    aside, final = store / f".{number:06d}.part", store / f"{number:06d}"
    for path in store.iterdir():  # leftovers of a save or a deletion that was killed
        if re.fullmatch(r"\.\d+\.(part|gone)", path.name):
            shutil.rmtree(path, ignore_errors=True)
    try:
        aside.mkdir()
        for name, arrays in checkpoint.arrays.items():
            if arrays:  # an optimizer may have none
                write_arrays(aside / f"{name}.params", arrays)
        _write(aside / STATE, json.dumps({"format": FORMAT, **checkpoint.state}, indent=1))
        _write(aside / SUMS, "".join(f"{files.sha256(path)}  {path.name}\n"
                                     for path in sorted(aside.iterdir())))
        for path in (*aside.iterdir(), aside):
            _sync(path)
        os.replace(aside, final)
        _sync(store)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for old in _numbered(store)[:-keep]:
        _discard(old)
    return final


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest complete checkpoint of a run's folder, and why newer ones were skipped."""
    refused = []
    for path in reversed(_numbered(folder / "checkpoints")):
        try:
            return read(path), refused
        except InputError as error:
            refused.append(str(error))
    return None, refused


def peek(path: Path) -> Checkpoint | None:
    """A checkpoint, or the newest of a run's folder, without its arrays and unchecked; None if
    there is none."""
    store = path / "checkpoints"
    for folder in reversed(_numbered(store)) if store.is_dir() else [path]:
        with contextlib.suppress(InputError, OSError):
            return Checkpoint({}, _state(folder / STATE), folder)
    return None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint's folder. Raises InputError, naming the file, if it is not complete."""
    try:
        return _read(path)
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read ({error.strerror}): use "
                         "another checkpoint") from error


def _read(path: Path) -> Checkpoint:
    sums = _sums(path)
    for name, wanted in sums.items():
        file = path / name
        if not file.is_file():
            raise InputError(f"{file} is missing: this checkpoint is not complete, use another")
        if files.sha256(file) != wanted:
            raise InputError(f"{file} is not what was saved (its SHA-256 differs): use another "
                             "checkpoint")
    state = _state(path / STATE)
    return Checkpoint({name.removesuffix(".params"): read_parameters(path / name)
                       for name in sums if name.endswith(".params")}, state, path)


def _state(path: Path) -> dict[str, Any]:
    """The content of a state.json, checked and in the current format. Raises InputError."""
    try:
        state = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: use another checkpoint") from error
    if not isinstance(state, dict) or state.get("format") not in (1, FORMAT):
        found = state.get("format") if isinstance(state, dict) else None
        raise InputError(f"{path} has format {found}, but this version reads 1 to {FORMAT}: resume "
                         "with the version that wrote it")
    for part in ("progress", "settings", "logs"):
        if not isinstance(state.get(part), dict):
            raise InputError(f"{path} lacks {part}: use another checkpoint")
    if not all(type(length) is int and length >= 0 for length in state["logs"].values()):
        raise InputError(f"{path}: the logs' lengths are not lengths: use another checkpoint")
    return state if state["format"] == FORMAT else _upgraded(path, state)


def _upgraded(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """A state of format 1, converted to format 2."""
    try:
        return {**state, "format": FORMAT, "progress": from_format_1(state["progress"])}
    except ValueError as error:
        raise InputError(f"{path}: {error}: use another checkpoint") from error


def _sums(path: Path) -> dict[str, str]:
    """The SHA-256 that SHA256SUMS gives, by file name. Raises InputError."""
    if not (path / SUMS).is_file():
        raise InputError(f"{path / SUMS} is missing: {path} is not a complete checkpoint")
    lines = [line.split("  ") for line in (path / SUMS).read_text(errors="replace").splitlines()]
    if not all(len(line) == 2 and Path(line[1]).name == line[1] for line in lines):
        raise InputError(f"{path / SUMS} is not a list of checksums: use another checkpoint")
    sums = {name: wanted for wanted, name in lines}
    extra = {file.name for file in path.iterdir()} - {*sums, SUMS}
    if extra or not {STATE, "model.params"} <= sums.keys():
        raise InputError(f"{path} does not hold what its {SUMS} lists: use another checkpoint")
    return sums


def _numbered(store: Path) -> list[Path]:
    """The checkpoints' folders, oldest first."""
    return sorted((path for path in store.glob("[0-9]*") if path.name.isdecimal()),
                  key=lambda path: int(path.name))


def _discard(path: Path) -> None:
    """Delete a folder such that a half-deleted one is never mistaken for a checkpoint."""
    hidden = path.with_name(f".{path.name}.gone")
    try:
        os.replace(path, hidden)
    except OSError:
        return  # it stays complete; the next save tries again
    shutil.rmtree(hidden, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def versions() -> dict[str, str]:
    """The versions to record in a checkpoint, by package."""
    return {"gluon_tricks": gluon_tricks.__version__, "mxnet": mx.__version__}


def describe_position(state: dict[str, Any]) -> str:
    """Where in a run a checkpoint was saved, as text for people."""
    progress = state["progress"]
    return f"epoch {progress['epoch'] + 1}, batch {progress['step']}"
