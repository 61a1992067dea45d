"""Which GPUs are refused, and that it is said before CUDA is asked to compute."""

import ctypes
import os

import fake_cuda
import pytest
from processes import ROOT, python

from gluon_tricks.errors import InputError
from gluon_tricks.machine import gpus

H100, A10 = ("NVIDIA H100 80GB HBM3", 9, 0), ("NVIDIA A10", 8, 6)


def load(*arguments, **options):
    return ctypes.CDLL(str(fake_cuda.driver(*arguments, soname="libstand_in.so", **options)))


@pytest.mark.parametrize(("architecture", "runs"), [
    ((3, 5), False), ((3, 7), False), ((5, 0), True), ((5, 2), True), ((6, 0), True),
    ((6, 1), True), ((7, 0), True), ((7, 5), True), ((8, 0), True), ((8, 6), True),
    ((8, 7), True), ((8, 9), True), ((9, 0), False), ((10, 0), False), ((10, 3), False),
    ((12, 0), False)])
def test_which_architectures_have_code(architecture, runs):
    reason = gpus.why_not(gpus.Gpu(0, "a", 1, architecture))
    assert (reason is None) == runs
    if reason:
        assert reason.split()[:2] == {3: ["too", "old:"], 9: ["Hopper,", "too"]}.get(
            architecture[0], ["Blackwell", "or"])


def test_what_the_driver_says(tmp_path):
    driver = load(tmp_path, A10, H100)
    assert gpus.visible(driver) == [gpus.Gpu(0, "NVIDIA A10", 16_000_000_000, (8, 6)),
                                    gpus.Gpu(1, "NVIDIA H100 80GB HBM3", 16_000_000_000, (9, 0))]
    assert str(gpus.visible(driver)[0]) == "GPU 0 (NVIDIA A10, sm_86)"
    assert gpus.cuda_version(driver) == 12020


@pytest.mark.parametrize(("options", "expected"), [({}, []), ({"init": 100}, [])])
def test_no_gpu_is_for_mxnet_to_say(tmp_path, options, expected):
    driver = load(tmp_path, **options)
    assert gpus.visible(driver) == expected == gpus.visible(None)
    gpus.check(1, 1, driver)
    gpus.check(1, 1, None)


def test_only_those_that_a_run_takes_are_judged(tmp_path):
    driver = load(tmp_path, A10, H100)
    gpus.check(1, 1, driver)
    with pytest.raises(InputError) as caught:
        gpus.check(2, 2, driver)
    assert str(caught.value) == (
        "--num-gpus 2: GPU 1 (NVIDIA H100 80GB HBM3, sm_90) cannot be used: Hopper, too new: "
        "mxnet-cu112 has code only for sm_50 to sm_89, Maxwell to Ampere and Ada, and none that a "
        "driver could compile for newer ones; use --num-gpus 0, or choose other GPUs with "
        "CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(("code", "name"), [
    (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"), (999, "error")])
def test_a_driver_that_does_not_start(tmp_path, code, name):
    driver = load(tmp_path, A10, init=code)
    with pytest.raises(InputError, match=rf"cuInit says {name} \({code}\); check if nvidia-smi"):
        gpus.check(1, 1, driver)


def test_a_driver_that_is_too_old(tmp_path):
    gpus.check(1, 1, load(tmp_path / "new", A10, version=11000))
    with pytest.raises(InputError, match=r"supports CUDA up to 10\.2, but CUDA 11 is needed: inst"):
        gpus.check(1, 1, load(tmp_path / "old", A10, version=10020))


@pytest.mark.parametrize(("script", "arguments"), [
    ("train_imagenet.py", ["--model", "resnet18_v1b", "--benchmark", "1", "--num-gpus", "1"]),
    ("train_imagenet.py", ["--model", "resnet18_v1b", "--num-gpus", "2"]),  # by the launcher
    ("evaluate.py", ["--model", "resnet18_v1b", "--params", "a.params", "--num-gpus", "1"]),
    ("predict.py", ["--model", "resnet18_v1b", "--params", __file__, "--num-gpus", "1", __file__]),
])
def test_training_evaluating_and_predicting_refuse_alike(tmp_path, script, arguments):
    fake_cuda.driver(tmp_path, H100, H100)
    process = python(f"import runpy, sys; sys.argv = {[script, *arguments]!r}\n"
                     f"runpy.run_path({str(ROOT / 'scripts' / script)!r}, run_name='__main__')",
                     env={"LD_LIBRARY_PATH": os.fspath(tmp_path)}, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, ""), err
    line, = err.splitlines()
    assert line.startswith("error: --num-gpus ")
    assert "GPU 0 (NVIDIA H100 80GB HBM3, sm_90) cannot be used: Hopper, too new" in line
