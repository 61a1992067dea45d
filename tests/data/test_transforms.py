"""The transforms against a float64 chain written from the definitions."""

import math

import cv2
import numpy as np
import pytest

from gluon_tricks.augment.crop import CropDraws
from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.transforms import EvalTransform, TenCropTransform, TrainDraws, TrainTransform

MEAN, STD = np.array([123.68, 116.779, 103.939]), np.array([58.393, 57.12, 57.375])


def greenish(height, width, seed=0):
    """Noise with hues from 80 to 150 degrees: times 0.6 to 1.4 still far from the seam."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(low, high, (height, width), np.uint8)
                     for low, high in ((40, 90), (130, 220), (40, 100))], axis=-1)


def jittered(rgb, gains):
    """The HSV definition, for green as the largest channel (hue 60 to 180 degrees)."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    low = np.minimum(r, b)
    hue = (60 * ((b - r) / (g - low) + 2) * gains[0]) % 360
    saturation, value = np.minimum((1 - low / g) * gains[1], 1), np.minimum(g * gains[2], 255)
    channels = []
    for n in (5, 3, 1):
        k = (n + hue / 60) % 6
        channels.append(value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1)))
    return np.stack(channels, axis=-1)


def lighted(rgb, alphas):
    return rgb + (alphas[0] * 55.46 * np.array([-0.5675, -0.5808, -0.5836])
                  + alphas[1] * 4.794 * np.array([0.7192, -0.0045, -0.6948])
                  + alphas[2] * 1.148 * np.array([0.4009, -0.8140, 0.4203]))


def draws(area, place, flip=False, gains=None, alphas=None):
    """Draws for two samples; the second, row 1, has the given values."""
    def rows(value):
        return None if value is None else np.array([np.full(np.shape(value), 0.9), value])

    crops = CropDraws(rows([area] * 10), np.ones((2, 10)), rows(place))
    return TrainDraws(crops, np.array([not flip, flip]), rows(gains), rows(alphas))


@pytest.mark.parametrize(("gains", "alphas", "flip"), [
    ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), False),
    ((0.6, 0.7, 0.8), (0.1, -0.2, 0.3), True),
    ((1.4, 1.4, 1.4), (-0.3, 0.1, 0.1), False),
    ((1.3, 1.2, 0.6), (0.2, 0.2, -0.2), True),
])
def test_the_paper_s_chain(gains, alphas, flip, bilinear):
    """A quarter of a 120 x 120 image, from row 15 and column 45 on, to 48 x 48."""
    image = greenish(120, 120)
    out = TrainTransform(size=48).apply(
        image, draws(0.25, (15.5 / 61, 45.5 / 61), flip, gains, alphas), 1)
    expected = bilinear(image[15:75, 45:105], 48, 48)
    expected = jittered(expected[:, ::-1] if flip else expected, gains)
    expected = (lighted(expected, alphas) - MEAN) / STD
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_enlarging_a_small_crop(bilinear):
    image = greenish(20, 20)
    out = TrainTransform(size=64, color_jitter=0, pca_noise=0).apply(
        image, draws(0.25, (0.0, 0.99)), 1)
    np.testing.assert_allclose(out, (bilinear(image[:10, 10:], 64, 64) - MEAN) / STD, atol=1e-3)


def test_nothing_is_clipped_after_the_pca_noise():
    white = np.full((8, 8, 3), 255, np.uint8)
    out = TrainTransform(size=8).apply(
        white, draws(1.0, (0, 0), gains=(1, 1, 1.4), alphas=(-1.0, 0, 0)), 1)
    added = 55.46 * np.array([0.5675, 0.5808, 0.5836])
    np.testing.assert_allclose(out, np.broadcast_to((255 + added - MEAN) / STD, (8, 8, 3)),
                               atol=1e-3)


def test_pad_recipe_is_exact_at_32():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0))).astype(np.float64)
    transform = TrainTransform(size=32, padding=4, color_jitter=0, pca_noise=0,
                               mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0))
    for flip in (False, True):
        out = transform.apply(image, draws(0.5, (0.5 / 9, 7.5 / 9), flip), 1)
        expected = padded[0:32, 7:39]
        expected = expected[:, ::-1] if flip else expected
        np.testing.assert_allclose(out, (expected - [100, 110, 120]) / [50, 60, 70], atol=1e-6)


def test_pad_recipe_refuses_an_image_too_small():
    transform = TrainTransform(size=32, padding=4)
    with pytest.raises(ValueError, match="20x23 image"):
        transform.apply(np.zeros((23, 20, 3), np.uint8), draws(0.5, (0, 0)), 1)


