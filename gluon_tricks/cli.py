"""What every script shares: one-line errors and exit codes. Imports no MXNet, so `--help` is quick.

Exit codes: 0 done, 2 wrong input, 130 Ctrl-C, 143 SIGTERM, 1 any other fault.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from gluon_tricks.errors import InputError, RunFault


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and reports an error in one line."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler for faults swallows it."""


def _terminate(signum, frame) -> NoReturn:
    raise Terminated


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and leave with the exit code that its ending calls for."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code, message = main() or 0, None
        sys.stdout.flush()  # a closed pipe shows here, not when Python shuts down
    except InputError as error:
        code, message = 2, str(error)
    except KeyboardInterrupt:
        code, message = 130, "stopped by Ctrl-C"
    except Terminated:
        code, message = 143, "stopped by SIGTERM"
    except BrokenPipeError:  # the reader of our output (`| head`) left; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, message = 1, None
    except (OSError, RunFault) as error:  # a full disk, a folder without write access
        code, message = 1, str(error)
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
