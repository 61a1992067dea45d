"""A file of lines that survives a full disk: what cannot be written waits, whole, in memory."""

import os
from pathlib import Path


class LineFile:
    """Appends lines. `length` is how many bytes are written: whole lines, unless some wait.

    `keep` bytes of a file that is there already are kept, the rest is cut off; 0: all of it is.
    """

    def __init__(self, path: Path, keep: int = 0):
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.length = min(keep, os.fstat(self._file).st_size)
        os.ftruncate(self._file, self.length)
        self._waiting = b""

    def write(self, line: str) -> OSError | None:
        """Append a line, after those that still wait; the error where they wait on."""
        self._waiting += f"{line}\n".encode()
        return self.flush()

    def flush(self) -> OSError | None:
        """Try again what waits."""
        try:
            while self._waiting:
                written = os.pwrite(self._file, self._waiting, self.length)
                self._waiting = self._waiting[written:]
                self.length += written
        except OSError as error:
            return error
        return None

    def sync(self) -> None:
        """All lines on the disk. Raises OSError where they are not."""
        error = self.flush()
        if error:
            raise error
        os.fsync(self._file)

    def close(self) -> None:
        self.flush()
        os.close(self._file)
