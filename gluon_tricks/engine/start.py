"""Builds a run from settings and a task: ready for its first update, or for its next one."""

import dataclasses
from contextlib import ExitStack, closing
from pathlib import Path

import mxnet as mx
import portalocker
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config.settings import RunSettings
from gluon_tricks.engine import summary
from gluon_tricks.engine.optimizer import create_updater
from gluon_tricks.engine.run import Run
from gluon_tricks.engine.stopping import StopRequest
from gluon_tricks.engine.task import Loader, Task
from gluon_tricks.errors import InputError
from gluon_tricks.models.freezing import frozen_names
from gluon_tricks.models.graph import statistics_gradients
from gluon_tricks.models.parameters import check_fit, named_arrays, set_arrays
from gluon_tricks.optim.ema import WeightAverage
from gluon_tricks.optim.update import ParameterUpdater
from gluon_tricks.parallel.device import find_device
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs import resume
from gluon_tricks.runs.agreement import agreed
from gluon_tricks.runs.checkpoint import Checkpoint
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.runlog import RunLog, SilentLog, check_tensorboard


def has_decodable_batch(loader: Loader) -> bool:
    """Whether at least one sample can be decoded; stops at the first batch that has one."""
    with closing(loader.epoch()) as batches:
        return any(len(batch.indices) for batch in batches)


def lock(folder: Path) -> portalocker.Lock:
    """Keep other runs from writing to the folder until released. Raises InputError if one does."""
    guard = portalocker.Lock(folder / ".lock", "w", timeout=0, fail_when_locked=True)
    try:
        guard.acquire()
    except portalocker.LockException as error:
        raise InputError(f"{folder}: another run is writing to it; wait until it ends, or choose "
                         "another --save-dir") from error
    return guard


def start(settings: RunSettings, task: Task, stack: ExitStack, ranks: Ranks) -> Run:
    """The run that the settings describe, at its beginning or at a checkpoint.

    `stack` closes what it opens. Raises InputError if the settings or the data cannot work, before
    anything is written, and if ranks disagree on them.
    """
    ranks.check_same(agreed(settings))
    with ranks.all_or_none():
        batch_size = resume.batch_size(settings) if ranks.first else None
    settings = dataclasses.replace(settings, batch_size=ranks.broadcast_object(batch_size))
    with ranks.all_or_none():
        check_tensorboard(settings)
        device = find_device(settings.num_gpus, settings.dtype, ranks.local_rank)
        train_set = stack.enter_context(task.open(settings, "train"))
        val_set = stack.enter_context(task.open(settings, "val", train_set))
        settings = task.resolve(settings, train_set, val_set)
        network = task.network(device)
        val_data, train_data = (stack.enter_context(task.loader(data, ranks, training=training))
                                for data, training in ((val_set, False), (train_set, True)))
        found = [has_decodable_batch(loader) for loader in (val_data, train_data)]
        settings = task.settled(train_data)
        # A checkpoint's parameters replace these later. Rank 0 broadcasts either to the others.
        notes = task.load_initial(network) \
            if ranks.first and not resume.has_checkpoint(settings) else []
    ranks.check_same(agreed(settings, training_set=task.fingerprint(train_set),
                            validation_set=task.fingerprint(val_set)))
    for loader, somewhere in zip((val_data, train_data), ranks.allreduce(found), strict=True):
        if not somewhere:
            raise ranks.agreed_error(loader.no_decodable_record())
    begin = find_resume_point(settings, ranks, stack)
    begin.notes.extend(notes)
    run, changed = build_run(settings, task, device, network, (train_data, val_data), begin,
                             stack.enter_context(StopRequest(ranks)), stack, ranks)
    for name, write in task.files().items():
        run.log.write(name, lambda name=name, write=write: write(run.log.folder / name))
    if ranks.first:
        summary.log_start(run, train_set, val_set, begin, changed)
    return run


