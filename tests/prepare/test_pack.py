"""Packing, read back by MXNet, Gluon and Pillow."""

import io
import json
import os
import threading

import cv2
import mxnet as mx
import numpy as np
import pytest
from packing import names, packed
from PIL import Image

from gluon_tricks.data import record
from gluon_tricks.errors import InputError
from gluon_tricks.prepare import pack

ENDS = ("rec", "idx", "lst", "classes.json")
PASS = pack.Encoding(pass_through=True)
SORTED = [(label, f"{name}/{number}.jpg") for label, name in enumerate(("ant", "bee", "cat"))
          for number in range(4 + label)]


def png(image) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def save(path, data: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def do(listing, prefix, encoding=PASS, **options):
    return pack.pack(listing, prefix, encoding, **{"workers": 2, **options})


def refused(function, *arguments, **options) -> str:
    with pytest.raises(InputError) as raised:
        function(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def out(tmp_path):
    """An empty folder for the output."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_labels_follow_the_sorted_folders(picture_folder, out):
    assert do(pack.list_folder(picture_folder), out / "a") == pack.Packed([], 0)
    assert names(out) == sorted(f"a.{end}" for end in ENDS)
    lines = [line.split("\t") for line in (out / "a.lst").read_text().splitlines()]
    found = packed(out / "a")
    assert [int(key) for key, _, _ in lines] == list(found) == list(range(15))
    for key, label, path in lines:
        assert found[int(key)] == (float(label), (picture_folder / path).read_bytes())
        assert SORTED.count((int(float(label)), path)) == 1
    assert json.loads((out / "a.classes.json").read_text()) == {"classes": ["ant", "bee", "cat"]}


def test_shuffled_with_a_seed(picture_folder):
    def order(seed):
        return [tuple(picture)[1:] for picture in pack.list_folder(picture_folder, seed=seed)[1]]

    assert order(None) == SORTED
    assert sorted(order(0)) == SORTED
    assert order(0) == order(0)
    assert len({tuple(order(seed)) for seed in (None, 0, 1, 2**32)}) == 4
    assert [label for label, _ in order(0)] != sorted(label for label, _ in order(0))


def test_keys_count_the_records_in_their_new_order(picture_folder):
    assert [picture.key for picture in pack.list_folder(picture_folder, seed=3)[1]] == \
        list(range(15))


def test_image_record_iter_and_gluon_read_the_pixels_and_labels(tmp_path, out):
    rng = np.random.default_rng(0)
    images = {}
    for label, name in enumerate("abcd"):
        for number in range(3):
            images[label, number] = rng.integers(0, 256, (20, 30, 3), np.uint8)
            save(tmp_path / "in" / name / f"{number}.png", png(images[label, number]))
    listing = pack.list_folder(tmp_path / "in", seed=1)
    do(listing, out / "a")
    expected = [(picture.label, images[picture.label, int(picture.path[2])])
                for picture in listing.images]
    batches = mx.io.ImageRecordIter(path_imgrec=str(out / "a.rec"), path_imgidx=str(
        out / "a.idx"), data_shape=(3, 20, 30), batch_size=1, preprocess_threads=1)
    dataset = mx.gluon.data.vision.ImageRecordDataset(str(out / "a.rec"))
    assert len(dataset) == 12
    for (label, image), batch, sample in zip(expected, batches, dataset, strict=True):
        assert batch.label[0].asscalar() == sample[1] == label
        assert (batch.data[0][0].asnumpy() == image.transpose(2, 0, 1)).all()
        assert (sample[0].asnumpy() == image).all()


def test_the_lst_packs_again_to_the_same_set(picture_folder, out):
    do(pack.list_folder(picture_folder), out / "a")
    do(pack.list_lst(out / "a.lst", picture_folder, seed=None), out / "b")
    for end in ("rec", "idx", "lst"):
        assert (out / f"a.{end}").read_bytes() == (out / f"b.{end}").read_bytes()


@pytest.mark.parametrize("encoding", [pack.Encoding(), pack.Encoding(resize=30), PASS])
def test_the_number_of_workers_changes_nothing(picture_folder, out, encoding):
    for workers in (1, 4):
        do(pack.list_folder(picture_folder), out / str(workers), encoding, workers=workers)
    for end in ENDS:
        assert (out / f"1.{end}").read_bytes() == (out / f"4.{end}").read_bytes()


def test_images_are_encoded_again_as_jpegs_of_the_same_colors(tmp_path, out):
    y, x = np.mgrid[0:60, 0:80]
    image = np.stack([4 * y, 3 * x, 255 - 3 * x], axis=-1).astype(np.uint8)
    save(tmp_path / "in" / "a" / "0.png", png(image))
    do(pack.list_folder(tmp_path / "in"), out / "a", pack.Encoding())
    data = packed(out / "a")[0][1]
    assert data[:3] == b"\xff\xd8\xff"
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - image).mean() < 3


@pytest.mark.parametrize("size", [10, 40, 41, 64, 200])
def test_resize_makes_the_short_edge_exact_and_keeps_the_aspect(picture_folder, out, size):
    do(pack.list_folder(picture_folder, seed=None), out / "a", pack.Encoding(resize=size))
    for (_, path), (_, data) in zip(SORTED, packed(out / "a").values(), strict=True):
        before, after = Image.open(picture_folder / path).size, Image.open(io.BytesIO(data)).size
        assert min(after) == size
        assert abs(max(after) - max(before) * size / min(before)) <= 0.5 + 1e-9
        assert (before[0] > before[1]) == (after[0] > after[1]) or after[0] == after[1]


def test_shrinking_averages_the_pixels(tmp_path, out):
    """A fine checkerboard becomes gray, with no pattern of its own."""
    y, x = np.mgrid[0:90, 0:120]
    board = np.repeat(((x + y) % 2 * 200 + 20)[..., None], 3, axis=2).astype(np.uint8)
    save(tmp_path / "in" / "a" / "0.png", png(board))
    do(pack.list_folder(tmp_path / "in"), out / "a", pack.Encoding(resize=30))
    pixels = np.asarray(Image.open(io.BytesIO(packed(out / "a")[0][1]))).astype(int)
    assert pixels.shape == (30, 40, 3)
    assert np.abs(pixels - 120).max() <= 15


def test_quality_sets_the_size(picture_folder, out):
    sizes = []
    for quality in (10, 50, 95, 100):
        do(pack.list_folder(picture_folder), out / str(quality), pack.Encoding(quality=quality))
        sizes.append((out / f"{quality}.rec").stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[0] * 3 < sizes[-1]
    do(pack.list_folder(picture_folder), out / "default", pack.Encoding())
    assert (out / "default.rec").read_bytes() == (out / "95.rec").read_bytes()


def test_given_classes_keep_the_labels(picture_folder):
    for file in (picture_folder / "bee").iterdir():
        file.unlink()
    (picture_folder / "bee").rmdir()
    classes = ["ant", "ape", "bee", "cat", "dog"]
    listing = pack.list_folder(picture_folder, classes)
    assert {picture.path[:3]: picture.label for picture in listing.images} == {"ant": 0, "cat": 3}
    assert listing.classes == classes
    assert "bee" not in {picture.path[:3] for picture in pack.list_folder(picture_folder)[1]}


def test_a_folder_that_is_no_class(picture_folder):
    message = refused(pack.list_folder, picture_folder, ["ant", "cat"])
    assert str(picture_folder / "bee") in message


def test_what_counts_as_an_image(tmp_path, jpeg):
    data = jpeg(np.zeros((8, 8, 3), np.uint8))
    for name in ("b/1.JPEG", "b/2.Jpg", "b/deep/er/3.png", "b/notes.txt", "b/list.jpg.bak",
                 ".hidden/4.jpg", "loose.jpg", "a/5.jpeg", "c/notes.txt"):
        save(tmp_path / "in" / name, data)
    listing = pack.list_folder(tmp_path / "in", seed=None)
    assert [picture[1:] for picture in listing.images] == \
        [(0, "a/5.jpeg"), (1, "b/1.JPEG"), (1, "b/2.Jpg"), (1, "b/deep/er/3.png")]
    assert listing.classes == ["a", "b", "c"]


def test_nothing_to_pack(tmp_path):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "flat" / "0.jpg", b"")
    save(tmp_path / "texts" / "a" / "0.txt", b"")
    for name, said in (("empty", "no class folders"), ("flat", "no class folders"),
                       ("texts", "no images"), ("missing", "not a folder"),
                       ("flat/0.jpg", "not a folder")):
        assert f"{tmp_path / name}" in refused(pack.list_folder, tmp_path / name)
        assert said in refused(pack.list_folder, tmp_path / name)


def test_a_lst_keeps_keys_and_labels(tmp_path):
    (tmp_path / "a.lst").write_text("17\t2.000000\tx/1.jpg\n3\t0\ty 2.jpg\n900\t1.0\t/z.jpg\n")
    listing = pack.list_lst(tmp_path / "a.lst", seed=None)
    assert listing.images == [(17, 2, "x/1.jpg"), (3, 0, "y 2.jpg"), (900, 1, "/z.jpg")]
    assert (listing.root, listing.classes) == (tmp_path, ["0", "1", "2"])
    assert sorted(pack.list_lst(tmp_path / "a.lst", seed=0)[1]) == sorted(listing.images)
    named = pack.list_lst(tmp_path / "a.lst", tmp_path / "root", ["p", "q", "r", "s"])
    assert (named.root, named.classes) == (tmp_path / "root", ["p", "q", "r", "s"])


@pytest.mark.parametrize("line", [
    "0 0 a.jpg", "0\ta.jpg", "0\t0\t1\ta.jpg", "-1\t0\ta.jpg", "x\t0\ta.jpg", "0.5\t0\ta.jpg",
    "0\t-1\ta.jpg", "0\t0.5\ta.jpg", "0\tnan\ta.jpg", "0\tinf\ta.jpg", "5\t0\ta.jpg",
    "18446744073709551616\t0\ta.jpg", "9223372036854775808\t0\ta.jpg", "0\t4000000000\ta.jpg",
])
def test_lst_lines_that_are_refused(tmp_path, line, monkeypatch):
    def small_range(*arguments):  # otherwise a failure costs gigabytes
        assert len(range(*arguments)) < 10**6
        return range(*arguments)

    monkeypatch.setattr(pack, "range", small_range, raising=False)
    (tmp_path / "a.lst").write_text(f"5\t0\tb.jpg\n{line}\n")
    assert f"{tmp_path / 'a.lst'}" in refused(pack.list_lst, tmp_path / "a.lst")


def test_lsts_that_are_refused(tmp_path):
    (tmp_path / "a.lst").write_text("0\t3\ta.jpg\n")
    assert "label 3" in refused(pack.list_lst, tmp_path / "a.lst", None, ["x", "y", "z"])
    (tmp_path / "empty.lst").write_text("")
    (tmp_path / "binary.lst").write_bytes(bytes(range(256)))
    for name in ("empty.lst", "binary.lst", "missing.lst"):
        assert f"{tmp_path / name}" in refused(pack.list_lst, tmp_path / name)


@pytest.mark.parametrize("end", ENDS)
def test_existing_output_is_refused_and_untouched(picture_folder, out, end):
    (out / f"a.{end}").write_text("precious")
    assert f"a.{end} already exists" in refused(do, pack.list_folder(picture_folder), out / "a")
    assert names(out) == [f"a.{end}"]
    assert (out / f"a.{end}").read_text() == "precious"


def damaged(kind, whole: bytes) -> bytes:
    return {"empty": b"", "text": b"no picture\n" * 40, "half": whole[:len(whole) // 2],
            "without its last byte": whole[:-1], "zeros": bytes(500)}[kind]


@pytest.mark.parametrize("encoding", [PASS, pack.Encoding()])
@pytest.mark.parametrize("kind", ["empty", "text", "half", "without its last byte", "zeros"])
def test_a_damaged_file_is_refused_or_skipped(picture_folder, out, kind, encoding):
    file = picture_folder / "bee" / "3.jpg"
    file.write_bytes(damaged(kind, file.read_bytes()))
    listing = pack.list_folder(picture_folder)
    message = refused(do, listing, out / "a", encoding)
    assert message.startswith(f"{file}: ")
    assert "--skip-damaged" in message
    assert names(out) == []
    left_out, = do(listing, out / "a", encoding, skip_damaged=True).damaged
    assert left_out.startswith(f"{file}: ")
    key, = (picture.key for picture in listing.images if picture.path == "bee/3.jpg")
    assert sorted([key, *packed(out / "a")]) == list(range(15))
    assert "bee/3.jpg" not in (out / "a.lst").read_text()
    assert len((out / "a.lst").read_text().splitlines()) == 14


def test_the_threads_have_ended_when_packing_is_refused(picture_folder, out):
    """Otherwise the garbage collector ends them: in one of them, it fails and says so on stderr."""
    (picture_folder / "ant" / "0.jpg").write_bytes(b"")
    before = set(threading.enumerate())
    with pytest.raises(InputError) as raised:
        do(pack.list_folder(picture_folder, seed=None), out / "a")
    assert raised.tb  # and with it each variable of the functions that raised
    assert not set(threading.enumerate()) - before


def test_a_listed_file_that_is_missing(picture_folder, out):
    (picture_folder / "a.lst").write_text("0\t0\tant/0.jpg\n1\t0\tant/77.jpg\n2\t0\tant\n")
    listing = pack.list_lst(picture_folder / "a.lst", seed=None)
    assert f"{picture_folder / 'ant/77.jpg'}: No such file" in refused(do, listing, out / "a")
    assert names(out) == []
    assert len(do(listing, out / "a", skip_damaged=True).damaged) == 2
    assert list(packed(out / "a")) == [0]


def test_nothing_but_damaged_files(tmp_path, out):
    save(tmp_path / "in" / "a" / "0.jpg", b"")
    listing = pack.list_folder(tmp_path / "in")
    assert str(tmp_path / "in") in refused(do, listing, out / "a", skip_damaged=True)
    assert names(out) == []


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"tab\there.jpg", b"line\nbreak.jpg"])
def test_a_name_that_a_lst_cannot_hold_is_packed_rightly_or_refused_with_nothing_written(
        tmp_path, out, jpeg, name):
    """Names are bytes in Linux; old archives have Latin-1 ones."""
    folder = tmp_path / "in"
    save(folder / "a" / os.fsdecode(name), jpeg(np.zeros((8, 8, 3), np.uint8)))
    try:
        do(pack.list_folder(folder), out / "a")
    except InputError as error:
        assert "\n" not in str(error)
        assert names(out) == []
    else:
        assert pack.list_lst(out / "a.lst", folder)[1] == pack.list_folder(folder)[1]


def test_an_image_too_long_for_a_jpeg_is_refused_or_skipped(tmp_path, out):
    save(tmp_path / "in" / "a" / "0.png", png(np.zeros((8, 8, 3), np.uint8)))
    save(tmp_path / "in" / "a" / "long.png", png(np.zeros((66_000, 1, 3), np.uint8)))
    listing = pack.list_folder(tmp_path / "in", seed=None)
    assert "long.png" in refused(do, listing, out / "a", pack.Encoding())
    assert names(out) == []
    assert len(do(listing, out / "a", pack.Encoding(), skip_damaged=True).damaged) == 1


def test_nothing_is_left_where_the_last_file_cannot_be_written(picture_folder, tmp_path,
                                                               monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    moves = []

    def replace(source, target):
        moves.append(target)
        if len(moves) == 4:
            raise OSError(28, "No space left on device", str(target))
        original(source, target)

    original = record.os.replace
    monkeypatch.setattr(record.os, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        pack.pack(pack.list_folder(picture_folder), out / "set", pack.Encoding(), workers=2)
    assert moves[-1] == out / "set.idx"
    assert list(out.iterdir()) == []


def test_two_processes_cannot_pack_to_one_prefix(picture_folder, tmp_path):
    listing = pack.list_folder(picture_folder)
    with record.RecordWriter(tmp_path / "set") as writer:
        with pytest.raises(InputError, match=r"set\.rec\.part is being written by another"):
            pack.pack(listing, tmp_path / "set", pack.Encoding(), workers=1)
        writer.write(0, 0, b"first")
    with record.RecordSet(tmp_path / "set.rec") as written:
        assert written.read(0) == b"first"


def test_a_list_that_is_there_is_refused_before_the_work(picture_folder, tmp_path):
    (tmp_path / "set.lst").write_text("kept")
    with pytest.raises(InputError, match=r"set\.lst already exists"):
        pack.pack(pack.list_folder(picture_folder), tmp_path / "set", pack.Encoding(), workers=1,
                  progress=lambda results: pytest.fail("it began to pack"))
    assert (tmp_path / "set.lst").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "set.lst"}


def test_what_would_be_too_long_resized_is_refused_before_it_is(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 600, 3), np.uint8))
    monkeypatch.setattr(cv2, "resize", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(ValueError, match=r"a side of 76800 pixels .* too narrow for --resize"):
        pack.encode((tmp_path / "a.png").read_bytes(), pack.Encoding(resize=256))
