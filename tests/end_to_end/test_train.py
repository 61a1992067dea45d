"""`train_imagenet.py` on wrong input and under signals: one clear line, the right exit code."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gluon_tricks.data.classes import write_classes
from gluon_tricks.data.record import RecordWriter
from gluon_tricks.prepare.verify import reindex

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_imagenet.py"


@pytest.fixture
def records(tmp_path, noise_records):
    """train.rec and val.rec of 16 and 6 pictures, 32x40, two classes."""
    noise_records(tmp_path / "train", 16, (32, 40), 2)
    noise_records(tmp_path / "val", 6, (32, 40), 2)
    return tmp_path


@pytest.fixture
def flags(records):
    return ["--model", "resnet18_v1", "--rec-train", records / "train.rec", "--rec-val",
            records / "val.rec", "--input-size", 32, "--batch-size", 8, "--num-epochs", 1,
            "--save-dir", records / "run"]


def rewrite(folder, name, samples):
    for ending in ("rec", "idx"):
        (folder / f"{name}.{ending}").unlink()
    with RecordWriter(folder / name) as writer:
        for key, (label, picture) in enumerate(samples):
            writer.write(key, label, picture)


def test_a_run_prints_its_scores_folder_and_curves(script, flags, records):
    done = script("train_imagenet", *flags)
    assert done.returncode == 0, done.stderr
    assert "on 6 pictures" in done.stdout
    assert f"run folder: {records / 'run'}" in done.stdout
    assert (records / "run" / "curves.png").is_file()


def test_missing_rec(refused, flags, records):
    (records / "train.rec").unlink()
    assert "train.rec is missing" in refused("train_imagenet", *flags)
    assert not (records / "run").exists()


def test_missing_idx_can_be_rebuilt_as_the_message_says(refused, flags, records):
    idx = (records / "val.idx").read_text()
    (records / "val.idx").unlink()
    assert "--reindex" in refused("train_imagenet", *flags)
    reindex(records / "val")
    assert (records / "val.idx").read_text() == idx


def test_idx_of_another_rec(refused, flags, records):
    shutil.copy(records / "train.idx", records / "val.idx")
    assert "val.idx" in refused("train_imagenet", *flags)
    assert not (records / "run").exists()


def test_truncated_rec(refused, flags, records):
    data = (records / "train.rec").read_bytes()
    (records / "train.rec").write_bytes(data[:-100])
    assert "train.rec is truncated" in refused("train_imagenet", *flags)


def test_a_record_that_is_no_picture(script, flags, records, jpeg):
    good = jpeg(np.zeros((32, 40, 3), np.uint8))
    rewrite(records, "train", [(key % 2, good if key != 5 else b"no picture") for key in range(16)])
    done = script("train_imagenet", *flags)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "train.rec, the record with key 5 at byte" in last
    assert "Traceback" not in done.stderr


def test_a_label_beyond_the_classes(refused, flags, records, jpeg):
    good = jpeg(np.zeros((32, 40, 3), np.uint8))
    rewrite(records, "val", [(0, good), (7, good)])
    message = refused("train_imagenet", *flags)
    assert "val.rec, the record with key 1" in message
    assert "label 7" in message


def test_fewer_classes_than_the_labels_need(refused, flags, records, jpeg):
    good = jpeg(np.zeros((32, 40, 3), np.uint8))
    rewrite(records, "train", [(key % 4, good) for key in range(16)])
    assert "--num-classes 2" in refused("train_imagenet", *flags, "--num-classes", 2)


def test_one_class(refused, flags, records, jpeg):
    good = jpeg(np.zeros((32, 40, 3), np.uint8))
    rewrite(records, "train", [(0, good)] * 16)
    assert "the training set has one class alone" in refused("train_imagenet", *flags)


@pytest.mark.parametrize("size", [36, 64])
def test_a_crop_larger_than_the_picture(refused, flags, records, size):
    message = refused("train_imagenet", *flags, "--crop", "pad", "--input-size", size)
    assert f"a {size}x{size} " in message and "does not fit into a 40x32 image" in message
    assert not (records / "run").exists()


def test_fewer_records_than_a_batch(refused, flags):
    assert "lower --batch-size" in refused("train_imagenet", *flags, "--batch-size", 17)


def test_wrong_number_of_samples(refused, flags):
    message = refused("train_imagenet", *flags, "--num-training-samples", 1281167)
    assert "has 16 records" in message


@pytest.mark.parametrize(("gpus", "reason"), [(1, "MXNet sees no GPU"), (8, "MXNet sees no GPU")])
def test_devices_that_are_not_there(refused, flags, gpus, reason):
    assert reason in refused("train_imagenet", *flags, "--num-gpus", gpus)


def test_a_file_where_the_run_folder_should_be(refused, flags, records):
    (records / "file").write_text("")
    for folder in (records / "file", records / "file" / "run"):
        assert "file in its place" in refused("train_imagenet", *flags, "--save-dir", folder)


def test_a_validation_set_with_other_classes(refused, flags, records):
    write_classes(records / "train.classes.json", ["ant", "bee"])
    write_classes(records / "val.classes.json", ["bee", "cat"])
    message = refused("train_imagenet", *flags)
    assert "label 0 is 'bee', in training it is 'ant'" in message
    assert "--classes" in message
    write_classes(records / "val.classes.json", ["ant"])
    assert "label 1 is nothing, in training it is 'bee'" in refused("train_imagenet", *flags)
    assert not (records / "run").exists()


def test_evaluation_knows_the_training_set_s_classes(script, refused, flags, records):
    write_classes(records / "train.classes.json", ["ant", "bee"])
    write_classes(records / "val.classes.json", ["ant", "bee"])
    assert script("train_imagenet", *flags).returncode == 0
    write_classes(records / "val.classes.json", ["ant", "cat"])
    message = refused("evaluate", "--model", "resnet18_v1", "--input-size", 32, "--rec-val",
                      records / "val.rec", "--params", records / "run" / "best.params")
    assert "label 1 is 'cat', in training it is 'bee'" in message


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_with_their_code(flags, records, number, code):
    command = [sys.executable, str(SCRIPT), *map(str, flags), "--num-epochs", "10000"]
    log = records / "run" / "train.log"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (
                log.exists() and "validation: err" in log.read_text()):
            time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    *_, line = errors.splitlines()
    assert f"stopped by {number.name} at update" in line
    assert f"--save-dir {records / 'run'} --resume auto" in line
    assert line.removeprefix("error: ") in log.read_text()
    assert (records / "run" / "last.params").is_file()
