"""Calibration, confusion and accuracy by class, against sums by hand and in loops."""

import math
import resource

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from gluon_tricks.errors import RunFault
from gluon_tricks.inference import reports


def error_of(labels, predicted, probabilities):
    return reports.calibration_error(reports.calibration_sums(
        np.array(labels), np.array(predicted), np.array(probabilities)))


def test_the_calibration_error_by_hand():
    """Four samples at 0.9, three of them right, one at 0.5, wrong: (4 |3/4 - 0.9| + 0.5) / 5."""
    assert error_of([0, 1, 2, 3, 4], [0, 1, 2, 9, 9], [0.9, 0.9, 0.9, 0.9, 0.5]) == \
        pytest.approx((4 * 0.15 + 0.5) / 5, rel=1e-12)


def test_samples_of_a_bin_make_up_for_each_other_and_those_of_two_do_not():
    """0.61 and 0.66 share the bin from 9/15 to 10/15; 0.61 and 0.68 do not."""
    assert error_of([0, 0], [0, 1], [0.61, 0.66]) == pytest.approx((1.27 - 1) / 2)
    assert error_of([0, 0], [0, 1], [0.61, 0.68]) == pytest.approx((1 - 0.61 + 0.68) / 2)


def test_a_bin_ends_with_its_upper_edge():
    """Eq. 3's bins are ((m - 1) / 15, m / 15]."""
    for bin_number in range(1, 16):
        edge = bin_number / 15
        sums = reports.calibration_sums(np.zeros(2), np.zeros(2),
                                        np.array([edge, math.nextafter(edge, 0)]))
        assert sums[0].nonzero()[0].tolist() == [bin_number - 1]
        assert sums[0].sum() == 2
    above = reports.calibration_sums(np.zeros(1), np.zeros(1),
                                     np.array([math.nextafter(2 / 15, 1)]))
    assert above[0].tolist() == [0, 0, 1, *[0] * 12]


def test_the_calibration_error_is_the_paper_s_loop_and_parts_add_up():
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.1, 1, 500).astype(np.float32).astype(np.float64)
    labels = rng.integers(0, 9, 500)
    predicted = np.where(rng.random(500) < probabilities**2, labels, (labels + 1) % 9)
    want = 0.0
    for m in range(1, 16):
        inside = [i for i in range(500) if (m - 1) / 15 < probabilities[i] <= m / 15]
        if inside:
            accuracy = sum(labels[i] == predicted[i] for i in inside) / len(inside)
            confidence = math.fsum(probabilities[i] for i in inside) / len(inside)
            want += len(inside) / 500 * abs(accuracy - confidence)
    assert want > 0.05
    assert error_of(labels, predicted, probabilities) == pytest.approx(want, rel=1e-12)
    whole, *parts = (reports.calibration_sums(labels[part], predicted[part], probabilities[part])
                     for part in (slice(None), slice(0, 500, 3), slice(1, 500, 3),
                                  slice(2, 500, 3)))
    assert (sum(parts) == whole).all()  # to the bit: float32s that float64 adds up


MATRIX = [[2, 1, 0, 0], [0, 0, 0, 0], [1, 2, 1, 2], [0, 0, 0, 3]]
NAMES = ["ant", "bee", "cat", "dog"]


def test_the_confusion_matrix_by_hand():
    labels = [0, 0, 0, 2, 2, 2, 2, 2, 2, 3, 3, 3]
    predicted = [0, 1, 0, 0, 1, 3, 1, 2, 3, 3, 3, 3]
    got = reports.confusion_matrix(np.array(labels, np.int32), np.array(predicted), 4)
    assert (got.dtype, got.tolist()) == (np.int64, MATRIX)


def test_the_confusion_of_very_many_classes_does_not_overflow():
    got = reports.confusion_matrix(np.full(3, 2999, np.int32), np.full(3, 2998, np.int32), 3000)
    assert got[2999, 2998] == got.sum() == 3


