"""Transforms of an image before a network sees it: the paper's for training and evaluation,
CIFAR's, and ten crops.

A transform first draws the random numbers of a whole batch (`draw`), then transforms one decoded
image at a time (`apply`), so that drawing is cheap and workers share nothing.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from gluon_tricks.augment import color, crop
from gluon_tricks.augment.autoaugment import AutoAugmentDraws, autoaugment, draw_autoaugment
from gluon_tricks.augment.flip import draw_flips, flip
from gluon_tricks.augment.rng import SampleRng

IMAGENET_MEAN = 123.68, 116.779, 103.939  # RGB, on the [0, 255] scale
IMAGENET_STD = 58.393, 57.12, 57.375


class Transform(Protocol):
    """size: the side of its square output. crops: how many it makes of an image."""

    size: int
    crops: int

    def draw(self, rng: SampleRng) -> Any:
        """Draw the random numbers for all samples of `rng`."""

    def apply(self, image: np.ndarray, draws: Any, row: int) -> np.ndarray:
        """Transform RGB uint8 (height, width, 3) by row `row` of the draws to float32
        (size, size, 3), with several crops (crops, size, size, 3).

        Raises ValueError if the image is too small or too narrow.
        """


class TrainDraws(NamedTuple):
    """The random numbers of a batch, one row per sample; None for what is switched off."""

    crops: crop.CropDraws
    flips: np.ndarray
    gains: np.ndarray | None
    alphas: np.ndarray | None
    operations: AutoAugmentDraws | None = None
    orders: np.ndarray | None = None  # for GluonCV's jitter


@dataclass(frozen=True)
class TrainTransform:
    """arXiv 1812.01187, section 2.1: crop, flip, HSV jitter, PCA noise, normalize.

    With `padding`, a size x size crop of the padded image replaces the random resized crop (the
    CIFAR recipes). 0 switches color_jitter or pca_noise off; `gluoncv_jitter` uses GluonCV's color
    jitter. `antialias` widens the filter when a crop is shrunk, see augment/crop.py.

    With `auto_augment` "imagenet", "cifar10" or "svhn", that AutoAugment policy is applied to the
    flipped crop, rounded to uint8: after the baseline's augmentation, as its paper says and
    Google's ImageNet code does (GluonCV augments the whole image before cropping). Jitter and noise
    follow unless switched off. GluonCV keeps its own; Google's code has none, and the paper found
    that dropping its color distortions changes nothing.
    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    padding: int | None = None
    color_jitter: float = 0.4
    pca_noise: float = 0.1
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    antialias: bool = False
    auto_augment: str | None = None
    gluoncv_jitter: bool = False
    crops = 1

    def draw(self, rng: SampleRng) -> TrainDraws:
        return TrainDraws(
            crops=crop.draw_crops(rng, self.area),
            flips=draw_flips(rng),
            gains=color.draw_hsv_gains(rng, self.color_jitter) if self.color_jitter else None,
            alphas=color.draw_pca_alphas(rng, self.pca_noise) if self.pca_noise else None,
            operations=draw_autoaugment(rng) if self.auto_augment else None,
            orders=color.draw_orders(rng) if self.gluoncv_jitter and self.color_jitter else None)

    def apply(self, image: np.ndarray, draws: TrainDraws, row: int) -> np.ndarray:
        image = self._crop(image, draws.crops, row)
        if draws.flips[row]:
            image = flip(image)
        if draws.operations is not None:
            image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
            image = autoaugment(image, self.auto_augment, draws.operations, row).astype(np.float32)
        if draws.orders is not None:
            image = color.gluoncv_jitter(image, draws.gains[row], draws.orders[row])
        elif draws.gains is not None:
            image = color.hsv_jitter(image, draws.gains[row])
        if draws.alphas is not None:
            image = color.pca_lighting(image, draws.alphas[row])
        return color.normalize(image, self.mean, self.std)

    def _crop(self, image: np.ndarray, draws: crop.CropDraws, row: int) -> np.ndarray:
        height, width = image.shape[:2]
        if self.padding is None:
            window = crop.crop_window(height, width, draws.areas[row], draws.aspects[row],
                                      draws.places[row])
            return crop.resize(window.cut(image), self.size, self.size, self.antialias)
        window = crop.pad_crop_window(height, width, self.size, self.padding, draws.places[row])
        return crop.pad_crop(image, window).astype(np.float32)


@dataclass(frozen=True)
class EvalTransform:
    """Section 2.1: resize the shorter edge to `resize`, crop the center size x size, normalize.

    Nothing is random. resize None keeps the image's size.
    """

    size: int = 224
    resize: int | None = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    antialias: bool = False
    crops = 1

    def draw(self, rng: SampleRng) -> None:
        return None

    def apply(self, image: np.ndarray, draws: None = None, row: int = 0) -> np.ndarray:
        image = self._resized(image)
        window = crop.center_window(*image.shape[:2], self.size)
        return color.normalize(window.cut(image).astype(np.float32), self.mean, self.std)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return crop.resize_short_edge(image, self.resize, self.antialias) if self.resize else image


@dataclass(frozen=True)
class TenCropTransform(EvalTransform):
    """AlexNet's ten crops instead of the center's: the four corners, the center, and then their
    mirror images in the same order: (10, size, size, 3)."""

    crops = 10

    def apply(self, image: np.ndarray, draws: None = None, row: int = 0) -> np.ndarray:
        image = self._resized(image)
        windows = crop.five_windows(*image.shape[:2], self.size)
        image = color.normalize(image.astype(np.float32), self.mean, self.std)
        parts = [window.cut(image) for window in windows]
        return np.stack([*parts, *map(flip, parts)])
