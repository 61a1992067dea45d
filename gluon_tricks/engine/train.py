"""The training loop."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
from tqdm import tqdm

from gluon_tricks.classification.evaluate import evaluate
from gluon_tricks.classification.metrics import Tally
from gluon_tricks.config.settings import Settings
from gluon_tricks.data.loader import Batch, nothing_left
from gluon_tricks.engine.early_stopping import stalled
from gluon_tricks.engine.inflight import InFlight
from gluon_tricks.engine.run import Run
from gluon_tricks.engine.start import start
from gluon_tricks.engine.step import Step
from gluon_tricks.engine.stopping import StopWanted
from gluon_tricks.engine.summary import conclude, report_skipped
from gluon_tricks.parallel.ranks import another_left, join
from gluon_tricks.runs.progress import is_due
from gluon_tricks.runs.scores import Scores, Sums, mean_scores


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    best_epoch: int
    best: Scores
    last: Scores


def train(settings: Settings) -> Result | None:
    """Train as the settings say, into a new run folder, or go on in an old one.

    The result is for the first rank, which alone speaks. Raises InputError for what the settings or
    the data cannot do, before anything is written, and Stopped after a signal, when the run is
    saved.
    """
    with ExitStack() as stack:
        ranks = stack.enter_context(join(settings.world_size))
        result = train_epochs(start(settings, stack, ranks))
        return result if ranks.first else None


def train_epochs(run: Run) -> Result:
    """Train and validate epoch by epoch; a checkpoint after each.

    Raises RunFault, naming the last checkpoint, where another rank has left.
    """
    try:
        return _train_epochs(run)
    except mx.MXNetError as error:
        if run.ranks.size > 1 and another_left(error):
            raise run.saver.deserted(error) from error
        raise


def _train_epochs(run: Run) -> Result:
    progress, settings = run.progress, run.settings
    skipped = report_skipped(run, len(run.train_data.skipped) + len(run.val_data.skipped))
    while progress.epoch < settings.num_epochs and not given_up(run):
        train_epoch(run)
        with contextlib.suppress(StopWanted):  # then the checkpoint stands before validation
            end_epoch(run)
        skipped = report_skipped(run, skipped)
        run.saver.save(run)
    conclude(run)
    run.log.end(update=run.updates_done - 1, best_epoch=progress.best_epoch, best=progress.best,
                last=progress.last)
    run.saver.end(run)
    return Result(run.log.folder, progress.best_epoch, progress.best, progress.last)


def train_epoch(run: Run) -> None:
    """What is left of a pass over the training set."""
    settings, progress = run.settings, run.progress
    # What was summed before this start is the first rank's to add.
    tally, in_flight = Tally(progress.trained if run.ranks.first else None), InFlight()
    step = Step(run, tally)
    started = time.monotonic() - progress.seconds
    run.log.start_epoch(progress)
    with tqdm(total=run.steps, initial=progress.step, unit="batch", leave=False,
              desc=f"epoch {progress.epoch + 1}/{settings.num_epochs}",
              disable=None if run.ranks.first else True) as bar:
        for batch in timed(run, run.train_data.epoch(progress.epoch, progress.step)):
            losses = step.take(batch)
            if losses is not None:
                in_flight.add(losses)
            bar.update(progress.step - bar.n)
            if progress.step % settings.accumulate:  # its update waits for other batches
                continue
            run.stop.poll()
            if progress.step // settings.accumulate % settings.log_interval == 0:
                log_step(run, run.saver.finite(run, tally), bar)
            if run.saver.due(run):
                progress.trained = run.saver.finite(run, tally)
                progress.seconds = time.monotonic() - started
                run.saver.save(run)
    progress.trained = run.saver.finite(run, tally)
    progress.seconds = time.monotonic() - started
    run.train_data.skipped.update(run.ranks.union(run.train_data.skipped))
    if not progress.trained.count:
        raise run.saver.diverged(run, "no update of the epoch had finite gradients") \
            if progress.bad_updates else run.ranks.once(nothing_left(run.train_data))


def log_step(run: Run, sums: Sums, bar: tqdm) -> None:
    """The scores of the epoch so far, unless all its updates were left out.

    The parameters are looked at, too: on the CPU Activation takes what is no number for 0, so that
    some networks' loss stays finite when they are lost.
    """
    run.saver.check_finite(run)
    if sums.count:
        update, scores = run.updates_done - 1, mean_scores(sums)
        run.log.step(run.progress, update=update, lr=run.lr(update), scores=scores)
        bar.set_postfix(loss=f"{scores.loss:.3f}", top1=f"{scores.top1:.1%}")


def timed(run: Run, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; how long they were waited for is added up."""
    while True:
        asked = time.monotonic()
        batch = next(batches, None)
        run.progress.waited += time.monotonic() - asked
        if batch is None:
            return
        yield batch


def validated(run: Run, epoch: int) -> bool:
    """Whether an epoch's weights are scored."""
    return is_due(epoch, run.settings.eval_frequency, run.settings.num_epochs)


def given_up(run: Run) -> bool:
    """Whether early stopping ends the run: after an epoch that was validated only."""
    progress, patience = run.progress, run.settings.early_stop_patience
    done = progress.epoch - 1
    return progress.best is not None and validated(run, done) and stalled(
        done, progress.best_epoch, patience)


def end_epoch(run: Run) -> None:
    """Score the epoch's weights, or their average, where that is due; keep them, and go on to the
    next epoch."""
    progress, settings, scores = run.progress, run.settings, None
    run.agree_statistics()
    with run.weights_to_keep():
        if validated(run, progress.epoch):
            scores = evaluate(run.network, run.val_data, classes=settings.num_classes,
                              device=run.device, dtype=settings.array_dtype,
                              between=run.stop.check, ranks=run.ranks)
        run.saver.check_finite(run, scores.loss if scores else 0.0)
        best = scores is not None and (progress.best is None or scores.top1 > progress.best.top1)
        run.saver.keep_epoch(run, best=best)
    if scores:
        progress.last = scores
    if best:
        progress.best_epoch, progress.best = progress.epoch, scores
    update = run.updates_done - 1
    run.log.epoch(progress, update=update, lr=run.lr(update), validated=scores)
    progress.next_epoch()
