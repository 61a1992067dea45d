"""RecordIO against MXNet's own reader and writer, and everything that can be wrong with a file."""

import json
import struct
import warnings

import numpy as np
import pytest
from mxnet import recordio

from gluon_tricks.data import classes, record
from gluon_tricks.errors import InputError

MAGIC = struct.pack("<I", 0xCED7230A)
WITH_MAGIC = {  # payloads after a header of 24 bytes, so offsets in them keep their alignment
    "start": MAGIC + b"abcdefg",
    "middle": b"abcd" + MAGIC + b"efg",
    "end": b"abcdefgh" + MAGIC,
    "alone": MAGIC,
    "adjacent": b"abcd" + 3 * MAGIC + b"efghi",
    "several": MAGIC + b"ab12" + MAGIC + b"cd34" + MAGIC + MAGIC,
    "unaligned 1": b"x" + MAGIC + b"abcdefgh",
    "unaligned 2": b"xx" + MAGIC + b"ab" + MAGIC,
    "unaligned 3": b"abcdxxx" + MAGIC,
    "unaligned, then aligned across it": b"x" + MAGIC + b"abc" + MAGIC,
    "overlapping beginnings": MAGIC[:2] + MAGIC + MAGIC[:2] + MAGIC + MAGIC[:3],
    "first half of it": b"abcd" + MAGIC[:2],
    "none": b"abcdefghi",
    "empty": b"",
    "random": np.random.default_rng(0).integers(0, 256, 5001, np.uint8).tobytes(),
}


def one_line(raised) -> str:
    """The message of a caught error, which must be one line."""
    message = str(raised.value)
    assert "\n" not in message
    return message


def refusal(rec, *idx) -> str:
    """What RecordSet says when it refuses a file; no warning may go to the terminal besides."""
    with warnings.catch_warnings(), pytest.raises(InputError) as raised:
        warnings.simplefilter("error")
        record.RecordSet(rec, *idx).close()
    return one_line(raised)


def write(prefix, samples):
    """PREFIX.rec and PREFIX.idx by our writer, from (key, label, image)."""
    with record.RecordWriter(prefix) as writer:
        for sample in samples:
            writer.write(*sample)


def write_mxnet(prefix, samples):
    """PREFIX.rec and PREFIX.idx by MXNet's writer; a label may be a list."""
    file = recordio.MXIndexedRecordIO(f"{prefix}.idx", f"{prefix}.rec", "w")
    for key, label, picture in samples:
        file.write_idx(key, recordio.pack(recordio.IRHeader(0, label, key, 0), picture))
    file.close()


@pytest.fixture
def small(tmp_path):
    """The prefix of five records of 1 to 5 * 7 bytes, the last but one in several parts."""
    samples = [(key, key % 3, bytes([65 + key]) * (7 * key + 1)) for key in range(3)]
    samples += [(3, 0, b"abcd" + MAGIC + b"efgh" + MAGIC + b"ij"), (4, 1, b"E" * 35)]
    write(tmp_path / "small", samples)
    return tmp_path / "small"


def entries(prefix):
    return [line.split("\t") for line in prefix.with_suffix(".idx").read_text().splitlines()]


def write_index(prefix, lines):
    text = "".join(f"{key}\t{offset}\n" for key, offset in lines)
    prefix.with_suffix(".idx").write_text(text)


@pytest.mark.parametrize("kind", WITH_MAGIC)
def test_mxnet_reads_what_we_write(tmp_path, kind):
    samples = [(9, 2, b"before"), (7, 3, WITH_MAGIC[kind]), (8, 4, b"behind")]
    write(tmp_path / "a", samples)
    indexed = recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "r")
    for key, label, picture in samples:
        header, data = recordio.unpack(indexed.read_idx(key))
        assert (header.flag, header.label, header.id, data) == (0, label, key, picture)
    straight = recordio.MXRecordIO(str(tmp_path / "a.rec"), "r")
    assert [recordio.unpack(straight.read())[1] for _ in samples] == [s[2] for s in samples]
    assert straight.read() is None


