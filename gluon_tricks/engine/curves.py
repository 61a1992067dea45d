"""curves.png: a run's loss, accuracy, learning rate and speed, from its log.jsonl."""

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def read_log(path: Path) -> tuple[list[dict], list[dict]]:
    """The lines of kind "step" and of kind "epoch"; a last one that is not whole is left out."""
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return ([line for line in lines if line["kind"] == "step"],
            [line for line in lines if line["kind"] == "epoch"])


def draw_curves(log: Path, picture: Path, per_epoch: int,
                training: str = "training") -> None:
    """Training points stand at the end of their epoch; learning rate and speed also in between.

    per_epoch: updates. training: what training's loss is called, for it may be against smoothed or
    mixed labels or a teacher, and validation's never is.
    """
    steps, epochs = read_log(log)
    ends = [line["epoch"] + 1 for line in epochs]
    every = sorted(steps + epochs, key=lambda line: line["update"])
    passed = [(line["update"] + 1) / per_epoch for line in every]

    figure = Figure(figsize=(10, 7), layout="constrained")
    (loss, accuracy), (lr, speed) = figure.subplots(2, 2)
    _lines(loss, "loss", ends, {training: [line["train_loss"] for line in epochs],
                                "validation": [line["val_loss"] for line in epochs]})
    _lines(accuracy, "accuracy, %", ends,
           {"training top-1": [100 * line["train_top1"] for line in epochs],
            "validation top-1": [100 * line["val_top1"] for line in epochs],
            "validation top-5": [100 * line["val_top5"] for line in epochs]})
    _lines(lr, "learning rate", passed, {"": [line["lr"] for line in every]})
    _lines(speed, "training samples/s", passed,
           {"": [line["samples_per_second"] for line in every]})
    waiting = speed.twinx()
    waiting.plot(passed, [100 * line["data_wait"] for line in every], "C1", linewidth=0.8)
    waiting.set_ylabel("% of the time waiting for data", color="C1")
    waiting.set_ylim(0, 100)
    lr.set_ylim(bottom=0)
    speed.set_ylim(bottom=0)
    figure.suptitle(log.parent.name)
    figure.savefig(picture, dpi=100)


def _lines(axes: Axes, title: str, x: list[float], curves: dict[str, list[float]]) -> None:
    for name, y in curves.items():
        axes.plot(x, y, marker="o" if len(x) <= 40 else None, markersize=3, label=name)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if any(curves):
        axes.legend()
