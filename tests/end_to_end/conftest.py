"""What the tests of the scripts share."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLONED = ("gluon_tricks", "scripts", "docker", "docs", "setup.py", "pyproject.toml", "README.md")


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A fresh copy of what a clone has, with nothing built or installed; the tests that have the
    quickstart run in it share what it has made."""
    folder = tmp_path_factory.mktemp("fresh clone")
    for name in CLONED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name,
                            ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def im2rec(script):
    """Run im2rec.py, which must succeed, with no noise on stderr; returns what it printed."""
    def run(*arguments) -> str:
        done = script("im2rec", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout
    return run


@pytest.fixture(scope="session")
def horovod(in_ranks):
    """Skips without Horovod, except in CI, which must have it."""
