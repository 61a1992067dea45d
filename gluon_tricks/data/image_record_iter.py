"""MXNet's own mx.io.ImageRecordIter behind RecordLoader's interface, its evaluation made exact.

It is here to train as GluonCV's train_imagenet.py does. What comes with it and cannot be changed:

- Its random numbers are its own. `seed` fixes the order of the records, not the crops and colours,
  which depend on which thread takes which picture. A sample cannot be made again, an epoch cannot
  be asked for by its number, and a run that resumes goes on with other samples.
- It does not say which record a row is (DataBatch.index is always 0).
- A JPEG that is cut short or damaged amid its data makes no error: the rows that cannot be decoded
  hold whatever was in memory. `scripts/im2rec.py --verify` finds those that are cut short.
- It reads up to about 20 batches ahead, whatever their size.
- Each iterator leaves some MiB behind when it goes, so there is one for the life of the loader.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import mxnet as mx
import numpy as np

from gluon_tricks.data.loader import Batch
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.record import RecordSet
from gluon_tricks.data.threaded import SkippedReport
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import InputError

_VERIFY = "scripts/im2rec.py --verify lists what is damaged"


class ImageRecordLoader(SkippedReport):
    """Batches of one mx.io.ImageRecordIter; made by `train` or `evaluation`.

    Both raise InputError for an order of several ranks (ImageRecordIter deals records out by other
    rules) and for a path that MXNet would take for something else. `skipped` stays empty:
    ImageRecordIter leaves no damaged record out.
    """

    backend = "mxnet"
    backend_note = "its random numbers are its own: no two runs are the same"

    def __init__(self, records: RecordSet, order: TrainOrder | EvalOrder, *, rows: int,
                 settings: dict[str, Any]):
        """rows: how many of ImageRecordIter's rows are used in a pass."""
        if order.world_size > 1:
            raise InputError(f"--data-backend mxnet cannot share {records.path} among "
                             f"{order.world_size} processes: use another --data-backend")
        for path in (records.path, records.idx_path):
            if set("#;?") & set(str(path)):
                raise InputError(f"{path}: MXNet cannot open a path with one of # ; ? in it: "
                                 "rename it, or use another --data-backend")
        self.order, self.records = order, records
        self.skipped: set[int] = set()
        self._rows = rows
        self._settings = {
            "path_imgrec": str(records.path), "path_imgidx": str(records.idx_path),
            "batch_size": order.batch_size, "verbose": False,
            # Wrapping into the next pass would lose where that one starts. Unwrapped, the last
            # batch ends in leftovers, reported as pictures; `rows` tells where they begin.
            "round_batch": False, **settings}
        self._iterator = None
        self._passes = 0

    @classmethod
    def train(cls, records: RecordSet, order: TrainOrder, *, size: int = 224,
              area: tuple[float, float] = (0.08, 1.0), color_jitter: float = 0.4,
              pca_noise: float = 0.1, mean: tuple[float, ...], std: tuple[float, ...],
              workers: int = 4, seed: int = 0, openmp: bool = False) -> "ImageRecordLoader":
        """GluonCV's training pictures; of `order`, the number of steps and rows holds.

        With `openmp`, OpenMP's threads decode in place of `workers`, of which ImageRecordIter uses
        no more than half the cores.

        color_jitter is that of brightness, contrast and saturation. Every epoch has each record at
        most once, in a new order. `Batch.indices` are all -1: not known.
        """
        return cls(records, order, rows=order.steps * order.batch_size, settings={
            **_common(size, mean, std, workers), "shuffle": True, "seed": seed % (1 << 31),
            "rand_mirror": True, "random_resized_crop": True,
            "min_random_area": area[0], "max_random_area": area[1],
            "min_aspect_ratio": 3 / 4, "max_aspect_ratio": 4 / 3,
            "brightness": color_jitter, "contrast": color_jitter, "saturation": color_jitter,
            "pca_noise": pca_noise, **({"ctx": "cpu"} if openmp else {})})

    @classmethod
    def evaluation(cls, records: RecordSet, order: EvalOrder, *, size: int = 224,
                   resize: int | None = 256, mean: tuple[float, ...], std: tuple[float, ...],
                   workers: int = 4) -> "ImageRecordLoader":
        """Each record exactly once a pass, in the order of the .rec, the last batch smaller.

        With `resize` (the length of the shorter edge), ImageRecordIter divides by zero, and the
        process dies, where MXNet cannot decode a picture. So each is decoded once here, which
        takes as long as a pass; the first that cannot be decoded raises InputError.
        """
        loader = cls(records, order, rows=len(records), settings={
            **_common(size, mean, std, workers), "shuffle": False,
            **({"resize": resize} if resize else {})})
        if resize:
            _check_pictures(records, workers)
        return loader

    def __enter__(self) -> "ImageRecordLoader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop ImageRecordIter's threads. An epoch that is under way cannot go on."""
        self._iterator = None
        self._passes += 1

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The next pass's batches from `start_step` on; the steps before are made and dropped.

        `epoch` changes nothing: a pass follows the last one, wherever that ended. images (batch,
        3, size, size) float32. A new pass ends one that is under way, which then raises
        RuntimeError. Raises InputError where MXNet cannot read the .rec or decode a picture;
        batches before it may be missing, and later passes raise it again.
        """
        indices = self._indices()
        self._passes += 1
        current = self._passes
        size = self.order.batch_size
        for step, start in enumerate(range(0, self._rows, size)):
            if current != self._passes:
                raise RuntimeError("this pass has ended: another began, or the loader was closed")
            found = self._next(first=step == 0)
            if step < start_step:
                continue
            count = min(size, self._rows - start)
            labels = found.label[0].asnumpy().reshape(-1)[:count].astype(np.int32)
            yield Batch(found.data[0].asnumpy()[:count], labels, indices[start:start + count],
                        step)

    def _indices(self) -> np.ndarray:
        """Which record each row of a pass is: (rows,) int64; -1 where shuffled."""
        if self._settings["shuffle"]:
            return np.full(self._rows, -1, np.int64)
        return np.argsort(self.records.offsets)  # ImageRecordIter sorts the .idx so

    def _next(self, *, first: bool) -> mx.io.DataBatch:
        """ImageRecordIter's next batch, the first one of a pass where asked so."""
        try:
            if self._iterator is None:
                self._iterator = mx.io.ImageRecordIter(**self._settings)
            elif first:
                self._iterator.reset()
            return self._iterator.next()
        except mx.base.MXNetError as error:
            raise InputError(f"{self.records.path}: ImageRecordIter fails on a record "
                             f"({_reason(error)}); {_VERIFY}") from error
        except StopIteration:
            raise InputError(f"{self.records.path} or its .idx was changed while it was in use: "
                             "begin again") from None


def _common(size: int, mean: tuple[float, ...], std: tuple[float, ...],
            workers: int) -> dict[str, Any]:
    return {"data_shape": (3, size, size), "preprocess_threads": workers,
            **{f"mean_{name}": value for name, value in zip("rgb", mean, strict=True)},
            **{f"std_{name}": value for name, value in zip("rgb", std, strict=True)}}


def _check_pictures(records: RecordSet, workers: int) -> None:
    """Raises InputError for the first record that the OpenCV inside MXNet does not decode."""
    def check(index: int) -> None:
        try:
            mx.image.imdecode(records.read(index)).wait_to_read()
        except mx.base.MXNetError as error:
            raise InputError(f"{records.name(index)}: MXNet cannot decode its picture "
                             f"({_reason(error)}); {_VERIFY}, or use another "
                             "--data-backend") from error

    with contextlib.closing(ordered_map(check, range(len(records)), workers)) as checks:
        for _ in checks:
            pass


def _reason(error: mx.base.MXNetError) -> str:
    """The one line of a message of MXNet's that says what went wrong."""
    return str(error).strip().splitlines()[-1].rpartition("rror: ")[2]
