"""R ranks with batch b make the same updates as one process with batch R * b; real processes."""

import json

import networks
import numpy as np
import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import train

pytestmark = pytest.mark.slow

# What differs from SGD with NAG on a network without BatchNorm; how far apart they may be.
CASES = {
    "nag": ("plain", {}, 1e-6),
    "frozen statistics": ("frozen", {"optimizer": "sgd"}, 1e-6),
    "lars": ("plain", {"optimizer": "lars", "lr": 1.0, "lars_eta": 0.01}, 1e-6),
    "accumulation": ("plain", {"accumulate": 2, "batch_size": 4}, 1e-6),
    "one group": ("plain", {"num_groups": 1}, 1e-6),
    "more groups than gradients": ("plain", {"num_groups": 9}, 1e-6),
    "predivided": ("plain", {"grad_predivide": 16.0}, 1e-6),
    "clipping, L1, EMA": ("plain", {"clip_grad_norm": 0.1, "l1": 0.001, "ema": 0.5}, 1e-6),
    "smoothing, no bias decay": ("plain", {"label_smoothing": 0.1, "no_wd": True, "wd": 0.1}, 1e-6),
    "compression": ("plain", {"grad_compression": "fp16"}, 1e-3),
    "compression in groups": ("plain", {"grad_compression": "fp16", "num_groups": 2}, 1e-3),
}
ALONE = {"num_cpu_ranks": 0, "grad_compression": "none", "grad_predivide": None, "num_groups": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory, noise_records):
    folder = tmp_path_factory.mktemp("data")
    noise_records(folder / "train", 85, (40, 50), 3)
    noise_records(folder / "val", 7, (40, 50), 3)
    return folder


@pytest.fixture(scope="module")
def jobs(data):
    """jobs(folder, ranks): the settings of each case, their run folders in `folder`."""
    def make(folder, ranks):
        same = {"model": "resnet18_v1", "rec_train": str(data / "train.rec"),
                "rec_val": str(data / "val.rec"), "input_size": 32, "batch_size": 8,
                "num_epochs": 2, "lr": 0.1, "warmup_updates": 3, "lr_mode": "cosine",
                "num_data_workers": 1, "num_cpu_ranks": ranks}
        return {name: (network, {**same, **changes, "save_dir": str(folder / name)})
                for name, (network, changes, _) in CASES.items()}
    return make


@pytest.fixture(scope="module")
def by_two(jobs, tmp_path_factory, in_ranks):
    """The folder with all runs made by two ranks, and two wrong ones."""
    folder = tmp_path_factory.mktemp("two")
    every = [(network, None, settings) for network, settings in jobs(folder, 2).values()]
    network, settings = jobs(folder, 2)["nag"]
    for mistake in ("Unscaled", "Alone"):
        every.append((network, mistake, {**settings, "save_dir": str(folder / mistake)}))
    (folder / "jobs.json").write_text(json.dumps(every))
    done = in_ranks(2, "runs_in_ranks.py", folder / "jobs.json")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def by_one(jobs, tmp_path, monkeypatch):
    """by_one(name): the run folder of one process with twice the batch."""
    def run(name):
        network, settings = jobs(tmp_path, 2)[name]
        monkeypatch.setattr("gluon_tricks.classification.network.get_model",
                            getattr(networks, network))
        alone = {**settings, **ALONE, "batch_size": 2 * settings["batch_size"]}
        return train(Settings(**alone)).folder
    return run


def distances(arrays, a, b):
    """How far apart the parameters of two runs are: as one vector, relative to its length,
    and the greatest such distance of any array."""
    a, b = arrays(a / "last.params"), arrays(b / "last.params")
    assert a.keys() == b.keys()
    apart = {name: np.linalg.norm(a[name].astype(float) - b[name]) for name in b}
    size = {name: np.linalg.norm(b[name].astype(float)) for name in b}
    return (np.linalg.norm(list(apart.values())) / np.linalg.norm(list(size.values())),
            max(apart[name] / (size[name] or 1) for name in b))


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_make_the_updates_of_one_with_twice_the_batch(name, by_one, by_two, arrays,
                                                                lines):
    one, two = by_one(name), by_two / name
    assert [line["update"] for line in lines(two, "epoch")] == [4, 9]
    together, alone = distances(arrays, two, one)
    assert together <= CASES[name][2]
    assert alone <= 10 * CASES[name][2]  # biases begin at 0 and are small
    for ours, want in zip(lines(two, "epoch"), lines(one, "epoch"), strict=True):
        assert ours["val_count"] == want["val_count"] == 7
        assert [ours[key] for key in ("lr", "val_top1", "val_top5", "train_top1")] == [
            want[key] for key in ("lr", "val_top1", "val_top5", "train_top1")]
        assert ours["train_loss"] == pytest.approx(want["train_loss"], rel=CASES[name][2])


@pytest.mark.parametrize("mistake", ["Unscaled", "Alone"])
def test_a_mistake_in_the_averaging_would_show(mistake, by_one, by_two, arrays):
    assert min(distances(arrays, by_two / mistake, by_one("nag"))) > 1e-3
