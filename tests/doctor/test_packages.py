"""Findings on packages, of what children said and pip knows."""

import sys
from pathlib import Path

import pytest

import gluon_tricks
from gluon_tricks.doctor import packages
from gluon_tricks.doctor.child import Answer

FEATURES = dict.fromkeys(("MKLDNN", "OPENMP", "BLAS_OPEN", "LAPACK", "OPENCV"), True)
LOADED = {"version": "1.9.1", "file": "/site/mxnet/__init__.py", "features": FEATURES}
ENOUGH = {"gpus": 0, "refusal": None}
HEADLESS = "pip install --no-deps opencv-python-headless==4.11.0.86"
CV = {"version": "4.11.0", "file": "x", "gui": "NONE", "jpeg": "yes"}


@pytest.fixture
def pip(monkeypatch):
    """pip(installed, pinned=...): what is installed and what is to be."""
    def set_up(here, pins=None, needs=()):
        monkeypatch.setattr(packages, "installed", lambda: here)
        monkeypatch.setattr(packages, "pinned", lambda: pins or {})
        monkeypatch.setattr(packages, "required", lambda: set(needs))
    return set_up


def level_of(found):
    return {finding.name: finding.level for finding in found}


def test_what_is_installed_here():
    assert packages.installed()["numpy"] == "1.23.5"
    assert packages.pinned()["mxnet"] == "1.9.1"
    assert {"numpy", "gluoncv", "opencv-python", "tqdm"} <= packages.required()
    assert not packages.required() & {"mxnet", "mxnet-cu112", "onnx", "pytest"}


def test_python():
    assert packages.python(None)[0].level == "ok"
    # Of the right Python a problem is NumPy's.
    problem = gluon_tricks._problem((3, 11, 2), "2.0.1")
    assert packages.python(problem)[0].level == "ok"


def test_another_python_is_the_fault_and_numpy_is_not(monkeypatch, pip):
    problem = gluon_tricks._problem((3, 12, 1), "1.23.5")
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    finding, = packages.python(problem)
    assert (finding.level, finding.remedy) == ("fault", problem)
    pip({"numpy": "1.23.5"})
    assert level_of(packages.numpy(problem, Answer([{"version": "1.23.5", "file": ""}], None))) \
        == {"numpy": "ok"}


@pytest.mark.parametrize(("here", "loads", "level", "said"), [
    ("1.23.5", "1.23.5", "ok", "1.23.5"),
    ("1.23.5", "1.26.4", "fault", "pip says 1.23.5, but Python loads 1.26.4 (/other/numpy)"),
    (None, "1.23.5", "fault", "not installed")])
def test_numpy(pip, here, loads, level, said):
    pip({"numpy": here} if here else {})
    answer = Answer([{"version": loads, "file": "/other/numpy"}], None)
    finding, = packages.numpy(None, answer)
    assert (finding.level, finding.value, bool(finding.remedy)) == (level, said, level != "ok")


def test_numpy_that_crashes(pip):
    pip({"numpy": "1.23.5"}, {"numpy": "1.23.5"})
    finding, = packages.numpy(None, Answer([], "crashed (SIGSEGV)"))
    assert (finding.level, finding.value) == ("fault", "does not load: crashed (SIGSEGV)")
    assert finding.remedy == "`pip install --force-reinstall --no-deps numpy==1.23.5`"


def test_mxnet(pip):
    pip({"mxnet": "1.9.1"})
    one, two = packages.mxnet(Answer([LOADED, ENOUGH], None), 0)
    assert (one.level, one.value) == ("ok", "1.9.1 (mxnet 1.9.1), /site/mxnet")
    assert (two.level, two.value) == ("ok", "with oneDNN, OpenMP, OpenBLAS, LAPACK, OpenCV; "
                                            "without CUDA, cuDNN, NCCL")


def test_both_of_mxnets_packages(pip):
    pip({"mxnet": "1.9.1", "mxnet-cu112": "1.9.1", "numpy": "1.23.5"})
    found = packages.mxnet(Answer([LOADED, ENOUGH], None), 0)
    assert level_of(found) == {"MXNet's packages": "warning", "MXNet": "ok", "MXNet's build": "ok"}
    assert "mxnet 1.9.1, mxnet-cu112 1.9.1: they overwrite" in found[0].value
    assert found[0].remedy.startswith(
        "`pip uninstall -y mxnet mxnet-cu112 && pip install --no-deps --require-hashes -r ")


@pytest.mark.parametrize(("answer", "said"), [
    (Answer([{"error": "OSError: a", "remedy": "b"}], None), ("does not load: OSError: a", "b")),
    (Answer([], "crashed (SIGILL)"), ("does not load: crashed (SIGILL)",
                                      "`pip install --force-reinstall --no-deps mxnet-cu112`")),
    (Answer([], "took too long and was ended"), (
        "does not load: took too long and was ended",
        "`pip install --force-reinstall --no-deps mxnet-cu112`"))])
def test_mxnet_that_does_not_load(pip, answer, said):
    pip({"mxnet-cu112": "1.9.1"})
    finding, = packages.mxnet(answer, 0)
    assert (finding.level, finding.value, finding.remedy) == ("fault", *said)