@pytest.mark.parametrize("kind", WITH_MAGIC)
def test_we_read_what_mxnet_writes(tmp_path, kind):
    samples = [(9, 2.0, b"before"), (7, 3.0, WITH_MAGIC[kind]), (8, [4.0], b"behind")]
    write_mxnet(tmp_path / "a", samples)
    with record.RecordSet(tmp_path / "a.rec") as records:
        assert records.keys.tolist() == [9, 7, 8]
        assert records.labels.tolist() == [2, 3, 4]
        assert [records.read(i) for i in range(3)] == [s[2] for s in samples]


@pytest.mark.parametrize("kind", WITH_MAGIC)
def test_we_write_the_very_bytes_mxnet_writes(tmp_path, kind):
    samples = [(0, 5.0, WITH_MAGIC[kind]), (1, 0.0, b"behind")]
    write(tmp_path / "ours", samples)
    write_mxnet(tmp_path / "theirs", samples)
    for end in ("rec", "idx"):
        ours, theirs = tmp_path / f"ours.{end}", tmp_path / f"theirs.{end}"
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_key_that_is_the_magic_number(tmp_path):
    """Then the header itself is cut in two."""
    write(tmp_path / "a", [(0xCED7230A, 6, b"picture")])
    with record.RecordSet(tmp_path / "a.rec") as records:
        assert records.labels.tolist() == [6]
        assert records.read(0) == b"picture"
    theirs = recordio.MXRecordIO(str(tmp_path / "a.rec"), "r")
    header, data = recordio.unpack(theirs.read())
    assert (header.id, header.label, data) == (0xCED7230A, 6, b"picture")


def test_sets_in_any_order_of_their_idx(small):
    lines = entries(small)
    write_index(small, lines[::-1])
    with record.RecordSet(f"{small}.rec") as records:
        assert records.keys.tolist() == [4, 3, 2, 1, 0]
        assert records.labels.tolist() == [1, 0, 2, 1, 0]
        assert records.read(1) == b"abcd" + MAGIC + b"efgh" + MAGIC + b"ij"
        assert len(records) == 5


def test_an_idx_of_another_name(small):
    small.with_suffix(".idx").rename(small.with_name("other.idx"))
    with record.RecordSet(f"{small}.rec", small.with_name("other.idx")) as records:
        assert len(records) == 5


def test_a_record_too_long_for_the_format_is_refused():
    class Long(bytes):
        def __len__(self):
            return 1 << 29

    with pytest.raises(ValueError, match="512 MiB"):
        record.frame(Long())


def test_the_writer_leaves_nothing_behind_after_an_exception(tmp_path):
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), record.RecordWriter(tmp_path / "a") as writer:
            writer.write(0, 0, b"picture" * 1000)
            raise error
        assert list(tmp_path.iterdir()) == []


def test_the_files_appear_only_when_whole(tmp_path):
    with record.RecordWriter(tmp_path / "deep" / "er" / "a") as writer:
        writer.write(0, 0, b"picture")
        assert not (tmp_path / "deep" / "er" / "a.rec").exists()
        assert not (tmp_path / "deep" / "er" / "a.idx").exists()
    assert {file.name for file in (tmp_path / "deep" / "er").iterdir()} == {"a.rec", "a.idx"}


def test_what_a_killed_run_left_behind_does_no_harm(tmp_path):
    for end in ("rec", "idx"):
        (tmp_path / f"a.{end}.part").write_bytes(b"rest" * 1000)
    write(tmp_path / "a", [(0, 0, b"picture")])
    assert {file.name for file in tmp_path.iterdir()} == {"a.rec", "a.idx"}
    with record.RecordSet(tmp_path / "a.rec") as records:
        assert records.read(0) == b"picture"


@pytest.mark.parametrize("end", ["rec", "idx"])
def test_the_writer_never_writes_over_a_file(tmp_path, end):
    (tmp_path / f"a.{end}").write_text("precious")
    with pytest.raises(InputError, match=rf"a\.{end} already exists"):
        write(tmp_path / "a", [(0, 0, b"picture")])
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == \
        [(f"a.{end}", "precious")]


def test_a_prefix_with_dots(tmp_path):
    write(tmp_path / "v1.2.train", [(0, 0, b"picture")])
    with record.RecordSet(tmp_path / "v1.2.train.rec") as records:
        assert records.read(0) == b"picture"


def test_missing_files_are_named(small):
    assert f"{small}2.rec is missing" in refusal(f"{small}2.rec")
    assert f"{small.parent} is missing" in refusal(small.parent)
    small.with_suffix(".idx").unlink()
    assert f"{small}.idx is missing" in refusal(f"{small}.rec")
    assert "elsewhere.idx is missing" in refusal(f"{small}.rec", small.parent / "elsewhere.idx")


