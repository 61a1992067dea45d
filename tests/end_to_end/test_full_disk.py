"""A run on a disk that fills up: it warns, continues, and loses nothing once there is space."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import pytest

from gluon_tricks.runs import checkpoint

ROOT = Path(__file__).parents[2]
EPOCHS, UPDATES = 6, 10

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """A file system of 16 MB; a checkpoint takes 3.3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)],
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def run(disk, tmp_path, noise_records):
    noise_records(tmp_path / "train", 82, (40, 50), 3)
    noise_records(tmp_path / "val", 7, (40, 50), 3)
    flags = ["--model", "cifar_resnet20_v1", "--rec-train", tmp_path / "train.rec", "--rec-val",
             tmp_path / "val.rec", "--input-size", 32, "--batch-size", 8, "--num-epochs", EPOCHS,
             "--lr", 0.01, "--log-interval", 1, "-j", 1, "--ema", 0.9, "--save-dir", disk / "run"]
    with subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "train_imagenet.py"), *map(str, flags)],
            stdout=subprocess.DEVNULL, stderr=open(tmp_path / "stderr", "w"),
            env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        yield process
        process.kill()


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fill(path):
    with open(path, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass


def updates(folder, kind):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["update"] for line in lines if line["kind"] == kind]


@pytest.mark.parametrize("freed", [True, False])
def test_a_disk_that_fills_up_amid_a_run(run, disk, tmp_path, freed):
    folder, ballast, errors = disk / "run", disk / "ballast", tmp_path / "stderr"
    wait_for((folder / "checkpoints" / "000001").exists, run)
    fill(ballast)
    wait_for(lambda: all(f"{name} cannot be written (" in errors.read_text()
                         for name in ("checkpoints", "log.jsonl")), run)
    fill(ballast)
    assert checkpoint.newest(folder)[0].state["progress"]["epoch"] >= 1
    if freed:
        ballast.unlink()
    code = run.wait(120)
    said = errors.read_text()
    assert "Traceback" not in said
    assert said.count(f"warning: {folder / 'checkpoints'} cannot be written (") == 1
    found, refused = checkpoint.newest(folder)
    assert refused == []
    if not freed:
        assert code == 1
        assert "the run ended, but" in said.splitlines()[-1]
        assert found.state["progress"]["epoch"] < EPOCHS
        return
    assert code == 0, said
    assert updates(folder, "step") == list(range(EPOCHS * UPDATES))
    assert updates(folder, "epoch") == list(range(UPDATES - 1, EPOCHS * UPDATES, UPDATES))
    text = (folder / "train.log").read_text()
    assert len(re.findall(r"^Epoch\[\d\] Batch", text, re.M)) == EPOCHS * UPDATES
    assert found.state["progress"]["epoch"] == EPOCHS
    for name in ("best.params", "last.params"):
        mx.nd.load(str(folder / name))
    last = mx.nd.load(str(folder / "last.params"))
    assert all((last[name].asnumpy() == array.asnumpy()).all()
               for name, array in found.arrays["average"].items())
