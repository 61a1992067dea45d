"""Signals to a real run: it saves, says how to resume, and that works."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gluon_tricks.runs import checkpoint

ROOT = Path(__file__).parents[2]
EPOCHS, UPDATES = 4, 15

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def run(tmp_path, noise_records):
    """run(script, pause): a run's process, in the folder tmp_path / "a run"."""
    noise_records(tmp_path / "train", 62, (40, 50), 3)
    noise_records(tmp_path / "val", 7, (40, 50), 3)
    flags = ["--model", "cifar_resnet20_v1", "--rec-train", tmp_path / "train.rec", "--rec-val",
             tmp_path / "val.rec", "--input-size", 32, "--batch-size", 4, "--num-epochs", EPOCHS,
             "--lr", 0.01, "--log-interval", 1, "-j", 1, "--save-dir", tmp_path / "a run"]
    started = []

    def start(script="scripts/train_imagenet.py", pause=0):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *map(str, flags)], stdout=subprocess.DEVNULL,
            stderr=open(tmp_path / "stderr", "w+"), text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PAUSE": str(pause)})
        started.append(process)
        return process
    yield start
    for process in started:
        process.kill()
        process.wait()


def updates(folder):
    log = folder / "log.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [line["update"] for line in map(json.loads, lines) if line["kind"] == "step"]


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_printed_command_goes_on_to_the_end(run, tmp_path, number, code):
    folder, process = tmp_path / "a run", run()
    wait_for(lambda: len(updates(folder)) >= 3, process)
    process.send_signal(number)
    assert process.wait(60) == code
    errors = (tmp_path / "stderr").read_text()
    assert "Traceback" not in errors
    assert f"{number.name}: finishing this update" in errors
    last = errors.splitlines()[-1]
    done = updates(folder)[-1] + 1
    assert done < EPOCHS * UPDATES
    assert f"error: stopped by {number.name} at update " in last
    assert checkpoint.newest(folder)[0] is not None

    command = last.partition("; resume with: ")[2]
    again = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120,
                           cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert again.returncode == 0, again.stderr
    assert "resuming from" in again.stderr
    assert updates(folder) == list(range(EPOCHS * UPDATES))
    assert (folder / "best.params").is_file()


def test_a_second_ctrl_c_exits_at_once(run, tmp_path):
    """From the middle of a save that takes minutes."""
    folder, process = tmp_path / "a run", run("tests/support/killable.py", pause=20)
    wait_for(lambda: updates(folder), process)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: list((folder / "checkpoints").glob(".*.part")), process)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert time.monotonic() - started < 5
    errors = (tmp_path / "stderr").read_text()
    assert "resume with" not in errors and "Traceback" not in errors
    assert checkpoint.newest(folder) == (None, [])


def test_where_the_save_fails_the_exit_code_is_1(run, tmp_path):
    folder, process = tmp_path / "a run", run()
    wait_for((folder / "config.json").exists, process)
    (folder / "checkpoints").write_text("in the way")
    wait_for(lambda: updates(folder), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    errors = (tmp_path / "stderr").read_text()
    assert "checkpoints cannot be written (File exists)" in errors
    assert "could not be saved; last checkpoint: none" in errors.splitlines()[-1]
    assert "Traceback" not in errors
