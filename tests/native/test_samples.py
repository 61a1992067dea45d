"""Complete samples: the native decoder against OpenCV and Pillow, before and after color."""

import io
import math
import zipfile

import cv2
import numpy as np
import pytest
from jpeg_writer import by_pillow, encode, scene
from PIL import Image, ImageOps
from sampling import PIXELS, PLAIN, SEED, exif, images, natively, pack, smooth, with_exif

from gluon_tricks.augment.crop import crop_window
from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.transforms import EvalTransform, TrainTransform
from gluon_tricks.errors import InputError


def differences(a, b):
    """The mean absolute difference of each sample."""
    return np.abs(a.astype(np.float64) - b).mean((1, 2, 3))


@pytest.fixture(scope="module")
def real(real_data, tmp_path_factory):
    with zipfile.ZipFile(real_data / "imagenet-samples-300.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG")]
        pictures = [archive.read(name) for name in names]
    assert len(pictures) == 300
    with pack(tmp_path_factory.mktemp("real") / "a", pictures) as records:
        yield records


def by_pillow_alone(records, transform):
    """Crop and resize; Pillow's filter is as wide as the step when the image shrinks."""
    draws, found = transform.draw(SampleRng(SEED, 0, np.arange(len(records)))), []
    for row in range(len(records)):
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(records.read(row)))).convert("RGB")
        top, left, height, width = crop_window(image.height, image.width, draws.crops.areas[row],
                                               draws.crops.aspects[row], draws.crops.places[row])
        image = image.crop((left, top, left + width, top + height))
        if draws.flips[row]:
            image = ImageOps.mirror(image)
        image = image.resize((transform.size, transform.size), Image.Resampling.BILINEAR)
        found.append(np.asarray(image).transpose(2, 0, 1))
    return np.stack(found)


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
def test_training_samples_of_real_images(native_core, real, shortcut, antialias):
    transform = TrainTransform(antialias=antialias, **PLAIN)
    found, left = natively(native_core, real, transform, dct_shortcut=shortcut)
    assert left == []
    assert found.min() >= 0
    assert found.max() < 255.001
    by_opencv = differences(found, images(real, transform, "opencv"))
    assert np.median(by_opencv) < 0.30
    assert np.percentile(by_opencv, 90) < 0.50
    assert by_opencv.max() < (10 if shortcut and not antialias else 4)
    if antialias:
        by_other = differences(found, by_pillow_alone(real, transform))
        assert np.median(by_other) < 0.45  # Pillow rounds, between its passes and after them
        assert np.percentile(by_other, 90) < 0.60


def test_evaluation_samples_of_real_images(native_core, real):
    for transform in (EvalTransform(**PIXELS), EvalTransform(size=64, resize=None, **PIXELS)):
        found, left = natively(native_core, real, transform)
        assert left == []
        by_opencv = differences(found, images(real, transform, "opencv"))
        assert np.median(by_opencv) < 0.30
        assert np.percentile(by_opencv, 90) < 0.50


def test_complete_samples_of_real_images(native_core, real):
    """With color: hue multiplied jumps where it is near 0 or 360 degrees, in a few pixels."""
    found, expected = (images(real, TrainTransform(), backend) for backend in ("native", "opencv"))
    apart = differences(found, expected) * 57
    assert np.median(apart) < 0.6
    assert np.percentile(apart, 90) < 1.5


def test_windows_are_those_of_the_python_code(native_core):
    rng, fallbacks = np.random.default_rng(0), 0
    for number in range(20_000):
        height, width = (np.exp(rng.uniform(0, math.log(5000), 2)).astype(int) if number % 2 else
                         rng.integers(1, 5001, 2)).tolist()
        least, most = [(3 / 4, 4 / 3), (0.5, 2.0), (1.0, 1.0)][number % 3]
        areas = rng.uniform(*[(0.08, 1), (0.9, 1.2), (1.5, 2), (1e-9, 1e-6)][number % 4], 10)
        aspects = np.exp(rng.uniform(math.log(least), math.log(most), 10))
        places = rng.integers(0, 2**32, 2) * 2.0**-32
        found = native_core.window_of(height, width, areas, aspects, places, least, most)
        assert tuple(found) == crop_window(height, width, areas, aspects, places, (least, most))
        fallbacks += bool((areas > 1.5).all())
    assert fallbacks == 5000


