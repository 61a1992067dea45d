"""What the tests of im2rec.py share."""

import pytest


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
    """Skips without Horovod, but in CI, where it must be there."""
