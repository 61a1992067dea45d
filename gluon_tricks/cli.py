"""What every script shares: one-line errors and exit codes. Imports no MXNet, so `--help` is quick.

Exit codes: 0 done, 2 wrong input, 130 Ctrl-C, 143 SIGTERM, 1 any other fault.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from gluon_tricks.errors import (
    InputError,
    ReportedByAnotherRank,
    RunFault,
    Stopped,
    install_packages,
)
from gluon_tricks.machine import cuda
from gluon_tricks.machine.processor import use_all_cores
from gluon_tricks.parallel import launch


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and reports an error in one line."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler for faults swallows it."""


def _terminate(signum, frame) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break the clean-up
    raise Terminated


def path(text: str) -> Path:
    """The type of a flag that is a path; expands `~`, which the shell does not in `--flag=~/x`."""
    return Path(text).expanduser()


def positive(text: str) -> int:
    """The type of a flag that counts something: 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def output(suffix: str) -> Callable[[str], Path]:
    """The type of a flag that names a file to write; checks that it can be before work begins."""
    def parse(text: str) -> Path:
        file = path(text)
        reason = (f"must end in {suffix}" if file.suffix.lower() != suffix else
                  f"there is no folder {file.parent}" if not file.parent.is_dir() else
                  "is a folder" if file.is_dir() else _why_not_writable(file))
        if reason:
            raise argparse.ArgumentTypeError(f"{text}: {reason}")
        return file
    return parse


def _why_not_writable(file: Path) -> str | None:
    """Why a file cannot be written; None if it can. Leaves nothing behind, even if several
    processes ask at once."""
    try:
        with open(file, "ab") if file.exists() else tempfile.TemporaryFile(dir=file.parent):
            return None
    except OSError as error:
        return f"cannot be written: {error.strerror}"


def import_remedy(error: ImportError | OSError) -> str | None:
    """What to do about a package that is missing or cannot be loaded; None if the project does not
    install it, or if the cause is not a missing library."""
    if isinstance(error, OSError):
        return _library_remedy(str(error))
    package = (error.name or "").partition(".")[0]
    if package not in ("mxnet", "gluoncv", "cv2"):
        return None
    here = opencv_packages()
    if error.name == "cv2" and (here or not isinstance(error, ModuleNotFoundError)):
        return (f"OpenCV cannot be loaded ({error}): replace it with the headless build, "
                f"{opencv_remedy(here)}")
    return f"{error}: install all that is needed, `{install_packages()}` (or -gpu.txt)"


def opencv_packages() -> dict[str, str]:
    """The version of each OpenCV package that pip lists: all of them own the same files."""
    found = {(distribution.metadata["Name"] or "").lower().replace("_", "-"): distribution.version
             for distribution in metadata.distributions()}
    return {name: found[name] for name in sorted(found) if name.startswith("opencv-")}


def opencv_remedy(here: Mapping[str, str]) -> str:
    """The command that leaves the headless build as the only OpenCV; `here`: what pip lists now.

    All of that is uninstalled first: pip skips what it lists as installed, and uninstalling one
    package deletes files that the others share.
    """
    try:
        wanted = metadata.requires("gluon_tricks") or []
    except metadata.PackageNotFoundError:
        wanted = []
    pins = [line.partition("==")[2] for line in wanted if line.startswith("opencv-python==")]
    pin = "".join(f"=={version}" for version in [*pins, *here.values()][:1])
    gone = f"pip uninstall -y {' '.join(sorted(here))} && " if here else ""
    return f"`{gone}pip install --no-deps opencv-python-headless{pin}`"


def _library_remedy(said: str) -> str | None:
    """What to do if the system's loader could not find a library, by its message in MXNet's import
    error; None for any other message."""
    found = re.match(r"(lib\S+\.so[.\d]*): cannot open shared object file", said)
    if found is None:
        return None
    if found[1] == "libcuda.so.1":
        return (f"MXNet's CUDA build needs NVIDIA's driver, which was not found ({said}): install "
                "it, start the container with --gpus all, or use the CPU build, `pip uninstall "
                f"-y {cuda.BUILD} && {install_packages()}`")
    if found[1] in cuda.LIBRARIES:
        return (f"MXNet's CUDA build needs CUDA's libraries, which were not found ({said}): "
                f"`{install_packages('gpu')}` installs them")
    package = {"libgomp.so.1": "libgomp1", "libquadmath.so.0": "libquadmath0"}.get(found[1])
    return f"{said}: " + (f"apt-get install {package}" if package else
                          f"install the system package that has {found[1]}")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit with the code that its outcome calls for.

    A rank that fails exits at once, without Python's and Horovod's shutdown: otherwise its peers
    would notice and could exit before it does, and the first to exit is reported as the cause.
    """
    signal.signal(signal.SIGTERM, _terminate)
    launch.adopt_launcher()
    use_all_cores()
    try:
        code, message = _ending(main)
    except Exception:
        if not launch.launched():
            raise
        traceback.print_exc()
        code, message = 1, None
    with contextlib.suppress(AttributeError, OSError):  # closed, or the terminal is gone
        if message:
            print(f"error: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    if code and launch.launched():
        os._exit(code)
    sys.exit(code)


def _ending(main: Callable[[], int | None]) -> tuple[int, str | None]:
    """Call `main`; the exit code and the message."""
    try:
        code = main() or 0
        if sys.stdout:  # None if a parent closed it
            sys.stdout.flush()  # so that a closed pipe is noticed here, not at Python's shutdown
        return code, None
    except ReportedByAnotherRank as error:
        return error.code, None
    except Stopped as stop:
        return 128 + stop.number, str(stop)
    except InputError as error:
        code, message = 2, str(error)
    except KeyboardInterrupt:
        code, message = 130, "stopped by Ctrl-C"
    except Terminated:
        code, message = 143, "stopped by SIGTERM"
    except BrokenPipeError:  # the reader of our output (`| head`) exited; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, message = 1, None
    except ImportError as error:
        code, message = 1, import_remedy(error)
        if message is None:
            raise
    except OSError as error:  # a full disk, a folder without write access; a missing library
        code, message = 1, import_remedy(error) or str(error)
    except RunFault as error:
        code, message = 1, str(error)
    return code, message
