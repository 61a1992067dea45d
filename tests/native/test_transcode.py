"""The lossless transcode, checked by OpenCV, Pillow and a decoder written in Python."""

import contextlib
import io
import os
import re
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import jpeg_format
import numpy as np
import pytest
from jpeg_writer import by_opencv, by_pillow, scene
from PIL import Image

SOF0, DHT, DQT, APP9 = 0xC0, 0xC4, 0xDB, 0xE9
# The same 20 x 12 gray image, Huffman coded and arithmetic coded, by libjpeg-turbo.
GREY_START = ("ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e12111013182"
              "81a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71"
              "797064785c656763ff")
ARITHMETIC = bytes.fromhex(GREY_START + (
    "c9000b08000c001401011100ffcc000600101005ffda0008010100003f00f5fe97198a00d1d7e6102e9a76daca58"
    "af5c9ac9c87ea147133b57b074c0b548aedacfededea31f38aeba6f92359aa6b0f9f5be8add209d83732d6935396"
    "975bc97631f3467f32b543bf4e5a0413bfe2cc5b755d567e68e100a02d063ffa0291b96fefa302e982063c8f693c"
    "acf57b0a6f3e75d5aeb0c862d093c179c304e04dc58b3a803468fb84d4d8aba72f1890a2284a51db7f450a787ebc"
    "1e45acab5641de094ffd50f260ffd9"))
# 16 x 16, three planes of 2 x 2 sampling, each in a scan of its own: twelve blocks in one MCU would
# be more than the standard's ten.
TWELVE_BLOCKS = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300080606070605080707070909080a0c140d0c0b0b0c"
    "1912130f141d1a1f1e1d1a1c1c20242e2720222c231c1c2837292c30313434341f27393d38323c2e333432ffc000"
    "11080010001003012200022200032200ffc40014000100000000000000000000000000000000ffc4001410010000"
    "0000000000000000000000000000ffda0008010100003f0000ffc400150101010000000000000000000000000000"
    "0004ffc40014110100000000000000000000000000000000ffda0008010211003f00a407ffc40015010101000000"
    "00000000000000000000000005ffc40014110100000000000000000000000000000000ffda0008010311003f00a4"
    "03ffd9")


def sampled(factor: int):
    return lambda image: by_opencv(image, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)


