"""Signals to one of several ranks: all stop at the same poll, and none waits for it."""

from signal import SIGINT, SIGTERM

import pytest

from gluon_tricks.engine.stopping import StopRequest, StopWanted
from gluon_tricks.parallel.ranks import Ranks

LAG = 2  # polls until an answer arrives, at most


class Board:
    """What ranks have contributed, by rank and by number of the sum."""

    def __init__(self, size):
        self.size, self.put = size, {}

    def rank(self, number):
        ranks = Ranks()
        ranks.rank, ranks.size, ranks.asked = number, self.size, 0

        def allreduce_async(numbers):
            key, ranks.asked = ranks.asked, ranks.asked + 1
            self.put[number, key] = list(numbers)

            def wait():
                every = [self.put[other, key] for other in range(self.size)]  # or it would hang
                return [sum(map(float, column)) for column in zip(*every, strict=True)]
            return wait

        ranks.allreduce_async = allreduce_async
        return ranks


def polls(signals, delays, last=12):
    """By rank, the signal after each of its polls. `signals` is {rank: (before which poll, which
    one)}; a rank polls `delays[rank]` later than the first to do so."""
    board = Board(len(delays))
    stops = [StopRequest(board.rank(number)) for number in range(board.size)]
    seen = [[] for _ in delays]
    for time in range(last + max(delays)):
        for rank in sorted(range(board.size), key=lambda rank: -delays[rank]):  # late ones first
            poll, stop = time - delays[rank], stops[rank]
            if 0 <= poll < last:
                for before, number in signals.get(rank, ()):
                    if poll == before:
                        stop._note(number, None)
                stop.poll()
                seen[rank].append(stop.signal)
    return seen, [stop._ranks.asked for stop in stops]


@pytest.mark.parametrize("delays", [(0, 0, 0), (0, 1, 2), (2, 0, 1), (0, 2)])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
@pytest.mark.parametrize("poll", [0, 4])
def test_a_signal_at_any_rank_reaches_all_at_the_same_poll(delays, rank, number, poll):
    """Two polls after the one that announced it; then nothing more is sent."""
    seen, asked = polls({rank: [(poll, number)]}, delays)
    want = [None] * (poll + LAG) + [number] * (12 - poll - LAG)
    assert seen == [want] * len(delays)
    assert asked == [poll + LAG + 1] * len(delays)


@pytest.mark.parametrize("signals", [
    {0: [(3, SIGINT)], 1: [(3, SIGTERM)]}, {0: [(3, SIGTERM)], 2: [(3, SIGINT)]},
    {0: [(3, SIGINT)], 1: [(3, SIGTERM)], 2: [(3, SIGTERM)]}])
def test_of_two_at_once_sigterm_is_taken(signals):
    seen, _ = polls(signals, (0, 1, 2))
    assert seen == [[None] * 5 + [SIGTERM] * 7] * 3


@pytest.mark.parametrize("later", [SIGTERM, SIGINT])
def test_what_comes_after_the_first_changes_nothing(later):
    first = SIGINT if later == SIGTERM else SIGTERM
    seen, _ = polls({0: [(1, first)], 1: [(2, later), (9, SIGTERM)]}, (0, 2, 1))
    assert seen == [[None] * 3 + [first] * 9] * 3


def test_without_a_signal_nothing_happens():
    seen, asked = polls({}, (1, 0, 2))
    assert seen == [[None] * 12] * 3
    assert asked == [12] * 3


def test_check_stops_where_all_know():
    board = Board(2)
    first, other = (StopRequest(board.rank(number)) for number in range(2))
    other._note(SIGTERM, None)
    assert other.signal is None  # the others do not know yet
    for _ in range(LAG):
        first.check()
        other.check()
    for stop in (first, other):
        with pytest.raises(StopWanted):
            stop.check()


def test_the_first_rank_alone_speaks(capfd):
    board = Board(2)
    StopRequest(board.rank(1))._note(SIGTERM, None)
    assert capfd.readouterr().err == ""
    StopRequest(board.rank(0))._note(SIGTERM, None)
    assert "SIGTERM: finishing this update and saving" in capfd.readouterr().err
