"""Everything a training sample draws has the paper's distribution (arXiv 1812.01187, section 2.1).

Kolmogorov-Smirnov on 20,000 draws; the same test must notice a bound or a width slightly off.
"""

import math

import numpy as np
import pytest
from scipy import stats

from gluon_tricks.augment import crop
from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.transforms import TrainTransform

COUNT = 20_000
LEVEL = 1e-4
LOG = math.log(4 / 3)

PAPER = {  # for each quantity (its distribution, one that is slightly off)
    "area": (stats.uniform(0.08, 0.92), stats.uniform(0.1, 0.9)),
    "log aspect": (stats.uniform(-LOG, 2 * LOG), stats.uniform(-LOG, 2 * math.log(1.4))),
    "top": (stats.uniform(0, 1), stats.uniform(0, 0.97)),
    "left": (stats.uniform(0, 1), stats.uniform(0.03, 0.97)),
    "hue": (stats.uniform(0.6, 0.8), stats.uniform(0.6, 0.83)),
    "saturation": (stats.uniform(0.6, 0.8), stats.uniform(0.58, 0.82)),
    "brightness": (stats.uniform(0.6, 0.8), stats.uniform(0.62, 0.78)),
    "first component": (stats.norm(0, 0.1), stats.norm(0, 0.11)),
    "second component": (stats.norm(0, 0.1), stats.norm(0.005, 0.1)),
    "third component": (stats.norm(0, 0.1), stats.norm(0, 0.0925)),
}


def drawn(transform: TrainTransform, seed: int = 0, epoch: int = 0) -> dict[str, np.ndarray]:
    """The draws of 20,000 samples by name; for crops, the first try."""
    found = transform.draw(SampleRng(seed, epoch, np.arange(COUNT)))
    return {"area": found.crops.areas[:, 0], "log aspect": np.log(found.crops.aspects[:, 0]),
            "top": found.crops.places[:, 0], "left": found.crops.places[:, 1],
            **dict(zip(("hue", "saturation", "brightness"), found.gains.T, strict=True)),
            **dict(zip(("first component", "second component", "third component"),
                       found.alphas.T, strict=True)), "flips": found.flips}


def likely(values: np.ndarray, distribution) -> bool:
    return stats.kstest(values, distribution.cdf).pvalue > LEVEL


@pytest.fixture(scope="module")
def draws():
    """For two seeds and two epochs."""
    return [drawn(TrainTransform(), seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1 << 40, 0))]


@pytest.mark.parametrize("name", PAPER)
def test_each_number_has_the_paper_s_distribution_and_no_other(draws, name):
    paper, wrong = PAPER[name]
    for numbers in draws:
        assert likely(numbers[name], paper)
        assert not likely(numbers[name], wrong)


def test_half_of_the_samples_are_mirrored(draws):
    for numbers in draws:
        flips = int(numbers["flips"].sum())
        assert stats.binomtest(flips, COUNT, 0.5).pvalue > LEVEL
        assert stats.binomtest(flips, COUNT, 0.45).pvalue < LEVEL


@pytest.mark.parametrize("attempt", range(crop.TRIES))
def test_every_try_of_a_crop_has_it(attempt):
    found = TrainTransform().draw(SampleRng(3, 2, np.arange(COUNT))).crops
    assert likely(found.areas[:, attempt], PAPER["area"][0])
    assert likely(np.log(found.aspects[:, attempt]), PAPER["log aspect"][0])


@pytest.mark.parametrize(("changes", "names"), [
    ({"area": (0.1, 1.0)}, {"area"}), ({"area": (0.08, 0.97)}, {"area"}),
    ({"pca_noise": 0.11}, {"first component", "second component", "third component"}),
    ({"color_jitter": 0.42}, {"hue", "saturation", "brightness"})],
    ids=["least area", "most area", "color noise", "jitter"])  # string hashes differ by process
def test_a_wrong_bound_is_caught(changes, names):
    numbers = drawn(TrainTransform(**changes))
    assert {name for name in PAPER if not likely(numbers[name], PAPER[name][0])} == names


def windows(area=(0.08, 1.0)):
    """(20,000, 4): top, left, height, width in an image of 1000 x 1000."""
    found = TrainTransform(area=area).draw(SampleRng(0, 0, np.arange(COUNT))).crops
    return np.array([crop.crop_window(1000, 1000, found.areas[i], found.aspects[i],
                                      found.places[i]) for i in range(COUNT)])


def fitting(low=0.08, sides=(3 / 4, 4 / 3)):
    """(height, width) as the paper says: draw area and aspect until the window fits."""
    rng = np.random.default_rng(7)
    area = rng.uniform(low, 1, 4 * COUNT) * 1e6
    aspect = np.exp(rng.uniform(*np.log(sides), 4 * COUNT))
    height, width = np.sqrt(area / aspect), np.sqrt(area * aspect)
    fits = (height <= 1000) & (width <= 1000)
    return height[fits][:COUNT], width[fits][:COUNT]


def test_final_windows_are_those_of_drawing_until_one_fits():
    """In a square nearly every sample fits within ten tries: the fallback does not show."""
    top, left, height, width = windows().T
    expected_height, expected_width = fitting()
    for found, expected in ((height, expected_height), (width, expected_width),
                            (height * width, expected_height * expected_width),
                            (width / height, expected_width / expected_height)):
        assert stats.ks_2samp(found, expected).pvalue > LEVEL
    # Sides and positions are integers: spread each over its pixel.
    spread = np.random.default_rng(1).random((2, COUNT))
    assert likely((top + spread[0]) / (1001 - height), stats.uniform())
    assert likely((left + spread[1]) / (1001 - width), stats.uniform())


def test_final_windows_of_wrong_bounds_are_caught():
    _, _, height, width = windows(area=(0.1, 1.0)).T
    area = np.multiply(*fitting())
    assert stats.ks_2samp(height * width, area).pvalue < LEVEL
    _, _, height, width = windows().T
    assert stats.ks_2samp(height * width, np.multiply(*fitting(0.1))).pvalue < LEVEL
    expected = np.divide(*fitting(sides=(0.7, 1 / 0.7)))
    assert stats.ks_2samp(height / width, expected).pvalue < LEVEL
