"""Going on with a run: which checkpoint, into which folder, and whether its settings agree."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from gluon_tricks.config.settings import Settings
from gluon_tricks.errors import InputError
from gluon_tricks.runs import checkpoint
from gluon_tricks.runs.agreement import OF_A_MACHINE
from gluon_tricks.runs.checkpoint import Checkpoint
from gluon_tricks.runs.progress import Progress, is_due
from gluon_tricks.runs.runlog import make_folder, new_run_folder

# What may change without changing what the run computes.
FREE = OF_A_MACHINE | {"use_rec", "log_interval", "keep", "checkpoint_steps", "save_frequency",
                       "new_classifier", "resume_epoch"}  # the last two: of a start that is past
# What the arrays and the position of a checkpoint are made for.
FIXED = ("model", "num_classes", "optimizer", "dtype", "seed", "num_training_samples",
         "freeze_until")


class Start(NamedTuple):
    """Where a run begins."""

    folder: Path
    checkpoint: Checkpoint | None  # None: at the very start
    notes: list[str]  # for the log


def find(settings: Settings) -> Start:
    """The run folder, made, and the checkpoint to go on from, as --resume says.

    Raises InputError where there is none to go on from, or the folder is none of a run's.
    """
    if settings.resume is None:
        return Start(new_run_folder(settings.save_dir, settings.model), None, [])
    given = settings.save_dir and Path(settings.save_dir).expanduser()
    if settings.resume == "auto":
        make_folder(given)
        found, refused = checkpoint.newest(given)
        if found is None and refused:  # starting anew would write over what is left of the run
            raise InputError(f"--save-dir {given}: no whole checkpoint in it; {'; '.join(refused)}")
        begun = {path.name for path in given.iterdir()} - {".lock"}
        if found is None and begun and "config.json" not in begun:
            raise InputError(f"--save-dir {given} holds files, but no run to go on with: choose "
                             "another")
        return Start(given, found, _passed_over(refused))
    path = Path(settings.resume).expanduser().resolve()
    if not path.is_dir():
        raise InputError(f"--resume {path} is no folder: give a checkpoint's, a run's, or auto")
    if (path / "checkpoints").is_dir():
        found, refused = checkpoint.newest(path)
        if found is None:
            raise InputError(f"--resume {path}: no whole checkpoint in it; " + "; ".join(refused))
    else:
        found, refused = checkpoint.read(path), []
    home = run_folder(found)
    if home is None or (given and given.resolve() != home):
        return Start(new_run_folder(settings.save_dir, settings.model), found,
                     _passed_over(refused))
    last, refused = checkpoint.newest(home)
    if last.path != found.path:
        raise InputError(f"--resume {path}: its run has gone on to {last.path}; give another "
                         "--save-dir, nothing is written over")
    return Start(home, found, _passed_over(refused))


def is_there(settings: Settings) -> bool:
    """Whether --resume has a checkpoint to go on from, or must have one."""
    return settings.resume is not None and (
        settings.resume != "auto" or _peek(settings) is not None)


def _peek(settings: Settings) -> Checkpoint | None:
    place = settings.save_dir if settings.resume == "auto" else settings.resume
    return checkpoint.peek(Path(place).expanduser())


def batch_size(settings: Settings) -> int:
    """The batch of a device: as the settings say, but where the checkpoint to go on from is of
    another number of ranks, what leaves its global batch as it is.

    Raises InputError where so many ranks cannot share that batch equally.
    """
    if settings.resume is None:
        return settings.batch_size
    found = _peek(settings)
    before = found and before_it(found, settings)
    if not found or before.world_size == settings.world_size:
        return settings.batch_size
    each, left = divmod(before.global_batch, settings.world_size * settings.accumulate)
    if left or not each:
        raise InputError(f"{found.path} is of a run with a global batch of {before.global_batch}, "
                         f"which {settings.world_size} ranks with --accumulate "
                         f"{settings.accumulate} cannot share equally: choose another number of "
                         "either")
    return each


def before_it(found: Checkpoint, settings: Settings) -> Settings:
    """The settings with the devices and batches of the run that wrote a checkpoint."""
    given = found.state["settings"]
    counts = {name: given[name] for name in ("batch_size", "accumulate", "num_gpus",
                                             "num_cpu_ranks") if _is_count(given.get(name))}
    return dataclasses.replace(settings, **{"num_cpu_ranks": 0, **counts})


def run_folder(found: Checkpoint) -> Path | None:
    """The folder of the run that wrote a checkpoint, None where it lies elsewhere."""
    store = found.path.parent
    return store.parent if store.name == "checkpoints" and found.path.name.isdecimal() else None


def _passed_over(refused: list[str]) -> list[str]:
    return [f"passed over: {reason}" for reason in refused]


def restored(found: Checkpoint, settings: Settings) -> tuple[Progress, list[str]]:
    """The progress that a checkpoint holds, and which settings have changed since.

    Raises InputError where it cannot go on with these settings.
    """
    before = found.state["settings"]
    now = {name: list(value) if isinstance(value, tuple) else value
           for name, value in dataclasses.asdict(settings).items()}
    for name in FIXED:
        if before.get(name, now[name]) != now[name]:
            raise InputError(f"{found.path} is of a run with {name} {before[name]}, not "
                             f"{now[name]}: give the same --{name.replace('_', '-')}, or train "
                             "anew")
    if bool(before.get("momentum", now["momentum"])) != bool(now["momentum"]):
        raise InputError(f"{found.path} is of a run with momentum {before['momentum']}, not "
                         f"{now['momentum']}: 0 and others keep different arrays, choose another "
                         "--momentum, or train anew")
    averaged = "average" in found.arrays
    if averaged != (settings.ema is not None):
        raise InputError(f"{found.path} was saved {'with' if averaged else 'without'} --ema: do "
                         "the same, or train anew")
    old = before_it(found, settings)
    if old.global_batch != settings.global_batch:
        raise InputError(f"{found.path} is of a run with a global batch of {old.global_batch}, "
                         f"not {settings.global_batch}: choose --batch-size, --accumulate and "
                         "the number of devices so that it is the same")
    try:
        progress = Progress.from_json(found.state["progress"])
    except ValueError as error:
        raise InputError(f"{found.path / checkpoint.STATE}: {error}: take another checkpoint"
                         ) from error
    samples = progress.step * old.batch_size * old.world_size  # that the epoch has seen
    progress.step = samples // (settings.batch_size * settings.world_size)
    if (progress.epoch, progress.step) > (settings.num_epochs, 0):
        raise InputError(f"{found.path} stands in epoch {progress.epoch + 1}, beyond --num-epochs "
                         f"{settings.num_epochs}: give more, or train anew")
    changed = [f"--{name.replace('_', '-')} {before[name]} -> {now[name]}"
               for name in before if name in now and name not in FREE
               and before[name] != now[name]]
    return progress, changed


def is_validated(found: Checkpoint) -> bool:
    """Whether the last epoch that a checkpoint knows of was validated, by its run's settings."""
    before, epoch = found.state["settings"], found.state["progress"]["epoch"]
    return is_due(epoch - 1, before.get("eval_frequency", 1), before.get("num_epochs", epoch))


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
