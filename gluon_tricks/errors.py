"""The errors a user can fix, and the commands that install what is missing.

Every room may import this module; it imports nothing of ours.
"""

import signal

INSTALL_PROJECT = "pip install --no-deps -e ."


def install_packages(device: str = "cpu", flags: str = "") -> str:
    """The command that remedies name to install this project's packages, at the clone's root.

    From docker/'s lock, without dependencies: with them pip puts opencv-python, which gluoncv asks
    for by name, over the headless build.
    """
    return f"pip install {flags}--no-deps --require-hashes -r docker/requirements-{device}.txt"


class InputError(ValueError):
    """Wrong input: a file, record, flag or setting the user can put right.

    The message is one line that names the thing, the reason and the remedy.
    Scripts print it and exit with code 2.
    """


class RunFault(RuntimeError):
    """A run that cannot go on, through no fault of its input (a loss that is not finite, say).

    The message is one line that says where the last good parameters are. Scripts exit with code 1.
    """


class Stopped(BaseException):
    """A run that a signal ended, and that is saved. Scripts exit with 128 + the signal's number.

    Not an Exception, so that no handler for faults swallows it. The message is one line that says
    how to go on.
    """

    def __init__(self, number: signal.Signals, message: str):
        super().__init__(message)
        self.number = number


class ReportedByAnotherRank(Exception):
    """Another rank says why: this one leaves with the same exit code, in silence."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code
