"""The learning rate at given updates, and against the paper's formula in float64."""

import math

import numpy as np
import pytest

from gluon_tricks.optim.schedule import lr_at


def lrs(updates, **options):
    return [lr_at(update, base_lr=0.1, updates=updates, **options) for update in range(updates)]


def near(values):
    return pytest.approx(values, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("options", "want"), [
    # cosine of 0, 1/4, 1/2 and 3/4 pi: 1, sqrt(1/2), 0, -sqrt(1/2)
    ({"decay": "cosine"}, [0.1, 0.085355339059327379, 0.05, 0.014644660940672622]),
    ({"decay": "poly", "power": 2}, [0.1, 0.05625, 0.025, 0.00625]),
    ({"decay": "poly", "power": 1}, [0.1, 0.075, 0.05, 0.025]),
    ({"decay": "poly", "power": 2, "target_lr": 0.02}, [0.1, 0.065, 0.04, 0.025]),
    ({"decay": "cosine", "target_lr": 0.02},
     [0.1, 0.088284271247461903, 0.06, 0.031715728752538097]),
    ({"decay": "constant"}, [0.1, 0.1, 0.1, 0.1]),
    ({"decay": "step", "step_updates": (1, 3)}, [0.1, 0.01, 0.01, 0.001]),
    ({"decay": "step", "step_updates": (3, 1)}, [0.1, 0.01, 0.01, 0.001]),
    ({"decay": "step", "step_updates": (2,), "step_factor": 0.5}, [0.1, 0.1, 0.05, 0.05]),
    ({"decay": "step", "step_updates": (4, 9)}, [0.1, 0.1, 0.1, 0.1]),
    ({"decay": "step"}, [0.1, 0.1, 0.1, 0.1]),
    ({"decay": "step", "step_updates": (0,)}, [0.01, 0.01, 0.01, 0.01]),
])
def test_four_updates_without_warm_up(options, want):
    assert lrs(4, **options) == near(want)


@pytest.mark.parametrize(("options", "want"), [
    ({"decay": "cosine"}, [0.025, 0.05, 0.075, 0.1, 0.1, 0.085355339059327379, 0.05,
                           0.014644660940672622]),
    ({"decay": "poly", "power": 1}, [0.025, 0.05, 0.075, 0.1, 0.1, 0.075, 0.05, 0.025]),
    ({"decay": "constant"}, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1]),
    # steps count from the start of the run
    ({"decay": "step", "step_updates": (5, 7)}, [0.025, 0.05, 0.075, 0.1, 0.1, 0.01, 0.01, 0.001]),
    # 0.02 + 0.08 * i / 4
    ({"decay": "constant", "warmup_lr": 0.02}, [0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1]),
    ({"decay": "constant", "warmup_mode": "constant", "warmup_lr": 0.03},
     [0.03, 0.03, 0.03, 0.03, 0.1, 0.1, 0.1, 0.1]),
    ({"decay": "cosine", "warmup_mode": "constant", "warmup_lr": 0.03},
     [0.03, 0.03, 0.03, 0.03, 0.1, 0.085355339059327379, 0.05, 0.014644660940672622]),
])
def test_eight_updates_of_which_four_warm_up(options, want):
    assert lrs(8, warmup_updates=4, **options) == near(want)


def test_a_step_inside_the_warm_up_shows_right_after_it():
    assert lrs(5, warmup_updates=3, decay="step", step_updates=(1,)) == near(
        [0.1 / 3, 0.2 / 3, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("decay", ["cosine", "poly", "step", "constant"])
def test_a_warm_up_of_the_whole_run_ends_at_the_base(decay):
    assert lrs(5, warmup_updates=5, decay=decay, step_updates=(2,)) == near(
        [0.02, 0.04, 0.06, 0.08, 0.1])


@pytest.mark.parametrize("decay", ["cosine", "poly", "step", "constant"])
@pytest.mark.parametrize("warmup_updates", [0, 1])
def test_a_run_of_one_update_is_at_the_base(decay, warmup_updates):
    assert lrs(1, warmup_updates=warmup_updates, decay=decay) == near([0.1])


def test_one_warm_up_update_is_at_the_base_already():
    assert lrs(3, warmup_updates=1, decay="constant") == near([0.1, 0.1, 0.1])


@pytest.mark.parametrize("decay", ["cosine", "poly"])
def test_the_decay_starts_at_the_base_right_after_the_warm_up(decay):
    run = {"base_lr": 0.4, "updates": 1000, "warmup_updates": 50, "decay": decay}
    assert lr_at(0, **run) == near(0.4 / 50)
    assert lr_at(49, **run) == near(0.4)
    assert lr_at(50, **run) == near(0.4)
    assert lr_at(51, **run) < 0.4


@pytest.mark.parametrize("decay", ["cosine", "poly"])
def test_no_jump_anywhere_and_the_last_update_still_learns(decay):
    values = np.array(lrs(1000, warmup_updates=50, decay=decay))
    assert np.abs(np.diff(values)).max() < 0.0021  # the warm-up rises by 0.002 per update
    assert (np.diff(values[50:]) < 0).all()
    assert 0 < values[-1] < 1e-6


def test_the_last_update_of_the_cosine_by_hand():
    # t = 99 of T = 100: (1 + cos(0.99 pi)) / 2 = sin(0.005 pi)^2
    assert lrs(105, warmup_updates=5)[-1] == near(0.1 * math.sin(0.005 * math.pi) ** 2)


def test_steps_fall_exactly_where_the_paper_says_over_120_epochs():
    steps = 7
    values = lrs(120 * steps, decay="step", step_updates=[30 * steps, 60 * steps, 90 * steps])
    for first, last, want in ((0, 30, 0.1), (30, 60, 0.01), (60, 90, 0.001), (90, 120, 0.0001)):
        assert values[first * steps:last * steps] == near([want] * 30 * steps)


def test_the_papers_warm_up_and_cosine_over_a_whole_run():
    """Section 3.1: batch i of m at i eta / m. Section 5.1: (1 + cos(t pi / T)) eta / 2."""
    steps, eta = 6, 0.4
    m, n = 5 * steps, 120 * steps
    i = np.arange(1, m + 1, dtype=np.float64)
    t = np.arange(n - m, dtype=np.float64)
    paper = np.concatenate([i * eta / m, 0.5 * (1 + np.cos(t * np.pi / (n - m))) * eta])
    got = [lr_at(update, base_lr=eta, updates=n, warmup_updates=m) for update in range(n)]
    np.testing.assert_allclose(got, paper, rtol=1e-12, atol=1e-15)


def test_the_defaults_are_a_cosine_without_warm_up_and_a_power_of_two():
    assert lrs(4) == near([0.1, 0.085355339059327379, 0.05, 0.014644660940672622])
    assert lrs(4, decay="poly")[2] == near(0.025)


@pytest.mark.parametrize("update", [-1, 10, 11])
def test_an_update_outside_the_run_is_refused(update):
    with pytest.raises(ValueError, match="outside"):
        lr_at(update, base_lr=0.1, updates=10)


@pytest.mark.parametrize("wrong", [
    {"warmup_updates": 11}, {"warmup_updates": -1}, {"warmup_mode": "gradual"},
    {"decay": "exponential"}, {"decay": ""}])
def test_what_is_no_schedule_is_refused(wrong):
    with pytest.raises(ValueError):
        lr_at(3, base_lr=0.1, updates=10, **wrong)
