"""The decoded planes, bit-identical to libjpeg's (through Pillow)."""

import io
import zipfile

import cv2
import jpeg_writer
import numpy as np
import pytest
from jpeg_writer import by_libjpeg, by_pillow, encode, scene
from PIL import Image

FACTORS = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "440": (1, 2), "411": (4, 1)}
SIZES = [(1, 1), (1, 40), (40, 1), (3, 2), (5, 6), (8, 8), (15, 17), (31, 33), (64, 48), (90, 131)]
# Symbols of baseline JPEGs.
DC_SYMBOLS = list(range(12))
AC_SYMBOLS = [0, 0xF0] + [run << 4 | size for run in range(16) for size in range(1, 11)]


def luma_by_libjpeg(jpeg, shrink):
    image = Image.open(io.BytesIO(jpeg))
    image.draft("L", tuple(side // shrink for side in image.size))
    return np.asarray(image)


def columns_doubled(near, bias_left, bias_right, shift):
    """libjpeg's triangle filter, of sums whose own weight is 4 >> 2; the outermost are kept."""
    left, right = np.empty_like(near), np.empty_like(near)
    left[:, 1:] = 3 * near[:, 1:] + near[:, :-1]
    right[:, :-1] = 3 * near[:, :-1] + near[:, 1:]
    left[:, 0], right[:, -1] = 4 * near[:, 0], 4 * near[:, -1]
    both = np.stack([(left + bias_left) >> shift, (right + bias_right) >> shift], axis=-1)
    return both.reshape(len(near), -1)


def rows_summed(plane):
    """3 * each row + the nearer of its neighbors, as (rows, 2, columns): above, below."""
    padded = np.pad(plane, ((1, 1), (0, 0)), "edge")
    return np.stack([3 * plane + padded[:-2], 3 * plane + padded[2:]], axis=1)


def upsampled(plane, across, down, height, width):
    """As libjpeg's "fancy upsampling" (jdsample.c) makes a plane the image's size."""
    plane = plane.astype(np.int32)
    if down == 2 and across == 1:
        sums = rows_summed(plane) + np.array([1, 2])[:, None]
        plane = (sums >> 2).reshape(-1, plane.shape[1])
    elif across == 2 and plane.shape[1] > 2:
        plane = (columns_doubled(plane, 1, 2, 2) if down == 1 else columns_doubled(
            rows_summed(plane).reshape(-1, plane.shape[1]), 8, 7, 4))
    else:
        plane = plane.repeat(down, axis=0).repeat(across, axis=1)
    return plane[:height, :width]


def check_whole(core, jpeg, kind):
    """All planes of the whole image."""
    expected = by_libjpeg(jpeg)
    height, width = expected[0].shape
    planes = core.decode_planes(jpeg, 0, 0, height, width, 0)
    assert len(planes) == len(expected)
    for number, ((samples, top, left), pixels) in enumerate(zip(planes, expected, strict=True)):
        assert (top, left) == (0, 0)
        across, down = FACTORS[kind] if number else (1, 1)
        assert samples.shape == (-(-height // down), -(-width // across))
        assert np.array_equal(upsampled(samples, across, down, height, width), pixels), number
    return planes


def check_windows(core, jpeg, whole, factors, rng, count=6):
    """Windows must contain what was requested, and match the complete planes."""
    height, width = whole[0][0].shape
    for _ in range(count):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        rows = int(rng.integers(1, height - top + 1))
        columns = int(rng.integers(1, width - left + 1))
        found = core.decode_planes(jpeg, top, left, rows, columns, 0)
        for number, (samples, y, x) in enumerate(found):
            across, down = factors if number else (1, 1)
            assert y * down <= top
            assert x * across <= left
            assert y + samples.shape[0] >= -(-(top + rows) // down)
            assert x + samples.shape[1] >= -(-(left + columns) // across)
            # No more than the MCUs that it touches.
            assert y * down > top - 8 * factors[1]
            assert x * across > left - 8 * factors[0]
            part = whole[number][0][y:y + samples.shape[0], x:x + samples.shape[1]]
            assert np.array_equal(samples, part)


@pytest.mark.parametrize("kind", [*FACTORS, "grey"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_planes_are_libjpegs(native_core, kind, size):
    rng = np.random.default_rng(0)
    for quality, interval, optimize in ((90, 0, False), (90, 1, True), (75, 3, False),
                                        (100, 0, True), (30, 0, True), (1, 2, False)):
        jpeg = encode(scene(*size), kind, quality=quality, interval=interval, optimize=optimize)
        whole = check_whole(native_core, jpeg, kind)
        check_windows(native_core, jpeg, whole, FACTORS.get(kind, (1, 1)), rng)


@pytest.mark.parametrize("kind", [*FACTORS, "grey"])
def test_all_qualities(native_core, kind):
    noise = np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)
    checks = np.indices((40, 56)).sum(0)[..., None] % 2 * np.uint8([255, 0, 255])
    for quality in range(1, 101):
        for image in (noise, checks.astype(np.uint8)):
            check_whole(native_core, encode(image, kind, quality=quality, optimize=True), kind)


@pytest.mark.parametrize("kind", [*FACTORS, "grey"])
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_shrunk_planes_are_libjpegs(native_core, kind, shrink):
    for size in ((8, 8), (15, 17), (31, 33), (64, 48), (90, 131), (203, 155)):
        for quality in (5, 60, 95, 100):
            jpeg = encode(scene(*size), kind, quality=quality)
            planes = native_core.decode_planes(jpeg, 0, 0, *size, min(size) // shrink)
            assert np.array_equal(planes[0][0], luma_by_libjpeg(jpeg, shrink))
            expected = by_libjpeg(jpeg, shrink)
            for number, pixels in enumerate(expected[1:], 1):
                across, down = FACTORS[kind]
                if kind == "420":  # libjpeg then leaves chroma twice as large as necessary
                    own, across, down = shrink // 2, 1, 1
                elif shrink == 8:
                    continue  # it does not filter then, unlike upsampled()
                else:
                    own = shrink
                least = min(size[0] // FACTORS[kind][1], size[1] // FACTORS[kind][0]) // own
                if own > 1 and least == 0:
                    continue
                samples = native_core.decode_planes(
                    jpeg, 0, 0, *size, least if own > 1 else 0)[number][0]
                assert np.array_equal(upsampled(samples, across, down, *pixels.shape), pixels)


@pytest.mark.parametrize(("sides", "least", "shrinks"), [
    ((32, 48), 0, (1, 1)), ((32, 48), 33, (1, 1)), ((32, 48), 17, (1, 1)), ((32, 48), 16, (2, 1)),
    ((32, 48), 9, (2, 1)), ((32, 48), 8, (4, 2)), ((31, 48), 16, (1, 1)), ((48, 31), 16, (1, 1)),
    ((32, 48), 4, (8, 4)), ((32, 48), 2, (8, 8)), ((32, 48), 1, (8, 8)), ((33, 33), 8, (4, 2)),
    ((18, 18), 9, (2, 1)), ((17, 40), 8, (2, 1)), ((30, 40), 8, (2, 1)), ((34, 99), 8, (4, 2)),
])
def test_a_plane_is_shrunk_where_its_part_is_that_many_times_the_least(
        native_core, sides, least, shrinks):
    jpeg = encode(scene(160, 160), "420")
    for corner in ((0, 0), (16, 32), (48, 48)):
        planes = native_core.decode_planes(jpeg, *corner, *sides, least)
        whole = [
            native_core.decode_planes(jpeg, 0, 0, 160, 160, (160, 80)[i] // k if k > 1 else 0)[i][0]
            for i, k in enumerate(shrinks)]
        for i, (samples, top, left) in enumerate(planes[:2]):
            pitch = shrinks[i] * (1, 2)[i]
            ends = [-(-sum(pair) // 16) * 16 for pair in zip(corner, sides, strict=True)]
            assert (top, left) == (corner[0] // pitch, corner[1] // pitch)
            assert samples.shape == ((ends[0] - corner[0]) // pitch, (ends[1] - corner[1]) // pitch)
            assert np.array_equal(samples, whole[i][top:top + samples.shape[0],
                                                    left:left + samples.shape[1]])


def random_blocks(rng, rows, columns, largest, largest_dc):
    """Coefficients of any density: none at all, all 63, single ones after any run."""
    blocks = rng.integers(-largest, largest + 1, (rows, columns, 64)) >> rng.integers(
        0, 12, (rows, columns, 64))
    blocks[rng.random(blocks.shape) > rng.choice([0, 0.02, 0.1, 0.5, 1], (rows, columns, 1))] = 0
    blocks[..., 0] = rng.integers(-largest_dc, largest_dc + 1, (rows, columns))
    return blocks


SAMPLINGS = [[(1, 1)] * 3, [(2, 2), (1, 1), (1, 1)], [(1, 1), (2, 2), (1, 1)],
             [(1, 1), (2, 1), (1, 2)], [(3, 1), (1, 1), (1, 1)], [(2, 1), (1, 2), (2, 1)],
             [(3, 2), (1, 1), (2, 1)], [(1, 4), (1, 1), (1, 2)], [(4, 2), (1, 1), (1, 1)],
             [(2, 2), (2, 2), (2, 1)], [(2, 2)] * 2 + [(1, 2)], [(1, 1), (1, 1), (4, 2)], [(1, 1)]]


@pytest.mark.parametrize("factors", SAMPLINGS, ids=str)
@pytest.mark.parametrize(("most", "most_dc", "most_step"), [
    (40, 300, 3), (255, 900, 8), (1023, 1023, 8000)], ids=str)
def test_each_component_is_what_it_is_alone(native_core, factors, most, most_dc, most_step):
    """Any sampling, code and coefficients; libjpeg decodes each component from a gray JPEG."""
    rng = np.random.default_rng([most, most_step, len(factors), *np.ravel(factors)])
    dc, ac = jpeg_writer.random_code(rng, DC_SYMBOLS), jpeg_writer.random_code(rng, AC_SYMBOLS)
    steps = rng.integers(1, most_step + 1, 64)
    height, width = rng.integers(1, 100, 2).tolist()
    most_h, most_v = (max(pair[axis] for pair in factors) for axis in (0, 1))
    rows, columns = -(-height // (8 * most_v)), -(-width // (8 * most_h))
    # Beyond these limits, eight times what images have, libjpeg's SIMD overflows 16 bits.
    planes = [jpeg_writer.Plane(h, v, random_blocks(
        rng, rows * v, columns * h, most, most_dc).clip(-8191 // steps + 1, 8191 // steps))
              for h, v in factors]
    jpeg = jpeg_writer.write(height, width, planes, steps, dc, ac, int(rng.integers(0, 5)))
    found = native_core.decode_planes(jpeg, 0, 0, height, width, 0)
    for number, ((h, v, blocks), (samples, _, _)) in enumerate(zip(planes, found, strict=True)):
        high, wide = -(-height * v // most_v), -(-width * h // most_h)
        alone = jpeg_writer.write(high, wide, [jpeg_writer.Plane(
            1, 1, blocks[:-(-high // 8), :-(-wide // 8)])], steps, dc, ac)
        assert np.array_equal(samples, by_libjpeg(alone)[0])
        # libjpeg's SIMD clips some numbers that no image has between the reduced passes.
        for shrink in (2, 4, 8) if most_step == 3 else ():
            least = min(height * v // most_v, width * h // most_h) // shrink
            if least and min(high, wide) >= shrink:
                shrunk = native_core.decode_planes(jpeg, 0, 0, height, width, least)[number][0]
                assert np.array_equal(shrunk, luma_by_libjpeg(alone, shrink))
    for _ in range(10):  # what is outside a window is skipped
        top, left = int(rng.integers(height)), int(rng.integers(width))
        rows, columns = int(rng.integers(1, height - top + 1)), 1
        for whole, (samples, y, x) in zip(
                found, native_core.decode_planes(jpeg, top, left, rows, columns, 0), strict=True):
            assert np.array_equal(
                samples, whole[0][y:y + samples.shape[0], x:x + samples.shape[1]])


def segments_of(jpeg):
    """Where the index's entries start, and how many there are."""
    at = jpeg.index(b"GLUONTRICKS\0\x01\x02")
    return at + 14, (int.from_bytes(jpeg[at - 2:at], "big") - 16) // 2


@pytest.mark.parametrize("kind", [*FACTORS, "grey"])
@pytest.mark.parametrize("mcus", [1, 3, 5, 64])
def test_windows_of_indexed_images_are_those_of_the_plain_ones(native_core, kind, mcus):
    for size in ((9, 130), (131, 90)):
        plain = encode(scene(*size), kind)
        indexed = native_core.transcode(plain, mcus=mcus)
        assert segments_of(indexed)[1] >= (2 if mcus < 64 else 1)
        whole = check_whole(native_core, indexed, kind)
        check_windows(native_core, indexed, whole, FACTORS.get(kind, (1, 1)),
                      np.random.default_rng(mcus))


def changed_indices(jpeg):
    """(what, the JPEG with an index that does not fit it)"""
    at, count = segments_of(jpeg)
    lengths = np.frombuffer(jpeg, ">u2", count, at).astype(int)
    end = at + 2 * count

    def replaced(lengths):
        head = len(lengths) * 2 + 16
        return b"".join([jpeg[:at - 16], head.to_bytes(2, "big"), jpeg[at - 14:at],
                         np.asarray(lengths).astype(">u2").tobytes(), jpeg[end:]])

    assert replaced(lengths) == jpeg
    yield "zeros", replaced(lengths * 0)
    yield "as large as can be", replaced(lengths * 0 + 65535)
    yield "reversed", replaced(lengths[::-1])
    yield "none", replaced([])
    yield "one too few", replaced(lengths[:-1])
    yield "one too many", replaced([*lengths, 9])
    yield "the last nine as one", replaced([*lengths[:-9], lengths[-9:].sum() + 16])
    for entry in (0, 1, count // 2, count - 2, count - 1):
        for change in (-2, -1, 1, 2, 4):
            other = lengths.copy()
            other[entry] += change
            yield f"entry {entry} by {change}", replaced(other)
    skipping = lengths.copy()  # eight further on, the marker has the same number
    skipping[0] = lengths[:9].sum() + 16
    yield "entry 0 skips eight", replaced(skipping)
    start = jpeg.index(b"\xff\xda") + 14
    ends = start + np.cumsum(lengths + 2)
    stuffed = [i for i in range(start, len(jpeg) - 2) if jpeg[i:i + 2] == b"\xff\0"]
    for at_stuffing in stuffed[:3] + stuffed[-3:]:  # a segment's end where there is no marker
        entry = int(np.searchsorted(ends, at_stuffing))
        other, moved = lengths.copy(), at_stuffing + 2 - (ends[entry - 1] if entry else start)
        if entry > 0:  # from the marker before to the stuffing, and back
            other[entry - 1] += moved
            other[entry] -= moved
            yield f"entry {entry} moved", replaced(other)
    yield "another version", jpeg[:at - 2] + b"\x02" + jpeg[at - 1:]
    yield "other entries", jpeg[:at - 1] + b"\x04" + jpeg[at:]


def test_a_wrong_index_changes_nothing(native_core):
    image = scene(70, 200)
    right = native_core.transcode(encode(image, "420"), mcus=2)
    whole = check_whole(native_core, right, "420")
    for number, (what, jpeg) in enumerate(changed_indices(right)):
        found = native_core.decode_planes(jpeg, 0, 0, 70, 200, 0)
        assert found is not None, what
        assert all(np.array_equal(a[0], b[0]) for a, b in zip(found, whole, strict=True)), what
        check_windows(native_core, jpeg, whole, (2, 2), np.random.default_rng(number))


def test_an_index_of_another_image_changes_nothing(native_core):
    right, other = (native_core.transcode(encode(scene(70, 200, seed), "420"), mcus=2)
                    for seed in (0, 1))
    at, count = segments_of(right)
    at_other, count_other = segments_of(other)
    assert count == count_other
    stale = right[:at] + other[at_other:at_other + 2 * count] + right[at + 2 * count:]
    assert stale != right
    whole = check_whole(native_core, stale, "420")
    check_windows(native_core, stale, whole, (2, 2), np.random.default_rng(0))


WHOLE = encode(scene(60, 80), "420")
SCAN = WHOLE.index(b"\xff\xda")


@pytest.mark.parametrize("jpeg", [
    b"", b"\xff\xd8", b"\xff\xd8\xff", b"no picture", WHOLE[:SCAN], WHOLE[:SCAN + 14],
    WHOLE[:SCAN + 40], WHOLE[:-40], WHOLE[:-300] + b"\xff\xd9", WHOLE[1:],
    WHOLE[:SCAN + 300] + b"\xff\xd0" + WHOLE[SCAN + 300:],
    by_pillow(scene(60, 80), progressive=True), by_pillow(scene(60, 80), keep_rgb=True),
    cv2.imencode(".png", scene(60, 80))[1].tobytes(),
    WHOLE.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    WHOLE.replace(b"\xff\xc4", b"\xff\xe4", 1), encode(scene(60, 80), "420", interval=2).replace(
        b"\xff\xd1", b"\xff\0", 1),
    WHOLE.replace(b"\xff\xdb", b"\0\xe1\0\x02\xff\xdb", 1),  # libjpeg skips such bytes
], ids=range(18))
def test_what_it_does_not_decode(native_core, jpeg):
    assert native_core.decode_planes(jpeg, 0, 0, 60, 80, 0) is None


def test_an_image_without_quantization_tables_is_damaged(native_core):
    jpeg = WHOLE.replace(b"\xff\xdb", b"\xff\xe4")
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is None
    assert native_core.decode_planes(jpeg, 0, 0, 60, 80, 0) is None


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 61, 5), (0, 0, 5, 81),
                                    (60, 0, 1, 1), (0, 0, 0, 5), (0, 0, 5, 0)], ids=str)
def test_a_window_outside_the_image_is_refused(native_core, window):
    with pytest.raises(ValueError, match="the window extends beyond the image"):
        native_core.decode_planes(WHOLE, *window, 0)


def test_damaged_data_are_refused_or_give_what_libjpeg_makes_of_them(native_core):
    rng, given = np.random.default_rng(2), 0
    for jpeg in (encode(scene(60, 80), "420"), encode(scene(60, 80), "grey", optimize=True)):
        start = jpeg.index(b"\xff\xda") + 14
        for _ in range(600):
            data = bytearray(jpeg)
            for at in rng.integers(start, len(data) - 2, rng.integers(1, 3)):
                data[at] ^= 1 << rng.integers(8)
            found = native_core.decode_planes(bytes(data), 0, 0, 60, 80, 0)
            if found is not None:
                given += 1
                assert np.array_equal(found[0][0], by_libjpeg(bytes(data))[0])
    assert 100 < given < 1100


def test_any_bytes_are_survived(native_core):
    """Markers and all; the sanitizers' run of these tests makes this count."""
    rng = np.random.default_rng(3)
    for jpeg in (WHOLE, native_core.transcode(WHOLE, 2), encode(scene(9, 9), "grey")):
        for _ in range(1500):
            data = bytearray(jpeg[:rng.integers(2, len(jpeg))] if rng.random() < 0.3 else jpeg)
            for at in rng.integers(0, min(len(data), 700), rng.integers(1, 5)):
                data[at] = rng.choice([0, 255, int(rng.integers(256))])
            found = native_core.header_of(bytes(data))
            if found and max(found[:2]) < 2000:
                assert 1 <= found[2] <= 8
                for high, wide in (found[:2], found[1::-1]):
                    try:
                        native_core.decode_planes(bytes(data), 0, 0, high, wide, 0)
                        native_core.decode_planes(bytes(data), high // 2, wide // 2, 1, 1, 1)
                    except ValueError as error:
                        assert "window" in str(error)


def test_real_images(native_core, real_data):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(real_data / "imagenet-samples-300.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG")]
        assert len(names) == 300
        for number, name in enumerate(names):
            jpeg = archive.read(name)
            expected = by_libjpeg(jpeg)
            whole = native_core.decode_planes(jpeg, 0, 0, *expected[0].shape, 0)
            luma, *chroma = (plane[0] for plane in whole)
            assert np.array_equal(luma, expected[0])
            factors = tuple(-(-a // b) for a, b in zip(
                luma.shape[::-1], (chroma or [luma])[0].shape[::-1], strict=True))
            for mine, theirs in zip(chroma, expected[1:], strict=True):
                assert np.array_equal(upsampled(mine, *factors, *luma.shape), theirs)
            check_windows(native_core, jpeg, whole, factors, rng, 3)
            check_windows(native_core, native_core.transcode(jpeg), whole, factors, rng, 3)
            shrink = (2, 4, 8)[number % 3]
            assert np.array_equal(native_core.decode_planes(
                jpeg, 0, 0, *luma.shape, min(luma.shape) // shrink)[0][0],
                luma_by_libjpeg(jpeg, shrink))


def test_another_marker_within_the_data_is_damage(native_core):
    """Even for a window before it: the rest may be incomplete."""
    whole = encode(scene(200, 80), "420")
    at = whole.index(b"\0", len(whole) * 3 // 4) + 1
    assert native_core.decode_planes(whole[:at] + b"\xff\xe0" + whole[at:], 0, 0, 8, 8, 0) is None
