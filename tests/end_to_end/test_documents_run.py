"""Every command of the documents, but those marked otherwise, run on a fresh clone, in order."""

import json
import os
import subprocess

import cv2
import pytest
from documents import PAGES, blocks, commands

RUN = [block for page in PAGES for block in blocks(page)
       if block.why_not is None and block.language in ("bash", "python")]
PLANNED = [words for page in PAGES for block in blocks(page)
           if block.language == "bash" and block.why_not not in (None, "measured")
           for words in commands(block.text)
           if any(word.startswith("scripts/train_") for word in words)]


@pytest.mark.slow
def test_commands_run_on_a_fresh_clone(clone):
    """The first one is the quickstart; those after it use what it has made."""
    assert "quickstart.sh" in RUN[0].text
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for number, block in enumerate(RUN):
        script = block.text
        if block.language == "python":
            script = f"python - <<'END'\n{block.text}\nEND\n"
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{'source .venv/bin/activate' * (number > 0)}\n"
             f"{script}"], cwd=clone, env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2400)
        assert done.returncode == 0, f"{block}\n{block.text}\n{done.stdout[-3000:]}"
    assert cv2.imread(str(clone / "demo" / "grid.png")) is not None
    assert (clone / "demo" / "resnet18_v1d.onnx").stat().st_size > 40e6


@pytest.mark.parametrize("words", PLANNED, ids=" ".join)
def test_training_commands_that_are_not_run_are_right(inside, words):
    """On the machine they are for: --dry-run checks all settings and builds the network."""
    start = next(number for number, word in enumerate(words) if word.startswith("scripts/"))
    name = words[start].removeprefix("scripts/").removesuffix(".py")
    done = inside(name, *words[start + 1:], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["derived"]["global_batch"] > 0
