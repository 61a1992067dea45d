"""Defaults other than the paper's: GluonCV's, with --gluoncv-compat, and those for CIFAR-10."""

from collections.abc import Mapping
from typing import Any, NamedTuple

ZOO = "zoo"  # the value of --use-pretrained without an argument


class Preset(NamedTuple):
    """Defaults of settings by name, if they differ from the dataclass's own."""

    usual: Mapping[str, Any] = {}
    gluoncv: Mapping[str, Any] = {}  # in their place, with --gluoncv-compat


# GluonCV's: those of its train_imagenet.py. --num-training-samples and --hard-weight are filled in
# elsewhere: the first from the data, the second only with a teacher.
IMAGENET = Preset({}, {
    "num_epochs": 3, "lr_decay_epoch": (40, 60), "mode": "imperative", "data_backend": "mxnet",
    "save_frequency": 10, "save_dir": "params", "logging_file": "train_imagenet.log"})

# The usual recipe for CIFAR-10: the published commands of train_cifar10.py agree on it.
_CIFAR10 = {"model": "cifar_resnet20_v1", "data_dir": "~/.mxnet/datasets/cifar10", "crop": "pad",
            "input_size": 32, "rgb_mean": (125.307, 122.961, 113.8575),
            "rgb_std": (51.5865, 50.847, 51.255)}
CIFAR10 = Preset(
    {**_CIFAR10, "batch_size": 128, "num_epochs": 200, "lr_decay_epoch": (100, 150)},
    {**_CIFAR10, "num_epochs": 3, "lr_decay_epoch": (40, 60), "mode": "imperative",
     "save_frequency": 10, "save_dir": "params"})
_CIFAR10_MIXUP = {"mixup_alpha": 1.0, "mixup_off_epoch": 20}  # of GluonCV's train_mixup_cifar10.py


# Those of GluonCV's train_horovod.py, in which some flags have other meanings.
_HOROVOD = {"model": "resnet50_v1", "num_epochs": 90, "lr": 0.05, "warmup_epochs": 10,
            "batch_size": 128, "lr_mode": "cosine", "log_interval": 40, "save_frequency": 20,
            "eval_frequency": 0}
HOROVOD = Preset(_HOROVOD, {**_HOROVOD, "save_dir": "params"})


def defaults(preset: Preset, given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's defaults, less those that cannot be combined with the given settings.

    Dropped are the epochs of --lr-decay-epoch if the rate does not decay at these, and
    ImageRecordIter if it cannot read the data (several devices, folders) or do what is asked for.
    """
    chosen = dict(preset.gluoncv if given.get("gluoncv_compat") else preset.usual)
    if preset is CIFAR10 and given.get("mixup"):
        chosen.update(_CIFAR10_MIXUP)
        if given.get("num_epochs", chosen["num_epochs"]) <= chosen["mixup_off_epoch"]:
            del chosen["mixup_off_epoch"]
    if given.get("lr_mode", "step") != "step" or given.get("lr_decay_period"):
        chosen.pop("lr_decay_epoch", None)
    reads_records = given.get("use_rec") or any(name.startswith("rec_") for name in given)
    single = max(given.get("num_gpus", 0), given.get("num_cpu_ranks", 0)) <= 1
    beyond_it = (given.get("on_bad_record"), given.get("crop")) != (None, None) or any(
        given.get(name) for name in ("auto_augment", "checkpoint_steps", "dct_shortcut",
                                     "shuffle_labels", "antialias"))
    if not (reads_records and single) or beyond_it:
        chosen.pop("data_backend", None)
    return chosen
