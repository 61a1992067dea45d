"""A batch's work in the native decoder: files, threads, memory, and what it leaves to OpenCV."""

import os
import struct
import threading
import time

import cv2
import jpeg_writer
import numpy as np
import pytest
from jpeg_writer import encode, scene
from sampling import natively, pack, smooth

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data import backends
from gluon_tricks.data.record import RecordSet, frame
from gluon_tricks.data.transforms import EvalTransform


def test_a_label_behind_the_header_is_passed_over(native_core, tmp_path):
    """OpenCV's pixels would be right too, but then each image is made in Python."""
    jpeg = encode(smooth(40, 50), "420")
    (tmp_path / "b.rec").write_bytes(frame(struct.pack("<IfQQf", 1, 0, 0, 0, 2) + jpeg))
    (tmp_path / "b.idx").write_text("0\t0\n")
    with pack(tmp_path / "a", [jpeg]) as plain, RecordSet(tmp_path / "b.rec") as labelled:
        (a, _), (b, left) = (natively(native_core, records, EvalTransform(24, 28))
                             for records in (plain, labelled))
    assert left == []
    assert np.array_equal(a, b)


def job_of(records, transform, count=1):
    indices = np.zeros(count, np.int64)
    out = np.empty((count, 3, transform.size, transform.size), np.float32)
    draws = transform.draw(SampleRng(0, 0, indices))
    return backends.native_job(records, transform, draws, indices, out, channels_last=False,
                               dct_shortcut=False)


def test_a_job_has_a_descriptor_of_its_own_and_gives_it_back(native_core, tmp_path):
    with pack(tmp_path / "a", [encode(smooth(40, 50), "420")]) as records:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            assert job_of(records, EvalTransform(24, 28)).run(0, 1) == []
        assert len(os.listdir("/proc/self/fd")) == before
        job = job_of(records, EvalTransform(24, 28))
        records.close()
        assert job.run(0, 1) == []


@pytest.mark.alone
def test_other_threads_run_while_samples_are_made(native_core, tmp_path):
    jpeg = encode(cv2.resize(scene(200, 300), (3456, 2304)), "420")
    with pack(tmp_path / "a", [jpeg]) as records:
        job, done, turns = job_of(records, EvalTransform(), 4), threading.Event(), 0
        thread = threading.Thread(target=lambda: (job.run(0, 4), done.set()))
        thread.start()
        while not done.is_set():
            time.sleep(0.001)
            turns += 1
        thread.join()
    assert turns >= 8  # two or three if it kept the interpreter's lock


def flat(height, width, count=0):
    """A gray JPEG of any size whose blocks take two bits: `count` bytes of them."""
    code = jpeg_writer.Code([0], [1])
    plane = jpeg_writer.Plane(1, 1, np.zeros((1, 1, 64), int))
    jpeg = jpeg_writer.write(8, 8, [plane], np.ones(64, int), code, code)
    at = jpeg.index(b"\xff\xc1") + 5
    head = jpeg[:at] + struct.pack(">HH", height, width)
    return head + jpeg[at + 4:-3] + bytes(count) + jpeg[-2:]


def test_more_pixels_than_are_decoded_are_left_to_opencv_which_says_so(native_core, tmp_path):
    with pack(tmp_path / "a", [flat(1 << 13, 1 << 14, 600_000),
                               flat((1 << 13) + 1, 1 << 14, 600_000)]) as records:
        _, left = natively(native_core, records, EvalTransform(size=8, resize=None))
    assert left == [1]


def test_a_record_that_was_changed_meanwhile_is_left_to_the_record_set(native_core, tmp_path):
    jpegs = [encode(smooth(40, 50, seed), "420") for seed in range(3)]
    with pack(tmp_path / "a", jpegs) as records:
        with open(tmp_path / "a.rec", "r+b") as file:
            file.write(b"\0")  # of the magic number
            file.seek(int(records.offsets[1]) + 4)
            file.write(struct.pack("<I", int(records.lengths[1]) - 4))
        _, left = natively(native_core, records, EvalTransform(24, 28))
    assert left == [0, 1]


MEMORY = """
    import numpy as np
    from gluon_tricks.augment.rng import SampleRng
    from gluon_tricks.data.backends import native_job
    from gluon_tricks.data.transforms import EvalTransform
    from gluon_tricks.data.record import RecordSet
    def memory(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024
    transform = EvalTransform(size=8, resize=9)
    with RecordSet({path!r}) as records:
        for index in {indices}:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # reset the peak
            out, indices = np.empty((1, 3, 8, 8), np.float32), np.array([index])
            job = native_job(records, transform, None, indices, out, channels_last=False,
                             dct_shortcut=False)
            left = job.run(0, 1)
            print(len(left), memory("VmRSS:"), memory("VmHWM:"))
"""


def memory_of(run_python, path, indices):
    """(records left to OpenCV, MiB afterwards, MiB at most) of each, one after another.

    In its own process: one that has freed much memory before allocates none for a large buffer.
    """
    done = run_python(MEMORY.format(path=str(path), indices=indices))
    assert done.returncode == 0, done.stderr
    return [tuple(map(float, line.split())) for line in done.stdout.splitlines()]


def test_the_memory_of_a_large_image_is_given_back(native_core, tmp_path, run_python):
    large = cv2.imencode(".jpg", np.zeros((10_000, 10_000), np.uint8))[1].tobytes()
    with pack(tmp_path / "a", [encode(smooth(40, 50), "420"), large, large + bytes(60_000_000)]):
        found = memory_of(run_python, tmp_path / "a.rec", [0, 1, 0, 2, 0])
    assert [left for left, _, _ in found] == [0] * 5
    before, decoded, small, read, again = (resident for _, resident, _ in found)
    assert min(decoded, read) - before > 40
    assert max(small, again) - before < 20


def test_a_header_that_says_more_than_the_file_can_hold_takes_no_memory(native_core, tmp_path,
                                                                         run_python):
    with pack(tmp_path / "a", [flat(11_000, 11_000, 100), encode(smooth(40, 50), "420")]):
        (_, before, _), (left, _, most) = memory_of(run_python, tmp_path / "a.rec", [1, 0])
    assert left == 1
    assert most < before + 60


def test_images_too_narrow_to_be_resized_are_left_to_opencv_which_says_so(native_core, tmp_path):
    """Shorter edge 256: 8192 pixels of 4 make 2^27; one more column is too many."""
    with pack(tmp_path / "a", [encode(smooth(4, 8192), "444"),
                               encode(smooth(4, 8193), "444")]) as records:
        assert natively(native_core, records, EvalTransform())[1] == [1]
