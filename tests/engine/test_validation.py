"""Validation counts each sample once, and restores weights when the device is done."""

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.engine import validation
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.scores import Scores


class Loader:
    """`sizes` of the batches; of `records` samples those in `skipped` are damaged."""

    def __init__(self, sizes, records, skipped=()):
        self.order = SimpleNamespace(records=records, steps_of_longest_rank=len(sizes))
        self.skipped, self._sizes = set(skipped), sizes

    def epoch(self):
        for step, size in enumerate(self._sizes):
            yield SimpleNamespace(indices=np.arange(size), step=step)

    def no_decodable_record(self):
        return InputError("nothing can be decoded")


class Evaluator:
    """Counts samples; notes what is asked of it."""

    def __init__(self):
        self.count, self.asked = 0, []

    def take(self, batch):
        self.count += len(batch.indices)
        return mx.nd.zeros((1,))

    def scores(self, ranks):
        self.asked.append("scores")
        return Scores(self.count, 1.0, {"figure": 0.5})


def evaluate(loader, evaluator=None, **options):
    network = SimpleNamespace(collect_params=dict)
    return validation.evaluate(evaluator or Evaluator(), network, loader, ranks=Ranks(), **options)


def test_empty_batches_are_passed_over_and_between_is_called_for_each():
    calls = []
    found = evaluate(Loader([2, 0, 3], 7, skipped=(1, 4)), between=lambda: calls.append(1))
    assert (found.count, len(calls)) == (5, 3)


@pytest.mark.parametrize("sizes", [[2, 2], [2, 4], []])
def test_a_sample_that_is_missing_or_counted_twice_is_a_fault(sizes):
    with pytest.raises(RunFault, match=f"counted {sum(sizes)} samples of 5 records"):
        evaluate(Loader(sizes, 5))


def test_a_set_of_damaged_samples_alone_is_refused():
    with pytest.raises(InputError, match="nothing can be decoded"):
        evaluate(Loader([0], 2, skipped=(0, 1)))


def test_weights_are_restored_when_the_scores_are_there(monkeypatch):
    """Scores wait for the device; before that, a weight's layout may be about to change."""
    evaluator = Evaluator()
    monkeypatch.setattr(validation, "restore_layout", lambda _: evaluator.asked.append("restored"))
    evaluate(Loader([2], 2), evaluator)
    assert evaluator.asked == ["scores", "restored"]
