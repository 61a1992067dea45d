"""The errors a user can fix, and the commands that install what is missing.

Every room may import this module; it imports nothing of ours.
"""

import signal

INSTALL_PROJECT = "pip install --no-deps -e ."


def install_packages(device: str = "cpu", flags: str = "") -> str:
    """The command, quoted in remedies, that installs the project's packages from the clone's root.

    It uses docker/'s lock file and no dependencies: otherwise pip installs opencv-python, which
    gluoncv requires by name, over the headless build.
    """
    return f"pip install {flags}--no-deps --require-hashes -r docker/requirements-{device}.txt"


class InputError(ValueError):
    """Wrong input: a file, record, flag or setting that the user can fix.

    The message is one line that names the thing, the reason and the remedy.
    Scripts print it and exit with code 2.
    """


class RunFault(RuntimeError):
    """A run that cannot continue, through no fault of its input (a NaN loss, say).

    The message is one line that says where the last good parameters are. Scripts exit with code 1.
    """


class Stopped(BaseException):
    """A signal ended the run, which is saved. Scripts exit with 128 + the signal's number.

    Not an Exception, so that no handler for faults swallows it. The message is one line that says
    how to resume.
    """

    def __init__(self, number: signal.Signals, message: str):
        super().__init__(message)
        self.number = number


class ReportedByAnotherRank(Exception):
    """Another rank reports the error: this one exits with the same code and says nothing."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code
