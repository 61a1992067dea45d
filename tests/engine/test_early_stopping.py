"""When a run that has stopped improving ends."""

import pytest

from gluon_tricks.engine.early_stopping import patience_exhausted

# Of the scores 0.5 0.4 0.6 0.7 0.7 0.6 0.8 0.1 0.2 0.3 the best epoch so far; an equal one is not
# better.
BEST = [0, 0, 2, 3, 3, 3, 6, 6, 6, 6]


# Epochs without a better score are 1 after epoch 1, 2 after epoch 5, 3 after epoch 9.
@pytest.mark.parametrize(("patience", "last"), [(1, 1), (2, 5), (3, 9), (4, None), (0, None)])
def test_a_run_ends_after_so_many_epochs_without_a_better_one(patience, last):
    ends = [epoch for epoch in range(10) if patience_exhausted(epoch, BEST[epoch], patience)]
    assert (ends[0] if ends else None) == last
