"""AutoAugment: the published policies, how often and how strongly they change an image."""

import math
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from gluon_tricks.augment.autoaugment import AutoAugmentDraws, autoaugment, chosen, draw_autoaugment
from gluon_tricks.augment.autoaugment_policies import POLICIES
from gluon_tricks.augment.color import hsv_jitter
from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data.backends import choose
from gluon_tricks.data.transforms import TrainTransform
from gluon_tricks.errors import InputError

COUNT = 20_000

# For each operation: how often it is in the paper's tables, the sums of its probabilities and
# of its magnitude indices.
TABLES = {
    "imagenet": {
        "AutoContrast": (2, 1.2, 10), "Color": (6, 3.8, 18), "Contrast": (2, 2.0, 16),
        "Equalize": (17, 11.2, 102), "Invert": (3, 1.8, 16), "Posterize": (5, 2.8, 32),
        "Rotate": (6, 3.6, 45), "Sharpness": (1, 0.4, 7), "ShearX": (1, 0.6, 5),
        "Solarize": (7, 3.6, 36)},
    "cifar10": {
        "AutoContrast": (7, 5.0, 26), "Brightness": (4, 2.3, 25), "Color": (5, 2.9, 27),
        "Contrast": (2, 0.8, 13), "Equalize": (9, 4.7, 41), "Invert": (3, 0.2, 13),
        "Posterize": (1, 0.3, 7), "Rotate": (1, 0.7, 2), "Sharpness": (5, 2.8, 24),
        "ShearY": (2, 0.7, 15), "Solarize": (4, 1.9, 18), "TranslateX": (2, 0.8, 17),
        "TranslateY": (5, 3.4, 39)},
    "svhn": {
        "AutoContrast": (3, 2.3, 7), "Contrast": (1, 0.3, 3), "Equalize": (6, 3.9, 24),
        "Invert": (12, 7.6, 57), "Rotate": (4, 3.4, 14), "ShearX": (6, 4.2, 29),
        "ShearY": (8, 6.1, 51), "Solarize": (5, 2.2, 25), "TranslateX": (1, 0.9, 3),
        "TranslateY": (4, 2.0, 18)},
}


def noise(height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", TABLES)
def test_the_policies_are_the_paper_s(name):
    assert [len(subpolicy) for subpolicy in POLICIES[name]] == [2] * 25
    found = defaultdict(list)
    for subpolicy in POLICIES[name]:
        for operation, probability, index in subpolicy:
            found[operation].append((probability, index))
    sums = {operation: (len(uses), round(sum(p for p, _ in uses), 6), sum(i for _, i in uses))
            for operation, uses in found.items()}
    assert sums == TABLES[name]


@pytest.mark.parametrize(("name", "place", "want"), [
    ("imagenet", 0, (("Posterize", 0.4, 8), ("Rotate", 0.6, 9))),
    ("imagenet", 12, (("Equalize", 0.0, 7), ("Equalize", 0.8, 8))),
    ("imagenet", 15, (("Rotate", 0.8, 8), ("Color", 1.0, 2))),
    ("imagenet", 18, (("ShearX", 0.6, 5), ("Equalize", 1.0, 9))),
    ("imagenet", 24, (("Equalize", 0.8, 8), ("Equalize", 0.6, 3))),
    ("cifar10", 0, (("Invert", 0.1, 7), ("Contrast", 0.2, 6))),
    ("cifar10", 13, (("Brightness", 0.9, 6), ("Color", 0.2, 8))),
    ("cifar10", 24, (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1))),
    ("svhn", 0, (("ShearX", 0.9, 4), ("Invert", 0.2, 3))),
    ("svhn", 15, (("Invert", 0.8, 5), ("TranslateY", 0.0, 2))),
    ("svhn", 24, (("ShearX", 0.7, 2), ("Invert", 0.1, 5)))])
def test_some_subpolicies(name, place, want):
    assert POLICIES[name][place] == want


@pytest.mark.parametrize("policy", TABLES)
def test_operations_are_as_frequent_as_the_tables_say(policy):
    """An operation's expected count per sample is its probability summed over the policy / 25."""
    draws = draw_autoaugment(SampleRng(0, 0, np.arange(COUNT)))
    uses = defaultdict(list)
    for row in range(COUNT):
        for name, _, sign in chosen(policy, draws, row):
            uses[name].append(sign)
    for name, (_, probabilities, _) in TABLES[policy].items():
        expected = COUNT * probabilities / 25
        assert abs(len(uses[name]) - expected) < 5 * math.sqrt(expected), name
        assert abs(sum(uses[name])) < 5 * math.sqrt(expected), name  # equally often either way


