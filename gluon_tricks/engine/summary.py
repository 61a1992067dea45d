"""Logs tables that describe a run at its start and at its end."""

import dataclasses
from typing import Any

from tabulate import tabulate

from gluon_tricks.config.fields import flag_name, ordered
from gluon_tricks.config.settings import RunSettings
from gluon_tricks.engine.run import Run
from gluon_tricks.engine.task import Data
from gluon_tricks.runs.checkpoint import describe_position
from gluon_tricks.runs.resume import ResumePoint


def log_start(run: Run, train_set: Data, val_set: Data, begin: ResumePoint,
              changed: list[str]) -> None:
    """The first lines of the log."""
    settings, log = run.settings, run.log
    for note in begin.notes:
        log.info(note)
    if begin.checkpoint:
        log.info(f"resuming from {begin.checkpoint.path}: "
                 f"{describe_position(begin.checkpoint.state)}")
    if changed:
        log.info(f"warning: changed since then: {', '.join(changed)}; the result will differ both "
                 "from the old settings' and from that of these settings alone")
    rows, after = run.task.lines(run.network, train_set, val_set)
    note = f" ({run.train_data.backend_note})" if run.train_data.backend_note else ""
    _table(run, {
        **rows, "data backend": f"{run.train_data.backend}{note}",
        "device": run.device if settings.world_size == 1 else
                  f"{settings.world_size} ranks with Horovod, this one on {run.device}",
        "global batch": effective_batch(settings),
        "learning rate": f"{settings.effective_lr:g}, {settings.lr_mode}" + (
            f" (--lr {settings.lr:g} for 256)" if settings.linear_scaling else ""),
        "updates": f"{settings.num_epochs} epochs of {settings.steps_per_epoch}",
        "run folder": log.folder, **non_default_flags(settings)})
    report_skipped(run)
    for line in after:
        log.info(line)


def report_skipped(run: Run, known: int = 0) -> int:
    """Log which damaged records are skipped, if they are more than `known`; their number."""
    count = len(run.train_data.skipped) + len(run.val_data.skipped)
    if count > known:
        for line in (run.train_data.skipped_line(), run.val_data.skipped_line()):
            if line:
                run.log.info(line)
    return count


def log_end(run: Run) -> None:
    """The last lines of the log."""
    progress, shown = run.progress, run.task.shown
    best, last = progress.best, progress.last
    _table(run, {
        "epochs": f"{progress.epoch} of {run.settings.num_epochs}" + (
            "" if progress.epoch == run.settings.num_epochs else ", stopped early"),
        "updates": run.updates_done,
        "best": f"{shown(best)}, epoch {progress.best_epoch + 1}",
        "last": shown(last),
        **({"updates skipped": progress.bad_updates} if run.settings.nan == "skip" else {}),
        **({"loss scale": f"{progress.loss_scale.scale:g}, {progress.loss_scale.overflows} "
            "overflows"} if run.settings.loss_scale == "dynamic" else {}),
        "run folder": run.log.folder})


def _table(run: Run, rows: dict[str, Any]) -> None:
    for line in tabulate(rows.items(), tablefmt="plain", disable_numparse=True).splitlines():
        run.log.info(line)


def effective_batch(settings: RunSettings) -> str:
    """The global batch, and the factors that make it: "1024 (128 x 8 devices)"."""
    parts = [str(settings.batch_size)]
    if settings.world_size > 1:
        parts.append(f"{settings.world_size} devices")
    if settings.accumulate > 1:
        parts.append(f"{settings.accumulate} batches")
    return str(settings.global_batch) + (f" ({' x '.join(parts)})" if len(parts) > 1 else "")


def non_default_flags(settings: RunSettings) -> dict[str, Any]:
    """The flags that differ from their default (or from what other settings make it), except those
    that the table shows already."""
    shown = {}
    for field in ordered(type(settings)):
        value, default = getattr(settings, field.name), field.default
        if field.metadata.get("in_table") or value == default:
            continue
        if default is None:
            without = dataclasses.replace(settings, **{field.name: None})
            default = getattr(without.filled(), field.name)
        if value != default:
            shown[flag_name(field.name)] = value
    return shown
