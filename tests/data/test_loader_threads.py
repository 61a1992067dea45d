"""Batches are prefetched, within bounds; errors name their record; nothing hangs."""

import os
import threading
from collections import Counter
from concurrent.futures import CancelledError

import cv2
import numpy as np
import pytest

from gluon_tricks.data import backends
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.record import RecordSet
from gluon_tricks.data.transforms import EvalTransform, TrainTransform
from gluon_tricks.errors import InputError, RunFault

RECORDS = 26


class Started(Counter):
    """How often each record was started, and an event for when twelve were."""

    def __init__(self):
        super().__init__()
        self.lock, self.enough = threading.Lock(), threading.Event()

    def add(self, indices):
        with self.lock:
            self.update(indices)
            if self.total() >= 12:
                self.enough.set()


@pytest.fixture
def started(monkeypatch, backend):
    """What the threads of either backend have started."""
    started = Started()
    native_job, opencv_row = backends.native_job, backends.opencv_row

    class Job:
        def __init__(self, job, indices):
            self.job, self.indices = job, indices

        def run(self, begin, end):
            started.add(self.indices[begin:end].tolist())
            return self.job.run(begin, end)

    def row(records, transform, draws, index, *rest, **options):
        if backend == "opencv":
            started.add([index])
        opencv_row(records, transform, draws, index, *rest, **options)

    monkeypatch.setattr(backends, "native_job", lambda records, transform, draws, indices, *rest,
                        **options: Job(native_job(records, transform, draws, indices, *rest,
                                                  **options), indices))
    monkeypatch.setattr(backends, "opencv_row", row)
    return started


@pytest.mark.parametrize("prefetch", [0, 1, 2, 4])
def test_reading_ahead_is_bounded(mixed, backend, started, prefetch):
    with RecordLoader(mixed, TrainTransform(size=24), TrainOrder(RECORDS, 3, 0), workers=4,
                      prefetch=prefetch, backend=backend) as loader:
        for used, _ in enumerate(loader.epoch(), 1):
            assert started.total() <= 3 * (used + prefetch)
        assert len(started) == 24  # the last two are not read
        assert set(started.values()) == {1}


def test_batches_are_made_ahead_of_their_use(mixed, backend, started):
    """With three batches of three prefetched, twelve records are started when one is in use."""
    with RecordLoader(mixed, TrainTransform(size=24), TrainOrder(RECORDS, 3, 0), prefetch=3,
                      backend=backend) as loader:
        batches = loader.epoch()
        next(batches)
        assert started.enough.wait(60)
        batches.close()


def test_giving_up_in_the_middle_does_not_hang(mixed, backend, finishes):
    def give_up():
        with RecordLoader(mixed, TrainTransform(size=24), TrainOrder(RECORDS, 2, 0),
                          workers=2, prefetch=5, backend=backend) as loader:
            for _ in loader.epoch():
                break
            for _ in zip(range(3), loader.epoch(1), strict=False):
                pass
            abandoned.append(loader.epoch(2))  # never closed by its user
            next(abandoned[0])
            loader.next()

    before, abandoned = set(threading.enumerate()), []
    assert finishes(give_up)
    assert abandoned
    assert not set(threading.enumerate()) - before


def test_closing_twice_and_without_use(mixed):
    loader = RecordLoader(mixed, TrainTransform(size=24), TrainOrder(RECORDS, 2, 0))
    loader.close()
    loader.close()


def test_after_closing_nothing_hangs(mixed, backend, finishes):
    """Finished batches may still come; then it is an error."""
    def use():
        loader = RecordLoader(mixed, TrainTransform(size=24), TrainOrder(RECORDS, 2, 0),
                              backend=backend)
        batches = loader.epoch()
        next(batches)
        loader.next()
        loader.close()
        for rest in (batches, loader):
            try:
                for _ in rest:
                    pass
            except (RuntimeError, CancelledError) as error:
                ended.append(error)

    ended = []
    assert finishes(use)
    assert len(ended) == 2


