"""Formats and sizes by the first bytes, against Pillow, OpenCV and headers written out by hand."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from gluon_tricks.data.decode import has_png_end
from gluon_tricks.data.header import Header, ShortHeader, image_size, read_header

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
APP0 = bytes.fromhex("ffe00010 4a46494600 0101 00 0001 0001 00 00")
SOF = bytes.fromhex("ffc0 0011 08 0102 0304 03 012200 021101 031101")  # 258 rows, 772 columns
SOS = bytes.fromhex("ffda 000c 03 0100 0211 0311 00 3f 00")
JPEG = SOI + APP0 + SOF + SOS


def noise(height, width):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def saved(image, kind, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "name", "options"), [
    ("JPEG", "JPEG", {}), ("JPEG", "JPEG", {"progressive": True}), ("PNG", "PNG", {}),
    ("BMP", "BMP", {}), ("WebP", "WEBP", {}), ("WebP", "WEBP", {"lossless": True}),
    ("WebP", "WEBP", {"exif": b"Exif\0\0II"}),
], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 300), (517, 2), (258, 259)], ids=str)
def test_what_pillow_writes(kind, name, options, size):
    data = saved(noise(*size), name, **options)
    assert read_header(data) == Header(kind, *size)
    assert image_size(data) == size


def test_large_sides_of_a_webp():
    """14 bits each in the lossy and the lossless kind, 24 in the extended one."""
    for options in ({}, {"lossless": True}, {"exif": b"Exif\0\0II"}):
        assert image_size(saved(np.zeros((2, 16383, 3), np.uint8), "WEBP", **options)) \
            == (2, 16383)
    extended = (b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + bytes.fromhex("ffffff 563412"))
    assert image_size(extended) == (0x123457, 1 << 24)


def test_bmps_of_either_header_and_direction():
    rows_down = b"BM" + bytes(12) + (40).to_bytes(4, "little") \
        + (7).to_bytes(4, "little") + (-5).to_bytes(4, "little", signed=True)
    assert image_size(rows_down) == (5, 7)
    old = b"BM" + bytes(12) + (12).to_bytes(4, "little") + bytes.fromhex("0700 0500")
    assert image_size(old) == (5, 7)


@pytest.mark.parametrize("between", [
    b"", b"\xff", b"\xff\xff\xff", b"\x00\x01garbage", b"\xff\x00", b"\xff\x01",
    b"\xff\xd0\xff\xd7", b"\xff\xe1\x00\x06\xff\xc0\xff\xda", b"\xff\xfe\x00\x02",
    b"\xff\xed\x00\x00", b"\xff\xef\x00\x04\xff\xd9", b"\xff\xed\x00\x01",
    b"\xff\xdc\x00\x04\x00\x09", b"\xff\xe1\xff\xff" + bytes(0xfffd),
], ids=lambda data: data[:8].hex())
def test_what_may_stand_between_the_segments_of_a_jpeg(between):
    """Fill bytes, bytes outside segments, bare markers, markers in segments, the longest one."""
    assert read_header(SOI + b"\xff\xe0\x00\x02" + between + SOF + between + SOS) \
        == Header("JPEG", 258, 772)


@pytest.mark.parametrize(("data", "message"), [
    (SOI + APP0 + SOS, "no frame comes before its first scan"),
    (SOI + APP0 + SOF + SOF + SOS, "two frames"),
    (SOI + APP0 + EOI, "ends before its first scan"),
    (SOI + APP0 + SOF + EOI, "ends before its first scan"),
    (SOI + APP0 + SOI + SOF + SOS, "0xD8"),
    (SOI + APP0 + b"\xff\x02" + SOF + SOS, "0x02"),
    (JPEG.replace(b"\xff\xc0", b"\xff\xc5"), "0xC5"),
    (JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "3 components of 12 bits"),
    (JPEG.replace(b"\x03\x04\x03\x01", b"\x03\x04\x02\x01"), "2 components of 8 bits"),
    (JPEG.replace(b"\x01\x02\x03\x04", b"\x00\x00\x03\x04"), "772 x 0 pixels"),
    (JPEG.replace(b"\x01\x02\x03\x04", b"\x01\x02\x00\x00"), "0 x 258 pixels"),
    (b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d") + b"IDAT" + bytes(8), "IHDR"),
    (b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d") + b"IHDR" + bytes(8), "0 x 0 pixels"),
    (b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000c") + b"IHDR" + b"\0\0\0\1" * 2, "IHDR"),
    (b"RIFF\x20\0\0\0WEBPALPH" + bytes(20), "not start with a VP8 chunk"),
    (b"BM" + bytes(12) + (40).to_bytes(4, "little") + b"\xff" * 8, "-1 x 1 pixels"),
    (b"", "0 bytes are not an image"), (b"\xff\xd8", "not an image"), (b"GIF89a", "not a JPEG"),
    (b"II*\0" + bytes(50), "not an image"), (b"RIFF\x20\0\0\0WAVE" + bytes(30), "not an image"),
])
def test_headers_that_are_refused(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_header(data)
    assert not isinstance(caught.value, ShortHeader)
    assert image_size(data) is None


@pytest.mark.parametrize("data", [
    JPEG, saved(noise(9, 9), "PNG")[:24], saved(noise(9, 9), "BMP")[:26],
    saved(noise(9, 9), "WEBP")[:30], saved(noise(9, 9), "WEBP", lossless=True)[:25],
], ids=["JPEG", "PNG", "BMP", "VP8", "VP8L"])
def test_every_cut_of_a_header_is_short(data):
    signature = 12 if data[:4] == b"RIFF" else 8 if data[:4] == b"\x89PNG" else 3
    whole = len(data) - 12 if data.startswith(SOI) else len(data)  # for SOS the marker is enough
    assert image_size(data[:whole]) is not None
    for length in range(signature, whole):
        with pytest.raises(ShortHeader, match="truncated in its header"):
            read_header(data[:length])


def test_whatever_opencv_decodes_has_a_header_of_its_size():
    """Small random changes in the first bytes; what OpenCV refuses may have any header."""
    rng = np.random.default_rng(5)
    files = [saved(noise(12, 20), *how) for how in (("JPEG",), ("PNG",), ("BMP",), ("WEBP",))]
    files += [saved(noise(12, 20), "JPEG", progressive=True)]
    decoded = 0
    for number in range(1500):
        data = bytearray(files[number % len(files)])
        for at in rng.integers(2, min(len(data), 640), rng.integers(1, 4)).tolist():
            if number % 2:
                data[at] = rng.integers(0, 256)
            else:
                data[at:at + rng.integers(0, 2)] = rng.bytes(rng.integers(0, 3))
        size = image_size(bytes(data))
        if size and size[0] * size[1] > 1 << 20:
            continue
        if data.startswith(b"\x89PNG") and not has_png_end(bytes(data)):
            continue  # OpenCV allocates whatever length a chunk claims
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is not None:
            decoded += 1
            assert image.shape[:2] == size, bytes(data[:700]).hex()
    assert decoded > 300
