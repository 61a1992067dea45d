"""What the tests of the loaders share."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from gluon_tricks.data.record import RecordSet, RecordWriter


@pytest.fixture(params=["native", "opencv"])
def backend(request) -> str:
    """Each of RecordLoader's backends."""
    if request.param == "native":
        request.getfixturevalue("native_core")
    return request.param


@pytest.fixture(scope="session")
def blobs(jpeg):
    """blobs(key, height=None, width=None): a JPEG of soft blobs, 40 to 69 pixels per side."""
    def make(key: int, height: int | None = None, width: int | None = None) -> bytes:
        rng = np.random.default_rng(key)
        size = height or int(rng.integers(40, 70)), width or int(rng.integers(40, 70))
        return jpeg(cv2.resize(rng.integers(0, 256, (7, 7, 3), np.uint8), size[::-1]))
    return make


@pytest.fixture(scope="session")
def write_records():
    """write_records(prefix, pictures): a .rec with the keys 100 and up, labels 0 to 4 in turn."""
    def write(prefix: Path, pictures: list[bytes]) -> Path:
        with RecordWriter(prefix) as writer:
            for number, data in enumerate(pictures):
                writer.write(100 + number, number % 5, data)
        return prefix.with_suffix(".rec")
    return write


@pytest.fixture(scope="session")
def mixed_rec(tmp_path_factory, blobs, write_records) -> Path:
    """26 records; the sixth, thirteenth, ... are PNGs, which the native decoder leaves to OpenCV.
    """
    def picture(key: int) -> bytes:
        data = blobs(key)
        if key % 7 != 5:
            return data
        return cv2.imencode(".png", cv2.imdecode(np.frombuffer(data, np.uint8), 1))[1].tobytes()
    return write_records(tmp_path_factory.mktemp("mixed") / "a", [picture(k) for k in range(26)])


@pytest.fixture
def mixed(mixed_rec) -> RecordSet:
    """`mixed_rec`, opened."""
    with RecordSet(mixed_rec) as records:
        yield records


@pytest.fixture(scope="session")
def finishes():
    """finishes(function): whether a call returns; if not, the test fails and does not hang."""
    def run(function) -> bool:
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        thread.join(120)
        return not thread.is_alive()
    return run
