"""What curves.png shows, read back from the lines of the plot."""

import json

import cv2
import numpy as np
import pytest
from matplotlib import figure

from gluon_tricks.runs import curves

# Epochs of 10 updates, a step line every 5.
STEPS = [{"kind": "step", "epoch": update // 10, "update": update, "lr": 0.1 - update / 1000,
          "loss": 2.0, "top1": 0.5, "samples_per_second": 100.0 + update, "data_wait": 0.125}
         for update in (4, 9, 14, 19, 24)]
EPOCHS = [{"kind": "epoch", "epoch": epoch, "update": 10 * epoch + 9, "lr": 0.1 - epoch / 100,
           "train_loss": 3.0 - epoch, "val_loss": 3.5 - epoch, "train_top1": 0.25 * epoch,
           "val_top1": 0.125 * epoch, "val_top5": 0.5, "samples_per_second": 50.0,
           "data_wait": 0.25} for epoch in (0, 1)]


PANEL = curves.Panel("accuracy, %", {"training top-1": "train_top1", "validation top-1": "val_top1",
                                     "validation top-5": "val_top5"}, 100)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """drawn(lines, **options): the axes' lines by (title or y label, curve)."""
    def draw(lines, tail="", **options):
        figures = []
        original = figure.Figure

        def keep(*arguments, **more):
            figures.append(original(*arguments, **more))
            return figures[0]
        monkeypatch.setattr(figure, "Figure", keep)
        log = tmp_path / "a run of $\\cat$" / "log.jsonl"  # would be a formula to matplotlib
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
        curves.draw_curves(log, tmp_path / "curves.png", 10, PANEL._replace(**options))
        assert cv2.imread(str(tmp_path / "curves.png")).shape == (700, 1000, 3)
        return {(axes.get_title() or axes.get_ylabel(),
                 "" if line.get_label().startswith("_") else line.get_label()):
                np.transpose(line.get_data()).tolist()
                for axes in figures[0].axes for line in axes.lines}
    return draw


def test_every_curve(drawn):
    lines = [*STEPS[:2], EPOCHS[0], *STEPS[2:4], EPOCHS[1], STEPS[4], {"kind": "end", "update": 24}]
    found = drawn(lines)
    assert found["loss", "training"] == [[1, 3], [2, 2]]
    assert found["loss", "validation"] == [[1, 3.5], [2, 2.5]]
    assert found["accuracy, %", "training top-1"] == [[1, 0], [2, 25]]
    assert found["accuracy, %", "validation top-1"] == [[1, 0], [2, 12.5]]
    assert found["accuracy, %", "validation top-5"] == [[1, 50], [2, 50]]
    places = [0.5, 1, 1, 1.5, 2, 2, 2.5]
    for curve, first in ((("learning rate", ""), [0.5, 0.096]),
                         (("training samples/s", ""), [0.5, 104]),
                         (("% of the time waiting for data", ""), [0.5, 12.5])):
        assert [x for x, _ in found[curve]] == places
        assert found[curve][0] == first
    assert found["% of the time waiting for data", ""][2] == [1, 25]


def test_an_epoch_that_was_not_validated_leaves_validation_s_curves_out(drawn):
    first = {name: value for name, value in EPOCHS[0].items() if not name.startswith("val_")}
    found = drawn([*STEPS[:2], first, *STEPS[2:4], EPOCHS[1]])
    assert found["loss", "training"] == [[1, 3], [2, 2]]
    assert found["loss", "validation"] == [[2, 2.5]]
    assert found["accuracy, %", "validation top-1"] == [[2, 12.5]]
    assert drawn([*STEPS[:2], first])["loss", "validation"] == []


def test_a_log_that_begins_late_or_amid_an_epoch_keeps_its_places(drawn):
    """From a run that was resumed in another folder."""
    found = drawn([STEPS[3], EPOCHS[1]], training="training, smoothed labels")
    assert found["loss", "training, smoothed labels"] == [[2, 2]]
    assert [x for x, _ in found["learning rate", ""]] == [2, 2]
    found = drawn(STEPS[:1])
    assert [x for x, _ in found["learning rate", ""]] == [0.5]


@pytest.mark.parametrize("tail", ['{"kind": "st', "{", '{"kind": "step"}'])
def test_a_last_line_that_is_half_written_is_left_out(drawn, tail):
    assert len(drawn(EPOCHS, tail)["learning rate", ""]) == 2


def test_an_empty_log(drawn):
    assert drawn([])["loss", "training"] == []
