"""What ranks send each other: three real ones, a single one, and how a process finds its rank."""

import argparse
import json
import sys
from collections import Counter

import mxnet as mx
import pytest

from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.parallel.ranks import (
    Horovod,
    infer_device_count,
    is_peer_failure,
    join,
    peer_failure_message,
    start_ranks,
)

ELSEWHERE = ["ReportedByAnotherRank", "2"]
MEND = ": start all ranks with the same flags, on the same data, with the same versions"


@pytest.fixture(scope="module")
def said(tmp_path_factory, in_ranks):
    """said(name): what that function of calls_in_ranks.py returned on three ranks, in order."""
    folder = tmp_path_factory.mktemp("said")
    done = in_ranks(3, "calls_in_ranks.py", folder)
    assert done.returncode == 0, done.stderr
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]
    return lambda name: [each[name] for each in found]


def test_each_rank_knows_its_place(said):
    assert said("place") == [[0, 3, 0, True], [1, 3, 1, False], [2, 3, 2, False]]


def test_ranks_of_another_number_are_refused(said):
    assert said("join") == [["InputError", "4 ranks were asked for, but Horovod joins 3: start "
                             "them with horovodrun, which tells each their number"]] * 3


def test_gathered_values_come_in_the_order_of_ranks(said):
    assert said("gather") == [[
        [{"name": "Größe \u2028 \u2603", "inner": [1, [None, 2.5, True]]}, None,
         ["x" * 300_000, 9007199254740993]], [0, 1, 2], ["", "", ""]]] * 3


@pytest.mark.parametrize(("name", "expected"), [
    ("broadcast_object", [[0, "a"], None]),
    ("sums", [[3 * 2.0**40 + 3, 0.1 + 0.1 + 0.1, 0.0], [3 * 2.0**53 - 24], [float("inf")]]),
    ("union", [[1, 5, 9], []]),
    ("every", [True, False, True]),
    ("average", [["float32", [3.0, -1.0]], ["float32", [0.25]]]),
])
def test_all_ranks_have_the_same_result(said, name, expected):
    assert said(name) == [expected] * 3


def test_sums_under_way_do_not_mix(said):
    first = [[30.0 * number + 3, 3.0 * number] for number in range(4)]
    later = [[3.0 * number, 3.0] for number in range(7)]
    assert said("sums_later") == [[first + later, [3.0] * 9]] * 3


def test_sums_that_are_waited_for_take_no_name_of_one_under_way():
    """Horovod refuses a name that is in flight; at most three are, besides a new one."""
    class Hvd:
        Sum = None

        def allreduce(self, array, op, name):
            names.append(name)
            return array

    ranks, names, polls = object.__new__(Horovod), [], []
    ranks._hvd, ranks._sums = Hvd(), Counter()
    for waited in (0, 1, 2, 3, 3, 0, 1, 1, 1):
        ranks.allreduce_async([1.0, 2.0])
        polls.append(names[-1])
        for _ in range(waited):
            ranks.allreduce([1.0])
    assert all(len(set(polls[i:i + 4])) == 4 for i in range(len(polls) - 3))
    assert len(set(names)) == 8


def test_arrays_are_the_first_rank_s(said):
    assert said("broadcast") == [[
        ["float16", [[0.5] * 3] * 2], ["int32", [2.0**24 + 1]],
        ["float32", [pytest.approx(0.1, rel=1e-7)] * 3],
        ["float32", [1.0] * 4], ["float32", [[1.0] * 2] * 2]]] * 3


@pytest.mark.parametrize(("name", "divisor"), [
    ("plain", 3.0), ("one group", 3.0), ("two", 3.0), ("99", 3.0), ("compressed", 3.0),
    ("compressed in groups", 3.0), ("predivided", 12.0), ("predivided, compressed", 12.0),
    ("predivided in a group", 12.0)])
def test_gradients_are_added_up_and_divided(said, name, divisor):
    """3 + 12 + 48; 6 at one rank; 0 - 3 - 6 and 3 / 1024; three times 9."""
    close = 1e-3 if "compressed" in name else 1e-6

    def near(value):
        return pytest.approx(value / divisor, rel=close)
    assert [found[name] for found in said("gradients")] == [[
        divisor, ["float32", [near(63.0)] * 5], ["float16", [[near(6.0)] * 2] * 2],
        ["float32", [near(-9.0), near(3 / 1024)]], ["float32", [near(27.0)]]]] * 3


def test_no_sum_in_fp16_overflows_where_no_gradient_does(said):
    for found in said("large_gradients"):
        assert found == {"mean": [3.0, "60000.0"], "mean in a group": [3.0, "60000.0"],
                         "sum": [1.0, "inf"], "one rank's": [3.0, "inf"],
                         "compressed": [3.0, "60000.0"], "compressed sum": [1.0, "inf"],
                         "compressed, larger": [9.0, "60000.0"]}


def test_where_one_fails_all_leave_and_the_first_says_why(said):
    texts = [None, "a.rec is missing", "rank 1: b.rec is missing", "rank 1: b.rec is missing",
             "a.rec is missing", "a.rec is missing"]
    first, *others = said("all_or_none")
    assert first == [text and ["InputError", text] for text in texts]
    assert others == [[text and ELSEWHERE for text in texts]] * 2


def test_ranks_that_differ_are_named_with_what_differs(said):
    first, *others = said("check_same")
    assert first == [None, ["InputError", f"rank 1 has --lr 0.5, rank 0 has 0.1{MEND}"],
                     ["InputError", f"rank 2 has --more 1, rank 0 has None{MEND}"],
                     ["InputError", f"rank 1 has mean None, rank 0 has [1.0, 2.0]{MEND}"]]
    assert others == [[None, ELSEWHERE, ELSEWHERE, ELSEWHERE]] * 2


