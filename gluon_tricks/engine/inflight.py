"""How far the host may run ahead of the device."""

from collections import deque

import mxnet as mx

AHEAD = 2  # batches handed to the device beyond the one it works on


class InFlight:
    """Waits for the device where it falls behind: MXNet's queue has no bound, so memory has none.
    """

    def __init__(self):
        self._results: deque[mx.nd.NDArray] = deque()

    def add(self, result: mx.nd.NDArray) -> None:
        """A batch's result, which the device may yet compute."""
        self._results.append(result)
        if len(self._results) > AHEAD:
            self._results.popleft().wait_to_read()
