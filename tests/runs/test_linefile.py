"""Lines are in the file once and in order, whatever the disk does."""

import errno
import os

import pytest

from gluon_tricks.runs.linefile import LineFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines"


class Disk:
    """Has room for this many more bytes, and writes at most `piece` of them at once."""

    def __init__(self, room, piece=1 << 20):
        self.room, self.piece = room, piece
        self._pwrite = os.pwrite

    def __call__(self, descriptor, data, offset):
        size = min(len(data), self.room, self.piece)
        if not size:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= size
        return self._pwrite(descriptor, data[:size], offset)


@pytest.mark.parametrize("room", range(25))
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_a_full_disk_loses_no_line_and_doubles_none(path, monkeypatch, room, piece):
    lines = ["first", "zweite ä", "", "the fourth"]
    whole = "".join(f"{line}\n" for line in lines).encode()
    disk = Disk(room, piece)
    monkeypatch.setattr(os, "pwrite", disk)
    file = LineFile(path)
    errors = [file.write(line) for line in lines]
    assert errors[-1].errno == errno.ENOSPC
    assert path.read_bytes() == whole[:room]
    with pytest.raises(OSError, match="No space"):
        file.sync()
    disk.room = 1000
    assert file.write("fifth") is None
    file.sync()
    assert path.read_bytes() == whole + b"fifth\n"
    assert file.length == len(whole) + 6
    file.close()


def test_closing_tries_a_last_time(path, monkeypatch):
    disk = Disk(2)
    monkeypatch.setattr(os, "pwrite", disk)
    file = LineFile(path)
    assert file.write("abc") is not None
    disk.room = 9
    file.close()
    assert path.read_text() == "abc\n"


@pytest.mark.parametrize(("keep", "left"), [(0, ""), (4, "one\n"), (8, "one\ntwo\n"),
                                            (99, "one\ntwo\nhalf")])
def test_going_on_cuts_back(path, keep, left):
    path.write_text("one\ntwo\nhalf")
    file = LineFile(path, keep)
    assert file.length == len(left)
    file.write("new")
    file.close()
    assert path.read_text() == left + "new\n"


def test_length_is_where_to_cut(path):
    file = LineFile(path)
    file.write("ä")
    length = file.length
    file.write("lost")
    file.close()
    LineFile(path, length).close()
    assert path.read_text() == "ä\n"
