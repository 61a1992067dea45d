"""What the tests of complete samples share: sets of images, and samples made from them."""

import cv2
import jpeg_writer
import numpy as np

from gluon_tricks.augment.rng import SampleRng
from gluon_tricks.data import backends
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder
from gluon_tricks.data.record import RecordSet, RecordWriter

PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # values unchanged
PLAIN = {"color_jitter": 0.0, "pca_noise": 0.0, **PIXELS}
SEED = 7


def images(records, transform, backend="native", epoch=0, **options):
    """Of all records in order: (records, 3, size, size)."""
    with RecordLoader(records, transform, EvalOrder(len(records), 16), backend=backend, seed=SEED,
                      workers=2, **options) as loader:
        assert loader.backend == backend
        return np.concatenate([batch.images.copy() for batch in loader.epoch(epoch)])


def pack(prefix, pictures):
    with RecordWriter(prefix) as records:
        for key, picture in enumerate(pictures):
            records.write(key, 0, picture)
    return RecordSet(prefix.with_suffix(".rec"))


def natively(core, records, transform, **options):
    """The same, and which of them the native decoder left to OpenCV."""
    indices = np.arange(len(records))
    out = np.empty((len(records), 3, transform.size, transform.size), np.float32)
    job = backends.native_job(records, transform, transform.draw(SampleRng(SEED, 0, indices)),
                              indices, out, channels_last=False,
                              **{"dct_shortcut": False, **options})
    return out, job.run(0, len(records))


def smooth(height, width, seed=0):
    """(height, width, 3) uint8 whose chroma is nearly the same however it is upsampled."""
    few = np.random.default_rng([seed, height, width]).integers(0, 256, (3, 3, 3), np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC)


def exif(orientation, order="<", kind=3, others=()):
    """An APP1 marker's payload."""
    def number(value, size):
        return value.to_bytes(size, "little" if order == "<" else "big")

    entries = [*others, number(0x0112, 2) + number(kind, 2) + number(1, 4)
               + number(orientation, 2) + bytes(2)]
    return b"".join([b"Exif\0\0", b"II" if order == "<" else b"MM", number(42, 2), number(8, 4),
                     number(len(entries), 2), *entries, bytes(4)])


def with_exif(jpeg, *payloads):
    return jpeg[:2] + b"".join(jpeg_writer.marker(0xE1, each) for each in payloads) + jpeg[2:]
