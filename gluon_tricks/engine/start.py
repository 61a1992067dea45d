"""From settings to a run that is ready for its first, or next, update."""

import dataclasses
from contextlib import ExitStack, closing
from pathlib import Path

import mxnet as mx
import portalocker
from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification.initial import check_teacher, go_on_with_gluoncv, load_initial
from gluon_tricks.classification.loaders import (
    Loader,
    damaged_records,
    eval_loader,
    open_records,
    train_loader,
)
from gluon_tricks.classification.network import build_loss, build_network, build_teacher, initialize
from gluon_tricks.classification.settle import resolve
from gluon_tricks.config.settings import Settings
from gluon_tricks.data.check import fingerprint
from gluon_tricks.data.classes import check_same_classes, write_classes
from gluon_tricks.data.loader import nothing_left
from gluon_tricks.data.sets import PictureSet
from gluon_tricks.engine import summary
from gluon_tricks.engine.optimizer import create_updater
from gluon_tricks.engine.run import Run
from gluon_tricks.engine.saving import Saver
from gluon_tricks.engine.stopping import StopRequest
from gluon_tricks.errors import InputError
from gluon_tricks.models.freezing import frozen_names
from gluon_tricks.models.graph import is_random, statistics_gradients
from gluon_tricks.models.parameters import arrays_of, check_fit, set_arrays
from gluon_tricks.optim.ema import WeightAverage
from gluon_tricks.optim.update import Update
from gluon_tricks.parallel.device import find_device
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs import resume
from gluon_tricks.runs.agreement import agreed
from gluon_tricks.runs.checkpoint import Checkpoint
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.runlog import RunLog, SilentLog, check_tensorboard


def loaders(settings: Settings, val_set: PictureSet, train_set: PictureSet, stack: ExitStack,
            ranks: Ranks | None = None) -> tuple[Loader, Loader]:
    """A rank's loaders for validation and training."""
    return tuple(stack.enter_context(make(settings, records, damaged_records(
        settings, records), ranks)) for make, records in (
            (eval_loader, val_set), (train_loader, train_set)))


def look_at(loader: Loader) -> bool:
    """Whether a picture can be decoded: of the first batch that has one, all are."""
    with closing(loader.epoch()) as batches:
        return any(len(batch.labels) for batch in batches)


def lock(folder: Path) -> portalocker.Lock:
    """For as long as it is entered, no other run writes to the folder. Raises InputError."""
    guard = portalocker.Lock(folder / ".lock", "w", timeout=0, fail_when_locked=True)
    try:
        guard.acquire()
    except portalocker.LockException as error:
        raise InputError(f"{folder}: another run is writing to it; wait for its end, or choose "
                         "another --save-dir") from error
    return guard


def start(settings: Settings, stack: ExitStack, ranks: Ranks) -> Run:
    """The run that the settings describe, at its beginning or where a checkpoint left it.

    What it opens is closed by `stack`. Raises InputError for what the settings or the data cannot
    do, before anything is written, and where ranks disagree on them.
    """
    ranks.check_same(agreed(settings))
    with ranks.together():
        batch_size = resume.batch_size(settings) if ranks.first else None
    settings = dataclasses.replace(settings, batch_size=ranks.from_first(batch_size))
    with ranks.together():
        check_tensorboard(settings)
        device = find_device(settings.num_gpus, settings.dtype, ranks.local_rank)
        train_set = stack.enter_context(open_records(settings, "train"))
        classes = train_set.class_names()
        val_set = stack.enter_context(open_records(settings, "val", classes))
        settings = resolve(settings, len(train_set), train_set.class_count())
        check_same_classes(val_set.path, val_set.class_names(), classes)
        check_teacher(settings, classes)
        networks = build_network(settings), build_teacher(settings, device)
        data = loaders(settings, val_set, train_set, stack, ranks)
        found = [look_at(loader) for loader in data]
        settings = dataclasses.replace(
            settings, data_backend=data[1].backend, dct_shortcut=settings.dct_shortcut or (
                "train" if data[1].backend == "native" and settings.crop == "resized"
                else "never"))
        initialize(networks[0], settings, device)
        # What a checkpoint holds comes later, and in place of these. The others are sent them.
        notes = load_initial(networks[0], settings, classes) \
            if ranks.first and not resume.is_there(settings) else []
    ranks.check_same(agreed(settings, training_set=fingerprint(train_set),
                            validation_set=fingerprint(val_set)))
    for loader, somewhere in zip(data, ranks.sum(found), strict=True):
        if not somewhere:
            raise ranks.once(nothing_left(loader))
    begin = begin_at(settings, ranks, stack)
    begin.notes.extend(notes)
    run, changed = assemble(settings, device, networks, data[::-1], begin,
                            stack.enter_context(StopRequest(ranks)), stack, ranks)
    if classes:  # for whoever evaluates the parameters
        run.log.write("classes.json", lambda: write_classes(run.log.folder / "classes.json",
                                                            classes))
    if ranks.first:
        summary.announce(run, train_set, val_set, begin, changed)
    return run


