"""scripts/im2rec.py as a user runs it."""

import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from mxnet import recordio
from packing import names

SCRIPT = Path(__file__).parents[2] / "scripts" / "im2rec.py"
ENDS = ("classes.json", "idx", "lst", "rec")


@pytest.fixture
def pictures(picture_folder, im2rec, out):
    """The prefix of a packed set of 15 pictures, labels 0 to 2."""
    im2rec(picture_folder, out / "a", "--pass-through")
    return out / "a"


def index(prefix):
    lines = (line.split() for line in prefix.with_suffix(".idx").read_text().splitlines())
    return {int(key): int(offset) for key, offset in lines}


def labels(prefix):
    """{path: label} from the .lst, checked against the .rec through MXNet."""
    file = recordio.MXIndexedRecordIO(f"{prefix}.idx", f"{prefix}.rec", "r")
    found = {}
    for line in open(f"{prefix}.lst").read().splitlines():
        key, label, path = line.split("\t")
        assert recordio.unpack(file.read_idx(int(key)))[0].label == float(label)
        found[path] = int(float(label))
    return found


def change(prefix, offset, new: bytes):
    with open(f"{prefix}.rec", "r+b") as file:
        file.seek(offset)
        file.write(new)


def test_packs_a_folder_that_image_record_iter_reads(picture_folder, im2rec, out):
    said = im2rec(picture_folder, out / "a", "--resize", 32, "--quality", 80, "--seed", 4)
    assert said == f"{out / 'a'}.rec: 15 images, 3 classes\n"
    assert names(out) == [f"a.{end}" for end in ENDS]
    batches = mx.io.ImageRecordIter(path_imgrec=f"{out / 'a'}.rec", data_shape=(3, 32, 32),
                                    batch_size=5, preprocess_threads=1)
    found = np.concatenate([batch.label[0].asnumpy() for batch in batches])
    assert np.bincount(found.astype(int)).tolist() == [4, 5, 6]
    assert found.astype(int).tolist() == list(labels(out / "a").values())
    assert labels(out / "a")["bee/4.jpg"] == 1


def test_flags_may_stand_anywhere(picture_folder, im2rec, out):
    im2rec("--quality", 60, picture_folder, out / "a")
    im2rec(picture_folder, out / "b", "--quality", 60)
    im2rec(picture_folder, "--quality", 60, out / "c")
    assert (out / "a.rec").read_bytes() == (out / "b.rec").read_bytes()
    assert (out / "a.rec").read_bytes() == (out / "c.rec").read_bytes()


def test_a_seed_makes_an_order_and_workers_change_nothing(picture_folder, im2rec, out):
    for name, flags in {"one": ["--workers", 1], "four": ["--workers", 4], "seed": ["--seed", 1],
                        "sorted": ["--no-shuffle"]}.items():
        im2rec(picture_folder, out / name, "--pass-through", *flags)
    read = {path.name: path.read_bytes() for path in out.iterdir()}
    assert all(read[f"one.{end}"] == read[f"four.{end}"] for end in ENDS)
    assert len({read[f"{name}.rec"] for name in ("one", "seed", "sorted")}) == 3
    assert list(labels(out / "sorted")) == sorted(labels(out / "sorted"))
    assert labels(out / "one") == labels(out / "seed") == labels(out / "sorted")


def test_a_validation_set_with_a_class_missing_keeps_its_labels(
        pictures, picture_folder, im2rec, refused, out):
    for file in (picture_folder / "bee").iterdir():
        file.unlink()
    (picture_folder / "bee").rmdir()
    said = im2rec(picture_folder, out / "val", "--classes", f"{pictures}.classes.json")
    assert "10 images, 3 classes" in said
    assert {path[:3]: label for path, label in labels(out / "val").items()} == {"ant": 0, "cat": 2}
    assert (out / "val.classes.json").read_bytes() == (out / "a.classes.json").read_bytes()
    assert "classes" in im2rec("--verify", out / "val")

    (picture_folder / "cat").rename(picture_folder / "cow")
    before = names(out)
    line = refused("im2rec", picture_folder, out / "b", "--classes", f"{pictures}.classes.json")
    assert f"{picture_folder / 'cow'} is not a class" in line
    assert names(out) == before


