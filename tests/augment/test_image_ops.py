"""The operations of AutoAugment against Pillow's, to the bit."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from gluon_tricks.augment import image_ops

GREY = 128, 128, 128


def noise(height: int, width: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(height).integers(low, high, (height, width, 3), np.uint8)


def scene(height: int, width: int) -> np.ndarray:
    """A dark gradient with a bright disc and some grain: few values are frequent, many are rare."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    disc = 120 * (np.hypot(y - 0.4, x - 0.5) < 0.2)
    channels = [60 * x + 20 + disc, 90 * y + 10 + disc / 2, 30 * (x + y) + 40]
    grain = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    return np.clip(np.stack(channels, axis=-1) + grain, 0, 255).astype(np.uint8)


PICTURES = {
    "scene": scene(224, 224), "noise": noise(32, 32), "wide": scene(37, 61), "high": noise(90, 41),
    "pale": noise(50, 50, 100, 140), "two values": noise(40, 40, 7, 9),
    "grey": np.full((20, 30, 3), 77, np.uint8), "white": np.full((9, 9, 3), 255, np.uint8),
    "3x3": noise(3, 3), "2x5": noise(2, 5), "row": noise(1, 300), "column": noise(300, 1),
    "one pixel": noise(1, 1),
}


def affine(*coefficients):
    return lambda picture: picture.transform(picture.size, Image.Transform.AFFINE, coefficients,
                                             Image.Resampling.NEAREST, fillcolor=GREY)


def enhanced(kind, factor: float):
    return lambda picture: kind(picture).enhance(factor)


def rotated(degrees: float):
    return lambda picture: picture.rotate(degrees, Image.Resampling.NEAREST, fillcolor=GREY)


SIGNED = [sign * tenths for tenths in (0, 1, 4, 7, 9, 10) for sign in (1, -1)]
ENHANCED = {"color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast,
            "brightness": ImageEnhance.Brightness, "sharpness": ImageEnhance.Sharpness}
CASES = [
    ("invert", (), ImageOps.invert), ("auto_contrast", (), ImageOps.autocontrast),
    ("equalize", (), ImageOps.equalize),
    *(("solarize", (limit,), lambda picture, limit=limit: ImageOps.solarize(picture, limit))
      for limit in (0, 26, 77, 128, 205, 255, 256)),
    *(("posterize", (bits,), lambda picture, bits=bits: ImageOps.posterize(picture, bits))
      for bits in range(1, 9)),
    *((name, (factor,), enhanced(kind, factor)) for name, kind in ENHANCED.items()
      for factor in (0, 0.1, 0.28, 0.64, 1.0, 1.18, 1.72, 1.9)),
    *(("shear_x", (0.03 * n,), affine(1, 0.03 * n, 0, 0, 1, 0)) for n in SIGNED),
    *(("shear_y", (0.03 * n,), affine(1, 0, 0, 0.03 * n, 1, 0)) for n in SIGNED),
    *(("translate_x", (n,), affine(1, 0, n, 0, 1, 0)) for n in SIGNED),
    *(("translate_y", (n,), affine(1, 0, 0, 0, 1, n)) for n in SIGNED),
    *(("rotate", (3 * n,), rotated(3 * n)) for n in SIGNED), ("rotate", (180,), rotated(180)),
]


@pytest.mark.parametrize("kind", PICTURES)
def test_each_operation_makes_what_pillow_makes(kind):
    image = PICTURES[kind]
    before = image.copy()
    for name, arguments, pillow in CASES:
        found = getattr(image_ops, name)(image, *arguments)
        want = np.asarray(pillow(Image.fromarray(image)))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, want, f"{name}{arguments}")
        assert (image == before).all()


def test_a_window_of_a_larger_image_is_taken_as_it_is():
    """Its rows are not contiguous in memory."""
    window = PICTURES["scene"][40:104, 30:110]
    for name, arguments, pillow in CASES:
        np.testing.assert_array_equal(getattr(image_ops, name)(window, *arguments),
                                      np.asarray(pillow(Image.fromarray(window))), name)


@pytest.mark.parametrize(("name", "argument", "want"), [
    ("translate_x", 1, [[2, 3, 128], [5, 6, 128], [8, 9, 128]]),
    ("translate_y", -1, [[128, 128, 128], [1, 2, 3], [4, 5, 6]]),
    ("rotate", 90, [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),
    ("shear_x", 0.9, [[1, 2, 3], [5, 6, 128], [9, 128, 128]]),
    ("shear_y", -0.9, [[1, 128, 128], [4, 2, 128], [7, 5, 3]])])
def test_which_way_images_move(name, argument, want):
    image = np.repeat(np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1), 3, axis=2)
    found = getattr(image_ops, name)(image, argument)
    assert (found == np.array(want)[..., None]).all(), found[..., 0]


def test_as_large_as_inputs_may_be():
    """Sides of 16,000, rotated: points far outside must not wrap around to the other edge."""
    for shape in ((2, 16_000, 3), (16_000, 2, 3)):
        image = np.full(shape, 200, np.uint8)
        found = image_ops.rotate(image, 30)
        want = np.asarray(rotated(30)(Image.fromarray(image)))
        np.testing.assert_array_equal(found, want)
        assert (found == 128).mean() > 0.99
