"""Turns SIGINT and SIGTERM into requests, which the training loop checks between updates."""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable

from gluon_tricks.engine.inflight import AHEAD
from gluon_tricks.parallel.ranks import Ranks


class StopWanted(BaseException):
    """A signal arrived: abandon what can be redone, and save."""


class StopRequest:
    """Within its `with` block, notes the first SIGINT or SIGTERM; a second SIGINT exits at once.

    `signal` is the one that arrived, or None; with several ranks, the one that arrived at any of
    them, and it changes at the same `poll` on all. Leaving the block restores the handlers.
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
        """Tell the other ranks of a signal. All ranks must call it equally often; it takes effect a
        few calls later, so that no rank waits."""
        if self._ranks.size == 1 or self._agreed is not None:
            return
        self._asked.append(self._ranks.allreduce_async([
            self._noted == signal.SIGTERM, self._noted == signal.SIGINT]))
        if len(self._asked) > AHEAD:
            terminated, interrupted = self._asked.popleft()()
            self._agreed = signal.SIGTERM if terminated else \
                signal.SIGINT if interrupted else None

    def check(self) -> None:
        """Poll, and raise StopWanted if a signal arrived."""
        self.poll()
        if self.signal is not None:
            raise StopWanted

    def _note(self, number: int, frame) -> None:
        if self._noted is not None and number == signal.SIGINT:
            os._exit(130)  # without cleaning up: complete checkpoints stay complete
        self._noted = self._noted or signal.Signals(number)
        if not self._ranks.first:
            return
        said = f"\n{self._noted.name}: finishing this update and saving; Ctrl-C exits at once\n"
        with contextlib.suppress(OSError):  # not by print: it may be what the signal interrupts
            os.write(2, said.encode())