def test_train_transform_of_one_pixel():
    out = TrainTransform(size=5, color_jitter=0, pca_noise=0).apply(
        np.full((1, 1, 3), 77, np.uint8), draws(0.08, (0.9, 0.9)), 1)
    np.testing.assert_allclose(out, np.broadcast_to((77 - MEAN) / STD, (5, 5, 3)), atol=1e-5)


def test_defaults_are_the_paper_s():
    n = 20_000
    found = TrainTransform().draw(SampleRng(0, 0, np.arange(n)))
    assert TrainTransform().size == EvalTransform().size == 224
    assert EvalTransform().resize == 256
    for values, low, high in ((found.crops.areas, 0.08, 1.0), (found.gains, 0.6, 1.4),
                              (np.log(found.crops.aspects), -math.log(4 / 3), math.log(4 / 3))):
        assert low <= values.min() < low + 1e-3
        assert high - 1e-3 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.01
    assert abs(found.flips.mean() - 0.5) < 0.015
    assert abs(found.alphas.std() - 0.1) < 0.001
    assert found.alphas.shape == found.gains.shape == (n, 3)


def test_all_draws_of_a_sample_are_independent():
    n = 20_000
    found = TrainTransform().draw(SampleRng(0, 0, np.arange(n)))
    columns = np.concatenate([*found.crops, found.flips[:, None], found.gains, found.alphas],
                             axis=1)
    assert columns.shape == (n, 10 + 10 + 2 + 1 + 3 + 3)
    correlation = np.corrcoef(columns, rowvar=False)
    assert np.abs(correlation - np.eye(29)).max() < 5 / math.sqrt(n)


def test_switching_color_off_leaves_crops_and_flips_as_they_are():
    rng = [SampleRng(3, 1, range(50)) for _ in range(2)]
    full, plain = TrainTransform().draw(rng[0]), TrainTransform(
        color_jitter=0, pca_noise=0).draw(rng[1])
    assert plain.gains is None
    assert plain.alphas is None
    for mine, theirs in zip((*full.crops, full.flips), (*plain.crops, plain.flips), strict=True):
        assert (mine == theirs).all()


@pytest.mark.parametrize(("height", "width", "middle"), [
    (300, 400, (256, 341, 16, 58)),  # 341.33 wide
    (400, 300, (341, 256, 58, 16)),
    (100, 100, (256, 256, 16, 16)),
    (256, 256, (256, 256, 16, 16)),
    (120, 333, (256, 710, 16, 243)),  # 710.4 wide
])
def test_eval_transform_is_short_edge_256_center_224(height, width, middle, bilinear):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    out = EvalTransform().apply(image)
    new_height, new_width, top, left = middle
    expected = bilinear(image, new_height, new_width)[top:top + 224, left:left + 224]
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (expected - MEAN) / STD, atol=1e-3)


def test_eval_transform_without_resizing_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (36, 35, 3), np.uint8)
    transform = EvalTransform(size=32, resize=None, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    out = transform.apply(image)
    np.testing.assert_allclose(out, (image[2:34, 1:33] - [1.0, 2, 3]) / [4, 5, 6], rtol=1e-6)


def test_eval_transform_refuses_a_crop_larger_than_the_image():
    for transform in (EvalTransform(size=32, resize=None), EvalTransform(size=32, resize=31)):
        with pytest.raises(ValueError, match=r"32x32 .* image"):
            transform.apply(np.zeros((31, 50, 3), np.uint8))


def test_ten_crops_are_corners_center_and_their_mirror_images():
    """For a 60 x 45 image, whose shorter edge becomes 36: 48 high."""
    image = np.random.default_rng(0).integers(0, 256, (60, 45, 3), np.uint8)
    out = TenCropTransform(size=32, resize=36).apply(image)
    resized = (cv2.resize(image.astype(np.float32), (36, 48)) - MEAN) / STD
    parts = [resized[:32, :32], resized[:32, 4:], resized[16:, :32], resized[16:, 4:],
             resized[8:40, 2:34]]
    assert (out.shape, out.dtype) == ((10, 32, 32, 3), np.float32)
    np.testing.assert_allclose(out[:5], parts, atol=1e-5)
    np.testing.assert_allclose(out[5:], [part[:, ::-1] for part in parts], atol=1e-5)


def test_ten_crops_of_an_image_that_is_too_small_are_refused():
    with pytest.raises(ValueError, match=r"32x32 .* image"):
        TenCropTransform(size=32, resize=None).apply(np.zeros((31, 50, 3), np.uint8))


@pytest.mark.parametrize("transform", [
    TrainTransform(size=16), TrainTransform(size=40, padding=4), EvalTransform(16, 20),
    EvalTransform(size=16, resize=None),
])
def test_the_decoded_image_is_left_alone(transform):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    before = image.copy()
    out = transform.apply(image, transform.draw(SampleRng(0, 0, [0, 1])), 1)
    assert out.shape == (transform.size, transform.size, 3)
    assert (image == before).all()
