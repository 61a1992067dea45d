"""Decides how to resume a run: from which checkpoint, in which folder, and if the settings agree.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gluon_tricks.config.fields import flag_name, named
from gluon_tricks.config.settings import RunSettings
from gluon_tricks.errors import InputError
from gluon_tricks.runs import checkpoint
from gluon_tricks.runs.checkpoint import Checkpoint
from gluon_tricks.runs.progress import Progress, is_due
from gluon_tricks.runs.runlog import make_folder, new_run_folder


class ResumePoint(NamedTuple):
    """Where a run begins or resumes."""

    folder: Path
    checkpoint: Checkpoint | None  # None: at the very start
    notes: list[str]  # for the log


def find(settings: RunSettings) -> ResumePoint:
    """Make the run folder, and find the checkpoint to resume from, as --resume says.

    Raises InputError if there is no such checkpoint, or the folder is not a run's.
    """
    if settings.resume is None:
        return ResumePoint(new_run_folder(settings.save_dir, settings.run_name), None, [])
    given = settings.save_dir and Path(settings.save_dir).expanduser()
    if settings.resume == "auto":
        make_folder(given)
        found, refused = checkpoint.newest(given)
        if found is None and refused:  # starting over would overwrite what is left of the run
            raise InputError(f"--save-dir {given} has no complete checkpoint: {'; '.join(refused)}")
        begun = {path.name for path in given.iterdir()} - {".lock"}
        if found is None and begun and "config.json" not in begun:
            raise InputError(f"--save-dir {given} holds files, but no run to resume: choose "
                             "another")
        return ResumePoint(given, found, _skipped(refused))
    path = Path(settings.resume).expanduser().resolve()
    if not path.is_dir():
        raise InputError(f"--resume {path} is not a folder: give a checkpoint's, a run's, or auto")
    if (path / "checkpoints").is_dir():
        found, refused = checkpoint.newest(path)
        if found is None:
            raise InputError(f"--resume {path} has no complete checkpoint: " + "; ".join(refused))
    else:
        found, refused = checkpoint.read(path), []
    home = run_folder(found)
    if home is None or (given and given.resolve() != home):
        return ResumePoint(new_run_folder(settings.save_dir, settings.run_name), found,
                           _skipped(refused))
    last, refused = checkpoint.newest(home)
    if last.path != found.path:
        raise InputError(f"--resume {path}: its run has continued to {last.path}; give another "
                         "--save-dir, nothing is overwritten")
    return ResumePoint(home, found, _skipped(refused))


def has_checkpoint(settings: RunSettings) -> bool:
    """Whether --resume has a checkpoint to resume from, or requires one."""
    return settings.resume is not None and (
        settings.resume != "auto" or _peek(settings) is not None)


def _peek(settings: RunSettings) -> Checkpoint | None:
    place = settings.save_dir if settings.resume == "auto" else settings.resume
    return checkpoint.peek(Path(place).expanduser())


def batch_size(settings: RunSettings) -> int:
    """The batch size per device: as in the settings, unless the run resumes on another number of
    ranks; then what keeps the checkpoint's global batch.

    Raises InputError if so many ranks cannot share that batch equally.
    """
    if settings.resume is None:
        return settings.batch_size
    found = _peek(settings)
    before = found and settings_of(found, settings)
    if not found or before.world_size == settings.world_size:
        return settings.batch_size
    each, left = divmod(before.global_batch, settings.world_size * settings.accumulate)
    if left or not each:
        raise InputError(f"{found.path} is from a run with a global batch of "
                         f"{before.global_batch}, which {settings.world_size} ranks with "
                         f"--accumulate {settings.accumulate} cannot share equally: change either")
    return each


def settings_of(found: Checkpoint, settings: RunSettings) -> RunSettings:
    """The settings, with the devices and batch sizes of the run that wrote a checkpoint."""
    given = found.state["settings"]
    counts = {name: given[name] for name in ("batch_size", "accumulate", "num_gpus",
                                             "num_cpu_ranks") if _is_count(given.get(name))}
    return dataclasses.replace(settings, **{"num_cpu_ranks": 0, **counts})


def run_folder(found: Checkpoint) -> Path | None:
    """The folder of the run that wrote a checkpoint; None if the checkpoint was moved out of it."""
    store = found.path.parent
    return store.parent if store.name == "checkpoints" and found.path.name.isdecimal() else None


def _skipped(refused: list[str]) -> list[str]:
    return [f"skipped: {reason}" for reason in refused]


def restored(found: Checkpoint, settings: RunSettings, task: str, parts: Sequence[str],
             figure: str) -> tuple[Progress, list[str]]:
    """The progress that a checkpoint holds, and which settings have changed since.

    Raises InputError if it cannot be resumed with these settings, or is from another task than the
    one with this name, these parts and this figure.
    """
    _check_fixed(found, settings, task)
    old = settings_of(found, settings)
    if old.global_batch != settings.global_batch:
        raise InputError(f"{found.path} is from a run with a global batch of {old.global_batch}, "
                         f"not {settings.global_batch}: choose --batch-size, --accumulate and "
                         "the number of devices so that it is the same")
    try:
        progress = Progress.from_json(found.state["progress"], parts, figure)
    except ValueError as error:
        raise InputError(f"{found.path / checkpoint.STATE}: {error}: use another checkpoint"
                         ) from error
    samples = progress.step * old.batch_size * old.world_size  # that the epoch has seen
    progress.step = samples // (settings.batch_size * settings.world_size)
    if (progress.epoch, progress.step) > (settings.num_epochs, 0):
        raise InputError(f"{found.path} is in epoch {progress.epoch + 1}, beyond --num-epochs "
                         f"{settings.num_epochs}: give more, or start a new run")
    before, now = found.state["settings"], _plain(settings)
    free = {setting.name for setting in dataclasses.fields(settings)
            if setting.metadata.get("per_host") or setting.metadata.get("on_resume") == "free"}
    changed = [f"{flag_name(name)} {before[name]} -> {now[name]}"
               for name in before if name in now and name not in free
               and before[name] != now[name]]
    return progress, changed


def _plain(settings: RunSettings) -> dict[str, Any]:
    """The settings as they come back from JSON."""
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(settings).items()}


def _check_fixed(found: Checkpoint, settings: RunSettings, task: str) -> None:
    """Raise InputError if a checkpoint was made with other values of settings that cannot change.
    """
    before, now = found.state["settings"], _plain(settings)
    trained = found.state.get("task", "classification")
    if trained != task:
        raise InputError(f"{found.path} is from a run of {trained}, not of {task}: give one of "
                         "the same task")
    for name in named(type(settings), on_resume="fixed"):
        if before.get(name, now[name]) != now[name]:
            raise InputError(f"{found.path} is from a run with {name} {before[name]}, not "
                             f"{now[name]}: give the same {flag_name(name)}, or start a new run")
    if bool(before.get("momentum", now["momentum"])) != bool(now["momentum"]):
        raise InputError(f"{found.path} is from a run with momentum {before['momentum']}, not "
                         f"{now['momentum']}: 0 and nonzero need different optimizer arrays; "
                         "change --momentum, or start a new run")
    averaged = "average" in found.arrays
    if averaged != (settings.ema is not None):
        raise InputError(f"{found.path} was saved {'with' if averaged else 'without'} --ema: do "
                         "the same, or start a new run")


def is_validated(found: Checkpoint) -> bool:
    """Whether the last epoch before a checkpoint was validated, by its run's settings."""
    before, epoch = found.state["settings"], found.state["progress"]["epoch"]
    return is_due(epoch - 1, every=before.get("eval_frequency", 1),
                  last=before.get("num_epochs", epoch))


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
