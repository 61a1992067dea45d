"""Reports on a network's predictions beyond its scores: calibration, confusion, accuracy by class.
"""

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
_NAMED = 30  # most classes whose names and counts fit into a drawn confusion matrix
# From orange on: yellow dots are invisible on white.
_COLORS = ListedColormap(matplotlib.colormaps["inferno_r"](np.linspace(0.25, 1, 256)))


def calibration_sums(labels: np.ndarray, predicted: np.ndarray,
                     probabilities: np.ndarray) -> np.ndarray:
    """The sums over samples that the calibration error needs, which add up over ranks: (3, BINS)
    float64.

    Bin m of M has the samples whose probability is in ((m - 1) / M, m / M]. Rows: the number of
    samples, of hits, and the sum of probabilities. labels, predicted and probabilities (those of
    the predicted classes) are (samples,).
    """
    bins = np.searchsorted(np.arange(1, BINS) / BINS, probabilities)
    return np.stack([np.bincount(bins, weights, BINS) for weights in (
        np.ones(len(bins)), labels == predicted, probabilities)])


def calibration_error(sums: np.ndarray) -> float:
    """Expected calibration error (arXiv 1706.04599, eq. 3): sum_m |B_m| / n |acc(B_m) - conf(B_m)|,
    from the `calibration_sums` of at least one sample."""
    counts, hits, probabilities = sums
    return float(np.abs(hits - probabilities).sum() / counts.sum())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many samples of each class (row) were predicted as each class (column): (classes,
    classes) int64."""
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


CLASS_COLUMNS = ("class", "count", "top1", "confused_with")  # names of ClassRow's fields in files


class ClassRow(NamedTuple):
    """The accuracy of one class."""

    name: str
    count: int
    top1: float  # from 0 to 1
    confused_with: str  # the class it was most often mistaken for; "" if it never was


def by_class(matrix: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    """The accuracy of each class, the worst first, ties by label; skips classes without samples."""
    rows = []
    for label, counts in enumerate(matrix):
        count, right = int(counts.sum()), int(counts[label])
        wrong = np.where(np.arange(len(counts)) == label, 0, counts)
        if count:
            rows.append(ClassRow(names[label], count, right / count,
                                 names[int(wrong.argmax())] if right < count else ""))
    return sorted(rows, key=lambda row: row.top1)


def class_table(rows: Iterable[ClassRow]) -> str:
    """The rows as a table for people."""
    return tabulate([(row.name, row.count, f"{row.top1:.2%}", row.confused_with) for row in rows],
                    headers=("class", "count", "top-1", "most often mistaken for"),
                    colalign=("left", "right", "right", "left"), disable_numparse=True)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which then replaces `path`. If that fails, raises RunFault and
    leaves `path` as it was."""
    try:
        with files.atomic(path) as part:
            yield part
    except OSError as error:
        raise RunFault(f"{path} cannot be written: {error.strerror or error}") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV file. Raises RunFault if it cannot be written, e.g. to a full disk."""
    with _replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def draw_confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix on a log color scale, zeros in white; rows are labels, columns are
    predictions. With at most 30 classes, names and counts are printed.

    Raises RunFault if it cannot be written, e.g. to a full disk.
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
    else:  # a single mistake among a million cells must be visible: larger than its cell
        order = np.argsort(counts, kind="stable")  # the highest on top
        image = axes.scatter(columns[order], rows[order], c=counts[order], marker="s",
                             linewidths=0, s=max(2, 700 / classes) ** 2, **scale)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="predicted class", ylabel="class",
             title=f"{counts.sum()} images, top-1 {np.trace(matrix) / counts.sum():.2%}")
    bar = figure.colorbar(image, label="images", format="%d", shrink=0.8)
    bar.minorformatter = LogFormatter()  # between powers of ten, if there are few of those
    with _replacing(path) as part:
        figure.savefig(part, dpi=100, format="png")


def _write_in(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    shown = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    # Names are not formulas, as matplotlib takes text between two $ to be.
    axes.set_xticks(range(len(shown)), shown, rotation=90, parse_math=False)
    axes.set_yticks(range(len(shown)), shown, parse_math=False)
    pale = matrix.max() ** 0.3  # up to here the scale's colors are pale
    for row, column in zip(*np.nonzero(matrix), strict=True):
        count = matrix[row, column]
        axes.text(column, row, count, ha="center", va="center", fontsize=7,
                  color="white" if count > pale else "black")
