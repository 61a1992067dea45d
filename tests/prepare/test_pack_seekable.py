"""Packing with Encoding.seekable, read back by MXNet and Pillow."""

import io

import cv2
import numpy as np
import pytest
from packing import names, packed
from PIL import Image

from gluon_tricks.data import native
from gluon_tricks.errors import InputError
from gluon_tricks.prepare import pack


def png(image) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def damaged(kind, whole: bytes) -> bytes:
    return {"empty": b"", "text": b"no picture\n" * 40, "half": whole[:len(whole) // 2],
            "without its last byte": whole[:-1], "zeros": bytes(500)}[kind]


def pack_up(listing, prefix, encoding, **options):
    return pack.pack(listing, prefix, encoding, **{"workers": 2, **options})


def refused(*arguments, **options) -> str:
    with pytest.raises(InputError) as raised:
        pack_up(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def out(tmp_path):
    """An empty folder for the output."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("options", [{"pass_through": True}, {}, {"resize": 30, "quality": 60}],
                         ids=["pass-through", "re-encoded", "resized"])
def test_seekable_changes_the_bytes_of_the_jpegs_and_nothing_else(
        picture_folder, out, native_core, options):
    listing = pack.list_folder(picture_folder)
    pack_up(listing, out / "a", pack.Encoding(**options))
    done = pack_up(listing, out / "b", pack.Encoding(**options, seekable=True))
    assert done == pack.Packed([], 0)
    for end in ("lst", "classes.json"):
        assert (out / f"a.{end}").read_bytes() == (out / f"b.{end}").read_bytes()
    plain, found = packed(out / "a"), packed(out / "b")
    assert list(plain) == list(found)
    for key, (label, data) in found.items():
        assert label == plain[key][0]
        assert (pixels(data) == pixels(plain[key][1])).all()
        assert b"GLUONTRICKS\0" in data
        assert b"GLUONTRICKS\0" not in plain[key][1]


def test_seekable_stores_and_counts_what_is_no_jpeg(picture_folder, out, native_core):
    whole = png(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    (picture_folder / "bee" / "a.png").write_bytes(whole)
    (picture_folder / "cat" / "named.jpg").write_bytes(whole)
    listing = pack.list_folder(picture_folder)
    encoding = pack.Encoding(pass_through=True, seekable=True)
    assert pack_up(listing, out / "a", encoding) == pack.Packed([], 2)
    found = packed(out / "a")
    for picture in listing.images:
        is_png = picture.path in ("bee/a.png", "cat/named.jpg")
        assert (found[picture.key][1] == whole) == is_png
        assert (b"GLUONTRICKS\0" in found[picture.key][1]) == (not is_png)
    assert pack_up(listing, out / "b", pack.Encoding(seekable=True)) == pack.Packed([], 0)
    assert pack_up(listing, out / "c", pack.Encoding(pass_through=True)) == pack.Packed([], 0)


@pytest.mark.parametrize("kind", ["empty", "text", "half", "without its last byte", "zeros"])
@pytest.mark.parametrize("name", ["jpg", "png"])
def test_seekable_refuses_or_skips_what_is_damaged(picture_folder, out, native_core, kind,
                                                        name):
    whole = (picture_folder / "bee" / "3.jpg").read_bytes()
    if name == "png":
        whole = png(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    if (name, kind) == ("png", "without its last byte"):
        kind = "half"  # losing only its checksum's last byte does no harm
    file = picture_folder / "bee" / f"bad.{name}"
    file.write_bytes(damaged(kind, whole))
    listing = pack.list_folder(picture_folder)
    encoding = pack.Encoding(pass_through=True, seekable=True)
    message = refused(listing, out / "a", encoding)
    assert message.startswith(f"{file}: ")
    assert "--skip-damaged" in message
    assert names(out) == []
    done = pack_up(listing, out / "a", encoding, skip_damaged=True)
    assert [line.startswith(f"{file}: ") for line in done.damaged] == [True]
    assert len(packed(out / "a")) == 15


def test_a_jpeg_damaged_within_its_data_is_stored_as_it_is_and_counted(
        picture_folder, out, native_core):
    """When decoders continue with a guess, transcoding would hide that it was one."""
    file = picture_folder / "ant" / "0.jpg"
    data = file.read_bytes()
    data = data[:-300] + data[-2:]
    file.write_bytes(data)
    listing = pack.list_folder(picture_folder)
    done = pack_up(listing, out / "a", pack.Encoding(pass_through=True, seekable=True))
    assert (done.damaged, done.other) == ([], 1)
    stored = {picture.path: packed(out / "a")[picture.key][1] for picture in listing.images}
    assert stored["ant/0.jpg"] == data
    assert stored["ant/1.jpg"] != (picture_folder / "ant" / "1.jpg").read_bytes()


def test_seekable_without_the_native_decoder_is_refused_before_the_work(
        picture_folder, out, monkeypatch):
    monkeypatch.setattr(native, "why_not", lambda: "it was not built: build it")
    message = refused(pack.list_folder(picture_folder), out / "a", pack.Encoding(seekable=True),
                      progress=lambda results: pytest.fail("it began to pack"))
    assert "it was not built: build it" in message
    assert names(out) == []
