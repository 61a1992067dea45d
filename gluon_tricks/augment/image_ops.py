"""The operations of AutoAugment (arXiv 1805.09501) on RGB uint8 (height, width, 3).

The paper used Pillow, so each operation is bit-identical to Pillow's.
"""

import math

import cv2
import numpy as np

FILL = 128, 128, 128  # pixels outside the image
_SMOOTH = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]])  # sums to 13
_SCALE = 1 << 16


def shear_x(image: np.ndarray, slope: float) -> np.ndarray:
    """Move each row to the left by slope times its distance from the top edge."""
    return _affine(image, (1, slope, 0), (0, 1, 0))


def shear_y(image: np.ndarray, slope: float) -> np.ndarray:
    """Move each column up by slope times its distance from the left edge."""
    return _affine(image, (1, 0, 0), (slope, 1, 0))


def translate_x(image: np.ndarray, pixels: int) -> np.ndarray:
    """Move to the left."""
    return _affine(image, (1, 0, pixels), (0, 1, 0))


def translate_y(image: np.ndarray, pixels: int) -> np.ndarray:
    """Move up."""
    return _affine(image, (1, 0, 0), (0, 1, pixels))


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate counterclockwise about the center."""
    height, width = image.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return _affine(image, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def _affine(image: np.ndarray, to_x: tuple[float, ...], to_y: tuple[float, ...]) -> np.ndarray:
    """Give point (x, y) the color of the pixel nearest to (a x + b y + c, d x + e y + f).

    to_x (a, b, c), to_y (d, e, f); pixel centers are at halves. For sides up to 16,000. Uses
    16 binary places, as Pillow does: they decide which way a point between two pixels falls.
    """
    height, width = image.shape[:2]
    columns, rows = np.arange(width), np.arange(height)[:, None]
    sources = np.empty((height, width, 2), np.int16)
    for axis, (a, b, c) in enumerate((to_x, to_y)):
        first = _fixed(c + a / 2 + b / 2)
        sources[..., axis] = (first + _fixed(a) * columns + _fixed(b) * rows) // _SCALE
    return cv2.remap(image, sources, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
                     borderValue=FILL)


def _fixed(value: float) -> int:
    return math.floor(value * _SCALE + 0.5)


def invert(image: np.ndarray) -> np.ndarray:
    """255 minus each value."""
    return 255 - image


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Invert the values from the threshold on."""
    return np.where(image < threshold, image, 255 - image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper `bits` bits of each value, 1 to 8."""
    return image & np.uint8(256 - (1 << 8 - bits))


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretch each channel to 0..255; a channel of a single value stays as it is."""
    tables = []
    for counts in _histograms(image):
        low, high = np.flatnonzero(counts)[[0, -1]].tolist()
        scale = 255 / max(high - low, 1)
        stretched = np.arange(256) * scale - low * scale
        tables.append(np.clip(stretched, 0, 255) if high > low else np.arange(256))
    return _look_up(image, tables)


def equalize(image: np.ndarray) -> np.ndarray:
    """Spread the values of each channel so that all are about equally frequent.

    A value becomes (pixels below it + step // 2) // step, where step is a 255th of the pixels
    that do not have the channel's greatest value. A channel with a step below 1 stays as it is.
    """
    tables = []
    for counts in _histograms(image):
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.cumsum(counts) - counts
        tables.append(np.minimum((below + step // 2) // step, 255) if step else np.arange(256))
    return _look_up(image, tables)


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the gray image: factor 0 is gray, 1 the image itself, above 1 exaggerates."""
    return _blend(_gray(image)[..., None], image, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the gray image's rounded mean (factor 0); 1 is the image itself."""
    mean = int(_gray(image).mean() + 0.5)
    return _look_up(image, [_blend(mean, np.arange(256), factor)])


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black (factor 0); 1 is the image itself."""
    return _look_up(image, [_blend(0, np.arange(256), factor)])


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with a smoothed image (factor 0); 1 is the image itself. The border stays as it is."""
    sums = cv2.filter2D(image, cv2.CV_32F, _SMOOTH, borderType=cv2.BORDER_REPLICATE)
    smooth = image.astype(np.int32)
    smooth[1:-1, 1:-1] = np.rint(sums[1:-1, 1:-1] / 13)
    return _blend(smooth, image, factor)


def _gray(image: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma, rounded: int32 (height, width)."""
    weighted = image.astype(np.int32) @ np.int32([19595, 38470, 7471])
    return (weighted + 0x8000) // _SCALE


def _blend(start: np.ndarray | int, image: np.ndarray, factor: float) -> np.ndarray:
    """start + factor (image - start), clipped and truncated, as Pillow does."""
    start = np.asarray(start, np.float32)
    mixed = start + np.float32(factor) * (image.astype(np.float32) - start)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _histograms(image: np.ndarray) -> list[np.ndarray]:
    """For each channel, how many pixels have each value: (256,) int64."""
    return [np.bincount(channel.ravel(), minlength=256) for channel in cv2.split(image)]


def _look_up(image: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Map each value by its channel's table (256,), or by the only one."""
    return cv2.LUT(image, np.stack(tables, axis=-1).astype(np.uint8)[None])
