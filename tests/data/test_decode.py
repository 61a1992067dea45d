"""Decoding against Pillow, and what must be refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from gluon_tricks.data.decode import MAX_PIXELS, decode, decode_whole


def smooth(height=40, width=56):
    """An image that JPEG keeps well: red grows downwards, green to the right, blue falls."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 5, x * 4, 250 - 4 * x], axis=-1).astype(np.uint8)


def saved(image, kind, **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), [
    ("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}),
])
def test_lossless_formats_give_the_exact_rgb_pixels(kind, options):
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    out = decode(saved(image, kind, **options))
    assert out.dtype == np.uint8
    assert out.tolist() == image.tolist()


@pytest.mark.parametrize("options", [
    {"quality": 95}, {"quality": 60}, {"progressive": True}, {"subsampling": 0},
])
def test_jpeg_agrees_with_pillow(options):
    data = saved(smooth(), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data) - expected).max() <= 3
    assert decode_whole(data).tolist() == decode(data).tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_gray_becomes_three_equal_channels(kind):
    out = decode(saved(Image.fromarray(smooth()[..., 0]), kind))
    assert out.shape == (40, 56, 3)
    assert (out[..., 0] == out[..., 1]).all()
    assert (out[..., 0] == out[..., 2]).all()
    assert np.abs(out[..., 0].astype(int) - smooth()[..., 0]).max() <= 3


def test_cmyk_jpeg_keeps_its_colors():
    """ImageNet has about two dozen of them."""
    data = saved(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data).astype(int) - smooth()).mean() < 5


def test_alpha_palette_and_16_bit_pngs_become_rgb():
    image = Image.fromarray(smooth())
    assert decode(saved(image.convert("RGBA"), "PNG")).tolist() == smooth().tolist()
    few = image.quantize(16)
    assert decode(saved(few, "PNG")).tolist() == np.asarray(few.convert("RGB")).tolist()
    deep = Image.fromarray(smooth()[..., 0].astype(np.uint16) * 257)
    assert (decode(saved(deep, "PNG")) == smooth()[..., :1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(smooth(), "JPEG", quality=100, subsampling=0, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    out = decode(data)
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() <= 3


@pytest.mark.parametrize("data", [
    b"", b"\0", b"no picture\n" * 100, b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n",
    b"GIF89a", bytes(5000), b"\xff" * 5000,
])
def test_what_is_no_image_is_refused(data):
    for function in (decode, decode_whole):
        with pytest.raises(ValueError, match=r"truncated|no(t an)? image"):
            function(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_a_jpeg_cut_anywhere_is_not_whole(options):
    data = saved(np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8), "JPEG",
                 **options)
    for length in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"truncated|not an image"):
            decode_whole(data[:length])
    with pytest.raises(ValueError, match=r"truncated|not an image"):
        decode_whole(data[:-1])


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg():
    thumbnail = b"Exif\0\0" + saved(smooth(20, 28), "JPEG", quality=30)
    data = saved(smooth(), "JPEG", quality=20)
    data = b"\xff\xd8\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    decode_whole(data)
    start = data.rindex(b"\xff\xda")
    for length in range(start, len(data), 5):
        with pytest.raises(ValueError, match=r"truncated|not an image"):
            decode_whole(data[:length])


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(length):
    """Phones add previews and notes there, disks zeros; every viewer shows such files."""
    data = saved(smooth(), "JPEG")
    assert decode_whole(data + bytes(length)).tolist() == decode(data).tolist()


def png(pixels, colour_type, *chunks) -> bytes:
    """A PNG of (height, width, channels) pixels of 8 or, in two bytes, 16 bits."""
    bits = 8 * pixels.itemsize
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", size), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pngs_of_every_kind_keep_the_upper_8_bits_and_drop_alpha(colour_type, channels, dtype):
    pixels = np.random.default_rng(2).integers(0, np.iinfo(dtype).max + 1, (9, 7, channels), dtype)
    colours = (pixels >> (8 if dtype is np.uint16 else 0))[..., :3 if channels > 2 else 1]
    data = png(pixels, colour_type)
    assert decode(data).tolist() == np.broadcast_to(colours, (9, 7, 3)).tolist()


@pytest.mark.parametrize("transparent", [None, 3, bytes(range(0, 256, 16))], ids=str)
@pytest.mark.parametrize("bits", [4, 8])
def test_palette_pngs_show_their_colors_transparent_or_not(transparent, bits):
    few = Image.fromarray(smooth()).quantize(16)
    options = {} if transparent is None else {"transparency": transparent}
    data = saved(few, "PNG", bits=bits, **options)
    assert (b"tRNS" in data) == (transparent is not None)
    assert decode(data).tolist() == np.asarray(few.convert("RGB")).tolist()


def test_a_color_declared_transparent_stays():
    transparent = smooth()[3, 3].astype(">u2").tobytes()
    assert decode(png(smooth(), 2, (b"tRNS", transparent))).tolist() == smooth().tolist()


def cmyk():
    rng = np.random.default_rng(4)
    return Image.merge("CMYK", [Image.fromarray(rng.integers(0, 256, (4, 6), np.uint8)).resize(
        (56, 40), Image.Resampling.BICUBIC) for _ in range(4)])


@pytest.mark.parametrize("kind", ["CMYK", "no Adobe segment", "YCCK"])
def test_four_colors_are_printed_on_white(kind):
    """RGB is (255 - ink) * (255 - black) / 255, the file stores 255 minus each."""
    data = saved(cmyk(), "JPEG", quality=100, subsampling=0)
    at = data.index(b"Adobe") - 4
    if kind == "no Adobe segment":
        data = data[:at] + data[at + 16:]
    elif kind == "YCCK":
        data = data[:at + 15] + b"\x02" + data[at + 16:]
    stored = np.asarray(Image.open(io.BytesIO(data))).astype(float)  # Pillow undoes the inversion
    expected = (255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255
    out = decode(data)
    assert np.abs(out - expected).max() <= 4
    assert np.abs(out - np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
                  ).max() <= 4
    if kind == "CMYK":
        truth = np.asarray(cmyk()).astype(float)
        assert np.abs(out - (255 - truth[..., :3]) * (255 - truth[..., 3:]) / 255).mean() < 3


def exif_with(entry, order="<", offset=8, magic=42, entries=1) -> bytes:
    """The body of an EXIF segment with one entry: tag, type, count and 4 bytes of value."""
    tag, kind, count, value = entry
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", magic, offset)
    return b"Exif\0\0" + start + struct.pack(order + "HHHI", entries, tag, kind, count) \
        + value + bytes(4)


def with_app1(*bodies) -> bytes:
    data = saved(smooth(), "JPEG", quality=100, subsampling=0)
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
                               for body in bodies) + data[2:]


TURNS = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1],
         4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
         7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: np.rot90}
