"""ImageNet's files to records; what is expected is in support/imagenet_files.py as literals."""

import os
import shutil
import tarfile
from collections import namedtuple

import imagenet_files as files
import pytest
from packing import names, packed

from gluon_tricks.errors import InputError
from gluon_tricks.prepare import imagenet, tars, val_labels
from gluon_tricks.prepare.pack import Encoding

PASS = Encoding(pass_through=True)
ENDS = ("rec", "idx", "lst", "classes.json")


@pytest.fixture(autouse=True)
def without_syncing(monkeypatch):
    """It takes most of the time, and matters only for power failures."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def downloads(tmp_path):
    files.write_tars(tmp_path / "downloads")
    files.write_kit(tmp_path / "downloads")
    return tmp_path / "downloads"


@pytest.fixture
def folders(tmp_path):
    files.write_folders(tmp_path / "folders")
    return tmp_path / "folders"


def prepare(source, out, encoding=PASS, **options):
    said = []
    options = imagenet.Options(**{"any_counts": True, "workers": 2, **options})
    prepared = imagenet.prepare(source, out, encoding, options, lambda results, *_: results,
                                said.append)
    return prepared, said


def refused(source, out, *arguments, **options) -> str:
    with pytest.raises(InputError) as raised:
        prepare(source, out, *arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def contents(prefix):
    return {end: prefix.with_name(f"{prefix.name}.{end}").read_bytes() for end in ENDS}


def by_name(prefix):
    """{file name: (label, image)}, through MXNet's reader and the .lst."""
    records = packed(prefix)
    lines = [line.split("\t") for line in open(f"{prefix}.lst").read().splitlines()]
    assert [int(key) for key, _, _ in lines] == list(records)
    return {path.rpartition("/")[2]: records[int(key)] for key, _, path in lines}


def is_right(out) -> bool:
    train = {name.partition("/")[2]: (files.LABELS[name.partition("/")[0]], data)
             for name, data in files.train_pictures().items()}
    val = {name: (files.LABELS[files.VAL[name]], data)
           for name, data in files.val_pictures().items()}
    return by_name(out / "train") == train and by_name(out / "val") == val


def test_tars_and_folders_give_the_same_records(downloads, folders, tmp_path):
    prepared, said = prepare(downloads, tmp_path / "a")
    assert [done[1:3] + done[4:] for done in prepared] == [(15, 3, 0, [], 0), (6, 3, 0, [], 0)]
    assert said[0].startswith(f"{tmp_path / 'a'}: ")
    assert is_right(tmp_path / "a")
    assert names(tmp_path / "a") == sorted(
        f"{name}.{end}" for name in ("train", "val") for end in (*ENDS, "prepared.json"))
    prepare(folders, tmp_path / "b")
    assert contents(tmp_path / "a" / "train") == contents(tmp_path / "b" / "train")
    for end in ("rec", "idx", "classes.json"):  # the .lst has the paths in the source
        assert contents(tmp_path / "a" / "val")[end] == contents(tmp_path / "b" / "val")[end]


def lines(*columns, separator=" ") -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


STEMS = [name.removesuffix(".JPEG") for name in files.VAL]
NUMBERS = [files.LABELS[wnid] for wnid in files.VAL.values()]
TEXTS = {
    "name wnid": ("val.txt", lines(files.VAL, files.VAL.values())),
    "folder/name label, other order": ("val.txt", lines(
        [f"val/{name}" for name in reversed(files.VAL)], reversed(NUMBERS))),
    "lst": ("val.lst", lines(range(6), (f"{n}.000000" for n in NUMBERS), files.VAL,
                             separator="\t")),
    "wnids": ("imagenet_2012_validation_synset_labels.txt", lines(files.VAL.values())),
    "kaggle": ("LOC_val_solution.csv", "ImageId,PredictionString\n" + lines(
        STEMS, (f"{wnid} 85 1 499 272 {wnid} 1 2 3 4" for wnid in files.VAL.values()),
        separator=",")),
    "as Excel writes": ("val.txt", "\ufeff" + lines(STEMS, (f"{n}\r" for n in NUMBERS))),
}


@pytest.mark.parametrize("form", [*TEXTS, "kit", "kit's folder"])
@pytest.mark.parametrize("named", [False, True])
def test_labels_of_a_flat_validation_set(tmp_path, form, named):
    source, beside = tmp_path / "in", tmp_path / ("elsewhere" if named else "in")
    files.write_files(source / "train", files.train_pictures())
    files.write_files(source / "val", files.val_pictures())
    beside.mkdir(exist_ok=True)
    if form.startswith("kit"):
        files.write_kit(beside, packed=form == "kit")
        path = beside / (f"{files.KIT}.tar.gz" if form == "kit" else files.KIT)
    else:
        path = beside / TEXTS[form][0]
        path.write_text(TEXTS[form][1])
    prepare(source, tmp_path / "out", labels=path if named else None)
    assert is_right(tmp_path / "out")


