"""When the C++ decoder counts as available, and what is said if it does not."""

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gluon_tricks.data import native
from gluon_tricks.errors import InputError

SOURCES = Path(native.__file__).parents[1] / "_native"


@pytest.fixture
def extension(monkeypatch):
    """extension(found): importing the extension gives that module, or raises that error."""
    real = importlib.import_module

    def set_to(found):
        def import_module(name):
            if name != "gluon_tricks._native.core":
                return real(name)
            if isinstance(found, Exception):
                raise found
            return found
        monkeypatch.setattr(native.importlib, "import_module", import_module)
    native.why_not.cache_clear()
    yield set_to
    native.why_not.cache_clear()


def built_from(sources):
    module = ModuleType("gluon_tricks._native.core")
    module.sources = sources
    return module


def digest():
    hashed = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def test_a_build_from_these_sources_is_used(extension):
    module = built_from(digest())
    extension(module)
    assert native.why_not() is None
    assert native.core() is module


@pytest.mark.parametrize(("found", "reason"), [
    (ModuleNotFoundError("No module named 'x'", name="gluon_tricks._native.core"),
     "it was not built: "),
    (ModuleNotFoundError("No module named 'abc'", name="abc"),
     "it cannot be loaded (No module named 'abc'): "),
    (ImportError("libjpeg.so.62: cannot open shared object file",
                 name="gluon_tricks._native.core"),
     "it cannot be loaded (libjpeg.so.62: cannot open shared object file): "),
    (built_from("0" * 64), "it was built from other sources: "),
    (ModuleType("gluon_tricks._native.core"), "it was built from other sources: "),
], ids=["absent", "a module it needs absent", "a library absent", "stale", "older still"])
def test_why_it_cannot_be_used(extension, found, reason):
    extension(found)
    assert native.why_not() == reason + native.INSTALL
    with pytest.raises(InputError) as caught:
        native.core()
    message = str(caught.value)
    assert message == f"the native decoder is required, but {reason}{native.INSTALL}"
    assert "\n" not in message and "apt-get install g++ libjpeg62-turbo-dev" in message


def test_without_a_build_the_import_fails_as_expected(monkeypatch):
    """What Python really raises if there is no .so next to the sources."""
    monkeypatch.delitem(sys.modules, "gluon_tricks._native.core", raising=False)
    package = importlib.import_module("gluon_tricks._native")
    monkeypatch.setattr(package, "__path__", [])
    # An editable install finds a package's modules by itself.
    monkeypatch.setattr(sys, "meta_path",
                        [finder for finder in sys.meta_path if "ditable" not in repr(finder)])
    native.why_not.cache_clear()
    try:
        monkeypatch.setattr(native, "sources_hash", digest)
        assert native.why_not() == f"it was not built: {native.INSTALL}"
    finally:
        native.why_not.cache_clear()


def test_a_changed_source_makes_a_build_stale(extension, monkeypatch, tmp_path):
    for path in [*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "core.cpython-311-x86_64-linux-gnu.so").write_bytes(b"not a source")
    extension(built_from(digest()))
    monkeypatch.setattr(native.resources, "files", lambda package: tmp_path)
    assert native.why_not() is None
    with open(tmp_path / "module.cpp", "ab") as file:
        file.write(b"\n")
    native.why_not.cache_clear()
    assert native.why_not().startswith("it was built from other sources")
