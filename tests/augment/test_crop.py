"""Crops against brute force, closed forms and the distributions the paper asks for."""

import math

import numpy as np
import pytest
from scipy import stats

from gluon_tricks.augment import crop
from gluon_tricks.augment.rng import SampleRng

LARGEST_PLACE = 1 - 2.0**-32  # the largest number SampleRng.uniform gives


def windows(height, width, samples, area=(0.08, 1.0), seed=0):
    """(samples, 4): the windows of that many samples in images of one size."""
    draws = crop.draw_crops(SampleRng(seed, 0, np.arange(samples)), area)
    return np.array([crop.crop_window(height, width, *(column[i] for column in draws))
                     for i in range(samples)])


def never_fits(height, width):
    """The window when each try is wider and higher than the image: the fallback."""
    return crop.crop_window(height, width, np.full(crop.TRIES, 4.0), np.ones(crop.TRIES),
                            np.array([0.9, 0.1]))


def test_area_and_aspect_have_the_paper_s_distribution():
    """Windows of at most half the area always fit a square, so that none is drawn again."""
    side = 4096
    top, left, height, width = windows(side, side, 20_000, area=(0.08, 0.5)).T
    area, aspect = height * width / side**2, width / height
    log = math.log(4 / 3)
    assert stats.kstest(area, stats.uniform(0.08, 0.42).cdf).pvalue > 1e-4
    assert stats.kstest(np.log(aspect), stats.uniform(-log, 2 * log).cdf).pvalue > 1e-4
    assert stats.kstest(top / (side - height), "uniform").pvalue > 1e-4
    assert stats.kstest(left / (side - width), "uniform").pvalue > 1e-4
    correlation = np.corrcoef([area, np.log(aspect), top / (side - height), left / (side - width)])
    assert np.abs(correlation - np.eye(4)).max() < 5 / math.sqrt(20_000)


@pytest.mark.parametrize(("height", "width"), [(1000, 1000), (700, 1100), (2000, 900)])
def test_the_whole_range_of_areas_is_that_of_drawing_until_it_fits(height, width):
    rng = np.random.default_rng(0)
    area = rng.uniform(0.08, 1, (20_000, 10)) * height * width
    aspect = np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), (20_000, 10)))
    w, h = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (w <= width) & (h <= height)
    some = fits.any(axis=1)
    first = fits.argmax(axis=1)
    expected_w, expected_h = w[some, first[some]], h[some, first[some]]

    got = windows(height, width, 20_000)
    fallback = never_fits(height, width)
    drawn = got[(got != fallback).any(axis=1)]
    assert abs(len(drawn) - some.sum()) < 150
    assert stats.ks_2samp(drawn[:, 3], expected_w).pvalue > 1e-4
    assert stats.ks_2samp(drawn[:, 2], expected_h).pvalue > 1e-4


def test_draws_are_a_row_a_sample():
    draws = crop.draw_crops(SampleRng(0, 0, range(7)))
    assert draws.areas.shape == draws.aspects.shape == (7, 10)
    assert draws.places.shape == (7, 2)
    assert len(np.unique(draws.areas)) == len(np.unique(draws.aspects)) == 70


def test_windows_lie_inside_images_of_any_size():
    rng = np.random.default_rng(0)
    draws = crop.draw_crops(SampleRng(0, 0, np.arange(3000)))
    for i in range(3000):
        height, width = rng.integers(1, 30, 2)
        for places in (draws.places[i], np.zeros(2), np.full(2, LARGEST_PLACE)):
            window = crop.crop_window(height, width, draws.areas[i], draws.aspects[i], places)
            assert window.height >= 1
            assert window.width >= 1
            assert 0 <= window.top <= height - window.height
            assert 0 <= window.left <= width - window.width


def test_all_places_of_a_window_are_equally_likely():
    """A 4 x 6 window has 3 tops and 5 lefts in an image of 6 x 10."""
    places = SampleRng(0, 0, np.arange(15_000)).uniform(2)
    found = [crop.crop_window(6, 10, np.full(10, 0.4), np.full(10, 1.5), place)
             for place in places]
    assert {window[2:] for window in found} == {(4, 6)}
    tops_and_lefts, counts = np.unique([window[:2] for window in found], axis=0,
                                       return_counts=True)
    assert tops_and_lefts.tolist() == [[top, left] for top in range(3) for left in range(5)]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_first_try_that_fits_is_taken():
    tries = np.full(crop.TRIES, 4.0)
    tries[3:6] = 0.25, 0.04, 1.0
    window = crop.crop_window(100, 100, tries, np.ones(crop.TRIES), np.array([0.5, 0.999]))
    assert window == (25, 50, 50, 50)  # 51 tops and lefts each: int(25.5), int(50.9)


