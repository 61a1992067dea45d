"""Limits how far the host runs ahead of the device."""

from collections import deque

import mxnet as mx

AHEAD = 2  # batches queued on the device beyond the one it computes


class InFlight:
    """Waits for the device when it falls behind: MXNet's queue, and so its memory, is unbounded."""

    def __init__(self):
        self._results: deque[mx.nd.NDArray] = deque()

    def add(self, result: mx.nd.NDArray) -> None:
        """Add a batch's result, which the device may not have computed yet."""
        self._results.append(result)
        if len(self._results) > AHEAD:
            self._results.popleft().wait_to_read()
