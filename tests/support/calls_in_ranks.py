"""Every method of Ranks, called by real ranks: `calls_in_ranks.py FOLDER`.

Each writes what it got to FOLDER/RANK.json, by the names of the functions below.
"""

import json
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np

from gluon_tricks import cli
from gluon_tricks.errors import InputError, ReportedByAnotherRank, RunFault
from gluon_tricks.parallel import launch
from gluon_tricks.parallel.ranks import join


def raised(call):
    """The type and text of what a call raised; None if it returned."""
    try:
        call()
    except (InputError, ReportedByAnotherRank) as error:
        return [type(error).__name__, str(error)]


def described(arrays):
    return [[np.dtype(array.dtype).name, array.asnumpy().astype(float).tolist()]
            for array in arrays]


def gather(ranks):
    values = [{"name": "Größe \u2028 \N{SNOWMAN}", "inner": [1, [None, 2.5, True]]}, None,
              ["x" * 300_000, 2**53 + 1]]
    return [ranks.allgather_object(value) for value in (values[ranks.rank], ranks.rank, "")]


def broadcast_object(ranks):
    return [ranks.broadcast_object(value)
            for value in ([ranks.rank, "a"], None if ranks.first else 7)]


def sums(ranks):
    return [ranks.allreduce(numbers) for numbers in (
        [2.0**40 + ranks.rank, 0.1, 0.0], [2**53 - 9 + ranks.rank],
        [np.inf if ranks.rank == 1 else 0.0])]


def sums_later(ranks):
    """Four in flight, the last rank late, others waited for between them."""
    time.sleep(0.1 * ranks.rank)
    wait = [ranks.allreduce_async([10.0 * number + ranks.rank, number]) for number in range(4)]
    first = [each() for each in wait]
    wait, between = [], []
    for number in range(9):
        wait.append(ranks.allreduce_async([number, ranks.rank]))
        between += ranks.allreduce([1.0])
        if len(wait) > 2:
            first.append(wait.pop(0)())
    return [first, between]


def union(ranks):
    return [sorted(ranks.union([{1, 5}, set(), np.array([5, 9])][ranks.rank])),
            sorted(ranks.union(()))]


def every(ranks):
    return [ranks.all(True), ranks.all(ranks.rank != 2), ranks.all(np.bool_(True))]


def broadcast(ranks):
    """A name comes back with another shape and type."""
    mine = 1 + ranks.rank
    first = {"a": mx.nd.full((2, 3), mine / 2, dtype="float16"),
             "b": mx.nd.full((1,), 2**24 + mine, dtype="int32"),
             "c": mx.nd.full((3,), 0.1 * mine, dtype="float32")}
    ranks.broadcast(first)
    second = {"a": mx.nd.full((4,), mine, dtype="float32"), "c": mx.nd.full((2, 2), mine)}
    ranks.broadcast(second)
    ranks.broadcast({})
    return described([*first.values(), *second.values()])


def average(ranks):
    arrays = {"a": mx.nd.array([[1.0, 2.0, 6.0][ranks.rank], -1.0]),
              "b": mx.nd.array([[0.25, 0.0, 0.5][ranks.rank]])}
    ranks.average(arrays)
    mx.nd.waitall()
    return described(arrays.values())


def gradients(ranks):
    """By how they are reduced: what they were divided by, and the arrays."""
    found = {}
    for name, options in {"plain": {}, "one group": {"groups": 1}, "two": {"groups": 2},
                          "99": {"groups": 99}, "compressed": {"compress": True},
                          "compressed in groups": {"compress": True, "groups": 2},
                          "predivided": {"predivide": 12.0},
                          "predivided, compressed": {"predivide": 12.0, "compress": True},
                          "predivided in a group": {"predivide": 12.0, "groups": 1}}.items():
        arrays = [mx.nd.full((5,), 3.0 * 4**ranks.rank),
                  mx.nd.full((2, 2), 6.0 * (ranks.rank == 1), dtype="float16"),
                  mx.nd.array([-3.0 * ranks.rank, 2.0**-10]), mx.nd.full((1,), 9.0)]
        kept = list(arrays)
        divisor = ranks.allreduce_gradients(arrays, **options)
        found[name] = [divisor, *described(kept)]
    return found


def large_gradients(ranks):
    """FP16 near its largest number, 65504; FP32 beyond it, sent as FP16."""
    found = {}
    for name, dtype, size, options in (
            ("mean", "float16", 60_000, {}), ("mean in a group", "float16", 60_000, {"groups": 1}),
            ("sum", "float16", 60_000, {"predivide": 1.0}),
            ("one rank's", "float16", np.inf if ranks.rank == 2 else 1.0, {}),
            ("compressed", "float32", 60_000, {"compress": True}),
            ("compressed sum", "float32", 60_000, {"compress": True, "predivide": 1.0}),
            ("compressed, larger", "float32", 180_000, {"compress": True, "predivide": 9.0})):
        array = mx.nd.full((3,), size, dtype=dtype)
        divisor = ranks.allreduce_gradients([array], **options)
        found[name] = [divisor, str(float(array.asnumpy()[0]))]
    return found


def all_or_none(ranks):
    def act(failing):
        with ranks.all_or_none():
            if ranks.rank in failing:
                raise InputError(f"{'abc'[ranks.rank]}.rec is missing")
    return [raised(lambda failing=failing: act(failing))
            for failing in ((), (0,), (1,), (1, 2), (0, 2), (0, 1, 2))]


def check_same(ranks):
    seed = {"--seed": 5, "mean": (1.0, 2.0)}
    return [raised(lambda values=values: ranks.check_same(values)) for values in (
        seed, {**seed, "--lr": 0.5 if ranks.rank == 1 else 0.1},
        {**seed, **({"--more": 1} if ranks.rank == 2 else {})},
        seed if ranks.rank != 1 else {"--seed": 5})]


def once(ranks):
    return [[type(error).__name__, str(error)] for error in
            (ranks.agreed_error(InputError("no file")), ranks.agreed_error(RunFault("no luck")))]


def main():
    size = launch.launched_size()
    wrong = raised(lambda: join(size + 1))
    with join(size) as ranks:
        found = {"join": wrong, "place": [ranks.rank, ranks.size, ranks.local_rank, ranks.first]}
        for call in (gather, broadcast_object, sums, sums_later, union, every, broadcast, average,
                     gradients, large_gradients, all_or_none, check_same, once):
            found[call.__name__] = call(ranks)
        (Path(sys.argv[1]) / f"{ranks.rank}.json").write_text(json.dumps(found))


cli.run(main)
