"""The settings of a run: one frozen dataclass, its flags, its checks, its JSON.

A field's name is its flag's, with dashes. The defaults are the paper's baseline (arXiv 1812.01187,
section 2); GluonCV's flag names are kept.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gluon_tricks.errors import InputError

RUN_FILES = ("config.json", "log.jsonl", "curves.png", "best.params", "last.params")
IMAGENET_TRAIN, IMAGENET_CLASSES = 1_281_167, 1000  # what a dry run assumes


def _numbers(kind: type):
    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    parse.__name__ = f"comma-separated list of {kind.__name__}"  # argparse's messages use it
    return parse


def _flag(default: Any, text: str, *, group: str, **argparse_options) -> Any:
    """A field with what argparse must know of its flag."""
    metadata = {"help": text, "group": group, **argparse_options}
    return field(default=default, metadata=metadata)


def _switch(text: str, *, group: str) -> Any:
    return _flag(False, text, group=group, action="store_true")


MAX_SIDE = 16_000  # of the pictures a network sees, which is absurd already
DALI = ("dali-cpu", "dali-gpu")  # GluonCV's names, to be told what to take instead
MODEL, DATA, OPTIMISER, TRICKS, RUN = "model", "data", "optimiser", "tricks", "run"


@dataclass(frozen=True)
class Settings:
    """All settings of a training run. None stands for "from the data" or "depends on others"."""

    model: str = _flag("", "network: resnet{18,34,50,101,152}_v1{,b,c,d}, or a name of GluonCV's "
                       "model zoo", group=MODEL, required=True)
    num_classes: int | None = _flag(None, "classes; default: what the training .rec says",
                                    group=MODEL, type=int)
    mode: str = _flag("hybrid", "how Gluon runs the network (symbolic: the same as hybrid)",
                      group=MODEL, choices=("hybrid", "imperative", "symbolic"))
    dropout: float = _flag(0.0, "share of features dropped before our ResNets' classifier",
                           group=MODEL, type=float)

    data_dir: str = _flag("~/.mxnet/datasets/imagenet", "where rec/{train,val}.{rec,idx} lie, "
                          "unless given one by one", group=DATA)
    rec_train: str | None = _flag(None, "training .rec", group=DATA)
    rec_train_idx: str | None = _flag(None, "its .idx; default: beside it", group=DATA)
    rec_val: str | None = _flag(None, "validation .rec", group=DATA)
    rec_val_idx: str | None = _flag(None, "its .idx; default: beside it", group=DATA)
    use_rec: bool = _switch("read RecordIO; always so, GluonCV's commands name it", group=DATA)
    num_data_workers: int = _flag(4, "threads that decode and augment; 0: one a core", group=DATA,
                                  type=int, short="-j")
    data_backend: str = _flag(
        "auto", "what decodes and augments: native (C++, where it was built), opencv, or mxnet "
        "(ImageRecordIter, with GluonCV's colour jitter and its own random numbers); auto takes "
        "native, else opencv", group=DATA,
        choices=("auto", "native", "opencv", "mxnet", *DALI))
    antialias: bool = _switch("widen the filter where a crop is shrunk (ImageRecordIter and the "
                              "paper's pipelines do not)", group=DATA)
    dct_shortcut: str | None = _flag(
        None, "where crops of twice the input size or more are decoded at a half, a quarter or an "
        "eighth, which is quicker: in training only, always or never; default: train with the "
        "native backend", group=DATA, choices=("train", "always", "never"))
    on_bad_record: str = _flag(
        "fail", "damaged records, which are looked for before training: stop, or leave them out "
        "and count them", group=DATA, choices=("fail", "skip"))
    input_size: int = _flag(224, "side of the pictures the network sees", group=DATA, type=int)
    crop_ratio: float = _flag(0.875, "validation: input size / resized shorter edge", group=DATA,
                              type=float)
    crop: str = _flag("resized", "training crop: random resized (the paper's), or pad by 4 and "
                      "crop without resizing (CIFAR's; nor is validation resized then)",
                      group=DATA, choices=("resized", "pad"))
    crop_area: tuple[float, ...] | None = _flag(
        None, "least and greatest share of a picture in a random resized crop; default: 0.08,1",
        group=DATA, type=_numbers(float))
    color_jitter: float | None = _flag(
        None, "hue, saturation, value are scaled by 1 - X to 1 + X; default: 0.4, 0 with "
        "--crop pad", group=DATA, type=float)
    pca_noise: float | None = _flag(
        None, "standard deviation of the PCA noise's coefficients; default: 0.1, with --crop pad 0",
        group=DATA, type=float)
    rgb_mean: tuple[float, ...] = _flag((123.68, 116.779, 103.939), "subtracted from R, G, B",
                                        group=DATA, type=_numbers(float))
    rgb_std: tuple[float, ...] = _flag((58.393, 57.12, 57.375), "R, G, B are divided by",
                                       group=DATA, type=_numbers(float))
    num_training_samples: int | None = _flag(
        None, "records of the training set; default: counted", group=DATA, type=int)
    shuffle_labels: bool = _switch("sanity check: deal the training labels out to other pictures, "
                                   "so that validation must be at chance", group=DATA)

    batch_size: int = _flag(32, "samples per device and update", group=OPTIMISER, type=int)
    num_epochs: int = _flag(120, "passes over the training set", group=OPTIMISER, type=int)
    lr: float = _flag(0.1, "learning rate after warm-up", group=OPTIMISER, type=float)
    momentum: float = _flag(0.9, "Nesterov momentum", group=OPTIMISER, type=float)
    wd: float = _flag(1e-4, "weight decay", group=OPTIMISER, type=float)
    lr_mode: str = _flag("step", "how the learning rate falls", group=OPTIMISER,
                         choices=("step", "cosine", "poly", "constant"))
    lr_decay: float = _flag(0.1, "step: factor of each fall", group=OPTIMISER, type=float)
    lr_decay_epoch: tuple[int, ...] = _flag((30, 60, 90), "step: epochs of the falls",
                                            group=OPTIMISER, type=_numbers(int))
    lr_decay_period: int = _flag(0, "step: epochs between falls, in place of --lr-decay-epoch; "
                                 "0: off", group=OPTIMISER, type=int)
    warmup_epochs: int = _flag(0, "epochs of warm-up", group=OPTIMISER, type=int)
    warmup_lr: float = _flag(0.0, "learning rate the warm-up starts from", group=OPTIMISER,
                             type=float)
    dtype: str = _flag("float32", "type of weights and activations", group=OPTIMISER,
                       choices=("float32", "float16"))

    label_smoothing: float = _flag(0.0, "eps; 0.1 where the flag stands alone", group=TRICKS,
                                   type=float, nargs="?", const=0.1)
    last_gamma: bool = _switch("zero gamma: the last BatchNorm of each block starts at 0",
                               group=TRICKS)
    no_wd: bool = _switch("no bias decay: weight decay on convolution and dense weights only",
                          group=TRICKS)

    num_gpus: int = _flag(0, "GPUs; 0: the CPU", group=RUN, type=int)
    seed: int = _flag(0, "of initialisation, order and augmentation", group=RUN, type=int)
    save_dir: str | None = _flag(None, "run folder; default: runs/MODEL-N", group=RUN)
    log_interval: int = _flag(50, "updates between lines of the log", group=RUN, type=int)
    logging_file: str = _flag("train.log", "name of the log in the run folder", group=RUN)

    def rec_paths(self, part: str) -> tuple[Path, Path]:
        """.rec and .idx of `part`, which is "train" or "val"."""
        given, given_idx = getattr(self, f"rec_{part}"), getattr(self, f"rec_{part}_idx")
        rec = Path(given or f"{self.data_dir}/rec/{part}.rec").expanduser()
        return rec, Path(given_idx).expanduser() if given_idx else rec.with_suffix(".idx")

    @property
    def global_batch(self) -> int:
        """Samples of an update, over all devices."""
        return self.batch_size * max(1, self.num_gpus)

    def settled(self, records: int, classes: int) -> "Settings":
        """These settings with every None that the data decides filled in, checked.

        Raises InputError where the flags contradict the data.
        """
        if self.num_training_samples not in (None, records):
            raise InputError(f"--num-training-samples {self.num_training_samples}, but the "
                             f"training set has {records} records: leave the flag out")
        if self.num_classes is not None and self.num_classes < classes:
            raise InputError(f"--num-classes {self.num_classes}, but the training set has the "
                             f"label {classes - 1}: give at least {classes}")
        if self.num_classes is None and classes < 2:
            raise InputError("the training set has one class alone, and a classifier needs two: "
                             "pack a folder for each class, or give --num-classes")
        resized = self.crop == "resized"
        return dataclasses.replace(
            self, num_training_samples=records, num_classes=self.num_classes or classes,
            crop_area=(self.crop_area or (0.08, 1.0)) if resized else None,
            color_jitter=_first(self.color_jitter, 0.4 if resized else 0.0),
            pca_noise=_first(self.pca_noise, 0.1 if resized else 0.0)).checked()

    def settled_without_data(self) -> "Settings":
        """As `settled`, for ImageNet where the flags do not say otherwise."""
        return self.settled(self.num_training_samples or IMAGENET_TRAIN,
                            self.num_classes or IMAGENET_CLASSES)

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch; of settled settings."""
        return self.num_training_samples // self.global_batch

    def schedule(self) -> dict[str, Any]:
        """The keyword arguments of `optim.schedule.lr_at`; of settled settings."""
        period = self.lr_decay_period
        epochs = range(period, self.num_epochs, period) if period else self.lr_decay_epoch
        return {"base_lr": self.lr, "updates": self.num_epochs * self.steps_per_epoch,
                "warmup_updates": self.warmup_epochs * self.steps_per_epoch,
                "warmup_lr": self.warmup_lr, "decay": self.lr_mode, "step_factor": self.lr_decay,
                "step_updates": tuple(epoch * self.steps_per_epoch for epoch in epochs)}

    def checked(self) -> "Settings":
        """Itself. Raises InputError for the first setting that cannot work."""
        for wrong, message in _rules(self):
            if wrong:
                raise InputError(message)
        return self

    def to_json(self) -> str:
        """With what follows from the settings under "derived"; of settled settings."""
        derived = {"global_batch": self.global_batch, "steps_per_epoch": self.steps_per_epoch,
                   "updates": self.num_epochs * self.steps_per_epoch}
        return json.dumps({**dataclasses.asdict(self), "derived": derived}, indent=1)


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _rules(s: Settings) -> Iterator[tuple[bool, str]]:
    """(is it broken, what to say) of every rule the settings must keep."""
    def at_least(low: float, *names: str) -> Iterator[tuple[bool, str]]:
        for name in names:
            value = getattr(s, name)
            flag = f"--{name.replace('_', '-')}"
            yield (value is not None and not low <= value < math.inf,
                   f"{flag} {value}: must be at least {low}, and finite")

    yield from at_least(1, "batch_size", "num_epochs", "input_size", "log_interval",
                        "num_training_samples")
    yield from at_least(0, "num_data_workers", "lr", "wd", "lr_decay", "warmup_lr",
                        "warmup_epochs", "num_gpus", "lr_decay_period", "pca_noise")
    yield from at_least(2, "num_classes")
    yield not 0 <= s.seed < 2**64, f"--seed {s.seed}: must be from 0 to 2^64 - 1"
    yield not 0 <= s.momentum < 1, f"--momentum {s.momentum}: must be from 0 to below 1"
    yield (not 0 <= s.label_smoothing < 1,
           f"--label-smoothing {s.label_smoothing}: must be from 0 to below 1")
    yield not 0 <= s.dropout < 1, f"--dropout {s.dropout}: must be from 0 to below 1"
    yield s.input_size > MAX_SIDE, f"--input-size {s.input_size}: must be at most {MAX_SIDE}"
    yield not 0 < s.crop_ratio <= 1, (f"--crop-ratio {s.crop_ratio}: must be above 0 and at most "
                                      "1, a crop cannot be larger than the resized picture")
    yield (s.crop_ratio > 0 and s.input_size / s.crop_ratio > 2 * MAX_SIDE,
           f"--crop-ratio {s.crop_ratio} makes the shorter edge {s.input_size / s.crop_ratio:.0f} "
           f"pixels long: more than {2 * MAX_SIDE}")
    yield not 0 <= (s.color_jitter or 0) <= 1, (f"--color-jitter {s.color_jitter}: must be from "
                                                "0 to 1")
    area = s.crop_area or (0.08, 1.0)
    yield (len(area) != 2 or not 0 < area[0] <= area[1] <= 1,
           f"--crop-area {area}: needs two shares, 0 < least <= greatest <= 1")
    yield (s.crop == "pad" and s.crop_area is not None,
           "--crop-area has no meaning with --crop pad: leave one of them out")
    for flag, values in (("--rgb-mean", s.rgb_mean), ("--rgb-std", s.rgb_std)):
        yield (len(values) != 3 or not all(map(math.isfinite, values)),
               f"{flag} {values}: needs three numbers, for R, G and B")
    yield min(s.rgb_std, default=1) <= 0, f"--rgb-std {s.rgb_std}: must be above 0"
    yield from _backend_rules(s)
    yield (s.num_training_samples is not None and s.num_training_samples < s.global_batch,
           f"the training set has {s.num_training_samples} records, fewer than one global batch of "
           f"{s.global_batch}: lower --batch-size")
    yield (s.warmup_epochs > s.num_epochs,
           f"--warmup-epochs {s.warmup_epochs} is more than --num-epochs {s.num_epochs}")
    yield (s.warmup_lr > 0 and s.warmup_epochs == 0,
           "--warmup-lr has no meaning without --warmup-epochs: give both or none")
    yield (min(s.lr_decay_epoch, default=0) < 0,
           f"--lr-decay-epoch {s.lr_decay_epoch}: epochs count from 0")
    yield (s.lr_mode != "step" and s.lr_decay_period > 0,
           f"--lr-decay-period has no meaning with --lr-mode {s.lr_mode}: leave one of them out")
    yield (s.dtype == "float16" and s.num_gpus == 0,
           "--dtype float16 needs a GPU: MXNet's CPU build has no FP16 convolution; "
           "add --num-gpus or take float32")
    yield ("/" in s.logging_file or s.logging_file in ("", ".", "..", *RUN_FILES),
           f"--logging-file {s.logging_file!r}: must be a name without folders, it lies in the run "
           f"folder, and none of {', '.join(RUN_FILES)}")


