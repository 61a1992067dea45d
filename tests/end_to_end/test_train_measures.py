"""--benchmark, --test-io and scripts/benchmarks/train_step.py, as a user runs them."""

import json
import re

import pytest

SMALL = ("--model", "cifar_resnet20_v1", "--input-size", 16, "--batch-size", 4)


def test_benchmark_needs_no_data_and_leaves_no_file(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = script("train_imagenet", *SMALL, "--benchmark", 3, "--mixup", "--ema")
    assert done.returncode == 0, done.stderr
    speed, update = map(float, re.fullmatch(
        r"([\d.]+) samples/s, (\d+) ms an update of 4, on made-up data\n", done.stdout).groups())
    assert speed * update == pytest.approx(4000, rel=0.2)
    assert not list(tmp_path.iterdir())


def test_test_io_reads_the_training_set_alone(script, tmp_path, monkeypatch, noise_records):
    noise_records(tmp_path / "train", 9, (40, 50), 3)
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    done = script("train_imagenet", *SMALL, "--test-io", 7, "--rec-train", tmp_path / "train.rec")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ samples/s, made by (native|opencv)\n", done.stdout)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("arguments", "message"), [
    (("--benchmark", 0), "--benchmark: 0: must be at least 1"),
    (("--benchmark", "--test-io"), "not allowed with argument --benchmark"),
    (("--test-io", "--rec-train", "none.rec"), "none.rec")])
def test_wrong_flags_are_said_in_one_line(inside, arguments, message):
    done = inside("train_imagenet", *SMALL, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_each_loop_has_a_row(script):
    done = script("benchmarks/train_step", *SMALL, "--loops", "bare,engine,gluoncv,gluoncv-network",
                  "--updates", 2, "--rounds", 3, "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["loop"] for row in rows] == ["bare", "engine", "gluoncv", "gluoncv-network"]
    assert rows[0]["ratio"] == 1
    for row in rows:
        assert row["samples_per_second"] > 0
        assert row["least_ratio"] <= row["ratio"] <= row["most_ratio"]


def test_a_network_that_gluoncv_lacks_is_named(inside):
    done = inside("benchmarks/train_step", "--model", "resnet18_v1c", "--loops", "gluoncv-network")
    assert (done.returncode, done.stderr) == (
        2, "error: GluonCV has no resnet18_v1c: drop the loop gluoncv-network\n")


def test_an_unknown_loop_is_named(inside):
    done = inside("benchmarks/train_step", "--loops", "engine,none")
    assert (done.returncode, done.stderr) == (
        2, "error: --loops engine,none: choose from bare, engine, gluoncv, gluoncv-network\n")
