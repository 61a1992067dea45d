"""Complete jobs of several ranks, as a user starts them, and how they ended."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np

ROOT = Path(__file__).parents[2]
STRUCK = ROOT / "tests" / "support" / "struck.py"


class Job(NamedTuple):
    """How a job ended."""

    code: int
    out: str
    said: str  # on stderr
    seconds: float  # from the last batch that a rank took to the end; all, if none was taken
    taken: list  # [rank, epoch, batch, records] of each batch

    @property
    def command(self) -> list[str]:
        """The command that the last line gives to resume with."""
        return shlex.split(self.said.splitlines()[-1].partition("; resume with: ")[2])


def run(command: list, taken: Path, strike: str = "", rank_flags: dict | None = None,
        timeout: float = 120) -> Job:
    """Run a command that starts struck.py until it ends; the rest is for its environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TAKEN": str(taken),
                   "RANK_FLAGS": json.dumps(rank_flags or {}),
                   **({"STRIKE": strike} if strike else {})}
    before = len(lines_of(taken))
    started = time.time()
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True,
                          timeout=timeout)
    ended, last = time.time(), taken.stat().st_mtime if taken.is_file() else 0
    return Job(done.returncode, done.stdout, done.stderr, ended - max(started, last),
               lines_of(taken)[before:])


def train(ranks: int, folder: Path, *flags, **options) -> Job:
    """Run struck.py with this many ranks into a run folder, by `run`."""
    return run([sys.executable, STRUCK, *flags, "--num-cpu-ranks", ranks, "--save-dir", folder],
               folder.with_name(f"{folder.name}.taken"), **options)


def lines_of(file: Path) -> list:
    """The JSON values of a file's lines; empty if there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def numbers(folder: Path) -> list[int]:
    """The numbers of a run's checkpoints."""
    return sorted(int(path.name) for path in (folder / "checkpoints").glob("[0-9]*"))


def arrays(checkpoint: Path) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by the file's name and their own."""
    return {f"{file.stem}:{name}": array.asnumpy() for file in checkpoint.glob("*.params")
            for name, array in mx.nd.load(str(file)).items()}