def test_aspect_is_width_over_height():
    window = crop.crop_window(1000, 1000, np.full(10, 0.12), np.full(10, 4 / 3), np.zeros(2))
    assert window == (0, 0, 300, 400)


@pytest.mark.parametrize(("height", "width", "expected"), [
    (10, 1000, (0, 493, 10, 13)),  # 10 * 4/3 = 13.3 wide
    (1000, 10, (493, 0, 13, 10)),  # 10 / (3/4) = 13.3 high
    (100, 200, (0, 33, 100, 133)),
    (200, 100, (33, 0, 133, 100)),
    (480, 640, (0, 0, 480, 640)),  # 4/3 itself
    (640, 480, (0, 0, 640, 480)),
    (100, 100, (0, 0, 100, 100)),
    (1, 1, (0, 0, 1, 1)),
    (1, 500, (0, 249, 1, 1)),
    (500, 1, (249, 0, 1, 1)),
])
def test_fallback_is_the_largest_centered_window_of_allowed_aspect(height, width, expected):
    assert never_fits(height, width) == expected


def test_fallback_is_nearest_to_the_exact_window_for_all_small_images():
    for height in range(1, 40):
        for width in range(1, 40):
            top, left, h, w = never_fits(height, width)
            assert abs(w - min(width, max(1, height * 4 / 3))) <= 0.5
            assert abs(h - min(height, max(1, width * 4 / 3))) <= 0.5
            assert (h == height) or (w == width)
            assert abs(2 * top - (height - h)) <= 1
            assert abs(2 * left - (width - w)) <= 1


def test_long_images_use_the_fallback_and_a_one_pixel_image_has_one_crop():
    assert (windows(10, 1000, 50, area=(0.9, 1.0)) == (0, 493, 10, 13)).all()
    assert (windows(1, 1, 50) == (0, 0, 1, 1)).all()


def test_window_cuts_a_view():
    image = np.arange(5 * 6 * 3).reshape(5, 6, 3)
    cut = crop.Window(1, 2, 3, 4).cut(image)
    assert cut.base is not None
    assert [cut[0, 0, 0], cut[-1, -1, -1]] == [image[1, 2, 0], image[3, 5, 2]]
    assert cut.shape == (3, 4, 3)


