"""Which cores a run may use."""

import os
import subprocess
import sys

import pytest

from gluon_tricks.machine import processor


def topology(folder, siblings):
    for thread, line in enumerate(siblings):
        (folder / f"cpu{thread}" / "topology").mkdir(parents=True)
        if line:
            (folder / f"cpu{thread}" / "topology" / "thread_siblings_list").write_text(line + "\n")
    return folder


@pytest.mark.parametrize(("siblings", "allowed", "cores"), [
    (["0,2", "1,3", "0,2", "1,3"], {0, 1, 2, 3}, 2),
    (["0,2", "1,3", "0,2", "1,3"], {0, 2}, 1),
    (["0", "1", "2", "3"], {0, 1, 3}, 3),
    (["", ""], {0, 1}, 2)])
def test_two_threads_of_a_core_count_once(tmp_path, monkeypatch, siblings, allowed, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    assert processor.physical_cores(topology(tmp_path, siblings)) == cores


@pytest.mark.parametrize(("siblings", "allowed", "ranks", "shares"), [
    (["0,4", "1,5", "2,6", "3,7"] * 2, range(8), 2, [[0, 4, 1, 5], [2, 6, 3, 7]]),
    (["0-1", "0-1", "2-3", "2-3"], range(4), 2, [[0, 1], [2, 3]]),
    (["0,4", "1,5", "2,6", "3,7"] * 2, {1, 2, 3, 6, 7}, 3, [[1], [2, 6], [3, 7]]),
    (["0", "1", "2", "3", "4"], range(5), 2, [[0, 1], [2, 3]]),
    (["", "", ""], range(3), 3, [[0], [1], [2]]),
    (["0-1", "0-1"], range(2), 2, None)])
def test_ranks_get_whole_cores_and_as_many_each(tmp_path, monkeypatch, siblings, allowed, ranks,
                                                shares):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed))
    assert processor.partition_cores(ranks, topology(tmp_path, siblings)) == shares


@pytest.mark.parametrize(("environment", "count", "share"), [
    ({}, 8, 8), ({"HOROVOD_LOCAL_SIZE": "3"}, 8, 2), ({"HOROVOD_LOCAL_SIZE": "8"}, 4, 1),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 8, 4), ({"HOROVOD_SIZE": "4"}, 8, 8),
    ({"HOROVOD_LOCAL_SIZE": "2", "GLUON_TRICKS_CORES": "0,1"}, 8, 8)])
def test_ranks_share_what_the_machine_has(monkeypatch, environment, count, share):
    for name in ("HOROVOD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "GLUON_TRICKS_CORES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processor.cores_for_this_rank(count) == share


def test_the_threads_that_a_launcher_took_are_shared_by_its_ranks(monkeypatch):
    """Its choice is inherited like a user's, but is not kept like one."""
    monkeypatch.setattr(processor, "physical_cores", lambda: 6)
    for name in ("OMP_NUM_THREADS", "GLUON_TRICKS_OMP_THREADS"):
        monkeypatch.setenv(name, "")  # so that both are restored
        monkeypatch.delenv(name)
    processor.use_all_cores()
    assert os.environ["OMP_NUM_THREADS"] == "6"
    monkeypatch.setenv("HOROVOD_LOCAL_SIZE", "3")
    processor.use_all_cores()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    processor.use_all_cores()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_a_choice_of_threads_stands(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    processor.use_all_cores()
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_script_s_mxnet_computes_on_all_cores():
    """By default it uses half of the processors."""
    code = ("import ctypes\nfrom gluon_tricks import cli\n"
            "def main():\n    import mxnet\n"
            "    print(ctypes.CDLL('libgomp.so.1').omp_get_max_threads())\ncli.run(main)")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == processor.physical_cores()


@pytest.mark.parametrize(("flags", "has"), [("sse avx512_bf16 amx_bf16", True), ("sse avx512bw",
                                                                                 False)])
def test_bfloat16_is_told_by_the_processor_s_flags(tmp_path, flags, has):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert processor.has_bfloat16(tmp_path / "cpuinfo") is has
    assert not processor.has_bfloat16(tmp_path / "nothing")