def spoil(function):
    """A case of wrong input: `function` changes the folder of downloads."""
    return pytest.param(function, id=function.__name__)


def cut(path, size):
    os.truncate(path, size if size > 0 else path.stat().st_size + size)


def no_train(folder):
    (folder / files.TRAIN_TAR).unlink()
    return "has neither ILSVRC2012_img_train.tar nor train/"


def no_val(folder):
    (folder / files.VAL_TAR).unlink()
    return "has neither ILSVRC2012_img_val.tar nor val/"


def no_labels(folder):
    (folder / f"{files.KIT}.tar.gz").unlink()
    return "no labels of the validation images (ILSVRC2012_devkit_t12.tar.gz, "


def train_cut_in_a_picture(folder):
    cut(folder / files.TRAIN_TAR, -30_000)
    return f"{files.TRAIN_TAR}"


def train_cut_behind_a_class(folder):
    cut(folder / files.TRAIN_TAR, 512 + len(files.tar_bytes(
        {name: data for name, data in files.train_pictures().items() if "n00000030/" in name})))
    return f"{files.TRAIN_TAR} is truncated or damaged at byte "


def val_cut(folder):
    cut(folder / files.VAL_TAR, 4000)
    return f"{files.VAL_TAR} is not a tar, or is truncated"


def val_damaged_in_a_header(folder):
    data = (folder / files.VAL_TAR).read_bytes()
    at = data.index(b"ILSVRC2012_val_00000003")
    (folder / files.VAL_TAR).write_bytes(data[:at] + b"x" * 512 + data[at + 512:])
    return f"damaged at byte {at}"


def no_tar_at_all(folder):
    (folder / files.TRAIN_TAR).write_bytes(b"<html>Please log in</html>" * 90)
    return f"{files.TRAIN_TAR} is not a tar"


def val_for_train(folder):
    shutil.copy(folder / files.VAL_TAR, folder / files.TRAIN_TAR)
    return "not one CLASS.tar per class"


def train_for_val(folder):
    shutil.copy(folder / files.TRAIN_TAR, folder / files.VAL_TAR)
    return "n00000007.tar, which is not an image"


def a_name_twice(folder):
    inner = files.tar_bytes({"a.JPEG": b"1", "./a.JPEG": b"2"})
    (folder / files.TRAIN_TAR).write_bytes(files.tar_bytes({"n00000007.tar": inner}))
    return "contains n00000007/a.JPEG twice"


def kit_of_fewer_pictures(folder):
    files.write_kit(folder, [1, 2, 3, 1, 2])
    return "has 5 labels for 6 validation images"


def kit_with_an_unknown_number(folder):
    files.write_kit(folder, [1, 2, 3, 1, 2, 77])
    return "has 77, which is not a class number"


def kit_with_a_class_that_training_lacks(folder):
    files.write_kit(folder, [1, 2, 3, 1, 2, 4])
    return "n00000001 is not a class of the training set"


def kit_that_is_cut(folder):
    cut(folder / f"{files.KIT}.tar.gz", -200)
    return f"is not {files.KIT}.tar.gz, or is damaged"


def kit_without_meta(folder):
    no_labels(folder)
    (folder / files.KIT / "data").mkdir(parents=True)
    return "it must contain "


def kit_of_a_damaged_meta(folder):
    no_labels(folder)
    files.write_kit(folder, packed=False)
    cut(folder / files.KIT / "data" / "meta.mat", 200)
    return "its data/meta.mat is damaged"


def kit_that_is_a_page(folder):
    (folder / f"{files.KIT}.tar.gz").write_text("<html>Please log in</html>")
    return f"is not {files.KIT}.tar.gz, or is damaged (file could not be opened successfully): "


def kit_whose_meta_breaks_scipy(folder):
    no_labels(folder)
    files.write_kit(folder, packed=False)
    meta = folder / files.KIT / "data" / "meta.mat"
    data = bytearray(meta.read_bytes())
    data[144] = 99  # after the header and two tags: the array's class, which is not a valid one
    meta.write_bytes(data)
    return "its data/meta.mat is damaged (local variable 'arr' "


