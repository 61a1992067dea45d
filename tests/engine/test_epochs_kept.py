"""--eval-frequency and --save-frequency: which epochs are validated, and which are kept."""

import json
import shutil

import numpy as np
import pytest

from gluon_tricks.classification.start import train
from gluon_tricks.engine import train as engine
from gluon_tricks.errors import InputError
from gluon_tricks.runs import runlog
from gluon_tricks.runs.scores import Scores

pytestmark = pytest.mark.usefixtures("tiny")
VAL = {"val_loss", "val_top1", "val_top5", "val_count"}


@pytest.fixture(autouse=True)
def not_drawn(monkeypatch):
    """Drawing takes longer than everything else in these runs."""
    monkeypatch.setattr(runlog, "draw_curves", lambda *_: None)


@pytest.fixture
def scored(monkeypatch):
    """scored(top1, ...): make validations return these; a list that grows with each."""
    def give(*values):
        seen, left = [], iter(values)

        def evaluate(*_, **__):
            seen.append(next(left))
            return Scores(7, 1.0, {"top1": seen[-1], "top5": 1.0})
        monkeypatch.setattr(engine, "evaluate", evaluate)
        return seen
    return give


@pytest.mark.parametrize(("frequency", "epochs"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]),
                                                   (5, [4]), (0, [4])])
def test_validated_epochs_and_no_others_have_scores(settings, lines, frequency, epochs):
    result = train(settings(num_epochs=5, eval_frequency=frequency))
    found = lines(result.folder, "epoch")
    assert [line["epoch"] for line in found] == [0, 1, 2, 3, 4]
    assert [line["epoch"] for line in found if line.keys() & VAL] == epochs
    assert all(line.keys() & VAL in (set(), VAL) for line in found)
    text = (result.folder / "train.log").read_text()
    assert [f"[Epoch {epoch}] validation:" in text for epoch in range(5)] == [
        epoch in epochs for epoch in range(5)]
    assert text.count("] training: accuracy=") == 5
    assert result.last.figures["top1"] == found[-1]["val_top1"]
    assert result.best_epoch in epochs


def test_validation_changes_no_bit_of_training(settings, arrays, tmp_path):
    every, none = (train(settings(num_epochs=3, eval_frequency=frequency, save_dir=str(
        tmp_path / str(frequency)))).folder for frequency in (1, 0))
    for name, array in arrays(every / "last.params").items():
        np.testing.assert_array_equal(array, arrays(none / "last.params")[name])


def test_the_best_is_the_best_that_was_validated(settings, scored, arrays):
    seen = scored(0.3, 0.9, 0.5)
    result = train(settings(num_epochs=5, eval_frequency=2, keep=9))
    assert (seen, result.best_epoch, result.best.figures["top1"], result.last.figures["top1"]) == (
        [0.3, 0.9, 0.5], 3, 0.9, 0.5)
    for name, epoch in (("best.params", 3), ("last.params", 4)):
        want = arrays(result.folder / "checkpoints" / f"00000{epoch + 1}" / "model.params")
        for key, array in arrays(result.folder / name).items():
            np.testing.assert_array_equal(array, want[key])


@pytest.mark.parametrize(("frequency", "patience", "tops", "epochs"), [
    (2, 3, (0.5, 0.4, 0.3, 0.2), 6),   # best after epoch 2, checked after 4, stopped after 6
    (3, 2, (0.5, 0.6, 0.4, 0.3), 9),
    (4, 3, (0.1, 0.2, 0.3), 10)])      # never: not before the first validation either
def test_early_stopping_ends_a_run_after_a_validation(settings, scored, lines, frequency, patience,
                                                      tops, epochs):
    scored(*tops)
    result = train(settings(num_epochs=10, eval_frequency=frequency, early_stop_patience=patience))
    found = lines(result.folder, "epoch")
    assert len(found) == epochs
    assert "val_top1" in found[-1]


def test_a_run_goes_on_amid_epochs_that_are_not_validated(settings, lines, arrays, tmp_path):
    chosen = settings(num_epochs=5, eval_frequency=4, keep=9, save_frequency=2)
    whole = train(chosen)
    shutil.copytree(whole.folder, tmp_path / "cut")
    for number in (3, 4, 5):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"00000{number}")
    (tmp_path / "cut" / "best.params").unlink()
    again = train(settings(num_epochs=5, eval_frequency=4, keep=9, save_frequency=2, resume="auto",
                           save_dir=str(tmp_path / "cut")))
    assert (again.best_epoch, again.best, again.last) == (whole.best_epoch, whole.best, whole.last)
    assert [line.keys() for line in lines(again.folder, "epoch")] == [
        line.keys() for line in lines(whole.folder, "epoch")]
    for path in whole.folder.glob("*.params"):
        for name, array in arrays(path).items():
            np.testing.assert_array_equal(arrays(again.folder / path.name)[name], array)
    states = [json.loads((run.folder / "checkpoints" / "000003" / "state.json").read_text())
              for run in (whole, again)]
    for state in states:
        del state["progress"]["seconds"], state["progress"]["waited"]
    assert states[0]["progress"] == states[1]["progress"]


def test_patience_begins_with_the_first_validation(settings):
    """Even if the resumed run would have validated later."""
    folder = train(settings(num_epochs=6, eval_frequency=5, keep=9)).folder
    for number in (4, 5, 6):
        shutil.rmtree(folder / "checkpoints" / f"00000{number}")
    result = train(settings(num_epochs=6, eval_frequency=1, early_stop_patience=2, resume="auto"))
    assert result.best_epoch >= 3


def test_a_run_cannot_be_cut_short_at_an_epoch_that_was_not_validated(settings, tmp_path):
    folder = train(settings(num_epochs=3, eval_frequency=0)).folder
    shutil.rmtree(folder / "checkpoints" / "000003")
    with pytest.raises(InputError, match=r"000002 is from an epoch that was not validated: "
                       r"give a greater --num-epochs"):
        train(settings(num_epochs=2, eval_frequency=0, resume="auto"))
    assert train(settings(num_epochs=3, eval_frequency=0, resume="auto")).last.count == 7


@pytest.mark.parametrize(("model", "frequency", "names"), [
    ("resnet18_v1", 2, ["imagenet-resnet18_v1-1", "imagenet-resnet18_v1-3",
                        "imagenet-resnet18_v1-4"]),
    ("cifar_resnet20_v1", 5, ["cifar10-cifar_resnet20_v1-4"]),
    ("resnet18_v1", 9, ["imagenet-resnet18_v1-4"]), ("resnet18_v1", 0, [])])
def test_kept_epochs_have_gluoncv_s_names(settings, arrays, model, frequency, names):
    """Its scripts count from 0, and also keep the last one."""
    folder = train(settings(model=model, num_epochs=5, save_frequency=frequency, ema=0.5, keep=9,
                            eval_frequency=0)).folder
    assert sorted(path.stem for path in folder.glob("*-*.params")) == names
    for name in names:
        number = int(name.rpartition("-")[2]) + 1
        want = arrays(folder / "checkpoints" / f"00000{number}" / "average.params")
        for key, array in arrays(folder / f"{name}.params").items():
            np.testing.assert_array_equal(array, want[key])
