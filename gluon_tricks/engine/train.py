"""The training loop."""

import dataclasses
import math
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon.block import HybridBlock
from tqdm import tqdm

from gluon_tricks.config import Settings
from gluon_tricks.data.classes import check_same_classes, write_classes
from gluon_tricks.data.loader import Batch
from gluon_tricks.data.record import RecordSet
from gluon_tricks.engine import build
from gluon_tricks.engine.checkpoint import save_parameters
from gluon_tricks.engine.evaluate import evaluate
from gluon_tricks.engine.inflight import InFlight
from gluon_tricks.engine.metrics import Scores, Tally
from gluon_tricks.engine.runlog import RunLog, new_run_folder
from gluon_tricks.errors import RunFault
from gluon_tricks.loss import SoftmaxCrossEntropy
from gluon_tricks.optim.schedule import lr_at


@dataclass(frozen=True)
class Run:
    """All that a run's steps need."""

    settings: Settings
    device: mx.Context
    network: HybridBlock
    loss: HybridBlock
    trainer: gluon.Trainer
    train_data: build.Loader
    val_data: build.Loader
    log: RunLog

    def lr(self, update: int) -> float:
        return lr_at(update, **self.settings.schedule())


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    best_epoch: int
    best: Scores
    last: Scores


def train(settings: Settings) -> Result:
    """Train as the settings say, into a new run folder.

    Raises InputError for what the settings or the data cannot do, before anything is written.
    """
    with ExitStack() as stack:
        device = build.device(settings)
        train_set = stack.enter_context(RecordSet(*settings.rec_paths("train")))
        val_set = stack.enter_context(RecordSet(*settings.rec_paths("val")))
        settings = settings.settled(len(train_set), train_set.class_count())
        classes = train_set.class_names()
        check_same_classes(val_set.path, val_set.class_names(), classes)
        network = build.network(settings)
        val_data = stack.enter_context(build.eval_loader(
            settings, val_set, build.damaged_records(settings, val_set)))
        train_data = stack.enter_context(build.train_loader(
            settings, train_set, build.damaged_records(settings, train_set)))
        settings = dataclasses.replace(
            settings, data_backend=train_data.backend, dct_shortcut=settings.dct_shortcut or (
                "train" if train_data.backend == "native" and settings.crop == "resized"
                else "never"))
        for data in (val_data, train_data):  # what the first pictures show, before a file is made
            with closing(data.epoch()) as batches:
                if next(batches, None) is None:
                    raise build.nothing_left(data)
        build.initialize(network, settings, device)
        log = stack.enter_context(
            RunLog(new_run_folder(settings.save_dir, settings.model), settings))
        run = Run(settings, device, network,
                  SoftmaxCrossEntropy(settings.num_classes, settings.label_smoothing),
                  build.trainer(network, settings), train_data, val_data, log)
        if classes:  # for whoever evaluates the parameters
            write_classes(log.folder / "classes.json", classes)
        announce(run, train_set, val_set)
        return train_epochs(run)


def announce(run: Run, train_set: RecordSet, val_set: RecordSet) -> None:
    """The first lines of the log."""
    settings, log = run.settings, run.log
    log.info(f"{train_set.path}: {len(train_set)} records, {settings.num_classes} classes; "
             f"{val_set.path}: {len(val_set)} records")
    log.info(f"data backend: {run.train_data.backend}" + (
        f" ({run.train_data.backend_note})" if run.train_data.backend_note else ""))
    report_skipped(run)
    log.info(f"{settings.model} on {run.device}, {settings.dtype}: {settings.num_epochs} epochs of "
             f"{settings.steps_per_epoch} updates of {settings.global_batch} samples, "
             f"lr {settings.lr:g}, {settings.lr_mode}; run folder {log.folder}")
    if settings.mode == "symbolic":
        log.info("--mode symbolic: Gluon has no such mode, the run is hybrid")
    if settings.mode != "imperative" and not run.network._active:
        log.info(f"{settings.model} has another graph in training than in prediction: the run is "
                 "imperative")


