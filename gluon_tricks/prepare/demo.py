"""Generates a set of small JPEG images: ten classes that differ in shape and texture, not color.

It replaces ImageNet when that is not available: real files, read and augmented like photographs,
which a small network learns from scratch in minutes.
"""

import itertools
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gluon_tricks.errors import InputError

SPLITS = ("train", "val")
SIDES = (96, 160)  # the shortest and the longest possible side of an image, in pixels
JPEG_QUALITY = 92
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # perceived brightness of red, green and blue
TURN = 2 * np.pi

Array = np.ndarray
Rng = np.random.Generator

# --- The ten classes -----------------------------------------------------------------------------
# Each takes the coordinates x and y of every pixel, both (height, width) float32, already shifted,
# rotated and tilted, and returns a (height, width) bool mask: what is painted. A shape fills the
# unit circle. A pattern covers the whole plane, a few periods per unit, so that a small crop shows
# it too.


def _circle(x: Array, y: Array, rng: Rng) -> Array:
    return np.hypot(x, y) < 0.9


def _triangle(x: Array, y: Array, rng: Rng) -> Array:
    return _sides_passed(x, y, 3, reach=0.55) == 3


def _star(x: Array, y: Array, rng: Rng) -> Array:
    return _sides_passed(x, y, 5, reach=0.34) >= 4  # each tip is beyond one side of a pentagon


def _rings(x: Array, y: Array, rng: Rng) -> Array:
    return np.cos(TURN * rng.uniform(2.2, 3.2) * np.hypot(x, y)) > 0


def _rays(x: Array, y: Array, rng: Rng) -> Array:
    return np.cos(int(rng.integers(7, 12)) * np.arctan2(y, x)) > 0


def _stripes(x: Array, y: Array, rng: Rng) -> Array:
    return np.cos(TURN * rng.uniform(2, 3.5) * x) > 0


def _waves(x: Array, y: Array, rng: Rng) -> Array:
    rate = rng.uniform(1.7, 2.5)
    return np.cos(TURN * rate * x + 2.8 * np.sin(TURN * 0.6 * rate * y)) > 0


def _checker(x: Array, y: Array, rng: Rng) -> Array:
    rate = rng.uniform(1.4, 2.2)
    return (rate * x % 1 > 0.5) ^ (rate * y % 1 > 0.5)


def _dots(x: Array, y: Array, rng: Rng) -> Array:
    rate = rng.uniform(1.4, 2.2)
    return np.hypot(rate * x % 1 - 0.5, rate * y % 1 - 0.5) < 0.27


def _bricks(x: Array, y: Array, rng: Rng) -> Array:
    row = rng.uniform(2.2, 3.2) * y
    column = rng.uniform(1.1, 1.6) * x + 0.5 * (np.floor(row) % 2)  # every other row shifted
    return (row % 1 > 0.22) & (column % 1 > 0.11)


def _sides_passed(x: Array, y: Array, count: int, reach: float) -> Array:
    """How many of `count` straight lines, `reach` from the center, have each point inside."""
    angles = TURN * np.arange(count) / count
    return sum((np.cos(a) * x + np.sin(a) * y < reach).astype(np.int8) for a in map(float, angles))


_DRAW = {  # sorted, as folders are, so that labels are the same either way
    "bricks": _bricks,
    "checker": _checker,
    "circle": _circle,
    "dots": _dots,
    "rays": _rays,
    "rings": _rings,
    "star": _star,
    "stripes": _stripes,
    "triangle": _triangle,
    "waves": _waves,
}
CLASSES: tuple[str, ...] = tuple(_DRAW)

# --- One image ---------------------------------------------------------------------------------
# Only the mask knows the class: size, position, colors, light and noise cannot give it away.


def draw_image(label: int, rng: Rng) -> Array:
    """Draw an image of class `label`: (height, width, 3) uint8 RGB, each side within `SIDES`."""
    height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, size=2))
    x, y = _plane(height, width, rng)
    mask = _DRAW[CLASSES[label]](x, y, rng)

    paint, ground = _colors(rng)
    image = _surface(height, width, ground, rng)
    _clutter(image, ground, rng)
    image = np.where(mask[..., None], _surface(height, width, paint, rng), image)
    return _photograph(image, rng)


def _plane(height: int, width: int, rng: Rng) -> tuple[Array, Array]:
    """Object coordinates x, y, each (height, width) float32; the object's radius is 1."""
    short = min(height, width)
    radius = 0.5 * short * rng.uniform(0.7, 0.95)
    room = 0.5 * short - 0.8 * radius  # how far off center the object may be
    row, column = np.mgrid[:height, :width].astype(np.float32)
    row -= height / 2 + room * rng.uniform(-1, 1)
    column -= width / 2 + room * rng.uniform(-1, 1)

    angle = rng.uniform(0, TURN)
    x = (np.cos(angle) * column + np.sin(angle) * row) / radius
    y = (np.cos(angle) * row - np.sin(angle) * column) / radius
    tilt_x, tilt_y = rng.uniform(-0.12, 0.12, size=2)
    depth = 1 + tilt_x * x + tilt_y * y  # seen slightly from the side
    return (x / depth).astype(np.float32), (y / depth).astype(np.float32)