SHORT = (0x0112, 3, 1)


def turned_by(data):
    """Which of the eight orientations `decode` has obeyed; the images of all eight differ."""
    upright = decode(saved(smooth(), "JPEG", quality=100, subsampling=0))
    turn, = (turn for turn, make in TURNS.items()
             if make(upright).tolist() == decode(data).tolist())
    return turn


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_of_both_byte_orders(orientation, order):
    body = exif_with((*SHORT, struct.pack(order + "HH", orientation, 0)), order)
    assert turned_by(with_app1(body)) == orientation
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(with_app1(body))))
    assert np.abs(decode(with_app1(body)) - np.asarray(upright).astype(int)).max() <= 3


SIX = exif_with((*SHORT, b"\6\0\0\0"))


@pytest.mark.parametrize("body", [
    *(SIX[:length] for length in (0, 3, 6, 8, 12, 14, 16, 20, 25)),
    exif_with((*SHORT, bytes(4))), exif_with((*SHORT, b"\x09\0\0\0")),
    exif_with((*SHORT, b"\xff\xff\0\0")), exif_with((0x0112, 2, 2, b"6\0\0\0")),
    exif_with((0x0112, 4, 1, b"\0\0\0\6"), ">"), exif_with((0x0100, 3, 1, b"\6\0\0\0")),
    exif_with((*SHORT, b"\6\0\0\0"), offset=9999), exif_with((*SHORT, b"\6\0\0\0"), offset=0),
    exif_with((*SHORT, b"\6\0\0\0"), offset=0xffffffff), exif_with((*SHORT, b"\6\0\0\0"), magic=43),
    exif_with((*SHORT, b"\6\0\0\0"), entries=0), b"Exif\0\0" + b"XX" + SIX[8:],
    exif_with((0x011a, 5, 1, b"\xff\xff\xff\x7f"), entries=65535), b"Exif\0\0" + b"\xa5" * 50,
], ids=lambda body: body.hex()[12:])
def test_broken_exif_turns_nothing(body):
    assert turned_by(with_app1(body)) == 1