@pytest.mark.parametrize("change", [spoil(case) for case in (
    no_train, no_val, no_labels, train_cut_in_a_picture, train_cut_behind_a_class, val_cut,
    val_damaged_in_a_header, no_tar_at_all, val_for_train, train_for_val, a_name_twice,
    kit_of_fewer_pictures, kit_with_an_unknown_number, kit_with_a_class_that_training_lacks,
    kit_that_is_cut, kit_without_meta, kit_of_a_damaged_meta, kit_that_is_a_page,
    kit_whose_meta_breaks_scipy)])
def test_wrong_downloads_are_refused_before_anything_is_packed(downloads, tmp_path, change):
    said = change(downloads)
    assert said in refused(downloads, tmp_path / "out")
    assert not list(tmp_path.glob("out/*.rec*"))


@pytest.mark.parametrize(("text", "said"), [
    (TEXTS["wnids"][1].replace("n00000030", "n99999999", 1), "line 2: n99999999 is not a class"),
    (TEXTS["name wnid"][1].replace("val_00000005", "val_00000006"), "no line for ILSVRC2012_val_"
     "00000005"),
    (TEXTS["wnids"][1] + "n00000007\n", "has 7 labels for 6"),
    (lines(files.VAL, [0, 1, 2, 3, 0, 0]), "line 4: 3 is not a class"),
    (lines(files.VAL_NUMBERS), "line 1: needs NAME WNID"), ("a b c\n" * 6, "line 1: needs NAME"),
    ("\udcff", "is not text"),
], ids=["wnid", "name", "length", "label", "numbers", "words", "binary"])
def test_wrong_label_files(tmp_path, text, said):
    (tmp_path / "labels").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as raised:
        val_labels.read_text(tmp_path / "labels", list(files.VAL), sorted(files.WNIDS))
    assert said in str(raised.value)
    assert str(tmp_path / "labels") in str(raised.value)


def test_names_with_dots_and_names_that_differ_by_their_ending_alone(tmp_path):
    path, classes = tmp_path / "labels", sorted(files.WNIDS)
    path.write_text("a.c 2\nval/a.b.png 1\na.b.c 0\n")
    assert val_labels.read_text(path, ["a.b.JPEG", "a.b.c.jpg", "a.c.jpg"], classes) == [1, 0, 2]
    path.write_text("a.jpg 0\na.png 1\n")
    with pytest.raises(InputError, match=f"^a.jpg and a.png are the same name to {path}"):
        val_labels.read_text(path, ["a.jpg", "a.png"], classes)


def test_wrong_folders(folders, tmp_path):
    assert "--val-labels cannot be combined" in refused(folders, tmp_path / "out", labels=tmp_path)
    (folders / "val" / "n00000007").rename(folders / "val" / "n00000008")
    assert f"{folders / 'val' / 'n00000008'} is not a class" in refused(folders, tmp_path / "out")
    shutil.rmtree(folders / "val")
    (folders / "val").mkdir()
    assert "neither images nor class folders" in refused(folders, tmp_path / "out")
    assert "is not a folder" in refused(folders / "missing", tmp_path / "out")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        assert refused(folders, out).startswith(f"{tmp_path / 'file'} is a file: give a folder")


@pytest.mark.parametrize("name", ["a\nb.JPEG", "a\tb.JPEG", "a\udcff.JPEG"])
def test_a_name_in_a_flat_folder_that_no_lst_can_hold_is_refused(folders, tmp_path, name):
    shutil.rmtree(folders / "val")
    files.write_files(folders / "val", files.val_pictures() | {name: files.picture(1)})
    (tmp_path / "labels").write_text("n00000007\n" * 7)
    line = refused(folders, tmp_path / "out", labels=tmp_path / "labels")
    assert f"the name {name!r} cannot be printed" in line


def thousand(name) -> dict[str, int]:
    """As many images as ImageNet has, in 1000 classes: 895 * 1300 + 104 * 1123 + 875."""
    counts = [1300] * 895 + [1123] * 104 + [875] if name == "train" else [50] * 1000
    return {f"n{number:08d}": count for number, count in enumerate(counts)}


@pytest.mark.parametrize(("name", "change", "known", "said"), [
    ("train", {"n00000003": 1299}, {}, "1281166 images in 1000 classes, ILSVRC2012's train set "
     "1281167 in 1000: download"),
    ("train", {"n00000003": 1299}, thousand("train"), "; n00000003 has 1299, not 1300:"),
    ("train", {"n00000009": 700}, {}, "; n00000009 has 700, not 732 to 1300:"),
    ("val", {"n00000999": 49}, {}, "49999 images in 1000 classes, ILSVRC2012's val set 50000 in "
     "1000; n00000999 has 49, not 50:"),
    ("val", {"n00001000": 0}, {}, "50000 images in 1001 classes"),
])
def test_counts_other_than_imagenets(tmp_path, name, change, known, said):
    imagenet.check_counts(name, tmp_path, thousand(name), known)
    with pytest.raises(InputError) as raised:
        imagenet.check_counts(name, tmp_path, thousand(name) | change, known)
    assert said in str(raised.value)
    assert "--any-counts" in str(raised.value)


