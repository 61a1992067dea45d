"""Every way to damage a .rec, found by key and byte offset; and the .idx rebuilt."""

import json
import os
import struct

import numpy as np
import pytest
from mxnet import recordio

from gluon_tricks.data.classes import write_classes
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.errors import InputError
from gluon_tricks.prepare.verify import reindex, verify

MAGIC = struct.pack("<I", 0xCED7230A)
FRAME, HEADER = 8, 24  # bytes before a record, and before its image
KEYS = [20, 3, 17, 0, 9, 11]


@pytest.fixture
def prefix(tmp_path, jpeg):
    """Six images, the last with magic numbers after its end; labels 0, 1, 2, 0, 1, 2."""
    rng = np.random.default_rng(0)
    with RecordWriter(tmp_path / "a") as writer:
        for number, key in enumerate(KEYS):
            data = jpeg(rng.integers(0, 256, (20 + number, 30, 3), np.uint8))
            if number == 5:
                data += b"\0" * (-len(data) % 4) + MAGIC + b"1234" + MAGIC + b"123"
            writer.write(key, number % 3, data)
    return tmp_path / "a"


def index(prefix):
    lines = (line.split() for line in open(f"{prefix}.idx").read().splitlines())
    return {int(key): int(offset) for key, offset in lines}


def change(prefix, offset, new: bytes):
    with open(f"{prefix}.rec", "r+b") as file:
        file.seek(offset)
        file.write(new)


def check(prefix, workers=2):
    return verify(prefix, workers=workers)


def damaged(prefix, *keys):
    """Check that verify finds exactly these records damaged; returns the reasons, in .idx order."""
    report, offsets = check(prefix), index(prefix)
    assert [(key, offset) for key, offset, _ in report.damaged] == \
        [(key, offsets[key]) for key in offsets if key in keys]
    assert report.records == len(offsets)
    assert not report.intact
    return [reason for *_, reason in report.damaged]


