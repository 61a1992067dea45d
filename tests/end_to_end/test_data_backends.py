"""Runs by every data backend, and on sets with damaged records, as a user starts them."""

import json
import re

import numpy as np
import pytest

from gluon_tricks.data.record import RecordWriter

DAMAGED_TRAIN, DAMAGED_VAL = (103, 107), (102,)


@pytest.fixture
def sets(tmp_path, jpeg):
    """sets(damaged): train.rec and val.rec, 26 and 7 pictures of three classes, keys from 100."""
    def make(damaged=False):
        rng = np.random.default_rng(0)
        for name, count, bad in (("train", 26, DAMAGED_TRAIN), ("val", 7, DAMAGED_VAL)):
            with RecordWriter(tmp_path / name) as writer:
                for key in range(100, 100 + count):
                    picture = jpeg(rng.integers(0, 256, (40, 50, 3), np.uint8))
                    if damaged and key in bad:
                        picture = picture[:900] if key % 2 else b"no picture"
                    writer.write(key, key % 3, picture)
        return ["--model", "cifar_resnet20_v1", "--rec-train", tmp_path / "train.rec", "--rec-val",
                tmp_path / "val.rec", "--input-size", 32, "--batch-size", 4, "--num-epochs", 2,
                "--lr", 0.01, "--lr-mode", "cosine", "--save-dir", tmp_path / "run", "-j", 2]
    return make


def epochs(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "epoch"]


@pytest.mark.parametrize("backend", ["auto", "native", "opencv", "mxnet"])
def test_each_backend_trains_and_evaluates_exactly(script, sets, tmp_path, backend, request):
    if backend in ("auto", "native"):
        request.getfixturevalue("native_core")
    done = script("train_imagenet", *sets(), "--data-backend", backend)
    assert done.returncode == 0, done.stderr
    assert "on 7 pictures" in done.stdout
    assert [line["val_count"] for line in epochs(tmp_path / "run")] == [7, 7]
    taken = {"auto": "native"}.get(backend, backend)
    assert re.search(rf"^data backend +{taken}\b", (tmp_path / "run" / "train.log").read_text(),
                     re.M)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data_backend"] == taken
    done = script("evaluate", "--model", "cifar_resnet20_v1", "--input-size", 32, "--rec-val",
                  tmp_path / "val.rec", "--params", tmp_path / "run" / "last.params",
                  "--data-backend", backend, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["count"] == 7
    last = epochs(tmp_path / "run")[-1]
    assert scores["top1"] == last["val_top1"]
    assert scores["loss"] == pytest.approx(last["val_loss"], rel=1e-4)


def test_mxnet_s_random_numbers_are_warned_of(script, sets, tmp_path):
    assert script("train_imagenet", *sets(), "--data-backend", "mxnet").returncode == 0
    line, = (line for line in (tmp_path / "run" / "train.log").read_text().splitlines()
             if "data backend" in line)
    assert "its random numbers are its own" in line


def test_other_flags_of_the_backends(script, sets, tmp_path, native_core):
    done = script("train_imagenet", *sets(), "-j", 0, "--antialias", "--dct-shortcut", "always",
                  "--num-epochs", 1, "--crop-ratio", 0.8)
    assert done.returncode == 0, done.stderr
    assert [line["val_count"] for line in epochs(tmp_path / "run")] == [7]


def test_damage_stops_a_run_before_it_starts(refused, sets, tmp_path):
    message = refused("train_imagenet", *sets(damaged=True))
    assert "val.rec, the record with key 102 at byte" in message
    assert "1 of 7 records" in message and "--on-bad-record skip" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", ["auto", "opencv"])
def test_damage_is_left_out_and_named_where_asked(script, sets, tmp_path, backend):
    flags = sets(damaged=True)
    done = script("train_imagenet", *flags, "--on-bad-record", "skip", "--data-backend", backend)
    assert done.returncode == 0, done.stderr
    assert "on 6 pictures" in done.stdout
    assert [line["val_count"] for line in epochs(tmp_path / "run")] == [6, 6]
    log = (tmp_path / "run" / "train.log").read_text()
    for name, keys in (("train", DAMAGED_TRAIN), ("val", DAMAGED_VAL)):
        line = f"skipped, by key: {', '.join(map(str, keys))}"
        assert [f"{name}.rec" in found for found in log.splitlines() if line in found] == [True]
    done = script("evaluate", "--model", "cifar_resnet20_v1", "--input-size", 32, "--rec-val",
                  tmp_path / "val.rec", "--params", tmp_path / "run" / "last.params",
                  "--on-bad-record", "skip", "--json", "--batch-size", 4)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 6
    assert "val.rec: 1 damaged record skipped, by key: 102" in done.stderr


def test_evaluation_stops_at_damage(script, refused, sets, tmp_path):
    flags = sets()
    assert script("train_imagenet", *flags, "--num-epochs", 1).returncode == 0
    for path in tmp_path.glob("*.rec"):
        path.unlink()
        path.with_suffix(".idx").unlink()
    sets(damaged=True)
    evaluate = ("evaluate", "--model", "cifar_resnet20_v1", "--input-size", 32, "--rec-val",
                tmp_path / "val.rec", "--params", tmp_path / "run" / "last.params")
    for backend in ("auto", "mxnet"):
        message = refused(*evaluate, "--data-backend", backend)
        assert "val.rec, the record with key 102 at byte" in message


@pytest.mark.parametrize("backend", ["dali-cpu", "dali-gpu"])
def test_dali_is_answered_with_what_to_take(refused, sets, backend):
    for script, flags in (("train_imagenet", sets()), ("train_imagenet", [
            "--dry-run", "--model", "resnet18_v1"]), ("evaluate", [
            "--model", "resnet18_v1", "--params", "x.params"])):
        message = refused(script, *flags, "--data-backend", backend)
        assert f"--data-backend {backend}" in message
        assert "--data-backend native" in message


@pytest.mark.parametrize("flags", [
    ("--data-backend", "mxnet", "--antialias"), ("--data-backend", "mxnet", "--crop", "pad"),
    ("--data-backend", "mxnet", "--on-bad-record", "skip"),
    ("--data-backend", "opencv", "--dct-shortcut", "train"), ("--crop", "pad", "--antialias"),
    ("--crop", "pad", "--dct-shortcut", "always"), ("--num-data-workers", "-1")], ids=" ".join)
def test_what_does_not_go_together_is_one_line(refused, sets, tmp_path, flags):
    message = refused("train_imagenet", *sets(), *flags)
    assert any(flag in message for flag in flags[::2])
    assert not (tmp_path / "run").exists()
