"""Flips, and how often they happen."""

import numpy as np
import pytest

from gluon_tricks.augment.flip import draw_flips, flip
from gluon_tricks.augment.rng import SampleRng


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 7, 3), (6, 2, 3)])
def test_flip_mirrors_left_to_right_and_keeps_the_channels(shape, kind):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(kind)
    before = image.copy()
    out = flip(image)
    assert out.dtype == kind
    assert (out == before[:, ::-1]).all()
    assert (image == before).all()


def test_flip_takes_a_window_of_an_image():
    image = np.random.default_rng(1).integers(0, 256, (9, 9, 3), np.uint8)
    assert (flip(image[2:5, 1:8]) == image[2:5, 7:0:-1]).all()


def test_half_of_the_samples_are_mirrored():
    flips = draw_flips(SampleRng(0, 0, np.arange(20_000)))
    assert flips.shape == (20_000,)
    assert flips.dtype == bool
    assert 9717 < flips.sum() < 10283  # 4 standard deviations, sqrt(20000) / 2 each


def test_another_probability():
    flips = draw_flips(SampleRng(0, 0, np.arange(20_000)), 0.9)
    assert 17_830 < flips.sum() < 18_170


@pytest.mark.parametrize(("probability", "expected"), [(0, False), (1, True)])
def test_never_and_always(probability, expected):
    assert (draw_flips(SampleRng(0, 0, np.arange(5000)), probability) == expected).all()


def test_a_sample_is_mirrored_in_some_epochs_only():
    flips = [bool(draw_flips(SampleRng(0, epoch, [3]))[0]) for epoch in range(64)]
    assert 12 < sum(flips) < 52
