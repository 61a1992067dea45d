"""Scores of a pass over a set, and the sums they are made from."""

from typing import NamedTuple

from gluon_tricks.parallel.ranks import Ranks


class Scores(NamedTuple):
    """Means over `count` samples; top1 and top5 are accuracies from 0 to 1."""

    count: int
    loss: float
    top1: float
    top5: float
    correct1: int
    correct5: int


class Sums(NamedTuple):
    """What a tally has summed; its JSON form gives back every bit."""

    count: int = 0
    loss: float = 0.0
    hits1: float = 0.0
    hits5: float = 0.0

    def over(self, ranks: Ranks) -> "Sums":
        """Those of all ranks together."""
        count, *sums = ranks.sum(self)
        return Sums(int(count), *sums)


def mean_scores(sums: Sums) -> Scores:
    """Raises ValueError where nothing was summed."""
    count, loss, hits1, hits5 = sums
    if not count:
        raise ValueError("no batch was counted")
    return Scores(count, loss / count, hits1 / count, hits5 / count, int(hits1), int(hits5))
