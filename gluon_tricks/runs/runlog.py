"""Writes a run's folder: config.json, log.jsonl, train.log in GluonCV's format, curves.png."""

import contextlib
import importlib.util
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from gluon_tricks import files
from gluon_tricks.config.settings import RunSettings
from gluon_tricks.errors import InputError, install_packages
from gluon_tricks.runs.curves import Panel, draw_curves
from gluon_tricks.runs.linefile import LineFile
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.scores import Scores, mean_scores


class Reporter(Protocol):
    """How a task presents its scores."""

    name: str  # for config.json

    def words(self, scores: Scores, *, training: bool) -> str:
        """Scores as in a line of train.log, without the loss: "accuracy=0.5"."""

    def panel(self) -> Panel:
        """How curves.png draws the figures."""


def new_run_folder(save_dir: str | None, name: str) -> Path:
    """Make `save_dir`, or the next free runs/NAME-N. Raises InputError if it holds files."""
    if save_dir is None:
        runs = Path("runs")
        taken = [int(found[1]) for path in runs.glob(f"{name}-*")
                 if (found := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name))]
        folder = runs / f"{name}-{max(taken, default=0) + 1}"
    else:
        folder = Path(save_dir).expanduser()
    make_folder(folder)
    if {path.name for path in folder.iterdir()} - {".lock"}:  # a refused start leaves it behind
        raise InputError(f"--save-dir {folder} is not empty: choose another, nothing is "
                         "overwritten; or resume the run in it with --resume auto")
    return folder


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises InputError if a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--save-dir {folder}: it, or a folder above it, is a file; choose "
                         "another") from error


