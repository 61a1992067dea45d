"""From settings to a run that is ready for its first, or next, update."""

import dataclasses
from contextlib import ExitStack, closing
from pathlib import Path

import mxnet as mx
import portalocker
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config import Settings
from gluon_tricks.data.classes import check_same_classes, write_classes
from gluon_tricks.data.record import RecordSet
from gluon_tricks.engine import build, resume, summary
from gluon_tricks.engine.checkpoint import Checkpoint
from gluon_tricks.engine.parameters import arrays_of, check_fit, set_arrays
from gluon_tricks.engine.progress import Progress
from gluon_tricks.engine.run import Run
from gluon_tricks.engine.runlog import RunLog, check_tensorboard
from gluon_tricks.engine.saving import Saver
from gluon_tricks.engine.stopping import StopRequest
from gluon_tricks.errors import InputError
from gluon_tricks.optim.ema import WeightAverage
from gluon_tricks.optim.update import Update


def loaders(settings: Settings, val_set: RecordSet, train_set: RecordSet,
            stack: ExitStack) -> tuple[build.Loader, build.Loader]:
    """For validation and training; what their first pictures show is known before a file is made.
    """
    val_data = stack.enter_context(build.eval_loader(
        settings, val_set, build.damaged_records(settings, val_set)))
    train_data = stack.enter_context(build.train_loader(
        settings, train_set, build.damaged_records(settings, train_set)))
    for data in (val_data, train_data):
        with closing(data.epoch()) as batches:
            if next(batches, None) is None:
                raise build.nothing_left(data)
    return val_data, train_data


def lock(folder: Path) -> portalocker.Lock:
    """For as long as it is entered, no other run writes to the folder. Raises InputError."""
    guard = portalocker.Lock(folder / ".lock", "w", timeout=0, fail_when_locked=True)
    try:
        guard.acquire()
    except portalocker.LockException as error:
        raise InputError(f"{folder}: another run is writing to it; wait for its end, or choose "
                         "another --save-dir") from error
    return guard


def start(settings: Settings, stack: ExitStack) -> Run:
    """The run that the settings describe, at its beginning or where a checkpoint left it.

    What it opens is closed by `stack`. Raises InputError for what the settings or the data cannot
    do, before anything is written.
    """
    check_tensorboard(settings)
    device = build.device(settings)
    train_set = stack.enter_context(RecordSet(*settings.rec_paths("train")))
    val_set = stack.enter_context(RecordSet(*settings.rec_paths("val")))
    settings = settings.settled(len(train_set), train_set.class_count())
    classes = train_set.class_names()
    check_same_classes(val_set.path, val_set.class_names(), classes)
    networks = build.network(settings), build.teacher(settings, device)
    val_data, train_data = loaders(settings, val_set, train_set, stack)
    settings = dataclasses.replace(
        settings, data_backend=train_data.backend, dct_shortcut=settings.dct_shortcut or (
            "train" if train_data.backend == "native" and settings.crop == "resized"
            else "never"))
    build.initialize(networks[0], settings, device)
    begin = resume.find(settings)
    stack.callback(lock(begin.folder).release)
    run, changed = assemble(settings, device, networks, (train_data, val_data), begin,
                            stack.enter_context(StopRequest()), stack)
    if classes:  # for whoever evaluates the parameters
        run.log.write("classes.json", lambda: write_classes(run.log.folder / "classes.json",
                                                            classes))
    summary.announce(run, train_set, val_set, begin, changed)
    return run


def assemble(settings: Settings, device: mx.Context,
             networks: tuple[HybridBlock, HybridBlock | None],
             data: tuple[build.Loader, build.Loader], begin: resume.Start,
             stop: StopRequest, stack: ExitStack) -> tuple[Run, list[str]]:
    """The run of an initialised network, its teacher, and training and validation data; and which
    settings have changed since the checkpoint that it begins from."""
    network, teacher = networks
    update = build.update(network, settings)
    average = None if settings.ema is None else WeightAverage(
        arrays_of(network), settings.ema, build.statistics_gradients(network))
    progress, changed, lengths = Progress(), [], None
    if begin.checkpoint:
        progress, changed = resume.restored(begin.checkpoint, settings)
        fill(begin.checkpoint, network, update, average)
        goes_on, best = progress.epoch < settings.num_epochs, begin.folder / "best.params"
        if begin.folder == resume.run_folder(begin.checkpoint):
            lengths = begin.checkpoint.state["logs"]
        elif not goes_on:
            raise InputError(f"{begin.checkpoint.path} is of a run that is whole: give a greater "
                             "--num-epochs")
        if goes_on and not best.is_file():  # in another folder, or the disk was full
            progress.best_epoch, progress.best = progress.epoch - 1, None
    update_number = (progress.epoch * settings.steps_per_epoch
                     + progress.step // settings.accumulate)
    log = stack.enter_context(RunLog(begin.folder, settings, lengths, update_number))
    return Run(settings, device, network, build.is_random(network), teacher,
               build.loss(settings), update, average, *data, log, progress, stop,
               Saver(begin.checkpoint.path if begin.checkpoint else None)), changed


def fill(found: Checkpoint, network: HybridBlock, update: Update,
         average: WeightAverage | None) -> None:
    """Copy a checkpoint's arrays into the parts of a run. Raises InputError where one does not fit.
    """
    check_fit(network, found.arrays["model"], found.path / "model.params")
    set_arrays(network, found.arrays["model"])
    try:
        update.load(found.arrays.get("optimizer", {}))
    except ValueError as error:
        raise InputError(f"{found.path}: {error}: take another checkpoint") from error
    if average:
        check_fit(network, found.arrays["average"], found.path / "average.params")
        average.load(found.arrays["average"])
