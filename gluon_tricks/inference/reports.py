"""What a network's answers say beyond its scores: calibration, confusion, accuracy by class."""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from tabulate import tabulate

from gluon_tricks import files
from gluon_tricks.errors import RunFault

BINS = 15
_NAMED = 30  # most classes whose names and counts a picture of the confusion matrix can hold
# From orange on: yellow dots cannot be seen on white.
_COLORS = ListedColormap(matplotlib.colormaps["inferno_r"](np.linspace(0.25, 1, 256)))


def calibration_sums(labels: np.ndarray, predicted: np.ndarray,
                     probabilities: np.ndarray) -> np.ndarray:
    """What the calibration error needs of some samples, to be added up: (3, BINS) float64.

    Bin m of M holds the samples whose probability lies in ((m - 1) / M, m / M]. Rows: samples, hits
    and summed probabilities of each. labels, predicted and probabilities, those of the predicted
    classes, are (samples,).
    """
    bins = np.searchsorted(np.arange(1, BINS) / BINS, probabilities)
    return np.stack([np.bincount(bins, weights, BINS) for weights in (
        np.ones(len(bins)), labels == predicted, probabilities)])


def calibration_error(sums: np.ndarray) -> float:
    """Expected calibration error (arXiv 1706.04599, eq. 3): sum_m |B_m| / n |acc(B_m) - conf(B_m)|,
    of `calibration_sums` of one sample or more."""
    counts, hits, probabilities = sums
    return float(np.abs(hits - probabilities).sum() / counts.sum())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many samples of each class (row) were taken for each (column): (classes, classes) int64.
    """
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


CLASS_COLUMNS = ("class", "count", "top1", "confused_with")  # what files call those of a ClassRow


class ClassRow(NamedTuple):
    """How a class fared."""

    name: str
    count: int
    top1: float  # from 0 to 1
    confused_with: str  # the other class that it was most often taken for; "" where always right


def by_class(matrix: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    """The worst first, those alike in the order of their labels; classes without samples are left
    out."""
    rows = []
    for label, counts in enumerate(matrix):
        count, right = int(counts.sum()), int(counts[label])
        wrong = np.where(np.arange(len(counts)) == label, 0, counts)
        if count:
            rows.append(ClassRow(names[label], count, right / count,
                                 names[int(wrong.argmax())] if right < count else ""))
    return sorted(rows, key=lambda row: row.top1)


def class_table(rows: Iterable[ClassRow]) -> str:
    """For people."""
    return tabulate([(row.name, row.count, f"{row.top1:.2%}", row.confused_with) for row in rows],
                    headers=("class", "count", "top-1", "most often taken for"),
                    colalign=("left", "right", "right", "left"), disable_numparse=True)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Where to write what then gets the name `path`. Raises RunFault, and leaves what is there as
    it is, where that fails."""
    try:
        with files.atomic(path) as part:
            yield part
    except OSError as error:
        raise RunFault(f"{path} cannot be written: {error.strerror or error}") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Raises RunFault where it cannot be written, a full disk's say."""
    with _aside(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def draw_confusion(matrix: np.ndarray, names: Sequence[str], picture: Path) -> None:
    """The counts as a picture, log colour scale, no count white; names and counts in print where
    there are at most 30 classes. A row's samples are of the class, a column's were taken for it.

    Raises RunFault where it cannot be written, a full disk's say.
    """
    classes = len(matrix)
    named = classes <= _NAMED
    side = 3 + 0.4 * classes if named else 12.5
    figure = Figure(figsize=(side + 1, side), layout="compressed")
    axes = figure.subplots()
    rows, columns = np.nonzero(matrix)
    counts = matrix[rows, columns]
    scale = {"cmap": _COLORS, "norm": LogNorm(1, max(2, int(counts.max())))}
    if named:
        image = axes.imshow(np.ma.masked_equal(matrix, 0), **scale)
        _write_in(axes, matrix, names)
    else:  # a single mistake among a million cells must be seen: larger than its cell
        order = np.argsort(counts, kind="stable")  # the highest on top
        image = axes.scatter(columns[order], rows[order], c=counts[order], marker="s",
                             linewidths=0, s=max(2, 700 / classes) ** 2, **scale)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="taken for", ylabel="class",
             title=f"{counts.sum()} pictures, top-1 {np.trace(matrix) / counts.sum():.2%}")
    bar = figure.colorbar(image, label="pictures", format="%d", shrink=0.8)
    bar.minorformatter = LogFormatter()  # between powers of ten, where there are few of those
    with _aside(picture) as part:
        figure.savefig(part, dpi=100, format="png")


def _write_in(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    shown = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    # Names are no formulas, which text between two $ would be.
    axes.set_xticks(range(len(shown)), shown, rotation=90, parse_math=False)
    axes.set_yticks(range(len(shown)), shown, parse_math=False)
    pale = matrix.max() ** 0.3  # up to there the scale's colours are
    for row, column in zip(*np.nonzero(matrix), strict=True):
        count = matrix[row, column]
        axes.text(column, row, count, ha="center", va="center", fontsize=7,
                  color="white" if count > pale else "black")