class _Terminal(logging.Handler):
    """Prints above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr was closed
            tqdm.write(self.format(record), file=sys.stderr)


class RunLog:
    """Writes a run folder during the run; draws the curves after each epoch.

    `lengths` are those of log.jsonl and train.log at the checkpoint that the run resumes from: what
    was written after it is cut off; `update` is the next one. A full disk loses no line: they wait,
    and a warning says so once.
    """

    def __init__(self, folder: Path, settings: RunSettings, reporter: Reporter,
                 lengths: Mapping[str, int] | None = None, update: int = 0):
        self.folder = folder
        self._settings, self._reporter = settings, reporter
        self._terminal = _Terminal()
        self._warned: set[str] = set()
        self._again: dict[str, Callable[[], Any]] = {}  # by file's name, what to try again
        # First, since this file is what identifies a run's folder, even if it is still empty.
        self.write("config.json", self._write_config)
        lengths = lengths or {}
        self._files = {name: LineFile(folder / name, lengths.get(name, 0))
                       for name in ("log.jsonl", settings.logging_file)}
        self._board = _board(folder, settings, update)
        self._since = 0.0, 0, 0.0  # of the last speed: when, at which step, and the time waited

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:  # the script prints it on the terminal
            self._append(self._settings.logging_file, f"ended by {kind.__name__}: {error}")
        for file in self._files.values():
            file.close()
        if self._board:
            self._board.close()

    def _write_config(self) -> None:
        path = self.folder / "config.json"
        path.touch()
        files.write_text(path, self._settings.to_json(task=self._reporter.name) + "\n")

    def lengths(self) -> dict[str, int]:
        """The lengths of the files that resuming cuts back. Raises OSError if lines still wait."""
        for file in self._files.values():
            file.sync()
        return {name: file.length for name, file in self._files.items()}

    def write(self, name: str, write: Callable[[], Any]) -> None:
        """As `attempt`, but if that fails, try again after each epoch until it works."""
        if self.attempt(name, write):
            self._again.pop(name, None)
        else:
            self._again[name] = write

    def attempt(self, name: str, write: Callable[[], Any]) -> bool:
        """Call `write`; whether it worked. On OSError, warn once for `name` and continue."""
        try:
            write()
        except OSError as error:
            self._warn(name, error)
            return False
        self._warned.discard(name)
        return True

    def _warn(self, name: str, error: OSError) -> None:
        if name not in self._warned:
            self._warned.add(name)
            self._say(f"warning: {self.folder / name} cannot be written ({error.strerror or error})"
                      ": the run continues and tries again; free some space")

    def _say(self, line: str) -> None:
        self._terminal.emit(logging.makeLogRecord({"msg": line}))

    def info(self, line: str) -> None:
        """Write a line to train.log and the terminal."""
        self._say(line)
        self._append(self._settings.logging_file, line)

    def _append(self, name: str, line: str) -> None:
        error = self._files[name].write(line)
        if error:
            self._warn(name, error)
        else:
            self._warned.discard(name)

    def _json(self, kind: str, **values) -> None:
        self._append("log.jsonl", json.dumps({"kind": kind, **values}, allow_nan=False))
        if self._board:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, values["update"])

    def start_epoch(self, progress: Progress) -> None:
        self._since = time.monotonic(), progress.step, progress.waited

    def step(self, progress: Progress, *, update: int, lr: float, scores: Scores) -> None:
        """Log a step. `scores` are the epoch's so far; speed and the share of time spent waiting
        for data are since the last logged step."""
        now, epoch, step = time.monotonic(), progress.epoch, progress.step - 1
        since, before, waited = self._since
        self._since = now, progress.step, progress.waited
        batch = self._settings.global_batch // self._settings.accumulate
        speed = (progress.step - before) * batch / (now - since)
        self._json("step", epoch=epoch, step=step, update=update, lr=lr, loss=scores.loss,
                   **scores.figures, samples_per_second=speed,
                   data_wait=(progress.waited - waited) / (now - since))
        self.info(f"Epoch[{epoch}] Batch [{step}]\tSpeed: {speed:f} samples/sec\t"
                  f"{self._reporter.words(scores, training=True)}\tlr={lr:f}")

    def epoch(self, progress: Progress, *, update: int, lr: float,
              validated: Scores | None) -> None:
        """Log an epoch's end. `update` is its last update, `lr` that update's; `validated` is None
        if the epoch was not validated."""
        epoch, seconds = progress.epoch, progress.seconds
        trained = mean_scores(progress.trained)
        speed = trained.count / seconds
        more = {}
        if validated:
            more = {"val_loss": validated.loss,
                    **{f"val_{name}": value for name, value in validated.figures.items()},
                    "val_count": validated.count}
        if self._settings.loss_scale == "dynamic":
            more |= {"loss_scale": progress.loss_scale.scale,
                     "overflows": progress.loss_scale.overflows}
        if self._settings.nan == "skip":
            more["bad_updates"] = progress.bad_updates
        self._json("epoch", epoch=epoch, update=update, lr=lr, train_loss=trained.loss,
                   **{f"train_{name}": value for name, value in trained.figures.items()},
                   samples_per_second=speed, seconds=seconds,
                   data_wait=progress.waited / seconds, **more)
        words = self._reporter.words
        self.info(f"[Epoch {epoch}] training: {words(trained, training=True)}")
        self.info(f"[Epoch {epoch}] speed: {speed:.0f} samples/sec\ttime cost: {seconds:f}")
        if validated:
            self.info(f"[Epoch {epoch}] validation: {words(validated, training=False)}")
        for name, write in list(self._again.items()):
            self.write(name, write)
        self.attempt("curves.png", lambda: draw_curves(
            self.folder / "log.jsonl", self.folder / "curves.png",
            self._settings.steps_per_epoch, self._reporter.panel()))

    def end(self, *, update: int, best_epoch: int, best: Scores, last: Scores) -> None:
        """Write the last line of log.jsonl: the run is finished."""
        self._json("end", update=update, best_epoch=best_epoch,
                   **{f"best_{name}": value for name, value in best.figures.items()},
                   **last.figures)


class SilentLog:
    """Stands in for RunLog on all ranks but 0, which write and print nothing."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(self, *_) -> None:
        pass

    def lengths(self) -> dict[str, int]:
        return {}

    def attempt(self, name: str, write: Callable[[], Any]) -> bool:
        """Succeed, since this rank has nothing to write."""
        return True

    def _nothing(self, *_, **__) -> None:
        pass

    write = info = start_epoch = step = epoch = end = _nothing


def check_tensorboard(settings: RunSettings) -> None:
    """Raise InputError if TensorBoard's files are asked for and the package is missing."""
    if settings.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise InputError(f"--tensorboard needs tensorboardX: {install_packages()} (or -gpu.txt)")


def _board(folder: Path, settings: RunSettings, update: int) -> Any:
    """TensorBoard's writer, if asked for; it voids what earlier files hold from `update` on."""
    if not settings.tensorboard:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=update)