@pytest.mark.parametrize(("change", "num_gpus", "level", "part"), [
    ({"CUDA": True, "CUDNN": True}, 1, "ok", "with CUDA, cuDNN, oneDNN"),
    ({}, 1, "fault", "--num-gpus 1 needs CUDA"),
    ({"MKLDNN": False}, 0, "warning", "convolutions on the CPU"),
    ({"MKLDNN": False, "ONEDNN": True}, 0, "ok", "oneDNN"),
    ({"OPENMP": False}, 0, "warning", "it computes on one core")])
def test_how_mxnet_was_built(pip, change, num_gpus, level, part):
    pip({"mxnet": "1.9.1"})
    answer = Answer([{**LOADED, "features": {**FEATURES, **change}}, ENOUGH], None)
    finding = packages.mxnet(answer, num_gpus)[-1]
    assert (finding.level, part in finding.value) == (level, True)
    assert bool(finding.remedy) == (level != "ok")


@pytest.mark.parametrize(("here", "gui", "level", "part"), [
    ({"opencv-python": "4.11.0.86"}, "QT5", "ok", "with windows (QT5)"),
    ({"opencv-python-headless": "4.11.0.86"}, "NONE", "ok", "headless (opencv-python-headless"),
    ({"opencv-python-headless": "4.9.0.80"}, "NONE", "warning",
     "(opencv-python-headless 4.9.0.80); 4.11.0.86 works with the rest"),
    ({"opencv-python": "4.11.0.86", "opencv-python-headless": "4.11.0.86"}, "NONE", "warning",
     "(opencv-python 4.11.0.86, opencv-python-headless 4.11.0.86: they overwrite each other's")])
def test_opencv(pip, here, gui, level, part):
    pip(here, {"opencv-python": "4.11.0.86"})
    finding, = packages.opencv(Answer([{**CV, "gui": gui}], None))
    assert (finding.level, part in finding.value) == (level, True)
    remedy = f"`pip uninstall -y {' '.join(here)} && {HEADLESS}`"
    assert finding.remedy == (remedy if level != "ok" else "")


@pytest.mark.parametrize(("here", "gone"), [
    ({"opencv-python": "4.11.0.86"}, "pip uninstall -y opencv-python && "),
    ({"opencv-python-headless": "4.11.0.86", "opencv-python": "4.11.0.86"},
     "pip uninstall -y opencv-python opencv-python-headless && "),
    ({}, "")])
@pytest.mark.parametrize(("answer", "said"), [
    (Answer([{"error": "ImportError: libGL.so.1: cannot open", "remedy": "x"}], None),
     "does not load: ImportError: libGL.so.1: cannot open ("),
    # What uninstalling one of two leaves.
    (Answer([{"error": "ModuleNotFoundError: No module named 'cv2'", "remedy": ""}], None),
     "does not load: ModuleNotFoundError: No module named 'cv2' ("),
    (Answer([], "crashed (SIGSEGV)"), "does not load: crashed (SIGSEGV) (")])
def test_opencv_that_does_not_load_is_repaired_by_one_line(pip, here, gone, answer, said):
    pip(here)
    finding, = packages.opencv(answer)
    assert (finding.level, finding.remedy) == ("fault", f"`{gone}{HEADLESS}`")
    assert finding.value.startswith(said) and "\n" not in finding.value
    assert all(f"{name} {version}" in finding.value for name, version in here.items())


def test_the_headless_pin_is_the_locks():
    lock = (Path(gluon_tricks.__file__).parents[1] / "docker" / "requirements-cpu.txt").read_text()
    assert f"\n{HEADLESS.split()[-1]} \\\n" in lock


@pytest.mark.parametrize(("answer", "level", "remedy"), [
    (Answer([{"why_not": None}], None), "ok", ""),
    (Answer([{"why_not": "it was built from other sources: x"}], None), "warning",
     "it was built from other sources: x"),
    (Answer([], "crashed (SIGILL)"), "fault", "use --data-backend opencv")])
def test_the_native_decoder(answer, level, remedy):
    finding, = packages.native(answer)
    assert finding.level == level
    assert finding.remedy.startswith(remedy) and bool(finding.remedy) == bool(remedy)


def test_versions_that_were_not_tested(pip):
    pip({"onnx": "1.18.0", "numpy": "2.0", "tqdm": "4.70.1"},
        {"onnx": "1.16.2", "numpy": "1.23.5", "onnxruntime": "1.18.1"},
        {"numpy", "tqdm", "tabulate", "portalocker", "opencv-python", "gluoncv"})
    found = packages.others()
    assert level_of(found) == {"tensorboardX": "ok", "onnx": "warning", "onnxruntime": "ok",
                               "missing packages": "fault"}
    assert [(finding.value, finding.remedy) for finding in found
            if finding.level == "warning"] == [
        ("1.18.0; 1.16.2 works with the rest", "`pip install --no-deps onnx==1.16.2`")]
    assert [finding.value for finding in found if finding.level == "fault"] == [
        "portalocker, tabulate"]
    pip({"onnx": "1.16.2"}, {"onnx": "1.16.2"})
    assert packages.others()[-1].value == "all as this project pins them"
    pip({"onnx": "1.16.2"})
    assert packages.others()[-1].value == "not installed, run from its folder"
