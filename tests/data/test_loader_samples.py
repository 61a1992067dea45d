"""SampleLoader: samples of any size, made by threads, in order, damaged ones left out."""

import time
from pathlib import Path

import pytest

from gluon_tricks.data.loader import SampleLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.errors import InputError, RunFault

COUNT = 23


class Numbers:
    """Samples that are their number, as often as that."""

    path = Path("numbers")
    keys = range(100, 100 + COUNT)

    def name(self, index):
        return f"number {index}"


def collate(samples, indices, step):
    return samples, indices.tolist(), step


def draw(rng):
    return rng.uniform(2)


@pytest.fixture
def loader():
    """loader(make, order, **options): closed after the test."""
    made = []

    def build(make=lambda index, drawn: [index] * index, order=None, **options):
        order = order or EvalOrder(COUNT, 5)
        made.append(SampleLoader(Numbers(), order, make, collate, **options))
        return made[-1]
    yield build
    for one in made:
        one.close()


def late_or_not(index, drawn):
    """The earlier ones of a batch take longest."""
    time.sleep(0.002 * (4 - index % 5))
    return index


def failing(error, numbers):
    def make(index, drawn):
        if index in numbers:
            raise error
        return index
    return make


@pytest.mark.parametrize("prefetch", [0, 1, 9])
def test_batches_and_samples_keep_their_order(loader, prefetch):
    batches = list(loader(late_or_not, workers=4, prefetch=prefetch).epoch())
    assert [indices for _, indices, _ in batches] == [
        list(range(first, min(first + 5, COUNT))) for first in range(0, COUNT, 5)]
    assert all(samples == indices for samples, indices, _ in batches)
    assert [step for _, _, step in batches] == [0, 1, 2, 3, 4]


def test_samples_may_differ_in_size_and_have_no_draws(loader):
    samples, _, _ = next(loader(lambda index, drawn: (drawn, [0] * index)).epoch())
    assert samples == [(None, [0] * index) for index in range(5)]


def test_an_epoch_begins_at_any_step(loader):
    one = loader(order=TrainOrder(COUNT, 4, seed=3), draw=draw)
    assert list(one.epoch(2, 3)) == list(one.epoch(2))[3:]


def test_draws_depend_on_seed_epoch_and_sample_alone(loader):
    def draws(epoch=1, seed=7, **options):
        options = {"order": TrainOrder(COUNT, 4, seed=3), **options}
        batches = loader(lambda index, drawn: tuple(drawn), draw=draw, seed=seed,
                         **options).epoch(epoch)
        return {index: sample for samples, indices, _ in batches
                for sample, index in zip(samples, indices, strict=True)}

    found = draws(workers=1)
    assert len(set(found.values())) == len(found) == 20
    assert draws(workers=5) == draws(workers=0) == draws(prefetch=0) == found
    every = draws(order=EvalOrder(COUNT, 9))
    assert {index: every[index] for index in found} == found  # whatever batch it is in
    for other in (draws(epoch=2), draws(seed=8)):
        assert not set(other.values()) & set(found.values())


@pytest.mark.parametrize("workers", [1, 4])
def test_damaged_ones_are_left_out_and_collected(loader, workers):
    damaged = {0, 3, 11, 22}
    one = loader(failing(InputError("damaged"), damaged), skip_damaged=True, workers=workers)
    for _ in range(2):
        batches = list(one.epoch())
        assert [indices for _, indices, _ in batches] == [
            [index for index in range(first, min(first + 5, COUNT)) if index not in damaged]
            for first in range(0, COUNT, 5)]
        assert all(samples == indices for samples, indices, _ in batches)
        assert one.skipped == damaged
    assert one.skipped_line() == ("numbers: 4 damaged records skipped, by key: "
                                  "100, 103, 111, 122")


def test_the_others_draw_as_if_none_were_damaged(loader):
    def make(index, drawn):
        if index == 2:
            raise InputError("damaged")
        return index, tuple(drawn)

    whole = [sample for samples, _, _ in loader(lambda index, drawn: (index, tuple(drawn)),
                                                draw=draw).epoch() for sample in samples]
    left = [sample for samples, _, _ in loader(make, draw=draw, skip_damaged=True).epoch()
            for sample in samples]
    assert left == whole[:2] + whole[3:]


def test_ones_known_to_be_damaged_are_not_made(loader):
    made = []
    one = loader(lambda index, drawn: made.append(index), skipped=[4, 5], workers=1)
    assert [len(indices) for _, indices, _ in one.epoch()] == [4, 4, 5, 5, 3]
    assert made == [index for index in range(COUNT) if index not in (4, 5)]


def test_a_batch_is_empty_if_all_of_it_is_damaged(loader):
    one = loader(failing(InputError("damaged"), range(5, 10)), skip_damaged=True)
    for _ in range(2):  # found at first, known then
        assert list(one.epoch())[1] == ([], [], 1)


def test_a_damaged_one_ends_the_epoch_unless_it_may_be_left_out(loader):
    batches = loader(failing(InputError("no. 7 is damaged"), [7])).epoch()
    next(batches)
    with pytest.raises(InputError, match=r"^no\. 7 is damaged$"):
        next(batches)


@pytest.mark.parametrize("skip", [False, True])
def test_another_fault_names_its_sample(loader, skip):
    one = loader(failing(OSError(5, "disk"), [7]), skip_damaged=skip)
    with pytest.raises(RunFault, match=r"^number 7: OSError\(5, 'disk'\)$"):
        list(one.epoch())


def test_no_more_is_made_after_it_is_closed(loader):
    made = []

    def make(index, drawn):
        time.sleep(0.01)
        made.append(index)

    one = loader(make, workers=1, prefetch=9)
    with one:
        batches = one.epoch()
        next(batches)
        waiting = len(made)
    assert len(made) <= waiting + 2 < COUNT  # what was begun is finished
    with pytest.raises(RuntimeError):
        next(one.epoch())


def test_an_epoch_that_is_left_drops_what_waits(loader):
    made = []

    def make(index, drawn):
        time.sleep(0.01)
        made.append(index)

    batches = loader(make, workers=1, prefetch=9).epoch()
    next(batches)
    batches.close()
    waiting = len(made)
    time.sleep(0.1)
    assert len(made) <= waiting + 2 < COUNT
