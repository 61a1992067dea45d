"""`bash scripts/quickstart.sh` on a fresh copy of the clone, with an environment of its own."""

import json
import re
import subprocess

import cv2
import pytest

pytestmark = pytest.mark.slow


def quickstart(clone, *arguments):
    done = subprocess.run(["bash", str(clone / "scripts" / "quickstart.sh"), *arguments],
                          cwd=clone, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def top1(output):
    return float(re.search(r"^top-1 ([\d.]+)%.* 500 images$", output, re.M)[1])


def changes(run):
    return {path.name: path.stat().st_mtime_ns for path in run.iterdir()}


def test_quickstart_learns_the_demo_and_then_skips_what_is_done(clone):
    first = quickstart(clone)
    run = clone / "demo" / "runs" / "resnet18_v1d"
    assert top1(first) >= 90
    assert f"run folder: {run}" in first
    assert cv2.imread(str(run / "curves.png")) is not None
    config = json.loads((run / "config.json").read_text())
    assert (config["lr_mode"], config["warmup_epochs"], config["label_smoothing"],
            config["last_gamma"], config["no_wd"]) == ("cosine", 1, 0.1, True, True)

    code = "import cv2; from gluon_tricks import cli; print(*cli.opencv_packages())"
    said = subprocess.run([clone / ".venv" / "bin" / "python", "-c", code], cwd="/",
                          capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("opencv-python-headless\n", "")  # it needs no libGL

    before = changes(run)
    assert top1(quickstart(clone)) == top1(first)
    assert changes(run) == before


def test_shuffled_labels_teach_nothing(clone):
    assert top1(quickstart(clone, "--shuffle-labels", "--epochs", "4")) < 20


def test_unknown_argument(clone):
    done = subprocess.run(["bash", str(clone / "scripts" / "quickstart.sh"), "--fast"],
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("unknown argument --fast; usage:")