def refused(function, *arguments) -> str:
    with pytest.raises(InputError) as raised:
        function(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_good_set(prefix, workers):
    report = check(prefix, workers)
    assert (report.records, report.classes, report.labels) == (6, 3, (0, 2))
    assert report.damaged == []
    assert report.unlisted == 0
    assert report.intact


def test_classes_are_those_that_occur_and_labels_their_range(tmp_path, jpeg):
    with RecordWriter(tmp_path / "a") as writer:
        for key, label in enumerate((7, 3, 7, 999)):
            writer.write(key, label, jpeg(np.zeros((8, 8, 3), np.uint8)))
    report = check(tmp_path / "a")
    assert (report.classes, report.labels) == (3, (3, 999))


def test_a_set_that_mxnet_wrote(tmp_path, jpeg):
    file = recordio.MXIndexedRecordIO(str(tmp_path / "m.idx"), str(tmp_path / "m.rec"), "w")
    for key, label in ((4, 2.0), (5, [3.0])):
        header = recordio.IRHeader(0, label, key, 0)
        file.write_idx(key, recordio.pack(header, jpeg(np.zeros((8, 8, 3), np.uint8))))
    file.close()
    report = check(tmp_path / "m")
    assert report.intact
    assert report.labels == (2, 3)


@pytest.mark.parametrize("key", KEYS)
def test_an_image_that_does_not_decode(prefix, key):
    change(prefix, index(prefix)[key] + FRAME + HEADER, b"no jpeg at all")
    reason, = damaged(prefix, key)
    assert "not an image" in reason


def test_damaged_labels_are_not_counted(prefix):
    for key in (17, 11):
        change(prefix, index(prefix)[key] + FRAME + HEADER, bytes(20))
    report = check(prefix)
    assert (report.records, report.classes, report.labels) == (6, 2, (0, 1))


@pytest.mark.parametrize("key", KEYS)
def test_a_magic_number_written_over(prefix, key):
    change(prefix, index(prefix)[key], b"\0\0\0\0")
    reason, = damaged(prefix, key)
    assert "no record starts here" in reason


def test_two_damages_of_different_kinds(prefix):
    change(prefix, index(prefix)[3], b"XXXX")
    change(prefix, index(prefix)[9] + FRAME + HEADER, bytes(20))
    assert len(damaged(prefix, 3, 9)) == 2


def test_a_part_of_a_record_written_over(prefix):
    """The last record has three; the middle one loses its magic number."""
    data = open(f"{prefix}.rec", "rb").read()
    change(prefix, data.index(MAGIC, index(prefix)[11] + 4), b"\0\0\0\0")
    damaged(prefix, 11)


@pytest.mark.parametrize("kind", [2, 3, 4, 7])
def test_a_record_of_a_wrong_kind(prefix, kind):
    offset = index(prefix)[17]
    word, = struct.unpack("<I", open(f"{prefix}.rec", "rb").read()[offset + 4:offset + 8])
    change(prefix, offset + 4, struct.pack("<I", kind << 29 | word))
    damaged(prefix, 17)


def test_the_file_cut_at_every_place_in_its_last_record(prefix):
    data, offset = open(f"{prefix}.rec", "rb").read(), index(prefix)[11]
    for length in sorted({offset, *range(offset + 1, len(data), 37), len(data) - 1}):
        open(f"{prefix}.rec", "wb").write(data[:length])
        damaged(prefix, 11)


def test_the_file_cut_in_the_middle(prefix):
    os.truncate(f"{prefix}.rec", index(prefix)[17] + 100)
    damaged(prefix, 17, 0, 9, 11)


def test_a_file_cut_in_a_last_record_s_padding(tmp_path, jpeg):
    """MXNet's reader stops there with an error."""
    data = jpeg(np.zeros((8, 8, 3), np.uint8))
    with RecordWriter(tmp_path / "a") as writer:
        writer.write(0, 0, data)
        writer.write(1, 0, data + b"\0" * (-len(data) % 4 + 1))
    os.truncate(f"{tmp_path / 'a.rec'}", os.path.getsize(tmp_path / "a.rec") - 2)
    damaged(tmp_path / "a", 1)


@pytest.mark.parametrize("extra", [-1, 4, 1000])
def test_a_length_that_is_wrong(prefix, extra):
    """1000 more bytes overlap the next record, which still starts where its .idx says."""
    offset = index(prefix)[17]
    length, = struct.unpack("<I", open(f"{prefix}.rec", "rb").read()[offset + 4:offset + 8])
    change(prefix, offset + 4, struct.pack("<I", length + extra))
    damaged(prefix, 17)


def test_a_record_that_swallows_the_next_one(prefix):
    """Its bytes still start and end like a JPEG."""
    offsets = index(prefix)
    change(prefix, offsets[17] + 4, struct.pack("<I", offsets[9] - offsets[17] - FRAME))
    damaged(prefix, 17)


@pytest.mark.parametrize(("label", "said"), [
    (-1, "-1"), (0.5, "0.5"), (float("nan"), "nan"), (float("inf"), "inf"),
])
def test_a_label_that_is_no_class(prefix, label, said):
    change(prefix, index(prefix)[3] + FRAME + 4, struct.pack("<f", label))
    reason, = damaged(prefix, 3)
    assert said in reason


def test_several_labels(prefix):
    change(prefix, index(prefix)[3] + FRAME, struct.pack("<I", 2))
    reason, = damaged(prefix, 3)
    assert "2 labels" in reason


def test_a_label_beyond_the_named_classes(prefix):
    write_classes(f"{prefix}.classes.json", ["a", "b"])
    reasons = damaged(prefix, 17, 11)
    assert "label 2" in reasons[0]
    write_classes(f"{prefix}.classes.json", ["a", "b", "c", "d"])
    assert check(prefix).intact


def test_a_jpeg_cut_short_inside_a_whole_record(tmp_path, jpeg):
    data = jpeg(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    with RecordWriter(tmp_path / "a") as writer:
        for key, picture in enumerate((data, data[:-300], data)):
            writer.write(key, 0, picture)
    damaged(tmp_path / "a", 1)


@pytest.mark.parametrize("gone", [0, 2, 5])
def test_records_that_the_idx_leaves_out_are_told_in_bytes(prefix, gone):
    offsets = index(prefix)
    ends = [*list(offsets.values())[1:], os.path.getsize(f"{prefix}.rec")]
    del offsets[KEYS[gone]]
    open(f"{prefix}.idx", "w").writelines(f"{k}\t{v}\n" for k, v in offsets.items())
    report = check(prefix)
    assert report.damaged == []
    assert report.unlisted == ends[gone] - ([*ends][gone - 1] if gone else 0)
    assert not report.intact


def test_a_record_listed_twice_in_place_of_another_of_its_size(tmp_path, jpeg):
    with RecordWriter(tmp_path / "a") as writer:
        for key in range(3):
            writer.write(key, key, jpeg(np.zeros((8, 8, 3), np.uint8)))
    lines = open(tmp_path / "a.idx").read().splitlines()
    lines[1] = "1\t" + lines[0].split()[1]
    (tmp_path / "a.idx").write_text("\n".join(lines) + "\n")
    refused(RecordSet, tmp_path / "a.rec")
    assert not check(tmp_path / "a").intact


@pytest.mark.parametrize("offset", [-4, 1, 10**6, 2**63 - 1])
def test_offsets_that_lead_nowhere(prefix, offset):
    offsets = index(prefix)
    offsets[17] = offset
    open(f"{prefix}.idx", "w").writelines(f"{k}\t{v}\n" for k, v in offsets.items())
    damaged(prefix, 17)


def test_missing_and_wrong_files_are_named(prefix, tmp_path):
    assert f"{tmp_path / 'b'}.idx is missing" in refused(check, tmp_path / "b")
    os.rename(f"{prefix}.rec", tmp_path / "elsewhere")
    assert f"{prefix}.rec is missing" in refused(check, prefix)
    open(f"{prefix}.idx", "w").write("no index")
    assert f"{prefix}.idx is not a .idx" in refused(check, prefix)
    open(f"{prefix}.classes.json", "w").write("[")
    open(f"{prefix}.idx", "w").write("0\t0\n")
    assert f"{prefix}.classes.json" in refused(check, prefix)


def test_verify_changes_nothing(prefix):
    before = {end: open(f"{prefix}.{end}", "rb").read() for end in ("rec", "idx")}
    check(prefix)
    assert before == {end: open(f"{prefix}.{end}", "rb").read() for end in ("rec", "idx")}


def test_progress_sees_each_record_in_order(prefix):
    seen = []
    verify(prefix, workers=2, progress=lambda items: (seen.append(item) or item for item in items))
    assert [label for label, _ in seen] == [0, 1, 2, 0, 1, 2]


def test_reindex_rebuilds_the_very_idx(prefix):
    before = open(f"{prefix}.idx").read()
    os.remove(f"{prefix}.idx")
    assert reindex(prefix) == 6
    assert open(f"{prefix}.idx").read() == before
    assert sorted(os.listdir(prefix.parent)) == ["a.idx", "a.rec"]


def test_reindex_refuses_to_write_over(prefix):
    open(f"{prefix}.idx", "w").write("precious")
    assert f"{prefix}.idx already exists" in refused(reindex, prefix)
    assert open(f"{prefix}.idx").read() == "precious"


def test_reindex_of_a_damaged_rec_names_the_place_and_writes_nothing(prefix):
    offset = index(prefix)[9]
    change(prefix, offset, b"\0\0\0\0")
    os.remove(f"{prefix}.idx")
    assert f"{prefix}.rec is damaged at byte {offset}: " in refused(reindex, prefix)
    assert os.listdir(prefix.parent) == ["a.rec"]
    os.remove(f"{prefix}.rec")
    assert f"{prefix}.rec is missing" in refused(reindex, prefix)


def test_reindex_numbers_records_whose_ids_are_not_unique(tmp_path):
    """As other tools write them: all ids 0."""
    file = recordio.MXRecordIO(str(tmp_path / "a.rec"), "w")
    for label in range(4):
        file.write(recordio.pack(recordio.IRHeader(0, label, 0, 0), b"x" * label))
    file.close()
    assert reindex(tmp_path / "a") == 4
    assert list(index(tmp_path / "a")) == [0, 1, 2, 3]
    with RecordSet(tmp_path / "a.rec") as records:
        assert records.labels.tolist() == [0, 1, 2, 3]


def test_a_report_is_as_json_as_its_parts(prefix):
    """Plain Python numbers, so that callers can print or dump them."""
    change(prefix, index(prefix)[3], b"XXXX")
    report = check(prefix)
    json.dumps([report.records, report.classes, report.labels, report.damaged, report.unlisted])