@pytest.mark.parametrize("garbage", [
    b"", b"\n\n", b"0\t0\n1\n", b"a\tb\n", b"0\t0.5\n", b"\xff\xfe\x00\x01", b"\x00" * 40,
    b"0\t99999999999999999999999\n", b"0\t9223372036854775807\n", b"0\t-8\n",
    b"-----BEGIN LETTER-----\nDear all,\nthis is no index.\n",
])
def test_garbage_for_an_idx(small, garbage):
    small.with_suffix(".idx").write_bytes(garbage)
    assert f"{small}.idx" in refusal(f"{small}.rec")


def test_a_rec_for_an_idx(small):
    assert f"{small}.rec" in refusal(f"{small}.rec", f"{small}.rec")


@pytest.mark.parametrize("lines", [
    lambda lines: lines[1:],
    lambda lines: lines[:2] + lines[3:],
    lambda lines: lines[:-1],
    lambda lines: lines[:1],
    lambda lines: [*lines, lines[0]],
    lambda lines: [*lines[:2], lines[1], *lines[3:]],
    lambda lines: [(key, int(offset) + 4) for key, offset in lines],
    lambda lines: [(key, int(offset) + 1) for key, offset in lines],
    lambda lines: [(key, int(offset) - 1) for key, offset in lines],
    lambda lines: [*lines, (99, 10_000)],
    lambda lines: [(key, 0) for key, _ in lines],
], ids=["first gone", "one gone", "last gone", "only one", "one twice", "one for another",
        "4 too far", "1 too far", "negative", "one behind the end", "all the same"])
def test_an_idx_that_does_not_match(small, lines):
    write_index(small, lines(entries(small)))
    message = refusal(f"{small}.rec")
    assert f"{small}.idx" in message
    assert f"{small}.rec" in message


def test_the_idx_of_another_rec(small, tmp_path):
    write(tmp_path / "other", [(key, 0, b"x" * (9 * key)) for key in range(5)])
    for a, b in (("small", "other"), ("other", "small")):
        assert f"{tmp_path / b}.idx" in refusal(tmp_path / f"{a}.rec", tmp_path / f"{b}.idx")


@pytest.mark.parametrize("last", [b"E" * 35, b"ab", b"", b"abcd" + MAGIC + b"efgh" + MAGIC + b"ij",
                                  MAGIC, b"abcd" + MAGIC])
def test_a_rec_cut_anywhere_is_refused(small, tmp_path, last):
    """At each byte, with a last record in one part and in several; and one byte too many."""
    whole = [(0, 0, b"A"), (1, 1, b"abcd" + MAGIC + b"efgh"), (2, 2, b"C" * 30), (3, 0, last)]
    write(tmp_path / "a", whole)
    data = (tmp_path / "a.rec").read_bytes()
    accepted = []
    for length in [*range(len(data)), len(data) + 1, len(data) + 4]:
        (tmp_path / "a.rec").write_bytes(data[:length].ljust(length, b"\0"))
        try:
            record.RecordSet(tmp_path / "a.rec").close()
            accepted.append(length)
        except InputError as error:
            assert str(tmp_path / "a.rec") in str(error)
            assert "\n" not in str(error)
    assert accepted == []
    (tmp_path / "a.rec").write_bytes(data)
    record.RecordSet(tmp_path / "a.rec").close()


@pytest.mark.parametrize("missing", [2, 40, 60, 64, 68, 150])
def test_a_cut_rec_is_called_truncated_not_mismatched(small, missing):
    """Rebuilding the .idx, the remedy for a mismatch, would not help."""
    rec = small.with_suffix(".rec")
    rec.write_bytes(rec.read_bytes()[:-missing])
    assert f"{rec} is truncated" in refusal(rec)


def test_bytes_in_front_or_between_are_refused(small):
    rec = small.with_suffix(".rec")
    data, cut = rec.read_bytes(), int(entries(small)[2][1])
    for wrong in (b"\0" * 4 + data, data[:cut] + b"\0" * 8 + data[cut:], data[:cut] + data[cut+4:]):
        rec.write_bytes(wrong)
        assert f"{rec}" in refusal(rec)


