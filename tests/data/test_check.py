"""The quick check finds what cannot be decoded, and nothing else, without decoding it."""

import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from gluon_tricks.data import check
from gluon_tricks.data.check import quick_check
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.errors import RunFault

EOI = b"\xff\xd9"


def saved(image, kind="JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, kind, **options)
    return buffer.getvalue()


def noise(height=40, width=56):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def with_segment(data, body):
    """A JPEG with APP2 segments of those bytes."""
    parts = [body[at:at + 65000] for at in range(0, len(body), 65000)]
    segments = b"".join(b"\xff\xe2" + struct.pack(">H", len(part) + 2) + part for part in parts)
    return data[:2] + segments + data[2:]


def sized(data, height, width):
    """A JPEG or PNG whose header gives other sides."""
    if data.startswith(b"\x89PNG"):
        return data[:16] + struct.pack(">II", width, height) + data[24:]
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4:]


@pytest.fixture
def damages(tmp_path):
    """damages(images, workers=1): {index: reason} of a .rec of those images."""
    def run(pictures, workers=1):
        with RecordWriter(tmp_path / "set") as writer:
            for number, picture in enumerate(pictures):
                writer.write(100 + number, 0, picture)
        with RecordSet(tmp_path / "set.rec") as records:
            found = quick_check(records, workers)
            for index, damage in found:
                assert damage.key == records.keys[index] == 100 + index
                assert damage.offset == records.offsets[index]
        assert [index for index, _ in found] == sorted({index for index, _ in found})
        return {index: damage.reason for index, damage in found}
    return run


