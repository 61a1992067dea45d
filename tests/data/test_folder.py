"""Images as files: listed as pathlib lists them, read as their bytes, decoded as when packed."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from sampling import images, natively

from gluon_tricks.data import folder
from gluon_tricks.data.check import fingerprint, quick_check
from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder
from gluon_tricks.data.record import RecordSet
from gluon_tricks.data.transforms import EvalTransform, TrainTransform
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.prepare import pack


@pytest.fixture
def records(picture_folder):
    """4, 5 and 6 JPEGs of the classes ant, bee and cat."""
    return FolderSet(picture_folder)


def test_labels_follow_the_sorted_folders_and_bytes_are_the_files(records, picture_folder):
    keys = [f"{name}/{number}.jpg" for name, count in (("ant", 4), ("bee", 5), ("cat", 6))
            for number in range(count)]
    assert (len(records), records.keys) == (15, keys)
    assert records.labels.tolist() == [0] * 4 + [1] * 5 + [2] * 6
    assert (records.class_names(), records.class_count()) == (["ant", "bee", "cat"], 3)
    for index, key in enumerate(keys):
        data = (picture_folder / key).read_bytes()
        assert records.name(index) == str(picture_folder / key)
        assert records.read(index) == data
        assert records.lengths[index] == len(data)
        assert records.read_ends(index, 50, 9) == (len(data), data[:50], data[-9:])
        assert records.read_ends(index, len(data), 9) == (len(data), data, data[-9:])
        assert records.read_ends(index, len(data) - 1, len(data) + 5) == (len(data), data[:-1],
                                                                          data)


NAMES = ["b/1.jpg", "b/10.jpg", "b/2.JPEG", "b/x.y.PNG", "b/é.webp", "b/a-b/1.bmp", "b/a/z.jpg",
         "b/a/a/1.jpg", "b/a.jpg", "b/A.jpg", "b/..jpg", "b/.hidden.jpg", "b/.in/1.jpg",
         "b-c/1.jpg", "a/only.jpeg"]
OTHERS = ["b/.jpg", "b/jpg", "b/1.gif", "b/1.jpg.txt", "b/a/list.csv", ".git/1.jpg", "top.jpg"]


def tree(root: Path, paths) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def by_pathlib(root: Path) -> list[str]:
    """Which files count, and in which order, by definition."""
    return [path.relative_to(root).as_posix()
            for name in sorted(entry.name for entry in root.iterdir() if entry.is_dir())
            if not name.startswith(".") for path in sorted((root / name).rglob("*"))
            if path.suffix.lower() in folder.SUFFIXES and path.is_file()]


def test_what_is_listed_and_in_which_order(tmp_path):
    tree(tmp_path, NAMES + OTHERS)
    os.symlink(tmp_path / "b" / "gone.jpg", tmp_path / "b" / "dangling.jpg")
    os.symlink(tmp_path / "b", tmp_path / "b" / "circle")
    expected = by_pathlib(tmp_path)
    assert sorted(expected) == sorted(NAMES)
    records = FolderSet(tmp_path)
    assert records.keys == expected
    assert [records.read(index).decode() for index in range(len(records))] == expected
    assert [picture.path for picture in pack.list_folder(tmp_path, seed=None).images] == expected


def test_links_to_class_folders_and_to_files_are_followed(tmp_path, picture_folder):
    linked, half = tmp_path / "linked", tmp_path / "linked" / "half"
    linked.mkdir()
    os.symlink(picture_folder / "bee", linked / "ant")
    half.mkdir()
    os.symlink(picture_folder / "cat" / "3.jpg", half / "z.jpg")
    records, original = FolderSet(linked), FolderSet(picture_folder)
    assert records.keys == [*(f"ant/{number}.jpg" for number in range(5)), "half/z.jpg"]
    assert records.labels.tolist() == [0, 0, 0, 0, 0, 1]
    assert records.lengths.tolist() == original.lengths[[4, 5, 6, 7, 8, 12]].tolist()
    assert records.read(5) == original.read(12)


def test_labels_follow_the_training_set_s_classes(picture_folder):
    shutil.rmtree(picture_folder / "ant")
    records = FolderSet(picture_folder, ["bee", "ant", "dog", "cat"])
    assert records.labels.tolist() == [0] * 5 + [3] * 6
    assert records.class_names() == ["bee", "ant", "dog", "cat"]
    assert records.class_count() == 4


def refused(*arguments) -> str:
    with pytest.raises(InputError) as raised:
        FolderSet(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_no_set_of_images_is_refused(picture_folder, tmp_path):
    assert f"{tmp_path / 'none'} is not a folder" in refused(tmp_path / "none")
    (tmp_path / "empty" / "ant").mkdir(parents=True)
    assert f"{tmp_path / 'empty'} has no images" in refused(tmp_path / "empty")
    assert f"{tmp_path / 'empty' / 'ant'} has no class folders" in refused(tmp_path / "empty/ant")
    line = refused(picture_folder, ["ant", "cat"])
    assert line.startswith(f"{picture_folder / 'bee'} is not a class of the training set (1 such")
    tree(picture_folder, ["bee/two\nlines.jpg"])
    assert r"'bee/two\nlines.jpg' cannot be printed" in refused(picture_folder)


@pytest.fixture
def mixed_folder(picture_folder):
    """The native decoder leaves the sixth and the last image to OpenCV: PNG and progressive."""
    noise = np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)
    png, progressive = (cv2.imencode(kind, noise, options)[1].tobytes() for kind, options in (
        (".png", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])))
    (picture_folder / "bee" / "1.jpg").write_bytes(png)
    (picture_folder / "cat" / "5.jpg").write_bytes(progressive)
    return picture_folder


@pytest.mark.parametrize("transform", [
    TrainTransform(size=24), TrainTransform(size=24, padding=4, area=(1, 1)),
    EvalTransform(size=24, resize=28)], ids=["resized", "padded", "evaluation"])
def test_pixels_are_those_of_the_packed_images(backend, mixed_folder, tmp_path, transform):
    listing = pack.list_folder(mixed_folder, seed=None)
    pack.pack(listing, tmp_path / "set", pack.Encoding(pass_through=True), workers=1)
    with FolderSet(mixed_folder) as files, RecordSet(tmp_path / "set.rec") as packed:
        assert np.array_equal(files.labels, packed.labels)
        assert files.class_names() == packed.class_names()
        for shortcut in (False, True):
            a, b = (images(each, transform, backend, epoch=3, dct_shortcut=shortcut)
                    for each in (files, packed))
            assert np.array_equal(a, b)
            assert a.std() > 0.1


def test_the_native_decoder_reads_the_files_itself(native_core, mixed_folder, monkeypatch):
    records = FolderSet(mixed_folder)
    (mixed_folder / "ant" / "1.jpg").write_bytes(b"")
    (mixed_folder / "ant" / "2.jpg").unlink()
    os.truncate(mixed_folder / "ant" / "3.jpg", 1 << 29)  # zeros appended: longer than any record
    monkeypatch.setattr(FolderSet, "read", None)
    assert natively(native_core, records, EvalTransform(24, 28))[1] == [1, 2, 3, 5, 14]


def test_any_number_of_threads_reads_at_once(records, picture_folder):
    want = [(picture_folder / key).read_bytes() for key in records.keys]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(records.read, list(range(15)) * 40)) == want * 40


def all_batches(records, backend, **options):
    order = EvalOrder(len(records), 4)
    with RecordLoader(records, EvalTransform(24, 28), order, backend=backend, workers=2,
                      **options) as loader:
        return [batch.indices.tolist() for batch in loader.epoch()], loader.skipped


@pytest.mark.parametrize("skip", [False, True])
def test_a_file_that_vanishes_stops_the_run_by_its_name(records, picture_folder, backend, skip):
    """This is not damage to skip: a whole disk may be gone."""
    path = picture_folder / "bee" / "2.jpg"
    path.unlink()
    with pytest.raises(RunFault, match=f"{path}: .*No such file"):
        all_batches(records, backend, skip_damaged=skip)
    path.mkdir()
    with pytest.raises(RunFault, match=f"{path}: .*Is a directory"):
        all_batches(records, backend, skip_damaged=skip)


def test_a_damaged_file_is_named_or_skipped(records, picture_folder, backend):
    path = picture_folder / "bee" / "2.jpg"
    path.write_bytes(path.read_bytes()[:300])
    (index, damage), = quick_check(records, 2)
    assert (index, damage.key) == (6, "bee/2.jpg")
    assert "truncated" in damage.reason
    with pytest.raises(InputError, match=f"^{path}: .*truncated"):
        all_batches(records, backend)
    assert all_batches(records, backend, skip_damaged=True) == (
        [[0, 1, 2, 3], [4, 5, 7], [8, 9, 10, 11], [12, 13, 14]], {6})


def test_a_disk_that_refuses_to_read_is_no_damage(records, picture_folder):
    (picture_folder / "cat" / "0.jpg").unlink()
    with pytest.raises(RunFault, match=r"cat/0\.jpg: No such file or directory"):
        quick_check(records, 2)


def test_a_fingerprint_is_of_names_sizes_and_labels(records, picture_folder, tmp_path):
    def of(root=picture_folder, classes=None):
        return fingerprint(FolderSet(root, classes))

    first = fingerprint(records)
    shutil.copytree(picture_folder, tmp_path / "copy")
    assert of(tmp_path / "copy") == first == of(classes=["ant", "bee", "cat", "dog"])
    found = {first, of(classes=["bee", "ant", "cat"])}
    (picture_folder / "ant" / "3.jpg").rename(picture_folder / "ant" / "4.jpg")
    found.add(of())
    with open(picture_folder / "ant" / "4.jpg", "ab") as file:
        file.write(b"\0")
    found.add(of())
    (picture_folder / "cat" / "5.jpg").unlink()
    found.add(of())
    assert len(found) == 5