def _backend_rules(s: Settings) -> Iterator[tuple[bool, str]]:
    """What only some data backends can do."""
    yield (s.data_backend in DALI,
           f"--data-backend {s.data_backend}: DALI has no MXNet plugin any more; take "
           "--data-backend native, which decodes faster on the CPU")
    yield (s.antialias and s.crop == "pad",
           "--antialias has no meaning with --crop pad, which resizes nothing: leave one out")
    yield (s.dct_shortcut not in (None, "never") and s.data_backend in ("opencv", "mxnet"),
           f"--dct-shortcut {s.dct_shortcut} needs --data-backend native: leave one of them out")
    yield (s.dct_shortcut not in (None, "never") and s.crop == "pad",
           f"--dct-shortcut {s.dct_shortcut} has no meaning with --crop pad, which resizes "
           "nothing: leave one of them out")
    mxnet = s.data_backend == "mxnet"
    for given, flag in ((s.antialias, "--antialias"), (s.crop == "pad", "--crop pad"),
                        (s.shuffle_labels, "--shuffle-labels"),
                        (s.on_bad_record == "skip", "--on-bad-record skip")):
        yield (mxnet and given, f"{flag}: ImageRecordIter cannot do this; take another "
               "--data-backend, or leave it out")


def add_flags(parser: argparse.ArgumentParser, only: tuple[str, ...] | None = None) -> None:
    """A flag for each of the settings, or for those named in `only`."""
    groups: dict[str, Any] = {}
    for setting in dataclasses.fields(Settings):
        if only is not None and setting.name not in only:
            continue
        options = dict(setting.metadata)
        name = options.pop("group")
        group = groups.setdefault(name, None) or parser.add_argument_group(name)
        groups[name] = group
        names = [short for short in (options.pop("short", None),) if short]
        names.append(f"--{setting.name.replace('_', '-')}")
        options["help"] += _shown(setting.default)
        group.add_argument(*names, dest=setting.name, default=setting.default, **options)


def _shown(default: Any) -> str:
    """A default as --help shows it; None and switches explain themselves."""
    if default is None or default is False or default == "":
        return ""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f" (default: {shown})"


def from_flags(flags: argparse.Namespace) -> Settings:
    """The checked settings of parsed flags. Raises InputError."""
    names = {setting.name for setting in dataclasses.fields(Settings)}
    given = {name: value for name, value in vars(flags).items() if name in names}
    return Settings(**given).checked()
