"""What a run says of itself at its start and at its end, as tables."""

import dataclasses
from typing import Any

import numpy as np
from tabulate import tabulate

from gluon_tricks.classification.network import build_network
from gluon_tricks.classification.settle import resolve
from gluon_tricks.config.settings import Settings
from gluon_tricks.data.loader import skipped_line
from gluon_tricks.data.sets import PictureSet
from gluon_tricks.engine.run import Run
from gluon_tricks.models.profile import profile
from gluon_tricks.runs.checkpoint import position
from gluon_tricks.runs.resume import Start
from gluon_tricks.runs.scores import Scores


def announce(run: Run, train_set: PictureSet, val_set: PictureSet, begin: Start,
             changed: list[str]) -> None:
    """The first lines of the log."""
    settings, log = run.settings, run.log
    for note in begin.notes:
        log.info(note)
    if begin.checkpoint:
        log.info(f"going on from {begin.checkpoint.path}: {position(begin.checkpoint.state)}")
    if changed:
        log.info(f"warning: changed since then: {', '.join(changed)}; the run is not what it would "
                 "have been, nor what these settings alone give")
    note = f" ({run.train_data.backend_note})" if run.train_data.backend_note else ""
    rows = {
        "training set": f"{train_set.path}: {len(train_set)} records, "
                        f"{settings.num_classes} classes",
        "validation set": f"{val_set.path}: {len(val_set)} records",
        "data backend": f"{run.train_data.backend}{note}",
        "device": run.device if settings.world_size == 1 else
                  f"{settings.world_size} ranks by Horovod, this one on {run.device}",
        "global batch": effective_batch(settings),
        "learning rate": f"{settings.effective_lr:g}, {settings.lr_mode}" + (
            f" (--lr {settings.lr:g} for 256)" if settings.linear_scaling else ""),
        "updates": f"{settings.num_epochs} epochs of {settings.steps_per_epoch}",
        **size(run), "run folder": log.folder, **differing(settings)}
    _table(run, rows)
    report_skipped(run)
    _warn_of_empty_classes(run, train_set)
    if settings.mode == "symbolic":
        log.info("--mode symbolic: Gluon has no such mode, the run is hybrid")
    if settings.mode != "imperative" and not run.network._active:
        log.info(f"{settings.model} has another graph in training than in prediction: the run is "
                 "imperative")


def _warn_of_empty_classes(run: Run, train_set: PictureSet) -> None:
    counts = np.bincount(train_set.labels, minlength=run.settings.num_classes)
    names = train_set.class_names() or []
    empty = [names[label] if label < len(names) else str(label)
             for label in np.flatnonzero(counts == 0)]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        run.log.info(f"warning: the training set has no picture of {', '.join(empty[:5])}{more}")


def report_skipped(run: Run, known: int = 0) -> int:
    """Log which damaged records are left out, where they are more than `known`; how many."""
    count = len(run.train_data.skipped) + len(run.val_data.skipped)
    if count > known:
        for line in filter(None, map(skipped_line, (run.train_data, run.val_data))):
            run.log.info(line)
    return count


def conclude(run: Run) -> None:
    """The last lines of the log."""
    progress = run.progress
    best, last = progress.best, progress.last
    _table(run, {
        "epochs": f"{progress.epoch} of {run.settings.num_epochs}" + (
            "" if progress.epoch == run.settings.num_epochs else ", stopped early"),
        "updates": run.updates_done,
        "best": f"{shown(best)}, epoch {progress.best_epoch + 1}",
        "last": shown(last),
        **({"updates left out": progress.bad_updates} if run.settings.nan == "skip" else {}),
        **({"loss scale": f"{progress.loss_scale.scale:g}, {progress.loss_scale.overflows} "
            "overflows"} if run.settings.loss_scale == "dynamic" else {}),
        "run folder": run.log.folder})


def shown(scores: Scores) -> str:
    """Scores for people."""
    return (f"top-1 {scores.top1:.2%}, top-5 {scores.top5:.2%}, loss {scores.loss:.4f}, "
            f"{scores.count} pictures")


def _table(run: Run, rows: dict[str, Any]) -> None:
    for line in tabulate(rows.items(), tablefmt="plain", disable_numparse=True).splitlines():
        run.log.info(line)


def effective_batch(settings: Settings) -> str:
    """How the samples of an update come together."""
    parts = [str(settings.batch_size)]
    if settings.world_size > 1:
        parts.append(f"{settings.world_size} devices")
    if settings.accumulate > 1:
        parts.append(f"{settings.accumulate} batches")
    return str(settings.global_batch) + (f" ({' x '.join(parts)})" if len(parts) > 1 else "")


def size(run: Run) -> dict[str, str]:
    """Parameters and multiply-adds of the network."""
    found = profile(build_network(run.settings), (3, run.settings.input_size,
                                                 run.settings.input_size))
    return {"network": f"{run.settings.model}, {found.parameters:,} parameters, "
                       f"{found.multiply_adds / 1e9:.3f} G multiply-adds"}


def differing(settings: Settings) -> dict[str, Any]:
    """The flags that are not at their default, but for those said already."""
    said = {"model", "num_classes", "data_backend", "dct_shortcut", "num_training_samples",
            "save_dir", "rec_train", "rec_val", "lr", "linear_scaling", "lr_mode", "batch_size",
            "accumulate", "num_gpus", "num_cpu_ranks"}
    deciding = {name: getattr(settings, name) for name in (
        "batch_size", "num_epochs", "crop", "optimizer", "mixup", "teacher", "gluoncv_compat",
        "dtype", "num_gpus", "num_cpu_ranks")}
    filled = resolve(Settings(model=settings.model, **deciding), settings.num_training_samples,
                     settings.num_classes)
    shown = {}
    for field in dataclasses.fields(Settings):
        deduced = field.default is None and field.name not in deciding
        default = getattr(filled, field.name) if deduced else field.default
        value = getattr(settings, field.name)
        if field.name not in said and value != default:
            shown[f"--{field.name.replace('_', '-')}"] = value
    return shown
