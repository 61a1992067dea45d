"""Files that appear complete or not at all, and checksums of files."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A file next to `path` to write to, renamed to `path` when the block ends without an error.

    Until then an existing file stays as it is. With `sync`, the content is on the disk before the
    rename. Raises OSError if it cannot be written; what was written is deleted after any error.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        if sync:
            with open(part, "rb") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a text file atomically."""
    with atomic(path, sync=sync) as part:
        part.write_text(text)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