@pytest.mark.parametrize(("height", "width", "size", "padding"), [
    (32, 32, 32, 4), (8, 8, 8, 2), (5, 9, 6, 3), (9, 5, 3, 2), (4, 4, 4, 0), (2, 3, 8, 4),
])
def test_pad_crop_is_a_window_of_the_padded_image_at_every_offset(height, width, size, padding):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (height, width, 3), np.uint8)
    padded = np.zeros((height + 2 * padding, width + 2 * padding, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            padded[row + padding, column + padding] = image[row, column]
    offsets = [(y, x) for y in range(height + 2 * padding - size + 1)
               for x in range(width + 2 * padding - size + 1)]
    reached = set()
    for places in rng.random((40 * len(offsets), 2)):
        window = crop.pad_crop_window(height, width, size, padding, places)
        offset = window.top + padding, window.left + padding
        if offset not in reached:
            expected = padded[offset[0]:offset[0] + size, offset[1]:offset[1] + size]
            out = crop.pad_crop(image, window)
            assert out.dtype == np.uint8
            assert out.tolist() == expected.tolist()
        reached.add(offset)
    assert reached == set(offsets)


def test_pad_crop_offsets_are_equally_likely():
    places = SampleRng(0, 0, np.arange(20_000)).uniform(2)
    found = [crop.pad_crop_window(32, 32, 32, 4, place)[:2] for place in places]
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == 81
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("place", "offset"), [(0.0, -4), (LARGEST_PLACE, 4), (0.5, 0)])
def test_pad_crop_offsets_at_the_ends(place, offset):
    window = crop.pad_crop_window(32, 32, 32, 4, np.array([place, place]))
    assert window == (offset, offset, 32, 32)


def test_pad_crop_of_a_window_that_lies_outside_is_black():
    image = np.full((4, 5, 3), 200, np.uint8)
    for top, left in ((-4, 0), (0, -4), (-4, -4), (5, 0), (0, 6), (5, 6)):
        assert not crop.pad_crop(image, crop.Window(top, left, 3, 3)).any()


@pytest.mark.parametrize(("height", "width"), [(23, 32), (32, 23), (1, 1)])
def test_pad_crop_refuses_an_image_too_small_for_the_window(height, width):
    with pytest.raises(ValueError, match=rf"32x32 .* {width}x{height} "):
        crop.pad_crop_window(height, width, 32, 4, np.zeros(2))
    assert crop.pad_crop_window(24, 24, 32, 4, np.zeros(2)) == (-4, -4, 32, 32)


@pytest.mark.parametrize("size", [(3, 4), (40, 17), (7, 50), (13, 11), (1, 1), (26, 22)])
def test_resize_is_bilinear_and_not_rounded(size, bilinear):
    image = np.random.default_rng(0).integers(0, 256, (13, 11, 3), np.uint8)
    out = crop.resize(image, *size)
    assert out.dtype == np.float32
    assert out.shape == (*size, 3)
    np.testing.assert_allclose(out, bilinear(image, *size), atol=1e-2)


def test_resize_of_two_pixels_by_hand():
    image = np.array([[[0, 10, 255], [100, 20, 0]]], np.uint8)
    expected = [[0, 10, 255], [25, 12.5, 191.25], [75, 17.5, 63.75], [100, 20, 0]]
    assert crop.resize(image, 1, 4)[0].tolist() == expected


@pytest.mark.parametrize(("height", "width", "size", "expected"), [
    (375, 500, 256, (256, 341)),  # 341.33
    (500, 375, 256, (341, 256)),
    (300, 301, 256, (256, 257)),  # 256.85
    (50, 100, 256, (256, 512)),
    (7, 7, 256, (256, 256)),
    (256, 300, 256, (256, 300)),
    (1, 3, 5, (5, 15)),
])
def test_resize_short_edge_keeps_the_aspect(height, width, size, expected):
    out = crop.resize_short_edge(np.zeros((height, width, 3), np.uint8), size)
    assert out.shape == (*expected, 3)
    assert out.dtype == np.float32


def test_the_short_edge_is_exact_for_awkward_sizes():
    for short in range(1, 60):
        for long in (short, short + 1, 2 * short + 1):
            shape = crop.resize_short_edge(np.zeros((long, short, 3), np.uint8), 37).shape
            assert shape[1] == 37
            assert abs(shape[0] - long * 37 / short) <= 0.5 + 1e-9


@pytest.mark.parametrize(("height", "width", "size", "expected"), [
    (256, 341, 224, (16, 58, 224, 224)),
    (341, 256, 224, (58, 16, 224, 224)),
    (256, 256, 224, (16, 16, 224, 224)),
    (224, 224, 224, (0, 0, 224, 224)),
    (5, 8, 2, (1, 3, 2, 2)),
    (1, 1, 1, (0, 0, 1, 1)),
])
def test_center_window(height, width, size, expected):
    assert crop.center_window(height, width, size) == expected


@pytest.mark.parametrize(("height", "width"), [(223, 500), (500, 223), (1, 1)])
def test_center_window_refuses_an_image_too_small(height, width):
    with pytest.raises(ValueError, match=rf"224x224 .* {width}x{height} "):
        crop.center_window(height, width, 224)


@pytest.mark.parametrize("antialias", [False, True])
def test_what_would_be_too_large_resized_is_refused_before_it_is(antialias, monkeypatch):
    monkeypatch.setattr(crop, "MAX_PIXELS", 40 * 400)
    fits, narrow = np.zeros((2, 20, 3), np.uint8), np.zeros((2, 21, 3), np.uint8)
    assert crop.resize_short_edge(fits, 40, antialias).shape == (40, 400, 3)
    monkeypatch.setattr(crop, "resize", lambda *_: pytest.fail("memory was taken"))
    for image in (narrow, narrow.swapaxes(0, 1)):
        with pytest.raises(ValueError, match="more than 16000: it is too narrow"):
            crop.resize_short_edge(image, 40, antialias)
