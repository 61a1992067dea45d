"""scripts/im2rec.py --seekable as a user runs it."""

import io
import zipfile

import cv2
import numpy as np
import pytest
from packing import names, packed
from PIL import Image


def check_same_but_seekable(before, after) -> None:
    """The same keys, labels and pixels, of all but PNGs in other bytes with an index."""
    old, new = packed(before), packed(after)
    assert list(old) == list(new)
    for key, (label, data) in new.items():
        assert label == old[key][0]
        pixels = [np.asarray(Image.open(io.BytesIO(each))) for each in (data, old[key][1])]
        assert pixels[0].shape == pixels[1].shape
        assert (pixels[0] == pixels[1]).all()
        assert (b"GLUONTRICKS\0" in data) == (data[:4] != b"\x89PNG")


@pytest.mark.parametrize("flags", [("--pass-through",), ("--resize", 32, "--quality", 80)])
def test_a_folder_and_a_packed_set_give_the_same(
        picture_folder, im2rec, out, native_core, flags):
    im2rec(picture_folder, out / "a", *flags)
    said = im2rec(picture_folder, out / "b", "--seekable", *flags)
    assert said == f"{out / 'b'}.rec: 15 images, 3 classes\n"
    said = im2rec(out / "a.rec", out / "c", "--seekable", "--workers", 1)
    assert said == f"{out / 'c'}.rec: 15 images, 3 classes\n"
    check_same_but_seekable(out / "a", out / "b")
    for end in ("rec", "idx", "lst", "classes.json"):
        assert (out / f"b.{end}").read_bytes() == (out / f"c.{end}").read_bytes()
    assert "15 records, 3 classes, labels 0 to 2, 0 damaged" in im2rec("--verify", out / "c")


def test_what_is_no_jpeg_is_stored_as_it_is_and_counted(picture_folder, im2rec, out, native_core):
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    (picture_folder / "bee" / "a.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    im2rec(picture_folder, out / "a", "--pass-through")
    said = im2rec(picture_folder, out / "b", "--pass-through", "--seekable")
    assert said == (f"{out / 'b'}.rec: 16 images, 3 classes, 1 not seekable, stored as they "
                    "were\n")
    said = im2rec(out / "a.rec", out / "c", "--pass-through", "--seekable")
    assert said.endswith("16 images, 3 classes, 1 not seekable, stored as they were\n")
    check_same_but_seekable(out / "a", out / "b")
    assert (out / "b.rec").read_bytes() == (out / "c.rec").read_bytes()
    assert "seekable" not in im2rec(picture_folder, out / "d", "--seekable")


def test_a_damaged_record_is_refused_in_one_line_or_left_out(
        picture_folder, im2rec, out, refused, script, native_core):
    im2rec(picture_folder, out / "a", "--pass-through")
    offset = int((out / "a.idx").read_text().splitlines()[6].split()[1])
    with open(out / "a.rec", "r+b") as file:
        file.seek(offset + 32)
        file.write(bytes(300))
    before = names(out)
    line = refused("im2rec", out / "a.rec", out / "b", "--seekable")
    assert f"{out / 'a'}.rec, the record with key 6 at byte {offset}: " in line
    assert names(out) == before
    done = script("im2rec", out / "a.rec", out / "b", "--seekable", "--skip-damaged")
    assert done.returncode == 0
    assert done.stderr.startswith(f"skipped: {out / 'a'}.rec, the record with key 6")
    assert "14 images, 3 classes, 1 skipped" in done.stdout
    assert list(packed(out / "b")) == [key for key in range(15) if key != 6]


@pytest.mark.parametrize(("arguments", "said"), [
    (("REC", "OUT"), "--seekable"), (("REC", "OUT", "--pass-through"), "--seekable"),
    (("REC", "OUT", "--seekable", "--resize", "9"), "--resize"),
    (("REC", "OUT", "--seekable", "--quality", "9"), "--quality"),
    (("REC", "OUT", "--seekable", "--root", "REC"), "--root"),
    (("REC", "OUT", "--seekable", "--classes", "REC"), "--classes"),
    (("REC", "OUT", "--seekable", "--seed", "0"), "--seed"),
    (("REC", "OUT", "--seekable", "--no-shuffle"), "--no-shuffle"),
    (("--verify", "OUT", "--seekable"), "--seekable"),
    (("--reindex", "OUT", "--seekable"), "--seekable"), (("REC", "--seekable"), "PREFIX"),
    (("NONE", "OUT", "--seekable"), "none.rec is missing"),
], ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_flags_that_are_refused(noise_records, out, refused, native_core, arguments, said):
    noise_records(out / "a", 2, (20, 20), 2)
    stand_for = {"REC": out / "a.rec", "OUT": out / "b", "NONE": out / "none.rec"}
    line = refused("im2rec", *(stand_for.get(argument, argument) for argument in arguments))
    assert said in line
    assert names(out) == ["a.idx", "a.rec"]


def test_the_packed_set_cannot_be_its_own_output(noise_records, out, refused, native_core):
    noise_records(out / "a", 2, (20, 20), 2)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "already exists" in refused("im2rec", out / "a.rec", out / "a", "--seekable")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_real_pictures(real_data, tmp_path, im2rec, native_core):
    with zipfile.ZipFile(real_data / "imagenet-samples-300.zip") as archive:
        archive.extractall(tmp_path)
    im2rec(tmp_path / "imagenet-samples", tmp_path / "a", "--pass-through")
    said = im2rec(tmp_path / "a.rec", tmp_path / "b", "--seekable")
    assert said == f"{tmp_path / 'b'}.rec: 300 images, 300 classes\n"
    check_same_but_seekable(tmp_path / "a", tmp_path / "b")
    assert "300 records, 300 classes, labels 0 to 299, 0 damaged" in im2rec(
        "--verify", tmp_path / "b")
