"""Resizing with a widened filter against its definition in float64, and against area means."""

import numpy as np
import pytest
from PIL import Image

from gluon_tricks.augment import crop
from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.transforms import EvalTransform, TrainTransform


def triangle(old: int, new: int, least: float = 1.0) -> np.ndarray:
    """(new, old) weights: a triangle as wide to each side as the step, but `least` pixels."""
    step = old / new
    radius = max(step, least)
    weights = np.zeros((new, old))
    for out in range(new):
        for pixel in range(old):
            distance = abs((pixel + 0.5) - (out + 0.5) * step)
            weights[out, pixel] = max(0.0, 1 - distance / radius)
    return weights / weights.sum(axis=1, keepdims=True)


def filtered(image: np.ndarray, height: int, width: int, least: float = 1.0) -> np.ndarray:
    return np.einsum("yi,xj,ijc->yxc", triangle(image.shape[0], height, least),
                     triangle(image.shape[1], width, least), image.astype(np.float64))


def noise(height: int = 61, width: int = 83) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


SIZES = [(20, 30), (7, 5), (1, 1), (60, 82), (122, 200), (61, 83), (30, 200), (130, 17), (60, 83)]


@pytest.mark.parametrize("size", SIZES)
def test_it_is_a_triangle_as_wide_as_the_step(size):
    out = crop.resize(noise(), *size, antialias=True)
    assert out.dtype == np.float32
    assert out.shape == (*size, 3)
    np.testing.assert_allclose(out, filtered(noise(), *size), atol=2e-3)


@pytest.mark.parametrize("size", [(122, 200), (61, 83), (200, 100)])
def test_enlarging_is_the_same_with_and_without(size):
    image = noise()
    np.testing.assert_allclose(crop.resize(image, *size, antialias=True),
                               crop.resize(image, *size), atol=2e-2)


def test_only_shrinking_far_differs_and_only_where_asked():
    image = noise()
    plain, wide = crop.resize(image, 15, 20), crop.resize(image, 15, 20, antialias=True)
    assert np.abs(plain - wide).mean() > 10
    assert wide.std() < 0.5 * plain.std()  # noise is averaged away


def test_values_are_not_rounded_or_clipped():
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 3, axis=2)
    out = crop.resize(ramp, 1, 40, antialias=True)[0, :, 0]
    # A straight line almost stays one, away from its ends: output x is at 2.5 (x + 0.5) - 0.5.
    np.testing.assert_allclose(out[2:-2], 2.5 * (np.arange(2, 38) + 0.5) - 0.5, atol=0.02)
    assert (np.abs(out - np.round(out)) > 0.1).any()


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_it_stays_near_the_mean_of_what_a_pixel_covers(factor):
    """A smooth image: Pillow's box filter is the mean over exactly the covered pixels."""
    y, x = np.mgrid[:96, :144] / 48.0
    image = np.stack([127 + 100 * np.sin(x + y), 127 + 90 * np.cos(2 * x), 60 + 40 * y],
                     axis=-1).astype(np.uint8)
    size = 96 // factor, 144 // factor
    box = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX), np.float64)
    out = crop.resize(image, *size, antialias=True)
    assert np.abs(out[1:-1, 1:-1] - box[1:-1, 1:-1]).max() < 3
    assert np.abs(out[1:-1, 1:-1] - np.roll(box, 1, axis=1)[1:-1, 1:-1]).max() > 3


def test_stripes_of_a_pixel_become_gray():
    """At a quarter of the size, bilinear alone would see single stripes."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    wide = crop.resize(stripes, 16, 16, antialias=True)[:, 1:-1]
    np.testing.assert_allclose(wide, 127.5, atol=0.5)
    thirds = np.zeros((60, 60, 3), np.uint8)
    thirds[:, ::3] = 255  # their mean is 85, but each output is centered on a black pixel
    assert (crop.resize(thirds, 20, 20) == 0).all()
    np.testing.assert_allclose(crop.resize(thirds, 20, 20, antialias=True)[:, 1:-1], 85, atol=0.5)


def test_the_short_edge_is_resized_with_the_wide_filter():
    image = noise(90, 120)
    np.testing.assert_allclose(crop.resize_short_edge(image, 30, antialias=True),
                               filtered(image, 30, 40), atol=2e-3)


def test_the_image_given_is_left_alone():
    image = noise()
    before = image.copy()
    crop.resize(image, 20, 20, antialias=True)
    assert (image == before).all()


def test_the_filter_does_not_reach_over_a_crop_s_edge():
    """Black outside the window, white inside: it stays white."""
    image = np.zeros((90, 90, 3), np.uint8)
    image[30:60, 20:70] = 255
    out = crop.resize(crop.Window(30, 20, 30, 50).cut(image), 7, 9, antialias=True)
    np.testing.assert_allclose(out, 255, atol=1e-3)


PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "antialias": True}


def test_evaluation_uses_it():
    image = noise(90, 120)
    out = EvalTransform(size=24, resize=30, **PLAIN).apply(image)
    np.testing.assert_allclose(out, filtered(image, 30, 40)[3:27, 8:32], atol=2e-3)


def test_training_uses_it():
    """Windows of half the image or more, shrunk to a tenth of its sides."""
    image = noise(200, 200)
    transform = TrainTransform(size=20, area=(0.5, 1.0), color_jitter=0, pca_noise=0, **PLAIN)
    draws = transform.draw(SampleRng(0, 0, range(10)))
    for row in range(10):
        window = crop.crop_window(200, 200, *(column[row] for column in draws.crops))
        expected = filtered(window.cut(image), 20, 20)
        expected = expected[:, ::-1] if draws.flips[row] else expected
        np.testing.assert_allclose(transform.apply(image, draws, row), expected, atol=2e-3)
