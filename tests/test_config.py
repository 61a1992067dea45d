"""The settings of a run: flags in, checks, what follows from the data, JSON out."""

import dataclasses
import json
import math

import pytest

from gluon_tricks.cli import Parser
from gluon_tricks.config import Settings, add_flags, from_flags
from gluon_tricks.errors import InputError
from gluon_tricks.optim.schedule import lr_at


@pytest.fixture
def parse():
    """parse(*arguments): the settings of a command line; --model is given already."""
    def run(*arguments):
        parser = Parser(prog="train")
        add_flags(parser)
        return from_flags(parser.parse_args(["--model", "resnet50_v1d", *arguments]))
    return run


@pytest.fixture
def misparse(parse, capsys):
    """The one line that a command line is refused with by the parser itself."""
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            parse(*arguments)
        assert caught.value.code == 2
        line, = capsys.readouterr().err.splitlines()
        return line
    return run


OTHER = {  # of each setting a value that is not the default, as a user would write it
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
    "warmup_epochs": ("5", 5), "warmup_lr": ("0.01", 0.01), "dtype": ("float16", "float16"),
    "label_smoothing": ("0.2", 0.2), "last_gamma": (None, True), "no_wd": (None, True),
    "num_gpus": ("1", 1), "seed": ("7", 7), "save_dir": ("out", "out"),
    "log_interval": ("3", 3), "logging_file": ("my.log", "my.log"),
}
ALONG = {"warmup_lr": ("--warmup-epochs", "5"), "dtype": ("--num-gpus", "1")}  # these need


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_every_setting_has_a_flag_and_no_other_changes_with_it(parse, name):
    text, value = OTHER[name]
    along = ALONG.get(name, ())
    flag = f"--{name.replace('_', '-')}"
    got = parse(*along, flag, *([text] if text else []))
    assert getattr(parse(*along), name) != value or name == "model"
    assert getattr(got, name) == value and type(getattr(got, name)) is type(value)
    assert dataclasses.replace(parse(*along), **{name: value}) == got


def test_the_defaults_are_the_papers_baseline(parse):
    settings = parse()
    want = {"batch_size": 32, "num_epochs": 120, "lr": 0.1, "momentum": 0.9, "wd": 1e-4,
            "lr_mode": "step", "lr_decay": 0.1, "lr_decay_epoch": (30, 60, 90),
            "lr_decay_period": 0, "warmup_epochs": 0, "dtype": "float32", "label_smoothing": 0.0,
            "last_gamma": False, "no_wd": False, "input_size": 224, "crop_ratio": 0.875,
            "rgb_mean": (123.68, 116.779, 103.939), "rgb_std": (58.393, 57.12, 57.375),
            "num_gpus": 0, "num_data_workers": 4, "mode": "hybrid", "num_classes": None,
            "data_backend": "auto", "antialias": False, "dct_shortcut": None,
            "on_bad_record": "fail",
            "num_training_samples": None, "log_interval": 50}
    assert {name: getattr(settings, name) for name in want} == want


def test_a_published_command_of_gluoncv_parses(parse):
    settings = parse(
        "--rec-train", "R/train.rec", "--rec-train-idx", "R/train.idx", "--rec-val", "R/val.rec",
        "--rec-val-idx", "R/val.idx", "--mode", "hybrid", "--lr", "0.4", "--lr-mode", "cosine",
        "--num-epochs", "200", "--batch-size", "128", "--num-gpus", "8", "-j", "60",
        "--warmup-epochs", "5", "--dtype", "float16", "--use-rec", "--last-gamma", "--no-wd",
        "--label-smoothing", "--save-dir", "params", "--logging-file", "r.log")
    assert settings.global_batch == 1024
    assert settings.num_data_workers == 60
    assert settings.label_smoothing == 0.1
    assert [str(path) for path in settings.rec_paths("val")] == ["R/val.rec", "R/val.idx"]


def test_values_in_gluoncvs_way(parse):
    assert parse("--lr-decay-epoch", "40,60").lr_decay_epoch == (40, 60)
    assert parse("--lr-decay-epoch=40, 60,").lr_decay_epoch == (40, 60)
    assert parse("--rgb-mean", "123.68,116.779,103.939").rgb_mean == (123.68, 116.779, 103.939)
    assert parse("--num-data-workers", "8") == parse("-j", "8") == parse("-j8")
    assert parse("--label-smoothing", "--no-wd").label_smoothing == 0.1
    assert parse("--label-smoothing", "0.3").label_smoothing == 0.3
    assert parse("--label-smoothing").label_smoothing == 0.1
    assert parse("--wd", "0").wd == 0
    assert parse("--mode", "symbolic").mode == "symbolic"


