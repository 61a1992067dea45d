"""The settings of a run: flags in, checks, what follows from the data, JSON out."""

import ast
import dataclasses
import json
import math
from pathlib import Path

import pytest
from command_line import parse

import gluon_tricks
from gluon_tricks.classification import network
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve, resolve_without_data
from gluon_tricks.cli import Parser
from gluon_tricks.config.flags import add_flags
from gluon_tricks.errors import InputError
from gluon_tricks.optim.gluoncv_schedule import gluoncv_lr_at
from gluon_tricks.optim.schedule import lr_at


@pytest.fixture
def misparse(capsys):
    """The one line with which the parser itself refuses a command line."""
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            parse(*arguments)
        assert caught.value.code == 2
        line, = capsys.readouterr().err.splitlines()
        return line
    return run


OTHER = {  # for each setting a value other than the default, as a user would write it
    "model": ("resnet18_v1", "resnet18_v1"), "num_classes": ("10", 10),
    "mode": ("imperative", "imperative"), "dropout": ("0.5", 0.5), "data_dir": ("/d", "/d"),
    "rec_train": ("t.rec", "t.rec"), "rec_train_idx": ("t.idx", "t.idx"),
    "rec_val": ("v.rec", "v.rec"), "rec_val_idx": ("v.idx", "v.idx"), "use_rec": (None, True),
    "num_data_workers": ("8", 8), "data_backend": ("opencv", "opencv"),
    "antialias": (None, True), "dct_shortcut": ("always", "always"),
    "on_bad_record": ("skip", "skip"), "input_size": ("96", 96),
    "crop_ratio": ("0.9", 0.9), "crop": ("pad", "pad"), "crop_area": ("0.25,0.5", (0.25, 0.5)),
    "color_jitter": ("0.2", 0.2), "pca_noise": ("0.3", 0.3), "rgb_mean": ("1,2,3", (1.0, 2.0, 3.0)),
    "rgb_std": ("4,5.5,6", (4.0, 5.5, 6.0)), "num_training_samples": ("5000", 5000),
    "shuffle_labels": (None, True), "batch_size": ("64", 64), "num_epochs": ("9", 9),
    "lr": ("0.4", 0.4), "momentum": ("0.8", 0.8), "wd": ("5e-5", 5e-5),
    "lr_mode": ("cosine", "cosine"), "lr_decay": ("0.5", 0.5),
    "lr_decay_epoch": ("40,60", (40, 60)), "lr_decay_period": ("7", 7),
    "warmup_epochs": ("5", 5), "warmup_updates": ("400", 400), "warmup_lr": ("0.01", 0.01),
    "warmup_mode": ("constant", "constant"), "dtype": ("bfloat16", "bfloat16"),
    "loss_scale": ("128", 128.0), "accumulate": ("4", 4), "optimizer": ("lars", "lars"),
    "linear_scaling": (None, True), "final_lr": ("0.2", 0.2), "lars_eta": ("0.01", 0.01),
    "l1": ("1e-6", 1e-6), "clip_grad_norm": ("5", 5.0), "ema": ("0.99", 0.99),
    "label_smoothing": ("0.2", 0.2), "auto_augment": ("svhn", "svhn"), "mixup": (None, True),
    "mixup_alpha": ("0.4", 0.4),
    "mixup_off_epoch": ("20", 20), "teacher": ("resnet152_v1d", "resnet152_v1d"),
    "teacher_params": ("t.params", "t.params"), "temperature": ("4", 4.0),
    "hard_weight": ("0.5", 0.5), "last_gamma": (None, True), "no_wd": (None, True),
    "gluoncv_compat": (None, True), "num_gpus": ("1", 1), "seed": ("7", 7),
    "num_cpu_ranks": ("2", 2), "grad_compression": ("fp16", "fp16"), "num_groups": ("3", 3),
    "grad_predivide": ("4", 4.0),
    "save_dir": ("out", "out"), "log_interval": ("3", 3), "logging_file": ("my.log", "my.log"),
    "tensorboard": (None, True), "resume": ("runs/1", "runs/1"), "keep": ("5", 5),
    "use_se": (None, True), "batch_norm": (None, True), "use_gn": (None, True),
    "use_sk": (None, True), "use_avd": (None, True), "dropblock_prob": ("0.1", 0.1),
    "use_pretrained": ("resnet50_v1b", "resnet50_v1b"), "init_params": ("a.params", "a.params"),
    "new_classifier": (None, True), "freeze_until": ("layer3", "layer3"),
    "lr_mult_head": ("10", 10.0), "resume_params": ("9.params", "9.params"),
    "resume_states": ("9.states", "9.states"), "resume_epoch": ("10", 10),
    "save_frequency": ("10", 10), "eval_frequency": ("5", 5),
    "checkpoint_steps": ("100", 100), "early_stop_patience": ("6", 6), "nan": ("skip", "skip"),
}
TEACHER, RANKS = ("--teacher", "resnet152_v1d"), ("--num-cpu-ranks", "2")
START, RESUME = ("--init-params", "a.params"), ("--resume-params", "9.params")
ALONG = {"new_classifier": START, "freeze_until": START, "resume_states": RESUME,
         "resume_epoch": RESUME,
         "warmup_lr": ("--warmup-epochs", "5"), "loss_scale": ("--dtype=float16", "--num-gpus=1"),
         "warmup_mode": ("--warmup-epochs", "5", "--warmup-lr", "0.01"),
         "final_lr": ("--optimizer", "adabound"), "lars_eta": ("--optimizer", "lars"),
         "grad_compression": RANKS, "num_groups": RANKS, "grad_predivide": RANKS,
         "mixup_alpha": ("--mixup", "--batch-size=32"), "mixup_off_epoch": ("--mixup", "--seed=0"),
         "teacher_params": TEACHER, "temperature": TEACHER, "hard_weight": TEACHER}  # these need


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)
                                  if field.name != "gluoncv_compat"])