@pytest.mark.parametrize(("bodies", "turn"), [
    ([exif_with((0x0112, 4, 1, b"\6\0\0\0"))], 6),  # a 32-bit number
    ([exif_with((0x0112, 1, 1, b"\6\0\0\0"))], 6),  # an 8-bit one
    ([exif_with((*SHORT, b"\6\0\0\0"), entries=500)], 6),  # found before the entries end
    ([SIX, exif_with((*SHORT, b"\3\0\0\0"))], 6),  # the first counts
    ([b"http://ns.adobe.com/xap/1.0/\0<x/>", SIX], 1),  # and only the first
])
def test_odd_exif_is_read_as_opencv_reads_it(bodies, turn):
    assert turned_by(with_app1(*bodies)) == turn


def test_a_png_is_turned_by_its_exif_and_a_webp_is_not():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(saved(smooth(), "PNG", exif=exif))
    assert turned.tolist() == np.rot90(smooth(), -1).tolist()
    still = decode(saved(smooth(), "WEBP", lossless=True, exif=exif))
    assert still.tolist() == smooth().tolist()


def test_the_first_image_of_an_animation():
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    for kind in ("PNG", "WEBP"):
        data = saved(first, kind, save_all=True, append_images=[second], lossless=True)
        assert decode(data).tolist() == smooth().tolist()


@pytest.mark.parametrize("sides", [(65500, 65500), (1 + (1 << 12), 1 << 15), (65535, 2049)])
def test_huge_images_are_refused_by_their_header(sides, monkeypatch):
    monkeypatch.setattr("gluon_tricks.data.decode.cv2.imdecode", None)
    height, width = sides
    data = saved(smooth(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    wrong = data[:at] + struct.pack(">HH", height, width) + data[at + 4:]
    pixels = saved(smooth(), "PNG")
    for huge in (wrong, pixels[:16] + struct.pack(">II", width, height) + pixels[24:]):
        for function in (decode, decode_whole):
            with pytest.raises(ValueError, match=f"{width} x {height} pixels .* {MAX_PIXELS}"):
                function(huge)
    assert MAX_PIXELS == 1 << 27


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PPM", "JPEG2000"])
def test_other_formats_are_refused(kind):
    with pytest.raises(ValueError, match="not a JPEG, PNG, BMP or WebP"):
        decode(saved(smooth(), kind))


def test_a_png_whose_chunk_says_two_gigabytes_never_reaches_opencv(monkeypatch):
    monkeypatch.setattr("gluon_tricks.data.decode.cv2.imdecode", None)
    data = saved(smooth(), "PNG")
    at = data.index(b"IDAT") - 4
    with pytest.raises(ValueError, match="its PNG is truncated"):
        decode(data[:at] + b"\x7f\xff\xff\xff" + data[at + 4:])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_images_cut_anywhere_are_not_whole(kind):
    data = saved(smooth(), kind)
    for length in [*range(0, len(data), 97), len(data) - 1]:
        with pytest.raises(ValueError, match=r"truncated|not an image"):
            decode_whole(data[:length])


@pytest.mark.parametrize("lost", [1, 2, 50])
def test_zeros_in_place_of_a_jpegs_end_are_not_whole(lost):
    """As after an interrupted copy: OpenCV fills the rest with gray, without an error."""
    data = saved(smooth(60, 60), "JPEG")
    with pytest.raises(ValueError, match="truncated"):
        decode_whole(data[:-lost] + bytes(lost + 300))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("behind", [
    b"\xff\xda\1\2", b"\xff\xd8\xff\xe1\xff\xff" + bytes(90), b"\0\0\0\x18ftypmp42\xff\xda" * 9,
    b"\xff" * 7], ids=["a scan", "another picture's start", "a video", "fill bytes"])
def test_what_follows_a_jpegs_end_does_not_count(behind, progressive):
    """Phones append a video to an image, and its bytes may be anything."""
    data = saved(smooth(60, 60), "JPEG", progressive=progressive)
    assert (decode_whole(data + behind) == decode_whole(data)).all()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_preview_alone_is_whole_is_cut_short(progressive):
    preview = saved(smooth(8, 8), "JPEG")
    data = saved(smooth(60, 60), "JPEG", progressive=progressive, exif=b"Exif\0\0" + preview)
    decode_whole(data)
    for length in (len(preview) + 60, len(data) // 2, len(data) - 40, len(data) - 2, len(data) - 1):
        with pytest.raises(ValueError):
            decode_whole(data[:length])
