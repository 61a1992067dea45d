"""SIGINT and SIGTERM as wishes that the training loop grants between two updates."""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable

from gluon_tricks.engine.inflight import AHEAD
from gluon_tricks.parallel.ranks import Ranks


class StopWanted(BaseException):
    """A signal came: leave what can be done again, and save."""


class StopRequest:
    """While it is entered, the first SIGINT or SIGTERM is noted, and a second SIGINT exits at once.

    `signal` is the one that came, or None; with several ranks, the one that came to any of them,
    from the same `poll` on everywhere. Leaving gives the handlers back.
    """

    def __init__(self, ranks: Ranks | None = None):
        self._ranks = ranks or Ranks()
        self._noted: signal.Signals | None = None
        self._agreed: signal.Signals | None = None
        self._asked: deque[Callable[[], list[float]]] = deque()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def signal(self) -> signal.Signals | None:
        return self._noted if self._ranks.size == 1 else self._agreed

    def poll(self) -> None:
        """Tell the other ranks of a signal. All call it as often; what they say is taken up a few
        calls later, so that nobody waits for it."""
        if self._ranks.size == 1 or self._agreed is not None:
            return
        self._asked.append(self._ranks.allreduce_async([
            self._noted == signal.SIGTERM, self._noted == signal.SIGINT]))
        if len(self._asked) > AHEAD:
            terminated, interrupted = self._asked.popleft()()
            self._agreed = signal.SIGTERM if terminated else \
                signal.SIGINT if interrupted else None

    def check(self) -> None:
        """Poll, and raise StopWanted where a signal came."""
        self.poll()
        if self.signal is not None:
            raise StopWanted

    def _note(self, number: int, frame) -> None:
        if self._noted is not None and number == signal.SIGINT:
            os._exit(130)  # without a word to threads and files: whole checkpoints stay whole
        self._noted = self._noted or signal.Signals(number)
        if not self._ranks.first:
            return
        said = f"\n{self._noted.name}: finishing this update and saving; Ctrl-C exits at once\n"
        with contextlib.suppress(OSError):  # not by print: it may be what the signal interrupts
            os.write(2, said.encode())