def test_every_setting_has_a_flag_and_no_other_changes_with_it(name):
    text, value = OTHER[name]
    along = ALONG.get(name, ())
    flag = f"--{name.replace('_', '-')}"
    got = parse(*along, flag, *([text] if text else []))
    assert getattr(parse(*along), name) != value or name == "model"
    assert getattr(got, name) == value and type(getattr(got, name)) is type(value)
    assert dataclasses.replace(parse(*along), **{name: value}) == got


GLUONCV = {"num_epochs": 3, "lr_decay_epoch": (40, 60), "mode": "imperative", "save_dir": "params",
           "save_frequency": 10, "logging_file": "train_imagenet.log"}


@pytest.mark.parametrize(("arguments", "other"), [
    ((), {}), (("--use-rec",), {"use_rec": True, "data_backend": "mxnet"}),
    (("--rec-train", "t.rec"), {"rec_train": "t.rec", "data_backend": "mxnet"}),
    (("--use-rec", "--num-gpus", "8"), {"use_rec": True, "num_gpus": 8}),
    (("--use-rec", "--checkpoint-steps", "5"), {"use_rec": True, "checkpoint_steps": 5}),
    (("--use-rec", "--on-bad-record", "skip"), {"use_rec": True, "on_bad_record": "skip"}),
    (("--num-epochs", "9", "--lr-mode", "cosine"),
     {"num_epochs": 9, "lr_mode": "cosine", "lr_decay_epoch": (30, 60, 90)}),
    (("--lr-decay-period", "2"), {"lr_decay_period": 2, "lr_decay_epoch": (30, 60, 90)}),
    (("--mode", "hybrid", "--save-dir", "d"), {"mode": "hybrid", "save_dir": "d"})], ids=str)
def test_gluoncvs_defaults_hold_under_gluoncv_compat(arguments, other):
    """Those of its train_imagenet.py; ImageRecordIter if it can read the data."""
    want = dataclasses.replace(parse(), gluoncv_compat=True, **{**GLUONCV, **other})
    assert parse("--gluoncv-compat", *arguments) == want


