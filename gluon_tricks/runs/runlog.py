"""A run's folder: config.json, log.jsonl, train.log in GluonCV's line format, curves.png."""

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
    """What a task says of its scores."""

    name: str  # for config.json

    def words(self, scores: Scores, *, training: bool) -> str:
        """A line of train.log's, without its loss: "accuracy=0.5"."""

    def panel(self) -> Panel:
        """How curves.png draws the figures."""


def new_run_folder(save_dir: str | None, name: str) -> Path:
    """`save_dir`, or the next free runs/NAME-N; made. Raises InputError where it holds files."""
    if save_dir is None:
        runs = Path("runs")
        taken = [int(found[1]) for path in runs.glob(f"{name}-*")
                 if (found := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name))]
        folder = runs / f"{name}-{max(taken, default=0) + 1}"
    else:
        folder = Path(save_dir).expanduser()
    make_folder(folder)
    if {path.name for path in folder.iterdir()} - {".lock"}:  # a start that was refused leaves it
        raise InputError(f"--save-dir {folder} is not empty: choose another, nothing is "
                         "written over; or go on with the run in it by --resume auto")
    return folder


def make_folder(folder: Path) -> None:
    """Make it, and those above it. Raises InputError where a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--save-dir {folder}: there is a file in its place or above it, choose "
                         "another") from error


class _Terminal(logging.Handler):
    """Prints above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr was closed
            tqdm.write(self.format(record), file=sys.stderr)


class RunLog:
    """Writes a run folder while the run goes on; draws the curves after each epoch.

    `lengths` are those of log.jsonl and train.log at the checkpoint a run goes on from: what was
    written after it is cut off, and `update` is the one that comes next. A disk that is full loses
    no line: they wait, and a warning says so once.
    """

    def __init__(self, folder: Path, settings: RunSettings, reporter: Reporter,
                 lengths: Mapping[str, int] | None = None, update: int = 0):
        self.folder = folder
        self._settings, self._reporter = settings, reporter
        self._terminal = _Terminal()
        self._warned: set[str] = set()
        self._again: dict[str, Callable[[], Any]] = {}  # by file's name, what to try again
        # First, since it is what tells a run's folder from any other.
        self.write("config.json", lambda: files.write_text(
            folder / "config.json", settings.to_json(task=reporter.name) + "\n"))
        lengths = lengths or {}
        self._files = {name: LineFile(folder / name, lengths.get(name, 0))
                       for name in ("log.jsonl", settings.logging_file)}
        self._board = _board(folder, settings, update)
        self._since = 0.0, 0, 0.0  # when and at which step speed was last taken, and time waited

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:  # on the terminal the script says it
            self._append(self._settings.logging_file, f"ended by {kind.__name__}: {error}")
        for file in self._files.values():
            file.close()
        if self._board:
            self._board.close()

    def lengths(self) -> dict[str, int]:
        """Of the files that a checkpoint cuts back to. Raises OSError where lines still wait."""
        for file in self._files.values():
            file.sync()
        return {name: file.length for name, file in self._files.items()}

    def write(self, name: str, write: Callable[[], Any]) -> None:
        """As `attempt`, and where the disk refuses, again after each epoch until it works."""
        if self.attempt(name, write):
            self._again.pop(name, None)
        else:
            self._again[name] = write

    def attempt(self, name: str, write: Callable[[], Any]) -> bool:
        """Call `write`; where the disk refuses, say so once for `name`, and go on."""
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
                      ": the run goes on and tries again; free some space")

    def _say(self, line: str) -> None:
        self._terminal.emit(logging.makeLogRecord({"msg": line}))

    def info(self, line: str) -> None:
        """A line of train.log and the terminal."""
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
        """A logged step; `scores` are the epoch's so far, speed and the share of time that went
        into waiting for data those since the last one."""
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
        """An epoch's end; `update` is its last update, `lr` that update's; `validated` is None
        where nothing was."""
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
        """The run is whole: the last line of log.jsonl."""
        self._json("end", update=update, best_epoch=best_epoch,
                   **{f"best_{name}": value for name, value in best.figures.items()},
                   **last.figures)


class SilentLog:
    """What the other ranks have in place of the first one's RunLog: they write and say nothing."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(self, *_) -> None:
        pass

    def lengths(self) -> dict[str, int]:
        return {}

    def attempt(self, name: str, write: Callable[[], Any]) -> bool:
        """It went well, as far as this rank has a part in it."""
        return True

    def _nothing(self, *_, **__) -> None:
        pass

    write = info = start_epoch = step = epoch = end = _nothing


def check_tensorboard(settings: RunSettings) -> None:
    """Raises InputError where TensorBoard's files are asked for and the package is missing."""
    if settings.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise InputError(f"--tensorboard needs tensorboardX: {install_packages()} (or -gpu.txt)")


def _board(folder: Path, settings: RunSettings, update: int) -> Any:
    """TensorBoard's writer, where asked; what earlier files say from `update` on is void."""
    if not settings.tensorboard:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=update)
