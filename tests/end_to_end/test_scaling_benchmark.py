"""The measuring part of scripts/benchmarks/scaling.py: what it runs, counts and says."""

import importlib.util
import json
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.machine import processor

ROOT = Path(__file__).parents[2]
# In place of train_imagenet.py: notes how it was started, then does what a test tells it to.
STUB = """
    import json, os, sys, time
    from pathlib import Path
    cores, started = sorted(os.sched_getaffinity(0)), time.monotonic()
    flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    ranks = int(flags.get("--num-cpu-ranks", 1))
    batch = ranks * int(flags["--batch-size"])
    {body}
    print("something else first")
    print(f"{{[0, 100, 190][ranks]:.1f}} samples/s, 5 ms an update of {{batch}}, on made-up data")
    with open(Path(__file__).with_name("log"), "a") as log:
        log.write(json.dumps([flags, cores, os.environ["OMP_NUM_THREADS"], started,
                              time.monotonic()]) + "\\n")
"""


@pytest.fixture
def scaling():
    spec = importlib.util.spec_from_file_location("scaling",
                                                  ROOT / "scripts/benchmarks/scaling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(scaling, monkeypatch, tmp_path):
    """run(body, *arguments): the benchmark with STUB; returns what the stubs noted, in order."""
    if len(processor.cores()) < 2:
        pytest.skip("needs two cores")
    monkeypatch.setattr(scaling, "TRAIN", tmp_path / "stub.py")
    monkeypatch.setattr(scaling.launch, "require_horovod", lambda: None)

    def call(body: str, *arguments) -> list[list]:
        (tmp_path / "stub.py").write_text(textwrap.dedent(STUB).format(body=body))
        monkeypatch.setattr("sys.argv", ["scaling.py", *map(str, arguments)])
        scaling.main()
        return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    return call


@pytest.mark.alone
def test_ranks_and_the_control_are_pinned(run, scaling, capsys):
    (first, *_), (second, *_) = processor.cores()[:2]
    noted = run("time.sleep(0.5)", "--ranks", "1,2", "--rounds", 2, "--updates", 7,
                "--batch-size", 16, "--model", "resnet18_v1", "--num-classes", 3)
    assert len(noted) == 8
    alone, together, *apart = noted[:4]  # a round: one rank, two ranks, the control
    assert alone[0] == {"--benchmark": "7", "--model": "resnet18_v1", "--num-classes": "3",
                        "--input-size": "32", "--batch-size": "16"}
    assert together[0] == {**alone[0], "--num-cpu-ranks": "2"}
    assert [one[0] for one in apart] == [alone[0]] * 2
    assert (alone[1], together[1]) == ([first], [first, second])
    assert sorted(one[1] for one in apart) == [[first], [second]]
    assert max(one[3] for one in apart) < min(one[4] for one in apart)  # at the same time
    assert together[3] > alone[4] and min(one[3] for one in apart) > together[4]
    assert {one[2] for one in noted} == {"1"}
    assert [len(one[1]) for one in noted[4:]] == [1, 1, 2, 1]  # the next round goes back
    out = capsys.readouterr().out
    assert "2 ranks: weak scaling efficiency 0.950, target 0.9: met" in out
    rows = {line[:8].strip(): line[8:].split() for line in out.splitlines()[2:5]}
    assert rows["1 rank"] == ["100.0", "-", "-"]
    assert rows["2 ranks"][:2] == ["190.0", "0.950"] and rows["2 apart"][:2] == ["200.0", "1.000"]


def test_ratios_are_of_a_round_and_shown_are_medians(scaling):
    found = {(1, False): [100, 50, 80], (2, False): [180, 90, 120], (2, True): [190, 100, 150]}
    calls, left = [], {turn: iter(speeds) for turn, speeds in found.items()}

    def one(ranks, apart):
        calls.append((ranks, apart))
        return next(left[ranks, apart])

    seen = scaling.measure([1, 2], 3, one)
    there = [(1, False), (2, False), (2, True)]
    assert calls == there + there[::-1] + there
    single, ranks, apart = scaling.summarize(seen)
    assert (single["images_per_second"], ranks["images_per_second"]) == (80, 120)
    assert "efficiency" not in single and "of_ceiling" not in apart
    # 180/200, 90/100, 120/160; of the medians it would be 120/160.
    assert [ranks[f"{word}efficiency"] for word in ("", "least_", "most_")] == [0.9, 0.75, 0.9]
    assert [apart[f"{word}efficiency"] for word in ("", "least_", "most_")] == [0.95, 0.9375, 1]
    assert [ranks[f"{word}of_ceiling"] for word in ("", "least_", "most_")] == [0.9, 0.8, 0.9474]
    assert (ranks["target"], ranks["met"]) == (0.9, True)
    assert "target 0.9: met" in scaling.show_measured([single, ranks, apart])
    seen[2, False] = [178, 89, 120]
    rows = scaling.summarize(seen)
    assert rows[1]["met"] is False and "target 0.9: missed" in scaling.show_measured(rows)


def test_json_goes_to_a_file_or_in_place_of_the_table(run, tmp_path, capsys):
    run("", "--ranks", "2", "--rounds", 1, "--json", tmp_path / "rows")
    table = capsys.readouterr().out
    run("", "--ranks", "2", "--rounds", 1, "--json")
    lines = capsys.readouterr().out
    assert (tmp_path / "rows").read_text() == lines and "images/s" in table
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [(row["ranks"], row["apart"]) for row in rows] == [(1, False), (2, False), (2, True)]
    assert rows[1] == {"run": "2 ranks", "ranks": 2, "apart": False, "images_per_second": 190,
                       "efficiency": 0.95, "least_efficiency": 0.95, "most_efficiency": 0.95,
                       "of_ceiling": 0.95, "least_of_ceiling": 0.95, "most_of_ceiling": 0.95,
                       "target": 0.9, "met": True}


@pytest.mark.parametrize(("body", "error", "said"), [
    ("sys.exit('error: no such network')", RunFault, "exit code 1: no such network"),
    ("print('noise\\ntrain.py: error: no such flag', file=sys.stderr); sys.exit(2)", InputError,
     "^no such flag$"),
    ("sys.exit(0)", RunFault, "printed no speed"),
    ("batch = 16", RunFault, "printed no speed of updates of 32")])  # a rank's own, not all ranks'
def test_a_run_that_fails_is_one_line(run, body, error, said):
    with pytest.raises(error, match=said):
        run(body, "--rounds", 1, "--batch-size", 16)


@pytest.mark.alone
def test_a_failure_ends_what_runs_beside_it(run, scaling, tmp_path):
    """Of the control's two processes, the first fails as soon as the second is there."""
    (first, *_), (second, *_) = processor.cores()[:2]
    stub = f"""
pid, log = (Path(__file__).with_name(name) for name in ("pid", "log"))
if cores == [{second}]:
    pid.write_text(str(os.getpid()))
    time.sleep(60)
if cores == [{first}] and log.exists():
    while not pid.exists():
        time.sleep(0.01)
    sys.exit(1)"""
    started = time.monotonic()
    with pytest.raises(RunFault):
        run(stub, "--rounds", 1)
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_ranks_that_cannot_be_run(scaling, monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    assert scaling.checked_ranks("1", 1) == [1]
    with pytest.raises(InputError, match="need Horovod"):
        scaling.checked_ranks("1,2", 2)
    monkeypatch.setattr(scaling.launch, "require_horovod", lambda: None)
    assert scaling.checked_ranks("2", 2) == [1, 2]
    assert scaling.checked_ranks("4,2,4", 4) == [1, 2, 4]
    with pytest.raises(InputError, match="may use 3"):
        scaling.checked_ranks("1,2,4", 3)


@pytest.mark.parametrize(("arguments", "said"), [
    (("--ranks", "x"), "--ranks"), (("--ranks", "0"), "--ranks"), (("--ranks", ""), "--ranks"),
    (("--ranks", "100000"), "--ranks"), (("--rounds", "0"), "--rounds")])
def test_wrong_flags_are_one_line(refused, arguments, said):
    assert said in refused("benchmarks/scaling", *arguments)