def test_the_defaults_are_the_papers_baseline():
    settings = dataclasses.replace(resolve(parse(), 1000, 10), num_training_samples=None,
                                   num_classes=None)
    want = {"batch_size": 32, "num_epochs": 120, "lr": 0.1, "momentum": 0.9, "wd": 1e-4,
            "lr_mode": "step", "lr_decay": 0.1, "lr_decay_epoch": (30, 60, 90),
            "lr_decay_period": 0, "warmup_epochs": 0, "dtype": "float32", "label_smoothing": 0.0,
            "last_gamma": False, "no_wd": False, "input_size": 224, "crop_ratio": 0.875,
            "rgb_mean": (123.68, 116.779, 103.939), "rgb_std": (58.393, 57.12, 57.375),
            "num_gpus": 0, "num_data_workers": 4, "mode": "hybrid", "num_classes": None,
            "data_backend": "auto", "antialias": False, "dct_shortcut": None,
            "on_bad_record": "fail",
            "num_training_samples": None, "log_interval": 50, "optimizer": "nag",
            "accumulate": 1, "linear_scaling": False, "l1": 0.0, "clip_grad_norm": None,
            "ema": None, "warmup_updates": 0, "mixup": False, "teacher": None,
            "gluoncv_compat": False, "resume": None, "nan": "stop", "early_stop_patience": 0}
    assert {name: getattr(settings, name) for name in want} == want


def test_a_published_command_of_gluoncv_parses():
    settings = parse(
        "--rec-train", "R/train.rec", "--rec-train-idx", "R/train.idx", "--rec-val", "R/val.rec",
        "--rec-val-idx", "R/val.idx", "--mode", "hybrid", "--lr", "0.4", "--lr-mode", "cosine",
        "--num-epochs", "200", "--batch-size", "128", "--num-gpus", "8", "-j", "60",
        "--warmup-epochs", "5", "--dtype", "float16", "--use-rec", "--last-gamma", "--no-wd",
        "--label-smoothing", "--mixup", "--save-dir", "params", "--logging-file", "r.log")
    assert settings.global_batch == 1024
    assert settings.mixup and resolve_without_data(settings).mixup_alpha == 0.2
    assert settings.num_data_workers == 60
    assert settings.label_smoothing == 0.1
    assert [str(path) for path in settings.rec_paths("val")] == ["R/val.rec", "R/val.idx"]


def test_values_in_gluoncvs_way():
    assert parse("--lr-decay-epoch", "40,60").lr_decay_epoch == (40, 60)
    assert parse("'--lr-decay-epoch=40, 60,'").lr_decay_epoch == (40, 60)
    assert parse("--rgb-mean", "123.68,116.779,103.939").rgb_mean == (123.68, 116.779, 103.939)
    assert parse("--num-data-workers", "8") == parse("-j", "8") == parse("-j8")
    assert parse("--label-smoothing", "--no-wd").label_smoothing == 0.1
    assert parse("--label-smoothing", "0.3").label_smoothing == 0.3
    assert parse("--label-smoothing").label_smoothing == 0.1
    assert parse("--wd", "0").wd == 0
    assert parse("--ema", "--no-wd").ema == 0.9999
    assert parse("--ema").ema == 0.9999
    half = ("--dtype", "float16", "--num-gpus", "1", "--loss-scale")
    assert parse(*half, "dynamic").loss_scale == "dynamic"
    assert parse(*half, "128").loss_scale == 128
    assert parse("--mode", "symbolic").mode == "symbolic"


@pytest.mark.parametrize("short", [
    ("--num-epoch", "3"), ("--lr-decay-e", "1"), ("--label",), ("--batch", "3"), ("--rec-v", "x")])
def test_no_abbreviation_is_taken(misparse, short):
    assert "unrecognized arguments" in misparse(*short)


