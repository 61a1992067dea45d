"""`train_imagenet.py --dry-run`: everything checked, nothing touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from published_commands import IMAGENET

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def dry_run(inside):
    """dry_run(*arguments): the printed settings; it must succeed in silence."""
    def run(*arguments) -> dict:
        done = inside("train_imagenet", "--dry-run", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)
    return run


def test_the_papers_baseline_on_eight_gpus_in_fp16(dry_run):
    got = dry_run("--model", "resnet50_v1d", "--num-gpus", "8", "--dtype", "float16")
    want = {"model": "resnet50_v1d", "num_gpus": 8, "dtype": "float16", "lr": 0.1,
            "lr_mode": "step", "lr_decay": 0.1, "lr_decay_epoch": [30, 60, 90], "num_epochs": 120,
            "batch_size": 32, "momentum": 0.9, "wd": 1e-4, "num_classes": 1000,
            "num_training_samples": 1281167, "input_size": 224, "crop_area": [0.08, 1.0],
            "color_jitter": 0.4, "pca_noise": 0.1, "label_smoothing": 0.0, "last_gamma": False,
            "no_wd": False, "warmup_epochs": 0, "rgb_mean": [123.68, 116.779, 103.939],
            "rgb_std": [58.393, 57.12, 57.375], "mode": "hybrid", "crop_ratio": 0.875}
    assert {name: got[name] for name in want} == want
    assert "task" not in got
    assert got["derived"] == {
        "global_batch": 256, "lr": 0.1, "steps_per_epoch": 5004, "updates": 600480,
        "warmup_updates": 0, "warmup_mode": "linear", "warmup_lr": 0.0, "decay": "step",
        "step_factor": 0.1, "step_updates": [150120, 300240, 450360]}


def test_a_published_command_and_no_trace_of_it(tmp_path):
    """Runs in an empty folder, with an empty home, on record files that are not there."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "train_imagenet.py", "--dry-run",
         *IMAGENET["resnet50_v1d-mixup"].split()],
        cwd=here, capture_output=True, text=True, timeout=600,
        env={**os.environ, "HOME": str(home)})
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["derived"] == {"global_batch": 1024, "lr": 0.4, "steps_per_epoch": 1251,
                              "updates": 250_200, "warmup_updates": 6255,
                              "warmup_mode": "linear", "warmup_lr": 0.0, "decay": "cosine"}
    want = {"model": "resnet50_v1d", "label_smoothing": 0.1, "no_wd": True, "last_gamma": True,
            "mixup": True, "mixup_alpha": 0.2, "lr_mode": "cosine", "warmup_epochs": 5,
            "dtype": "float16", "loss_scale": "dynamic", "num_gpus": 8, "num_data_workers": 60,
            "rec_train": "R/train.rec", "rec_val_idx": "R/val.idx", "save_dir":
            "params_resnet50_v1d_mixup", "logging_file": "resnet50_v1d_mixup.log"}
    assert {name: got[name] for name in want} == want
    assert not list(here.iterdir())
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("arguments", "said"), [
    (("--model", "resnet50_v1d", "--num-gpus", "0", "--dtype", "float16"),
     ["--dtype float16", "--num-gpus"]),
    (("--model", "resnet50_v1x"), ["unknown model 'resnet50_v1x'", "resnet50_v1d"]),
    (("--model", "mobilenet1.0", "--last-gamma"), ["mobilenet1.0", "--last-gamma"]),
    (("--model", "inceptionv3", "--input-size", "64"), ["inceptionv3", "--input-size"]),
    (("--model", "ssd_300_resnet34_v1b_voc"), ["ssd_300_resnet34_v1b_voc"]),
    (("--model", "resnet18_v1", "--teacher", "resnet18_v1x"), ["teacher", "'resnet18_v1x'"]),
    (("--model", "resnet18_v1", "--num-epochs", "0"), ["--num-epochs 0"]),
    (("--model", "resnet18_v1", "--lr", "x"), ["--lr"]),
    ((), ["--model"])], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_what_cannot_work_is_refused_in_one_line(refused, arguments, said):
    line = refused("train_imagenet", "--dry-run", *arguments)
    assert all(words in line for words in said)
