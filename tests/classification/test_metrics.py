"""Top-1, top-5 and loss against NumPy's argsort; ties, NaN, and no waiting."""

import json

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.metrics import MeanOverCrops, Tally, TopClass
from gluon_tricks.runs.scores import Sums, mean_scores


def scores_of(*batches):
    """batches: (losses or None, logits, labels)."""
    tally = Tally()
    for losses, logits, labels in batches:
        losses = np.zeros(len(labels)) if losses is None else losses
        logits = np.asarray(logits)
        dtype = "float16" if logits.dtype == np.float16 else "float32"
        tally.update(mx.nd.array(losses), mx.nd.array(logits, dtype=dtype),
                     mx.nd.array(labels, dtype="int32"))
    return mean_scores(tally.sums())


def hits(logits, labels, k):
    first = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :k]
    return (first == np.asarray(labels)[:, None]).any(axis=1)


def by_argsort(logits, labels, k):
    return int(hits(logits, labels, k).sum())


@pytest.mark.parametrize("classes", [2, 4, 5, 6, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_equals_argsort_over_batches_of_different_size(classes, dtype):
    rng = np.random.default_rng(classes)
    batches = []
    for size in (16, 16, 1, 7, 40):
        labels = rng.integers(0, classes, size)
        logits = rng.normal(0, 1, (size, classes)).astype(dtype)
        logits[np.arange(size), labels] += 1.5  # so that some hit
        batches.append((rng.exponential(2, size).astype(np.float32), logits, labels))
    losses, logits, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    got = scores_of(*batches)
    assert got.count == 80
    assert got.correct1 == by_argsort(logits, labels, 1)
    assert got.correct5 == by_argsort(logits, labels, 5)
    assert 0 < got.correct1 <= got.correct5 <= 80
    assert (got.top1, got.top5) == (got.correct1 / 80, got.correct5 / 80)
    assert got.loss == pytest.approx(losses.astype(np.float64).mean(), rel=1e-12)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("hybrid", [False, True])
def test_the_mean_over_crops_is_that_of_probabilities(hybrid):
    logits = np.random.default_rng(0).normal(0, 3, (4 * 10, 7))
    average = MeanOverCrops(10)
    average.hybridize(hybrid)
    got = average(mx.nd.array(logits)).asnumpy()
    np.testing.assert_allclose(np.exp(got), softmax(logits.reshape(4, 10, 7)).mean(axis=1),
                               rtol=1e-5)


def test_the_mean_over_crops_is_finite_where_probabilities_vanish():
    """exp(-300) underflows float32; log((exp(-300) + exp(-400)) / 2) is -300 - log 2."""
    got = MeanOverCrops(2)(mx.nd.array([[0, -300], [0, -400]])).asnumpy()
    np.testing.assert_allclose(got, [[0, -300 - np.log(2)]], atol=1e-4)


def test_the_top_class_and_its_probability():
    logits = np.random.default_rng(1).normal(0, 3, (9, 1000)).astype(np.float32)
    logits[3, 5:8] = 50  # alike
    got = TopClass()(mx.nd.array(logits)).asnumpy()
    assert got[:, 0].tolist() == logits.argmax(axis=1).tolist() and got[3, 0] == 5
    np.testing.assert_allclose(got[:, 1], softmax(logits.astype(np.float64)).max(axis=1),
                               rtol=1e-5)


def test_top5_by_hand():
    logits = [[9, 8, 7, 6, 5, 4, 3]] * 7
    got = scores_of((None, logits, [0, 1, 2, 3, 4, 5, 6]))
    assert (got.correct1, got.correct5) == (1, 5)


def test_a_network_that_says_the_same_of_every_class_scores_one_class_share():
    got = scores_of((None, np.zeros((10, 10)), range(10)))
    assert (got.correct1, got.correct5) == (1, 5)
    assert (got.top1, got.top5) == (0.1, 0.5)


def test_a_tie_goes_to_the_lower_class():
    logits = [[1, 3, 3, 0, 0, 0]] * 3
    assert scores_of((None, logits, [1, 2, 0])).correct1 == 1
    half = [[1, 1, 1, 1, 2, 1, 1]] * 7  # places: 4, 0, 1, 2, 3 | 5, 6
    assert scores_of((None, half, range(7))).correct5 == 5


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_logits_that_are_not_finite_are_never_a_hit(odd, where):
    logits = np.array([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    logits[0, where] = odd
    got = scores_of((None, logits, [0, 0]))
    assert (got.count, got.correct1, got.correct5) == (2, 1, 1)


def test_all_logits_not_a_number():
    got = scores_of((None, np.full((4, 10), np.nan), [0, 1, 2, 3]))
    assert (got.correct1, got.correct5) == (0, 0)


def test_fewer_than_five_classes_are_all_among_the_first_five():
    got = scores_of((None, [[3, 2, 1], [3, 2, 1], [3, 2, 1]], [0, 1, 2]))
    assert (got.correct1, got.correct5) == (1, 3)


def test_losses_are_summed_in_float64():
    """In float32, 2^24 + 1 = 2^24: within a batch and from batch to batch."""
    big = 2.0**24
    one_batch = (np.array([big] + [1.0] * 1000), np.zeros((1001, 2)), np.zeros(1001))
    assert scores_of(one_batch).loss * 1001 == pytest.approx(big + 1000, abs=0.01)
    batches = [(np.array([value]), np.zeros((1, 2)), [0]) for value in [big] + [1.0] * 50]
    assert scores_of(*batches).loss * 51 == pytest.approx(big + 50, abs=0.01)


def test_hits_are_counted_beyond_what_float16_holds():
    logits = np.tile(np.array([1, 0], np.float16), (5001, 1))
    assert scores_of((None, logits, np.zeros(5001))).correct1 == 5001


def test_updating_does_not_wait_and_scores_wait_once(monkeypatch):
    waits = []

    def noted(name, original):
        def wait(*arguments):
            waits.append(name)
            return original(*arguments)
        return wait
    batch = mx.nd.ones(3), mx.nd.ones((3, 6)), mx.nd.zeros(3, dtype="int32")
    for name in ("asnumpy", "wait_to_read", "asscalar", "item", "__bool__"):
        if hasattr(mx.nd.NDArray, name):
            monkeypatch.setattr(mx.nd.NDArray, name, noted(name, getattr(mx.nd.NDArray, name)))
    monkeypatch.setattr(mx.nd, "waitall", noted("waitall", mx.nd.waitall))
    tally = Tally()
    for _ in range(3):
        tally.update(*batch)
    assert waits == []
    assert mean_scores(tally.sums()).count == 9
    assert waits == ["asnumpy"]


def test_scores_may_be_asked_for_on_the_way():
    tally = Tally()
    batch = mx.nd.array([2.0]), mx.nd.array([[1.0, 0.0]]), mx.nd.array([0])
    tally.update(*batch)
    assert mean_scores(tally.sums()) == (1, 2.0, 1.0, 1.0, 1, 1)
    tally.update(mx.nd.array([4.0]), mx.nd.array([[1.0, 0.0]]), mx.nd.array([1]))
    assert mean_scores(tally.sums()) == (2, 3.0, 0.5, 1.0, 1, 2)


def test_no_batch_has_no_scores():
    with pytest.raises(ValueError, match="no batch"):
        mean_scores(Tally().sums())


def mixed_update(tally, logits, labels, others, lam):
    tally.update(mx.nd.ones(len(labels)), mx.nd.array(logits),
                 *(mx.nd.array(values, dtype="int32") for values in (labels, others)),
                 mx.nd.array(lam))


@pytest.mark.parametrize("classes", [3, 20])
def test_hits_of_mixed_samples_are_weighted(classes):
    rng = np.random.default_rng(classes)
    tally, want = Tally(), np.zeros(2)
    for size in (16, 16, 5):
        logits = rng.integers(0, 6, (size, classes)).astype(np.float32)  # so that many tie
        labels, others = rng.integers(0, classes, (2, size))
        lam = rng.beta(0.5, 0.5, size).astype(np.float32)
        mixed_update(tally, logits, labels, others, lam)
        want += [(lam * hits(logits, labels, k) + (1.0 - lam) * hits(logits, others, k)).sum(
            dtype=np.float64) for k in (1, 5)]
    got = tally.sums()
    assert got.count == 37
    assert 0 < want[0] <= want[1]
    assert (got.hits1, got.hits5) == pytest.approx(tuple(want), rel=1e-6)


def test_weighted_hits_by_hand():
    """The first label hits, the second, both, neither; then logits that are NaN."""
    logits = [[9, 8, 7, 6, 5, 4, 3]] * 4 + [[np.nan] * 7, [9, np.inf, 0, 0, 0, 0, 0]]
    tally = Tally()
    mixed_update(tally, np.array(logits), [0, 3, 0, 6, 0, 1], [6, 0, 0, 5, 0, 1], [0.75] * 6)
    assert tally.sums() == Sums(6, 6.0, 0.75 + 0.25 + 1.0, 0.75 + 1.0 + 1.0)


def test_a_tally_goes_on_where_another_stopped():
    """Through JSON, to the last bit: half the batches, then the rest, are all of them."""
    rng = np.random.default_rng(0)
    batches = [(mx.nd.array(rng.exponential(1, 8)), mx.nd.array(rng.normal(0, 1, (8, 10))),
                *(mx.nd.array(rng.integers(0, 10, (2, 8))[i], dtype="int32") for i in (0, 1)),
                mx.nd.array(rng.uniform(0, 1, 8))) for _ in range(6)]

    def tally_of(part, start=None):
        tally = Tally(start)
        for batch in part:
            tally.update(*batch)
        return tally.sums()
    whole, half = tally_of(batches), tally_of(batches[:3])
    assert half.loss != np.float32(half.loss)  # float32 would not hold it
    again = Sums(*json.loads(json.dumps(half)))
    assert again == half
    assert tally_of(batches[3:], again) == whole
    assert tally_of([], again) == half
    assert mean_scores(whole) == (48, whole.loss / 48, whole.hits1 / 48, whole.hits5 / 48,
                                  int(whole.hits1), int(whole.hits5))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_first_bad_names_the_first_update_whose_loss_is_none(odd):
    tally = Tally(Sums(5, 1.0, 1.0, 1.0))
    assert tally.first_bad() is None
    found = []
    for number, losses in ((16777217, [1, 2]), (16777219, [3, odd]), (16777220, [odd, 1]),
                           (16777221, [1, 1])):  # beyond what float32 counts
        tally.update(mx.nd.array(losses), mx.nd.zeros((2, 3)), mx.nd.zeros(2), number=number)
        found.append(tally.first_bad())
    assert found == [None, 16777219, 16777219, 16777219]
    assert not np.isfinite(tally.sums().loss)


def test_update_0_may_be_the_first_bad():
    tally = Tally()
    for number in range(3):
        tally.update(mx.nd.array([np.nan]), mx.nd.zeros((1, 3)), mx.nd.zeros(1), number=number)
    assert tally.first_bad() == 0


def test_losses_that_sum_to_more_than_float32_are_finite():
    tally = Tally()
    tally.update(mx.nd.array([3e38, 3e38]), mx.nd.zeros((2, 3)), mx.nd.zeros(2), number=4)
    assert tally.first_bad() is None
    assert tally.sums().loss == pytest.approx(6e38)


@pytest.mark.parametrize("start", [None, Sums(3, 1.0, 2.0, 3.0)])
def test_rewinding_forgets_what_came_after_the_mark(start):
    good = mx.nd.array([2.0]), mx.nd.array([[1.0, 0.0]]), mx.nd.array([0])
    bad = mx.nd.array([np.nan]), *good[1:]
    tally = Tally(start)
    mark = tally.mark()
    tally.update(*bad, number=0)
    tally.rewind(mark)
    assert (tally.sums(), tally.first_bad()) == (start or Sums(), None)
    tally.update(*good, number=1)
    mark = tally.mark()
    for _ in range(2):
        tally.update(*bad, number=2)
        tally.rewind(mark)
    tally.update(*good, number=3)
    want = np.add(start or Sums(), (2, 4.0, 2.0, 2.0))
    assert (tally.sums(), tally.first_bad()) == (tuple(want), None)