def test_classes_stand_worst_first_without_those_that_have_no_pictures():
    """Of the classes that cat was mistaken for twice, bee and dog, the one with the lower label."""
    rows = reports.by_class(np.array(MATRIX), NAMES)
    assert rows == [("cat", 6, 1 / 6, "bee"), ("ant", 3, 2 / 3, "bee"), ("dog", 3, 1.0, "")]
    table = [line.split() for line in reports.class_table(rows).splitlines()]
    assert table[2:] == [["cat", "6", "16.67%", "bee"], ["ant", "3", "66.67%", "bee"],
                         ["dog", "3", "100.00%"]]


def test_a_csv_has_a_line_a_row_and_quotes_what_needs_it(tmp_path):
    reports.write_csv(tmp_path / "a.csv", ("class", "count"), [("tench, Tinca", 3), ("Bär", 1)])
    assert (tmp_path / "a.csv").read_text("utf-8") == \
        'class,count\n"tench, Tinca",3\nBär,1\n'


@pytest.mark.parametrize("write", [
    lambda path: reports.write_csv(path, ["predicted"], [(0,)] * 100_000),
    lambda path: reports.draw_confusion(np.array(MATRIX), NAMES, path)], ids=["csv", "png"])
def test_a_full_disk_is_named_and_leaves_the_file_that_was_there(tmp_path, write):
    path = tmp_path / "found.csv"
    path.write_text("of yesterday")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunFault, match=f"^{path} cannot be written: File too large"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["of yesterday"]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """drawn(matrix, names): the figure that was saved, and its pixels."""
    def draw(matrix, names):
        figures = []
        monkeypatch.setattr(Figure, "savefig", lambda self, *rest, save=Figure.savefig, **more:
                            (figures.append(self), save(self, *rest, **more)))
        reports.draw_confusion(matrix, names, tmp_path / "a.png")
        monkeypatch.undo()
        return figures[0], imread(tmp_path / "a.png")[..., :3]
    return draw


def test_the_picture_of_few_classes_has_their_names_and_counts(drawn):
    """Matplotlib takes text between dollars for a formula, and \\cat is not one."""
    names = ["ant", "$b", "$\\cat$", "a name of more than twenty letters"]
    figure, _ = drawn(np.array(MATRIX), names)
    axes, names[3] = figure.axes[0], "a name of more than…"
    assert [text.get_text() for text in axes.get_xticklabels()] == names
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "class")
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {
        (0, 0, "2"), (1, 0, "1"), (0, 2, "1"), (1, 2, "2"), (2, 2, "1"), (3, 2, "2"), (3, 3, "3")}
    assert axes.get_title() == "12 images, top-1 50.00%"
    ticks = figure.axes[1].get_yticklabels(which="both")
    assert {tick.get_text() for tick in ticks if 1 <= tick.get_position()[1] <= 3} == {
        "1", "2", "3"}


@pytest.mark.parametrize("classes", [31, 1000])
def test_the_picture_of_many_classes_shows_a_single_mistake(drawn, classes):
    right = np.diag(np.full(classes, 50))
    right[classes // 2, classes // 2] = 0
    wrong = right.copy()
    wrong[classes // 4, classes // 2] = 1  # upper middle: no class is there by chance
    figure, pixels = drawn(wrong, list(map(str, range(classes))))
    colored = np.ptp(pixels, axis=2) > 0.5
    height, width = colored.shape
    spots = np.argwhere(colored[:, :int(0.75 * width)])  # next to it is the color scale
    assert len(spots) >= 4
    assert abs(spots.mean(axis=0)[0] / height - 0.27) < 0.03
    assert figure.axes[0].get_xlim() == (-0.5, classes - 0.5)
    assert figure.axes[0].get_ylim() == (classes - 0.5, -0.5)
    assert not figure.axes[0].texts
