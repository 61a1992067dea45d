"""Parallel map: order, bounds, errors, cancellation."""

import threading
import time

import pytest

from gluon_tricks.data.threads import ordered_map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_items_order(workers):
    def slow_for_some(item):
        time.sleep(0.002 * (item % 3 == 0))
        return item * item

    assert list(ordered_map(slow_for_some, range(60), workers)) == [i * i for i in range(60)]


def test_no_items():
    assert list(ordered_map(str, [], 3)) == []


def test_work_runs_side_by_side():
    """Each of three items waits for the two others."""
    barrier = threading.Barrier(3)
    assert len(list(ordered_map(lambda _: barrier.wait(60), range(3), 3))) == 3


def test_items_are_taken_as_results_are_used():
    taken = []
    items = (taken.append(i) or i for i in range(1000))
    for used, _ in enumerate(ordered_map(str, items, 2), 1):
        assert len(taken) <= used + 4 * 2
    assert len(taken) == 1000


def test_an_error_comes_in_its_place():
    results = ordered_map(lambda item: 1 / item, [2, 1, 0, 4], 2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_giving_up_ends_the_threads():
    before, done = set(threading.enumerate()), []
    results = ordered_map(done.append, range(100), 2)
    next(results)
    results.close()
    assert not set(threading.enumerate()) - before
    assert len(done) <= 1 + 4 * 2
