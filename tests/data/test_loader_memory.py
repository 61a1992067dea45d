"""What a user keeps is never overwritten; memory is reused, within the promised limit."""

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.transforms import TrainTransform

RECORDS = 26

KEEP = {  # (what to keep of a batch, how to get its numbers back)
    "batch": (lambda batch: batch, lambda kept: kept.images),
    "images": (lambda batch: batch.images, lambda kept: kept),
    "row": (lambda batch: batch.images[0], lambda kept: kept),
    "view of a view": (lambda batch: batch.images[1:].transpose(0, 2, 3, 1)[0],
                       lambda kept: kept),
    "flat": (lambda batch: batch.images.reshape(-1), lambda kept: kept),
    "memoryview": (lambda batch: memoryview(batch.images), np.asarray),
    "through the buffer protocol": (lambda batch: np.frombuffer(batch.images, np.float32),
                                    lambda kept: kept),
    "array": (lambda batch: mx.nd.from_numpy(batch.images.view()), lambda kept: kept.asnumpy()),
    "dlpack": (lambda batch: mx.nd.from_dlpack(mx.nd.from_numpy(
        batch.images.view()).to_dlpack_for_read()), lambda kept: kept.asnumpy()),
}
KEEP_ITER = {
    "data batch": (lambda batch: batch, lambda kept: kept.data[0].asnumpy()),
    "array": (lambda batch: batch.data[0], lambda kept: kept.asnumpy()),
    "slice": (lambda batch: batch.data[0][1:3], lambda kept: kept.asnumpy()),
    "copy": (lambda batch: batch.data[0].asnumpy(), lambda kept: kept),
    "same device": (lambda batch: batch.data[0].as_in_context(mx.cpu(0)),
                    lambda kept: kept.asnumpy()),
}


@pytest.fixture
def loader(mixed, backend):
    with RecordLoader(mixed, TrainTransform(size=24), TrainOrder(RECORDS, 4, seed=5), prefetch=1,
                      workers=2, backend=backend) as loader:
        yield loader


@pytest.mark.parametrize("name", KEEP)
def test_what_is_kept_of_a_batch_stays(loader, name):
    keep, numbers = KEEP[name]
    kept = []
    for number in range(3):
        for batch in loader.epoch(number):
            part = keep(batch)
            kept.append((part, np.array(numbers(part)).tobytes()))
            del batch, part
    assert len({found for _, found in kept}) == 18  # no two batches are the same
    assert all(np.array(numbers(part)).tobytes() == found for part, found in kept)


@pytest.mark.parametrize("name", KEEP_ITER)
def test_what_is_kept_of_a_data_batch_stays(loader, name):
    keep, numbers = KEEP_ITER[name]
    kept = []
    for _ in range(3):
        for batch in loader:
            part = keep(batch)
            kept.append((part, np.array(numbers(part)).tobytes()))
            del batch, part
        loader.reset()
    assert len({found for _, found in kept}) == 18
    assert all(np.array(numbers(part)).tobytes() == found for part, found in kept)


def addresses(batches, kept=None):
    found = []
    for batch in batches:
        found.append(batch.images.ctypes.data)
        if kept is not None:
            kept.append(batch)
    return found


def test_memory_that_is_dropped_is_used_again(loader):
    """One batch in use, the previous one still referenced by the loop, one prefetched."""
    found = [address for number in range(5) for address in addresses(loader.epoch(number))]
    assert len(found) == 30
    assert len(set(found)) <= 4


def test_memory_that_is_kept_is_not_used_again(loader):
    kept = []
    found = [address for number in range(5) for address in addresses(loader.epoch(number), kept)]
    assert len(set(found)) == len(found) == 30
    kept.clear()
    assert len(set(addresses(loader.epoch(9)))) <= 4


def test_an_array_s_memory_is_used_again_once_it_is_dropped(loader, monkeypatch):
    found, make = [], loader._buffer

    def buffer(rows):
        taken = make(rows)
        found.append(taken.ctypes.data)
        return taken

    monkeypatch.setattr(loader, "_buffer", buffer)
    for _ in range(5):
        for batch in loader:
            batch.data[0].wait_to_read()
        loader.reset()
    assert len(found) == 30
    assert len(set(found)) <= 4


def test_smaller_last_batches_have_memory_of_their_own(mixed, backend):
    with RecordLoader(mixed, TrainTransform(size=24), EvalOrder(RECORDS, 8), backend=backend,
                      prefetch=2) as loader:
        for number in range(3):
            kept = [(batch.images, batch.images.tobytes()) for batch in loader.epoch(number)]
            assert [len(images) for images, _ in kept] == [8, 8, 8, 2]
            assert all(images.tobytes() == found for images, found in kept)


PROGRAM = """
    import os, sys
    import numpy as np
    from gluon_tricks.data.loader import RecordLoader
    from gluon_tricks.data.order import TrainOrder
    from gluon_tricks.data.transforms import TrainTransform
    from gluon_tricks.data.record import RecordSet
    def resident():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024
    bare = resident()
    sizes = []
    with RecordSet({path!r}) as records, RecordLoader(
            records, TrainTransform(), TrainOrder(len(records), 32, 0), workers=2, prefetch=3,
            backend={backend!r}) as loader:
        for epoch in range(9):
            if {iterator}:
                for batch in loader:
                    batch.data[0].wait_to_read()
                loader.reset()
            else:
                for batch in loader.epoch(epoch):
                    pass
            sizes.append(resident())
    print(bare, *sizes)
"""


@pytest.mark.parametrize("iterator", [False, True])
def test_memory_is_bounded_and_flat(tmp_path, backend, blobs, write_records, run_python, iterator):
    """Buffers of 32 images take 18.4 MiB; at most five of them."""
    path = write_records(tmp_path / "a", [blobs(k, 375, 500) for k in range(8)] * 16)
    done = run_python(PROGRAM.format(path=str(path), backend=backend, iterator=iterator))
    assert done.returncode == 0, done.stderr
    bare, *sizes = map(float, done.stdout.split())
    buffers = 5 * 32 * 3 * 224 * 224 * 4 / 2**20
    assert max(sizes) - bare < buffers + 100
    assert sizes[8] - sizes[3] < 15
