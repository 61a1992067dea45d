"""A generated set of small JPEG pictures: ten classes told apart by shape and texture, not colour.

It stands in for ImageNet where none is at hand: real files, read and augmented as photographs are,
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
SIDES = (96, 160)  # the shortest and the longest side of a picture, in pixels
JPEG_QUALITY = 92
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # how bright the eye finds red, green and blue
TURN = 2 * np.pi

Array = np.ndarray
Rng = np.random.Generator

# --- The ten classes -----------------------------------------------------------------------------
# Each takes the coordinates x and y of every pixel, both (height, width) float32, already moved,
# turned and tilted, and gives a (height, width) bool mask: what is painted. A shape fills the unit
# circle. A pattern covers the whole plane, a few periods a unit, so that a small crop shows it too.


def _circle(x: Array, y: Array, rng: Rng) -> Array:
    return np.hypot(x, y) < 0.9


def _triangle(x: Array, y: Array, rng: Rng) -> Array:
    return _sides_passed(x, y, 3, reach=0.55) == 3


def _star(x: Array, y: Array, rng: Rng) -> Array:
    return _sides_passed(x, y, 5, reach=0.34) >= 4  # each point lies beyond one side of a pentagon


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
    column = rng.uniform(1.1, 1.6) * x + 0.5 * (np.floor(row) % 2)  # every other row moved half on
    return (row % 1 > 0.22) & (column % 1 > 0.11)


def _sides_passed(x: Array, y: Array, count: int, reach: float) -> Array:
    """Of `count` straight lines, `reach` from the centre: how many have each point inside."""
    angles = TURN * np.arange(count) / count
    return sum((np.cos(a) * x + np.sin(a) * y < reach).astype(np.int8) for a in map(float, angles))


_DRAW = {  # sorted, as folders are: a class's label is the same however it is found
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

# --- One picture ---------------------------------------------------------------------------------
# Nothing below the mask knows the class: size, place, colours, light and noise cannot give it away.


def draw_picture(label: int, rng: Rng) -> Array:
    """A picture of class `label`, (height, width, 3) uint8 RGB, each side within `SIDES`."""
    height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, size=2))
    x, y = _plane(height, width, rng)
    mask = _DRAW[CLASSES[label]](x, y, rng)

    paint, ground = _colours(rng)
    picture = _surface(height, width, ground, rng)
    _clutter(picture, ground, rng)
    picture = np.where(mask[..., None], _surface(height, width, paint, rng), picture)
    return _photograph(picture, rng)


def _plane(height: int, width: int, rng: Rng) -> tuple[Array, Array]:
    """Coordinates x, y, each (height, width) float32: the object's own, its radius being 1."""
    short = min(height, width)
    radius = 0.5 * short * rng.uniform(0.7, 0.95)
    room = 0.5 * short - 0.8 * radius  # how far off the centre the object may lie
    row, column = np.mgrid[:height, :width].astype(np.float32)
    row -= height / 2 + room * rng.uniform(-1, 1)
    column -= width / 2 + room * rng.uniform(-1, 1)

    angle = rng.uniform(0, TURN)
    x = (np.cos(angle) * column + np.sin(angle) * row) / radius
    y = (np.cos(angle) * row - np.sin(angle) * column) / radius
    tilt_x, tilt_y = rng.uniform(-0.12, 0.12, size=2)
    depth = 1 + tilt_x * x + tilt_y * y  # seen a little from the side
    return (x / depth).astype(np.float32), (y / depth).astype(np.float32)


def _colours(rng: Rng) -> tuple[Array, Array]:
    """Two pairs of colours, (2, 3) float32 in 0..255 each: the object's and the background's.

    One pair is dark and one bright, by the toss of a coin, so the object always stands out.
    """
    dark = _colour_pair(rng, rng.uniform(30, 90))
    bright = _colour_pair(rng, rng.uniform(150, 220))
    return (dark, bright) if rng.random() < 0.5 else (bright, dark)


def _colour_pair(rng: Rng, brightness: float) -> Array:
    hues = rng.uniform(-90, 90, size=(2, 3)).astype(np.float32)
    hues -= (hues @ LUMA)[:, None]  # a colour's cast, which leaves its brightness alone
    return np.clip(brightness + rng.uniform(-15, 15, size=(2, 1)) + hues, 0, 255).astype(np.float32)


def _surface(height: int, width: int, colours: Array, rng: Rng) -> Array:
    """A surface that runs softly from one colour to the other, (height, width, 3) float32."""
    cells = rng.random((int(rng.integers(2, 6)), int(rng.integers(2, 6))), dtype=np.float32)
    blend = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return colours[0] + blend * (colours[1] - colours[0])


def _clutter(picture: Array, colours: Array, rng: Rng) -> None:
    """Draw a few lines and blobs, near the background's own colours, onto it in place."""
    height, width = picture.shape[:2]
    for _ in range(rng.integers(2, 7)):
        start, end = rng.integers(0, [width, height], size=(2, 2)).tolist()
        colour = (colours[rng.integers(2)] + rng.uniform(-30, 30)).tolist()
        if rng.random() < 0.5:
            cv2.line(picture, start, end, colour, int(rng.integers(1, 4)))
        else:
            axes = rng.integers(4, 20, size=2).tolist()
            cv2.ellipse(picture, start, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)


def _photograph(picture: Array, rng: Rng) -> Array:
    """What a camera adds: soft edges, light that falls off, grain. Float32 in, uint8 out."""
    height, width = picture.shape[:2]
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 1.1))

    row = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - rng.uniform(-0.5, 0.5)
    column = np.linspace(-1, 1, width, dtype=np.float32) - rng.uniform(-0.5, 0.5)
    light = rng.uniform(0.9, 1.15) - rng.uniform(0.05, 0.2) * (row**2 + column**2)
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * rng.uniform(2, 8)
    return np.clip(picture * light[..., None] + grain, 0, 255).astype(np.uint8)


# --- The whole set -------------------------------------------------------------------------------


def make_demo(
    out: Path,
    *,
    seed: int = 0,
    train: int = 2000,
    val: int = 500,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Write `train` and `val` pictures, as many of each class, to OUT/<split>/<class>/NNNN.jpg.

    The files depend on `seed` alone, not on `workers`. OUT appears whole or not at all.
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
                done = pool.map(lambda job: _write_picture(*job), jobs)
                for _ in tqdm(done, total=len(jobs), unit="picture", disable=None):
                    pass
            except BaseException:  # Ctrl-C too: drop the pictures not yet begun
                pool.shutdown(cancel_futures=True)
                raise
        os.rename(part, out)


def _check(out: Path, seed: int, train: int, val: int, workers: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; remove it or name another")
    if seed < 0:
        raise InputError(f"--seed {seed}: is negative; give 0 or more")
    for split, count in zip(SPLITS, (train, val), strict=True):
        if count <= 0 or count % len(CLASSES):
            raise InputError(
                f"--{split} {count}: is no positive multiple of {len(CLASSES)}, the number of"
                f" classes; try --{split} {max(1, round(count / len(CLASSES))) * len(CLASSES)}"
            )
    if workers < 1:
        raise InputError(f"workers {workers}: is less than 1; give 1 or more")


def _write_picture(folder: Path, seed: int, split: str, label: int, number: int) -> None:
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), label, number))
    picture = draw_picture(label, np.random.Generator(np.random.Philox(stream)))
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (folder / split / CLASSES[label] / f"{number:04d}.jpg").write_bytes(jpeg.tobytes())
