"""Decodes images to pixels."""

import re

import cv2
import numpy as np

from gluon_tricks.augment.crop import MAX_PIXELS
from gluon_tricks.data.header import Header, read_header

# A JPEG's markers, except restarts: 0xFF 0 is a byte of data, and markers may follow 0xFF fill.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_ALONE = 0x01, 0xD8  # markers without a segment


def decode(encoded: bytes) -> np.ndarray:
    """Decode a JPEG, PNG, BMP or WebP to (height, width, 3) RGB uint8, upright.

    - The image is turned upright by the EXIF of a PNG, or of a JPEG if it is in the first APP1
      segment; a WebP's is ignored. A damaged EXIF, or one without an orientation from 1 to 8, turns
      nothing.
    - Gray becomes three equal channels, a palette its colors, CMYK and YCCK RGB as if printed on
      white (both are taken to be inverted, as Adobe writes them).
    - The upper 8 of 16 bits are kept. Alpha is dropped: transparent pixels show their color.
    - The first image of an animation is decoded.

    Raises ValueError, saying why, if the bytes are not such an image, and, before allocating
    memory, if the header gives more than MAX_PIXELS pixels or a PNG's chunks do not reach its end.
    """
    header = read_header(encoded)
    check_size(header)
    if header.kind == "PNG":  # OpenCV allocates whatever length a chunk claims
        check_whole(header, encoded)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # a side beyond OpenCV's limit
        image = None
    if image is None:
        raise ValueError(f"its {len(encoded)} bytes are not an image that OpenCV can decode")
    return image


def decode_whole(encoded: bytes) -> np.ndarray:
    """Decode like `decode`, but also raise ValueError for a truncated image.

    When other bytes replace a part of a JPEG, OpenCV fills it with gray and continues; for a PNG it
    warns on stderr. Other bytes may follow the end.
    """
    check_whole(read_header(encoded), encoded)
    return decode(encoded)


def check_size(header: Header) -> None:
    """Raise ValueError if an image has more than MAX_PIXELS pixels."""
    if header.height * header.width > MAX_PIXELS:
        raise ValueError(f"its {header.width} x {header.height} pixels are more than the limit of "
                         f"{MAX_PIXELS}")


def check_whole(header: Header, encoded: bytes) -> None:
    """Raise ValueError if a JPEG, PNG or WebP is truncated. Other bytes may follow its end.

    Every decoder refuses a truncated BMP.
    """
    if header.kind == "JPEG":
        complete = has_jpeg_end(encoded)
    elif header.kind == "PNG":
        complete = has_png_end(encoded)
    else:
        complete = header.kind != "WebP" or webp_length(encoded) <= len(encoded)
    if not complete:
        raise ValueError(f"its {header.kind} is truncated")


def has_jpeg_end(data: bytes) -> bool:
    """Whether a JPEG's markers, followed one by one, lead to its end-of-image marker.

    What follows it, such as a video or another image, is ignored.
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
    """Whether a PNG's chunks, followed one by one, lead to its end."""
    at = 8
    while at + 12 <= len(data):
        if data[at + 4:at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at:at + 4], "big")
    return False


def webp_length(head: bytes) -> int:
    """The length of a WebP in bytes, according to its header."""
    return 8 + int.from_bytes(head[4:8], "little")
