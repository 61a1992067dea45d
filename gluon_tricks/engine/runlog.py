"""A run's folder: config.json, log.jsonl, train.log in GluonCV's line format, curves.png."""

import contextlib
import json
import logging
import re
import sys
import time
from pathlib import Path

from tqdm import tqdm

from gluon_tricks.config import Settings
from gluon_tricks.engine.curves import draw_curves
from gluon_tricks.engine.metrics import Scores
from gluon_tricks.errors import InputError


def new_run_folder(save_dir: str | None, model: str) -> Path:
    """`save_dir`, or the next free runs/MODEL-N; made. Raises InputError where it holds files."""
    if save_dir is None:
        runs = Path("runs")
        taken = [int(found[1]) for path in runs.glob(f"{model}-*")
                 if (found := re.fullmatch(rf"{re.escape(model)}-(\d+)", path.name))]
        folder = runs / f"{model}-{max(taken, default=0) + 1}"
    else:
        folder = Path(save_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--save-dir {folder}: there is a file in its place or above it, choose "
                         "another") from error
    if any(folder.iterdir()):
        raise InputError(f"--save-dir {folder} is not empty: choose another, nothing is "
                         "written over")
    return folder


class _Terminal(logging.Handler):
    """Prints above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr was closed
            tqdm.write(self.format(record), file=sys.stderr)


class _File(logging.FileHandler):
    """A full disk is the run's fault to report, not a traceback between the lines."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


class RunLog:
    """Writes a run folder while the run goes on; draws the curves after each epoch."""

    def __init__(self, folder: Path, settings: Settings):
        self.folder = folder
        (folder / "config.json").write_text(settings.to_json() + "\n")
        self._settings = settings
        self._jsonl = open(folder / "log.jsonl", "w", buffering=1)  # a line at a time
        self._logger = logging.Logger("gluon_tricks", logging.INFO)
        for handler in (_Terminal(), _File(folder / settings.logging_file, "w")):
            self._logger.addHandler(handler)
        self._since = time.monotonic(), 0  # when, and at which step, speed was last taken

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            last = self.folder / "last.params"
            reason = {"KeyboardInterrupt": "Ctrl-C", "Terminated": "SIGTERM"}.get(
                kind.__name__, kind.__name__)
            self.info(f"stopped by {reason}; " + (
                f"parameters of the last whole epoch: {last}" if last.exists()
                else "no epoch was finished, no parameters are saved"))
        self._jsonl.close()
        for handler in self._logger.handlers:
            handler.close()

    def info(self, line: str) -> None:
        """A line of train.log and the terminal."""
        self._logger.info(line)

    def _json(self, kind: str, **values) -> None:
        self._jsonl.write(json.dumps({"kind": kind, **values}, allow_nan=False) + "\n")

    def start_epoch(self) -> None:
        self._since = time.monotonic(), 0

    def step(self, *, epoch: int, step: int, update: int, lr: float, scores: Scores) -> None:
        """A logged step; `scores` are the epoch's so far."""
        now = time.monotonic()
        speed = (step + 1 - self._since[1]) * self._settings.global_batch / (now - self._since[0])
        self._since = now, step + 1
        self._json("step", epoch=epoch, step=step, update=update, lr=lr, loss=scores.loss,
                   top1=scores.top1, samples_per_second=speed)
        self.info(f"Epoch[{epoch}] Batch [{step}]\tSpeed: {speed:f} samples/sec\t"
                  f"accuracy={scores.top1:f}\tlr={lr:f}")

    def epoch(self, *, epoch: int, update: int, lr: float, seconds: float, trained: Scores,
              validated: Scores) -> None:
        """An epoch's end; `update` is its last update, `lr` that update's, seconds its training."""
        speed = trained.count / seconds
        self._json("epoch", epoch=epoch, update=update, lr=lr, train_loss=trained.loss,
                   train_top1=trained.top1, val_loss=validated.loss, val_top1=validated.top1,
                   val_top5=validated.top5, val_count=validated.count, samples_per_second=speed,
                   seconds=seconds)
        self.info(f"[Epoch {epoch}] training: accuracy={trained.top1:f}")
        self.info(f"[Epoch {epoch}] speed: {speed:.0f} samples/sec\ttime cost: {seconds:f}")
        self.info(f"[Epoch {epoch}] validation: err-top1={1 - validated.top1:f} "
                  f"err-top5={1 - validated.top5:f}")
        draw_curves(self.folder / "log.jsonl", self.folder / "curves.png",
                    smoothed=self._settings.label_smoothing > 0)

    def end(self, *, best_epoch: int, best: Scores, last: Scores) -> None:
        """The run is whole: the last line of log.jsonl."""
        self._json("end", best_epoch=best_epoch, best_top1=best.top1, best_top5=best.top5,
                   top1=last.top1, top5=last.top5)