def begin_at(settings: Settings, ranks: Ranks, stack: ExitStack) -> resume.Start:
    """Where the run begins. The first rank finds it and locks its folder; the others need neither
    the folder nor the checkpoint."""
    begin = None
    with ranks.together():
        if ranks.first:
            begin = resume.find(settings)
            stack.callback(lock(begin.folder).release)
    folder = ranks.from_first(begin and str(begin.folder))
    return begin or resume.Start(Path(folder), None, [])


def assemble(settings: Settings, device: mx.Context,
             networks: tuple[HybridBlock, HybridBlock | None],
             data: tuple[Loader, Loader], begin: resume.Start, stop: StopRequest,
             stack: ExitStack, ranks: Ranks) -> tuple[Run, list[str]]:
    """The run of an initialised network, its teacher, and training and validation data; and which
    settings have changed since the checkpoint that it begins from.

    All that a rank begins with is the first rank's: it alone need have the checkpoint.
    """
    network, teacher = networks
    update = create_updater(network, settings)
    progress, changed, lengths, average = Progress(), [], None, None
    with ranks.together():
        if settings.resume_params and ranks.first and not begin.checkpoint:
            progress = go_on_with_gluoncv(network, update, settings)
        if settings.ema is not None:
            average = WeightAverage(arrays_of(network), settings.ema,
                                    statistics_gradients(network),
                                    frozen_names(network, settings.freeze_until))
        if begin.checkpoint:
            progress, changed, lengths = _restore(begin, settings, network, update, average)
    progress = Progress.from_json(ranks.from_first(progress.to_json()))
    for arrays in (arrays_of(network), average.arrays if average else {}, update.arrays(),
                   arrays_of(teacher) if teacher else {}):
        ranks.broadcast(arrays)
    update_number = (progress.epoch * settings.steps_per_epoch
                     + progress.step // settings.accumulate)
    log = stack.enter_context(RunLog(begin.folder, settings, lengths, update_number)
                              if ranks.first else SilentLog(begin.folder))
    return Run(settings, device, network, is_random(network), teacher,
               build_loss(settings), update, average, *data, log, progress, stop,
               Saver(begin.checkpoint.path if begin.checkpoint else None), ranks), changed


def _restore(begin: resume.Start, settings: Settings, network: HybridBlock, update: Update,
             average: WeightAverage | None) -> tuple[Progress, list[str], dict[str, int] | None]:
    """Fill the parts of a run from a checkpoint; its progress, which settings have changed, and
    how much of its logs counts, None for those of another folder."""
    found = begin.checkpoint
    progress, changed = resume.restored(found, settings)
    fill(found, network, update, average)
    goes_on, best = progress.epoch < settings.num_epochs, begin.folder / "best.params"
    if not goes_on and not resume.is_validated(found):
        raise InputError(f"{found.path} stands after an epoch that was not validated: give a "
                         "greater --num-epochs, its end is")
    own = begin.folder == resume.run_folder(found)
    if not own and not goes_on:
        raise InputError(f"{found.path} is of a run that is whole: give a greater --num-epochs")
    if goes_on and progress.best and not best.is_file():  # in another folder, or the disk was full
        progress.best_epoch, progress.best = progress.epoch - 1, None
    return progress, changed, found.state["logs"] if own else None


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
