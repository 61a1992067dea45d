"""Decoding against Pillow, and what must be told from a picture."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from gluon_tricks.data.decode import decode, decode_whole


def smooth(height=40, width=56):
    """A picture that JPEG keeps well: red grows downwards, green to the right, blue falls."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 5, x * 4, 250 - 4 * x], axis=-1).astype(np.uint8)


def saved(image, kind, **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), [
    ("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}),
])
def test_lossless_formats_give_the_exact_rgb_pixels(kind, options):
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    out = decode(saved(image, kind, **options))
    assert out.dtype == np.uint8
    assert out.tolist() == image.tolist()


@pytest.mark.parametrize("options", [
    {"quality": 95}, {"quality": 60}, {"progressive": True}, {"subsampling": 0},
])
def test_jpeg_agrees_with_pillow(options):
    data = saved(smooth(), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data) - expected).max() <= 3
    assert decode_whole(data).tolist() == decode(data).tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(kind):
    out = decode(saved(Image.fromarray(smooth()[..., 0]), kind))
    assert out.shape == (40, 56, 3)
    assert (out[..., 0] == out[..., 1]).all()
    assert (out[..., 0] == out[..., 2]).all()
    assert np.abs(out[..., 0].astype(int) - smooth()[..., 0]).max() <= 3


def test_cmyk_jpeg_keeps_its_colours():
    """ImageNet holds some two dozen of them."""
    data = saved(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data).astype(int) - smooth()).mean() < 5


def test_alpha_palette_and_16_bit_pngs_become_rgb():
    image = Image.fromarray(smooth())
    assert decode(saved(image.convert("RGBA"), "PNG")).tolist() == smooth().tolist()
    few = image.quantize(16)
    assert decode(saved(few, "PNG")).tolist() == np.asarray(few.convert("RGB")).tolist()
    deep = Image.fromarray(smooth()[..., 0].astype(np.uint16) * 257)
    assert (decode(saved(deep, "PNG")) == smooth()[..., :1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(smooth(), "JPEG", quality=100, subsampling=0, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    out = decode(data)
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() <= 3


@pytest.mark.parametrize("data", [
    b"", b"\0", b"no picture\n" * 100, b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n",
    b"GIF89a", bytes(5000), b"\xff" * 5000,
])
def test_what_is_no_picture_is_refused(data):
    for function in (decode, decode_whole):
        with pytest.raises(ValueError, match=r"no picture|cut short"):
            function(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_a_jpeg_cut_anywhere_is_not_whole(options):
    data = saved(np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8), "JPEG",
                 **options)
    for length in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"cut short|no picture"):
            decode_whole(data[:length])
    with pytest.raises(ValueError, match=r"cut short|no picture"):
        decode_whole(data[:-1])


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg():
    thumbnail = b"Exif\0\0" + saved(smooth(20, 28), "JPEG", quality=30)
    data = saved(smooth(), "JPEG", quality=20)
    data = b"\xff\xd8\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    decode_whole(data)
    start = data.rindex(b"\xff\xda")
    for length in range(start, len(data), 5):
        with pytest.raises(ValueError, match=r"cut short|no picture"):
            decode_whole(data[:length])


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(length):
    """Phones add previews and notes there, disks zeros; every viewer shows such files."""
    data = saved(smooth(), "JPEG")
    assert decode_whole(data + bytes(length)).tolist() == decode(data).tolist()
