"""`evaluate.py` over several ranks gives the scores that one process gives."""

import csv
import json
import sys

import jobs
import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.data.record import RecordWriter
from gluon_tricks.inference.evaluations import Plan, evaluations
from gluon_tricks.models.zoo import get_model

RECORDS, CLASSES, DAMAGED = 103, 8, (0, 1, 40, 101)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory, jpeg, horovod):
    """Flat pictures of many colours, which a network without training tells apart, in val.rec,
    damaged.rec (of which DAMAGED cannot be decoded; of two of them only who decodes them knows) and
    two.rec (of two); net.params."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    pictures = [jpeg(np.full((40, 50, 3), rng.integers(0, 256, 3), np.uint8))
                for _ in range(RECORDS)]
    damaged = list(pictures)
    for key in DAMAGED:  # cut short, or without quantisation tables
        damaged[key] = pictures[key][:50] if key < 2 else \
            pictures[key].replace(b"\xff\xdb", b"\xff\xfe")
    for name, content in (("val", pictures), ("damaged", damaged), ("two", pictures[:2])):
        with RecordWriter(folder / name) as writer:
            for key, picture in enumerate(content):
                writer.write(key, key % CLASSES, picture)
    mx.random.seed(0)
    net = get_model("resnet18_v1b", classes=CLASSES)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 32, 32)))
    net.save_parameters(str(folder / "net.params"))
    return folder


@pytest.fixture(scope="module")
def evaluate(folder):
    """evaluate(ranks, name, flags...): the scores on NAME.rec, and stderr."""
    def run(ranks, name, *flags):
        job = jobs.run([sys.executable, jobs.ROOT / "scripts" / "evaluate.py", "--model",
                        "resnet18_v1b", "--params", folder / "net.params", "--num-classes",
                        CLASSES, "--rec-val", folder / f"{name}.rec", "--input-size", 32,
                        "--batch-size", 8, "-j", 2, "--num-cpu-ranks", ranks, "--json", *flags],
                       folder / "taken")
        assert job.code == 0, job.said
        return json.loads(job.out), job.said
    return run


@pytest.fixture(scope="module")
def alone(folder):
    """alone(name, **settings): the scores on NAME.rec of this process alone."""
    def score(name, params="net.params", crops=1, **more):
        found, = evaluations(Plan(
            {"model": "resnet18_v1b", "num_classes": CLASSES, "batch_size": 8,
             "rec_val": str(folder / f"{name}.rec"), "num_data_workers": 1, **more},
            params=folder / params, sizes=(32,), crops=crops))
        return {"input_size": 32, "crop_ratio": 0.875, "crops": crops,
                **found.scores._asdict(), "ece": found.calibration_error}
    return score


def check_same(scores, expected) -> None:
    """Counts are equal, sums of float32's losses all but."""
    assert scores == {**expected, "loss": pytest.approx(expected["loss"], rel=1e-6),
                      "ece": pytest.approx(expected["ece"], rel=1e-5)}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_record_counts_once(evaluate, alone, ranks):
    expected = alone("val")
    assert expected["count"] == RECORDS
    assert 0 < expected["correct1"] < expected["correct5"] < RECORDS
    scores, said = evaluate(ranks, "val")
    check_same(scores, expected)
    assert said.startswith("data backend: ") and said.count("\n") == 1


def test_a_rank_without_records(evaluate, alone):
    scores, _ = evaluate(3, "two")
    assert scores["count"] == 2
    check_same(scores, alone("two"))


def test_damaged_records_are_left_out_of_all_counts(evaluate, alone, folder):
    scores, said = evaluate(2, "damaged", "--on-bad-record", "skip")
    assert scores["count"] == RECORDS - len(DAMAGED)
    check_same(scores, alone("damaged", on_bad_record="skip"))
    assert said.splitlines()[1:] == [
        f"{folder / 'damaged.rec'}: 4 damaged records skipped, by key: 0, 1, 40, 101"]


def test_ten_crops_and_all_reports(evaluate, alone, folder, tmp_path):
    files = {name: tmp_path / f"{name}.csv" for name in ("per-class", "predictions")}
    scores, said = evaluate(2, "damaged", "--on-bad-record", "skip", "--crops", 10,
                            *(part for name, file in files.items() for part in (f"--{name}", file)))
    check_same(scores, alone("damaged", on_bad_record="skip", crops=10))
    assert said.count("\n") == 2
    with open(files["predictions"]) as file:
        rows = [[int(row["key"]), int(row["label"]), int(row["predicted"])]
                for row in csv.DictReader(file)]
    kept = [key for key in range(RECORDS) if key not in DAMAGED]
    assert [row[:2] for row in rows] == [[key, key % CLASSES] for key in kept]
    assert sum(label == predicted for _, label, predicted in rows) == scores["correct1"]
    with open(files["per-class"]) as file:
        table = {int(row["class"]): (int(row["count"]), float(row["top1"]))
                 for row in csv.DictReader(file)}
    for label in range(CLASSES):
        own = [predicted == label for _, real, predicted in rows if real == label]
        assert table[label] == (len(own), pytest.approx(np.mean(own)))


def test_validation_amid_training_agrees_with_evaluate(folder, script, alone):
    """Of parameters, BatchNorm's statistics among them, that the run has saved."""
    done = script("train_imagenet", "--model", "resnet18_v1b", "--rec-train", folder / "val.rec",
                  "--rec-val", folder / "val.rec", "--input-size", 32, "-j", 2, "--batch-size", 8,
                  "--num-epochs", 1, "--lr", 0.01, "--num-cpu-ranks", 2, "--save-dir",
                  folder / "run")
    assert done.returncode == 0, done.stderr
    logged, = (line for line in jobs.lines_of(folder / "run" / "log.jsonl")
               if line["kind"] == "epoch")
    expected = alone("val", "run/best.params")
    assert [logged[f"val_{name}"] for name in ("count", "top1", "top5")] == \
        [expected[name] for name in ("count", "top1", "top5")]
    assert logged["val_loss"] == pytest.approx(expected["loss"], rel=1e-6)
