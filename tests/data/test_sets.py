"""Folders or RecordIO: which of them the settings mean, and the error if neither exists."""

import shutil
from pathlib import Path

import pytest
from command_line import parse

from gluon_tricks.classification.loaders import open_records
from gluon_tricks.data.classes import check_same_classes
from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.record import RecordSet
from gluon_tricks.data.sets import open_set
from gluon_tricks.errors import InputError
from gluon_tricks.prepare import pack


@pytest.fixture
def place(tmp_path, picture_folder, noise_records) -> Path:
    """Folders train/ and val/, and the same names as RecordIO in rec/; other.rec next to them."""
    for part in ("train", "val"):
        shutil.copytree(picture_folder, tmp_path / part)
        noise_records(tmp_path / "rec" / part, 3, (20, 20), 3)
    noise_records(tmp_path / "other", 4, (20, 20), 3)
    return tmp_path


@pytest.mark.parametrize(("flags", "train", "val"), [
    ("", "train", "val"),
    ("--use-rec", "rec/train.rec", "rec/val.rec"),
    ("--rec-train {0}/other.rec", "other.rec", "val"),
    ("--rec-val {0}/other.rec --rec-val-idx {0}/other.idx", "train", "other.rec"),
    ("--rec-train-idx {0}/rec/train.idx", "rec/train.rec", "val"),
    ("--rec-train {0}/other.rec --rec-val {0}/other.rec --use-rec", "other.rec", "other.rec")])
def test_folders_unless_flags_ask_for_recordio(place, flags, train, val):
    settings = parse(f"--data-dir {place} {flags}".format(place))
    for part, expected in (("train", train), ("val", val)):
        with open_records(settings, part) as records:
            assert records.path == place / expected
            assert type(records) is (RecordSet if expected.endswith(".rec") else FolderSet)
            assert len(records) == {"other.rec": 4, part: 15}.get(expected, 3)


def test_recordio_where_there_are_no_folders(place):
    shutil.rmtree(place / "train")
    settings = parse(f"--data-dir {place}")
    with open_records(settings, "train") as train, open_records(settings, "val") as val:
        assert (train.path, val.path) == (place / "rec" / "train.rec", place / "val")


def test_the_home_folder_may_stand_for_itself(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    assert open_records(parse("--data-dir ~"), "val").path == place / "val"


def refused(settings, part) -> str:
    with pytest.raises(InputError) as raised:
        open_records(settings, part)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_where_neither_is_there_both_places_are_named(tmp_path):
    line = refused(parse(f"--data-dir {tmp_path}"), "val")
    assert line.startswith(f"neither {tmp_path / 'val'}, with one folder per class, nor "
                           f"{tmp_path / 'rec' / 'val.rec'} exists")
    assert "--data-dir" in line
    for flags in ("--use-rec", f"--rec-val {tmp_path}/rec/val.rec"):
        line = refused(parse(f"--data-dir {tmp_path} {flags}"), "val")
        assert line.startswith(f"{tmp_path / 'rec' / 'val.rec'} is missing")


def test_mxnet_s_iterator_reads_recordio_alone(place):
    settings = parse(f"--data-dir {place} --data-backend mxnet")
    line = refused(settings, "train")
    assert line.startswith("--data-backend mxnet reads RecordIO alone")
    assert str(place / "train") in line
    with open_records(parse(f"--data-dir {place} --data-backend mxnet --use-rec"), "train") as rec:
        assert len(rec) == 3


def test_validation_follows_the_classes_of_training(place):
    shutil.rmtree(place / "val" / "ant")
    folder = open_set(place / "none.rec", place / "none.idx", place / "val", ["ant", "bee", "cat"])
    assert sorted(set(folder.labels.tolist())) == [1, 2]
    assert folder.class_names() == ["ant", "bee", "cat"]


def test_a_folder_and_a_rec_may_go_together_where_their_classes_agree(place):
    def packed(name, classes):
        listing = pack.list_folder(place / "train", classes)
        pack.pack(listing, place / name, pack.Encoding(pass_through=True), workers=1)
        return RecordSet(place / f"{name}.rec")

    train = FolderSet(place / "train")
    with packed("same", None) as same, packed("turned", ["bee", "ant", "cat"]) as turned:
        for a, b in ((same, train), (train, same)):
            check_same_classes(a.path, a.class_names(), b.class_names())
        for a, b, label in ((turned, train, "'bee', in training it is 'ant'"),
                            (train, turned, "'ant', in training it is 'bee'")):
            with pytest.raises(InputError, match=f"^{a.path}: label 0 is {label}"):
                check_same_classes(a.path, a.class_names(), b.class_names())
