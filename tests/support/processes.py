"""Processes that tests start, and how they end."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import gluon_tricks

ROOT = Path(gluon_tricks.__file__).parent.parent


def python(code, **options):
    """A Python process that runs `code` and finds this package; `env` extends its environment."""
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("OMP_NUM_THREADS", "PYTHONUNBUFFERED")}
    environment |= {"PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment,
                            text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                                          **options})


def wait_for(*paths, seconds=30):
    """Wait until all of these files exist and are not empty."""
    end = time.monotonic() + seconds
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert time.monotonic() < end, f"not all there: {paths}"
        time.sleep(0.02)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, seconds=5):
    """Whether that process ends in time; a zombie counts as ended."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)
