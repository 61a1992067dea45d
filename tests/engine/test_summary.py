"""What a run logs about itself: its first and last lines, word for word."""

import re

import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import train
from gluon_tricks.engine import train as engine
from gluon_tricks.engine.summary import effective_batch
from gluon_tricks.runs.scores import Scores

pytestmark = pytest.mark.usefixtures("tiny")


def rows(folder):
    """The tables of train.log: (left column, right column)."""
    found = [re.fullmatch(r"(\S+(?: \S+)*)  +(\S.*)", line)
             for line in (folder / "train.log").read_text().splitlines()]
    return [line.groups() for line in found if line]


def test_the_start_says_what_will_be_done_and_the_end_what_was(settings, tmp_path, monkeypatch):
    scores = iter([Scores(7, 1.25, {"top1": 2 / 7, "top5": 1.0}),
                   Scores(7, 1.5, {"top1": 1 / 7, "top5": 6 / 7})])
    monkeypatch.setattr(engine, "evaluate", lambda *_, **__: next(scores))
    folder = train(settings(accumulate=2, linear_scaling=True, lr=0.64, l1=0.25, momentum=0.9,
                            ema=0.5, nan="skip", data_backend="opencv")).folder
    # 4 x 3 x 5 x 5 + 4 parameters of the convolution, 4 x 3 + 3 of the dense layer.
    assert rows(folder) == [
        ("training set", f"{tmp_path}/train.rec: 21 records, 3 classes"),
        ("validation set", f"{tmp_path}/val.rec: 7 records"),
        ("network", "cifar_resnet20_v1, 319 parameters, 0.000 G multiply-adds"),
        ("data backend", "opencv"), ("device", "cpu(0)"),
        ("global batch", "8 (4 x 2 batches)"),
        ("learning rate", "0.02, cosine (--lr 0.64 for 256)"),
        ("updates", "2 epochs of 2"),
        ("run folder", str(folder)),
        ("--num-data-workers", "2"), ("--input-size", "32"), ("--num-epochs", "2"),
        ("--l1", "0.25"), ("--ema", "0.5"), ("--warmup-epochs", "1"),
        ("--log-interval", "2"), ("--nan", "skip"),
        ("epochs", "2 of 2"), ("updates", "4"),
        ("best", "top-1 28.57%, top-5 100.00%, loss 1.2500, 7 images, epoch 1"),
        ("last", "top-1 14.29%, top-5 85.71%, loss 1.5000, 7 images"),
        ("updates skipped", "0"), ("run folder", str(folder))]


def test_a_run_that_goes_on_says_from_where_and_with_what_else(settings):
    folder = train(settings(num_epochs=2)).folder
    train(settings(num_epochs=3, resume="auto"))
    log = (folder / "train.log").read_text()
    assert f"resuming from {folder / 'checkpoints' / '000002'}: epoch 3, batch 0\n" in log
    assert "warning: changed since then: --num-epochs 2 -> 3; the result will differ" in log
    assert ("epochs", "3 of 3") in rows(folder)


def test_a_run_that_ends_early_says_so(settings, monkeypatch):
    monkeypatch.setattr(engine, "evaluate", lambda *_, **__: Scores(
        7, 1.0, {"top1": 0.5, "top5": 1.0}))
    folder = train(settings(num_epochs=5, early_stop_patience=1, mode="symbolic")).folder
    assert ("epochs", "2 of 5, stopped early") in rows(folder)
    assert "--mode symbolic: Gluon has no such mode, the run is hybrid\n" in (
        folder / "train.log").read_text()


@pytest.mark.parametrize(("flags", "said"), [
    ({}, "32"), ({"num_gpus": 1}, "32"), ({"num_gpus": 8}, "256 (32 x 8 devices)"),
    ({"accumulate": 2, "num_gpus": 4}, "256 (32 x 4 devices x 2 batches)")], ids=str)
def test_the_global_batch_is_taken_apart(flags, said):
    assert effective_batch(Settings(**flags)) == said