def _colors(rng: Rng) -> tuple[Array, Array]:
    """Two pairs of colors, (2, 3) float32 in 0..255 each: the object's and the background's.

    One pair is dark and the other bright, at random, so that the object always stands out.
    """
    dark = _color_pair(rng, rng.uniform(30, 90))
    bright = _color_pair(rng, rng.uniform(150, 220))
    return (dark, bright) if rng.random() < 0.5 else (bright, dark)


def _color_pair(rng: Rng, brightness: float) -> Array:
    hues = rng.uniform(-90, 90, size=(2, 3)).astype(np.float32)
    hues -= (hues @ LUMA)[:, None]  # a color cast that does not change the brightness
    return np.clip(brightness + rng.uniform(-15, 15, size=(2, 1)) + hues, 0, 255).astype(np.float32)


def _surface(height: int, width: int, colors: Array, rng: Rng) -> Array:
    """A surface with soft transitions between two colors, (height, width, 3) float32."""
    cells = rng.random((int(rng.integers(2, 6)), int(rng.integers(2, 6))), dtype=np.float32)
    blend = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return colors[0] + blend * (colors[1] - colors[0])


def _clutter(image: Array, colors: Array, rng: Rng) -> None:
    """Draw a few lines and blobs in colors near the background's onto it, in place."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(2, 7)):
        start, end = rng.integers(0, [width, height], size=(2, 2)).tolist()
        color = (colors[rng.integers(2)] + rng.uniform(-30, 30)).tolist()
        if rng.random() < 0.5:
            cv2.line(image, start, end, color, int(rng.integers(1, 4)))
        else:
            axes = rng.integers(4, 20, size=2).tolist()
            cv2.ellipse(image, start, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)


def _photograph(image: Array, rng: Rng) -> Array:
    """Add what a camera does: soft edges, vignetting, grain. Float32 in, uint8 out."""
    height, width = image.shape[:2]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.1))

    row = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - rng.uniform(-0.5, 0.5)
    column = np.linspace(-1, 1, width, dtype=np.float32) - rng.uniform(-0.5, 0.5)
    light = rng.uniform(0.9, 1.15) - rng.uniform(0.05, 0.2) * (row**2 + column**2)
    grain = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(2, 8)
    return np.clip(image * light[..., None] + grain, 0, 255).astype(np.uint8)


# --- The data set --------------------------------------------------------------------------------


def make_demo(
    out: Path,
    *,
    seed: int = 0,
    train: int = 2000,
    val: int = 500,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Write `train` and `val` images, balanced over the classes, to OUT/<split>/<class>/NNNN.jpg.

    The files depend only on `seed`, not on `workers`. OUT appears complete or not at all.
    """
    out = Path(out).resolve()
    _check(out, seed, train, val, workers)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        part = Path(aside, "part")
        for split, name in itertools.product(SPLITS, CLASSES):
            (part / split / name).mkdir(parents=True)
        jobs = [
            (part, seed, split, label, number)
            for split, count in zip(SPLITS, (train, val), strict=True)
            for label in range(len(CLASSES))
            for number in range(count // len(CLASSES))
        ]
        with ThreadPoolExecutor(workers) as pool:
            try:
                done = pool.map(lambda job: _write_image(*job), jobs)
                for _ in tqdm(done, total=len(jobs), unit="image", disable=None):
                    pass
            except BaseException:  # Ctrl-C too: drop the images not yet started
                pool.shutdown(cancel_futures=True)
                raise
        os.rename(part, out)


def _check(out: Path, seed: int, train: int, val: int, workers: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: remove it or choose another")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or more")
    for split, count in zip(SPLITS, (train, val), strict=True):
        if count <= 0 or count % len(CLASSES):
            raise InputError(
                f"--{split} {count}: must be a positive multiple of {len(CLASSES)}, the number of"
                f" classes; try --{split} {max(1, round(count / len(CLASSES))) * len(CLASSES)}"
            )
    if workers < 1:
        raise InputError(f"workers {workers}: must be at least 1")


def _write_image(folder: Path, seed: int, split: str, label: int, number: int) -> None:
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), label, number))
    image = draw_image(label, np.random.Generator(np.random.Philox(stream)))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (folder / split / CLASSES[label] / f"{number:04d}.jpg").write_bytes(jpeg.tobytes())