def test_a_small_set_is_refused_without_any_counts(downloads, tmp_path):
    line = refused(downloads, tmp_path / "out", any_counts=False)
    assert "15 images in 3 classes, ILSVRC2012's train set 1281167 in 1000" in line


def test_the_kits_counts_are_those_of_the_classes_alone(downloads):
    kit = val_labels.read_kit(downloads / f"{files.KIT}.tar.gz")
    assert kit.train_counts == files.TRAIN_COUNTS
    assert kit.wnids == list(files.VAL.values())


def test_a_full_disk_is_refused_before_anything_is_packed(downloads, tmp_path, monkeypatch):
    pictures = [*files.train_pictures().values(), *files.val_pictures().values()]
    records = sum(8 + 24 + len(data) + -len(data) % 4 for data in pictures)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(records))  # none for .idx, .lst
    line = refused(downloads, tmp_path / "out")
    assert line.startswith(f"{tmp_path / 'out'}: ")
    assert f"{records / 1e3:.1f} kB free" in line
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(records + 21 * 200))
    prepare(downloads, tmp_path / "out")


@pytest.mark.parametrize("source", ["downloads", "folders"])
def test_damaged_images_are_refused_or_skipped(source, tmp_path, request, monkeypatch):
    whole, name = files.train_pictures(), "n00000007/n00000007_10.JPEG"
    monkeypatch.setattr(files, "train_pictures", lambda: whole | {name: whole[name][:-40]})
    folder, out = request.getfixturevalue(source), tmp_path / "out"
    assert f"{name}: its JPEG is truncated" in refused(folder, out)
    (train, val), _ = prepare(folder, out, skip_damaged=True)  # resumes
    assert [len(train.damaged), train.skipped, train.images, val.images] == [1, 1, 14, 6]
    prepare(folder, tmp_path / "fresh", skip_damaged=True)
    assert contents(out / "train") == contents(tmp_path / "fresh" / "train")
    (train, _), _ = prepare(folder, out, skip_damaged=True)
    assert (train.images, train.skipped) == (14, 1)


def test_where_members_lie_is_remembered_for_the_same_tar_alone(downloads, tmp_path):
    tar, cache, calls = downloads / files.VAL_TAR, tmp_path / "cache.tsv", []

    def members(path):
        calls.append(path)
        return tars.flat(path)

    first = list(tars.listed(tar, cache, members))
    assert list(tars.listed(tar, cache, members)) == first
    assert len(calls) == 1
    tar.write_bytes(files.tar_bytes({"other.JPEG": b"123"}))
    again = tars.listed(tar, cache, members)
    assert (again.names, again.read("other.JPEG")) == (["other.JPEG"], b"123")


def test_a_name_that_no_lst_can_hold_a_link_and_an_empty_tar_are_refused(tmp_path):
    link = tarfile.TarInfo("a.JPEG")
    link.type, link.linkname = tarfile.SYMTYPE, "b.JPEG"
    for members, said in (([tarfile.TarInfo("a\tb.JPEG")], r"the name 'a\\tb.JPEG' cannot be"),
                          ([link], "contains 'a.JPEG', which is not a regular file"),
                          ([], "contains no files")):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for member in members:
                tar.addfile(member)
        with pytest.raises(InputError, match=said):
            tars.listed(tmp_path / "a.tar", tmp_path / "cache.tsv", tars.flat)


def test_a_tar_that_became_shorter_or_was_changed_is_noticed(downloads, tmp_path):
    tar, cache = downloads / files.VAL_TAR, tmp_path / "cache.tsv"
    members = tars.listed(tar, cache, tars.flat)
    data, before = tar.read_bytes(), os.stat(tar)
    cut(tar, 700)
    with pytest.raises(ValueError, match="ends inside it"):
        members.read(members.names[0])
    swapped = data.replace(b"val_00000006", b"val_00000009")
    tar.write_bytes(swapped)  # as long as it was
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(InputError, match=r"is truncated or damaged|is not a tar"):
        tars.listed(tar, cache, tars.flat)  # a header's checksum is wrong: it was read
