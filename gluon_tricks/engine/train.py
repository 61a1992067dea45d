"""The training loop."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
from tqdm import tqdm

from gluon_tricks.config.settings import RunSettings
from gluon_tricks.engine.early_stopping import patience_exhausted
from gluon_tricks.engine.inflight import InFlight
from gluon_tricks.engine.run import Run
from gluon_tricks.engine.saving import Saver
from gluon_tricks.engine.start import start
from gluon_tricks.engine.step import Step
from gluon_tricks.engine.stopping import StopWanted
from gluon_tricks.engine.summary import log_end, report_skipped
from gluon_tricks.engine.tally import Tally
from gluon_tricks.engine.task import Batch, Task
from gluon_tricks.engine.validation import evaluate
from gluon_tricks.parallel.ranks import is_peer_failure, join
from gluon_tricks.runs.progress import is_due
from gluon_tricks.runs.scores import Scores, Sums, mean_scores


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    best_epoch: int
    best: Scores
    last: Scores


def train(settings: RunSettings, task: Task) -> Result | None:
    """Train as the settings say, in a new run folder or resuming in an old one.

    Returns the result on rank 0, None on the others. Raises InputError if the settings or the data
    cannot work, before anything is written, and Stopped after a signal, once the run is saved.
    """
    with ExitStack() as stack:
        ranks = stack.enter_context(join(settings.world_size))
        result = train_epochs(start(settings, task, stack, ranks))
        return result if ranks.first else None


def train_epochs(run: Run) -> Result:
    """Train and validate epoch by epoch, with a checkpoint after each.

    Raises RunFault, naming the last checkpoint, if another rank exited.
    """
    saver = Saver(run)
    try:
        return _train_epochs(run, saver)
    except mx.MXNetError as error:
        if run.ranks.size > 1 and is_peer_failure(error):
            raise saver.peer_failed(error) from error
        raise


def _train_epochs(run: Run, saver: Saver) -> Result:
    progress, settings = run.progress, run.settings
    skipped = report_skipped(run, len(run.train_data.skipped) + len(run.val_data.skipped))
    while progress.epoch < settings.num_epochs and not should_stop_early(run):
        train_epoch(run, saver)
        with contextlib.suppress(StopWanted):  # then the checkpoint is from before validation
            end_epoch(run, saver)
        skipped = report_skipped(run, skipped)
        saver.save()
    log_end(run)
    run.log.end(update=run.updates_done - 1, best_epoch=progress.best_epoch, best=progress.best,
                last=progress.last)
    saver.end()
    return Result(run.log.folder, progress.best_epoch, progress.best, progress.last)


def train_epoch(run: Run, saver: Saver) -> None:
    """Train on what is left of the epoch."""
    settings, progress = run.settings, run.progress
    # A checkpoint's sums are of all ranks, so rank 0 alone starts from them.
    tally = Tally(run.task.parts, progress.trained if run.ranks.first else None)
    step, in_flight = Step(run, tally, saver), InFlight()
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
            if progress.step % settings.accumulate:  # its update needs more batches
                continue
            run.stop.poll()
            if progress.step // settings.accumulate % settings.log_interval == 0:
                log_step(run, saver, saver.finite(tally), bar)
            if saver.due():
                progress.trained = saver.finite(tally)
                progress.seconds = time.monotonic() - started
                saver.save()
    progress.trained = saver.finite(tally)
    progress.seconds = time.monotonic() - started
    run.train_data.skipped.update(run.ranks.union(run.train_data.skipped))
    if not progress.trained.count:
        if progress.bad_updates:
            raise saver.diverged("no update of the epoch had finite gradients")
        raise run.ranks.agreed_error(run.train_data.no_decodable_record())


def log_step(run: Run, saver: Saver, sums: Sums, bar: tqdm) -> None:
    """Log the epoch's scores so far, unless all its updates were skipped.

    Checks the parameters, too: on the CPU, Activation maps NaN to 0, so that the loss of some
    networks stays finite after they have diverged.
    """
    saver.check_finite()
    if sums.count:
        update, scores = run.updates_done - 1, mean_scores(sums)
        run.log.step(run.progress, update=update, lr=run.lr(update), scores=scores)
        bar.set_postfix_str(f"loss={scores.loss:.3f}, {run.task.words(scores, training=True)}")


def timed(run: Run, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; adds the seconds that each was waited for to `progress.waited`."""
    while True:
        asked = time.monotonic()
        batch = next(batches, None)
        run.progress.waited += time.monotonic() - asked
        if batch is None:
            return
        yield batch


def should_validate(run: Run, epoch: int) -> bool:
    """Whether to score an epoch's weights."""
    return is_due(epoch, every=run.settings.eval_frequency, last=run.settings.num_epochs)


def should_stop_early(run: Run) -> bool:
    """Whether early stopping ends the run; only after an epoch that was validated."""
    progress, patience = run.progress, run.settings.early_stop_patience
    done = progress.epoch - 1
    return progress.best is not None and should_validate(run, done) and patience_exhausted(
        done, progress.best_epoch, patience)


def end_epoch(run: Run, saver: Saver) -> None:
    """Score the epoch's weights, or their average, if that is due; keep them, and move on to the
    next epoch."""
    progress, scores = run.progress, None
    run.agree_statistics()
    with run.weights_to_keep():
        if should_validate(run, progress.epoch):
            scores = evaluate(run.task.evaluator(run.network), run.network, run.val_data,
                              ranks=run.ranks, between=run.stop.check)
        saver.check_finite(scores.loss if scores else 0.0)
        best = scores is not None and is_better(scores, progress.best, run.task.figure)
        saver.keep_epoch(best=best)
    if scores:
        progress.last = scores
    if best:
        progress.best_epoch, progress.best = progress.epoch, scores
    update = run.updates_done - 1
    run.log.epoch(progress, update=update, lr=run.lr(update), validated=scores)
    progress.next_epoch()


def is_better(scores: Scores, best: Scores | None, figure: str) -> bool:
    """Whether scores beat the best so far; on a tie the earlier ones stay."""
    return best is None or scores.figures[figure] > best.figures[figure]
