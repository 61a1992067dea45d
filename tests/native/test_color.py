"""The native color stages against OpenCV, and against the definitions in float64."""

import itertools

import cv2
import numpy as np
import pytest

from gluon_tricks.augment import color
from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.data.transforms import EvalTransform, TrainTransform

NOTHING = [0.0, 0.0, 0.0]
GAINS = [(1.0, 1.0, 1.0), (0.6, 1.0, 1.0), (1.4, 1.0, 1.0), (1.0, 0.6, 1.0), (1.0, 1.4, 1.0),
         (1.0, 1.0, 0.6), (1.0, 1.0, 1.4), (0.6, 0.6, 0.6), (1.4, 1.4, 1.4), (0.83, 1.27, 1.11),
         (0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (2.0, 2.0, 2.0), (2.0, 1.0, 1.0),
         (1.999999, 1.0, 1.0)]  # --color-jitter is at most 1


def corners():
    """All colors of a few levels: gray, black, white, primaries, ties, nearly ties."""
    levels = (0, 1e-6, 0.5, 1, 127, 127.5, 127.50001, 128, 254.99998, 255)
    return np.array(list(itertools.product(levels, repeat=3)), np.float32).T.copy()


def noise(seed=0, count=20_003):
    return np.random.default_rng(seed).uniform(0, 255, (3, count)).astype(np.float32)


def hsv(rgb):
    """Hue in sixths of the circle, saturation, value, as defined; float64."""
    r, g, b = rgb.astype(np.float64)
    value = np.maximum(np.maximum(r, g), b)
    chroma = value - np.minimum(np.minimum(r, g), b)
    divisor = np.where(chroma > 0, chroma, 1)
    hue = np.select([chroma == 0, value == r, value == g], [
        0 * r, (g - b) / divisor % 6, (b - r) / divisor + 2], (r - g) / divisor + 4)
    return hue, chroma / np.where(value > 0, value, 1), value


def jittered(rgb, gains):
    hue, saturation, value = hsv(rgb)
    hue = hue * gains[0] % 6
    value = np.clip(value * gains[2], 0, 255)
    chroma = value * np.clip(saturation * gains[1], 0, 1)
    channels = []
    for offset in (5, 3, 1):
        k = (offset + hue) % 6
        channels.append(value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.stack(channels)


def from_ycc(rows):
    """JFIF 1.02, float64."""
    y, cb, cr = rows.astype(np.float64)
    return np.clip([y + 1.402 * (cr - 128), y - 0.344136286 * (cb - 128) - 0.714136286 * (cr - 128),
                    y + 1.772 * (cb - 128)], 0, 255)


@pytest.mark.parametrize("gains", GAINS, ids=str)
@pytest.mark.parametrize("rows", [noise(), noise(1).round(), corners()],
                         ids=["any", "whole", "corners"])
def test_jitter_is_the_definitions_and_opencvs(native_core, gains, rows):
    """For the same RGB even at the hue circle's seam: the sign of g - b is exact everywhere."""
    found = native_core.color_of(rows, False, list(gains), NOTHING)
    assert found.shape == rows.shape
    assert found.dtype == np.float32
    by_opencv = color.hsv_jitter(rows.T[None].copy(), np.array(gains))[0].T
    np.testing.assert_allclose(found, by_opencv, rtol=0, atol=0.01)
    # Colors that differ from gray by 1e-5 have imprecise hues; they still are gray.
    np.testing.assert_allclose(found, jittered(rows, gains), rtol=0, atol=0.01)
    assert found.min() >= -1e-4
    assert found.max() <= 255


def test_jitter_turns_primaries_as_it_must(native_core):
    """Red stays; green at 120 degrees and blue at 240 go where the gain says."""
    rows = np.float32([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]).T.copy()
    for gains, expected in (
            ((0.5, 1, 1), [[255, 0, 0], [255, 255, 0], [0, 255, 0]]),
            ((1.5, 1, 1), [[255, 0, 0], [0, 255, 255], [255, 0, 0]]),
            ((2, 1, 1), [[255, 0, 0], [0, 0, 255], [0, 255, 0]]),
            ((1, 0.5, 1), [[255, 127.5, 127.5], [127.5, 255, 127.5], [127.5, 127.5, 255]]),
            ((1, 1, 0.4), [[102, 0, 0], [0, 102, 0], [0, 0, 102]])):
        found = native_core.color_of(rows, False, list(gains), NOTHING).T
        np.testing.assert_allclose(found[:3], expected, atol=1e-3)
        np.testing.assert_allclose(found[3], min(255, 255 * gains[2]), atol=1e-3)
        assert (found[4] == 0).all()


@pytest.mark.parametrize("rows", [noise(), corners()], ids=["any", "corners"])
def test_ycc_is_jfifs(native_core, rows):
    found = native_core.color_of(rows, True, [], NOTHING)
    np.testing.assert_allclose(found, from_ycc(rows), rtol=0, atol=1e-3)
    assert found.min() >= 0
    assert found.max() <= 255


def test_ycc_is_opencvs_up_to_its_rounding(native_core):
    rows = noise().round()
    by_opencv = cv2.cvtColor(rows[[0, 2, 1]].T[None].astype(np.uint8), cv2.COLOR_YCrCb2RGB)[0].T
    found = native_core.color_of(rows, True, [], NOTHING)
    assert np.abs(found - by_opencv).max() < 1.0
    assert np.abs(found - by_opencv).mean() < 0.3


@pytest.mark.parametrize("gains", GAINS, ids=str)
def test_ycc_then_jitter(native_core, gains):
    """If red is the largest and green and blue agree to 0.001, the hue may be 0 or 360."""
    rows = noise(2)
    rgb = from_ycc(rows)
    seam = (rgb[0] > rgb[1:].max(0) - 0.001) & (np.abs(rgb[1] - rgb[2]) < 0.001) & (
        np.ptp(rgb, axis=0) > 0)
    assert seam.mean() < 0.12  # where both are clipped to 0 they agree exactly
    seam &= rgb[1] != rgb[2]
    assert seam.sum() < 10
    found = native_core.color_of(rows, True, list(gains), NOTHING)
    np.testing.assert_allclose(found[:, ~seam], jittered(rgb, gains)[:, ~seam], rtol=0, atol=0.01)


@pytest.mark.parametrize("gains", [[], [0.7, 1.2, 1.1]], ids=str)
@pytest.mark.parametrize("ycc", [False, True])
def test_shift_is_added_to_each_channel(native_core, gains, ycc):
    rows = noise(3)
    without = native_core.color_of(rows, ycc, gains, NOTHING)
    found = native_core.color_of(rows, ycc, gains, [-1.5, 20.25, 300.0])
    np.testing.assert_allclose(found - without, np.repeat([[-1.5], [20.25], [300]], rows.shape[1],
                                                          axis=1), atol=1e-4)


@pytest.mark.parametrize("ycc", [False, True])
def test_a_row_of_any_width_has_the_same_bits(native_core, ycc):
    """However much of it vector instructions compute."""
    rows = noise(4, 70)
    for gains in ([], [1.3, 0.8, 1.2]):
        whole = native_core.color_of(rows, ycc, gains, [1.0, 2.0, 3.0])
        for width in range(1, 70):
            part = native_core.color_of(rows[:, :width].copy(), ycc, gains, [1.0, 2.0, 3.0])
            assert np.array_equal(part, whole[:, :width])


@pytest.fixture(scope="module")
def records(tmp_path_factory, jpeg):
    """12 images, colorful and with black and white parts; one is gray."""
    rng = np.random.default_rng(0)
    prefix = tmp_path_factory.mktemp("colour") / "a"
    with RecordWriter(prefix) as writer:
        for key in range(12):
            image = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (70, 60))
            image[:20], image[20:40, :30] = 0, 255
            writer.write(key, 0, jpeg(image if key else image[..., :1].repeat(3, 2)))
    with RecordSet(prefix.with_suffix(".rec")) as found:
        yield found


def images(records, transform, **options):
    with RecordLoader(records, transform, EvalOrder(len(records), 5), workers=2, backend="native",
                      seed=3, **options) as loader:
        return np.concatenate([batch.images for batch in loader.epoch()])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("transform", [
    TrainTransform(size=33), EvalTransform(size=40, resize=48),
    TrainTransform(size=48, padding=4, color_jitter=0),
    # Beyond half precision's range, and far below its normal numbers.
    TrainTransform(size=31, std=(1e-3, 2e-3, 5e5)), TrainTransform(size=32, std=(1e8, 1e10, 1e7)),
    EvalTransform(size=40, resize=48, mean=(0, 0, 0), std=(1 / 258, 1 / 300, 2e6)),
], ids=range(6))
def test_half_precision_is_numpys_of_single(native_core, records, transform, layout):
    single = images(records, transform, layout=layout)
    half = images(records, transform, layout=layout, dtype="float16")
    assert (single.dtype, half.dtype) == (np.float32, np.float16)
    with np.errstate(over="ignore"):
        assert np.array_equal(single.astype(np.float16).view(np.uint16), half.view(np.uint16))


def test_layouts_hold_the_same_numbers(native_core, records):
    for dtype in ("float32", "float16"):
        first, last = (images(records, TrainTransform(size=29), dtype=dtype, layout=layout)
                       for layout in ("NCHW", "NHWC"))
        assert np.array_equal(first, last.transpose(0, 3, 1, 2))


def test_normalization_is_a_channels_own(native_core, records):
    plain = images(records, EvalTransform(size=40, resize=48, mean=(0,) * 3, std=(1,) * 3))
    mean, std = (10.0, 20.0, 60.0), (2.0, 3.0, 7.0)
    found = images(records, EvalTransform(size=40, resize=48, mean=mean, std=std))
    expected = (plain.astype(np.float64) - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_light_is_added_after_the_jitter(native_core, records):
    plain, lit = (images(records, TrainTransform(size=40, pca_noise=noise, mean=(0,) * 3,
                                                 std=(1,) * 3)) for noise in (0.0, 0.5))
    draws = TrainTransform(size=40, pca_noise=0.5).draw(SampleRng(3, 0, np.arange(len(records))))
    light = np.einsum("ij,j,sj->si", color.PCA_EIGENVECTORS, color.PCA_EIGENVALUES, draws.alphas)
    assert np.abs(light).max() > 5
    np.testing.assert_allclose(lit - plain, np.broadcast_to(light[..., None, None], plain.shape),
                               atol=1e-4)