def test_a_lst_with_keys_of_its_own_and_a_root(picture_folder, im2rec, out):
    (out / "my.lst").write_text("70\t5.000000\tcat/0.jpg\n7\t0\tant/1.jpg\n")
    said = im2rec(out / "my.lst", out / "a", "--root", picture_folder, "--no-shuffle")
    assert "2 images, 6 classes" in said
    assert list(index(out / "a")) == [70, 7]
    assert labels(out / "a") == {"cat/0.jpg": 5, "ant/1.jpg": 0}


def test_help_is_quick_and_loads_neither_mxnet_nor_opencv():
    done = subprocess.run([sys.executable, "-X", "importtime", SCRIPT, "--help"],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    assert "--skip-damaged" in done.stdout
    loaded = {line.split("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert not loaded & {"mxnet", "cv2", "gluoncv", "numpy", "matplotlib"}


def test_packing_does_not_load_mxnet(picture_folder, out):
    done = subprocess.run([sys.executable, "-X", "importtime", SCRIPT, picture_folder, out / "a"],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    assert "mxnet" not in done.stderr


@pytest.mark.parametrize("arguments", [
    (), ("FOLDER",), ("--verify",), ("--verify", "--reindex", "OUT"), ("--verify", "FOLDER", "OUT"),
    ("--reindex", "OUT", "--pass-through"), ("FOLDER", "OUT", "--pass-through", "--resize", "9"),
    ("FOLDER", "OUT", "--pass-through", "--quality", "9"), ("FOLDER", "OUT", "--resize", "0"),
    ("FOLDER", "OUT", "--resize", "big"), ("FOLDER", "OUT", "--quality", "101"),
    ("FOLDER", "OUT", "--quality", "0"), ("FOLDER", "OUT", "--workers", "0"),
    ("FOLDER", "OUT", "--seed", "-1"), ("FOLDER", "OUT", "--seed", str(2**128)),
    ("FOLDER", "OUT", "--unknown"), ("FOLDER", "OUT", "--verif"), ("FOLDER", "OUT", "more"),
    ("FOLDER", "OUT", "--root", "FOLDER"), ("FOLDER", "OUT", "--classes", "missing.json"),
], ids=" ".join)
def test_flags_that_are_refused(picture_folder, out, refused, arguments):
    stand_for = {"FOLDER": picture_folder, "OUT": out / "a"}
    refused("im2rec", *(stand_for.get(argument, argument) for argument in arguments))
    assert names(out) == []


def test_folders_that_are_refused(tmp_path, out, refused, jpeg):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "notes.txt").write_text("none")
    (tmp_path / "empty").mkdir()
    for name, said in (("missing", "not a folder"), ("empty", "no class folders"),
                       ("in", "no images"), ("x.lst", "missing")):
        line = refused("im2rec", tmp_path / name, out / "a")
        assert f"{tmp_path / name}" in line
        assert said in line
    assert names(out) == []


def test_one_class_folder_is_enough(tmp_path, out, im2rec, jpeg):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.jpg").write_bytes(jpeg(np.zeros((9, 9, 3), np.uint8)))
    assert "1 images, 1 classes" in im2rec(tmp_path / "in", out / "a")


def test_existing_output_is_left_alone(pictures, picture_folder, out, refused):
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "already exists" in refused("im2rec", picture_folder, pictures, "--quality", 30)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def png_without_its_end():
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()[:-3000]


@pytest.mark.parametrize(("name", "data"), [
    ("empty.jpg", b""), ("text.jpg", b"no picture\n" * 30), ("cut.jpg", None),
    ("cut.png", png_without_its_end()),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_damaged_picture_is_refused_in_one_line_or_left_out(
        picture_folder, out, refused, script, name, data):
    whole = (picture_folder / "bee" / "0.jpg").read_bytes()
    (picture_folder / "bee" / name).write_bytes(whole[:-500] if data is None else data)
    line = refused("im2rec", picture_folder, out / "a")
    assert f"{picture_folder / 'bee' / name}: " in line
    assert names(out) == []
    done = script("im2rec", picture_folder, out / "a", "--skip-damaged")
    assert done.returncode == 0
    assert f"{picture_folder / 'bee' / name}" in done.stderr
    assert "15 images, 3 classes, 1 skipped" in done.stdout
    assert name not in (out / "a.lst").read_text()


def test_verify_of_a_good_set(pictures, im2rec):
    assert im2rec("--verify", pictures) == \
        f"{pictures}.rec: 15 records, 3 classes, labels 0 to 2, 0 damaged\n"


def test_verify_names_each_damaged_record_and_goes_on(pictures, script):
    offsets = index(pictures)
    change(pictures, offsets[3] + 32, b"no picture")
    change(pictures, offsets[8], b"\0\0\0\0")
    os.truncate(f"{pictures}.rec", os.path.getsize(f"{pictures}.rec") - 100)
    done = script("im2rec", "--verify", pictures)
    assert done.returncode == 2
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{pictures}.rec: 15 records, 3 classes, labels 0 to 2, 3 damaged")
    assert [line[:line.index(": ", 10)] for line in rest] == \
        [f"damaged: key {key} at byte {offsets[key]}" for key in (3, 8, 14)]


def test_verify_of_an_idx_that_leaves_a_record_out(pictures, script):
    lines = open(f"{pictures}.idx").read().splitlines(keepends=True)
    open(f"{pictures}.idx", "w").writelines(lines[:5] + lines[6:])
    done = script("im2rec", "--verify", pictures)
    assert done.returncode == 2
    size = int(lines[6].split()[1]) - int(lines[5].split()[1])
    assert f"{size} bytes of the .rec belong to no record" in done.stdout


def test_verify_and_reindex_of_what_is_missing(out, refused):
    assert f"{out / 'a'}.idx is missing" in refused("im2rec", "--verify", out / "a")
    assert f"{out / 'a'}.rec is missing" in refused("im2rec", "--reindex", out / "a")
    assert names(out) == []


def test_reindex_rebuilds_the_idx_and_refuses_to_write_over(pictures, im2rec, refused):
    before = open(f"{pictures}.idx").read()
    assert "already exists" in refused("im2rec", "--reindex", pictures)
    assert open(f"{pictures}.idx").read() == before
    os.remove(f"{pictures}.idx")
    assert "15 records" in im2rec("--reindex", pictures)
    assert open(f"{pictures}.idx").read() == before


def default_signals():
    """A test run in the background would pass its ignored Ctrl-C on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_packing_leaves_nothing(tmp_path, out, jpeg, number, code):
    first = tmp_path / "in" / "a" / "0.jpg"
    first.parent.mkdir(parents=True)
    first.write_bytes(jpeg(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)))
    for i in range(1, 800):
        os.link(first, first.with_name(f"{i}.jpg"))
    process = subprocess.Popen([sys.executable, SCRIPT, tmp_path / "in", out / "a", "--workers",
                                "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=default_signals)
    while not list(out.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert len(stderr.strip().splitlines()) == 1
    assert names(out) == []


def test_output_that_cannot_be_written_is_one_line(picture_folder, tmp_path, script):
    (tmp_path / "file").write_text("")
    done = script("im2rec", picture_folder, tmp_path / "file" / "a")
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "file") in done.stderr


def test_a_file_of_classes_that_is_none(picture_folder, out, refused, tmp_path):
    (tmp_path / "c.json").write_text('{"classes": 5}')
    line = refused("im2rec", picture_folder, out / "a", "--classes", tmp_path / "c.json")
    assert str(tmp_path / "c.json") in line
    assert names(out) == []


def test_real_pictures(real_data, tmp_path, im2rec):
    with zipfile.ZipFile(real_data / "imagenet-samples-300.zip") as archive:
        archive.extractall(tmp_path)
    said = im2rec(tmp_path / "imagenet-samples", tmp_path / "a", "--resize", 256)
    assert "300 images, 300 classes" in said
    said = im2rec("--verify", tmp_path / "a")
    assert "300 records, 300 classes, labels 0 to 299, 0 damaged" in said
    file = recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "r")
    for key in range(0, 300, 15):
        header, image = recordio.unpack_img(file.read_idx(key))
        assert struct.pack("<I", header.flag) == bytes(4)
        assert min(image.shape[:2]) == 256
