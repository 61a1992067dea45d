"""Encoded pictures to pixels."""

import re

import cv2
import numpy as np

from gluon_tricks.augment.crop import MAX_PIXELS
from gluon_tricks.data.header import Header, read_header

# A JPEG's markers, but for restarts: 0xFF and 0 is a byte of data, 0xFFs may fill the space before.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_ALONE = 0x01, 0xD8  # markers without a segment


def decode(picture: bytes) -> np.ndarray:
    """A JPEG, PNG, BMP or WebP to (height, width, 3) RGB uint8, upright.

    - Upright by the EXIF of a JPEG, if it stands in the first APP1 segment, or PNG; a WebP's is not
      looked at. An EXIF that is damaged or says no orientation from 1 to 8 turns nothing.
    - Grey becomes three equal channels, a palette its colours, CMYK and YCCK RGB as if printed on
      white (both taken as inverted, as Adobe writes them).
    - Of 16 bits the upper 8 are kept. Alpha is dropped: what is transparent shows its colour.
    - Of an animation the first picture is decoded.

    Raises ValueError, saying why, where the bytes are no such picture, and, before any memory is
    taken, where its header says more than MAX_PIXELS pixels or a PNG's chunks lead to no end.
    """
    header = read_header(picture)
    check_size(header)
    if header.kind == "PNG":  # for a chunk's wrong length OpenCV takes as much memory
        check_whole(header, picture)
    try:
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # a side beyond OpenCV's limit
        image = None
    if image is None:
        raise ValueError(f"its {len(picture)} bytes are no picture that OpenCV can decode")
    return image


def decode_whole(picture: bytes) -> np.ndarray:
    """As `decode`, but raises ValueError for a picture that stops before its end, too.

    OpenCV fills what is missing of a JPEG with grey where other bytes stand in its place, and goes
    on; for a PNG it grumbles on stderr. Other bytes may follow the end.
    """
    check_whole(read_header(picture), picture)
    return decode(picture)


def check_size(header: Header) -> None:
    """Raises ValueError where a picture has more than MAX_PIXELS pixels."""
    if header.height * header.width > MAX_PIXELS:
        raise ValueError(f"its {header.width} x {header.height} pixels are more than the "
                         f"{MAX_PIXELS} that are decoded")


def check_whole(header: Header, picture: bytes) -> None:
    """Raises ValueError where a JPEG, PNG or WebP stops before its end. Other bytes may follow it.

    Every decoder refuses a BMP that is cut short.
    """
    if header.kind == "JPEG":
        whole = has_jpeg_end(picture)
    elif header.kind == "PNG":
        whole = has_png_end(picture)
    else:
        whole = header.kind != "WebP" or webp_length(picture) <= len(picture)
    if not whole:
        raise ValueError(f"its {header.kind} is cut short")


def has_jpeg_end(data: bytes) -> bool:
    """Whether a JPEG's markers, one behind the other, lead to its end of image.

    What follows it, a film or another picture, is not looked at.
    """
    at = 2
    while found := _MARKER.search(data, at):
        at, code = found.end(), data[found.end() - 1]
        if code == 0xD9:
            return True
        if code not in _ALONE:
            at += int.from_bytes(data[at:at + 2], "big")
    return False


def has_png_end(data: bytes) -> bool:
    """Whether the chunks of a PNG, one behind the other, lead to its end."""
    at = 8
    while at + 12 <= len(data):
        if data[at + 4:at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at:at + 4], "big")
    return False


def webp_length(head: bytes) -> int:
    """The bytes that a WebP has by its header."""
    return 8 + int.from_bytes(head[4:8], "little")
