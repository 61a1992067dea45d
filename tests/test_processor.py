"""What of the processor a run may use."""

import os
import subprocess
import sys

import pytest

from gluon_tricks import processor


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


def test_a_choice_of_threads_stands(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    processor.use_all_cores()
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_script_s_mxnet_computes_on_all_cores():
    """Left to itself it takes half of the processors."""
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
