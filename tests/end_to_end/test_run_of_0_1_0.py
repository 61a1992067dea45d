"""Runs that version 0.1.0 left unfinished resume to its results and can be used; from the
start they give the same.

Whatever changes what a run computes is a setting whose absence means the old way.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
import pytest
from exported import read
from run_of_0_1_0 import RUNS, Small, call, images, instruction_sets

ZIP = Path(__file__).parents[1] / "recorded" / "run_of_0_1_0.zip"
SUPPORT = Path(__file__).parents[1] / "support"
MEASURED = {"samples_per_second", "data_wait", "seconds"}  # of log.jsonl
# The run's folder is NAME and this; how near it comes on another processor.
AGAIN = pytest.mark.parametrize(("again", "near"), [("", 1e-6), ("-again", 1e-5)],
                                ids=["resumed", "from the start"])


class Run(NamedTuple):
    """A run's name, and what came of its folder."""

    name: str
    used: dict[str, Any]  # before it was resumed, and after


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    """A run that has gone on to its end, in a process of one thread; the current folder has it."""
    if RUNS[request.param][0] == "native":
        request.getfixturevalue("native_core")
    folder = tmp_path_factory.mktemp(request.param)
    with zipfile.ZipFile(ZIP) as file:
        file.extractall(folder)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SUPPORT / "run_of_0_1_0.py"), request.param],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    with contextlib.chdir(folder):
        yield Run(request.param, json.loads(done.stdout))


def same_bits_wanted():
    """With the same instruction sets and OpenBLAS's kernels of the recording (sums' order)."""
    theirs = json.loads(Path("processor.json").read_text())["instruction sets"]
    return instruction_sets() == theirs and os.environ.get("OPENBLAS_CORETYPE") == "Haswell"


def arrays(path):
    return {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}


@AGAIN
def test_it_comes_to_the_same_parameters(run, again, near):
    """Bit by bit on a processor with the same instruction sets."""
    done, own = Path(f"{run.name}-done"), Path(run.name + again)
    last = own / "checkpoints" / "000003"
    files = {"last.params": own, **{path.name: last for path in last.glob("*.params")}}
    assert files.keys() == {path.name for path in done.glob("*.params")}
    largest = max(np.abs(array).max() for array in arrays(done / "model.params").values())
    for file, folder in files.items():
        want, got = arrays(done / file), arrays(folder / file)
        assert got.keys() == want.keys()
        for name, array in want.items():
            assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
            np.testing.assert_allclose(got[name], array, 0, 0 if same_bits_wanted() else
                                       near * largest, err_msg=f"{file}: {name}")


@AGAIN
def test_its_log_is_the_same(run, again, near):
    """What the killed epoch wrote is gone."""
    (kinds, want), (own, got) = log_of(f"{run.name}-done"), log_of(run.name + again)
    assert own == kinds and own[-2:] == ["epoch", "end"]
    assert got == [pytest.approx(line, rel=10 * near) for line in want]


def log_of(folder):
    """The lines' kinds, and their numbers."""
    lines = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
    return [line.pop("kind") for line in lines], [
        {name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def test_nothing_has_changed_since_then(run):
    log, = Path(run.name).glob("train*.log")
    said = log.read_text()
    assert "resuming from" in said and "warning" not in said and "KeyboardInterrupt" not in said
    assert Path(run.name, "curves.png").is_file()


@pytest.mark.parametrize("when", ["before", "after"])
def test_it_is_evaluated_and_exported(run, when):
    want, got = json.loads(Path("used.json").read_text())[run.name][when], run.used[when]
    assert got.keys() == want.keys()
    for name in want:
        assert got[name] == (pytest.approx(want[name], rel=1e-5) if name != "logits" else
                             [pytest.approx(row, rel=1e-5, abs=1e-5) for row in want[name]]), name


@pytest.mark.parametrize("form", ["symbol", "params", "onnx"])
def test_what_is_exported_gives_the_network_s_logits(run, form):
    if form == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        assert os.environ.get("CI") != "true", "onnxruntime is missing"
        pytest.skip("needs onnxruntime, which docker/requirements-cpu.txt has")
    call("export", f"--run {run.name} --format {form} --out {form}")
    want = logits_of(f"{run.name}/best.params")
    got = logits_of(form) if form == "params" else read(form, Path(form))(images())
    np.testing.assert_allclose(got, want, 1e-5, 1e-5)
    assert np.ptp(want) > 0.1, "logits that tell nothing"


def logits_of(parameters):
    network = Small(3)
    network.load_parameters(parameters)
    return network(mx.nd.array(images())).asnumpy()
