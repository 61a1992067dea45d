"""Batches are the same whoever makes them; errors name their record; nothing hangs."""

import threading
from collections import Counter

import cv2
import numpy as np
import pytest

from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.recipes import EvalTransform, TrainTransform
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.errors import InputError

RECORDS = 26


def picture(key, height=None, width=None):
    rng = np.random.default_rng(key)
    shape = height or int(rng.integers(40, 70)), width or int(rng.integers(40, 70)), 3
    return rng.integers(0, 256, shape, np.uint8)


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def write(prefix, pictures):
    """Keys are 100 and up, labels 0 to 4 in turn."""
    with RecordWriter(prefix) as writer:
        for number, data in enumerate(pictures):
            writer.write(100 + number, number % 5, data)
    return prefix.with_suffix(".rec")


@pytest.fixture(scope="module")
def rec(tmp_path_factory):
    return write(tmp_path_factory.mktemp("set") / "a", [png(picture(k)) for k in range(RECORDS)])


@pytest.fixture
def records(rec):
    with RecordSet(rec) as records:
        yield records


def epoch(records, order, number=0, start_step=0, transform=None, **options):
    options = {"seed": 11, "workers": 2, **options}
    with RecordLoader(records, transform or TrainTransform(size=24), order, **options) as loader:
        return list(loader.epoch(number, start_step))


def same(mine, theirs):
    """Bit for bit the same batches."""
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.indices.tolist() == b.indices.tolist()
        assert a.labels.tolist() == b.labels.tolist()
        assert a.images.tobytes() == b.images.tobytes()


