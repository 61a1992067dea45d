"""Losses and a task's parts are summed in float64, without waiting, and can be taken back."""

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.engine.tally import Tally
from gluon_tricks.runs.scores import Sums, from_json, mean_scores, to_json

PARTS = ("hits", "error")
START = Sums(3, 1.0, {"hits": 2.0, "error": 3.0})


def float64(*values):
    return mx.nd.array(values, dtype="float64")


def sums_of(*batches, start=None):
    """batches: (losses, parts)."""
    tally = Tally(PARTS, start)
    for losses, parts in batches:
        tally.add(mx.nd.array(losses), float64(*parts), count=len(losses))
    return tally.sums()


def test_sums_are_those_of_numpy():
    rng = np.random.default_rng(0)
    batches = [(rng.exponential(2, size).astype(np.float32), rng.normal(0, 1, 2))
               for size in (16, 16, 1, 7, 40)]
    got = sums_of(*batches)
    assert got.count == 80
    assert got.loss == pytest.approx(sum(losses.astype(np.float64).sum() for losses, _ in batches),
                                     rel=1e-12)
    assert got.parts == pytest.approx(dict(zip(PARTS, sum(parts for _, parts in batches),
                                               strict=True)), rel=1e-12)


def test_losses_are_summed_in_float64():
    """In float32, 2^24 + 1 = 2^24: within a batch and from batch to batch."""
    big = 2.0**24
    assert sums_of(([big] + [1.0] * 1000, (0, 0))).loss == pytest.approx(big + 1000, abs=0.01)
    batches = [([value], (0, 0)) for value in [big] + [1.0] * 50]
    assert sums_of(*batches).loss == pytest.approx(big + 50, abs=0.01)


def test_a_task_may_sum_nothing_but_the_loss():
    tally = Tally()
    tally.add(mx.nd.array([1.0, 2.0]), count=2)
    assert tally.sums() == Sums(2, 3.0, {})


def test_adding_does_not_wait_and_sums_wait_once(monkeypatch):
    waits = []

    def noted(name, original):
        def wait(*arguments):
            waits.append(name)
            return original(*arguments)
        return wait
    batch = mx.nd.ones(3), float64(1, 2)
    for name in ("asnumpy", "wait_to_read", "asscalar", "item", "__bool__"):
        if hasattr(mx.nd.NDArray, name):
            monkeypatch.setattr(mx.nd.NDArray, name, noted(name, getattr(mx.nd.NDArray, name)))
    monkeypatch.setattr(mx.nd, "waitall", noted("waitall", mx.nd.waitall))
    tally = Tally(PARTS)
    for _ in range(3):
        tally.add(*batch, count=3)
    assert waits == []
    assert tally.sums().count == 9
    assert waits == ["asnumpy"]


def test_sums_may_be_asked_for_on_the_way():
    tally = Tally(PARTS)
    tally.add(mx.nd.array([2.0]), float64(1, 0), count=1)
    assert mean_scores(tally.sums()) == (1, 2.0, {"hits": 1.0, "error": 0.0})
    tally.add(mx.nd.array([4.0]), float64(0, 3), count=1)
    assert mean_scores(tally.sums()) == (2, 3.0, {"hits": 0.5, "error": 1.5})


def test_before_the_first_batch_all_parts_are_there():
    """Ranks add their sums up: one that has no batch must have as many numbers."""
    assert Tally(PARTS).sums() == Sums(0, 0.0, {"hits": 0.0, "error": 0.0})


def test_a_tally_continues_where_another_stopped():
    """Through JSON, to the last bit: half the batches, then the rest, are all of them."""
    rng = np.random.default_rng(0)
    batches = [(rng.exponential(1, 8), rng.uniform(0, 1, 2)) for _ in range(6)]
    whole, half = sums_of(*batches), sums_of(*batches[:3])
    assert half.loss != np.float32(half.loss)  # float32 would not hold it
    again = from_json(Sums, to_json(half), PARTS)
    assert again == half
    assert sums_of(*batches[3:], start=again) == whole
    assert sums_of(start=again) == half


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_first_bad_names_the_first_update_whose_loss_is_not_finite(odd):
    tally = Tally((), Sums(5, 1.0))
    assert tally.first_bad() is None
    found = []
    for number, losses in ((16777217, [1, 2]), (16777219, [3, odd]), (16777220, [odd, 1]),
                           (16777221, [1, 1])):  # beyond what float32 counts
        tally.add(mx.nd.array(losses), count=2, number=number)
        found.append(tally.first_bad())
    assert found == [None, 16777219, 16777219, 16777219]
    assert not np.isfinite(tally.sums().loss)


def test_update_0_may_be_the_first_bad():
    tally = Tally()
    for number in range(3):
        tally.add(mx.nd.array([np.nan]), count=1, number=number)
    assert tally.first_bad() == 0


def test_losses_that_sum_to_more_than_float32_are_finite():
    tally = Tally()
    tally.add(mx.nd.array([3e38, 3e38]), count=2, number=4)
    assert tally.first_bad() is None
    assert tally.sums().loss == pytest.approx(6e38)


@pytest.mark.parametrize("start", [None, START])
def test_rewinding_forgets_what_came_after_the_mark(start):
    good, bad = (mx.nd.array([2.0]), float64(1, 1)), (mx.nd.array([np.nan]), float64(1, 1))
    tally = Tally(PARTS, start)
    mark = tally.mark()
    tally.add(*bad, count=1, number=0)
    tally.rewind(mark)
    assert (tally.sums(), tally.first_bad()) == (Tally(PARTS, start).sums(), None)
    tally.add(*good, count=1, number=1)
    mark = tally.mark()
    for _ in range(2):
        tally.add(*bad, count=1, number=2)
        tally.rewind(mark)
    tally.add(*good, count=1, number=3)
    before = start or Tally(PARTS).sums()
    want = Sums(before.count + 2, before.loss + 4.0,
                {name: value + 2.0 for name, value in before.parts.items()})
    assert (tally.sums(), tally.first_bad()) == (want, None)
