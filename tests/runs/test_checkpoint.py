"""Checkpoints: complete or not there, checked before use; nothing in them is ever executed."""

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks import files
from gluon_tricks.errors import InputError
from gluon_tricks.runs import checkpoint
from gluon_tricks.runs.checkpoint import Checkpoint, newest, read, save

STATE = {"progress": {"epoch": 1, "seconds": 0.1 + 0.2}, "settings": {"model": "a", "lr": 1e-7},
         "logs": {"log.jsonl": 12}, "versions": {"mxnet": "1.9.1"}}
FILES = ["model.params", "optimizer.params", "average.params", "state.json"]


def content(seed=0, empty=()):
    rng = np.random.default_rng(seed)

    def array(dtype, *shape):
        bits = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
        return mx.nd.array(bits.view(dtype)[..., 0], dtype=dtype)
    arrays = {"model": {"conv.weight": array("float16", 4, 3, 3), "bn.beta": array("float32", 4)},
              "optimizer": {"conv.weight:0": array("float32", 4, 3, 3)},
              "average": {"conv.weight": array("float32", 4, 3, 3)}}
    return Checkpoint({name: {} if name in empty else arrays[name] for name in arrays}, STATE)


def bits(found):
    return {(name, key): (array.dtype, array.shape, array.asnumpy().tobytes())
            for name, arrays in found.arrays.items() for key, array in arrays.items()}


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def seal(path):
    """Write the SHA256SUMS that matches the files there, as `sha256sum *` would."""
    files = sorted(file for file in path.iterdir() if file.name != "SHA256SUMS")
    (path / "SHA256SUMS").write_text("".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files))


def refusal(path):
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.fixture
def saved(tmp_path):
    """A checkpoint's folder."""
    return save(tmp_path, content(), keep=2)


@pytest.mark.parametrize("empty", [(), ("optimizer",), ("optimizer", "average")])
def test_every_bit_comes_back(tmp_path, empty):
    """Including the bits of NaNs."""
    wanted = content(empty=empty)
    path = save(tmp_path, wanted, keep=2)
    found = read(path)
    assert path == found.path == tmp_path / "checkpoints" / "000001"
    assert bits(found) == bits(wanted)
    assert found.state == {"format": 2, **STATE}
    assert sorted(file.name for file in path.iterdir()) == sorted(
        ["SHA256SUMS", "state.json", *(f"{name}.params" for name in wanted.arrays
                                       if name not in empty)])


def test_sha256sum_agrees(saved):
    sums = dict(line.split("  ")[::-1] for line in (saved / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((saved / name).read_bytes()).hexdigest()
                    for name in FILES}


def test_the_newest_are_kept(tmp_path):
    for number in range(1, 5):
        save(tmp_path, content(number), keep=3)
    assert names(tmp_path) == ["000002", "000003", "000004"]
    save(tmp_path, content(5), keep=1)
    assert names(tmp_path) == ["000005"]
    assert bits(newest(tmp_path)[0]) == bits(content(5))


def test_numbers_go_on_beyond_six_digits(tmp_path, saved):
    saved.rename(saved.with_name("999999"))
    assert save(tmp_path, content(1), keep=2).name == "1000000"
    assert bits(newest(tmp_path)[0]) == bits(content(1))


def test_newest_passes_over_a_damaged_one_and_says_why(tmp_path, saved):
    (save(tmp_path, content(1), keep=3) / "state.json").unlink()
    broken = save(tmp_path, content(2), keep=3)
    (broken / "model.params").write_bytes(b"\0")
    found, refused = newest(tmp_path)
    assert found.path == saved and bits(found) == bits(content())
    assert len(refused) == 2
    assert "000003/model.params is not what was saved" in refused[0]
    assert "000002/state.json is missing" in refused[1]


def test_no_checkpoint(tmp_path):
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "nowhere") == (None, [])


class Killed(BaseException):
    """Stands in for the end of the process: nothing runs after it."""


STEPS = [("write_arrays", 0), ("write_arrays", 1), ("write_arrays", 2), ("_write", 0),
         ("_write", 1), *(("_sync", count) for count in range(7)), ("_discard", 0)]


def interrupt(monkeypatch, step, count, error):
    """Raise `error` in place of call number `count` of a step of saving, half of it done."""
    original, calls = getattr(checkpoint, step), iter(range(1000))

    def fail(path, *rest):
        if next(calls) == count:
            if rest:
                path.write_bytes(b"half")
            raise error
        return original(path, *rest)
    monkeypatch.setattr(checkpoint, step, fail)