@pytest.mark.parametrize("short", [
    ("--num-epoch", "3"), ("--lr-decay-e", "1"), ("--label",), ("--batch", "3"), ("--rec-v", "x")])
def test_no_abbreviation_is_taken(misparse, short):
    assert "unrecognized arguments" in misparse(*short)


@pytest.mark.parametrize(("arguments", "flag"), [
    (("--lr", "fast"), "--lr"), (("--batch-size", "3.5"), "--batch-size"),
    (("--lr-decay-epoch", "1.5"), "--lr-decay-epoch"), (("--rgb-mean", "a,b,c"), "--rgb-mean"),
    (("--lr-mode", "linear"), "--lr-mode"), (("--dtype", "bfloat16"), "--dtype"),
    (("--crop", "none"), "--crop"), (("--seed", "x"), "--seed"),
    (("--data-backend", "dali"), "--data-backend"), (("--dct-shortcut", "yes"), "--dct-shortcut"),
    (("--on-bad-record", "warn"), "--on-bad-record"), (("-j", "all"), "-j")])
def test_a_value_of_the_wrong_kind_names_its_flag(misparse, arguments, flag):
    assert flag in misparse(*arguments)


def test_the_model_must_be_given(capsys):
    parser = Parser()
    add_flags(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "--model" in capsys.readouterr().err


BROKEN = [
    ("--batch-size", "0"), ("--num-epochs", "0"), ("--num-data-workers", "-1"),
    ("--input-size", "0"), ("--log-interval", "0"), ("--num-training-samples", "0"),
    ("--lr", "-0.1"), ("--wd", "-1"), ("--lr-decay", "-1"), ("--warmup-epochs", "-1"),
    ("--num-gpus", "-1"), ("--lr-decay-period", "-1"), ("--pca-noise", "-1"),
    ("--num-classes", "1"), ("--seed", "-1"), ("--seed", str(2**64)), ("--momentum", "1"),
    ("--momentum", "-0.1"), ("--label-smoothing", "1"), ("--label-smoothing", "-0.1"),
    ("--dropout", "1"), ("--dropout", "-0.1"), ("--crop-ratio", "0"), ("--crop-ratio", "1.1"),
    ("--color-jitter", "1.1"), ("--color-jitter", "-0.1"), ("--crop-area", "0,1"),
    ("--crop-area", "0.5"), ("--crop-area", "0.5,0.4"), ("--crop-area", "0.5,1.1"),
    ("--crop-area", "0.1,1", "--crop", "pad"), ("--rgb-mean", "1,2"), ("--rgb-std", "1,2,3,4"),
    ("--rgb-std", "1,0,1"), ("--rgb-std", ","), ("--warmup-epochs", "121"),
    ("--warmup-lr", "0.01"), ("--warmup-lr", "-1", "--warmup-epochs", "1"),
    ("--lr-decay-period", "10", "--lr-mode", "cosine"), ("--dtype", "float16"),
    ("--logging-file", "a/b.log"), ("--logging-file", ""),
    ("--input-size", "16001"), ("--crop-ratio", "0.0005"),
    # what is no number at all
    ("--lr", "nan"), ("--lr", "inf"), ("--wd", "nan"), ("--momentum", "nan"),
    ("--label-smoothing", "nan"), ("--dropout", "nan"), ("--crop-ratio", "nan"),
    ("--color-jitter", "nan"), ("--pca-noise", "inf"), ("--crop-area", "nan,1"),
    ("--rgb-mean", "nan,1,1"), ("--rgb-std", "1,nan,1"), ("--rgb-std", "1,1,inf"),
    # what would fall before the run, or write over what a run folder holds
    ("--lr-decay-epoch", "-30,60"), ("--logging-file", "log.jsonl"),
    ("--logging-file", "config.json"), ("--logging-file", ".."),
    # what a data backend cannot do
    ("--data-backend", "dali-cpu"), ("--data-backend", "dali-gpu"),
    ("--dct-shortcut", "train", "--data-backend", "opencv"),
    ("--dct-shortcut", "always", "--data-backend", "mxnet"),
    ("--dct-shortcut", "always", "--crop", "pad"),
    ("--on-bad-record", "skip", "--data-backend", "mxnet"),
]


@pytest.mark.parametrize(("arguments", "words"), [
    (("--data-backend", "dali-cpu"), ("--data-backend dali-cpu", "--data-backend native")),
    (("--data-backend", "dali-gpu"), ("--data-backend dali-gpu", "--data-backend native")),
    (("--antialias", "--crop", "pad"), ("--antialias", "--crop pad")),
    (("--antialias", "--data-backend", "mxnet"), ("--antialias", "--data-backend")),
    (("--shuffle-labels", "--data-backend", "mxnet"), ("--shuffle-labels", "--data-backend")),
    (("--crop", "pad", "--data-backend", "mxnet"), ("--crop pad", "--data-backend"))],
    ids=lambda value: " ".join(value))
def test_what_a_data_backend_cannot_do_is_said_in_one_line(parse, arguments, words):
    with pytest.raises(InputError) as caught:
        parse(*arguments)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", BROKEN, ids=" ".join)
def test_each_broken_rule_names_its_flag_in_one_line(parse, arguments):
    with pytest.raises(InputError) as caught:
        parse(*(f"{flag}={value}" for flag, value in zip(arguments[::2], arguments[1::2],
                                                       strict=True)))
    assert arguments[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [
    ("--momentum", "0"), ("--crop-ratio", "1"), ("--color-jitter", "1"), ("--crop-area", "1,1"),
    ("--seed", str(2**64 - 1)), ("--num-classes", "2"), ("--lr", "0"), ("--lr-decay-epoch", ""),
    ("--warmup-epochs", "120"), ("--num-training-samples", "32"), ("--dropout", "0"), ("-j", "0"),
    ("--data-backend", "native", "--dct-shortcut", "train", "--antialias"),
    ("--data-backend", "auto", "--dct-shortcut", "always"),
    ("--data-backend", "opencv", "--dct-shortcut", "never", "--antialias"),
    ("--data-backend", "mxnet", "--dct-shortcut", "never", "-j", "0"),
    ("--crop", "pad", "--dct-shortcut", "never", "--on-bad-record", "skip")],
    ids=" ".join)
def test_the_edge_of_each_rule_is_allowed(parse, arguments):
    parse(*arguments)


def test_a_set_smaller_than_a_global_batch_says_to_lower_it(parse):
    with pytest.raises(InputError, match=r"31 records.*--batch-size"):
        parse("--num-training-samples", "31")
    with pytest.raises(InputError, match="--batch-size"):
        parse("--num-gpus", "4").settled(127, 10)


def test_settled_fills_in_what_the_data_says(parse):
    settings = parse().settled(1000, 10)
    assert (settings.num_training_samples, settings.num_classes) == (1000, 10)
    assert (settings.crop_area, settings.color_jitter, settings.pca_noise) == (
        (0.08, 1.0), 0.4, 0.1)
    assert settings.steps_per_epoch == 31
    padded = parse("--crop", "pad").settled(1000, 10)
    assert (padded.crop_area, padded.color_jitter, padded.pca_noise) == (None, 0.0, 0.0)


def test_settled_keeps_what_was_said(parse):
    settings = parse("--num-classes", "20", "--color-jitter", "0", "--pca-noise", "0",
                     "--crop-area", "0.5,1", "--num-training-samples", "1000").settled(1000, 10)
    assert (settings.num_classes, settings.color_jitter, settings.pca_noise,
            settings.crop_area) == (20, 0.0, 0.0, (0.5, 1.0))
    assert parse("--crop", "pad", "--color-jitter", "0.2").settled(50, 2).color_jitter == 0.2
    assert settings.settled(1000, 10) == settings


@pytest.mark.parametrize(("arguments", "flag"), [
    (("--num-training-samples", "999"), "--num-training-samples"),
    (("--num-classes", "9"), "--num-classes")])
def test_settled_contradicts_what_the_data_does_not_bear(parse, arguments, flag):
    with pytest.raises(InputError, match=flag):
        parse(*arguments).settled(1000, 10)


def test_without_data_it_is_imagenet(parse):
    settings = parse("--num-gpus", "8").settled_without_data()
    assert (settings.num_training_samples, settings.num_classes) == (1281167, 1000)
    assert (settings.global_batch, settings.steps_per_epoch) == (256, 5004)
    assert parse("--num-classes", "7").settled_without_data().num_classes == 7


def test_record_files(parse, monkeypatch):
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
def test_schedule_in_epochs(parse, arguments, want):
    schedule = parse("--num-epochs", "6", *arguments).settled(329, 10).schedule()
    assert schedule["updates"] == 60
    assert [lr_at(10 * epoch - 1, **schedule) for epoch in range(1, 7)] == pytest.approx(want)
    if "--lr-decay-epoch" in arguments:  # the fall is at the first update of the epoch
        assert lr_at(19, **schedule) > lr_at(20, **schedule) == lr_at(39, **schedule)


def test_json(parse):
    settings = parse("--num-gpus", "2", "--num-epochs", "3").settled(1000, 10)
    read = json.loads(settings.to_json())
    assert read.pop("derived") == {"global_batch": 64, "steps_per_epoch": 15, "updates": 45}
    assert read["rgb_std"] == [58.393, 57.12, 57.375]
    again = {name: tuple(value) if isinstance(value, list) else value
             for name, value in read.items()}
    assert Settings(**again) == settings


def test_settings_cannot_be_changed(parse):
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().lr = 1.0
