"""Findings on GPUs and on several devices, of what children said."""

import pytest

from gluon_tricks.doctor import gpus
from gluon_tricks.doctor.child import Answer
from gluon_tricks.machine.gpus import Gpu, why_not

DRIVER = {"driver": True, "kernel": None, "file": "/lib/libcuda.so.535"}
A10, H100 = ("NVIDIA A10", 24 << 30, (8, 6)), ("NVIDIA H100", 80 << 30, (9, 0))


def seen(*devices, cuda=12020):
    described = [Gpu(number, *device) for number, device in enumerate(devices)]
    return Answer([DRIVER, {"cuda": cuda},
                   *({"gpu": list(gpu), "why_not": why_not(gpu)} for gpu in described)], None)


def levels(found):
    return {finding.name: finding.level for finding in found}


@pytest.mark.parametrize(("devices", "wanted", "expected", "usable"), [
    ([A10], 0, {"GPU 0": "ok"}, 1), ([A10, A10], 2, {"GPU 0": "ok", "GPU 1": "ok"}, 2),
    ([H100], 0, {"GPU 0": "warning"}, 0), ([H100], 1, {"GPU 0": "fault"}, 0),
    ([A10, H100], 1, {"GPU 0": "ok", "GPU 1": "warning"}, 1),
    # A run uses the first ones: those behind a refused one cannot be used.
    ([H100, A10], 1, {"GPU 0": "fault", "GPU 1": "ok"}, 0),
    ([], 0, {"GPUs": "warning"}, 0), ([], 1, {"GPUs": "fault"}, 0)])
def test_gpus(devices, wanted, expected, usable):
    found, ready = gpus.driver(seen(*devices), True, wanted)
    assert levels(found) == {"NVIDIA's driver": "ok", **expected}
    assert [gpu.number for gpu in ready] == list(range(usable))
    for finding in found:
        assert bool(finding.remedy) == (finding.level != "ok")


@pytest.mark.parametrize(("cuda", "level"), [(11000, "warning"), (11070, "warning"),
                                             (11080, "ok")])
def test_a_driver_older_than_the_compiler(cuda, level):
    found, ready = gpus.driver(seen(A10, cuda=cuda), True, 1)
    assert levels(found) == {"NVIDIA's driver": level, "GPU 0": "ok"} and len(ready) == 1
    assert ("MXNET_USE_FUSION=0" in found[0].remedy) == (level == "warning")


def test_a_gpu_in_words():
    good, bad = gpus.driver(seen(A10, H100), True, 0)[0][1:]
    assert good.value == "NVIDIA A10, 24.0 GiB, sm_86"
    assert bad.value.startswith("NVIDIA H100, 80.0 GiB, sm_90: refused, Hopper, too new: ")


@pytest.mark.parametrize(("answer", "part"), [
    (Answer([DRIVER, {"fault": "cuInit says error (999)"}], None), "cuInit says error (999)"),
    (Answer([], "took too long and was ended"), "took too long"),
    (Answer([{"error": "AttributeError: cuInit", "remedy": ""}], None), "AttributeError"),
    (seen(A10, cuda=10020), "CUDA up to 10.2"),
    (Answer([{"driver": False, "kernel": None, "file": None}], None), "none")])
@pytest.mark.parametrize(("wanted", "level"), [(0, "warning"), (1, "fault")])
def test_a_driver_that_does_not_work(answer, part, wanted, level):
    found, ready = gpus.driver(answer, True, wanted)
    assert ([finding.level for finding in found], ready) == ([level], [])
    assert part in found[0].value and found[0].remedy


def test_the_cpu_build_needs_no_driver():
    none = Answer([{"driver": False, "kernel": None, "file": None}], None)
    assert levels(gpus.driver(none, False, 0)[0]) == {"NVIDIA's driver": "ok"}
    assert levels(gpus.libraries(Answer([], None), False)) == {"CUDA's libraries": "ok"}


def test_libraries(monkeypatch):
    monkeypatch.setattr(gpus, "installed", dict)
    found = gpus.libraries(Answer([
        {"soname": "libcudart.so.11.0", "file": "/cuda/libcudart.so.11.2.72", "wheel": False},
        {"soname": "libnccl.so.2", "error": "libnccl.so.2: cannot open shared object file: No"}],
        None), True)
    assert levels(found) == {"libcudart.so.11.0": "ok", "CUDA's libraries": "fault"}
    assert found[1].value.startswith("1 of 2 do not load: libnccl.so.2 (libnccl.so.2: cannot open")
    assert found[0].value == "libcudart.so.11.2.72, /cuda/libcudart.so.11.2.72"
    assert "pip install --no-deps --require-hashes -r docker/requirements-gpu.txt`" \
        in found[1].remedy
    assert levels(gpus.libraries(Answer([], "crashed (SIGBUS)"), True)) == {
        "CUDA's libraries": "fault"}


@pytest.mark.parametrize(("mine", "usable", "builds", "expected", "count"), [
    (0, 0, False, {}, 0), (2, 2, True, {"MXNet's GPUs": "ok"}, 2),
    (0, 2, False, {"MXNet's GPUs": "warning"}, 0), (0, 2, True, {"MXNet's GPUs": "warning"}, 0),
    (2, 1, True, {"MXNet's GPUs": "ok"}, 1)])
def test_how_many_a_run_can_have(mine, usable, builds, expected, count):
    found, ready = gpus.seen(Answer([{"gpus": mine, "refusal": None}], None), usable, builds, 0)
    assert (levels(found), ready) == (expected, count)
    if usable and not builds:
        assert found[0].value == "0 of 2: it is the CPU build"
        assert "mxnet && pip install --no-deps --require-hashes -r docker/requirements-gpu.txt`" \
            in found[0].remedy


def test_more_than_there_are():
    (finding,), count = gpus.seen(Answer([{"gpus": 1, "refusal": "--num-gpus 2: why"}], None), 1,
                                  True, 2)
    assert (finding.level, finding.remedy, count) == ("fault", "--num-gpus 2: why", 1)


BUILT = {"gloo": True, "nccl": 0, "mpi": False}


@pytest.mark.parametrize(("reports", "builds", "wanted", "expected", "joins"), [
    ([BUILT], False, 0, {"Horovod": "ok"}, True), ([BUILT], True, 2, {"Horovod": "warning"}, True),
    ([{**BUILT, "nccl": 21605}], True, 2, {"Horovod": "ok"}, True),
    ([BUILT, {"host": "a: unknown"}], False, 0, {"Horovod": "ok", "host name": "warning"}, True),
    ([{"error": "without Gloo", "remedy": "x"}], False, 0, {"Horovod": "warning"}, False),
    ([{"error": "without Gloo", "remedy": "x"}], True, 2, {"Horovod": "fault"}, False)])
def test_horovod(monkeypatch, reports, builds, wanted, expected, joins):
    monkeypatch.setattr(gpus, "installed", lambda: {"horovod": "0.28.1"})
    found, able = gpus.horovod(Answer(reports, None), builds, wanted)
    assert (levels(found), able) == (expected, joins)


@pytest.mark.parametrize(("wanted", "level"), [(0, "ok"), (1, "ok"), (2, "fault")])
def test_several_devices_alone_need_horovod(monkeypatch, wanted, level):
    monkeypatch.setattr(gpus, "installed", dict)
    (finding,), able = gpus.horovod(Answer([{"error": "a", "remedy": "several ranks need"}], None),
                                    True, wanted)
    assert (finding.level, able) == (level, False)
    assert finding.remedy == "several ranks need"