KINDS = {
    "444": lambda image: by_pillow(image, subsampling=0),
    "422": lambda image: by_pillow(image, subsampling=1),
    "420": lambda image: by_pillow(image, subsampling=2),
    "440": sampled(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "411": sampled(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "grey": lambda image: by_pillow(image, "L"),
    "rgb": lambda image: by_pillow(image, keep_rgb=True),
    "cmyk": lambda image: by_pillow(image, "CMYK"),
    "progressive": lambda image: by_pillow(image, progressive=True),
    "progressive cmyk": lambda image: by_pillow(image, "CMYK", progressive=True),
    "with restarts": lambda image: by_opencv(image, cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    "quality 1": lambda image: by_pillow(image, quality=1),
    "quality 100": lambda image: by_pillow(image, quality=100, subsampling=0),
}
SIZES = [(1, 1), (7, 9), (33, 17), (17, 33), (64, 48), (100, 171)]


def opencv_pixels(data: bytes) -> list[np.ndarray]:
    encoded = np.frombuffer(data, np.uint8)
    return [cv2.imdecode(encoded, flag) for flag in (
        cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED, cv2.IMREAD_REDUCED_COLOR_2)]


def pillow_pixels(data: bytes) -> list[np.ndarray]:
    """As Pillow decodes it, and, if it can, without the color conversion."""
    found = [np.asarray(Image.open(io.BytesIO(data)))]
    with Image.open(io.BytesIO(data)) as image:
        if image.layer[0][0] != ord("R"):  # the planes are RGB, and stay
            image.draft("YCbCr", None)
        found.append(np.asarray(image))
    return found


def check_same_pixels(before: bytes, after: bytes) -> None:
    for pixels in (opencv_pixels, pillow_pixels):
        for old, new in zip(pixels(before), pixels(after), strict=True):
            assert old.dtype == new.dtype
            assert old.shape == new.shape
            assert (old == new).all()


def check_index(parts) -> None:
    """The index must state what the restart markers show, and these must count up."""
    assert parts.index() == [len(segment) for segment in parts.segments]
    assert parts.restarts == [i % 8 + 0xD0 for i in range(len(parts.segments) - 1)]


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_tables_and_markers_are_kept_and_the_segments_indexed(
        native_core, kind, shape):
    before = KINDS[kind](scene(*shape))
    after = native_core.transcode(before)
    check_same_pixels(before, after)
    parts = jpeg_format.take_apart(after)
    check_index(parts)
    assert [code for code, _ in parts.markers if 0xC0 <= code <= 0xCF and code != DHT] == [SOF0]
    old, new = Image.open(io.BytesIO(before)), Image.open(io.BytesIO(after))
    assert (old.mode, old.size, old.layer, old.quantization) == \
        (new.mode, new.size, new.layer, new.quantization)
    assert native_core.transcode(after) == after


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "progressive" not in kind])
@pytest.mark.parametrize("shape", [(1, 1), (33, 17), (40, 90)], ids=str)
def test_each_segment_decodes_by_itself_to_the_same_coefficients(
        native_core, kind, shape):
    before = KINDS[kind](scene(*shape))
    old = jpeg_format.coefficients(jpeg_format.take_apart(before))
    parts = jpeg_format.take_apart(native_core.transcode(before, 2))
    new = jpeg_format.coefficients(parts)
    assert any(block.any() for block in old)
    for left, right in zip(old, new, strict=True):
        assert (left == right).all()


@pytest.mark.parametrize(("width", "mcus", "interval"), [
    (32 * 16, 5, 4), (31 * 16, 5, 5), (6 * 16, 5, 6), (10 * 16 - 15, 5, 5), (7 * 16, 5, 7),
    (1, 5, 5), (2 * 16, 5, 5), (3 * 16, 5, 3), (22 * 16, 5, 5), (33 * 16, 5, 3), (32 * 16, 1, 1),
    (31 * 16, 2, 2), (9 * 16, 2, 3), (3 * 16, 6, 3), (32 * 16, 16, 16), (32 * 16, 9, 8),
    (10 * 16, 60000, 60000), (11 * 16, 65535, 65535),
])
def test_the_interval_divides_the_row_where_a_near_one_does(
        native_core, width, mcus, interval):
    before = by_pillow(scene(50, width), subsampling=2)
    after = native_core.transcode(before, mcus)
    parts = jpeg_format.take_apart(after)
    assert parts.interval == interval
    assert len(parts.segments) == -(-4 * -(-width // 16) // interval)
    check_index(parts)
    check_same_pixels(before, after)


def test_five_mcus_are_the_default(native_core):
    before = by_pillow(scene(24, 80), "L")
    assert jpeg_format.take_apart(native_core.transcode(before)).interval == 5
    assert native_core.transcode(before) == native_core.transcode(before, mcus=5)
    assert len(jpeg_format.take_apart(native_core.transcode(before)).segments) == 6


def test_a_gray_mcu_is_one_block_whatever_its_sampling_factors(native_core):
    plain = by_pillow(scene(24, 48), "L")
    before = plain.replace(b"\x01\x01\x11\0", b"\x01\x01\x22\0")
    assert before != plain
    parts = jpeg_format.take_apart(native_core.transcode(before))
    assert (parts.interval, len(parts.segments)) == (6, 3)
    check_index(parts)
    check_same_pixels(before, native_core.transcode(before))


def test_the_interval_doubles_until_the_index_fits(native_core):
    """One marker has room for (65,535 - 2 - 14) / 2 = 32,759 entries."""
    for row, rows, mcus, interval, segments in ((17 * 41, 47, 1, 1, 32759),
                                                (360, 91, 1, 2, 32760 // 2),
                                                (360, 182, 2, 4, 65520 // 4)):
        before = by_pillow(np.zeros((8 * rows, 8 * row), np.uint8), "L")
        parts = jpeg_format.take_apart(native_core.transcode(before, mcus))
        assert (parts.interval, len(parts.segments)) == (interval, segments)
        check_index(parts)


def test_no_index_where_a_segment_is_too_long_for_its_entry(native_core):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
    before = by_pillow(noise, "L", quality=100)
    parts = jpeg_format.take_apart(native_core.transcode(before, 2500))
    assert [len(segment) > 65535 for segment in parts.segments] == [True]
    assert parts.index() is None
    check_same_pixels(before, native_core.transcode(before, 2500))
    check_index(jpeg_format.take_apart(native_core.transcode(
        native_core.transcode(before, 2500), 50)))


def test_the_index_stands_behind_the_other_markers_and_replaces_an_old_one(
        native_core):
    before = by_pillow(scene(40, 60), comment=b"said")
    once = native_core.transcode(before)
    codes = [code for code, _ in jpeg_format.take_apart(once).markers]
    assert codes[:4] == [0xE0, 0xFE, APP9, DQT]
    other = native_core.transcode(once, 2)
    assert other == native_core.transcode(before, 2) != once
    check_index(jpeg_format.take_apart(other))


def marker(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(payload) + 2).to_bytes(2, "big") + payload


@pytest.mark.parametrize("kind", ["420", "progressive", "grey", "cmyk", "rgb"])
def test_markers_are_kept_byte_for_byte_in_their_order(native_core, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = KINDS[kind](scene(40, 60))
    long = bytes(range(256)) * 255 + bytes(253)  # as long as a marker can be: 65,533
    inserted = [(0xE1, b"Exif\0\0" + exif.tobytes()[6:]), (0xFE, b""), (0xFE, b"a \xff\xd9 b\0"),
                (0xE2, b"ICC_PROFILE\0\x01\x02" + long[:-14]),
                (0xE2, b"ICC_PROFILE\0\x02\x02rest"), (0xE9, b"GLUONTRICKSY"),
                (0xE9, b"GLUONTRICKS"), (0xEF, long), (0xE0, b"JFXX\0\x10thumb")]
    first = 2 + 2 + int.from_bytes(plain[4:6], "big")  # after JFIF or Adobe, or, for RGB, neither
    before = plain[:first] + b"".join(marker(*each) for each in inserted) + plain[first:]
    after = native_core.transcode(before)
    expected = [(code, payload) for code, payload in head_markers(before)
                if code & 0xF0 == 0xE0 or code == 0xFE]
    assert set(inserted) <= set(expected)
    assert jpeg_format.take_apart(after).kept() == expected
    assert native_core.transcode(after) == after
    assert Image.open(io.BytesIO(after)).getexif()[0x0112] == 6
    assert cv2.imdecode(np.frombuffer(after, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (60, 40)
    check_same_pixels(before, after)


def head_markers(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2:at + 4], "big")
        found.append((data[at + 1], data[at + 4:at + 2 + length]))
        at += 2 + length
    return found


def test_no_marker_is_added_that_readers_guess_colors_by(native_core):
    """JFIF and Adobe markers determine colors: adding one to a file without may change them."""
    for kind in ("420", "cmyk", "rgb", "grey"):
        data = KINDS[kind](scene(30, 30))
        while data[2:4] in (b"\xff\xe0", b"\xff\xee"):
            data = data[:2] + data[4 + int.from_bytes(data[4:6], "big"):]
        after = native_core.transcode(data)
        assert jpeg_format.take_apart(after).kept() == []
        check_same_pixels(data, after)


def test_huffman_tables_are_made_for_the_image(native_core):
    """The standard's tables have 162 AC symbols; a smooth image needs a few."""
    y, x = np.mgrid[0:64, 0:64]
    before = by_pillow((2 * y + x).astype(np.uint8), "L")
    sizes = [[len(payload) - 17 for payload in jpeg_format.take_apart(data).payloads(DHT)]
             for data in (before, native_core.transcode(before))]
    assert sizes[0] == [12, 162]
    assert max(sizes[1]) < 40


def test_bytes_behind_the_end_are_left_out(native_core):
    before = by_pillow(scene(30, 30))
    assert native_core.transcode(before + b"more \xff\xd8") == native_core.transcode(before)


def test_arithmetic_coding_becomes_huffman_coding(native_core):
    after = native_core.transcode(ARITHMETIC)
    check_same_pixels(ARITHMETIC, after)
    assert jpeg_format.take_apart(after).payloads(SOF0)
    assert Image.open(io.BytesIO(after)).getpixel((3, 0)) == 139


WHOLE = by_pillow(scene(60, 80))
PROGRESSIVE = by_pillow(scene(60, 80), progressive=True)


def without_last_scan(data: bytes) -> bytes:
    return data[:data.rindex(b"\xff\xc4")] + b"\xff\xd9"


@pytest.mark.parametrize(("data", "said"), [
    (b"", "Empty input file"), (b"no picture\n" * 40, "Not a JPEG file: starts with 0x6e 0x6f"),
    (bytes(500), "Not a JPEG file"), (cv2.imencode(".png", scene(9, 9))[1].tobytes(), "Not a JPEG"),
    (b"\xff\xd8", "damaged: Premature end of JPEG file"), (b"\xff\xd8\xff\xd9", "no image"),
    (WHOLE[:-2], "damaged: Premature end of JPEG file"), (WHOLE[:-1], "damaged: "),
    (WHOLE[:-300], "damaged: Premature end"), (WHOLE[:-300] + b"\xff\xd9", "damaged: Corrupt JPEG"),
    (WHOLE[:-300] + bytes(300), "damaged: "), (PROGRESSIVE[:-2], "damaged: Premature end"),
    (PROGRESSIVE[:len(PROGRESSIVE) // 2], "damaged: "),
    (without_last_scan(PROGRESSIVE), "damaged: some of its progressive scans are missing"),
    (WHOLE.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "precision 12"),
    (WHOLE.replace(b"\x08\x00\x3c\x00\x50", b"\x08\xff\xdc\xff\xdc"),
     "damaged: {} bytes cannot hold 65500 x 65500 pixels"),
    (WHOLE.replace(b"\x08\x00\x3c\x00\x50", b"\x08\xff\xff\xff\xff"), "Maximum supported image"),
    (WHOLE.replace(b"\xff\xc0", b"\xff\xc3"), "Unsupported JPEG process"),
    (TWELVE_BLOCKS, "Sampling factors too large for interleaved scan"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_transcoded_is_refused(native_core, data, said):
    with pytest.raises(ValueError, match=re.escape(said.format(len(data)))) as raised:
        native_core.transcode(data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mcus", [0, -5, 65536, 2**31 - 1])
def test_an_interval_that_no_jpeg_can_have_is_refused(native_core, mcus):
    with pytest.raises(ValueError, match=f"mcus {mcus}: must be from 1 to 65535"):
        native_core.transcode(WHOLE, mcus)


@pytest.mark.parametrize("whole", [WHOLE, PROGRESSIVE, KINDS["with restarts"](scene(60, 80))],
                         ids=["sequential", "progressive", "with restarts"])
def test_changed_bytes_are_refused_or_kept_as_they_look(native_core, whole):
    """If a flipped bit leaves a JPEG that decodes without a warning, its pixels must be kept."""
    rng, passed = np.random.default_rng(1), 0
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(2, len(data), rng.integers(1, 3)):
            data[at] ^= 1 << rng.integers(8)
        try:
            after = native_core.transcode(bytes(data))
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        passed += 1
        old, new = (cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR)
                    for each in (bytes(data), after))
        assert (old == new).all() if old is not None else new is None
        assert native_core.transcode(after) == after
    assert 30 < passed < 270


def test_threads_get_what_one_gets(native_core):
    pictures = [KINDS[kind](scene(90, 120, seed)) for kind in KINDS for seed in range(3)]
    pictures += [picture[:-40] for picture in pictures[::3]]

    def run(picture):
        try:
            return native_core.transcode(picture)
        except ValueError as error:
            return str(error)

    alone = [run(picture) for picture in pictures]
    assert sum(isinstance(each, str) for each in alone) == len(KINDS)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, pictures * 4)) == alone * 4


def test_other_threads_run_meanwhile(native_core):
    large = by_pillow(np.tile(scene(100, 100), (25, 25, 1)))
    done, turns = threading.Event(), 0
    thread = threading.Thread(target=lambda: (native_core.transcode(large), done.set()))
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        turns += 1
    thread.join()
    assert turns >= 4  # two or three if it kept the interpreter's lock


def test_memory_is_given_back(native_core):
    """Also if it fails, while reading or while writing."""
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    large = by_pillow(scene(300, 400), quality=100, subsampling=0)
    inputs = [large, large[:-900], TWELVE_BLOCKS, b"", PROGRESSIVE[:-2]]

    def rounds(count: int) -> None:
        for data in inputs * count:
            with contextlib.suppress(ValueError):
                native_core.transcode(data)

    rounds(10)
    before = resident()
    rounds(150)
    assert resident() - before < 5e6  # leaking 64 KiB each time would be 10 MB


def test_real_images(native_core, real_data):
    sizes, segments = [0, 0], 0
    with zipfile.ZipFile(real_data / "imagenet-samples-300.zip") as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
        assert len(names) == 300
        for name in names:
            before = archive.read(name)
            after = native_core.transcode(before)
            check_same_pixels(before, after)
            parts = jpeg_format.take_apart(after)
            check_index(parts)
            assert native_core.transcode(after) == after
            sizes = [sizes[0] + len(before), sizes[1] + len(after)]
            segments += len(parts.segments)
    assert segments > 300 * 20
    assert 0.95 < sizes[1] / sizes[0] < 1.04
