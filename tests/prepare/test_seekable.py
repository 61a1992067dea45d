"""A packed set transcoded record by record, read back by MXNet and Pillow."""

import io
import os
import struct

import cv2
import numpy as np
import pytest
from packing import names, packed
from PIL import Image

from gluon_tricks.data import native
from gluon_tricks.data.record import RecordSet, RecordWriter, frame
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.prepare import seekable

CLASSES = '{"classes": ["a", "b", "c"]}'


def png(image) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def do(source, prefix, **options):
    return seekable.transcode_records(source, prefix, **{"workers": 2, **options})


def refused(*arguments, **options) -> str:
    with pytest.raises(InputError) as raised:
        do(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def source(tmp_path, jpeg):
    """A .rec of ten noise images, one of them a PNG, keys 70, 67, ..., with .lst and classes."""
    rng = np.random.default_rng(0)
    lines = []
    (tmp_path / "in").mkdir()
    with RecordWriter(tmp_path / "in" / "s") as writer:
        for i in range(10):
            image = rng.integers(0, 256, (20 + 7 * i, 90 - 8 * i, 3), np.uint8)
            writer.write(70 - 3 * i, i % 3, png(image) if i == 4 else jpeg(image))
            lines.append(f"{70 - 3 * i}\t{i % 3:f}\tn{i}.jpg\n")
        writer.attach(tmp_path / "in" / "s.lst", "".join(lines))
        writer.attach(tmp_path / "in" / "s.classes.json", CLASSES)
    return tmp_path / "in" / "s.rec"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def offsets(source) -> dict[int, int]:
    lines = (line.split() for line in source.with_suffix(".idx").read_text().splitlines())
    return {int(key): int(offset) for key, offset in lines}


def test_keys_labels_order_and_pixels_are_kept(source, out, native_core):
    before = {path.name: path.read_bytes() for path in source.parent.iterdir()}
    assert do(source, out / "t") == (10, 3, 1, [])
    assert {path.name: path.read_bytes() for path in source.parent.iterdir()} == before
    assert names(out) == ["t.classes.json", "t.idx", "t.lst", "t.rec"]
    old, new = packed(source.with_suffix("")), packed(out / "t")
    assert list(new) == list(old) == [70 - 3 * i for i in range(10)]
    for key, (label, data) in new.items():
        assert label == old[key][0]
        assert (pixels(data) == pixels(old[key][1])).all()
        assert (b"GLUONTRICKS\0" in data) == (key != 58)
    assert new[58] == old[58]
    assert (out / "t.lst").read_bytes() == before["s.lst"]
    assert (out / "t.classes.json").read_text() == CLASSES


def test_the_number_of_workers_changes_nothing_and_twice_is_once(source, out, native_core):
    for workers in (1, 4):
        do(source, out / str(workers), workers=workers)
    do(out / "1.rec", out / "again")
    for end in ("rec", "idx", "lst", "classes.json"):
        read = {(out / f"{name}.{end}").read_bytes() for name in ("1", "4", "again")}
        assert len(read) == 1


def test_the_order_is_the_idxs(source, out, native_core):
    lines = source.with_suffix(".idx").read_text().splitlines(keepends=True)
    source.with_suffix(".idx").write_text("".join(reversed(lines)))
    do(source, out / "t")
    assert list(packed(out / "t")) == [70 - 3 * i for i in reversed(range(10))]
    assert list(offsets(out / "t.rec").values()) == sorted(offsets(out / "t.rec").values())


def test_a_set_with_nothing_next_to_it(source, out, native_core):
    source.with_suffix(".lst").unlink()
    source.with_suffix(".classes.json").unlink()
    assert do(source, out / "t") == (10, 3, 1, [])
    assert names(out) == ["t.idx", "t.rec"]


def test_a_label_behind_the_header_is_kept(tmp_path, out, jpeg, native_core):
    """MXNet writes it there if it is given as an array."""
    picture = jpeg(np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "s.rec").write_bytes(frame(struct.pack("<IfQQf", 1, 0, 5, 0, 2) + picture))
    (tmp_path / "s.idx").write_text("5\t0\n")
    do(tmp_path / "s.rec", out / "t")
    assert packed(out / "t")[5][0] == 2


def test_a_damaged_record_is_refused_or_skipped(source, out, native_core):
    at = offsets(source)[61]
    with open(source, "r+b") as file:
        file.seek(at + 32)
        file.write(b"\xff\xd8 nothing")
    message = refused(source, out / "t")
    assert message.startswith(f"{source}, the record with key 61 at byte {at}: ")
    assert "--skip-damaged" in message
    assert names(out) == []
    done = do(source, out / "t", skip_damaged=True)
    assert (done.records, done.other) == (9, 1)
    assert [line.startswith(f"{source}, the record with key 61") for line in done.damaged] == [True]
    assert list(packed(out / "t")) == [70 - 3 * i for i in range(10) if i != 3]
    assert (out / "t.lst").read_text() == "".join(
        f"{70 - 3 * i}\t{i % 3:f}\tn{i}.jpg\n" for i in range(10) if i != 3)


def test_a_png_that_is_damaged_is_refused(source, out, native_core):
    with open(source, "r+b") as file:
        file.seek(offsets(source)[58] + 32 + 60)
        file.write(bytes(2000))
    assert "key 58" in refused(source, out / "t")


def test_nothing_but_damaged_records(tmp_path, out, native_core):
    with RecordWriter(tmp_path / "s") as writer:
        writer.write(0, 0, b"nothing")
    assert f"{tmp_path / 's'}.rec: all 1 records" in refused(
        tmp_path / "s.rec", out / "t", skip_damaged=True)
    assert names(out) == []


@pytest.mark.parametrize("end", ["rec", "idx", "lst", "classes.json"])
def test_existing_output_is_refused_and_untouched(source, out, native_core, end):
    (out / f"t.{end}").write_text("precious")
    assert f"t.{end} already exists" in refused(
        source, out / "t", progress=lambda results, total: pytest.fail("it began to work"))
    assert names(out) == [f"t.{end}"]
    assert (out / f"t.{end}").read_text() == "precious"


def test_the_source_itself_is_no_output(source, native_core):
    before = {path.name: path.read_bytes() for path in source.parent.iterdir()}
    assert "already exists" in refused(source, source.with_suffix(""))
    assert {path.name: path.read_bytes() for path in source.parent.iterdir()} == before


def test_sources_that_are_refused(source, out, native_core):
    assert "none.rec is missing" in refused(source.with_name("none.rec"), out / "t")
    source.with_suffix(".lst").write_bytes(b"70\t0\tcaf\xe9.jpg\n")
    assert f"next to {source} is not text" in refused(source, out / "t")
    source.with_suffix(".classes.json").write_text('{"classes": ["a"]}')
    assert "has the label 2" in refused(source, out / "t")
    os.truncate(source, source.stat().st_size - 100)
    assert f"{source} is truncated" in refused(source, out / "t")
    source.with_suffix(".idx").unlink()
    assert "--reindex" in refused(source, out / "t")
    assert names(out) == []


def test_without_the_native_decoder(source, out, monkeypatch):
    monkeypatch.setattr(native, "why_not", lambda: "it was not built: build it")
    message = refused(source, out / "t", skip_damaged=True,
                      progress=lambda results, total: pytest.fail("it began to work"))
    assert "it was not built: build it" in message
    assert names(out) == []


def test_the_progress_bar_is_told_how_many(source, out, native_core):
    seen = []

    def progress(results, total):
        for result in results:
            seen.append(total)
            yield result

    do(source, out / "t", progress=progress)
    assert seen == [10] * 10


def test_a_disk_that_refuses_to_read_is_no_damage(tmp_path, monkeypatch, native_core):
    def read(self, index):
        raise OSError(5, "Input/output error")

    with RecordWriter(tmp_path / "a") as writer:
        writer.write(100, 0, cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes())
    monkeypatch.setattr(RecordSet, "read", read)
    with pytest.raises(RunFault, match="key 100 at byte 0: Input/output error"):
        seekable.transcode_records(tmp_path / "a.rec", tmp_path / "b", workers=1,
                                   skip_damaged=True)
    assert names(tmp_path) == ["a.idx", "a.rec"]
