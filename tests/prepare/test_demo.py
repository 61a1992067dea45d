"""The generated set: the same for a seed, complete or absent, not to be told apart by color."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from gluon_tricks.errors import InputError
from gluon_tricks.prepare import demo

SMALL = {"train": 20, "val": 10}


def contents(folder):
    """Every file under `folder`, by relative path."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "demo"
    demo.make_demo(out, **SMALL, workers=1)
    return out


def test_layout_and_counts(small):
    expected = {
        f"{split}/{name}/{number:04d}.jpg"
        for split, count in SMALL.items()
        for name in demo.CLASSES
        for number in range(count // len(demo.CLASSES))
    }
    assert contents(small).keys() == expected
    assert len(demo.CLASSES) == 10
    assert [f.name for f in small.parent.iterdir()] == ["demo"]  # nothing left next to it


def test_two_workers_write_the_same_files_as_one(small, tmp_path):
    demo.make_demo(tmp_path / "demo", **SMALL, workers=2)
    assert contents(tmp_path / "demo") == contents(small)


def test_an_image_does_not_depend_on_how_many_are_made(small, tmp_path):
    demo.make_demo(tmp_path / "demo", train=10, val=10)
    fewer, more = contents(tmp_path / "demo"), contents(small)
    assert fewer == {path: more[path] for path in fewer}


def test_seeds_and_splits_share_no_image(small, tmp_path):
    demo.make_demo(tmp_path / "demo", **SMALL, seed=1)
    pictures = [*contents(small).values(), *contents(tmp_path / "demo").values()]
    assert len(set(pictures)) == len(pictures) == 60


@pytest.mark.parametrize("label", range(len(demo.CLASSES)))
def test_a_drawn_image_is_rgb_of_varied_size_and_has_contrast(label):
    shapes = set()
    for seed in range(5):
        picture = demo.draw_image(label, np.random.Generator(np.random.Philox(seed)))
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        assert all(demo.SIDES[0] <= side <= demo.SIDES[1] for side in picture.shape[:2])
        darker, brighter = np.percentile(picture @ demo.LUMA, (5, 95))
        assert brighter - darker > 30
        shapes.add(picture.shape)
    assert len(shapes) > 1


def test_global_random_state_is_neither_read_nor_moved():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = demo.draw_image(0, np.random.default_rng(3))
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(1)
    assert (demo.draw_image(0, np.random.default_rng(3)) == first).all()


def test_color_alone_does_not_tell_the_classes(tmp_path):
    demo.make_demo(tmp_path / "demo")  # the set as shipped: 2,000 and 500 images
    train, train_labels = mean_colours(tmp_path / "demo" / "train")
    val, val_labels = mean_colours(tmp_path / "demo" / "val")
    assert (len(train), len(val)) == (2000, 500)

    centre, spread = train.mean(0), train.std(0)
    with_bias = [np.c_[(x - centre) / spread, np.ones(len(x))] for x in (train, val)]
    weights = np.linalg.lstsq(with_bias[0], np.eye(10)[train_labels], rcond=None)[0]
    accuracy = ((with_bias[1] @ weights).argmax(1) == val_labels).mean()
    assert accuracy < 0.4, accuracy


def mean_colours(folder):
    """Each image's mean B, G, R as (n, 3), and its label (n,)."""
    files = [(f, k) for k, name in enumerate(demo.CLASSES) for f in (folder / name).iterdir()]
    means = np.array([cv2.imread(str(f)).mean((0, 1)) for f, _ in files])
    return means, np.array([k for _, k in files])


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match=r"demo exists .*: remove it") as refused:
        demo.make_demo(out, **SMALL)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == {"demo/mine.txt": b"keep"}


def test_a_file_in_the_way_is_refused_and_left_alone(tmp_path):
    (tmp_path / "demo").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        demo.make_demo(tmp_path / "demo", **SMALL)
    assert contents(tmp_path) == {"demo": b"keep"}


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "demo").mkdir()
    demo.make_demo(tmp_path / "demo", train=10, val=10)
    assert len(contents(tmp_path / "demo")) == 20


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch, fault):
    draw = demo.draw_image
    begun = []

    def draw_until_stopped(label, rng):
        begun.append(label)
        if len(begun) == 5:
            raise fault
        return draw(label, rng)

    monkeypatch.setattr(demo, "draw_image", draw_until_stopped)
    with pytest.raises(fault):
        demo.make_demo(tmp_path / "demo", train=1000, val=10, workers=2)
    assert list(tmp_path.iterdir()) == []
    assert len(begun) < 500  # the rest was dropped, not drawn


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"train": 25}, r"--train 25: .*; try --train 20$"),
        ({"val": 0}, r"--val 0: .*; try --val 10$"),
        ({"val": -10}, r"--val -10: .*; try --val 10$"),
        ({"seed": -1}, r"--seed -1: must be 0 or more"),
        ({"workers": 0}, r"workers 0: must be at least 1"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_made(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        demo.make_demo(tmp_path / "demo", **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_as_a_command(tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "make_demo.py"
    command = [sys.executable, str(script), str(tmp_path / "deep" / "demo")]
    command += ["--train", "10", "--val", "10"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.endswith("made 10 training and 10 held-out images of 10 classes\n")
    assert made.stdout.count("\n") == 1

    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
