"""Draws curves.png: a run's loss, figures, learning rate and speed, from its log.jsonl."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from gluon_tricks import files


class Panel(NamedTuple):
    """How a task's figures are drawn."""

    title: str  # "accuracy, %"
    lines: Mapping[str, str]  # by label, the key in an epoch's line: "train_top1"
    factor: float = 1.0  # that the figures are multiplied by
    training: str = "training"  # label of the training loss, which may differ from validation's


def read_log(path: Path) -> tuple[list[dict], list[dict]]:
    """The lines of kind "step" and of kind "epoch"; an incomplete last line is skipped."""
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return ([line for line in lines if line["kind"] == "step"],
            [line for line in lines if line["kind"] == "epoch"])


def draw_curves(log: Path, image: Path, per_epoch: int, panel: Panel) -> None:
    """Draw the curves of a log.jsonl; `per_epoch` is the number of updates in an epoch.

    Loss and figures have a point at the end of each epoch; learning rate and speed also in between.
    """
    from matplotlib.figure import Figure  # late: it writes to the user's folder, a dry run must not

    steps, epochs = read_log(log)
    every = sorted(steps + epochs, key=lambda line: line["update"])
    passed = [(line["update"] + 1) / per_epoch for line in every]

    figure = Figure(figsize=(10, 7), layout="constrained")
    (loss, figures), (lr, speed) = figure.subplots(2, 2)
    _lines(loss, "loss", {panel.training: _ends(epochs, "train_loss"),
                          "validation": _ends(epochs, "val_loss")})
    _lines(figures, panel.title, {label: _ends(epochs, key, panel.factor)
                                  for label, key in panel.lines.items()})
    _lines(lr, "learning rate", {"": (passed, [line["lr"] for line in every])})
    _lines(speed, "training samples/s",
           {"": (passed, [line["samples_per_second"] for line in every])})
    waiting = speed.twinx()
    waiting.plot(passed, [100 * line["data_wait"] for line in every], "C1", linewidth=0.8)
    waiting.set_ylabel("% of the time waiting for data", color="C1")
    waiting.set_ylim(0, 100)
    lr.set_ylim(bottom=0)
    speed.set_ylim(bottom=0)
    figure.suptitle(log.parent.name, parse_math=False)
    with files.atomic(image) as part:
        figure.savefig(part, dpi=100, format="png")


def _ends(epochs: list[dict], name: str, factor: float = 1) -> tuple[list[float], list[float]]:
    """The ends of the epochs that have this value, and the values."""
    having = [line for line in epochs if name in line]
    return [line["epoch"] + 1 for line in having], [factor * line[name] for line in having]


def _lines(axes: "Axes", title: str, curves: dict[str, tuple[list[float], list[float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, (x, y) in curves.items():
        axes.plot(x, y, marker="o" if len(x) <= 40 else None, markersize=3, label=name)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if any(curves):
        axes.legend()