def test_all_subpolicies_are_drawn_alike_and_all_numbers_are_independent():
    draws = draw_autoaugment(SampleRng(1, 2, np.arange(COUNT)))
    counts = np.bincount((draws.choices * 25).astype(int))
    assert len(counts) == 25 and (abs(counts - 800) < 5 * math.sqrt(800)).all()
    numbers = np.concatenate([draws.choices[:, None], draws.chances, draws.signs], axis=1)
    assert np.abs(np.corrcoef(numbers, rowvar=False) - np.eye(5)).max() < 5 / math.sqrt(COUNT)
    assert set(np.unique(draws.signs)) == {-1, 1}


def test_chances_decide_at_the_probability():
    """The sub-policies at 0.5: (Equalize, 0.0), (Equalize, 0.8)."""
    for chances, want in (((0.0, 0.79), [("Equalize", 8, -1)]), ((0.0, 0.8), []),
                          ((0.99, 0.0), [("Equalize", 8, -1)])):
        draws = AutoAugmentDraws(np.array([0.1, 0.5]), np.array([(0.9, 0.9), chances]),
                                 np.array([(1, 1), (1, -1)]))
        assert chosen("imagenet", draws, 1) == want


def moved(*coefficients):
    return lambda picture: picture.transform(picture.size, Image.Transform.AFFINE, coefficients,
                                             fillcolor=(128, 128, 128))


def turned(degrees):
    return lambda picture: picture.rotate(degrees, fillcolor=(128, 128, 128))


def enhanced(kind, factor):
    return lambda picture: getattr(ImageEnhance, kind)(picture).enhance(factor)


STRENGTHS = [  # for 32x32 images, from the paper's authors' code; for Posterize from its table
    ("ShearX", 9, 1, moved(1, 0.27, 0, 0, 1, 0)), ("ShearX", 5, -1, moved(1, -0.15, 0, 0, 1, 0)),
    ("ShearY", 8, 1, moved(1, 0, 0, 0.24, 1, 0)), ("ShearY", 4, -1, moved(1, 0, 0, -0.12, 1, 0)),
    ("TranslateX", 9, 1, moved(1, 0, 9, 0, 1, 0)), ("TranslateX", 3, -1, moved(1, 0, -3, 0, 1, 0)),
    ("TranslateY", 9, -1, moved(1, 0, 0, 0, 1, -9)), ("TranslateY", 2, 1, moved(1, 0, 0, 0, 1, 2)),
    ("Rotate", 9, 1, turned(27)), ("Rotate", 2, -1, turned(-6)), ("Rotate", 0, 1, turned(0)),
    ("AutoContrast", 5, 1, ImageOps.autocontrast), ("Equalize", 0, 1, ImageOps.equalize),
    ("Invert", 3, -1, ImageOps.invert),
    ("Solarize", 2, 1, lambda picture: ImageOps.solarize(picture, 205)),
    ("Solarize", 8, -1, lambda picture: ImageOps.solarize(picture, 52)),
    ("Posterize", 0, 1, lambda picture: ImageOps.posterize(picture, 8)),
    ("Posterize", 7, 1, lambda picture: ImageOps.posterize(picture, 6)),
    ("Posterize", 8, 1, lambda picture: ImageOps.posterize(picture, 5)),
    ("Contrast", 8, 1, enhanced("Contrast", 1.54)), ("Color", 0, -1, enhanced("Color", 0.1)),
    ("Color", 9, 1, enhanced("Color", 1.72)), ("Brightness", 7, 1, enhanced("Brightness", 1.36)),
    ("Sharpness", 1, 1, enhanced("Sharpness", 0.28)),
]


@pytest.mark.parametrize(("name", "index", "sign", "pillow"), STRENGTHS)
def test_how_strong_each_magnitude_is(monkeypatch, name, index, sign, pillow):
    """Applied second, to an image that was inverted first."""
    monkeypatch.setitem(POLICIES, "svhn", ((("Invert", 1.0, 0), (name, 1.0, index)),))
    draws = AutoAugmentDraws(np.zeros(1), np.full((1, 2), 0.5), np.array([(-1, sign)]))
    image = noise() // 2 + 40
    want = np.asarray(pillow(ImageOps.invert(Image.fromarray(image))))
    np.testing.assert_array_equal(autoaugment(image, "svhn", draws, 0), want)


