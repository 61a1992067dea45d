"""scripts/benchmarks/journeys.py: how many files one follows, against what was asked for."""

import json
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gluon_tricks"


@pytest.fixture(scope="module")
def journeys(native_core):
    """Its rows by journey; without the native decoder an update runs other files."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, str(PACKAGE.parent / "scripts" / "benchmarks" /
                                               "journeys.py"), "--json"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {row["journey"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_label_smoothing_travels_six_files_from_its_flag_to_the_loss(journeys):
    names = journeys["label smoothing"]["names"]
    assert {"classification/settings.py", "loss.py"} <= set(names)
    assert len(names) <= 6, names


def test_an_update_runs_through_few_files(journeys):
    names = journeys["update"]["names"]
    assert {"data/loader.py", "engine/step.py", "optim/update.py"} <= set(names)  # threads, too
    assert not {"engine/saving.py", "models/zoo.py", "runs/checkpoint.py"} & set(names)
    assert len(names) <= 18, names


def test_longer_journeys_hold_shorter_ones(journeys):
    names = {journey: set(row["names"]) for journey, row in journeys.items()}
    assert names["label smoothing"] < names["... with callers"] < names["command"]
    assert names["update"] < names["command"]


def test_lines_are_those_of_the_files(journeys):
    for row in journeys.values():
        assert row["files"] == len(row["names"])
        assert row["lines"] == sum(len((PACKAGE / name).read_text().splitlines())
                                   for name in row["names"])
