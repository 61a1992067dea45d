"""`train_horovod.py`: what GluonCV's flags of that name mean to the engine."""

import json

import mxnet as mx
import published_commands as published
import pytest
from script_modules import load_script

from gluon_tricks.classification.network import build_network
from gluon_tricks.classification.settle import resolve_without_data
from gluon_tricks.errors import InputError
from gluon_tricks.optim.schedule import lr_at

RESNEST = """--rec-train R/train.rec --rec-val R/val.rec --model resnest50 --lr 0.05
    --num-epochs 270 --batch-size 128 --use-rec --dtype float32 --warmup-epochs 5 --last-gamma
    --no-wd --label-smoothing --mixup --save-dir params_resnest50 --log-interval 100
    --eval-frequency 5 --auto_aug --input-size 224"""


@pytest.fixture
def translate(monkeypatch):
    """translate(*words, ranks=None): the settings, as if horovodrun had started so many ranks."""
    shim = load_script("train_horovod")

    def run(*words, ranks=None, local=8):
        if ranks:
            for name, value in (("SIZE", ranks), ("RANK", 0), ("LOCAL_RANK", 0),
                                ("LOCAL_SIZE", min(ranks, local))):
                monkeypatch.setenv(f"HOROVOD_{name}", str(value))
        return shim.translate(shim.build_parser().parse_args(words))
    return run


def test_a_published_command_on_64_gpus(translate):
    settings = translate(*RESNEST.split(), ranks=64)
    assert (settings.num_gpus, settings.num_cpu_ranks, settings.num_data_workers) == (64, 0, 64)
    assert (settings.lr, settings.lr_mode) == (pytest.approx(3.2), "cosine")  # 0.05 * 64
    assert (settings.auto_augment, settings.eval_frequency) == ("imagenet", 5)
    derived = json.loads(resolve_without_data(settings).to_json())["derived"]
    assert derived["global_batch"] == 8192
    assert derived["steps_per_epoch"] == 156  # 1281167 // 8192
    assert (derived["warmup_updates"], derived["updates"]) == (780, 42120)
    assert (derived["lr"], derived["decay"]) == (pytest.approx(3.2), "cosine")


@pytest.mark.parametrize("name", published.HOROVOD)
def test_each_published_command_is_taken_and_its_network_built(translate, name):
    ranks, command = published.HOROVOD[name]
    settings = resolve_without_data(translate(*command.split(), ranks=ranks))
    words = command.split()
    given = {word: words[words.index(word) + 1] for word in ("--lr", "--batch-size", "--model")}
    assert (settings.model, settings.global_batch) == (
        given["--model"], ranks * int(given["--batch-size"]))
    assert settings.effective_lr == pytest.approx(ranks * float(given["--lr"]))
    build_network(settings)


def test_its_defaults(translate):
    settings = translate("--no-cuda")
    want = {"model": "resnet50_v1", "num_epochs": 90, "warmup_epochs": 10, "batch_size": 128,
            "lr": 0.05, "log_interval": 40, "save_frequency": 20, "eval_frequency": 0,
            "num_data_workers": 8, "num_gpus": 0, "num_cpu_ranks": 0, "hard_weight": None}
    assert {name: getattr(settings, name) for name in want} == want
    taught = "--no-cuda", "--teacher", "resnet50_v1d"
    assert translate(*taught).hard_weight == 0.5
    assert translate(*taught, "--hard-weight", "0.9").hard_weight == 0.9
    assert translate("--no-cuda", "--gluoncv-compat").save_dir == "params"


@pytest.mark.parametrize(("words", "ranks", "gpus", "cpus", "lr"), [
    ((), 8, 8, 0, 0.4), ((), None, 1, 0, 0.05), (("--no-cuda",), 4, 0, 4, 0.2),
    (("--num-gpus", "0"), None, 0, 0, 0.05), (("--num-gpus", "0"), 4, 0, 4, 0.2),
    (("--num-gpus", "4"), None, 4, 0, 0.2), (("--num-cpu-ranks", "2", "--lr", "0.1"), None, 0, 2,
                                             0.2)], ids=str)
def test_the_rate_is_of_one_device(translate, words, ranks, gpus, cpus, lr):
    settings = translate(*words, ranks=ranks)
    assert (settings.num_gpus, settings.num_cpu_ranks) == (gpus, cpus)
    assert settings.lr == pytest.approx(lr)


def test_its_schedule_is_mxnets_cosine_that_counts_from_zero(translate):
    """In the warm-up the two are equal; GluonCV's cosine, which counts updates from 1, is one
    update ahead."""
    settings = translate("--num-epochs", "6", "--warmup-epochs", "2", "--num-training-samples",
                         "1280", "--no-cuda")
    schedule = resolve_without_data(settings).schedule()
    theirs = mx.lr_scheduler.CosineScheduler(60, base_lr=0.05, warmup_steps=20)
    assert [lr_at(update, **schedule) for update in range(20)] == pytest.approx(
        [theirs(update + 1) for update in range(20)])
    assert [lr_at(update, **schedule) for update in range(20, 60)] == pytest.approx(
        [theirs(update) for update in range(20, 60)])


def test_the_number_of_devices_must_be_that_of_the_ranks(translate):
    with pytest.raises(InputError, match="--num-gpus 4, but 8 ranks were started"):
        translate("--num-gpus", "4", ranks=8)


def test_no_cuda_leaves_no_gpus(translate):
    with pytest.raises(InputError, match="--no-cuda cannot be combined with --num-gpus"):
        translate("--no-cuda", "--num-gpus", "2")


def test_a_dry_run(script, refused):
    done = script("train_horovod", "--dry-run", "--num-gpus", "8", "--model", "resnet18_v1b")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["derived"]["lr"] == pytest.approx(0.4)
    assert "unrecognized arguments: --lr-mode" in refused("train_horovod", "--lr-mode", "step")