def test_translations_are_shares_of_other_sizes(monkeypatch):
    image, draws = noise(64, 224), AutoAugmentDraws(np.zeros(1), np.zeros((1, 2)),
                                                    np.array([(1, -1)]))
    monkeypatch.setitem(POLICIES, "svhn", ((("TranslateX", 1.0, 9), ("TranslateY", 1.0, 3)),))
    found = autoaugment(image, "svhn", draws, 0)
    assert (found[6:, :161] == image[:-6, 63:]).all()  # 224 * 9 / 32 and 64 * 3 / 32
    assert (found[:6] == 128).all() and (found[:, 161:] == 128).all()


@pytest.mark.parametrize("policy", TABLES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (40, 17)])
def test_any_image_becomes_one_of_its_size(policy, shape):
    """All sub-policies, with both operations, both ways."""
    image = noise(*shape)
    before = image.copy()
    for sign in (1, -1):
        draws = AutoAugmentDraws((np.arange(25) + 0.5) / 25, np.zeros((25, 2)),
                                 np.full((25, 2), sign))
        made = [autoaugment(image, policy, draws, row) for row in range(25)]
        assert {(out.shape, out.dtype.name) for out in made} == {((*shape, 3), "uint8")}
        assert (image == before).all()
        if shape == (40, 17):
            assert sum((out != image).any() for out in made) >= 23


PLAIN = {"size": 24, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "pca_noise": 0}


def test_a_sample_s_numbers_depend_on_seed_epoch_and_index_alone():
    transform = TrainTransform(auto_augment="cifar10", **PLAIN)
    image = noise(50, 60)
    together = transform.draw(SampleRng(7, 3, [4, 9, 11, 400]))
    alone = transform.draw(SampleRng(7, 3, [11]))
    assert transform.apply(image, together, 2).tobytes() == \
        transform.apply(image, alone, 0).tobytes()
    others = [transform.draw(rng).operations.choices[0] for rng in
              (SampleRng(7, 3, [11]), SampleRng(7, 4, [11]), SampleRng(8, 3, [11]))]
    assert len(set(others)) == 3


def test_all_other_numbers_stay_as_they_are():
    rows = np.arange(100)
    for options in ({}, {"color_jitter": 0, "pca_noise": 0}):
        without = TrainTransform(**options).draw(SampleRng(5, 1, rows))
        found = TrainTransform(auto_augment="svhn", **options).draw(SampleRng(5, 1, rows))
        assert without.operations is None
        for mine, theirs in zip((*without.crops, *without[1:4]), (*found.crops, *found[1:4]),
                                strict=True):
            assert (mine is theirs is None) or mine.tobytes() == theirs.tobytes()


def test_it_comes_after_crop_and_flip_and_before_jitter(monkeypatch):
    """Shears and turns before the flip would show; so would an image that was not rounded."""
    monkeypatch.setitem(POLICIES, "imagenet", ((("Rotate", 1.0, 5), ("Invert", 1.0, 0)),))
    image = noise(50, 60)
    with_jitter = TrainTransform(auto_augment="imagenet", **PLAIN)
    cropped = TrainTransform(color_jitter=0, **PLAIN)
    draws = with_jitter.draw(SampleRng(2, 0, range(20)))
    assert 0 < draws.flips.sum() < 20
    for row in range(20):
        baseline = np.rint(cropped.apply(image, draws._replace(gains=None, operations=None), row))
        degrees = 15 * draws.operations.signs[row, 0]
        turned_round = turned(degrees)(Image.fromarray(baseline.astype(np.uint8)))
        want = hsv_jitter(255 - np.float32(turned_round), draws.gains[row])
        np.testing.assert_allclose(with_jitter.apply(image, draws, row), want, atol=1e-3)


def test_opencv_does_it_where_the_native_decoder_is_there(native_core):
    assert choose("auto", TrainTransform()) == ("native", "")
    augmenting = TrainTransform(auto_augment="imagenet")
    assert choose("auto", augmenting) == ("opencv", "native: it does not support AutoAugment")
    assert choose("opencv", augmenting) == ("opencv", "")
    with pytest.raises(InputError, match="--data-backend native: it does not support AutoAugment"):
        choose("native", augmenting)
