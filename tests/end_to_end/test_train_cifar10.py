"""`train_cifar10.py`: GluonCV's two CIFAR scripts in one."""

import json

import numpy as np
import published_commands as published
import pytest
from script_modules import load_script

from gluon_tricks.classification.network import build_network
from gluon_tricks.classification.settle import from_flags, resolve
from gluon_tricks.config import presets
from gluon_tricks.errors import InputError
from gluon_tricks.prepare.cifar import cifar10_records

PLAIN = "--num-epochs 200 --mode hybrid --num-gpus 1 -j 2 --batch-size 128 --wd 0.0001 --lr 0.1 " \
        "--lr-decay 0.1 --lr-decay-epoch 100,150 --model cifar_resnet20_v1"
MIXED = "--num-epochs 220 --mode hybrid --num-gpus 2 -j 2 --batch-size 64 --wd 0.0005 --lr 0.1 " \
        "--lr-decay 0.2 --lr-decay-epoch 60,120,160 --model cifar_wideresnet28_10 --mixup"


@pytest.fixture(scope="module")
def parse():
    """parse(command): its settings."""
    parser = load_script("train_cifar10").build_parser()
    return lambda words: from_flags(parser.parse_args(words.split()), presets.CIFAR10)


def test_a_published_command(parse):
    settings = parse(PLAIN)
    want = {"model": "cifar_resnet20_v1", "num_epochs": 200, "batch_size": 128, "wd": 1e-4,
            "lr_decay_epoch": (100, 150), "input_size": 32, "crop": "pad", "num_gpus": 1,
            "optimizer": "nag", "mixup": False, "mixup_alpha": None}
    assert {name: getattr(settings, name) for name in want} == want
    # GluonCV's are of pictures from 0 to 1: 0.4914, 0.4822, 0.4465 and 0.2023, 0.1994, 0.2010.
    assert settings.rgb_mean == pytest.approx([0.4914 * 255, 0.4822 * 255, 0.4465 * 255])
    assert settings.rgb_std == pytest.approx([0.2023 * 255, 0.1994 * 255, 0.2010 * 255])
    settled = resolve(settings, 50000, 10)
    assert settled.schedule()["step_updates"] == (39000, 58500)  # 390 updates an epoch
    assert (settled.color_jitter, settled.pca_noise) == (0, 0)


def test_gluoncvs_defaults(parse):
    """Of its train_cifar10.py."""
    settings = parse("--gluoncv-compat")
    want = {"num_epochs": 3, "lr_decay_epoch": (40, 60), "mode": "imperative", "batch_size": 32,
            "save_frequency": 10, "save_dir": "params"}
    assert {name: getattr(settings, name) for name in want} == want


def test_a_published_command_with_mixup(parse):
    settings = parse(MIXED)
    assert (settings.mixup_alpha, settings.mixup_off_epoch, settings.global_batch) == (1.0, 20, 128)
    assert parse("--mixup --mixup-alpha 0.2 --num-epochs 9").mixup_alpha == 0.2
    assert parse("--mixup --num-epochs 9").mixup_off_epoch == 0


@pytest.mark.parametrize("command", [
    *published.CIFAR10.values(),
    *(f"{command} --mixup" for command in published.MIXUP_CIFAR10.values())])
def test_each_published_command_is_taken_and_its_network_built(parse, command):
    settings = resolve(parse(command), 50_000, 10)
    assert f"--model {settings.model}" in command and settings.mixup == ("--mixup" in command)
    epochs, falls = (command.partition(f"--{name} ")[2].split()[0]
                     for name in ("num-epochs", "lr-decay-epoch"))
    schedule = settings.schedule()
    assert schedule["updates"] == int(epochs) * (50_000 // settings.global_batch)
    assert schedule["step_updates"] == tuple(
        int(epoch) * settings.steps_per_epoch for epoch in falls.split(","))
    build_network(settings)


def test_gluoncvs_other_names(parse):
    settings = parse("--drop-rate 0.3 --save-period 5 --resume-from a.params --model "
                     "cifar_wideresnet16_10")
    assert (settings.dropout, settings.save_frequency, settings.init_params) == (
        0.3, 5, "a.params")


def test_its_defaults_and_gluoncvs(parse):
    usual, theirs = parse(""), parse("--gluoncv-compat")
    assert (usual.num_epochs, usual.lr_decay_epoch, usual.batch_size, usual.model) == (
        200, (100, 150), 128, "cifar_resnet20_v1")
    assert (theirs.num_epochs, theirs.lr_decay_epoch, theirs.batch_size, theirs.mode) == (
        3, (40, 60), 32, "imperative")


@pytest.fixture
def binaries(tmp_path):
    """A folder of the data set's binary files, of 64 and 16 noise pictures, packed already."""
    rng = np.random.default_rng(0)
    for name, count in [*((f"data_batch_{number}.bin", 64) for number in range(1, 6)),
                        ("test_batch.bin", 16)]:
        pictures = rng.integers(0, 256, (count, 3073), np.uint8)
        pictures[:, 0] = np.arange(count) % 10
        (tmp_path / name).write_bytes(pictures.tobytes())
    cifar10_records(tmp_path, images=None)
    return tmp_path


@pytest.fixture
def run(monkeypatch):
    """run(*words): the script's main on this command line."""
    def run(*words):
        monkeypatch.setattr("sys.argv", ["train_cifar10.py", *map(str, words)])
        return load_script("train_cifar10").main()
    return run


def test_a_run_on_the_binary_files(run, binaries, capsys):
    out = binaries / "out"
    assert run("--data-dir", binaries, "--num-epochs", 1, "--batch-size", 64, "--mixup",
               "--save-dir", out, "--save-plot-dir", binaries / "plots",
               "--logging-dir", binaries / "logs", "--save-period", 1) is None
    assert f"run folder: {out}" in capsys.readouterr().out
    assert (out / "cifar10-cifar_resnet20_v1-0.params").is_file()
    history = binaries / "plots" / "cifar_resnet20_v1_mixup_history.png"
    assert history.read_bytes() == (out / "curves.png").read_bytes()
    log = (binaries / "logs" / "train_cifar10_cifar_resnet20_v1_mixup.log").read_text()
    assert "[Epoch 0] validation: err-top1=" in log


def test_folders_and_records_come_first(run, binaries, tmp_path, monkeypatch):
    monkeypatch.setattr("gluon_tricks.prepare.cifar.cifar10_records",
                        lambda _: pytest.fail("unpacks"))
    with pytest.raises(InputError, match=r"t\.rec is missing"):
        run("--rec-train", "t.rec", "--rec-val", "v.rec", "--save-dir", tmp_path / "a")
    (tmp_path / "b" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="no class folders"):
        run("--data-dir", tmp_path / "b", "--save-dir", tmp_path / "c")


def test_where_there_is_no_data_set(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_GLUON_REPO", "http://127.0.0.1:9/")
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz"):
        run("--data-dir", tmp_path / "none")


def test_a_place_for_plots_that_is_a_file(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--save-plot-dir .*file: "):
        run("--save-plot-dir", tmp_path / "file")


def test_a_dry_run_makes_no_folder(run, tmp_path, capsys):
    assert run("--dry-run", "--data-dir", tmp_path / "data", "--save-plot-dir", tmp_path / "plots",
               "--logging-dir", tmp_path / "logs") is None
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["num_classes"]) == ("cifar_resnet20_v1", 10)
    assert (shown["num_training_samples"], shown["derived"]["steps_per_epoch"]) == (50_000, 390)
    assert shown["derived"]["step_updates"] == [39_000, 58_500]
    assert not list(tmp_path.iterdir())