@pytest.mark.parametrize(("step", "count"), STEPS)
def test_a_kill_at_any_step_leaves_the_old_one_or_the_new_one(tmp_path, saved, monkeypatch, step,
                                                              count):
    with monkeypatch.context() as patched:
        interrupt(patched, step, count, Killed())
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill cleans up nothing
        with pytest.raises(Killed):
            save(tmp_path, content(1), keep=1)
    found, refused = newest(tmp_path)
    renamed = (step, count) in (("_sync", 6), ("_discard", 0))
    assert refused == []
    assert bits(found) == bits(content(1 if renamed else 0))
    assert saved.is_dir()
    save(tmp_path, content(2), keep=1)
    assert names(tmp_path) == ["000003" if renamed else "000002"]
    assert bits(newest(tmp_path)[0]) == bits(content(2))


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_at_a_rename(tmp_path, saved, monkeypatch, renames):
    """The first makes the new one, the second deletes the old one."""
    original, calls = os.replace, iter(range(2))

    def fail(source, target):
        if next(calls) == renames:
            raise Killed
        original(source, target)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "replace", fail)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        save(tmp_path, content(1), keep=1)
    assert bits(newest(tmp_path)[0]) == bits(content(renames))
    save(tmp_path, content(2), keep=1)
    assert names(tmp_path) == [f"{2 + renames:06d}"]


def test_a_kill_amid_the_deletion_of_an_old_one(tmp_path, saved, monkeypatch):
    def half(path, **_):
        (path / "state.json").unlink()
        raise Killed
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(shutil, "rmtree", half)
        save(tmp_path, content(1), keep=1)
    found, refused = newest(tmp_path)
    assert (bits(found), refused) == (bits(content(1)), [])
    assert len(names(tmp_path)) == 2
    save(tmp_path, content(2), keep=1)
    assert names(tmp_path) == ["000003"], "what was half deleted must not take space for ever"


@pytest.mark.parametrize(("step", "count"), [step for step in STEPS if step[0] != "_discard"])
def test_a_disk_that_refuses_leaves_the_old_one_and_nothing_else(tmp_path, saved, monkeypatch,
                                                                 step, count):
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        interrupt(patched, step, count, OSError(28, "No space left on device"))
        save(tmp_path, content(1), keep=2)
    assert bits(read(saved)) == bits(content())
    assert names(tmp_path) == (["000001", "000002"] if (step, count) == ("_sync", 6)
                               else ["000001"])
    save(tmp_path, content(2), keep=2)
    assert bits(newest(tmp_path)[0]) == bits(content(2))


def test_an_old_one_that_cannot_be_deleted_costs_no_new_one(tmp_path, saved, monkeypatch):
    original = os.replace

    def refuse(source, target):
        if Path(source) == saved:
            raise PermissionError(13, "Permission denied")
        original(source, target)
    monkeypatch.setattr(os, "replace", refuse)
    save(tmp_path, content(1), keep=1)
    assert bits(newest(tmp_path)[0]) == bits(content(1))
    assert bits(read(saved)) == bits(content())


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit(saved, name):
    data = (saved / name).read_bytes()
    for at in (0, len(data) // 2, len(data) - 1):
        (saved / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        assert f"{name} is not what was saved" in refusal(saved)


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
@pytest.mark.parametrize("put", [None, Path.mkdir, os.mkfifo])
def test_a_missing_file_or_something_else_in_its_place(saved, name, put):
    (saved / name).unlink()
    if put:
        put(saved / name)
    assert f"{name} is missing" in refusal(saved)


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path, saved, monkeypatch):
    """A bad sector, say."""
    bad = save(tmp_path, content(1), keep=2) / "model.params"

    def refuse(path, sha256=files.sha256):
        if path == bad:
            raise OSError(5, "Input/output error", str(path))
        return sha256(path)
    monkeypatch.setattr(files, "sha256", refuse)
    found, refused = newest(tmp_path)
    assert found.path == saved
    assert f"{bad} cannot be read (Input/output error)" in refused[0]


@pytest.mark.parametrize("name", ["model2.params", "note.txt", ".hidden"])
def test_a_file_that_is_not_listed(saved, name):
    (saved / name).write_bytes(b"x")
    assert "does not hold what its SHA256SUMS lists" in refusal(saved)


def sums_changed(saved, change):
    path = saved / "SHA256SUMS"
    path.write_bytes(change(path.read_bytes()))
    return refusal(saved)


@pytest.mark.parametrize("length", [0, 1, 40, 64, 66, 70, 150, -2])
def test_sums_cut_short(saved, length):
    sums_changed(saved, lambda data: data[:length])


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/model.params", "..", "", ".",
                                  "\0", "model.params  x", "SHA256SUMS"])
