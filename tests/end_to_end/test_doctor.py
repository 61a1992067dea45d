"""scripts/doctor.py as a user runs it, if all is well and if it is not."""

import json
import os
import subprocess
import sys

import fake_cuda
import pytest
from processes import ROOT

LEVELS = {"ok", "warning", "fault"}
H100, A10 = ("NVIDIA H100 80GB HBM3", 9, 0), ("NVIDIA A10", 8, 6)
# An MXNet that loads at once; what it says of itself is CUDA's build.
MXNET = """
import types
__version__ = "1.9.1"
def Features():
    return {name: types.SimpleNamespace(name=name, enabled=True)
            for name in ("CUDA", "CUDNN", "NCCL", "MKLDNN", "OPENMP")}
runtime = types.SimpleNamespace(Features=Features)
context = types.SimpleNamespace(num_gpus=lambda: %d)
"""


@pytest.fixture
def doctor(tmp_path):
    """doctor(arguments..., **environment): the finished process; `fakes` is first on the path.
    """
    def run(*arguments, options=(), **environment):
        path = os.pathsep.join(map(str, [tmp_path / "fakes", ROOT]))
        done = subprocess.run(
            [sys.executable, *options, ROOT / "scripts" / "doctor.py", *map(str, arguments)],
            capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHONPATH": path, **environment})
        assert "Traceback" not in done.stdout + done.stderr
        return done
    return run


@pytest.fixture
def fake(tmp_path):
    """fake(name, code, version): a package that is found before the real one."""
    def make(name, code, version=None, distribution=None):
        folder = tmp_path / "fakes" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(code)
        if version:
            fake_cuda.package(tmp_path / "fakes", distribution or name, version)
    return make


def parsed(done):
    """The findings by name, and the verdict."""
    said = json.loads(done.stdout)
    assert said.keys() == {"verdict", "usable", "gpus", "findings"}
    for finding in said["findings"]:
        assert finding.keys() == {"group", "level", "name", "value", "remedy"}
        assert all(isinstance(value, str) for value in finding.values())
        assert finding["level"] in LEVELS
        assert finding["remedy"] or finding["level"] == "ok", finding
    faults = [finding for finding in said["findings"] if finding["level"] == "fault"]
    assert said["usable"] == (not faults) == (done.returncode == 0)
    assert said["verdict"].startswith("usable on " if said["usable"] else "not usable: ")
    return {finding["name"]: finding for finding in said["findings"]}, said["verdict"]


def test_where_all_is_well(doctor, tmp_path):
    done = doctor("--json", "--save-dir", tmp_path / "runs" / "new")
    found, verdict = parsed(done)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert verdict == "usable on the CPU"
    steps = [finding for finding in found.values() if finding["group"] == "self-test"]
    assert [(step["name"], step["level"]) for step in steps] == [
        ("decode", "ok"), ("train step", "ok"), ("checkpoint", "ok")]
    assert "mxnet 0.0" in steps[0]["value"] and "cpu(0)" in steps[1]["value"]
    assert steps[2]["value"].endswith(f"in {tmp_path}")
    assert found["numpy"]["value"] == "1.23.5"
    assert found["MXNet"]["value"].startswith("1.9.1 (mxnet 1.9.1), /")
    assert "oneDNN" in found["MXNet's build"]["value"]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_numpy_is_a_finding_and_the_rest_is_looked_at(doctor, tmp_path):
    fake_cuda.package(tmp_path / "fakes", "numpy", "1.26.4")
    done = doctor()
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert "  fault    numpy  " in done.stdout
    assert ("-> gluon_tricks needs numpy below 1.24 for MXNet 1.9.1, found 1.26.4: run `pip install"
            " numpy==1.23.5`") in done.stdout
    assert lines[-1] == "not usable: numpy"
    assert {"packages", "GPUs", "several devices", "machine", "self-test"} <= set(lines)
    assert "-> fix that first" in done.stdout  # MXNet would end in a traceback of its own
    assert "  ok       memory  " in done.stdout and "\033" not in done.stdout


def test_packages_that_do_not_load(doctor, fake):
    fake("mxnet", "import os\nos.kill(os.getpid(), 11)", "1.9.1")
    fake("mxnet", "import os\nos.kill(os.getpid(), 11)", "1.9.1", "mxnet-cu112")
    fake("cv2", "raise ImportError('libGL.so.1: cannot open shared object file', name='cv2')")
    done = doctor("--json")
    found, verdict = parsed(done)
    assert (done.returncode, done.stderr) == (1, "")
    assert found["MXNet"]["value"] == "does not load: crashed (SIGSEGV)"
    assert found["Horovod"]["level"] == "ok"  # it was not tried
    assert found["MXNet's packages"]["level"] == found["GluonCV"]["level"] == "warning"
    assert "libGL.so.1" in found["OpenCV"]["value"]
    assert "&& pip install --no-deps opencv-python-headless==" in found["OpenCV"]["remedy"]
    assert found["all steps"]["value"] == "not run: MXNet has a fault"
    assert found["CUDA's libraries"]["value"].startswith("16 of 16 do not load: libcudart.so.11.0,")
    assert verdict == "not usable: MXNet, OpenCV, CUDA's libraries"


def test_no_packages_at_all(doctor):
    """Python without site-packages: not even this package is installed."""
    done = doctor("--json", options=["-S"], PYTHONPATH="")
    found, verdict = parsed(done)
    assert (done.returncode, done.stderr) == (1, "")
    assert found["numpy"]["value"] == "not installed"
    assert "numpy" in verdict


@pytest.mark.parametrize(("devices", "arguments", "verdict", "levels"), [
    ([A10], [], "usable on 1 GPU", ["ok"]),
    ([A10, H100], ["--num-gpus", "1"], "usable on 1 GPU", ["ok", "warning"]),
    ([A10, A10], [], "usable on 1 GPU", ["ok", "ok"]),  # for Horovod cannot load with this MXNet
    ([H100], ["--num-gpus", "1"], "not usable: GPU 0, MXNet's GPUs", ["fault"]),
    ([H100], [], "usable on the CPU", ["warning"])])
def test_gpus(doctor, fake, tmp_path, devices, arguments, verdict, levels):
    fake_cuda.driver(tmp_path / "driver", *devices)
    fake("mxnet", MXNET % len(devices), "1.9.1")
    fake("gluoncv", "")
    fake("gluoncv/model_zoo", "")
    done = doctor("--json", "--no-self-test", *arguments, LD_LIBRARY_PATH=str(tmp_path / "driver"))
    found, said = parsed(done)
    assert (said, done.stderr) == (verdict, "")
    gpus = [found[f"GPU {number}"] for number in range(len(devices))]
    assert [gpu["level"] for gpu in gpus] == levels
    assert gpus[0]["value"].startswith(f"{devices[0][0]}, 14.9 GiB, sm_{devices[0][1]}")
    assert ("refused, Hopper, too new" in gpus[0]["value"]) == (devices[0] == H100)
    assert found["NVIDIA's driver"]["value"].startswith(f"CUDA up to 12.2, {tmp_path}/driver/")
    assert found["all steps"]["value"] == "not run: --no-self-test"


def test_a_driver_that_does_not_start(doctor, fake, tmp_path):
    fake_cuda.driver(tmp_path / "driver", A10, init=803)
    fake("mxnet", MXNET % 1, "1.9.1")
    done = doctor("--json", "--no-self-test", "--num-gpus", "1",
                  LD_LIBRARY_PATH=str(tmp_path / "driver"))
    found, _ = parsed(done)
    said = "cuInit says CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)"
    assert (found["NVIDIA's driver"]["level"], found["NVIDIA's driver"]["value"]) == ("fault", said)
    assert said in found["MXNet's GPUs"]["remedy"]


def test_the_cpu_build_beside_a_gpu(doctor, fake, tmp_path):
    """And a folder that cannot be written is a fault of its own."""
    fake_cuda.driver(tmp_path / "driver", A10)
    fake("mxnet", (MXNET % 0).replace('"CUDA", "CUDNN", "NCCL", ', ""), "1.9.1")
    fake("gluoncv", "")
    fake("gluoncv/model_zoo", "")
    done = doctor("--json", "--dir", "/proc/runs", LD_LIBRARY_PATH=str(tmp_path / "driver"))
    found, verdict = parsed(done)
    assert verdict == "not usable: run folder"
    assert found["MXNet's GPUs"]["value"] == "0 of 1: it is the CPU build"
    assert found["all steps"]["value"] == "not run: run folder has a fault"
    # mxnet-cu112 next to it does not matter while its files are the CPU build's.
    fake("mxnet", (MXNET % 0).replace('"CUDA", "CUDNN", "NCCL", ', ""), "1.9.1", "mxnet-cu112")
    found, verdict = parsed(doctor("--json", "--no-self-test", "--dir", tmp_path))
    assert (found["CUDA's libraries"]["level"], verdict) == ("ok", "usable on the CPU")


@pytest.mark.parametrize("arguments", [["--num-gpus", "-1"], ["--num-gpus", "x"], ["--gpus"]])
def test_wrong_flags(doctor, arguments):
    done = doctor(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
