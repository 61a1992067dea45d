"""Skipping damaged records: smaller batches, counted, the same ones in every epoch."""

import numpy as np
import pytest

from gluon_tricks.data import backends
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.record import RecordSet
from gluon_tricks.data.transforms import EvalTransform, TrainTransform
from gluon_tricks.errors import InputError

RECORDS = 26
DAMAGED = {3, 4, 11, 25}


@pytest.fixture(scope="module")
def paths(tmp_path_factory, blobs, write_records):
    """Two sets; in the second, the records DAMAGED cannot be decoded."""
    folder = tmp_path_factory.mktemp("skip")
    pictures = [blobs(k) for k in range(RECORDS)]
    whole = write_records(folder / "whole", pictures)
    bad = [b"", b"no picture", pictures[11][:200], b"\xff\xd8\xff"]
    for place, data in zip(sorted(DAMAGED), bad, strict=True):
        pictures[place] = data
    return whole, write_records(folder / "damaged", pictures)


@pytest.fixture
def make(paths, backend):
    """make(order, transform, damaged=True): a loader of the damaged or the sound set."""
    opened = []

    def build(order, transform=None, damaged=True, **options):
        records = RecordSet(paths[damaged])
        loader = RecordLoader(records, transform or TrainTransform(size=24), order,
                              **{"seed": 11, "backend": backend, "skip_damaged": True, **options})
        opened.extend((loader, records))
        return loader
    yield build
    for one in opened:
        one.close()


def without(batches):
    """[(indices, labels, bytes)] of the rows that are not DAMAGED."""
    kept = []
    for batch in batches:
        rows = [row for row, index in enumerate(batch.indices.tolist()) if index not in DAMAGED]
        kept.append((batch.indices[rows].tolist(), batch.labels[rows].tolist(),
                     batch.images[rows].tobytes()))
    return kept


@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"prefetch": 0},
                                     {"dtype": "float16", "layout": "NHWC"}], ids=str)
def test_all_but_the_damaged_are_as_in_a_whole_set(make, options):
    order = TrainOrder(RECORDS, 6, seed=5)
    loader, whole = make(order, **options), make(order, damaged=False, **options)
    for number in range(4):
        batches = list(loader.epoch(number))
        assert without(batches) == without(whole.epoch(number))
        for batch in batches:
            assert not DAMAGED & set(batch.indices.tolist())
            assert len(batch.images) == len(batch.labels) == len(batch.indices)
    assert loader.skipped == DAMAGED
    assert whole.skipped == set()


def test_an_evaluation_counts_all_but_the_damaged(make):
    loader = make(EvalOrder(RECORDS, 4), EvalTransform(24, 28))
    for _ in range(3):
        found = [index for batch in loader.epoch() for index in batch.indices.tolist()]
        assert found == [index for index in range(RECORDS) if index not in DAMAGED]
    batches = [(len(batch.data[0]), batch.index.tolist(), batch.label[0].shape) for batch in loader]
    assert [size for size, _, _ in batches] == [3, 3, 3, 4, 4, 4, 1]
    assert all(len(index) == size == shape[0] for size, index, shape in batches)


@pytest.mark.parametrize("known", [False, True])
def test_what_is_known_to_be_damaged_is_not_decoded_again(make, monkeypatch, known):
    loader = make(TrainOrder(RECORDS, 13, seed=5), skipped=DAMAGED if known else ())
    if not known:
        list(loader.epoch())
    read, row = [], backends.opencv_row
    monkeypatch.setattr(backends, "opencv_row", lambda records, transform, draws, index, *rest,
                        **options: read.append(index) or row(records, transform, draws, index,
                                                             *rest, **options))
    assert sum(len(batch.indices) for batch in loader.epoch(1)) == RECORDS - len(DAMAGED)
    assert not DAMAGED & set(read)
    assert loader.backend == "native" or len(read) == RECORDS - len(DAMAGED)


def test_without_skipping_known_records_are_left_out_and_others_fail(make):
    loader = make(TrainOrder(RECORDS, 13, seed=5), skip_damaged=False, skipped=[3, 4, 25])
    with pytest.raises(InputError, match="key 111 "):
        list(loader.epoch())
    loader = make(TrainOrder(RECORDS, 13, seed=5), skip_damaged=False, skipped=DAMAGED)
    assert sum(len(batch.indices) for batch in loader.epoch()) == RECORDS - len(DAMAGED)


def test_the_caller_s_numbers_are_left_alone(make):
    known = {3}
    list(make(TrainOrder(RECORDS, 13, seed=5), skipped=known).epoch())
    assert known == {3}


@pytest.mark.parametrize("known", [False, True])
def test_a_batch_of_damaged_records_alone_is_empty(make, known):
    class InOrder(TrainOrder):
        def batches(self, epoch, start_step=0):
            yield from (np.array(pair) for pair in ((0, 1), (3, 4), (5, 6)))

    loader = make(InOrder(RECORDS, 2, seed=5), skipped=DAMAGED if known else ())
    assert [batch.indices.tolist() for batch in loader.epoch()] == [[0, 1], [], [5, 6]]
    assert {3, 4} <= loader.skipped