@pytest.mark.parametrize(("arguments", "flag"), [
    (("--lr", "fast"), "--lr"), (("--batch-size", "3.5"), "--batch-size"),
    (("--lr-decay-epoch", "1.5"), "--lr-decay-epoch"), (("--rgb-mean", "a,b,c"), "--rgb-mean"),
    (("--lr-mode", "linear"), "--lr-mode"), (("--dtype", "float64"), "--dtype"),
    (("--crop", "none"), "--crop"), (("--seed", "x"), "--seed"),
    (("--data-backend", "dali"), "--data-backend"), (("--dct-shortcut", "yes"), "--dct-shortcut"),
    (("--on-bad-record", "warn"), "--on-bad-record"), (("-j", "all"), "-j"),
    (("--loss-scale", "x"), "--loss-scale"), (("--loss-scale", "Dynamic"), "--loss-scale"),
    (("--optimizer", "rmsprop"), "--optimizer"), (("--nan", "ignore"), "--nan"),
    (("--auto-augment", "cifar100"), "--auto-augment"),
    (("--warmup-mode", "cosine"), "--warmup-mode"), (("--ema", "on"), "--ema"),
    (("--label-smoothing", "on"), "--label-smoothing"), (("--mixup", "0.2"), "arguments: 0.2")])
def test_a_value_of_the_wrong_kind_names_its_flag(misparse, arguments, flag):
    assert flag in misparse(*arguments)


def test_the_model_must_be_given(capsys):
    parser = Parser()
    add_flags(parser, Settings)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "--model" in capsys.readouterr().err


def test_settled_keeps_the_rules():
    """Rules that only the data can break."""
    with pytest.raises(InputError, match=r"127 records.*--batch-size"):
        resolve(parse("--num-gpus", "4"), 127, 10)
    with pytest.raises(InputError, match=r"--label-smoothing 0\.5 .* one of 2 classes"):
        resolve(parse("--label-smoothing", "0.5"), 1000, 2)
    with pytest.raises(InputError, match="--num-classes"):
        resolve(parse(), 1000, 1)
    with pytest.raises(InputError, match=r"--warmup-lr 0\.01 .* raise --lr"):
        resolve(parse("--optimizer adam --warmup-lr 0.01 --warmup-epochs 1"), 1000, 10)


def test_settled_fills_in_what_the_data_says():
    settings = resolve(parse(), 1000, 10)
    assert (settings.num_training_samples, settings.num_classes) == (1000, 10)
    assert (settings.crop_area, settings.color_jitter, settings.pca_noise) == (
        (0.08, 1.0), 0.4, 0.1)
    assert settings.steps_per_epoch == 31
    padded = resolve(parse("--crop", "pad"), 1000, 10)
    assert (padded.crop_area, padded.color_jitter, padded.pca_noise) == (None, 0.0, 0.0)


def test_settled_keeps_what_was_said():
    settings = resolve(parse("--num-classes", "20", "--color-jitter", "0", "--pca-noise", "0",
                     "--crop-area", "0.5,1", "--num-training-samples", "1000"), 1000, 10)
    assert (settings.num_classes, settings.color_jitter, settings.pca_noise,
            settings.crop_area) == (20, 0.0, 0.0, (0.5, 1.0))
    assert resolve(parse("--crop", "pad", "--color-jitter", "0.2"), 50, 2).color_jitter == 0.2
    assert resolve(settings, 1000, 10) == settings


@pytest.mark.parametrize(("arguments", "flag"), [
    (("--num-training-samples", "999"), "--num-training-samples"),
    (("--num-classes", "9"), "--num-classes")])
def test_settled_contradicts_what_the_data_does_not_bear(arguments, flag):
    with pytest.raises(InputError, match=flag):
        resolve(parse(*arguments), 1000, 10)


def test_without_data_it_is_imagenet():
    settings = resolve_without_data(parse("--num-gpus", "8"))
    assert (settings.num_training_samples, settings.num_classes) == (1281167, 1000)
    assert (settings.global_batch, settings.steps_per_epoch) == (256, 5004)
    assert resolve_without_data(parse("--num-classes", "7")).num_classes == 7


def test_record_files(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(path) for path in parse().rec_paths("train")] == [
        "/home/me/.mxnet/datasets/imagenet/rec/train.rec",
        "/home/me/.mxnet/datasets/imagenet/rec/train.idx"]
    assert [str(path) for path in parse("--rec-val", "~/v.rec").rec_paths("val")] == [
        "/home/me/v.rec", "/home/me/v.idx"]