@pytest.mark.parametrize(("label", "said"), [
    (-1.0, "-1"), (0.5, "0.5"), (float("nan"), "nan"), (float("inf"), "inf"),
    (-float("inf"), "-inf"), ([1.0, 2.0], "2 labels"), ([1.0, 2.0, 3.0, 4.0], "4 labels"),
    ([-2.0], "-2"), ([2.5], "2.5"), (1e20, "1e+20"),
])
def test_labels_that_are_no_class(tmp_path, label, said):
    samples = [(4, 0.0, b"one"), (17, label, b"two"), (5, 1.0, b"three")]
    write_mxnet(tmp_path / "a", samples)
    message = refusal(tmp_path / "a.rec")
    assert f"{tmp_path / 'a.rec'}" in message
    assert "key 17 at byte 36," in message
    assert said in message


def test_a_record_shorter_than_a_header(tmp_path):
    rec, short = tmp_path / "a.rec", record.frame(struct.pack("<IfQ", 0, 0, 0))
    rec.write_bytes(short + record.frame(record.pack_sample(1, 1, b"picture")))
    (tmp_path / "a.idx").write_text(f"0\t0\n1\t{len(short)}\n")
    with record.RecordSet(rec) as records, pytest.raises(InputError) as raised:
        records.read(0)
    assert f"{rec}, the record with key 0 at byte 0: a record of 16 bytes" in one_line(raised)


def test_damage_after_opening_names_the_record(small):
    with record.RecordSet(f"{small}.rec") as records:
        offset = int(records.offsets[2])
        with open(f"{small}.rec", "r+b") as file:
            file.seek(offset)
            file.write(b"\0\0\0\0")
        with pytest.raises(InputError) as raised:
            records.read(2)
        assert f"{small}.rec, the record with key 2 at byte {offset}:" in one_line(raised)
        assert records.read(1) == b"B" * 8


def test_class_count(small):
    with record.RecordSet(f"{small}.rec") as records:
        assert records.class_count() == 3
        classes.write_classes(f"{small}.classes.json", ["a", "b", "c", "d", "e"])
        assert records.class_count() == 5
        small.with_name("small.classes.json").write_text(json.dumps({"classes": ["a", "b"]}))
        with pytest.raises(InputError, match=r"names 2 classes.* has the label 2") as raised:
            records.class_count()
        assert f"{small}.classes.json" in one_line(raised)


def test_classes_are_read_back(tmp_path):
    names = ["tench, Tinca tinca", "b\u00fccher", "\u732b", "0", ""]
    classes.write_classes(tmp_path / "a.classes.json", names)
    assert classes.read_classes(tmp_path / "a.classes.json") == names


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", "3", '{"names": []}', '{"classes": 5}', '{"classes": null}',
    '{"classes": "ant"}', '{"classes": {"ant": 0}}', "\udcff",
])
def test_a_file_that_is_no_list_of_classes(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as raised:
        classes.read_classes(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in one_line(raised)


def test_scan_finds_each_record_and_where_damage_begins(small):
    rec, offsets = small.with_suffix(".rec"), [int(offset) for _, offset in entries(small)]
    assert [offset for offset, _ in record.scan(rec)] == offsets
    data = rec.read_bytes()
    for missing in (1, 2, 20, 60):  # the first is the padding, which MXNet's reader insists on
        rec.write_bytes(data[:-missing])
        scanned = record.scan(rec)
        assert [next(scanned)[0] for _ in range(4)] == offsets[:4]
        with pytest.raises(InputError, match=rf"small\.rec is damaged at byte {offsets[4]}: "):
            next(scanned)


def test_many_threads_read_at_once(small):
    from concurrent.futures import ThreadPoolExecutor

    with record.RecordSet(f"{small}.rec") as records, ThreadPoolExecutor(8) as pool:
        expected = [records.read(i) for i in range(5)]
        for _ in range(20):
            assert list(pool.map(records.read, range(5))) == expected


def test_a_set_larger_than_one_chunk_of_starts(tmp_path):
    write(tmp_path / "a", [(key, key % 1000, b"x" * (key % 11)) for key in range(9001)])
    with record.RecordSet(tmp_path / "a.rec") as records:
        assert len(records) == 9001
        assert (records.labels == np.arange(9001) % 1000).all()
