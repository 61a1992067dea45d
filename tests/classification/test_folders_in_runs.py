"""Runs on folders of pictures: the same as on the packed set, and what they say of their files."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from gluon_tricks.classification.evaluate import evaluate
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import train
from gluon_tricks.engine.benchmark import input_speed
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference.evaluations import Plan, evaluations
from gluon_tricks.prepare import pack

TIMES = ("seconds", "samples_per_second", "data_wait")  # of a line of log.jsonl


@pytest.fixture
def data_dir(tmp_path, picture_folder) -> Path:
    """train/ with 15 pictures of three classes; val/ with 11 of two of them, bee and cat."""
    shutil.copytree(picture_folder, tmp_path / "data" / "train")
    shutil.copytree(picture_folder, tmp_path / "data" / "val")
    shutil.rmtree(tmp_path / "data" / "val" / "ant")
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path, data_dir):
    """run(name, **changes): the settings of a run of six updates on the folders."""
    def make(name="run", **changes) -> Settings:
        values = {"model": "cifar_resnet20_v1", "data_dir": str(data_dir), "input_size": 32,
                  "batch_size": 4, "num_epochs": 2, "lr": 0.01, "log_interval": 1,
                  "num_data_workers": 2, "save_dir": str(tmp_path / name)}
        return Settings(**{**values, **changes})
    return make


@pytest.fixture
def packed(data_dir):
    """Packs both parts, in the folders' order, to rec/."""
    for part in ("train", "val"):
        listing = pack.list_folder(data_dir / part, ["ant", "bee", "cat"], seed=None)
        pack.pack(listing, data_dir / "rec" / part, pack.Encoding(pass_through=True), workers=1)


def without_times(line: dict) -> dict:
    return {name: value for name, value in line.items() if name not in TIMES}


@pytest.mark.parametrize("backend", ["native", "opencv"])
def test_a_run_on_folders_is_the_run_on_the_packed_set(run, packed, lines, arrays, backend,
                                                       request):
    if backend == "native":
        request.getfixturevalue("native_core")
    files, records = (train(run(name, use_rec=rec, data_backend=backend)).folder
                      for name, rec in (("files", False), ("records", True)))
    for kind, count in (("step", 6), ("epoch", 2)):
        a, b = (list(map(without_times, lines(folder, kind))) for folder in (files, records))
        assert a == b
        assert len(a) == count
    assert {"lr", "loss", "top1"} <= set(without_times(lines(files, "step")[0]))
    assert lines(files, "epoch")[0]["val_count"] == 11
    a, b = (arrays(folder / "last.params") for folder in (files, records))
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert (files / "classes.json").read_text() == (records / "classes.json").read_text()
    log = (files / "train.log").read_text()
    assert "/data/train: 15 records, 3 classes" in log and "/data/val: 11 records" in log


def test_evaluation_follows_the_run_s_classes(run, tiny, packed):
    result = train(run())
    for rec in (False, True):
        settings = dataclasses.asdict(run(use_rec=rec, dct_shortcut="never"))
        found, = evaluations(Plan(settings, params=result.folder / "last.params"))
        assert found.scores == pytest.approx(result.last, rel=1e-6)


def test_damaged_files_are_named_and_left_out(run, tiny, data_dir):
    bad = [data_dir / "train" / "bee" / "1.jpg", data_dir / "train" / "cat" / "5.jpg"]
    bad[0].write_bytes(bad[0].read_bytes()[:700])
    bad[1].write_bytes(b"")
    with pytest.raises(InputError, match=f"^{bad[0]}: its JPEG is truncated; 2 of 15 records"):
        train(run())
    folder = train(run("skip", on_bad_record="skip")).folder
    assert (f"{data_dir / 'train'}: 2 damaged records skipped, by key: bee/1.jpg, cat/5.jpg"
            in (folder / "train.log").read_text())


def test_a_file_that_vanishes_amid_a_run_ends_it_by_its_name(run, tiny, data_dir, monkeypatch):
    def and_vanish(*args, **options):
        scores = evaluate(*args, **options)
        shutil.rmtree(data_dir / "train" / "cat")
        return scores

    monkeypatch.setattr("gluon_tricks.engine.train.evaluate", and_vanish)
    with pytest.raises(RunFault, match=rf"{data_dir / 'train' / 'cat'}/\d\.jpg: .*No such file"):
        train(run(num_epochs=3))


def test_a_class_of_validation_alone_is_refused(run, data_dir):
    (data_dir / "val" / "dog").mkdir()
    with pytest.raises(InputError, match=f"^{data_dir / 'val' / 'dog'} is not a class of the tr"):
        train(run())


def test_the_input_pipeline_is_measured_on_folders(run):
    speed, backend = input_speed(run(data_backend="opencv"), 3)
    assert speed > 0 and backend == "opencv"


def test_a_class_without_pictures_is_warned_of(run, data_dir):
    def warnings(name):
        text = (train(run(name)).folder / "train.log").read_text()
        return [line for line in text.splitlines() if "has no picture of" in line]

    assert warnings("none empty") == []
    (data_dir / "train" / "dog").mkdir()
    line, = warnings("one empty")
    assert line.endswith("warning: the training set has no picture of dog")
