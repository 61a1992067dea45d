"""Color against the HSV definition in float64, and PCA lighting against its covariance."""

import numpy as np
import pytest
from scipy import stats

from gluon_tricks.augment import color
from gluon_tricks.augment.rng import SampleRng

# arXiv 1812.01187, from AlexNet: the components of ImageNet's RGB values.
EIGENVALUES = 55.46, 4.794, 1.148
EIGENVECTORS = ((-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203))


def to_hsv(rgb):
    """Hue in degrees, saturation in [0, 1], value in [0, 255], from the definition."""
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    value, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    span = np.where(value > low, value - low, 1)
    hue = 60 * np.select([value == low, value == r, value == g],
                         [0, (g - b) / span % 6, (b - r) / span + 2], (r - g) / span + 4)
    return hue, np.where(value > 0, (value - low) / np.where(value > 0, value, 1), 0), value


def to_rgb(hue, saturation, value):
    """f(n) = V - V S max(0, min(k, 4 - k, 1)), k = (n + H / 60) mod 6, at n = 5, 3, 1."""
    channels = []
    for n in (5, 3, 1):
        k = (n + hue / 60) % 6
        channels.append(value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.stack(channels, axis=-1)


def jittered(rgb, gains):
    hue, saturation, value = to_hsv(rgb)
    return to_rgb(hue * gains[0] % 360, np.clip(saturation * gains[1], 0, 1),
                  np.clip(value * gains[2], 0, 255))


def away_from_seam(rgb, gain):
    """Pixels whose hue, scaled, is not within half a degree of the circle's seam."""
    hue = to_hsv(rgb)[0]
    return (np.abs((hue * gain + 180) % 360 - 180) > 0.5) & (hue > 0.5) & (hue < 359.5)


def noise(seed=0, shape=(64, 48, 3)):
    return (np.random.default_rng(seed).random(shape) * 255).astype(np.float32)


def test_the_definition_above_turns_back_into_itself():
    image = noise()
    np.testing.assert_allclose(to_rgb(*to_hsv(image)), image, atol=1e-9)
    assert [float(part) for part in to_hsv(np.array([255.0, 0, 255]))] == [300, 1, 255]


@pytest.mark.parametrize("gains", [
    (0.6, 1.0, 1.0), (1.4, 1.0, 1.0), (1.0, 0.6, 1.0), (1.0, 1.4, 1.0), (1.0, 1.0, 0.6),
    (1.0, 1.0, 1.4), (0.6, 0.6, 0.6), (1.4, 1.4, 1.4), (0.83, 1.27, 1.11), (1.31, 0.71, 0.9),
])
@pytest.mark.parametrize("seed", [0, 1])
def test_hsv_jitter_follows_the_definition(gains, seed):
    image = noise(seed)
    out = color.hsv_jitter(image, np.array(gains))
    assert out.dtype == np.float32
    assert out.shape == image.shape
    keep = away_from_seam(image, gains[0])
    assert keep.mean() > 0.9
    np.testing.assert_allclose(out[keep], jittered(image, gains)[keep], atol=0.02)


def test_each_coefficient_scales_its_own_property():
    image = noise(2)
    image = image[(to_hsv(image)[0] < 250) & (to_hsv(image)[1] < 0.7) & (image.max(-1) < 180)][None]
    hue, saturation, value = to_hsv(image)
    for gains in ((1.4, 1, 1), (1, 1.4, 1), (1, 1, 1.4)):
        keep = away_from_seam(image, gains[0])
        found = to_hsv(color.hsv_jitter(image, np.array(gains)))
        for before, after, gain, error in zip((hue, saturation, value), found, gains,
                                              (0.2, 1e-3, 0.02), strict=True):
            solid = keep & (saturation * value > 30)  # hue is ill-defined near gray
            np.testing.assert_allclose(after[solid], gain * before[solid], atol=error)


def test_hue_wraps_round_the_circle():
    """Magenta, at 300 degrees, scaled by 1.4 is at 420 - 360 = 60 degrees: yellow."""
    magenta = np.full((2, 2, 3), (200, 0, 200), np.float32)
    out = color.hsv_jitter(magenta, np.array([1.4, 1, 1]))
    np.testing.assert_allclose(out, np.full((2, 2, 3), (200, 200, 0)), atol=0.05)


def test_known_colors_by_hand():
    """Green at 120 degrees to 72 by 0.6; pale blue's saturation 0.5 to 0.7; gray by 1.2."""
    def one(rgb, *gains):
        return color.hsv_jitter(np.array([[rgb]], np.float32), np.array(gains))[0, 0]

    np.testing.assert_allclose(one((0, 100, 0), 0.6, 1, 1), (80, 100, 0), atol=0.01)
    np.testing.assert_allclose(one((100, 100, 200), 1, 1.4, 1), (60, 60, 200), atol=0.01)
    np.testing.assert_allclose(one((100, 100, 100), 0.7, 1.4, 1.2), (120, 120, 120), atol=0.01)


def test_saturation_and_value_are_clipped():
    vivid = np.array([[[10, 200, 90]]], np.float32)  # saturation 0.95
    full = color.hsv_jitter(vivid, np.array([1, 1.4, 1]))[0, 0]
    np.testing.assert_allclose([full.min(), full.max()], [0, 200], atol=0.01)
    bright = color.hsv_jitter(np.array([[[250, 125, 125]]], np.float32), np.array([1, 1, 1.4]))
    np.testing.assert_allclose(bright[0, 0], (255, 127.5, 127.5), atol=0.01)
    out = color.hsv_jitter(noise(3), np.array([0.9, 1.4, 1.4]))
    assert out.min() >= -0.01
    assert out.max() <= 255.01


def test_grays_stay_gray():
    levels = np.linspace(0, 255, 101, dtype=np.float32)
    image = np.repeat(levels[None, :, None], 3, axis=2)
    for gains in ((0.6, 0.6, 0.6), (1.4, 1.4, 0.8), (1.3, 0.7, 1.4)):
        out = color.hsv_jitter(image, np.array(gains))
        expected = np.minimum(levels * gains[2], 255)
        np.testing.assert_allclose(out, np.repeat(expected[None, :, None], 3, axis=2), atol=0.01)


def test_black_stays_black():
    assert not color.hsv_jitter(np.zeros((3, 3, 3), np.float32), np.array([1.4, 1.4, 1.4])).any()


def test_gains_of_one_return_the_image():
    image = noise(4)
    np.testing.assert_allclose(color.hsv_jitter(image, np.ones(3)), image, atol=0.01)


def test_nothing_is_rounded_to_whole_numbers():
    image = np.random.default_rng(5).integers(0, 256, (64, 64, 3)).astype(np.float32)
    out = color.hsv_jitter(image, np.array([0.83, 0.9, 0.77]))
    distance = np.abs(out - np.round(out))
    assert 0.2 < distance.mean() < 0.3  # 0.25 where the fractions are uniform
    assert len(np.unique(out)) > 1000


def test_hsv_gains_are_uniform_around_one():
    gains = color.draw_hsv_gains(SampleRng(0, 0, np.arange(20_000)))
    assert gains.shape == (20_000, 3)
    for column in gains.T:
        assert stats.kstest(column, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-4
    narrow = color.draw_hsv_gains(SampleRng(0, 0, np.arange(1000)), 0.1)
    assert 0.9 <= narrow.min() < 0.902
    assert 1.098 < narrow.max() <= 1.1


def test_pca_lighting_of_each_component_by_hand():
    image = np.full((2, 3, 3), (10, 20, 30), np.float32)
    for i in range(3):
        alphas = np.zeros(3)
        alphas[i] = 0.1
        added = [0.1 * EIGENVALUES[i] * part for part in EIGENVECTORS[i]]
        expected = np.full((2, 3, 3), (10, 20, 30)) + added
        np.testing.assert_allclose(color.pca_lighting(image, alphas), expected, rtol=1e-6)


def test_pca_lighting_has_the_covariance_of_its_components():
    """V diag(sigma^2 lambda^2) V^T from 20,000 samples, within 5 standard errors per entry."""
    n, sigma = 20_000, 0.1
    alphas = color.draw_pca_alphas(SampleRng(0, 0, np.arange(n)))
    black = np.zeros((1, 1, 3), np.float32)
    added = np.array([color.pca_lighting(black, alpha)[0, 0] for alpha in alphas], np.float64)
    vectors = np.array(EIGENVECTORS).T
    expected = vectors @ np.diag([(sigma * value)**2 for value in EIGENVALUES]) @ vectors.T
    diagonal = np.diag(expected)
    error = np.sqrt((expected**2 + np.outer(diagonal, diagonal)) / n)
    assert (np.abs(np.cov(added, rowvar=False) - expected) < 5 * error).all()
    assert (np.abs(added.mean(axis=0)) < 5 * np.sqrt(diagonal / n)).all()
    # The small components would be lost in those entries: check them along their own directions.
    for vector, value in zip(EIGENVECTORS, EIGENVALUES, strict=True):
        assert abs((added @ vector).std() / (sigma * value) - 1) < 0.03


def test_pca_alphas_are_normal_and_follow_sigma():
    for sigma in (0.1, 0.5):
        alphas = color.draw_pca_alphas(SampleRng(1, 0, np.arange(20_000)), sigma)
        assert alphas.shape == (20_000, 3)
        for column in alphas.T:
            assert stats.kstest(column, stats.norm(0, sigma).cdf).pvalue > 1e-4
        assert np.abs(np.corrcoef(alphas, rowvar=False) - np.eye(3)).max() < 0.04


def test_pca_lighting_adds_one_color_to_all_pixels():
    image = noise(6)
    added = color.pca_lighting(image, np.array([0.1, -0.2, 0.3])) - image
    assert added.dtype == np.float32
    assert (added.max(axis=(0, 1)) - added.min(axis=(0, 1)) < 1e-4).all()


def test_pca_lighting_clips_nothing():
    white, black = np.full((1, 1, 3), 255, np.float32), np.zeros((1, 1, 3), np.float32)
    assert color.pca_lighting(white, np.array([-0.3, 0, 0])).min() > 263
    assert color.pca_lighting(black, np.array([0.3, 0, 0])).max() < -9


def test_normalize_by_hand():
    image = np.array([[[123.68, 116.779, 103.939], [0, 255, 161.314]]], np.float32)
    out = color.normalize(image, (123.68, 116.779, 103.939), (58.393, 57.12, 57.375))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0, 0], (0, 0, 0), atol=1e-6)
    np.testing.assert_allclose(out[0, 1], (-2.118062, 2.419835, 1.0), rtol=1e-6)


@pytest.mark.parametrize("change", [
    lambda image: color.hsv_jitter(image, np.array([1.2, 0.7, 1.3])),
    lambda image: color.pca_lighting(image, np.array([0.1, 0.1, 0.1])),
    lambda image: color.normalize(image, (1, 2, 3), (4, 5, 6)),
])
def test_the_image_given_is_left_alone(change):
    image = noise(7)
    before = image.copy()
    change(image)
    assert (image == before).all()
