"""JPEGs for tests: by Pillow, by OpenCV, and in pure Python, with any coefficients and codes."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image


class Plane(NamedTuple):
    """A component: sampling factors, and its quantized coefficients in zigzag order."""

    h: int
    v: int
    blocks: np.ndarray  # (rows, columns, 64), whole MCUs


class Code:
    """A canonical Huffman code."""

    def __init__(self, symbols: list[int], lengths: list[int]):
        self.counts = [lengths.count(length) for length in range(1, 17)]
        self.symbols = symbols
        self.words, code, before = {}, 0, 0
        for symbol, length in zip(symbols, sorted(lengths), strict=True):
            code <<= length - before
            self.words[symbol] = f"{code:0{length}b}"
            code, before = code + 1, length

    def marker(self, kind_and_number: int) -> bytes:
        return marker(0xC4, bytes([kind_and_number, *self.counts, *self.symbols]))


def random_code(rng: np.random.Generator, symbols: list[int]) -> Code:
    """Lengths from 1 or 2 to 16 and any symbol at any of them; all ones is not a code."""
    leaves = [0]
    while len(leaves) <= len(symbols):
        at = -1 if rng.random() < 0.1 else int(rng.integers(len(leaves)))
        if leaves[at] < 16:
            leaves += [leaves.pop(at) + 1] * 2
    return Code(rng.permutation(symbols).tolist(), sorted(leaves)[:-1])


def marker(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _number(value: int) -> tuple[int, str]:
    """How many bits a value has, and those."""
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def _block(block: list[int], difference: int, dc: Code, ac: Code) -> str:
    size, bits = _number(difference)
    words, run = [dc.words[size], bits], 0
    for value in block[1:]:
        if value == 0:
            run += 1
            continue
        size, bits = _number(value)
        words += [ac.words[0xF0]] * (run // 16) + [ac.words[run % 16 << 4 | size], bits]
        run = 0
    return "".join(words) + (ac.words[0] if run else "")


def _segment(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _segments(planes: list[Plane], dc: Code, ac: Code, interval: int) -> list[bytes]:
    rows, columns = (planes[0].blocks.shape[axis] // planes[0][1 - axis] for axis in (0, 1))
    found, words, last = [], [], [0] * len(planes)
    for mcu in range(rows * columns):
        if interval and mcu and mcu % interval == 0:
            found.append(_segment("".join(words)))
            words, last = [], [0] * len(planes)
        row, column = divmod(mcu, columns)
        for number, (h, v, blocks) in enumerate(planes):
            for y in range(row * v, row * v + v):
                for x in range(column * h, column * h + h):
                    block = blocks[y, x].tolist()
                    words.append(_block(block, block[0] - last[number], dc, ac))
                    last[number] = block[0]
    return [*found, _segment("".join(words))]


def write(height: int, width: int, planes: list[Plane], steps: np.ndarray, dc: Code, ac: Code,
          interval: int = 0) -> bytes:
    """A JPEG of one gray component or three; steps (64,) in zigzag order, up to 65,535."""
    wide = int(steps.max() > 255)
    table = bytes([wide << 4]) + steps.astype(">u2" if wide else "u1").tobytes()
    frame = bytes([8, *height.to_bytes(2, "big"), *width.to_bytes(2, "big"), len(planes)])
    frame += b"".join(bytes([i, p.h << 4 | p.v, 0]) for i, p in enumerate(planes, 1))
    scan = bytes([len(planes)]) + b"".join(bytes([i, 0]) for i in range(1, len(planes) + 1))
    data = b"".join(segment + bytes([0xFF, 0xD0 + i % 8]) for i, segment
                    in enumerate(_segments(planes, dc, ac, interval)))[:-2]
    return b"".join([
        b"\xff\xd8", marker(0xDB, table), marker(0xC1, frame), dc.marker(0), ac.marker(0x10),
        marker(0xDD, interval.to_bytes(2, "big")) if interval else b"",
        marker(0xDA, scan + b"\0\x3f\0"), data, b"\xff\xd9"])


def scene(height, width, seed=0):
    """(height, width, 3) uint8: waves with noise, so that many coefficients are not 0."""
    rng = np.random.default_rng([seed, height, width])
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 7), np.cos(y / 5), np.sin((x + y) / 9)], axis=-1)
    return np.clip(128 + 90 * waves + rng.normal(0, 20, waves.shape), 0, 255).astype(np.uint8)


def by_pillow(image, mode=None, **options):
    """In the colors of `mode`, or the image's own."""
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def by_opencv(image, *flags):
    return cv2.imencode(".jpg", image[..., ::-1], flags)[1].tobytes()


def encode(image, kind, *, quality=90, interval=0, optimize=False):
    if kind == "grey":
        return by_pillow(image[..., 0], quality=quality, optimize=optimize)
    return cv2.imencode(".jpg", image[..., ::-1], [
        cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL, interval,
        cv2.IMWRITE_JPEG_OPTIMIZE, int(optimize), cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{kind}")])[1].tobytes()


def by_libjpeg(jpeg, shrink=1):
    """The planes of YCbCr, all of the image's size, or of gray: a list of (height, width)."""
    image = Image.open(io.BytesIO(jpeg))
    sides = tuple(side // shrink for side in image.size)
    image.draft("L" if image.mode == "L" else "YCbCr", sides if shrink > 1 else None)
    pixels = np.asarray(image)
    return [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, -1, 0))