def test_sums_that_name_other_places(saved, name):
    """With the right checksum, if there is a file."""
    outside = saved.parent / "outside"
    outside.write_text("secret")
    file = outside if "\0" in name or not (saved / name).is_file() else saved / name
    line = f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n"
    message = sums_changed(saved, lambda data: data + line.encode())
    assert "SHA256SUMS" in message or f"{saved / name} is missing" in message


@pytest.mark.parametrize("data", [b"\xff\xfe\0", b"\0" * 200, b"no checksum\n", b"\n\n"])
def test_sums_that_are_none(saved, data):
    assert "SHA256SUMS" in sums_changed(saved, lambda _: data)


@pytest.mark.parametrize(("state", "reason"), [
    ("no JSON", "not JSON"), ("", "not JSON"), (b"\xff\xfe", "not JSON"), ("[" * 10**6, "not JSON"),
    ('{"a":' * 10**5, "not JSON"), ("9" * 10**4, "not JSON"), ("[]", "format None"),
    ("null", "format None"), ({}, "format None"), ({**STATE, "format": 3}, "format 3"),
    ({**STATE, "format": "1"}, "format 1"),
    *(({"format": 2, **STATE, part: wrong}, f"lacks {part}")
      for part in ("progress", "settings", "logs") for wrong in (None, [], "x")),
    *(({"format": 2, **STATE, "logs": {"log.jsonl": wrong}}, "lengths")
      for wrong in (-1, None, "3", 1.5, True, [2]))])
def test_a_state_with_the_right_checksum_that_is_none(saved, state, reason):
    data = state if isinstance(state, bytes) else (
        state if isinstance(state, str) else json.dumps(state)).encode()
    (saved / "state.json").write_bytes(data)
    seal(saved)
    message = refusal(saved)
    assert "state.json" in message and reason in message and len(message) < 400


# A state.json that version 0.1.0 wrote, but for its settings.
FORMAT_1 = {**STATE, "format": 1, "progress": {
    "epoch": 1, "step": 3, "trained": [12, 24.5, 3.75, 6.0], "seconds": 0.5, "waited": 0.25,
    "loss_scale": [65536.0, 0, 0], "bad_updates": 0, "best_epoch": 0,
    "best": [7, 1.5, 0.25, 0.75, 1, 5], "last": [7, 1.5, 0.25, 0.75, 1, 5]}}


def rewritten(saved, state):
    (saved / "state.json").write_text(json.dumps(state))
    seal(saved)


def test_a_state_of_format_1_is_read_as_one_of_format_2(saved):
    rewritten(saved, FORMAT_1)
    scores = {"count": 7, "loss": 1.5, "figures": {"top1": 0.25, "top5": 0.75}}
    want = {**FORMAT_1, "format": 2, "progress": {
        **FORMAT_1["progress"], "trained": {"count": 12, "loss": 24.5, "parts": {"top1": 3.75}},
        "best": scores, "last": scores}}
    assert read(saved).state == checkpoint.peek(saved).state == want
    assert bits(read(saved)) == bits(content())


def test_a_state_of_format_1_with_a_progress_that_is_none(saved):
    rewritten(saved, {**FORMAT_1, "progress": {**FORMAT_1["progress"], "trained": [1, 2.0]}})
    assert f"{saved / 'state.json'}: not progress of format 1" in refusal(saved)
    assert checkpoint.peek(saved) is None


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["model", "optimizer", "average"])
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("form", ["pickle", "npy", "npz"])
def test_a_pickle_is_refused_and_never_run(saved, tmp_path, name, sealed, form):
    marker, path = tmp_path / "executed", saved / f"{name}.params"
    payload = np.array([Payload(marker)], dtype=object)
    with open(path, "wb") as file:
        if form == "pickle":
            pickle.dump(Payload(marker), file)
        elif form == "npy":
            np.save(file, payload, allow_pickle=True)
        else:
            np.savez(file, payload)
    if sealed:
        seal(saved)
    assert f"{name}.params" in refusal(saved)
    assert not marker.exists()
    if form == "pickle":  # otherwise the trap would not prove anything
        pickle.loads(path.read_bytes())
        assert marker.exists()


@pytest.mark.parametrize("change", [
    lambda data: b"", lambda data: data[:30], lambda data: data[:-1], lambda data: data + b"\0",
    lambda data: data[:16] + b"\xff" * 7 + data[23:], lambda data: b"\0" * len(data)])
def test_arrays_cut_or_garbled_with_the_right_checksum(saved, change):
    path = saved / "model.params"
    path.write_bytes(change(path.read_bytes()))
    seal(saved)
    assert f"{path} is not a complete .params file" in refusal(saved)