def find_resume_point(settings: RunSettings, ranks: Ranks, stack: ExitStack) -> resume.ResumePoint:
    """Where the run begins. Rank 0 finds it and locks its folder; the other ranks need neither the
    folder nor the checkpoint."""
    begin = None
    with ranks.all_or_none():
        if ranks.first:
            begin = resume.find(settings)
            stack.callback(lock(begin.folder).release)
    folder = ranks.broadcast_object(begin and str(begin.folder))
    return begin or resume.ResumePoint(Path(folder), None, [])


def build_run(settings: RunSettings, task: Task, device: mx.Context, network: HybridBlock,
              data: tuple[Loader, Loader], begin: resume.ResumePoint, stop: StopRequest,
              stack: ExitStack, ranks: Ranks, *, made_up: bool = False) -> tuple[Run, list[str]]:
    """The run of an initialized network on training and validation data; and which settings have
    changed since the checkpoint it resumes from.

    Rank 0 broadcasts all state, so it alone needs the checkpoint. A run on `made_up` data never
    adopts another program's run.
    """
    updater = create_updater(network, settings)
    progress, changed, lengths, average = Progress(), [], None, None
    with ranks.all_or_none():
        if ranks.first and not begin.checkpoint and not made_up:
            progress = task.adopt(network, updater) or progress
        if settings.ema is not None:
            average = WeightAverage(named_arrays(network), settings.ema,
                                    statistics_gradients(network), frozen_names(network))
        if begin.checkpoint:
            progress, changed, lengths = _restore(begin, settings, task, network, updater, average)
    progress = Progress.from_json(ranks.broadcast_object(progress.to_json()))
    for arrays in (named_arrays(network), average.arrays if average else {}, updater.arrays(),
                   task.constants()):
        ranks.broadcast(arrays)
    update_number = (progress.epoch * settings.steps_per_epoch
                     + progress.step // settings.accumulate)
    log = stack.enter_context(RunLog(begin.folder, settings, task, lengths, update_number)
                              if ranks.first else SilentLog(begin.folder))
    return Run(settings, task, device, network, updater, average, *data, log, progress, stop,
               ranks, begin.checkpoint.path if begin.checkpoint else None), changed


def _restore(begin: resume.ResumePoint, settings: RunSettings, task: Task, network: HybridBlock,
             updater: ParameterUpdater, average: WeightAverage | None,
             ) -> tuple[Progress, list[str], dict[str, int] | None]:
    """Load a checkpoint into the parts of a run. Returns its progress, which settings have changed,
    and up to which length its logs are kept (None if they are in another folder)."""
    found = begin.checkpoint
    progress, changed = resume.restored(found, settings, task.name, task.parts, task.figure)
    load_checkpoint_into(found, network, updater, average)
    continues, best = progress.epoch < settings.num_epochs, begin.folder / "best.params"
    if not continues and not resume.is_validated(found):
        raise InputError(f"{found.path} is from an epoch that was not validated: give a greater "
                         "--num-epochs; the last epoch is always validated")
    own = begin.folder == resume.run_folder(found)
    if not own and not continues:
        raise InputError(f"{found.path} is from a finished run: give a greater --num-epochs")
    if continues and progress.best and not best.is_file():  # new folder, or a full disk
        progress.best_epoch, progress.best = progress.epoch - 1, None
    return progress, changed, found.state["logs"] if own else None


def load_checkpoint_into(found: Checkpoint, network: HybridBlock, updater: ParameterUpdater,
                         average: WeightAverage | None) -> None:
    """Copy a checkpoint's arrays into the parts of a run. Raises InputError if one does not fit.
    """
    check_fit(network, found.arrays["model"], found.path / "model.params")
    set_arrays(network, found.arrays["model"])
    try:
        updater.load(found.arrays.get("optimizer", {}))
    except ValueError as error:
        raise InputError(f"{found.path}: {error}: use another checkpoint") from error
    if average:
        check_fit(network, found.arrays["average"], found.path / "average.params")
        average.load(found.arrays["average"])