def test_a_loader_that_nobody_closes_ends_with_the_process(mixed_rec, run_python):
    done = run_python(f"""
        from gluon_tricks.data.loader import RecordLoader
        from gluon_tricks.data.order import TrainOrder
        from gluon_tricks.data.transforms import TrainTransform
        from gluon_tricks.data.record import RecordSet
        records = RecordSet({str(mixed_rec)!r})
        loader = RecordLoader(records, TrainTransform(size=24), TrainOrder(26, 2, 0), prefetch=9)
        loader.next()
        batches = loader.epoch(3)
        next(batches)
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_consumer_that_is_interrupted_can_continue(mixed, backend, finishes):
    def use():
        order = TrainOrder(RECORDS, 2, 0)
        with RecordLoader(mixed, TrainTransform(size=24), order, backend=backend) as loader:
            try:
                for step, _ in enumerate(loader.epoch()):
                    if step == 4:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                counts.append(sum(1 for _ in loader.epoch()))

    counts, before = [], set(threading.enumerate())
    assert finishes(use)
    assert counts == [13]
    assert not set(threading.enumerate()) - before


def test_ctrl_c_ends_a_wait_for_a_batch(mixed_rec, run_python):
    """Reading blocks; SIGINT arrives in the main thread while it waits for the first batch."""
    done = run_python(f"""
        import os, signal, threading
        from gluon_tricks.data.loader import RecordLoader
        from gluon_tricks.data.order import TrainOrder
        from gluon_tricks.data.transforms import TrainTransform
        from gluon_tricks.data.record import RecordSet
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a script's background
        blocked, go = threading.Event(), threading.Event()
        class Blocking(RecordSet):
            def read(self, index):
                blocked.set()
                go.wait(60)
                return super().read(index)
        def interrupt():
            blocked.wait(60)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        with RecordLoader(Blocking({str(mixed_rec)!r}), TrainTransform(size=24),
                          TrainOrder(26, 2, 0), workers=1, backend="opencv") as loader:
            try:
                next(loader.epoch())
            except KeyboardInterrupt:
                print("interrupted")
                go.set()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.fixture
def failing(tmp_path, blobs, write_records):
    """failing(data, *places): a set of twelve whose records there, with the key 100 + place, hold
    `data`."""
    def make(data, *places):
        pictures = [data if k in places else blobs(k) for k in range(12)]
        return RecordSet(write_records(tmp_path / "a", pictures))
    return make


def load(records, order, transform=None, **options):
    with RecordLoader(records, transform or TrainTransform(size=24), order, **options) as loader:
        return list(loader.epoch())


def png():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


BAD = {"empty": b"", "text": b"no picture", "start of a JPEG": b"\xff\xd8\xff\xe0",
       "cut PNG": png()[:900]}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", BAD)
def test_a_record_that_is_no_image_is_named(failing, backend, name, workers):
    with failing(BAD[name], 7) as records:
        with pytest.raises(InputError) as raised:
            load(records, EvalOrder(12, 5), workers=workers, backend=backend)
        message = str(raised.value)
        assert message.startswith(f"{records.path}, the record with key 107 at byte "
                                  f"{records.offsets[7]}: ")
    assert "\n" not in message


def test_batches_before_a_bad_record_arrive_and_others_do_after_it(failing, backend):
    with failing(b"no picture", 7) as records, RecordLoader(
            records, EvalTransform(32, 36), EvalOrder(12, 3), workers=3,
            backend=backend) as loader:
        batches = loader.epoch()
        assert [next(batches).indices.tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(InputError, match="key 107"):
            next(batches)
        assert next(loader.epoch(0, 3)).indices.tolist() == [9, 10, 11]


def test_the_first_bad_record_is_named_whoever_finds_it(failing, backend):
    with failing(b"no picture", 4, 5, 9) as records:
        for _ in range(5):
            with pytest.raises(InputError, match="key 104 "):
                load(records, EvalOrder(12, 6), workers=4, backend=backend)


@pytest.mark.parametrize(("transform", "said"), [
    (EvalTransform(size=224, resize=None), "224x224 center crop"),
    (TrainTransform(size=32, padding=4), "32x32 crop"),
])
def test_a_crop_larger_than_the_image_names_the_record(tmp_path, backend, blobs, write_records,
                                                         transform, said):
    pictures = [blobs(k, 300, 300) for k in range(3)] + [blobs(3, 20, 20)]
    with RecordSet(write_records(tmp_path / "a", pictures)) as records:
        with pytest.raises(InputError) as raised:
            load(records, EvalOrder(4, 4), transform, backend=backend)
        place = f"the record with key 103 at byte {records.offsets[3]}: "
    message = str(raised.value)
    assert said in message
    assert "\n" not in message
    assert place in message


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), MemoryError("no room"),
                                   RuntimeError("who knows")], ids=repr)
@pytest.mark.parametrize("skip_damaged", [False, True])
def test_a_fault_of_a_worker_is_no_damage_and_names_the_record(mixed_rec, fault, skip_damaged,
                                                               finishes):
    class Faulty(RecordSet):
        def read(self, index):
            if index == 7:
                raise fault
            return super().read(index)

    def use():
        with Faulty(mixed_rec) as records:
            try:
                load(records, EvalOrder(RECORDS, 5), workers=3, backend="opencv",
                     skip_damaged=skip_damaged)
            except RunFault as error:
                raised.append(error)

    raised = []
    assert finishes(use)
    message, = map(str, raised)
    assert "a.rec, the record with key 107 at byte" in message
    assert repr(fault) in message
    assert "\n" not in message
    assert raised[0].__cause__ is fault


def test_a_fault_of_the_native_decoder_says_where_it_happened(mixed, native_core, monkeypatch):
    class Job:
        def run(self, begin, end):
            raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(backends, "native_job", lambda *_, **__: Job())
    with pytest.raises(RunFault, match=r"a\.rec, the record with key 100 .*bad_alloc"):
        load(mixed, EvalOrder(RECORDS, 3), backend="native")


def test_the_native_decoder_leaves_what_it_cannot_read_to_the_record_set(mixed, native_core,
                                                                         monkeypatch):
    """A read that fails in C++ is retried in Python, which says why."""
    def read(index):
        raise OSError(5, "Input/output error")

    real = mixed.lengths.copy()
    mixed.lengths[3] = 5  # so that the native decoder refuses it
    monkeypatch.setattr(mixed, "read", read)
    with pytest.raises(RunFault, match=r"key 103 at byte .*Input/output error"):
        load(mixed, EvalOrder(RECORDS, 5), backend="native")
    mixed.lengths[:] = real


def test_a_set_that_was_closed_is_said_to_be(mixed_rec, backend):
    records = RecordSet(mixed_rec)
    with RecordLoader(records, EvalTransform(24, 28), EvalOrder(1, 1), backend=backend) as loader:
        records.close()
        with pytest.raises(InputError, match=r"a\.rec was closed while it was in use"):
            next(loader.epoch())


def test_opencvs_own_threads_are_switched_off(mixed):
    cv2.setNumThreads(2)
    RecordLoader(mixed, EvalTransform(24, 28), EvalOrder(1, 1)).close()
    assert cv2.getNumThreads() == 1


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5})
    assert backends.cores() == 3
