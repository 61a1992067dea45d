"""Access to the C++ decoder, if it was built: the only file that imports gluon_tricks._native."""

import functools
import hashlib
import importlib
from importlib import resources
from types import ModuleType

from gluon_tricks.errors import INSTALL_PROJECT, InputError

MODULE = "gluon_tricks._native.core"
INSTALL = f"apt-get install g++ libjpeg62-turbo-dev, then {INSTALL_PROJECT} again"


@functools.cache
def why_not() -> str | None:
    """Why the native decoder cannot be used, as half a sentence; None if it can.

    A build of other C++ sources than those next to it does not count: a rebuild may have failed
    and left the old one. Cached per process.
    """
    try:
        found = importlib.import_module(MODULE)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == MODULE:
            return f"it was not built: {INSTALL}"
        return f"it cannot be loaded ({error}): {INSTALL}"
    if getattr(found, "sources", None) != sources_hash():
        return f"it was built from other sources: {INSTALL}"
    return None


def sources_hash() -> str:
    """SHA-256, in hex, of the C++ files in name order; setup.py compiles it in."""
    files = sorted((file for file in resources.files("gluon_tricks._native").iterdir()
                    if file.name.endswith((".cpp", ".h"))), key=lambda file: file.name)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def core() -> ModuleType:
    """The extension module. Raises InputError, with the remedy, if it cannot be used."""
    reason = why_not()
    if reason:
        raise InputError(f"the native decoder is required, but {reason}")
    return importlib.import_module(MODULE)
