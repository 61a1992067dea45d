"""Fine-tuning on real images: what a run on eight classes knows about two others."""

import zipfile

import numpy as np
import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import train
from gluon_tricks.data.record import RecordWriter
from gluon_tricks.runs import runlog

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NEW = ("cat", "truck")
OLD = tuple(name for name in CLASSES if name not in NEW)


@pytest.fixture
def pack(real_data, tmp_path):
    """pack(part, classes, count): a .rec of the first `count` images of each class."""
    archive = zipfile.ZipFile(real_data / "cifar10-jpeg.zip")
    names = sorted(archive.namelist())

    def run(part, classes, count):
        prefix = tmp_path / f"{part}-{len(classes)}-{count}"
        with RecordWriter(prefix) as writer:
            for label, name in enumerate(classes):
                folder = f"cifar10/{part}/{name}/"
                pictures = [entry for entry in names if entry.startswith(folder)][1:count + 1]
                for number, entry in enumerate(pictures):
                    writer.write(label * count + number, label, archive.read(entry))
        return f"{prefix}.rec"
    return run


@pytest.mark.slow
def test_fine_tuning_beats_training_from_scratch_at_equal_updates(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "draw_curves", lambda *_: None)
    common = {"model": "cifar_resnet20_v1", "input_size": 32, "crop": "pad", "batch_size": 32,
              "lr_mode": "cosine", "num_data_workers": 1, "eval_frequency": 0}
    train(Settings(**common, rec_train=pack("train", OLD, 100), rec_val=pack("val", OLD, 5),
                   num_epochs=3, lr=0.1, save_dir=str(tmp_path / "eight")))
    two = {**common, "rec_train": pack("train", NEW, 32), "rec_val": pack("val", NEW, 100),
           "num_epochs": 4, "lr": 0.02}
    tuning = {"init_params": str(tmp_path / "eight"), "new_classifier": True,
              "freeze_until": "features.4", "lr_mult_head": 10.0}
    top1 = {name: [train(Settings(**two, **given, seed=seed,
                                  save_dir=str(tmp_path / f"{name}-{seed}"))).last.figures["top1"]
                   for seed in range(3)] for name, given in (("tuned", tuning), ("scratch", {}))}
    print(top1)
    assert np.mean(top1["tuned"]) > np.mean(top1["scratch"]) + 0.05, top1
