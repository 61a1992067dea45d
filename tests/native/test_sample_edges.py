"""Samples at the edges of what the native decoder does: half precision, colors, margins, steps."""

import cv2
import jpeg_writer
import numpy as np
import pytest
from jpeg_writer import encode, scene
from sampling import PIXELS, PLAIN, exif, images, natively, pack, smooth, with_exif

from gluon_tricks.data.transforms import EvalTransform, TrainTransform


def test_half_precision_of_turned_images(native_core, tmp_path):
    turned = [with_exif(encode(smooth(48, 80), kind), exif(orientation))
              for kind in ("420", "grey") for orientation in range(1, 9)]
    with pack(tmp_path / "a", turned) as records:
        for layout in ("NCHW", "NHWC"):
            single, half = (images(records, TrainTransform(size=40), layout=layout, dtype=dtype)
                            for dtype in ("float32", "float16"))
            assert np.array_equal(single.astype(np.float16), half)


@pytest.mark.parametrize(("jfif", "adobe", "ids", "ycc"), [
    (True, None, b"\1\2\3", True), (True, 0, b"\1\2\3", True), (True, None, b"RGB", True),
    (False, None, b"\1\2\3", True), (False, None, b"RGB", False), (False, 0, b"\1\2\3", False),
    (False, 0, b"RGB", False), (False, 1, b"\1\2\3", True), (False, 1, b"RGB", True),
    (False, None, b"abc", True)], ids=str)
def test_which_colors_three_components_are(native_core, jfif, adobe, ids, ycc):
    plain = encode(scene(40, 50), "444")
    assert plain[2:4] == b"\xff\xe0"
    rest = plain[4 + int.from_bytes(plain[4:6], "big"):]
    frame_at, scan_at = rest.index(b"\xff\xc0"), rest.index(b"\xff\xda")
    rest = bytearray(rest)
    for number in range(3):
        rest[frame_at + 10 + 3 * number] = rest[scan_at + 5 + 2 * number] = ids[number]
    jpeg = b"\xff\xd8" + (plain[2:4 + int.from_bytes(plain[4:6], "big")] if jfif else b"")
    if adobe is not None:
        jpeg += jpeg_writer.marker(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    jpeg += bytes(rest)
    by_opencv, as_ycc = (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                         for data in (jpeg, plain))
    assert np.array_equal(by_opencv, as_ycc) == ycc
    assert (native_core.header_of(jpeg) is not None) == ycc


def test_a_crop_of_nothing_but_padding(native_core, tmp_path):
    transform = TrainTransform(size=8, padding=20, **PLAIN)
    jpegs = [encode(smooth(8, 8, seed), "444", quality=97) for seed in range(120)]
    with pack(tmp_path / "a", jpegs) as records:
        a, b = (images(records, transform, backend) for backend in ("native", "opencv"))
        black = (b == 0).all((1, 2, 3))
        assert 60 < black.sum() < 120
        assert np.abs(a - b).max() < 3


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kind", ["444", "420", "411", "440", "grey"])
def test_a_smaller_crop_is_the_middle_of_a_larger_one(native_core, tmp_path, kind, antialias):
    """What is decoded around a crop must be enough for its outermost pixels."""
    jpegs = [encode(scene(*size), kind) for size in ((300, 300), (310, 397))]
    with pack(tmp_path / "a", jpegs) as records:
        for resize in (None, 40, 200):
            crops = {size: natively(native_core, records, EvalTransform(
                size=size, resize=resize, antialias=antialias, **PIXELS))[0]
                for size in range(2, 41, 2)}
            for size, found in crops.items():
                middle = slice((40 - size) // 2, (40 + size) // 2)
                np.testing.assert_allclose(found, crops[40][:, :, middle, middle], atol=1e-3)


def test_resizing_by_any_step_is_bilinear(native_core, tmp_path, bilinear):
    """A step of 2.3 makes eight outputs of seventeen samples, one more than two registers hold."""
    sides = range(81, 131)
    with pack(tmp_path / "a", [encode(scene(side, side), "grey") for side in sides]) as records:
        found, left = natively(native_core, records, EvalTransform(size=40, resize=40, **PIXELS))
        assert left == []
        for row, image in enumerate(found):
            stored = cv2.imdecode(np.frombuffer(records.read(row), np.uint8), cv2.IMREAD_COLOR)
            np.testing.assert_allclose(image.transpose(1, 2, 0), bilinear(stored, 40, 40),
                                       atol=1e-3)


def test_a_crop_less_than_twice_the_size_is_not_shrunk(native_core, tmp_path):
    """78 of the 86 pixels are the crop, of 40; what is decoded around it is not used."""
    with pack(tmp_path / "a", [encode(scene(86, 86), "grey")]) as records:
        a, b = (natively(native_core, records, EvalTransform(size=40, resize=44),
                         dct_shortcut=shortcut)[0] for shortcut in (False, True))
    assert np.array_equal(a, b)


def test_tables_of_the_image_before_are_not_used(native_core, tmp_path):
    """The same maker, codes of the same lengths for other symbols; crops that skip blocks."""
    rng, jpegs = np.random.default_rng(0), []
    symbols = [0, 0xF0] + [run << 4 | size for run in range(16) for size in range(1, 11)]
    for _ in range(8):
        dc = jpeg_writer.Code(rng.permutation(12).tolist(), [4] * 4 + [5] * 8)
        ac = jpeg_writer.Code(rng.permutation(symbols).tolist(), [6] * 20 + [8] * 142)
        blocks = np.zeros((20, 20, 64), int)
        blocks[..., 0] = rng.integers(-60, 60, (20, 20))
        blocks[..., 1:9] = rng.integers(-9, 10, (20, 20, 8))
        plane = jpeg_writer.Plane(1, 1, blocks)
        jpegs.append(jpeg_writer.write(160, 160, [plane], np.full(64, 2), dc, ac))
    transform = EvalTransform(size=20, resize=None, **PIXELS)
    with pack(tmp_path / "a", jpegs) as records:
        found, left = natively(native_core, records, transform)
        assert left == []
        assert np.abs(found - images(records, transform, "opencv")).max() < 1e-3


def test_chroma_planes_of_different_sizes(native_core, tmp_path):
    """Cb at half the size, Cr at the image's: both rise from left to right."""
    code = [jpeg_writer.random_code(np.random.default_rng(1), each) for each in (
        list(range(12)), [0, 0xF0] + [r << 4 | s for r in range(16) for s in range(1, 11)])]
    planes = []
    for h, v in ((2, 2), (1, 1), (2, 2)):
        blocks = np.zeros((6 * v, 6 * h, 64), int)
        blocks[..., 0] = (np.arange(6 * h) * 12 * 2 / h - 120).astype(int) if len(planes) else 0
        planes.append(jpeg_writer.Plane(h, v, blocks))
    jpeg = jpeg_writer.write(96, 96, planes, np.full(64, 4), *code)
    transform = EvalTransform(size=48, resize=48, **PIXELS)
    with pack(tmp_path / "a", [jpeg]) as records:
        found, left = natively(native_core, records, transform)
        assert left == []
        assert np.abs(found - images(records, transform, "opencv")).mean() < 3
