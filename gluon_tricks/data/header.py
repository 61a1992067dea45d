"""An image's format and size, read from its first bytes without decoding."""

import struct
from collections.abc import Callable
from typing import NamedTuple


class Header(NamedTuple):
    """Format and size from the start of an image, as stored, before any rotation by EXIF."""

    kind: str  # "JPEG", "PNG", "BMP" or "WebP"
    height: int
    width: int


class ShortHeader(ValueError):
    """The bytes end before the header does."""


def image_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) as stored; None if `data` is not an image that `read_header` knows."""
    try:
        header = read_header(data)
    except ValueError:
        return None
    return header.height, header.width


def read_header(data: bytes) -> Header:
    """The header of a JPEG, PNG, BMP or WebP from its start, or from all of it.

    A JPEG's is read up to its first scan the way libjpeg does it, skipping bytes that belong to no
    segment. Both sides are 1 or more. Raises ValueError, saying why, for another format, a damaged
    header and a kind of JPEG that no decoder here takes; ShortHeader, a ValueError, if `data` ends
    within the header.
    """
    for signature, at, kind, read in _KINDS:
        if data.startswith(signature, at):
            try:
                height, width = read(data)
            except (struct.error, IndexError):  # it read beyond the last byte
                raise ShortHeader(f"its {kind} is truncated in its header") from None
            if height < 1 or width < 1:
                raise ValueError(f"its {kind} is damaged: it says {width} x {height} pixels")
            return Header(kind, height, width)
    raise ValueError(f"its {len(data)} bytes are not an image: not a JPEG, PNG, BMP or WebP")


_BARE = {0x00, 0x01, *range(0xD0, 0xD8)}  # no segment follows; 0 is not a marker, but skipped too
_SEGMENTS = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA}
_U16 = struct.Struct(">H").unpack_from
_FRAME = struct.Struct(">BHHB").unpack_from  # bits, height, width, components


def _jpeg(data: bytes) -> tuple[int, int]:
    at, size = 2, None
    while True:
        at = data.find(b"\xff", at)  # libjpeg, too, skips bytes between segments
        if at < 0:
            raise IndexError
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        at += 2
        if marker in _SEGMENTS:
            at += _U16(data, at)[0]
        elif marker in _FRAMES:
            bits, height, width, components = _FRAME(data, at + 2)
            if size or bits != 8 or components not in (1, 3, 4):
                raise ValueError("its JPEG is damaged: it has two frames" if size else
                                 f"its JPEG has {components} components of {bits} bits; 1, 3 or 4 "
                                 "of 8 bits can be decoded")
            size = height, width
            at += _U16(data, at)[0]
        elif marker == 0xDA:
            if not size:
                raise ValueError("its JPEG is damaged: no frame comes before its first scan")
            return size
        elif marker == 0xD9:
            raise ValueError("its JPEG ends before its first scan: it has no image")
        elif marker not in _BARE:
            raise ValueError(f"its JPEG is damaged, or of a kind that cannot be decoded: it has "
                             f"the marker 0x{marker:02X} in its header")


def _png(data: bytes) -> tuple[int, int]:
    length, name, width, height = struct.unpack_from(">I4sII", data, 8)
    if length != 13 or name != b"IHDR":
        raise ValueError("its PNG is damaged: it does not start with an IHDR chunk")
    return height, width


def _bmp(data: bytes) -> tuple[int, int]:
    size, = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return abs(height), width  # negative height: rows from top to bottom


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return (int.from_bytes(data[27:30], "little") + 1,
                struct.unpack_from("<IH", data, 24)[0] % (1 << 24) + 1)
    if kind == b"VP8L":
        bits, = struct.unpack_from("<I", data, 21)
        return (bits >> 14) % (1 << 14) + 1, bits % (1 << 14) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    if kind != b"VP8 ":
        raise ValueError("its WebP is damaged: it does not start with a VP8 chunk")
    return height % (1 << 14), width % (1 << 14)


_KINDS: tuple[tuple[bytes, int, str, Callable[[bytes], tuple[int, int]]], ...] = (
    (b"\xff\xd8\xff", 0, "JPEG", _jpeg), (b"\x89PNG\r\n\x1a\n", 0, "PNG", _png),
    (b"WEBP", 8, "WebP", _webp), (b"BM", 0, "BMP", _bmp))