def report_skipped(run: Run, known: int = 0) -> int:
    """Log which damaged records are left out, where they are more than `known`; how many."""
    count = len(run.train_data.skipped) + len(run.val_data.skipped)
    if count > known:
        for line in filter(None, map(build.skipped_line, (run.train_data, run.val_data))):
            run.log.info(line)
    return count


def train_epochs(run: Run) -> Result:
    """Train and validate epoch by epoch; keep the last and the best parameters."""
    best_epoch, best = -1, None
    skipped = len(run.train_data.skipped) + len(run.val_data.skipped)
    for epoch in range(run.settings.num_epochs):
        started = time.monotonic()
        trained = train_epoch(run, epoch)
        seconds = time.monotonic() - started
        last_update = (epoch + 1) * run.train_data.order.steps - 1
        validated = evaluate(run.network, run.val_data, classes=run.settings.num_classes,
                             device=run.device, dtype=run.settings.dtype)
        finite(validated, run, last_update)
        skipped = report_skipped(run, skipped)
        save_parameters(run.network, run.log.folder / "last.params")
        if best is None or validated.top1 > best.top1:
            best_epoch, best = epoch, validated
            save_parameters(run.network, run.log.folder / "best.params")
        run.log.epoch(epoch=epoch, update=last_update, lr=run.lr(last_update), seconds=seconds,
                      trained=trained, validated=validated)
    run.log.end(best_epoch=best_epoch, best=best, last=validated)
    return Result(run.log.folder, best_epoch, best, validated)


def train_epoch(run: Run, epoch: int) -> Scores:
    """One pass over the training set."""
    steps = run.train_data.order.steps
    tally, in_flight = Tally(), InFlight()
    update = None
    run.log.start_epoch()
    with tqdm(total=steps, desc=f"epoch {epoch + 1}/{run.settings.num_epochs}", unit="batch",
              disable=None, leave=False) as bar:
        for step, batch in enumerate(run.train_data.epoch(epoch)):
            update = epoch * steps + step
            in_flight.add(train_step(run, update, batch, tally))
            if (step + 1) % run.settings.log_interval == 0:
                scores = finite(tally.scores(), run, update)
                run.log.step(epoch=epoch, step=step, update=update, lr=run.lr(update),
                             scores=scores)
                bar.set_postfix(loss=f"{scores.loss:.3f}", top1=f"{scores.top1:.1%}")
            bar.update()
    if update is None:
        raise build.nothing_left(run.train_data)
    return finite(tally.scores(), run, update)


def train_step(run: Run, update: int, batch: Batch, tally: Tally) -> mx.nd.NDArray:
    """One update of the parameters; the samples' losses, which the device may yet compute."""
    mx.random.seed(update_seed(run.settings.seed, update), ctx=run.device)  # dropout's masks
    images = mx.nd.array(batch.images, ctx=run.device, dtype=run.settings.dtype)
    labels = mx.nd.array(batch.labels, ctx=run.device, dtype="int32")
    with autograd.record():
        logits = run.network(images)
        loss = run.loss(logits, labels)
    loss.backward()
    run.trainer.set_learning_rate(run.lr(update))
    run.trainer.step(len(batch.labels))
    tally.update(loss, logits, labels)
    return loss


def update_seed(seed: int, update: int) -> int:
    """MXNet's seed of one update, 31 bits: its generator's state cannot be saved, so seed anew."""
    return int(np.random.SeedSequence([seed, update]).generate_state(1)[0]) >> 1


def finite(scores: Scores, run: Run, update: int) -> Scores:
    """Raise RunFault where the loss is not finite any more."""
    if not math.isfinite(scores.loss):
        last = run.log.folder / "last.params"
        raise RunFault(f"the loss is {scores.loss} at update {update}, lr {run.lr(update):g}: "
                       "lower --lr or lengthen --warmup-epochs; " + (
                           f"the last good parameters are {last}" if last.exists()
                           else "no epoch was finished"))
    return scores
