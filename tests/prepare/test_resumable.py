"""Preparing ImageNet, stopped at any moment, ends in the same bits as without a stop."""

import itertools
import os
import re
import shutil
import signal
import struct
from collections import namedtuple
from pathlib import Path

import imagenet_files as files
import pytest
from packing import names
from processes import python

from gluon_tricks.data import record
from gluon_tricks.errors import InputError
from gluon_tricks.prepare import imagenet, pack, resumable
from gluon_tricks.prepare.pack import Encoding

PASS = Encoding(pass_through=True)
DONE = {f"{name}.{end}" for name in ("train", "val")
        for end in ("rec", "idx", "lst", "classes.json", "prepared.json")}


@pytest.fixture(autouse=True)
def each_record_is_synced(monkeypatch):
    """And syncing takes no time; only power failures need it."""
    monkeypatch.setattr(resumable, "_SYNC_EVERY", 1)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    files.write_tars(folder)
    files.write_kit(folder)
    return folder


def prepare(source, out, encoding=PASS, **options):
    options = imagenet.Options(**{"any_counts": True, "workers": 1, **options})
    return imagenet.prepare(source, out, encoding, options, lambda results, *_: results,
                            lambda line: None)


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def whole(downloads, tmp_path_factory) -> dict[str, bytes]:
    """The files of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    prepare(downloads, out)
    assert set(names(out)) == DONE
    return contents(out)


def stepping(monkeypatch, step) -> None:
    """Call step() before everything that changes the files, or reads them at the end."""
    def before(function):
        def call(*arguments, **options):
            step()
            return function(*arguments, **options)
        return call

    for module, name in ((resumable.ResumableWriter, "write"), (resumable, "write_state"),
                         (record.os, "fsync"), (record.os, "replace"), (Path, "unlink"),
                         (record.RecordWriter, "_open_part"), (imagenet, "verify")):
        monkeypatch.setattr(module, name, before(getattr(module, name)))


def test_killed_at_every_step(downloads, whole, tmp_path, monkeypatch):
    """A kill leaves what is on the disk at that step: what is in buffers is lost."""
    monkeypatch.setattr(resumable, "_SYNC_EVERY", 4000)  # two or three images
    out, left = tmp_path / "out", []
    out.mkdir()

    def look():
        if contents(out) not in left:
            left.append(contents(out))

    with monkeypatch.context() as patched:
        stepping(patched, look)
        prepare(downloads, out)
    assert contents(out) == whole
    assert len(left) > 25
    for number, state in enumerate(left):
        folder = tmp_path / str(number)
        files.write_files(folder, state)
        folder.mkdir(exist_ok=True)
        prepare(downloads, folder)
        assert contents(folder) == whole, f"{number}: {sorted(state)}"


def test_interrupted_at_every_step(downloads, whole, tmp_path, monkeypatch):
    for stop in itertools.count():
        out, steps = tmp_path / str(stop), itertools.count()

        def step(steps=steps, stop=stop):
            if next(steps) == stop:
                raise KeyboardInterrupt

        try:
            with monkeypatch.context() as patched:
                stepping(patched, step)
                prepare(downloads, out)
            break
        except KeyboardInterrupt:
            prepare(downloads, out)
            assert contents(out) == whole, stop
    assert stop > 60


def test_what_is_done_is_not_done_again(downloads, whole, tmp_path, monkeypatch):
    """Stopped at the tenth image: nine are skipped, and at the end all that are packed."""
    encoded, original = [], pack.encode

    def encode(data, encoding):
        encoded.append(data)
        if len(encoded) == 10:
            raise KeyboardInterrupt
        return original(data, encoding)

    monkeypatch.setattr(pack, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        prepare(downloads, tmp_path / "out")
    kept = (tmp_path / "out" / "train.idx.part").read_text().splitlines()
    assert len(kept) == 9
    encoded[10:] = []
    source = shutil.copytree(downloads, tmp_path / "in")
    (source / files.VAL_TAR).write_bytes(files.tar_bytes(
        files.val_pictures() | {"ILSVRC2012_val_00000004.JPEG": b"no picture"}))
    with pytest.raises(InputError, match="val_00000004"):
        prepare(source, tmp_path / "out")
    train = files.train_pictures()
    assert len([data for data in encoded[10:] if data in train.values()]) == 15 - len(kept)
    before = os.stat(tmp_path / "out" / "train.rec")
    del encoded[10:]
    monkeypatch.setattr(imagenet, "verify", lambda prefix, verify=imagenet.verify, **options:
                        verify(prefix, **options) if prefix.name == "val" else
                        pytest.fail("the training set was verified again"))
    prepare(downloads, tmp_path / "out")
    assert not set(train.values()) & set(encoded[10:])
    assert os.stat(tmp_path / "out" / "train.rec") == before
    assert contents(tmp_path / "out") == whole


def stopped(downloads, out, encoding=PASS, after=8):
    """A run that ends when that many training images are packed."""
    with pytest.MonkeyPatch.context() as patched:
        count, original = itertools.count(), resumable.ResumableWriter.write

        def write(self, *arguments):
            if next(count) == after:
                raise KeyboardInterrupt
            original(self, *arguments)

        patched.setattr(resumable.ResumableWriter, "write", write)
        with pytest.raises(KeyboardInterrupt):
            prepare(downloads, out, encoding)
    assert len((out / "train.idx.part").read_text().splitlines()) == after
    return out


@pytest.mark.parametrize(("file", "change"), [
    ("rec", lambda data: data + b"\x0a\x23\xd7\xce half a record"),
    ("rec", lambda data: data[:-1]), ("rec", lambda data: data[:5000]), ("rec", lambda data: b""),
    ("idx", lambda data: data[:-1]), ("idx", lambda data: data[:-4]), ("idx", lambda data: b""),
    ("idx", lambda data: data + b"8\t99999999\n"), ("idx", lambda data: data + b"8\t0\n"),
], ids=["more", "cut", "half", "none", "no line end", "half a line", "no lines", "line too many",
        "line of another record"])
def test_ends_that_a_power_cut_may_leave(downloads, whole, tmp_path, file, change):
    part = stopped(downloads, tmp_path / "out") / f"train.{file}.part"
    part.write_bytes(change(part.read_bytes()))
    prepare(downloads, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("encoding", [Encoding(resize=16), Encoding(quality=50), Encoding(
    pass_through=True, seekable=True)], ids=["resize", "quality", "seekable"])
def test_every_encoding_resumes(downloads, tmp_path, encoding, request):
    if encoding.seekable:
        request.getfixturevalue("native_core")
    train, _ = prepare(downloads, tmp_path / "whole", encoding)
    kinds = [data[:2] for data in files.train_pictures().values()]
    assert not encoding.seekable or train.other >= kinds.count(b"\x89P") > 0
    again, _ = prepare(downloads, stopped(downloads, tmp_path / "out", encoding), encoding)
    assert (again.images, again.other) == (15, train.other)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("at", [4, 15, 16], ids=["length", "label", "key"])
def test_a_kept_record_that_is_another_is_refused(downloads, tmp_path, at):
    part = stopped(downloads, tmp_path / "out") / "train.rec.part"
    data = bytearray(part.read_bytes())
    data[at] ^= 8
    part.write_bytes(data)
    with pytest.raises(InputError, match=r"train\.rec.* damaged at byte 0: .*; remove ") as raised:
        prepare(downloads, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert part.read_bytes() == data


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(("encoding", "seed", "said"), [
    (Encoding(resize=16), 0, "--resize none, not 16"), (PASS, 1, "--seed 0, not 1"),
    (Encoding(quality=90), 0, "--quality none, not 90"),
    (Encoding(pass_through=True, seekable=True), 0, "--seekable False, not True"),
], ids=["resize", "seed", "quality", "seekable"])
def test_other_settings_are_refused(downloads, tmp_path, encoding, seed, said, finished):
    out = tmp_path / "out"
    if finished:
        prepare(downloads, out)
    else:
        stopped(downloads, out)
    (out / "train.members.tsv").unlink(missing_ok=True)  # is written again
    before = contents(out)
    with pytest.raises(InputError) as raised:
        prepare(downloads, out, encoding, seed=seed)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    after = contents(out)
    assert {name: after[name] for name in before} == before


def test_other_images_are_refused(downloads, tmp_path):
    stopped(downloads, tmp_path / "out")
    files.write_folders(tmp_path / "folders")
    (tmp_path / "folders" / "train" / "n00000007" / "n00000007_9.JPEG").unlink()
    with pytest.raises(InputError, match="started with other images"):
        prepare(tmp_path / "folders", tmp_path / "out")


def test_folders_resume_where_tars_stopped(downloads, whole, tmp_path):
    stopped(downloads, tmp_path / "out")
    files.write_folders(tmp_path / "folders")
    prepare(tmp_path / "folders", tmp_path / "out")
    for end in ("rec", "idx"):
        for name in ("train", "val"):
            assert (tmp_path / "out" / f"{name}.{end}").read_bytes() == whole[f"{name}.{end}"]


def test_an_image_fixed_after_it_was_skipped_is_refused(tmp_path):
    files.write_folders(tmp_path / "in")
    picture = tmp_path / "in" / "train" / "n00000007" / "n00000007_10.JPEG"
    data = picture.read_bytes()
    picture.write_bytes(b"")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pack, "classes_text", lambda names: "")
        patched.setattr(resumable.ResumableWriter, "_show", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(tmp_path / "in", tmp_path / "out", skip_damaged=True)
    picture.write_bytes(data)
    with pytest.raises(InputError, match=r"n00000007_10\.JPEG was damaged when .* is not any more"):
        prepare(tmp_path / "in", tmp_path / "out", skip_damaged=True)


@pytest.mark.parametrize("end", ["rec", "idx", "lst", "classes.json"])
def test_what_others_wrote_is_left_alone(downloads, tmp_path, end):
    (tmp_path / f"val.{end}").write_text("precious")
    with pytest.raises(InputError, match=f"val.{end} already exists"):
        prepare(downloads, tmp_path)
    assert (tmp_path / f"val.{end}").read_text() == "precious"
    assert not list(tmp_path.glob("train.rec*"))


def test_nothing_stays_where_nothing_was_packed(tmp_path):
    files.write_files(tmp_path / "in" / "n1", {"a.jpg": b""})
    with pytest.raises(InputError, match=r"a\.jpg"):
        pack.pack(pack.list_folder(tmp_path / "in"), tmp_path / "set", PASS, workers=1,
                  resumable={"--seed": 0})
    assert names(tmp_path) == ["in"]


def test_two_processes_cannot_resume_at_once(downloads, tmp_path):
    out = stopped(downloads, tmp_path / "out")
    settings = resumable.read_state(out / "train")["settings"]
    with (pytest.raises(KeyboardInterrupt),
          resumable.ResumableWriter(out / "train", settings) as writer):
        assert len(writer.kept) == 8
        before = contents(out)
        with pytest.raises(InputError, match="is being written by another process"):
            prepare(downloads, out)
        assert contents(out) == before
        raise KeyboardInterrupt


def test_another_process_does_not_clear_away_what_has_just_begun(tmp_path):
    with pytest.raises(KeyboardInterrupt), resumable.ResumableWriter(tmp_path / "a", {}):
        with (pytest.raises(InputError, match="is being written by another process"),
              resumable.ResumableWriter(tmp_path / "a", {})):
            pass
        assert names(tmp_path) == ["a.idx.part", "a.prepared.json", "a.rec.part"]
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_what_a_disk_would_not_take_does_not_appear(downloads, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(resumable, "_SYNC_EVERY", 10**9)
        original = resumable.ResumableWriter._sync

        def fail(self):
            original(self)
            raise OSError(5, "Input/output error")

        patched.setattr(resumable.ResumableWriter, "_sync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            prepare(downloads, tmp_path)
    assert names(tmp_path) == ["train.idx.part", "train.members.tsv", "train.prepared.json",
                               "train.rec.part", "val.members.tsv"]
    prepare(downloads, tmp_path)
    assert contents(tmp_path) == whole


def test_verifying_finds_what_changed_since(downloads, tmp_path):
    prepare(downloads, tmp_path, verify=False)
    data = bytearray((tmp_path / "train.rec").read_bytes())
    data[40:60] = bytes(20)
    (tmp_path / "train.rec").write_bytes(data)
    with pytest.raises(InputError, match=r"train\.rec has 1 damaged records, the first with key 0"):
        prepare(downloads, tmp_path)


def test_killed_by_sigkill(downloads, whole, tmp_path):
    """Twice, each time six records further; then once more, to the end."""
    code = f"""
        import os, signal
        from pathlib import Path
        from gluon_tricks.prepare import imagenet, resumable
        from gluon_tricks.prepare.pack import Encoding
        resumable._SYNC_EVERY, original, count = 1, resumable.ResumableWriter.write, [0]
        def write(self, *arguments):
            original(self, *arguments)
            count[0] += 1
            if count[0] == 6:
                os.kill(os.getpid(), signal.SIGKILL)
        resumable.ResumableWriter.write = write
        imagenet.prepare(Path({str(downloads)!r}), Path({str(tmp_path)!r}),
                         Encoding(pass_through=True), imagenet.Options(any_counts=True, workers=2),
                         lambda results, *_: results, print)
    """
    for kills in (1, 2):
        process = python(code)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert len((tmp_path / "train.idx.part").read_text().splitlines()) == 6 * kills
    prepare(downloads, tmp_path)
    assert contents(tmp_path) == whole


def test_what_is_packed_needs_no_room_again(downloads, tmp_path, monkeypatch):
    out, needed = stopped(downloads, tmp_path / "out"), []
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0))
    for folder in (tmp_path / "fresh", out):
        with pytest.raises(InputError, match=" needed, 0 bytes free") as raised:
            prepare(downloads, folder)
        needed.append(float(re.search(r"([0-9.]+) kB needed", str(raised.value))[1]) * 1e3)
    there = (out / "train.rec.part").stat().st_size
    assert there > 1000
    assert needed[0] - needed[1] == pytest.approx(there, abs=101)


def test_labels_other_than_the_images_are_found(downloads, tmp_path):
    prepare(downloads, tmp_path, verify=False)
    data = bytearray((tmp_path / "train.rec").read_bytes())
    label, = struct.unpack_from("<f", data, 12)
    struct.pack_into("<f", data, 12, (label + 1) % 3)
    (tmp_path / "train.rec").write_bytes(data)
    with pytest.raises(InputError, match=r"has labels that do not match its images: remove "):
        prepare(downloads, tmp_path)
