"""The preview of what a network will see."""

import cv2
import numpy as np
import pytest

from gluon_tricks.data.record import RecordSet, RecordWriter


@pytest.fixture
def rec(tmp_path, jpeg):
    """Twelve images, each of one color, which no crop changes."""
    with RecordWriter(tmp_path / "a") as writer:
        for key in range(12):
            image = np.full((50, 60, 3), (20 * key, 100, 240 - 20 * key), np.uint8)
            writer.write(key, key % 3, jpeg(image, 100))
    return tmp_path / "a.rec"


def test_rows_are_records_and_columns_epochs(script, rec, tmp_path):
    done = script("preview_augment", "--rec", rec, "--out", tmp_path / "grid.png", "--samples", 5,
                  "--epochs", 3, "--input-size", 32, "--pca-noise", 0, "--color-jitter", 0)
    assert done.returncode == 0, done.stderr
    assert "5 records" in done.stdout and "data backend: " in done.stdout
    grid = cv2.imread(str(tmp_path / "grid.png"))[..., ::-1].astype(int)
    assert grid.shape == (5 * 36, 4 * 36, 3)
    keys = []
    for row in range(5):
        tiles = [grid[36 * row + 4:36 * row + 36, 36 * column + 4:36 * column + 36]
                 for column in range(4)]
        keys.append(round(tiles[0][..., 0].mean() / 20))
        color = 20 * keys[-1], 100, 240 - 20 * keys[-1]
        assert all(abs(tile - color).max() <= 3 for tile in tiles)
    assert keys == sorted(set(keys))  # five different records
    gaps = grid[[0, 1, 2, 3, 36, 39]]
    assert (gaps == 255).all()


def test_training_changes_pictures_and_validation_does_not(inside, rec, tmp_path):
    done = inside("preview_augment", "--rec-train", rec, "--out", tmp_path / "grid.png",
                  "--samples", 3, "--epochs", 2, "--input-size", 32)
    assert done.returncode == 0, done.stderr
    grid = cv2.imread(str(tmp_path / "grid.png"))[..., ::-1].astype(float)
    tiles = grid.reshape(3, 36, 3, 36, 3)[:, 4:, :, 4:].mean((1, 3))  # row, column, color
    assert abs(tiles[:, 0, 1] - 100).max() <= 2  # validation leaves green as it is
    assert (abs(tiles[:, 1] - tiles[:, 0]).max(1) > 2).all()
    assert (abs(tiles[:, 1] - tiles[:, 2]).max(1) > 2).all()


@pytest.mark.parametrize(("arguments", "said"), [
    (("--samples", "13"), "12 undamaged records"), (("--samples", "0"), "--samples"),
    (("--epochs", "0"), "--epochs"), (("--data-backend", "mxnet"), "--data-backend mxnet"),
    (("--out", "nowhere/grid.png"), "nowhere/grid.png"), (("--out", "grid.xyz"), "grid.xyz"),
    (("--rec", "missing.rec"), "missing.rec"),
])
def test_wrong_input_is_one_line(refused, rec, tmp_path, arguments, said):
    assert said in refused("preview_augment", "--rec", rec, "--out", tmp_path / "grid.png",
                           "--input-size", 32, *arguments)


def grid_of(inside, rec, *flags):
    out = rec.parent / "grid.png"
    done = inside("preview_augment", "--rec", rec, "--out", out, "--epochs", 1, "--input-size", 32,
                  *flags)
    assert done.returncode == 0, done.stderr
    return cv2.imread(str(out))


def test_damaged_records_are_not_shown(inside, rec):
    with RecordWriter(rec.parent / "b") as writer, RecordSet(rec) as records:
        for key in range(12):
            writer.write(key, 0, records.read(key) if key != 5 else b"no picture")
    grid = grid_of(inside, rec.with_name("b.rec"), "--samples", 11)
    assert grid.shape == (11 * 36, 2 * 36, 3)


def test_another_seed_shows_other_samples_of_the_same_records(inside, rec):
    one, two = (grid_of(inside, rec, "--samples", 12, "--seed", seed) for seed in (1, 2))
    assert (one[:, :36] == two[:, :36]).all()
    assert (one[:, 36:] != two[:, 36:]).any()