def test_halves_are_rounded_as_python_does(native_core):
    """sqrt(share * height * width * aspect) = n + 1/2, for even and odd n."""
    for side in (1, 2, 3, 4, 5, 8, 100):
        draws = np.full(10, ((side + 0.5) / 256) ** 2), np.ones(10), np.zeros(2)
        found = native_core.window_of(256, 256, *draws, 3 / 4, 4 / 3)
        assert found == [0, 0, side + side % 2, side + side % 2]
        assert tuple(found) == crop_window(256, 256, *draws)


TURNS = [lambda a: a, lambda a: a[:, ::-1], lambda a: a[::-1, ::-1], lambda a: a[::-1],
         lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a, -1),
         lambda a: a[::-1, ::-1].swapaxes(0, 1), lambda a: np.rot90(a)]  # EXIF 2.32, 4.6.4.A


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(native_core, tmp_path, orientation, order):
    """Whole images turned as EXIF defines it; crops, flips and padding as in OpenCV."""
    jpegs = [encode(smooth(48, 80, seed), kind, quality=97)
             for seed in range(4) for kind in ("444", "420", "grey")]
    turned = [with_exif(jpeg, exif(orientation, order)) for jpeg in jpegs]
    with pack(tmp_path / "a", turned) as records:
        transform = EvalTransform(size=48, resize=None, **PIXELS)
        found, left = natively(native_core, records, transform)
        assert left == []
        for image, jpeg in zip(found, jpegs, strict=True):
            stored = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(float)
            expected = TURNS[orientation - 1](stored)
            top, left = ((side - 48) // 2 for side in expected.shape[:2])
            expected = expected[top:top + 48, left:left + 48].transpose(2, 0, 1)
            assert np.abs(image - expected).max() < 3
            assert np.abs(image - expected).mean() < 0.6
        for transform in (TrainTransform(size=40, **PLAIN),
                          TrainTransform(size=40, antialias=True, **PLAIN),
                          TrainTransform(size=60, padding=8, **PLAIN),
                          EvalTransform(size=33, resize=37, **PIXELS)):
            for layout in ("NCHW", "NHWC"):
                a, b = (images(records, transform, backend, layout=layout)
                        for backend in ("native", "opencv"))
                assert np.abs(a - b).max() < 10
                assert np.abs(a - b).mean() < 0.6


MARK = np.zeros((16, 24, 3), np.uint8)
MARK[:8, :8], MARK[:8, 8:] = 255, 120
MARKED = by_pillow(MARK, quality=95)


def orientation_by_opencv(jpeg):
    upright = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
    match, = (number for number, turn in enumerate(TURNS, 1) if turn(MARK).shape == upright.shape
              and np.abs(turn(MARK).astype(int) - upright).mean() < 3)
    return match


EXIFS = {
    "0": [exif(0)], "9": [exif(9)], "65535": [exif(65535)], "of type long": [exif(6, kind=4)],
    "of type byte": [exif(6, kind=1)], "behind another tag": [
        exif(6, others=[bytes.fromhex("0f0102000400000061620000")])],
    "twice": [exif(3, others=[exif(6)[16:28]])],
    "the second APP1": [b"http://ns.adobe.com/xap/1.0/\0<x/>", exif(6)],
    "the first of two APP1": [exif(6), exif(3)], "other order's mark": [
        exif(6).replace(b"II", b"MM")], "no mark": [exif(6).replace(b"II", b"XX")],
    "half a mark": [exif(6).replace(b"II", b"IM")], "no 42": [exif(6).replace(b"*\0", b"+\0")],
    "another name": [exif(6).replace(b"Exif", b"Exix")], "empty": [b""], "a name": [b"Exif\0\0"],
    "directory outside": [exif(6)[:10] + b"\xff\xff\0\0" + exif(6)[14:]],
    "directory far outside": [exif(6)[:10] + b"\xff\xff\xff\xff" + exif(6)[14:]],
    "more entries than there are": [exif(3).replace(b"\x01\0\x12\x01", b"\xff\xff\x12\x01")],
    "a tag ahead that points outside": [
        exif(6, others=[bytes.fromhex("0f01020064000000ffff0000")])],
    "no entries": [exif(6).replace(b"\x01\0\x12\x01", b"\0\0\x12\x01")],
    **{f"cut at {length}": [exif(6)[:length]] for length in range(6, 33)},
}


@pytest.mark.parametrize("payloads", EXIFS.values(), ids=EXIFS)
def test_odd_exif_is_understood_as_opencv_does(native_core, payloads):
    jpeg = with_exif(MARKED, *payloads)
    found = native_core.header_of(jpeg)  # None: it leaves the image to OpenCV
    assert found is None or found[2] == orientation_by_opencv(jpeg)


def test_padded_crops(native_core, tmp_path):
    """CIFAR's: luma exact, black around it."""
    for kind in ("grey", "444", "420"):
        jpegs = [encode(scene(32, 32, seed) if kind == "grey" else smooth(32, 32, seed), kind,
                        quality=95) for seed in range(40)]
        with pack(tmp_path / kind, jpegs) as records:
            for size, padding in ((32, 4), (28, 0), (32, 0), (60, 20)):
                transform = TrainTransform(size=size, padding=padding, **PLAIN)
                found, left = natively(native_core, records, transform)
                assert left == []
                expected = images(records, transform, "opencv")
                black = (expected == 0).all(1)
                assert ((found == 0).all(1) == black).all() or kind != "444"
                assert np.abs(found - expected).max() < (1e-4 if kind == "grey" else 3)
                assert np.abs(found - expected).mean() < 0.5


def test_center_crops_without_resizing_are_exact_in_luma(native_core, tmp_path):
    jpegs = [encode(scene(*size), "grey") for size in ((40, 40), (41, 40), (55, 90), (200, 43))]
    with pack(tmp_path / "a", jpegs) as records:
        transform = EvalTransform(size=40, resize=None, **PIXELS)
        found, left = natively(native_core, records, transform)
        assert left == []
        assert np.array_equal(found, images(records, transform, "opencv"))


def test_resizing_is_bilinear_by_definition(native_core, tmp_path, bilinear):
    jpegs = [encode(scene(*size), "grey") for size in ((50, 37), (37, 50), (300, 200), (9, 8))]
    with pack(tmp_path / "a", jpegs) as records:
        found, left = natively(native_core, records, EvalTransform(size=40, resize=40, **PIXELS))
        assert left == []
        for image, jpeg in zip(found, jpegs, strict=True):
            stored = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
            scale = 40 / min(stored.shape[:2])
            resized = bilinear(stored, *(round(side * scale) for side in stored.shape[:2]))
            top, left = ((side - 40) // 2 for side in resized.shape[:2])
            expected = resized[top:top + 40, left:left + 40].transpose(2, 0, 1)
            np.testing.assert_allclose(image, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["444", "422", "420", "440", "411"])
def test_chroma_lies_where_its_pixels_do(native_core, tmp_path, kind):
    """Interpolating linear colors gives their own values, away from the edges."""
    y, x = np.mgrid[0:64, 0:96] + 0.5

    def colours(y, x):
        return np.stack([30 + x + y, 200 - 1.5 * x + y / 2, 40 + x + y / 2], axis=-1)

    jpeg = encode(colours(y, x).round().astype(np.uint8), kind, quality=100)
    turned = [with_exif(jpeg, exif(orientation)) for orientation in range(1, 9)]
    with pack(tmp_path / "a", turned) as records:
        for size, edge in ((120, 152), (60, 64), (40, 48)):
            transform = EvalTransform(size=size, resize=edge, **PIXELS)
            found, _ = natively(native_core, records, transform)
            high, wide = edge, round(96 * edge / 64)
            rows = (np.arange(size) + (high - size) // 2 + 0.5) * 64 / high
            columns = (np.arange(size) + (wide - size) // 2 + 0.5) * 96 / wide
            upright = colours(*np.meshgrid(rows, columns, indexing="ij"))
            inner = np.s_[:, size // 8:-(size // 8), size // 8:-(size // 8)]
            for image, turn in zip(found, TURNS, strict=True):
                apart = (image - turn(upright).transpose(2, 0, 1))[inner]
                assert np.abs(apart.mean((1, 2))).max() < 0.5  # encoders round with a bias
                assert np.abs(apart).max() < 4


ODD_SIZES = [(1, 1), (2, 3), (3, 2), (1, 50), (50, 1), (10, 2000), (2000, 10), (7, 7), (17, 9)]


@pytest.mark.parametrize("antialias", [False, True])
def test_tiny_and_narrow_images(native_core, tmp_path, antialias):
    jpegs = [encode(smooth(*size), kind, quality=97)
             for size in ODD_SIZES for kind in ("444", "420", "411", "grey")]
    with pack(tmp_path / "a", jpegs) as records:
        for transform in (TrainTransform(antialias=antialias, **PLAIN),
                          TrainTransform(size=7, antialias=antialias, **PLAIN),
                          EvalTransform(antialias=antialias, **PIXELS),
                          EvalTransform(size=5, resize=8, antialias=antialias, **PIXELS)):
            for shortcut in (False, True):
                found, left = natively(native_core, records, transform, dct_shortcut=shortcut)
                assert left == []
                apart = differences(found, images(records, transform, "opencv"))
                apart = apart.reshape(len(ODD_SIZES), 4)
                # Large only where chroma jumps from pixel to pixel and libjpeg repeats it.
                bounds = (1 if shortcut else 0.6, 12, 15, 1 if shortcut else 1e-3)
                assert (apart.max(0) < bounds).all(), apart


@pytest.mark.parametrize("kind", ["420", "grey"])
def test_an_image_of_eight_megapixels(native_core, tmp_path, kind):
    jpeg = encode(cv2.resize(scene(200, 300), (3456, 2304)), kind)
    with pack(tmp_path / "a", [jpeg, native_core.transcode(jpeg)]) as records:
        for antialias in (False, True):
            for shortcut in (False, True):
                for transform in (TrainTransform(antialias=antialias, **PLAIN),
                                  EvalTransform(antialias=antialias, **PIXELS)):
                    found, left = natively(native_core, records, transform, dct_shortcut=shortcut)
                    assert left == []
                    expected = images(records, transform, "opencv")
                    assert differences(found, expected).max() < (5 if shortcut else 1)


def other_formats():
    image = scene(60, 70)
    encoded = {name: cv2.imencode(name, image)[1].tobytes() for name in (".png", ".bmp", ".webp")}
    encoded["progressive"] = by_pillow(image, progressive=True)
    encoded["rgb"] = by_pillow(image, keep_rgb=True)
    encoded["16 bits"] = cv2.imencode(".png", image.astype(np.uint16) * 257)[1].tobytes()
    encoded["grey png"] = cv2.imencode(".png", image[..., 0])[1].tobytes()
    for name, mode, kind in (("cmyk", "CMYK", "JPEG"), ("palette", "P", "PNG")):
        file = io.BytesIO()
        Image.fromarray(image).convert(mode).save(file, kind)
        encoded[name] = file.getvalue()
    turned = with_exif(encoded["progressive"], exif(6))
    return {**encoded, "turned": turned}


def test_what_it_does_not_decode_is_left_to_opencv(native_core, tmp_path):
    pictures = other_formats()
    with pack(tmp_path / "a", [*pictures.values(), encode(scene(60, 70), "420")]) as records:
        for transform in (TrainTransform(size=48), EvalTransform(size=48, resize=50),
                          TrainTransform(size=48, padding=4)):
            _, left = natively(native_core, records, transform)
            assert left == list(range(len(pictures)))
            for options in ({}, {"dtype": "float16", "layout": "NHWC"}):
                a, b = (images(records, transform, backend, **options)[left]
                        for backend in ("native", "opencv"))
                assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("transform", [
    EvalTransform(size=80, resize=None), TrainTransform(size=80, padding=4)], ids=["centre", "pad"])
def test_an_image_that_is_too_small_is_refused_as_opencv_refuses_it(
        native_core, tmp_path, transform):
    with pack(tmp_path / "a", [encode(scene(60, 70), "420")]) as records:
        said = []
        for backend in ("native", "opencv"):
            with pytest.raises(InputError) as raised:
                images(records, transform, backend)
            said.append(str(raised.value))
    assert said[0] == said[1]
    assert "choose a smaller input size" in said[0]
