"""gluon_tricks: image classifiers in MXNet Gluon with every trick of arXiv 1812.01187."""

from __future__ import annotations  # so that an older Python gets as far as our message

import sys
from importlib import metadata

__version__ = "0.1.0"


class WrongEnvironment(ImportError):
    """MXNet 1.9.1 cannot work with this version of Python or NumPy; the message is one line."""


def _problem(python: tuple[int, ...], numpy: str | None) -> str | None:
    """One line that says what is wrong with these versions and how to fix it; None if nothing is.

    MXNet 1.9.1 needs `distutils` (gone in Python 3.12) and `np.bool` (gone in NumPy 1.24).
    """
    if python[:2] != (3, 11):
        found = ".".join(map(str, python[:3]))
        return (f"gluon_tricks needs Python 3.11, this is {found}: "
                "make a new environment with `python3.11 -m venv .venv`")
    if numpy is None or tuple(int(part) for part in numpy.split(".")[:2]) >= (1, 24):
        found = "none is installed" if numpy is None else f"found {numpy}"
        return (f"gluon_tricks needs numpy below 1.24 for MXNet 1.9.1, {found}: "
                "run `pip install numpy==1.23.5`")
    return None


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _print_in_one_line(kind, error, trace) -> None:
    """An exception hook that prints a `WrongEnvironment` without its traceback."""
    if issubclass(kind, WrongEnvironment):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


_found = _problem(tuple(sys.version_info[:3]), _installed("numpy"))
if _found:
    sys.excepthook = _print_in_one_line
    raise WrongEnvironment(_found)

from gluon_tricks.machine import cuda  # noqa: E402, after the check: older Pythons cannot parse it

cuda.install()