def test_what_all_know_is_said_once(said):
    assert said("once") == [[["InputError", "no file"], ["RunFault", "no luck"]],
                            [ELSEWHERE, ["ReportedByAnotherRank", "1"]],
                            [ELSEWHERE, ["ReportedByAnotherRank", "1"]]]


@pytest.fixture
def alone(monkeypatch):
    """A single process in which Horovod cannot be imported."""
    monkeypatch.setitem(sys.modules, "horovod", None)
    with join(1) as ranks:
        yield ranks


def test_a_process_alone_is_the_first_of_one(alone):
    assert (alone.rank, alone.size, alone.local_rank, alone.first) == (0, 1, 0, True)


def test_alone_all_is_as_it_is(alone):
    assert alone.allgather_object({"a": (1, None)}) == [{"a": [1, None]}]
    assert alone.broadcast_object([1, "b"]) == [1, "b"]
    assert alone.allreduce([2.0**40 + 1, 0.1]) == alone.allreduce_async([2.0**40 + 1, 0.1])() == [
        1099511627777.0, 0.1]
    assert alone.union([3, 1, 3]) == {1, 3}
    assert (alone.all(True), alone.all(False)) == (True, False)
    arrays = {"a": mx.nd.array([1.0, 2.0])}
    alone.broadcast(arrays)
    alone.average(arrays)
    for options in ({}, {"groups": 2}, {"compress": True}, {"predivide": 8.0}):
        assert alone.allreduce_gradients(list(arrays.values()), **options) == 1.0
    assert arrays["a"].asnumpy().tolist() == [1.0, 2.0]


def test_alone_errors_are_said_as_they_are(alone):
    for error in (InputError("a"), RunFault("b")):
        assert alone.agreed_error(error) is error
    alone.check_same({"--seed": 1})
    with alone.all_or_none():
        pass
    with pytest.raises(InputError, match=r"^no such file$"), alone.all_or_none():
        raise InputError("no such file")
    with pytest.raises(KeyError), alone.all_or_none():
        raise KeyError("a bug")


def test_no_module_imports_horovod(run_python):
    done = run_python("""
        import importlib, pkgutil, sys, gluon_tricks
        names = [each.name for each in pkgutil.walk_packages(gluon_tricks.__path__, "gluon_tricks.")
                 if not each.name.startswith("gluon_tricks._native.")]
        for name in names:
            importlib.import_module(name)
        print("gluon_tricks.engine.train" in names, "horovod" in sys.modules)
        """)
    assert done.stdout == "True False\n", done.stderr


def test_several_ranks_without_horovod_are_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(InputError, match=r"several ranks need Horovod .*pip install"):
        join(2)


@pytest.fixture
def started(monkeypatch):
    """started(variables, gpus): the environment of one of several ranks."""
    def start(variables, gpus=0):
        for name in ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("mxnet.context.num_gpus", lambda: gpus)
    return start


EIGHT = {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "8"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "8"}


@pytest.mark.parametrize(("variables", "gpus", "given", "taken"), [
    (EIGHT, 0, (0, 0), (0, 8)), (EIGHT, 4, (0, 0), (8, 0)), (EIGHT, 0, (8, 0), (8, 0)),
    (EIGHT, 4, (0, 8), (0, 8)), (OPEN_MPI, 0, (0, 0), (0, 8)), (MPICH, 1, (0, 0), (8, 0)),
    ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"}, 1, (0, 0), (0, 0)),
    ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"}, 1, (1, 0), (1, 0)),
    ({"PMI_RANK": "0", "PMI_SIZE": "1"}, 0, (0, 2), (0, 2)),  # srun -n 1 starts the launcher
    ({}, 4, (0, 0), (0, 0)), ({}, 4, (4, 0), (4, 0)), ({}, 0, (0, 3), (0, 3))], ids=str)
def test_started_ranks_are_counted_where_no_flag_does(started, variables, gpus, given, taken):
    started(variables, gpus)
    flags = argparse.Namespace(num_gpus=given[0], num_cpu_ranks=given[1])
    infer_device_count(flags)
    assert (flags.num_gpus, flags.num_cpu_ranks) == taken


@pytest.mark.parametrize(("variables", "given", "said"), [
    (EIGHT, (4, 0), "--num-gpus 4, but 8 ranks"), (OPEN_MPI, (0, 3), "--num-cpu-ranks 3, but 8")],
    ids=str)
def test_another_number_of_started_ranks_is_refused(started, variables, given, said):
    started(variables)
    with pytest.raises(InputError, match=f"^{said}"):
        infer_device_count(argparse.Namespace(num_gpus=given[0], num_cpu_ranks=given[1]))


def test_local_ranks_need_a_gpu_each(started):
    for found, said in ((0, "--num-gpus 8: MXNet sees no GPU here"),
                        (4, "--num-gpus 8: MXNet sees 4 here; use --num-gpus 4")):
        started({}, found)
        with pytest.raises(InputError, match=f"^{said}"):
            start_ranks(8, 0)


@pytest.mark.parametrize(("said", "shown"), [
    ("MXNetError: Horovod has been shut down. This was caused by", ""),
    ("Traceback\n[pair.cc:589] Read error [127.0.0.1]:24785: Connection reset by peer",
     " ([pair.cc:589] Read error [127.0.0.1]:24785: Connection reset by peer)")])
def test_a_lost_peer_is_told_from_other_faults(said, shown):
    assert is_peer_failure(RuntimeError(said))
    assert not is_peer_failure(RuntimeError("Check failed: shapes differ"))
    assert peer_failure_message(RuntimeError(said)) == (
        "another rank exited; this one cannot continue" + shown)
