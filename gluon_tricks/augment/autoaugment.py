"""AutoAugment (arXiv 1805.09501): each sample gets one of a policy's 25 sub-policies, at random.

A sub-policy is two operations applied in sequence, each with its own probability. A magnitude's
index, 0 to 9, is that many tenths of the range in the paper's table of operations. The rest follows
the authors' code (tensorflow/models, research/autoaugment): shears, translations and rotations go
either way with equal probability; the greater the index, the more values Solarize inverts and the
more bits Posterize drops; translations are up to 10 pixels of 32, and the same share of other
sizes. That code departs from the paper in Posterize: it keeps 0 to 4 bits, the table and this
module 4 to 8.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gluon_tricks.augment import image_ops
from gluon_tricks.augment.autoaugment_policies import POLICIES
from gluon_tricks.augment.rng import SampleRng


class AutoAugmentDraws(NamedTuple):
    """The random numbers of a batch, one row per sample."""

    choices: np.ndarray  # (samples,), position of the sub-policy in the list, scaled to [0, 1)
    chances: np.ndarray  # (samples, 2) in [0, 1): an operation is applied below its probability
    signs: np.ndarray  # (samples, 2), 1 or -1: which way an operation goes


def draw_autoaugment(rng: SampleRng) -> AutoAugmentDraws:
    """Draw sub-policies, chances and signs, all uniform."""
    numbers = rng.uniform(5)
    return AutoAugmentDraws(numbers[:, 0], numbers[:, 1:3], np.where(numbers[:, 3:] < 0.5, 1, -1))


def chosen(policy: str, draws: AutoAugmentDraws, row: int) -> list[tuple[str, int, int]]:
    """The operations a sample gets, in order: (name, magnitude index, sign)."""
    subpolicies = POLICIES[policy]
    subpolicy = subpolicies[int(draws.choices[row] * len(subpolicies))]
    return [(name, index, int(sign))
            for (name, probability, index), chance, sign in zip(
                subpolicy, draws.chances[row], draws.signs[row], strict=True)
            if chance < probability]


def autoaugment(image: np.ndarray, policy: str, draws: AutoAugmentDraws, row: int) -> np.ndarray:
    """Augment an RGB uint8 image (height, width, 3) by row `row` of the draws.

    policy: "imagenet", "cifar10" or "svhn". Pixels moved in from outside the image are gray.
    """
    for name, index, sign in chosen(policy, draws, row):
        image = _OPERATIONS[name](image, index, sign)
    return image


_OPERATIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "ShearX": lambda image, index, sign: image_ops.shear_x(image, sign * 0.3 * index / 10),
    "ShearY": lambda image, index, sign: image_ops.shear_y(image, sign * 0.3 * index / 10),
    "TranslateX": lambda image, index, sign:
        image_ops.translate_x(image, sign * (image.shape[1] * index // 32)),
    "TranslateY": lambda image, index, sign:
        image_ops.translate_y(image, sign * (image.shape[0] * index // 32)),
    "Rotate": lambda image, index, sign: image_ops.rotate(image, sign * 3 * index),
    "AutoContrast": lambda image, index, sign: image_ops.auto_contrast(image),
    "Invert": lambda image, index, sign: image_ops.invert(image),
    "Equalize": lambda image, index, sign: image_ops.equalize(image),
    "Solarize": lambda image, index, sign: image_ops.solarize(image, 256 - 256 * index // 10),
    "Posterize": lambda image, index, sign: image_ops.posterize(image, 8 - 4 * index // 10),
    "Contrast": lambda image, index, sign: image_ops.contrast(image, 0.1 + 1.8 * index / 10),
    "Color": lambda image, index, sign: image_ops.color(image, 0.1 + 1.8 * index / 10),
    "Brightness": lambda image, index, sign: image_ops.brightness(image, 0.1 + 1.8 * index / 10),
    "Sharpness": lambda image, index, sign: image_ops.sharpness(image, 0.1 + 1.8 * index / 10),
}
