"""Decides when and what a run saves, and handles failures to save."""

import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import mxnet as mx

from gluon_tricks.engine.run import Run
from gluon_tricks.engine.tally import Tally
from gluon_tricks.errors import RunFault, Stopped
from gluon_tricks.models.parameters import named_arrays
from gluon_tricks.models.params_file import save_arrays
from gluon_tricks.optim.precision import all_finite
from gluon_tricks.parallel.ranks import peer_failure_message
from gluon_tricks.runs import checkpoint
from gluon_tricks.runs.checkpoint import versions
from gluon_tricks.runs.progress import is_due
from gluon_tricks.runs.scores import Sums


class Saver:
    """Saves a run. A full disk does not end it: what could not be written is held in memory and
    tried again at the next save."""

    def __init__(self, run: Run):
        self._run = run
        self.last = run.checkpoint  # the newest complete checkpoint
        self._failed = False
        self._held: dict[Path, dict[str, mx.nd.NDArray]] = {}  # parameter files not written yet

    def due(self) -> bool:
        """Whether to save after this update."""
        run, settings = self._run, self._run.settings
        every, done = settings.checkpoint_steps, run.updates_done
        return (run.stop.signal is not None or (every > 0 and done % every == 0)
                or (self._failed and done % settings.log_interval == 0))

    def save(self) -> None:
        """Write a checkpoint, or warn; then stop the run if a signal asked for it.

        Rank 0 writes, and tells all whether it could.
        """
        run = self._run
        run.agree_statistics()
        self.check_finite()
        self._write_held()
        written = run.log.attempt("checkpoints", self._write_checkpoint)
        self._failed, last = run.ranks.broadcast_object([not written, self.last and str(self.last)])
        self.last = last and Path(last)
        if run.stop.signal is not None:
            self._stop()

    def _write_checkpoint(self) -> None:
        run = self._run
        self.last = checkpoint.save(run.log.folder, checkpoint.Checkpoint(
            arrays={"model": named_arrays(run.network), "optimizer": run.updater.arrays(),
                    "average": run.average.arrays if run.average else {}},
            state={"task": run.task.name, "progress": run.progress.to_json(),
                   "settings": asdict(run.settings), "logs": run.log.lengths(),
                   "versions": versions()}),
            keep=run.settings.keep)

    def _stop(self) -> None:
        run = self._run
        where = f"at update {run.updates_done}, epoch {run.progress.epoch + 1}"
        if self._failed:
            raise run.ranks.agreed_error(RunFault(
                f"stopped by {run.stop.signal.name} {where}, and the run could not be saved; last "
                f"checkpoint: {self.last or 'none'}"))
        raise run.ranks.agreed_error(Stopped(
            run.stop.signal, f"stopped by {run.stop.signal.name} {where}, saved as {self.last}; "
            f"resume with: {resume_command(run.log.folder, run.ranks.size, run.ranks.hosts)}"))

    def end(self) -> None:
        """Try a last time. Raises RunFault if part of the run is still in memory only."""
        run = self._run
        self._write_held()
        missing = [path.name for path in self._held]
        if self._failed:
            missing.append("its last checkpoint")
        if not run.log.attempt("log.jsonl", run.log.lengths):
            missing.append("lines of its logs")
        missing = run.ranks.broadcast_object(missing)
        if missing:
            raise run.ranks.agreed_error(RunFault(
                f"{run.log.folder}: the run ended, but {', '.join(missing)} could not be written: "
                f"free some space and resume from {self.last or 'the start'}"))

    def keep_epoch(self, *, best: bool) -> None:
        """Keep an epoch's parameters as last.params; as best.params if they are the `best`; and
        under the epoch's own name if --save-frequency asks for it."""
        run = self._run
        folder, settings, epoch = run.log.folder, run.settings, run.progress.epoch
        self.keep_parameters(folder / "last.params")
        if best:
            self.keep_parameters(folder / "best.params")
        if settings.save_frequency and is_due(epoch, every=settings.save_frequency,
                                              last=settings.num_epochs):
            self.keep_parameters(folder / settings.params_name(epoch))

    def keep_parameters(self, path: Path) -> None:
        """Write the network's parameters to a file, or hold a copy until that works."""
        self._held[path] = named_arrays(self._run.network)
        self._write_held()
        for held, arrays in self._held.items():
            if held == path:  # the next updates change the network's own
                self._held[path] = {name: array.copy() for name, array in arrays.items()}

    def _write_held(self) -> None:
        for path, arrays in list(self._held.items()):
            if self._run.log.attempt(path.name, lambda path=path, arrays=arrays: save_arrays(
                    path, arrays)):
                del self._held[path]

    def finite(self, tally: Tally) -> Sums:
        """The tally's sums over all ranks. Raises RunFault if a loss was not finite."""
        ranks = self._run.ranks
        sums = tally.sums().over(ranks)
        if not math.isfinite(sums.loss):
            seen = ranks.allgather_object(tally.first_bad())
            first = min((update for update in seen if update is not None), default=None)
            raise self.diverged(f"the loss is {sums.loss}", first)
        return sums

    def check_finite(self, loss: float = 0.0) -> None:
        """Raise RunFault if the loss or a parameter is not finite."""
        run = self._run
        if not math.isfinite(loss):
            raise self.diverged(f"the validation loss is {loss}")
        if not run.ranks.all(all_finite(list(named_arrays(run.network).values()))):
            raise self.diverged("a parameter is not finite")

    def diverged(self, what: str, update: int | None = None) -> BaseException:
        """What all ranks raise when a run diverged; `update`: the one it was seen at (None: last).
        """
        run = self._run
        update = run.updates_done - 1 if update is None else update
        return run.ranks.agreed_error(RunFault(
            f"{what} at update {update}, lr {run.lr(update):g}: lower --lr or lengthen "
            f"--warmup-epochs; {self._last_good()}"))

    def peer_failed(self, error: Exception) -> RunFault:
        """What to raise if an error says that another rank exited."""
        return RunFault(f"{peer_failure_message(error)}; {self._last_good()}")

    def _last_good(self) -> str:
        return f"the last good checkpoint is {self.last}" if self.last else \
            "there is no checkpoint yet"


def resume_command(folder: Path, ranks: int = 1, hosts: int = 1) -> str:
    """The command that resumes this run: the one that started it, with other flags for its start.

    It begins with horovodrun if the run's command does not name the number of ranks, or if they are
    on several hosts.
    """
    words, given = [], iter(sys.argv)
    for word in given:
        name = word.partition("=")[0]
        if name in ("--save-dir", "--resume", "--resume-params", "--resume-states",
                    "--resume-epoch"):
            if "=" not in word:
                next(given, None)
            continue
        words.append(word)
    named = {word.partition("=")[0] for word in words} & {"--num-gpus", "--num-cpu-ranks"}
    launcher = []
    if ranks > 1 and (hosts > 1 or not named):
        launcher = ["horovodrun", "-np", str(ranks), *(["-H", "HOSTS"] if hosts > 1 else [])]
    return shlex.join([*launcher, sys.executable, *words, "--save-dir", str(folder), "--resume",
                       "auto"])


