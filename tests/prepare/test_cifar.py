"""CIFAR-10's binary files to RecordIO: the same pixels, complete or not at all, once."""

import functools
import gzip
import hashlib
import http.server
import json
import shutil
import tarfile
import threading
import time

import numpy as np
import pytest
from mxnet.gluon.data.vision import CIFAR10
from packing import names

from gluon_tricks.data.decode import decode
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError
from gluon_tricks.prepare import cifar
from gluon_tricks.prepare.cifar import cifar10_records

TRAIN, BINARIES = [f"data_batch_{i}.bin" for i in range(1, 6)], 6
OFFICIAL = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
            "truck"]
COUNT = 4  # images in each file


def write_binaries(folder, count=COUNT):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*TRAIN, "test_batch.bin"]):
        rows = np.random.default_rng(number).integers(0, 256, (count, 3073), np.uint8)
        rows[:, 0] = (np.arange(count) * 3 + number) % 10
        (folder / name).write_bytes(rows.tobytes())


@pytest.fixture
def root(tmp_path):
    """A data set's folder with all six files."""
    write_binaries(tmp_path / "cifar10")
    return tmp_path / "cifar10"


def archive(source, target, inside=""):
    """All files of `source` in a .tar.gz at `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as tar:
        for path in sorted(source.iterdir()):
            tar.add(path, inside + path.name)


def check_pixels(root, out):
    """All images are those that Gluon reads from the .bin files."""
    assert out == root / "rec"
    for part, files in (("train", TRAIN), ("val", ["test_batch.bin"])):
        read = [CIFAR10._read_batch(None, str(root / name)) for name in files]
        images, labels = (np.concatenate(each) for each in zip(*read, strict=True))
        with RecordSet(out / f"{part}.rec") as records:
            assert len(records) == len(files) * COUNT
            assert records.keys.tolist() == list(range(len(records)))
            assert np.array_equal(records.labels, labels)
            assert records.class_names() == OFFICIAL
            for index in range(len(records)):
                assert np.array_equal(decode(records.read(index)), images[index])


def test_pixels_and_labels_are_the_binary_s(root):
    check_pixels(root, cifar10_records(root, images=COUNT))
    assert names(root / "rec") == sorted(f"{part}.{end}" for part in ("train", "val")
                                         for end in ("rec", "idx", "classes.json"))
    assert json.loads((root / "rec" / "val.classes.json").read_text()) == {"classes": OFFICIAL}


def test_red_green_and_blue_stand_row_by_row(root):
    row = bytes([7]) + bytes([200]) * 1024 + bytes(range(32)) * 32 + bytes([9]) * 1024
    (root / "test_batch.bin").write_bytes(row)
    cifar10_records(root, images=None)
    with RecordSet(root / "rec" / "val.rec") as records:
        assert records.labels.tolist() == [7]
        assert decode(records.read(0))[5, 3].tolist() == [200, 3, 9]


def test_it_is_made_once(root):
    out = cifar10_records(root, images=COUNT)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    for path in root.glob("*.bin"):
        path.unlink()
    assert cifar10_records(str(root)) == out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_processes_that_begin_together_make_it_once(root, monkeypatch):
    """Threads here: the lock belongs to the open file, so it works between them too."""
    made, make = [], cifar._make

    def slowly(*arguments):
        made.append(threading.current_thread().name)
        time.sleep(0.3)
        make(*arguments)

    monkeypatch.setattr(cifar, "_make", slowly)
    found = []
    threads = [threading.Thread(target=lambda: found.append(cifar10_records(root, images=COUNT)))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [root / "rec"] * 3
    assert len(made) == 1
    check_pixels(root, root / "rec")


def refused(root, **options) -> str:
    with pytest.raises(InputError) as raised:
        cifar10_records(root, **{"images": COUNT, **options})
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("name", "damage", "said"), [
    ("data_batch_3.bin", lambda data: data[:-1], "has 12291 bytes, not a multiple of 3073"),
    ("test_batch.bin", lambda data: b"", "has 0 bytes, not a multiple of 3073"),
    ("data_batch_5.bin", lambda data: data[3073:], "has 3 images, not 4"),
    ("test_batch.bin", lambda data: data[:3073] + b"\n" + data[3074:],
     ": image 1 has the label 10, but there are 10 classes")])
def test_a_damaged_file_is_refused_by_its_name_and_nothing_is_left(root, name, damage, said):
    path = root / name
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    line = refused(root)
    assert line.startswith(str(path)) and said in line
    assert names(root) == sorted([".lock", *TRAIN, "test_batch.bin"])
    path.write_bytes(whole)
    (root / ".rec.part").mkdir()  # what a killed process leaves
    (root / ".rec.part" / "train.rec").write_bytes(b"half")
    check_pixels(root, cifar10_records(root, images=COUNT))


def test_each_file_has_ten_thousand_images_unless_said_otherwise(root):
    assert "data_batch_1.bin has 4 images, not 10000" in refused(root, images=cifar.IMAGES)
    assert "has 4 images, not 5" in refused(root, images=5)
    with pytest.raises(InputError, match="not 10000"):
        cifar10_records(root)


def test_half_a_set_is_not_taken_for_a_whole_one(root):
    cifar10_records(root, images=COUNT)
    (root / "rec" / "val.idx").unlink()
    assert refused(root).startswith(f"{root / 'rec'} has no val.idx: remove the folder")


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin/"])
def test_the_archive_is_unpacked(root, tmp_path, inside):
    new = tmp_path / "new"
    (root / "readme.html").write_text("not wanted")
    archive(root, new / "cifar-10-binary.tar.gz", inside)
    out = cifar10_records(new, images=COUNT)
    assert len(list(new.glob("*.bin"))) == BINARIES
    assert not list(new.glob("*.html"))
    check_pixels(new, out)


def test_an_archive_fills_in_what_is_missing_and_changes_nothing_else(root):
    archive(root, root / "cifar-10-binary.tar.gz")
    (root / "data_batch_2.bin").unlink()
    (root / "test_batch.bin").write_bytes(bytes(3073 * COUNT))
    check_pixels(root, cifar10_records(root, images=COUNT))


def test_the_folder_that_the_authors_archive_unpacks_into_serves(root):
    inner = root / "cifar-10-batches-bin"
    inner.mkdir()
    for path in root.glob("*.bin"):
        path.rename(inner / path.name)
    out = cifar10_records(root, images=COUNT)
    for path in inner.iterdir():
        path.rename(root / path.name)
    check_pixels(root, out)


def test_a_damaged_archive_is_refused_by_its_name(root, tmp_path):
    new = tmp_path / "new" / "cifar-10-binary.tar.gz"
    archive(root, new)
    whole = new.read_bytes()
    for data in (whole[:-5000], whole[:20000], b"no archive" * 99, gzip.compress(b"no tar" * 999),
                 whole[:9000] + bytes(500) + whole[9500:]):
        new.write_bytes(data)
        assert refused(new.parent).startswith(f"{new} is damaged")
    (root / "data_batch_4.bin").unlink()
    archive(root, new)
    assert refused(new.parent).startswith(f"{new} has no data_batch_4.bin")
    assert "rec" not in names(new.parent)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that replaces MXNet's repository of data sets."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{server.server_port}/")
    yield folder / "gluon" / "dataset" / "cifar10" / "cifar-10-binary.tar.gz"
    server.shutdown()
    server.server_close()


def test_it_is_downloaded_where_its_checksum_is_gluon_s(root, tmp_path, served, monkeypatch,
                                                       capsys):
    archive(root, served)
    new = tmp_path / "new"
    line = refused(new)
    assert line.startswith(f"{new} has no data_batch_1.bin, and cifar-10-binary.tar.gz cannot be "
                           "downloaded (") and "hash" in line
    assert names(new) == [".lock"]
    assert CIFAR10.__init__.__code__.co_consts.count((cifar.ARCHIVE, cifar.SHA1)) == 1
    monkeypatch.setattr(cifar, "SHA1", hashlib.sha1(served.read_bytes()).hexdigest())
    check_pixels(new, cifar10_records(new, images=COUNT))
    assert capsys.readouterr().out == ""


def test_without_a_network_one_line_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_GLUON_REPO", "http://127.0.0.1:9/")
    line = refused(tmp_path / "new")
    assert line.startswith(f"{tmp_path / 'new'} has no data_batch_1.bin, and ")
    assert line.endswith("put that archive, or its six .bin files, there")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file" / "cifar").startswith(f"{tmp_path / 'file' / 'cifar'} is not")


def test_the_home_folder_is_the_default(root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / ".mxnet" / "datasets" / "cifar10"
    shutil.copytree(root, place)
    check_pixels(place, cifar10_records(images=COUNT))
