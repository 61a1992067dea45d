"""Runs code that may crash, hang or fail to load in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gluon_tricks.errors import InputError

SECONDS = 60  # for a package to load from a slow disk on a busy machine
_SPARE = 10  # extra seconds before a child that SIGALRM did not end is killed
_ROOT = Path(__file__).resolve().parents[2]
# Finds this package as the parent does, and continues if the package refuses a version: reporting
# that is up to the parent. -P keeps files in the current folder from shadowing packages.
_CODE = """
import importlib.util, sys
sys.path.append({root!r})
try:
    import gluon_tricks
except ImportError:
    sys.modules["gluon_tricks"] = importlib.util.module_from_spec(
        importlib.util.find_spec("gluon_tricks"))
from gluon_tricks.doctor import child
child.serve({module!r}, {function!r}, {arguments!r}, {descriptor}, {seconds})
"""


class Answer(NamedTuple):
    """What a child reported, and how it failed: part of a sentence, or None if it succeeded."""

    reports: list[dict[str, Any]]
    ended: str | None


class Child:
    """A child process that runs a function of `gluon_tricks.doctor`, for at most `seconds`.

    The function takes a callable that sends a report (as JSON) to the parent, then the arguments.
    """

    def __init__(self, module: str, function: str, *arguments: Any, seconds: int = SECONDS,
                 environment: Mapping[str, str] | None = None):
        # Anonymous files, not pipes: they need no reader and no writable disk.
        self._reports = os.memfd_create("reports")
        self._said = os.memfd_create("stderr")
        self._seconds = seconds
        code = _CODE.format(root=str(_ROOT), module=module, function=function, arguments=arguments,
                            descriptor=self._reports, seconds=seconds)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", code], pass_fds=(self._reports,),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said,
            env={**os.environ, **(environment or {})}, start_new_session=True)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        os.close(self._reports)
        os.close(self._said)

    def answer(self, seconds: int = 0) -> Answer:
        """Wait for the child to end, up to `seconds` longer than its limit."""
        try:
            status = self._process.wait(self._seconds + seconds + _SPARE)
        except subprocess.TimeoutExpired:
            status = -signal.SIGALRM
        self._kill()
        reports = []
        for line in _content(self._reports).splitlines():
            try:
                reports.append(json.loads(line))
            except ValueError:  # cut off by the child's end
                break
        said = _content(self._said).decode(errors="replace").strip().splitlines()
        return Answer(reports, how_it_ended(status, said[-1] if said else ""))

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # and all that it started
            self._process.wait()


def _content(descriptor: int) -> bytes:
    with open(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return file.read()


def how_it_ended(status: int, last: str) -> str | None:
    """What an exit status means, as part of a sentence; `last` is the last line of stderr."""
    if status == 0:
        return None
    if status == -signal.SIGALRM:
        return "took too long and was ended"
    if status == -signal.SIGILL:
        return "crashed: it uses an instruction that this processor lacks (SIGILL)"
    if status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    return last[:300] or f"ended with exit code {status}"


def serve(module: str, function: str, arguments: tuple, descriptor: int, seconds: int) -> None:
    """The child's side: run the function, and report what it raises as {"error", "remedy"}."""
    import importlib

    from gluon_tricks import cli

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)  # ends it even inside a library call

    def report(values: dict[str, Any]) -> None:
        os.write(descriptor, json.dumps(values).encode() + b"\n")

    work: Callable = getattr(importlib.import_module(f"gluon_tricks.doctor.{module}"), function)
    try:
        work(report, *arguments)
    except InputError as error:
        report({"error": str(error), "remedy": str(error)})
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[-1][:300]
        remedy = cli.import_remedy(error) if isinstance(error, ImportError | OSError) else None
        report({"error": f"{type(error).__name__}: {text}", "remedy": remedy or ""})
    os._exit(0)  # what a library does when Python shuts down does not count


def temporary_folder(folder: Path) -> tempfile.TemporaryDirectory:
    """A temporary folder in `folder`, for a child that may die before deleting it."""
    return tempfile.TemporaryDirectory(prefix=".gluon_tricks-doctor-", dir=folder,
                                       ignore_cleanup_errors=True)