JPEG, BIG = saved(noise()), saved(noise(150, 150), quality=95)
PREVIEW = saved(noise(20, 20))
MAGIC = struct.pack("<I", 0xCED7230A)
WHOLE = {
    "JPEG": JPEG, "larger JPEG": BIG, "progressive": saved(noise(150, 150), progressive=True),
    "grey": saved(noise()[..., 0]), "CMYK": saved(Image.fromarray(noise()).convert("CMYK")),
    "tiny": saved(noise(1, 1)),
    "long header": with_segment(BIG, bytes(5000)), "64 KB header": with_segment(BIG, bytes(65000)),
    "huge header": with_segment(BIG, bytes(1_500_000)),
    "preview": with_segment(BIG, PREVIEW), "long preview": with_segment(BIG, BIG),
    "a byte behind": BIG + b"\n", "zeros behind": BIG + bytes(5000), "text": JPEG + b"note" * 99,
    "another behind": BIG + PREVIEW,
    "magic number inside": with_segment(BIG, MAGIC * 3 + bytes(1)) + bytes(3),
    "PNG": saved(noise(), "PNG"), "larger PNG": saved(noise(150, 150), "PNG"),
    "PNG and more": saved(noise(150, 150), "PNG") + bytes(999),
    "BMP": saved(noise(), "BMP"), "WebP": saved(noise(), "WEBP"),
    "lossless WebP": saved(noise(150, 150), "WEBP", lossless=True),
    "animated WebP": saved(Image.fromarray(noise()), "WEBP", save_all=True,
                           append_images=[Image.fromarray(255 - noise())]),
    "at the limit": sized(JPEG, 1 << 12, 1 << 15),
}
DAMAGED = {
    "no bytes": (b"", "its image is empty (0 bytes)"),
    "text": (b"not a picture\n" * 9, "not a JPEG, PNG"), "zeros": (bytes(9000), "WebP"),
    "GIF": (saved(noise(), "GIF"), "not a JPEG, PNG, BMP or WebP"),
    "cut in the header": (JPEG[:200], "its JPEG is truncated in its header"),
    "cut in a long header": (with_segment(BIG, bytes(9000))[:8000], "truncated in its header"),
    "a length beyond the end": (JPEG[:4] + b"\xff\xff" + JPEG[6:], "truncated in its header"),
    "no end": (BIG[:-2], "its JPEG is truncated"), "half": (BIG[:len(BIG) // 2], "truncated"),
    "half, short": (JPEG[:len(JPEG) - 300], "truncated"),
    "only the preview's end": (with_segment(BIG, PREVIEW)[:-900], "its JPEG is truncated"),
    "end within zeros": (BIG[:-700] + bytes(700), "its JPEG is truncated"),
    "no frame": (JPEG.replace(b"\xff\xc0", b"\xff\xe9"), "no frame comes before its first scan"),
    "no picture": (JPEG[:2] + EOI, "it has no image"),
    "no rows": (sized(JPEG, 0, 56), "it says 56 x 0 pixels"),
    "no columns": (sized(JPEG, 40, 0), "it says 0 x 40 pixels"),
    "huge": (sized(JPEG, 65500, 65500), "its 65500 x 65500 pixels are more than the limit"),
    "just beyond": (sized(JPEG, 1 + (1 << 12), 1 << 15), "more than"),
    "huge PNG": (sized(saved(noise(), "PNG"), 1 << 30, 1 << 30), "more than"),
    "PNG, no end": (saved(noise(), "PNG")[:-12], "its PNG is truncated"),
    "larger PNG, no end": (saved(noise(150, 150), "PNG")[:-9], "its PNG is truncated"),
    "PNG, no rows": (sized(saved(noise(), "PNG"), 0, 4), "it says 4 x 0 pixels"),
    "BMP, cut": (saved(noise(), "BMP")[:-1], "not an image that OpenCV can decode"),
    "WebP, cut": (saved(noise(150, 150), "WEBP")[:-3], "its WebP is truncated"),
}


def test_what_is_whole_is_not_reported(damages):
    assert damages(WHOLE.values()) == {}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_reported_with_the_reason(damages, name):
    picture, reason = DAMAGED[name]
    found = damages([JPEG, picture, BIG])
    assert list(found) == [1]
    assert reason in found[1] and "\n" not in found[1]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_reports_come_in_order_from_any_number_of_threads(damages, monkeypatch, workers, chunk):
    monkeypatch.setattr(check, "_CHUNK", chunk)
    pictures = [picture for pair in zip(WHOLE.values(), DAMAGED.values(), strict=True)
                for picture in (pair[0], pair[1][0])]
    found = damages(pictures, workers)
    assert list(found) == list(range(1, len(pictures), 2))
    for index, (_, reason) in zip(found, DAMAGED.values(), strict=True):
        assert reason in found[index]


def test_whole_images_are_read_at_both_ends_only(damages, monkeypatch):
    read = []
    pread = os.pread

    def counted(file, length, offset):
        read.append(length)
        return pread(file, length, offset)

    monkeypatch.setattr(RecordSet, "read", None)
    monkeypatch.setattr(check, "decode", None)
    monkeypatch.setattr(os, "pread", counted)
    assert damages([BIG] * 10) == {}
    assert len(BIG) > 20_000
    assert sum(read) < 10 * 4500


def test_a_record_that_is_too_short_or_gone_since_the_set_was_opened(tmp_path):
    rec = tmp_path / "set.rec"
    with RecordWriter(tmp_path / "set") as writer:
        for key in range(3):
            writer.write(key, 0, BIG)
    with RecordSet(rec) as records:
        os.truncate(rec, int(records.offsets[2]) + 5000)
        (index, damage), = quick_check(records, 1)
        assert (index, damage.key) == (2, 2)
        assert "the file ends" in damage.reason
        os.truncate(rec, int(records.offsets[1]) + 4)
        assert [(index, damage.reason) for index, damage in quick_check(records, 1)] \
            == [(1, "the file ends here"), (2, "the file ends here")]


def test_records_with_their_label_behind_the_header(tmp_path):
    """flag 1: one more float precedes the image."""
    bodies = [struct.pack("<IfQQf", 1, 0, key, 0, 4) + data for key, data in
              enumerate([JPEG, BIG, BIG[:-2], b""])]
    offset, lines = 0, []
    with open(tmp_path / "set.rec", "wb") as file:
        for key, body in enumerate(bodies):
            lines.append(f"{key}\t{offset}\n")
            padded = body + bytes(-len(body) % 4)
            offset += file.write(MAGIC + struct.pack("<I", len(body)) + padded)
    (tmp_path / "set.idx").write_text("".join(lines))
    with RecordSet(tmp_path / "set.rec") as records:
        assert records.labels.tolist() == [4, 4, 4, 4]
        assert [(index, damage.reason) for index, damage in quick_check(records, 2)] == [
            (2, "its JPEG is truncated"), (3, "its image is empty (0 bytes)")]
        for index, data in enumerate([JPEG, BIG]):
            assert records.read_ends(index, 100, 10) == (len(data), data[:100], data[-10:])
            assert records.read_ends(index, 10 ** 6, 10) == (len(data), data, data[-10:])
            assert records.read_ends(index, 10 ** 6, 10 ** 6) == (len(data), data, data)


def test_both_ends_of_a_record_in_several_parts(tmp_path):
    data = JPEG + bytes(-(len(JPEG) + 24) % 4) + MAGIC + b"x" * 5000 + MAGIC + b"end"
    with RecordWriter(tmp_path / "set") as writer:
        writer.write(0, 0, data)
    with RecordSet(tmp_path / "set.rec") as records:
        assert (tmp_path / "set.rec").read_bytes()[4:8] != struct.pack("<I", len(data) + 24)
        assert records.read_ends(0, 64, 7) == (len(data), data[:64], data[-7:])


def test_a_disk_that_refuses_to_read_is_no_damage(tmp_path, monkeypatch):
    """A transient fault must not drop records from a whole run."""
    def read_ends(self, index, first, last):
        if index == 1:
            raise OSError(5, "Input/output error")
        return real(self, index, first, last)

    real = RecordSet.read_ends
    monkeypatch.setattr(RecordSet, "read_ends", read_ends)
    with RecordWriter(tmp_path / "a") as writer:
        for key in range(3):
            writer.write(100 + key, 0, saved(noise()))
    with RecordSet(tmp_path / "a.rec") as records, \
            pytest.raises(RunFault, match=r"key 101 at byte .*: Input/output error"):
        quick_check(records, 2)


@pytest.mark.parametrize("behind", [b"\xff\xda\1\2", bytes(90) + b"\xff\xda" + bytes(10)])
def test_a_jpeg_with_other_bytes_behind_it_is_whole(tmp_path, behind):
    with RecordWriter(tmp_path / "a") as writer:
        writer.write(0, 0, saved(noise()) + behind)
    with RecordSet(tmp_path / "a.rec") as records:
        assert quick_check(records, 1) == []
