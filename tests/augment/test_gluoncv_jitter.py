"""GluonCV's color jitter against the operators of MXNet that it is made of, where they work."""

import itertools

import mxnet as mx
import numpy as np
import pytest
from scipy import stats

from gluon_tricks.augment.color import draw_orders, gluoncv_jitter
from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.transforms import TrainTransform


def saturated(image, min_factor, max_factor):
    """Its definition: MXNet's own operator does not sum channels but takes the last one's share."""
    grey = (image * mx.nd.array([0.299, 0.587, 0.114])).sum(axis=2, keepdims=True)
    return min_factor * image + (1 - min_factor) * grey


STEPS = mx.nd.image.random_brightness, mx.nd.image.random_contrast, saturated


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("gains", [(1.4, 0.6, 1.3), (0.6, 1.4, 0.7), (1, 1, 1.4)], ids=str)
def test_it_is_mxnets_three_steps_clipped(order, gains):
    image = (np.random.default_rng(0).random((9, 7, 3)) * 255).astype(np.float32)
    want = mx.nd.array(image)
    for step in order:
        want = STEPS[step](want, min_factor=gains[step], max_factor=gains[step]).clip(0, 255)
    got = gluoncv_jitter(image, np.array(gains), np.array(order))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want.asnumpy(), atol=1e-3)


def test_all_orders_are_alike():
    drawn = draw_orders(SampleRng(3, 0, range(6000)))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_the_transform_takes_it_and_draws_the_rest_as_before():
    plain, theirs = TrainTransform(), TrainTransform(gluoncv_jitter=True)
    draws, other = (transform.draw(SampleRng(0, 0, [5])) for transform in (plain, theirs))
    for name in ("flips", "gains", "alphas"):
        np.testing.assert_array_equal(getattr(draws, name), getattr(other, name))
    grey = np.full((224, 224, 3), 100, np.uint8)  # whatever the crop, contrast changes nothing
    quiet = theirs.apply(grey, other._replace(alphas=None), 0)
    want = (100 * other.gains[0, 0] - np.array(theirs.mean)) / theirs.std
    np.testing.assert_allclose(quiet[3, 4], want, atol=1e-4)
    assert TrainTransform(gluoncv_jitter=True, color_jitter=0).draw(SampleRng(0, 0, [5])
                                                                    ).orders is None
