"""What the tests of the native decoder share."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def jpeg_format():
    """The functions of jpeg_format.py, which take a JPEG apart without the code under test."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("jpeg_format.py"))))
