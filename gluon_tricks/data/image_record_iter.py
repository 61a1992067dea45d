"""MXNet's own mx.io.ImageRecordIter with RecordLoader's interface, and exact in evaluation.

It is for training as GluonCV's train_imagenet.py does. Its limitations cannot be changed here:

- Its random numbers are its own. `seed` fixes the order of the records, not crops and colors,
  which depend on which thread takes which image. A sample cannot be made again, an epoch cannot
  be selected by its number, and a resumed run continues with different samples.
- It does not say which record a row is (DataBatch.index is always 0).
- A JPEG that is truncated or damaged in its data raises no error: rows that cannot be decoded hold
  whatever was in memory. `scripts/im2rec.py --verify` finds truncated ones.
- It reads up to about 20 batches ahead, whatever their size.
- Each iterator leaks some MiB, so the loader keeps one for its whole life.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import mxnet as mx
import numpy as np

from gluon_tricks.data.loader import Batch, SkippedReport
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.record import RecordSet
from gluon_tricks.data.threads import ordered_map
from gluon_tricks.errors import InputError

_VERIFY = "scripts/im2rec.py --verify lists what is damaged"


class ImageRecordLoader(SkippedReport):
    """Batches of one mx.io.ImageRecordIter; made by `train` or `evaluation`.

    Both raise InputError for an order of several ranks (ImageRecordIter shards records in its own
    way) and for a path that MXNet would misread. `skipped` stays empty: ImageRecordIter does not
    skip damaged records.
    """

    backend = "mxnet"
    backend_note = "its random numbers are its own: no two runs are the same"

    def __init__(self, records: RecordSet, order: TrainOrder | EvalOrder, *, rows: int,
                 settings: dict[str, Any]):
        """rows: how many of ImageRecordIter's rows a pass uses."""
        if order.world_size > 1:
            raise InputError(f"--data-backend mxnet cannot share {records.path} among "
                             f"{order.world_size} processes: use another --data-backend")
        for path in (records.path, records.idx_path):
            if set("#;?") & set(str(path)):
                raise InputError(f"{path}: MXNet cannot open a path that contains # ; or ?: "
                                 "rename it, or use another --data-backend")
        self.order, self.records = order, records
        self.skipped: set[int] = set()
        self._rows = rows
        self._settings = {
            "path_imgrec": str(records.path), "path_imgidx": str(records.idx_path),
            "batch_size": order.batch_size, "verbose": False,
            # Wrapping into the next pass would lose where that one starts. Unwrapped, the last
            # batch ends in leftovers, reported as images; `rows` says where they begin.
            "round_batch": False, **settings}
        self._iterator = None
        self._passes = 0

    @classmethod
    def train(cls, records: RecordSet, order: TrainOrder, *, size: int = 224,
              area: tuple[float, float] = (0.08, 1.0), color_jitter: float = 0.4,
              pca_noise: float = 0.1, mean: tuple[float, ...], std: tuple[float, ...],
              workers: int = 4, seed: int = 0, openmp: bool = False) -> "ImageRecordLoader":
        """GluonCV's training images; `order` gives only the number of steps and rows.

        With `openmp`, OpenMP threads decode instead of `workers`, of which ImageRecordIter uses at
        most half as many as there are cores.

        color_jitter applies to brightness, contrast and saturation. Every epoch has each record at
        most once, in a new order. `Batch.indices` are all -1: unknown.
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
        """Each record exactly once per pass, in the order of the .rec; the last batch is smaller.

        With `resize` (the length of the shorter edge), ImageRecordIter divides by zero and the
        process dies if MXNet cannot decode an image. So each is first decoded here once, which
        takes as long as a pass; the first that cannot be decoded raises InputError.
        """
        loader = cls(records, order, rows=len(records), settings={
            **_common(size, mean, std, workers), "shuffle": False,
            **({"resize": resize} if resize else {})})
        if resize:
            _check_images(records, workers)
        return loader

    def __enter__(self) -> "ImageRecordLoader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop ImageRecordIter's threads. An epoch in progress cannot continue."""
        self._iterator = None
        self._passes += 1

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The next pass's batches from `start_step` on; earlier steps are made and dropped.

        `epoch` is ignored: a pass follows the last one, wherever that ended. images (batch,
        3, size, size) float32. A new pass ends one in progress, which then raises RuntimeError.
        Raises InputError if MXNet cannot read the .rec or decode an image; batches before it may be
        missing, and later passes raise it again.
        """
        indices = self._indices()
        self._passes += 1
        current = self._passes
        size = self.order.batch_size
        for step, start in enumerate(range(0, self._rows, size)):
            if current != self._passes:
                raise RuntimeError("this pass has ended: another one began, or the loader was "
                                   "closed")
            found = self._next(first=step == 0)
            if step < start_step:
                continue
            count = min(size, self._rows - start)
            labels = found.label[0].asnumpy().reshape(-1)[:count].astype(np.int32)
            yield Batch(found.data[0].asnumpy()[:count], labels, indices[start:start + count],
                        step)

    def _indices(self) -> np.ndarray:
        """Which record each row of a pass is: (rows,) int64, -1 if shuffled."""
        if self._settings["shuffle"]:
            return np.full(self._rows, -1, np.int64)
        return np.argsort(self.records.offsets)  # ImageRecordIter sorts the .idx so

    def _next(self, *, first: bool) -> mx.io.DataBatch:
        """ImageRecordIter's next batch; with `first`, the first one of a pass."""
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
                             "start again") from None


def _common(size: int, mean: tuple[float, ...], std: tuple[float, ...],
            workers: int) -> dict[str, Any]:
    return {"data_shape": (3, size, size), "preprocess_threads": workers,
            **{f"mean_{name}": value for name, value in zip("rgb", mean, strict=True)},
            **{f"std_{name}": value for name, value in zip("rgb", std, strict=True)}}


def _check_images(records: RecordSet, workers: int) -> None:
    """Raise InputError for the first record that MXNet's own OpenCV cannot decode."""
    def check(index: int) -> None:
        try:
            mx.image.imdecode(records.read(index)).wait_to_read()
        except mx.base.MXNetError as error:
            raise InputError(f"{records.name(index)}: MXNet cannot decode its image "
                             f"({_reason(error)}); {_VERIFY}, or use another "
                             "--data-backend") from error

    with contextlib.closing(ordered_map(check, range(len(records)), workers)) as checks:
        for _ in checks:
            pass


def _reason(error: mx.base.MXNetError) -> str:
    """The line of an MXNet message that says what went wrong."""
    return str(error).strip().splitlines()[-1].rpartition("rror: ")[2]