@pytest.mark.parametrize(("arguments", "want"), [  # at the last update of epochs 1 to 6
    (("--lr-decay-epoch", "2,4"), [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]),
    (("--lr-decay-period", "3"), [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
    (("--lr-mode", "constant", "--warmup-epochs", "2"), [0.05, 0.1, 0.1, 0.1, 0.1, 0.1]),
    (("--lr-mode", "constant", "--warmup-epochs", "2", "--warmup-lr", "0.02"),
     [0.06, 0.1, 0.1, 0.1, 0.1, 0.1]),
    (("--lr-decay-epoch", "2,4", "--lr-decay", "0.5"), [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]),
    # t / T of the epochs' last updates: 9/60, 19/60 ...
    (("--lr-mode", "cosine"), [0.05 * (1 + math.cos(t / 60 * math.pi))
                               for t in (9, 19, 29, 39, 49, 59)]),
    (("--lr-mode", "poly"), [0.1 * (1 - t / 60) ** 2 for t in (9, 19, 29, 39, 49, 59)])])
def test_schedule_in_epochs(arguments, want):
    schedule = resolve(parse("--num-epochs", "6", *arguments), 329, 10).schedule()
    assert schedule["updates"] == 60
    assert [lr_at(10 * epoch - 1, **schedule) for epoch in range(1, 7)] == pytest.approx(want)
    if "--lr-decay-epoch" in arguments:  # it decays at the first update of the epoch
        assert lr_at(19, **schedule) > lr_at(20, **schedule) == lr_at(39, **schedule)


def test_json():
    settings = resolve(parse("--num-gpus", "2", "--num-epochs", "3"), 1000, 10)
    read = json.loads(settings.to_json())
    assert read.pop("derived") == {
        "global_batch": 64, "lr": 0.1, "steps_per_epoch": 15, "updates": 45, "warmup_updates": 0,
        "warmup_mode": "linear", "warmup_lr": 0.0, "decay": "step", "step_factor": 0.1,
        "step_updates": [450, 900, 1350]}
    assert read["rgb_std"] == [58.393, 57.12, 57.375]
    again = {name: tuple(value) if isinstance(value, list) else value
             for name, value in read.items()}
    assert Settings(**again) == settings


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().lr = 1.0


@pytest.mark.parametrize(("arguments", "want"), [
    ((), {"momentum": 0.9}), (("--optimizer", "sgd"), {"momentum": 0.9}),
    (("--optimizer", "adam"), {}), (("--optimizer", "adabound"), {"final_lr": 0.1}),
    (("--optimizer", "amsbound", "--final-lr", "0.5"), {"final_lr": 0.5}),
    (("--optimizer", "lars"), {"momentum": 0.9, "lars_eta": 0.001}),
    (("--optimizer", "lars", "--momentum", "0"), {"momentum": 0.0, "lars_eta": 0.001}),
    (("--mixup",), {"momentum": 0.9, "mixup_alpha": 0.2}),
    (TEACHER, {"momentum": 0.9, "temperature": 20.0}),
    ((*TEACHER, "--gluoncv-compat"), {"momentum": 0.9, "temperature": 20.0, "hard_weight": 0.5}),
    ((*TEACHER, "--gluoncv-compat", "--hard-weight", "0"),
     {"momentum": 0.9, "temperature": 20.0, "hard_weight": 0.0}),
    (("--gluoncv-compat",), {"momentum": 0.9}),
    (("--dtype", "float16", "--num-gpus", "1"), {"momentum": 0.9, "loss_scale": "dynamic"})])
def test_settled_gives_each_optimiser_and_trick_its_own_defaults(arguments, want):
    settings = resolve(parse(*arguments), 1000, 10)
    names = ("momentum", "final_lr", "lars_eta", "mixup_alpha", "temperature", "hard_weight",
             "loss_scale")
    assert {name: getattr(settings, name) for name in names
            if getattr(settings, name) is not None} == want
    assert resolve(settings, 1000, 10) == settings


@pytest.mark.parametrize(("optimizer", "lr"), [
    ("nag", 0.1), ("sgd", 0.1), ("lars", 0.1),
    ("adam", 0.001), ("adabound", 0.001), ("amsbound", 0.001)])  # as in their papers
def test_each_optimiser_has_a_learning_rate_of_its_own(optimizer, lr):
    settings = parse("--optimizer", optimizer)
    assert resolve(settings, 1000, 10).effective_lr == lr
    scaled = dataclasses.replace(settings, linear_scaling=True, batch_size=512)
    assert resolve(scaled, 1000, 10).effective_lr == 2 * lr
    assert resolve(dataclasses.replace(settings, lr=0.3), 1000, 10).effective_lr == 0.3


@pytest.mark.parametrize(("arguments", "batch", "lr"), [
    (("--batch-size", "256"), 256, 0.1), (("--batch-size", "64"), 64, 0.025),
    (("--batch-size", "64", "--num-gpus", "8", "--lr", "0.05"), 512, 0.1),
    (("--batch-size", "128", "--num-gpus", "2", "--accumulate", "4", "--lr", "0.2"), 1024, 0.8)])
def test_linear_scaling_takes_lr_for_a_batch_of_256(arguments, batch, lr):
    plain = resolve(parse(*arguments), 10_000, 10)
    scaled = resolve(parse(*arguments, "--linear-scaling"), 10_000, 10)
    assert plain.global_batch == scaled.global_batch == batch
    assert plain.effective_lr == plain.lr == scaled.lr
    assert scaled.effective_lr == scaled.schedule()["base_lr"] == pytest.approx(lr, rel=1e-12)
    derived = json.loads(scaled.to_json())["derived"]
    assert (derived["lr"], derived["global_batch"]) == (scaled.effective_lr, batch)


def test_accumulated_batches_make_fewer_updates():
    settings = resolve(parse("--accumulate", "4", "--num-epochs", "10", "--warmup-epochs", "2",
                     "--lr-decay-epoch", "4,6"), 1000, 10)
    assert (settings.global_batch, settings.steps_per_epoch) == (128, 7)
    schedule = settings.schedule()
    assert (schedule["updates"], schedule["warmup_updates"], schedule["step_updates"]) == (
        70, 14, (28, 42))
    assert resolve(parse("--warmup-updates", "9"), 1000, 10).schedule()["warmup_updates"] == 9


def test_constant_warm_up_as_for_resnet_110():
    """0.01 for 400 updates, then 0.1 (arXiv 1512.03385, section 4.2)."""
    settings = parse("--warmup-updates", "400", "--warmup-mode", "constant", "--warmup-lr", "0.01")
    schedule = resolve(settings, 3200, 10).schedule()
    assert [lr_at(update, **schedule) for update in (0, 399, 400)] == [0.01, 0.01, 0.1]


def test_gluoncvs_schedule_takes_the_settings():
    """Its warm-up reaches the rate one update early, its steps come one early."""
    schedule = resolve(parse("--gluoncv-compat", "--num-epochs", "6", "--warmup-epochs", "1",
                     "--lr-decay-epoch", "2,4"), 320, 10).schedule()
    assert [gluoncv_lr_at(update, **schedule) for update in (0, 8, 18, 19, 39, 59)] == (
        pytest.approx([0.1 / 9, 0.1, 0.1, 0.01, 0.001, 0.001]))


def test_every_setting_is_used():
    """Read by something other than the rules."""
    used = {f"rec_{part}{what}" for part in ("train", "val") for what in ("", "_idx")}
    used |= network._options(parse()).keys()  # of build_network, by their traits
    for path in Path(gluon_tricks.__file__).parent.rglob("*.py"):
        holder = "self" if path.name == "settings.py" else "settings"
        used |= {node.attr for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Attribute)
                 and ast.unparse(node.value).rpartition(".")[2] == holder}
    assert {field.name for field in dataclasses.fields(Settings)} - used == set()


def test_gluoncvs_empty_names_are_none():
    settings = parse("--resume-params '' --resume-states ''")
    assert (settings.resume_params, settings.resume_states) == (None, None)


def test_a_frozen_run_goes_on_without_what_it_began_with():
    assert parse("--resume", "a", "--freeze-until", "fc").freeze_until == "fc"
    for given in ((), ("--resume", "auto", "--save-dir", "a")):
        with pytest.raises(InputError, match="--freeze-until does nothing without --init-params"):
            parse("--freeze-until", "fc", *given)
