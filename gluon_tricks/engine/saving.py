"""When and what a run saves, and what it does where that fails."""

import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx

from gluon_tricks.classification.metrics import Tally
from gluon_tricks.errors import RunFault, Stopped
from gluon_tricks.models.parameters import arrays_of
from gluon_tricks.models.params_file import save_arrays
from gluon_tricks.optim.precision import all_finite
from gluon_tricks.parallel.ranks import left_alone
from gluon_tricks.runs import checkpoint
from gluon_tricks.runs.checkpoint import versions
from gluon_tricks.runs.progress import is_due
from gluon_tricks.runs.scores import Sums

if TYPE_CHECKING:
    from gluon_tricks.engine.run import Run


class Saver:
    """Saves a run. A disk that refuses costs nothing but time: what could not be written is held
    in memory and tried again at the next occasion."""

    def __init__(self, last: Path | None = None):
        self.last = last  # the newest whole checkpoint
        self._failed = False
        self._held: dict[Path, dict[str, mx.nd.NDArray]] = {}  # parameter files not written yet

    def due(self, run: "Run") -> bool:
        """Whether to save after this update."""
        every, settings = run.settings.checkpoint_steps, run.settings
        done = run.updates_done
        return (run.stop.signal is not None or (every > 0 and done % every == 0)
                or (self._failed and done % settings.log_interval == 0))

    def save(self, run: "Run") -> None:
        """Write a checkpoint, or warn; then stop the run where a signal asks for it.

        The first rank writes, and all know whether it could.
        """
        run.agree_statistics()
        self.check_finite(run)
        self._write_held(run)

        def write() -> None:
            self.last = checkpoint.save(run.log.folder, checkpoint.Checkpoint(
                arrays={"model": arrays_of(run.network), "optimizer": run.update.arrays(),
                        "average": run.average.arrays if run.average else {}},
                state={"progress": run.progress.to_json(), "settings": asdict(run.settings),
                       "logs": run.log.lengths(), "versions": versions()}),
                keep=run.settings.keep)

        written = run.log.attempt("checkpoints", write)
        self._failed, last = run.ranks.from_first([not written, self.last and str(self.last)])
        self.last = last and Path(last)
        if run.stop.signal is not None:
            self._stop(run)

    def _stop(self, run: "Run") -> None:
        where = f"at update {run.updates_done}, epoch {run.progress.epoch + 1}"
        if self._failed:
            raise run.ranks.once(RunFault(
                f"stopped by {run.stop.signal.name} {where}, and the run could not be saved; the "
                f"last checkpoint is {self.last or 'none'}"))
        raise run.ranks.once(Stopped(
            run.stop.signal, f"stopped by {run.stop.signal.name} {where}, saved as {self.last}; go "
            f"on with: {how_to_go_on(run.log.folder, run.ranks.size, run.ranks.hosts)}"))

    def end(self, run: "Run") -> None:
        """A last try. Raises RunFault where something of the run is in memory only."""
        self._write_held(run)
        missing = [path.name for path in self._held]
        if self._failed:
            missing.append("its last checkpoint")
        if not run.log.attempt("log.jsonl", run.log.lengths):
            missing.append("lines of its logs")
        missing = run.ranks.from_first(missing)
        if missing:
            raise run.ranks.once(RunFault(
                f"{run.log.folder}: the run ended, but {', '.join(missing)} could not be written: "
                f"free some space and go on from {self.last or 'the start'}"))

    def keep_epoch(self, run: "Run", *, best: bool) -> None:
        """Keep the parameters after an epoch: always, as the best, and where --save-frequency asks
        for it under GluonCV's name."""
        folder, settings, epoch = run.log.folder, run.settings, run.progress.epoch
        self.keep_parameters(run, folder / "last.params")
        if best:
            self.keep_parameters(run, folder / "best.params")
        if settings.save_frequency and is_due(epoch, settings.save_frequency, settings.num_epochs):
            self.keep_parameters(run, folder / gluoncv_name(settings.model, epoch))

    def keep_parameters(self, run: "Run", path: Path) -> None:
        """Write the network's parameters to a file, or hold them until that works."""
        self._held[path] = arrays_of(run.network)
        self._write_held(run)
        for held, arrays in self._held.items():
            if held == path:  # the next updates will change the network's own
                self._held[path] = {name: array.copy() for name, array in arrays.items()}

    def _write_held(self, run: "Run") -> None:
        for path, arrays in list(self._held.items()):
            if run.log.attempt(path.name, lambda path=path, arrays=arrays: save_arrays(
                    path, arrays)):
                del self._held[path]

    def finite(self, run: "Run", tally: Tally) -> Sums:
        """The tally's sums, of all ranks. Raises RunFault where a loss was not finite."""
        sums = tally.sums().over(run.ranks)
        if not math.isfinite(sums.loss):
            seen = [update for update in run.ranks.gather(tally.first_bad()) if update is not None]
            raise self.diverged(run, f"the loss is {sums.loss}", min(seen, default=None))
        return sums

    def check_finite(self, run: "Run", loss: float = 0.0) -> None:
        """Raises RunFault where the loss or a parameter is not finite."""
        if not math.isfinite(loss):
            raise self.diverged(run, f"the validation loss is {loss}", run.updates_done - 1)
        if not run.ranks.all(all_finite(list(arrays_of(run.network).values()))):
            raise self.diverged(run, "a parameter is not finite", run.updates_done - 1)

    def diverged(self, run: "Run", what: str, update: int | None = None) -> BaseException:
        """What all ranks raise where a run has no hope; `update`: where it was seen, or the last.
        """
        update = run.updates_done - 1 if update is None else update
        return run.ranks.once(RunFault(
            f"{what} at update {update}, lr {run.lr(update):g}: lower --lr or lengthen "
            f"--warmup-epochs; {self._last_good()}"))

    def deserted(self, error: Exception) -> RunFault:
        """What to raise where an error says that another rank has left."""
        return RunFault(f"{left_alone(error)}; {self._last_good()}")

    def _last_good(self) -> str:
        return f"the last good checkpoint is {self.last}" if self.last else \
            "there is no checkpoint yet"


def gluoncv_name(model: str, epoch: int) -> str:
    """What GluonCV's scripts call the parameters after `epoch`, from 0."""
    data = "cifar10" if model.lower().startswith("cifar_") else "imagenet"
    return f"{data}-{model}-{epoch}.params"


def how_to_go_on(folder: Path, ranks: int = 1, hosts: int = 1) -> str:
    """The command that started this run, with what makes it go on in place of what it began with.

    Where it does not name its number of ranks, or they are on several hosts, horovodrun was given
    them.
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


