"""What is done to a picture before a network sees it: the paper's two transforms, CIFAR's, and ten
crops of each picture.

A transform draws the random numbers of a whole batch first (`draw`), then turns one decoded
picture after the other (`apply`), so that the drawing costs little and workers share nothing.
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
    """size: side of the squares it gives. crops: how many it gives of a picture."""

    size: int
    crops: int

    def draw(self, rng: SampleRng) -> Any:
        """The random numbers of all the samples of `rng`."""

    def apply(self, image: np.ndarray, draws: Any, row: int) -> np.ndarray:
        """RGB uint8 (height, width, 3) to float32 (size, size, 3), by row `row` of the draws; to
        (crops, size, size, 3) where there are several.

        Raises ValueError where the picture does not allow it.
        """


class TrainDraws(NamedTuple):
    """A row a sample; None for what is switched off."""

    crops: crop.CropDraws
    flips: np.ndarray
    gains: np.ndarray | None
    alphas: np.ndarray | None
    operations: AutoAugmentDraws | None = None
    orders: np.ndarray | None = None  # of GluonCV's jitter


@dataclass(frozen=True)
class TrainTransform:
    """arXiv 1812.01187, section 2.1: crop, flip, HSV jitter, PCA noise, normalise.

    With `padding`, a size x size crop out of the padded picture takes the place of the random
    resized crop (the CIFAR recipes). 0 switches color_jitter and pca_noise off; `gluoncv_jitter`
    makes the first one GluonCV's. `antialias` widens the filter of a crop that shrinks, see
    augment/crop.py.

    With `auto_augment`, "imagenet", "cifar10" or "svhn", that policy of AutoAugment changes the
    crop, mirrored and rounded to uint8: after the baseline's augmentation, as its paper says, and
    as Google's ImageNet code has it (GluonCV augments the whole picture before it is cropped).
    Jitter and noise follow unless switched off. GluonCV keeps its own; Google's code has none, and
    the paper found that leaving out its distortions of colour changes nothing.
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
    """Section 2.1: the shorter edge to `resize`, the centre size x size, normalise; no randomness.

    resize None leaves the picture's size as it is.
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
    """AlexNet's ten crops in place of the centre: the four corners, the centre, and the mirror
    image of each in the same order: (10, size, size, 3)."""

    crops = 10

    def apply(self, image: np.ndarray, draws: None = None, row: int = 0) -> np.ndarray:
        image = self._resized(image)
        windows = crop.five_windows(*image.shape[:2], self.size)
        image = color.normalize(image.astype(np.float32), self.mean, self.std)
        parts = [window.cut(image) for window in windows]
        return np.stack([*parts, *map(flip, parts)])
