"""A run that is killed 20 times ends with the bits of one that never was."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EPOCHS, UPDATES, KILLS = 3, 8, 20
SAVES = EPOCHS * (UPDATES + 1)  # after each update, and after each validation
CLOCK = {"samples_per_second", "seconds", "data_wait", "waited"}  # what depends on the time

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def begin(tmp_path, noise_records):
    """begin(folder, checkpoint_steps, pause): the process of a run, new or resumed."""
    noise_records(tmp_path / "train", 70, (40, 50), 3)
    noise_records(tmp_path / "val", 7, (40, 50), 3)
    flags = ["--model", "cifar_resnet20_v1", "--rec-train", tmp_path / "train.rec", "--rec-val",
             tmp_path / "val.rec", "--input-size", 32, "--batch-size", 4, "--accumulate", 2,
             "--num-epochs", EPOCHS, "--lr", 0.05, "--lr-mode", "cosine", "--warmup-epochs", 1,
             "--mixup", "--label-smoothing", "--ema", 0.9, "--clip-grad-norm", 5, "--no-wd",
             "--log-interval", 1, "-j", 2, "--resume", "auto"]
    command = [sys.executable, str(ROOT / "tests" / "support" / "killable.py"), *map(str, flags)]

    def start(folder: Path, checkpoint_steps: int, pause: float = 0) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--save-dir", str(folder), "--checkpoint-steps", str(checkpoint_steps)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PAUSE": str(pause)})
    return start


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def newest(folder: Path) -> int:
    """The number of the newest checkpoint, 0 if there is none."""
    return max((int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")), default=0)


def kill_at(process: subprocess.Popen, folder: Path, number: int, delay: float,
            inside: bool) -> bool:
    """SIGKILL, `delay` after checkpoint `number` is there or, inside, is being written.

    Says whether it hit a save.
    """
    part = folder / "checkpoints" / f".{number:06d}.part"
    while newest(folder) < number and not (inside and part.exists()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    time.sleep(delay)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return any((folder / "checkpoints").glob(".*.part"))


def same_arrays(one: Path, other: Path) -> None:
    one, other = (mx.nd.load(str(path)) for path in (one, other))
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array.asnumpy(), other[name].asnumpy(), name)


def timeless(values: dict) -> dict:
    return {name: value for name, value in values.items() if name not in CLOCK}


def log_lines(folder: Path) -> list[dict]:
    return [timeless(json.loads(line))
            for line in (folder / "log.jsonl").read_text().splitlines()]


def train_log_lines(folder: Path) -> list[str]:
    """Those of steps and validations, without the speed."""
    text = re.sub(r"Speed: [\d.]+", "", (folder / "train.log").read_text())
    return re.findall(r"^(?:Epoch\[|\[Epoch \d\] [tv][ra]).*", text, re.M)


def test_killed_twenty_times_it_ends_with_the_same_bits(begin, tmp_path):
    """As a run that is never killed, and that saves at the ends of epochs only."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begun, process, log = time.monotonic(), begin(whole, 0), whole / "log.jsonl"
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    startup = time.monotonic() - begun  # to the first update's line
    finish(process)
    rng = random.Random(1)
    moments = sorted(rng.sample(range(1, SAVES - 2), KILLS - 2))
    hits = 0
    for life, number in enumerate([0, 0, *moments]):
        starting_up = newest(killed) >= number
        hits += kill_at(begin(killed, 1, pause=0.03), killed, number,
                        rng.uniform(0, startup if starting_up else 0.4), inside=life % 2 == 0)
    assert hits >= 5, "too few kills hit a save"
    finish(begin(killed, 1))

    assert (newest(whole), newest(killed)) == (EPOCHS, SAVES)
    folders = [folder / "checkpoints" / f"{newest(folder):06d}" for folder in (whole, killed)]
    for name in ("model", "optimizer", "average"):
        same_arrays(*(folder / f"{name}.params" for folder in folders))
    for name in ("best", "last"):
        same_arrays(whole / f"{name}.params", killed / f"{name}.params")
    states = [json.loads((folder / "state.json").read_text()) for folder in folders]
    assert timeless(states[0]["progress"]) == timeless(states[1]["progress"])
    assert states[0]["progress"]["epoch"] == EPOCHS
    for state in states:
        del state["settings"]["save_dir"], state["settings"]["checkpoint_steps"]
    assert states[0]["settings"] == states[1]["settings"]

    lines = log_lines(killed)
    assert lines == log_lines(whole)
    updates = [line["update"] for line in lines if line["kind"] == "step"]
    assert updates == list(range(EPOCHS * UPDATES))
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == list(range(EPOCHS))
    assert len(train_log_lines(whole)) == EPOCHS * (UPDATES + 2)
    assert train_log_lines(killed) == train_log_lines(whole)
    assert not list((killed / "checkpoints").glob(".*")), "what kills left is still there"
