"""A file of lines that survives a full disk: what cannot be written waits in memory."""

import os
from pathlib import Path


class LineFile:
    """Appends lines. `length` is the number of bytes written: complete lines, unless some wait.

    Of an existing file the first `keep` bytes are kept and the rest is cut off.
    """

    def __init__(self, path: Path, keep: int = 0):
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.length = min(keep, os.fstat(self._file).st_size)
        os.ftruncate(self._file, self.length)
        self._waiting = b""

    def write(self, line: str) -> OSError | None:
        """Append a line after those that still wait. Returns the error if they keep waiting."""
        self._waiting += f"{line}\n".encode()
        return self.flush()

    def flush(self) -> OSError | None:
        """Try again to write what waits. Returns the error if that fails."""
        try:
            while self._waiting:
                written = os.pwrite(self._file, self._waiting, self.length)
                self._waiting = self._waiting[written:]
                self.length += written
        except OSError as error:
            return error
        return None

    def sync(self) -> None:
        """Get all lines onto the disk. Raises OSError if that fails."""
        error = self.flush()
        if error:
            raise error
        os.fsync(self._file)

    def close(self) -> None:
        self.flush()
        os.close(self._file)
