"""Encoded pictures to pixels."""

import cv2
import numpy as np


def decode(picture: bytes) -> np.ndarray:
    """A JPEG, PNG, ... to (height, width, 3) RGB uint8, turned upright by its EXIF.

    Grey becomes three equal channels. Raises ValueError where the bytes are no picture.
    """
    try:
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # no bytes at all, or sides beyond OpenCV's limit
        image = None
    if image is None:
        raise ValueError(f"its {len(picture)} bytes are no picture that OpenCV can decode")
    return image


def decode_whole(picture: bytes) -> np.ndarray:
    """As `decode`, but raises ValueError for a JPEG or PNG that stops before its end, too.

    Decoders fill what is missing of a JPEG with grey and go on; for a PNG they grumble on stderr.
    Other bytes may follow the end.
    """
    if picture[:2] == b"\xff\xd8" and picture.rfind(b"\xff\xd9") < picture.rfind(b"\xff\xda"):
        raise ValueError("its JPEG is cut short")
    if picture[:4] == b"\x89PNG" and b"IEND" not in picture:
        raise ValueError("its PNG is cut short")
    return decode(picture)
