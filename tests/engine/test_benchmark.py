"""Timing a run's updates: what is timed, and how the settings of a real run affect it."""

import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import make_task
from gluon_tricks.engine import benchmark

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.parametrize(("updates", "timed"), [(5, [2, 5]), (1, [1, 1])])
def test_the_speed_is_that_of_all_samples_after_a_warm_up(monkeypatch, updates, timed):
    asked = []

    def seconds(self, updates):
        asked.append(updates)
        return 4.0

    monkeypatch.setattr(benchmark.SyntheticRun, "seconds", seconds)
    settings = Settings(model="resnet18_v1", batch_size=4, accumulate=3, input_size=32)
    assert benchmark.training_speed(settings, make_task(), updates) == updates * 12 / 4
    assert asked == timed


@pytest.mark.parametrize("flags", [
    {"warmup_updates": 400, "warmup_mode": "constant", "warmup_lr": 0.01}, {"warmup_epochs": 5},
    {"resume": "auto", "save_dir": "/nowhere"}, {"tensorboard": True, "checkpoint_steps": 1},
    {"mixup": True, "mixup_off_epoch": 119, "nan": "skip", "early_stop_patience": 1}], ids=str)
def test_the_settings_of_a_long_run_can_be_measured_in_a_short_one(flags):
    settings = Settings(model="resnet18_v1", batch_size=4, input_size=32, **flags)
    assert benchmark.training_speed(settings, make_task(), 2) > 0