def finishes(function):
    """Whether a call comes back; the test fails, rather than hangs, where it does not."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(120)
    return not thread.is_alive()


def test_batches_have_the_pictures_of_their_indices(records):
    transform = EvalTransform(size=32, resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    batches = epoch(records, TrainOrder(RECORDS, 6, seed=1), transform=transform)
    assert len(batches) == 4
    for batch in batches:
        assert batch.images.shape == (6, 3, 32, 32)
        assert (batch.images.dtype, batch.labels.dtype) == (np.float32, np.int32)
        assert batch.labels.tolist() == [index % 5 for index in batch.indices]
        for pixels, index in zip(batch.images, batch.indices, strict=True):
            image = picture(index)
            top, left = (image.shape[0] - 32) // 2, (image.shape[1] - 32) // 2
            expected = image[top:top + 32, left:left + 32].transpose(2, 0, 1)
            assert (pixels == expected).all()


@pytest.mark.parametrize("options", [
    {"workers": 1}, {"workers": 4}, {"workers": 13}, {"prefetch": 0}, {"prefetch": 1},
    {"prefetch": 100},
])
def test_workers_and_prefetch_change_nothing(records, options):
    order = TrainOrder(RECORDS, 4, seed=5)
    same(epoch(records, order, 3), epoch(records, order, 3, **options))


def test_resuming_at_any_step_gives_the_rest(records):
    order = TrainOrder(RECORDS, 5, seed=5)
    whole = epoch(records, order, 2)
    assert len(whole) == 5
    for start in range(6):
        same(epoch(records, order, 2, start, workers=1 + start % 3), whole[start:])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_see_the_pixels_a_single_process_sees(records, world_size):
    alone = epoch(records, TrainOrder(RECORDS, 4 * world_size, seed=5), 1)
    ranks = [epoch(records, TrainOrder(RECORDS, 4, 5, rank, world_size), 1)
             for rank in range(world_size)]
    for step, batch in enumerate(alone):
        for field in ("images", "labels", "indices"):
            joined = np.concatenate([getattr(rank[step], field) for rank in ranks])
            assert joined.tobytes() == getattr(batch, field).tobytes()


def test_a_sample_depends_on_seed_epoch_and_record_alone(records):
    def by_index(batches):
        return {index: pixels.tobytes() for batch in batches
                for index, pixels in zip(batch.indices.tolist(), batch.images, strict=True)}

    shuffled = by_index(epoch(records, TrainOrder(RECORDS, 1, seed=5), 1))
    in_order = by_index(epoch(records, EvalOrder(RECORDS, 7), 1))
    assert shuffled == in_order
    for other in (by_index(epoch(records, EvalOrder(RECORDS, 7), 2)),
                  by_index(epoch(records, EvalOrder(RECORDS, 7), 1, seed=12))):
        assert all(other[index] != in_order[index] for index in range(RECORDS))


def test_two_epochs_at_once_do_not_disturb_each_other(records):
    order = TrainOrder(RECORDS, 4, seed=5)
    with RecordLoader(records, TrainTransform(size=24), order, seed=11, workers=2) as loader:
        pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    same([a for a, _ in pairs], epoch(records, order, 0))
    same([b for _, b in pairs], epoch(records, order, 1))


def test_evaluation_has_each_record_once(records):
    batches = epoch(records, EvalOrder(RECORDS, 8), transform=EvalTransform(32, 36))
    assert [len(batch.images) for batch in batches] == [8, 8, 8, 2]
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(RECORDS))


def test_given_labels_stand_in_for_those_of_the_records(records):
    batches = epoch(records, TrainOrder(RECORDS, 4, 5), labels=np.arange(RECORDS) * 3)
    for batch in batches:
        assert batch.labels.dtype == np.int32
        assert batch.labels.tolist() == (batch.indices * 3).tolist()


class Counting(RecordSet):
    """Counts what is read."""

    def __init__(self, *paths):
        super().__init__(*paths)
        self.reads, self._lock, self.enough = Counter(), threading.Lock(), threading.Event()

    def read(self, index):
        with self._lock:
            self.reads[int(index)] += 1
            if sum(self.reads.values()) >= 12:
                self.enough.set()
        return super().read(index)


@pytest.mark.parametrize("prefetch", [0, 1, 2, 4])
def test_reading_ahead_is_bounded(rec, prefetch):
    with Counting(rec) as records, RecordLoader(
            records, TrainTransform(size=24), TrainOrder(RECORDS, 3, 0), workers=4,
            prefetch=prefetch) as loader:
        for used, _ in enumerate(loader.epoch(), 1):
            assert sum(records.reads.values()) <= 3 * (used + prefetch)
        assert len(records.reads) == 24  # the tail of two is not read
        assert set(records.reads.values()) == {1}


def test_batches_are_made_ahead_of_their_use(rec):
    """With three batches of three ahead, twelve records are read while one batch is used."""
    with Counting(rec) as records, RecordLoader(
            records, TrainTransform(size=24), TrainOrder(RECORDS, 3, 0), prefetch=3) as loader:
        batches = loader.epoch()
        next(batches)
        assert records.enough.wait(60)
        batches.close()


def test_giving_up_in_the_middle_does_not_hang(rec):
    def give_up():
        with Counting(rec) as records:
            with RecordLoader(records, TrainTransform(size=24), TrainOrder(RECORDS, 2, 0),
                              workers=2, prefetch=5) as loader:
                for _ in loader.epoch():
                    break
                for _ in zip(range(3), loader.epoch(1), strict=False):
                    pass
                abandoned = loader.epoch(2)  # never closed by its user
                next(abandoned)
            done.append(sum(records.reads.values()))

    before, done = set(threading.enumerate()), []
    assert finishes(give_up)
    assert done
    assert not set(threading.enumerate()) - before


def test_closing_twice_and_without_use(records):
    loader = RecordLoader(records, TrainTransform(size=24), TrainOrder(RECORDS, 2, 0))
    loader.close()
    loader.close()


def failing(prefix, data, place=7):
    """A set whose record `place`, with the key 100 + place, holds `data`."""
    pictures = [png(picture(k)) for k in range(12)]
    pictures[place] = data
    return RecordSet(write(prefix, pictures))


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("data", [b"", b"no picture", png(picture(0))[:900]])
def test_a_record_that_is_no_picture_is_named(tmp_path, data, workers):
    with failing(tmp_path / "a", data) as records:
        with pytest.raises(InputError) as raised:
            epoch(records, EvalOrder(12, 5), workers=workers)
        message, offset = str(raised.value), records.offsets[7]
    assert f"{tmp_path / 'a.rec'}, the record with key 107 at byte {offset}: " in message
    assert "no picture" in message
    assert "\n" not in message


def test_batches_before_a_bad_record_arrive_and_others_do_after_it(tmp_path):
    order = EvalOrder(12, 3)
    with failing(tmp_path / "a", b"no picture") as records, RecordLoader(
            records, EvalTransform(32, 36), order, workers=3) as loader:
        batches = loader.epoch()
        assert [next(batches).indices.tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(InputError, match="key 107"):
            next(batches)
        assert next(loader.epoch(0, 3)).indices.tolist() == [9, 10, 11]


def test_the_first_bad_record_is_named_whoever_finds_it(tmp_path):
    pictures = [png(picture(k)) for k in range(12)]
    pictures[4] = pictures[5] = pictures[9] = b"no picture"
    with RecordSet(write(tmp_path / "a", pictures)) as records:
        for _ in range(5):
            with pytest.raises(InputError, match="key 104 "):
                epoch(records, EvalOrder(12, 6), workers=4)


@pytest.mark.parametrize(("transform", "said"), [
    (EvalTransform(size=224, resize=None), "224x224 centre crop"),
    (TrainTransform(size=32, padding=4), "32x32 crop"),
])
def test_a_crop_larger_than_the_picture_names_the_record(tmp_path, transform, said):
    pictures = [png(picture(k, 300, 300)) for k in range(3)] + [png(picture(3, 20, 20))]
    with RecordSet(write(tmp_path / "a", pictures)) as records:
        with pytest.raises(InputError) as raised:
            epoch(records, EvalOrder(4, 4), transform=transform)
        place = f"the record with key 103 at byte {records.offsets[3]}: "
    message = str(raised.value)
    assert said in message
    assert "\n" not in message
    assert place in message
