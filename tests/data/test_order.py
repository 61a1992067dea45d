"""Which rank reads which record when: by counting, for all small cases."""

from itertools import chain, product

import numpy as np
import pytest

from gluon_tricks.data.order import EvalOrder, TrainOrder, epoch_permutation, shuffle_labels


def together(orders, epoch):
    """The global batches: the ranks' batches of each step, concatenated."""
    return [np.concatenate(step).tolist()
            for step in zip(*(order.batches(epoch) for order in orders), strict=True)]


@pytest.mark.parametrize("records", [0, 1, 2, 3, 10, 1000])
def test_an_epoch_is_a_permutation_of_all_records(records):
    order = epoch_permutation(records, 5, 2)
    assert sorted(order.tolist()) == list(range(records))
    assert order.dtype == np.int64


def test_permutations_are_the_same_in_each_call_and_differ_by_seed_and_epoch():
    names = [(seed, epoch) for seed in (0, 1, 2, 2**32, 2**63) for epoch in (0, 1, 2, 119)]
    found = {name: epoch_permutation(200, *name).tolist() for name in names}
    assert len({tuple(order) for order in found.values()}) == len(names)
    assert all(epoch_permutation(200, *name).tolist() == found[name] for name in names)


def test_permutations_are_uniform():
    """Each record in each position equally often, within 5 standard deviations."""
    places = np.array([epoch_permutation(10, 0, epoch) for epoch in range(4000)])
    counts = np.array([np.bincount(column, minlength=10) for column in places.T])
    assert np.abs(counts - 400).max() < 5 * np.sqrt(4000 * 0.1 * 0.9)


def test_the_order_of_one_epoch_is_no_shift_of_another():
    first, second = epoch_permutation(500, 0, 0), epoch_permutation(500, 0, 1)
    assert (first == second).sum() < 10
    for shift in range(1, 500):
        assert (np.roll(first, shift) == second).sum() < 20


def test_training_batches_follow_the_permutation_and_drop_the_tail():
    order = TrainOrder(records=23, batch_size=5, seed=3)
    batches = [batch.tolist() for batch in order.batches(7)]
    assert order.steps == len(batches) == 4
    assert list(chain(*batches)) == epoch_permutation(23, 3, 7)[:20].tolist()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_ranks_share_the_global_batches_of_a_single_process(accumulate):
    for world, size, records in product((1, 2, 3, 4), (1, 2, 5), (0, 1, 7, 20, 41, 60)):
        alone = TrainOrder(records, world * size, seed=1, accumulate=accumulate)
        ranks = [TrainOrder(records, size, 1, rank, world, accumulate) for rank in range(world)]
        for epoch in (0, 3):
            assert together(ranks, epoch) == together([alone], epoch)
        assert {rank.steps for rank in ranks} == {alone.steps} == {
            records // (world * size * accumulate) * accumulate}


@pytest.mark.parametrize(("world", "accumulate", "left"), [
    (1, 1, 2), (2, 1, 5), (3, 1, 2), (4, 1, 11), (1, 3, 2), (2, 3, 11), (3, 3, 20), (4, 3, 11)])
def test_ranks_see_all_records_but_the_tail_once(world, accumulate, left):
    """Of 47, by three per batch; the tail is what does not fill an update."""
    for epoch in range(3):
        seen = list(chain(*chain(*(TrainOrder(47, 3, 8, rank, world, accumulate).batches(epoch)
                                   for rank in range(world)))))
        permutation = epoch_permutation(47, 8, epoch).tolist()
        assert sorted(seen) == sorted(permutation[:47 - left])


def test_each_training_batch_is_full():
    for rank in range(3):
        order = TrainOrder(100, 7, 0, rank, 3)
        assert [len(batch) for batch in order.batches(0)] == [7, 7, 7, 7]


def test_fewer_records_than_a_global_batch_make_no_step():
    order = TrainOrder(records=7, batch_size=4, seed=0, rank=0, world_size=2)
    assert order.steps == 0
    assert list(order.batches(0)) == []


def test_records_dropped_in_one_epoch_come_in_another():
    order = TrainOrder(records=11, batch_size=4, seed=0)
    seen = {int(index) for epoch in range(20) for batch in order.batches(epoch) for index in batch}
    assert seen == set(range(11))


@pytest.mark.parametrize("order", [
    TrainOrder(50, 4, 9), TrainOrder(50, 3, 9, 1, 2), EvalOrder(50, 4), EvalOrder(50, 3, 1, 2),
])
def test_a_later_start_gives_the_rest_of_the_epoch(order):
    whole = [batch.tolist() for batch in order.batches(2)]
    for start in range(order.steps + 2):
        assert [batch.tolist() for batch in order.batches(2, start)] == whole[start:]


def test_evaluation_covers_each_record_exactly_once():
    for records, size, world in product(range(1, 51), range(1, 9), range(1, 5)):
        seen, most = [], EvalOrder(records, size, 0, world).steps
        for rank in range(world):
            order = EvalOrder(records, size, rank, world)
            assert order.steps <= order.steps_of_longest_rank == most
            batches = [batch.tolist() for batch in order.batches()]
            assert len(batches) == order.steps
            assert all(0 < len(batch) <= size for batch in batches)
            assert all(len(batch) == size for batch in batches[:-1])
            seen += chain(*batches)
        assert sorted(seen) == list(range(records))


def test_evaluation_of_one_process_is_in_order_and_the_same_in_each_epoch():
    batches = [batch.tolist() for batch in EvalOrder(7, 3).batches()]
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch.tolist() for batch in EvalOrder(7, 3).batches(5)] == batches


def test_evaluation_ranks_have_nearly_equal_shares():
    shares = [sum(map(len, EvalOrder(50, 8, rank, 4).batches())) for rank in range(4)]
    assert shares == [13, 13, 12, 12]


def test_shuffled_labels_are_the_same_labels_shuffled():
    labels = np.repeat(np.arange(10), 100)
    shuffled = shuffle_labels(labels, 4)
    assert np.bincount(shuffled).tolist() == [100] * 10
    assert 50 < (shuffled == labels).sum() < 150  # a tenth agrees by chance
    assert (shuffled == shuffle_labels(labels, 4)).all()
    assert (shuffled != shuffle_labels(labels, 5)).any()
    assert labels.tolist() == sorted(labels.tolist())


def test_shuffled_labels_do_not_follow_the_epoch_s_order():
    """One stream for both would move a record's label to its position in epoch 0."""
    assert (shuffle_labels(np.arange(200), 0) == epoch_permutation(200, 0, 0)).sum() < 20
