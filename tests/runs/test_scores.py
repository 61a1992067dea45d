"""Scores are means of sums, and come back from JSON to the bit."""

import json

import pytest

from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.scores import Scores, Sums, from_json, mean_scores, to_json


class Two(Ranks):
    """Another rank has the same sums."""

    def allreduce(self, numbers):
        return [2.0 * number for number in numbers]


def test_the_means():
    assert mean_scores(Sums(4, 6.0, {"top1": 3.0, "error": 0.5})) == Scores(
        4, 1.5, {"top1": 0.75, "error": 0.125})


def test_no_batch_has_no_scores():
    with pytest.raises(ValueError, match="no batch"):
        mean_scores(Sums())


def test_over_ranks_all_is_added_up():
    assert Sums(4, 6.0, {"top1": 3.0}).over(Two()) == Sums(8, 12.0, {"top1": 6.0})
    assert type(Sums(4).over(Ranks()).count) is int


@pytest.mark.parametrize("found", [Sums(3, 1 / 3, {"a": 0.1 + 0.2, "b": 5e-324}), Sums(),
                                   Scores(7, 2 / 7, {"top1": 1.0})])
def test_there_and_back(found):
    assert from_json(type(found), json.loads(json.dumps(to_json(found))), found[2]) == found


def test_no_scores_are_null():
    assert to_json(None) is None


@pytest.mark.parametrize("wrong", [
    None, [1, 2.0, {}], {}, {"count": 1, "loss": 2.0}, {"count": 1, "loss": 2.0, "parts": {}},
    {"count": "1", "loss": 2.0, "parts": {"a": 1.0}},
    {"count": -1, "loss": 2.0, "parts": {"a": 1.0}},
    {"count": True, "loss": 2.0, "parts": {"a": 1.0}},
    {"count": 1, "loss": 2, "parts": {"a": 1.0}},
    {"count": 1, "loss": 2.0, "parts": {"a": "1"}}, {"count": 1, "loss": 2.0, "parts": [1.0]},
    {"count": 1, "loss": 2.0, "parts": {"a": 1.0}, "more": 0},
    {"count": 1, "loss": 2.0, "figures": {"a": 1.0}}], ids=str)
def test_what_is_never_written_is_refused(wrong):
    with pytest.raises(ValueError):
        from_json(Sums, wrong, ["a"])
