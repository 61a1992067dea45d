"""Crops: the paper's random resized crop, CIFAR's crop of a padded image, the center crop.

Sizes and windows are in pixels; a window is (top, left, height, width).
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from gluon_tricks.augment.rng import SampleRng

ASPECT = 3 / 4, 4 / 3  # minimum and maximum width / height
MAX_PIXELS = 1 << 27  # of a decoded or resized image; no real training image comes near it
TRIES = 10  # then the largest centered crop of an allowed aspect


class Window(NamedTuple):
    """A rectangle in an image."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The window's pixels, as a view."""
        return image[self.top:self.top + self.height, self.left:self.left + self.width]


class CropDraws(NamedTuple):
    """Random numbers of random resized crops, drawn before the image sizes are known."""

    areas: np.ndarray  # (samples, TRIES), shares of the image's area
    aspects: np.ndarray  # (samples, TRIES), width / height
    places: np.ndarray  # (samples, 2), top and left as shares of the free space, in [0, 1)


def draw_crops(rng: SampleRng, area: tuple[float, float] = (0.08, 1.0),
               aspect: tuple[float, float] = ASPECT) -> CropDraws:
    """Draw area and position uniformly, aspect log-uniformly (arXiv 1812.01187, section 2.1)."""
    return CropDraws(rng.uniform(TRIES, *area),
                     np.exp(rng.uniform(TRIES, math.log(aspect[0]), math.log(aspect[1]))),
                     rng.uniform(2))


def crop_window(height: int, width: int, areas: np.ndarray, aspects: np.ndarray,
                places: np.ndarray, aspect: tuple[float, float] = ASPECT) -> Window:
    """The first drawn window that fits the image, else the largest centered one of allowed aspect.

    areas and aspects (TRIES,) are one sample's tries, places (2,) its (top, left) shares.
    """
    for share, ratio in zip(areas.tolist(), aspects.tolist(), strict=True):
        w = round(math.sqrt(share * height * width * ratio))
        h = round(math.sqrt(share * height * width / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Window(int(places[0] * (height - h + 1)), int(places[1] * (width - w + 1)), h, w)
    w = min(width, max(1, round(height * aspect[1])))
    h = min(height, max(1, round(width / aspect[0])))
    return Window((height - h) // 2, (width - w) // 2, h, w)


def pad_crop_window(height: int, width: int, size: int, padding: int,
                    places: np.ndarray) -> Window:
    """A size x size window anywhere in an image padded on all sides; top and left may be negative.

    This is the crop of the CIFAR recipes (padding 4). Raises ValueError if the padded image is
    smaller than the window.
    """
    room = height + 2 * padding - size, width + 2 * padding - size
    if min(room) < 0:
        raise ValueError(f"a {size}x{size} crop does not fit into a {width}x{height} image "
                         f"padded by {padding}: choose a smaller input size")
    top, left = (int(place * (space + 1)) - padding
                 for place, space in zip(places, room, strict=True))
    return Window(top, left, size, size)


def pad_crop(image: np.ndarray, window: Window) -> np.ndarray:
    """Cut a window that may extend beyond the image; pixels outside are 0."""
    height, width = image.shape[:2]
    out = np.zeros((window.height, window.width, *image.shape[2:]), image.dtype)
    top, left = max(window.top, 0), max(window.left, 0)
    bottom = max(min(window.top + window.height, height), top)
    right = max(min(window.left + window.width, width), left)
    out[top - window.top:bottom - window.top, left - window.left:right - window.left] = \
        image[top:bottom, left:right]
    return out


def resize(image: np.ndarray, height: int, width: int, antialias: bool = False) -> np.ndarray:
    """Resize bilinearly, in float32 so that nothing is rounded: (height, width, 3) float32.

    With `antialias`, when shrinking, the filter is as wide as the step between the new pixels.
    """
    image = image.astype(np.float32)
    if not antialias:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    channels = [Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR)
                for channel in np.moveaxis(image, -1, 0)]
    return np.stack(channels, axis=-1)


def resize_short_edge(image: np.ndarray, size: int, antialias: bool = False) -> np.ndarray:
    """Resize the shorter edge to `size`, keeping the aspect: float32.

    Raises ValueError, before allocating memory, if that makes more than MAX_PIXELS pixels.
    """
    height, width = image.shape[:2]
    scale = size / min(height, width)
    high, wide = max(size, round(height * scale)), max(size, round(width * scale))
    if high * wide > MAX_PIXELS:
        raise ValueError(f"its {width} x {height} pixels, resized to {wide} x {high}, would be "
                         f"more than {MAX_PIXELS}: it is too narrow")
    return resize(image, high, wide, antialias)


def five_windows(height: int, width: int, size: int) -> list[Window]:
    """The size x size windows in the corners (upper left, upper right, lower left, lower right),
    then in the center. Raises ValueError if the image is smaller."""
    center = center_window(height, width, size)
    return [Window(top, left, size, size) for top in (0, height - size)
            for left in (0, width - size)] + [center]


def center_window(height: int, width: int, size: int) -> Window:
    """The size x size window in the center. Raises ValueError if the image is smaller."""
    if size > min(height, width):
        raise ValueError(f"a {size}x{size} center crop does not fit into a {width}x{height} "
                         "image: choose a smaller input size")
    return Window((height - size) // 2, (width - size) // 2, size, size)
