"""SIGINT and SIGTERM as wishes that the training loop grants between two updates."""

import contextlib
import os
import signal


class StopWanted(BaseException):
    """A signal came: leave what can be done again, and save."""


class StopRequest:
    """While it is entered, the first SIGINT or SIGTERM is noted, and a second SIGINT exits at once.

    `signal` is the one that came, or None. Leaving gives the handlers back.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise StopWanted where a signal came."""
        if self.signal is not None:
            raise StopWanted

    def _note(self, number: int, frame) -> None:
        if self.signal is not None and number == signal.SIGINT:
            os._exit(130)  # without a word to threads and files: whole checkpoints stay whole
        self.signal = self.signal or signal.Signals(number)
        said = f"\n{self.signal.name}: finishing this update and saving; Ctrl-C exits at once\n"
        with contextlib.suppress(OSError):  # not by print: it may be what the signal interrupts
            os.write(2, said.encode())
