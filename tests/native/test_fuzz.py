"""Damaged JPEGs: the native decoder must refuse them or make an image, nothing else."""

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import cv2
import jpeg_format
import numpy as np
import pytest
from jpeg_writer import by_opencv, by_pillow
from PIL import Image

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data import backends, native
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.data.transforms import EvalTransform, TrainTransform

SOURCES = Path(native.__file__).parent.parent / "_native"
DRIVER = Path(__file__).with_name("fuzz_driver.cpp")
DECODER = ["header", "entropy", "idct", "planes", "resample", "color", "sample"]
SANITIZED = ["-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all",
             "-fsanitize=address,undefined,float-cast-overflow", "-D_GLIBCXX_ASSERTIONS",
             "-D_GLIBCXX_SANITIZE_VECTOR"]
INPUTS, PROCESSES = 20_000, 2
SAMPLINGS = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411]


def scene(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: waves with noise, so that many coefficients are not 0."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 7), np.cos(y / 5), np.sin((x + y) / 9)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 20, waves.shape)
    return np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8)


def kinds(image: np.ndarray) -> list[bytes]:
    """JPEGs of every kind that the decoder supports."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return [*(by_pillow(image, subsampling=factor) for factor in range(3)),
            *(by_opencv(image, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, each) for each in SAMPLINGS),
            by_pillow(image, "L"), by_pillow(image, optimize=True), by_pillow(image, quality=5),
            by_pillow(image, quality=100, subsampling=0), by_pillow(image, exif=exif),
            by_opencv(image, cv2.IMWRITE_JPEG_RST_INTERVAL, 3)]


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    """Sound JPEGs; also with restart segments and their index, if they can be made."""
    found = [picture for shape in ((1, 1), (17, 33), (64, 48), (100, 171))
             for picture in kinds(scene(*shape))]
    found.append(by_pillow(scene(480, 640)))
    if native.why_not() is None:
        found += [native.core().transcode(picture) for picture in found]
    return [*found, by_pillow(scene(40, 40), progressive=True), by_pillow(scene(40, 40), "CMYK")]


def build(folder: Path, *flags: str) -> Path:
    """The fuzzing program, compiled with sanitizers."""
    compiler = shutil.which("g++")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("g++ is missing: apt-get install g++")
        pytest.skip("needs a compiler: apt-get install g++")
    program = folder / "fuzz"
    done = subprocess.run(
        [compiler, *SANITIZED, *flags, f"-I{SOURCES}", str(DRIVER),
         *(str(SOURCES / f"{name}.cpp") for name in DECODER), "-o", str(program)],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def fuzz(program: Path, seeds: list[bytes], inputs: int) -> list[dict[str, int]]:
    """Run the program in several processes, on a part of the inputs each; returns their counts."""
    file = program.with_name("seeds")
    file.write_bytes(b"".join(struct.pack("<I", len(seed)) + seed for seed in seeds))
    part = inputs // PROCESSES
    running = [subprocess.Popen(
        [program, file, "1", str(i * part), str(part)], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True) for i in range(PROCESSES)]
    counts = []
    try:
        for process in running:
            output, _ = process.communicate(timeout=1800)
            assert process.returncode == 0, output
            print(output.strip())
            counts.append({name: int(number)
                           for name, number in re.findall(r"(\w+) (\d+)", output)})
    finally:
        for process in running:
            process.kill()
            process.wait()
    return counts


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "flags"), [(INPUTS, []), (INPUTS // 4, ["-U__SSE2__"])],
                         ids=["as built", "portable code"])
def test_sanitizers_find_nothing(seeds, tmp_path, inputs, flags):
    """No fault, no hang, bounded memory; and many are decoded, so that all stages are reached."""
    counts = fuzz(build(tmp_path, *flags), seeds, inputs)
    assert sum(count["inputs"] for count in counts) == inputs
    assert sum(count["decoded"] for count in counts) > 0.1 * inputs
    assert sum(count["refused"] for count in counts) > 0.1 * inputs


def damage(rng: np.random.Generator, picture: bytes, other: bytes) -> bytes:
    """Damaged in one of several ways, or not at all."""
    data = bytearray(picture)
    scan = picture.find(b"\xff\xda")
    at, end = sorted(rng.integers(0, len(data) + 1, 2))
    kind = rng.integers(9)
    if kind == 0:
        del data[at:]
    elif kind == 1:
        del data[at:end]
    elif kind == 2:
        data[at:at] = other[at:end]
    elif kind == 3:
        data[scan:] = other[other.find(b"\xff\xda"):]
    elif kind == 4:
        data[2 * rng.integers(2):] = rng.bytes(len(data))
    elif kind == 5:
        frame = picture.find(b"\xff\xc0") + 5
        data[frame:frame + 4] = struct.pack(
            ">HH", *rng.choice([0, 1, 9, 30, 200, 65500], 2, p=[.05, .19, .19, .3, .25, .02]))
    elif kind < 8:  # bytes of the header, of the image
        low, high = (2, scan) if kind == 6 else (scan, len(data))
        for place in rng.integers(low, high, 4):
            data[place] = data[place] ^ 1 << rng.integers(8)
    return bytes(data)


@pytest.fixture(scope="module")
def damaged(seeds, tmp_path_factory) -> Path:
    """A .rec of 300 damaged images."""
    rng = np.random.default_rng(5)
    prefix = tmp_path_factory.mktemp("damaged") / "set"
    small = [seed for seed in seeds if len(seed) < 20_000]
    with RecordWriter(prefix) as writer:
        for key in range(300):
            picture, other = (small[i] for i in rng.integers(0, len(small), 2))
            writer.write(key, 0, damage(rng, picture, other))
    return prefix.with_suffix(".rec")


TRANSFORMS = {
    "resized": TrainTransform(24, pca_noise=0), "antialias": TrainTransform(33, antialias=True,
                                                                            pca_noise=0),
    "padded": TrainTransform(16, padding=4, pca_noise=0), "centered": EvalTransform(24, 30),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_damaged_record_gives_an_image_or_is_left_to_opencv(
        native_core, damaged, transform, layout):
    """And the loader yields what either can make, and names the rest."""
    side = transform.size
    shape = (3, side, side) if layout == "NCHW" else (side, side, 3)
    with RecordSet(damaged) as records:
        count = len(records)
        images = np.full((count, *shape), np.nan, np.float32)
        everything = np.arange(count)
        job = backends.native_job(
            records, transform, transform.draw(SampleRng(0, 0, everything)), everything, images,
            channels_last=layout == "NHWC", dct_shortcut=True)
        left = set(job.run(0, count))
        made = sorted(set(range(count)) - left)
        with RecordLoader(records, transform, EvalOrder(count, 32), workers=2, backend="native",
                          layout=layout, dct_shortcut=True, skip_damaged=True) as loader:
            batches = list(loader.epoch())
    print(f"{len(made)} made, {len(left)} left, {len(loader.skipped)} skipped")
    assert len(made) > 0.2 * count
    assert len(left) > len(loader.skipped) > 0.1 * count
    assert loader.skipped <= left
    indices = np.concatenate([batch.indices for batch in batches])
    assert sorted([*indices, *loader.skipped]) == list(everything)

    loaded = np.concatenate([batch.images for batch in batches])
    channel = (3, 1, 1) if layout == "NCHW" else 3
    pixels = (loaded * np.reshape(transform.std, channel) + np.reshape(transform.mean, channel))
    assert pixels.min() > -0.01  # and no NaN
    assert pixels.max() < 255.01
    same = np.isin(indices, made)
    assert (loaded[same] == images[indices[same]]).all()


def test_sides_of_65500_are_refused_by_name(native_core, tmp_path):
    whole = by_pillow(scene(40, 40))
    frame = whole.find(b"\xff\xc0") + 5
    with RecordWriter(tmp_path / "set") as writer:
        writer.write(7, 0, whole[:frame] + struct.pack(">HH", 65500, 65500) + whole[frame + 4:])
    with (RecordSet(tmp_path / "set.rec") as records,
          RecordLoader(records, EvalTransform(24, 30), EvalOrder(1, 1), workers=1,
                       backend="native") as loader,
          pytest.raises(ValueError, match=r"key 7 at byte 0: .*65500 x 65500 pixels")):
        next(loader.epoch())


def test_what_the_transcode_makes_of_damaged_images_is_sound(native_core, seeds):
    """It may refuse; else OpenCV sees the same pixels and a parser in Python a complete JPEG."""
    rng, passed = np.random.default_rng(6), 0
    small = [seed for seed in seeds if len(seed) < 20_000]
    for _ in range(600):
        picture, other = (small[i] for i in rng.integers(0, len(small), 2))
        data = damage(rng, picture, other)
        try:
            after = native_core.transcode(data, int(rng.integers(1, 20)))
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        passed += 1
        parts = jpeg_format.take_apart(after)
        assert parts.index() == [len(segment) for segment in parts.segments]
        old, new = (cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR)
                    for each in (data, after))
        assert (old == new).all() if old is not None else new is None
    assert 60 < passed < 540
