"""The settings of a run: one frozen dataclass, its flags, its checks, its JSON.

A field's name is its flag's, with dashes. The defaults are the paper's baseline (arXiv 1812.01187,
section 2); GluonCV's flag names are kept.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gluon_tricks.config import presets

DALI = ("dali-cpu", "dali-gpu")  # GluonCV's names, to be told what to take instead


def _numbers(kind: type):
    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    parse.__name__ = f"comma-separated list of {kind.__name__}"  # argparse's messages use it
    return parse


def _text(text: str) -> str | None:
    return text or None  # "" is what GluonCV's scripts have where nothing is given


def _loss_scale(text: str) -> float | str:
    return text if text == "dynamic" else float(text)


_loss_scale.__name__ = "number, or dynamic,"  # argparse's messages use it


def _flag(default: Any, text: str, *, group: str, **argparse_options) -> Any:
    """A field with what argparse must know of its flag."""
    metadata = {"help": text, "group": group, **argparse_options}
    return field(default=default, metadata=metadata)


def _switch(text: str, *, group: str, **more) -> Any:
    return _flag(False, text, group=group, action="store_true", **more)


OPTIMIZERS = ("nag", "sgd", "adam", "adabound", "amsbound", "lars")
ADAPTIVE = ("adam", "adabound", "amsbound")  # whose steps hardly depend on the gradient's size
MODEL, DATA, OPTIMISER, TRICKS, RUN = "model", "data", "optimiser", "tricks", "run"


@dataclass(frozen=True)
class Settings:
    """All settings of a training run. None stands for "from the data" or "depends on others"."""

    model: str = _flag("", "network: resnet{18,34,50,101,152}_v1{,b,c,d}, or a name of GluonCV's "
                       "model zoo", group=MODEL, required=True)
    num_classes: int | None = _flag(None, "classes; default: what the training set says",
                                    group=MODEL, type=int)
    mode: str = _flag("hybrid", "how Gluon runs the network (symbolic: the same as hybrid)",
                      group=MODEL, choices=("hybrid", "imperative", "symbolic"))
    dropout: float = _flag(0.0, "share of features dropped before our ResNets' classifier, and in "
                           "the blocks of GluonCV's wide ResNets", group=MODEL, type=float)
    use_se: bool = _switch("squeeze and excitation, in GluonCV's ResNeXt", group=MODEL,
                           also=("--use_se",))
    batch_norm: bool = _switch("BatchNorm, in GluonCV's VGG", group=MODEL)
    use_gn: bool = _switch("GroupNorm in place of BatchNorm", group=MODEL)
    use_sk: bool = _switch("selective kernels, in networks that have them", group=MODEL,
                           also=("--use_sk",))
    use_avd: bool = _switch("average pools for strides, in networks that have them", group=MODEL,
                            also=("--use_avd",))
    dropblock_prob: float = _flag(0.0, "DropBlock's probability, in GluonCV's ResNeSt; "
                                  "0: the network's own", group=MODEL,
                                  type=float)
    use_pretrained: str | None = _flag(
        None, "start from GluonCV's parameters of --model, or from those of another SOURCE",
        group=MODEL, nargs="?", const=presets.ZOO, metavar="SOURCE")
    init_params: str | None = _flag(
        None, "start from these parameters: a .params file, a run's folder, or a name of GluonCV's "
        "model zoo", group=MODEL, metavar="SOURCE")
    new_classifier: bool = _switch("those parameters are of other classes: take all but the "
                                   "classifier's", group=MODEL)
    freeze_until: str | None = _flag(
        None, "leave what comes before this part of the network, layer3 say, as it is", group=MODEL,
        metavar="PART")
    lr_mult_head: float | None = _flag(None, "the classifier's learning rate, times the others'; "
                                       "default: 1", group=MODEL, type=float)

    data_dir: str = _flag("~/.mxnet/datasets/imagenet", "where the folders train/ and val/ lie, "
                          "with one folder of pictures a class; else rec/{train,val}.{rec,idx}",
                          group=DATA)
    rec_train: str | None = _flag(None, "training .rec", group=DATA)
    rec_train_idx: str | None = _flag(None, "its .idx; default: beside it", group=DATA)
    rec_val: str | None = _flag(None, "validation .rec", group=DATA)
    rec_val_idx: str | None = _flag(None, "its .idx; default: beside it", group=DATA)
    use_rec: bool = _switch("read RecordIO, even where --data-dir has folders of pictures; so do "
                            "--rec-train and --rec-val, for their part", group=DATA)
    num_data_workers: int = _flag(
        4, "threads that decode and augment; 0: one a core. Several devices of a machine share "
        "them, but take 4 each where there are 4 or more", group=DATA, type=int, short="-j")
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

    batch_size: int = _flag(32, "samples per device and batch", group=OPTIMISER, type=int)
    accumulate: int = _flag(1, "batches whose gradients make one update", group=OPTIMISER, type=int)
    num_epochs: int = _flag(120, "passes over the training set", group=OPTIMISER, type=int)
    optimizer: str = _flag("nag", "what makes an update of a gradient", group=OPTIMISER,
                           choices=OPTIMIZERS)
    lr: float | None = _flag(None, "learning rate after warm-up; default: 0.1, of adam, adabound "
                             "and amsbound 0.001", group=OPTIMISER, type=float)
    linear_scaling: bool = _switch("--lr is for a global batch of 256: scale it to this run's",
                                   group=OPTIMISER)
    momentum: float | None = _flag(None, "of nag, sgd and lars; default: 0.9", group=OPTIMISER,
                                   type=float)
    final_lr: float | None = _flag(None, "adabound, amsbound: the rate of SGD they turn into; "
                                   "default: 0.1", group=OPTIMISER, type=float)
    lars_eta: float | None = _flag(None, "lars: trust coefficient; default: 0.001",
                                   group=OPTIMISER, type=float)
    wd: float = _flag(1e-4, "weight decay (L2)", group=OPTIMISER, type=float)
    l1: float = _flag(0.0, "L1 regularisation of convolution and dense weights", group=OPTIMISER,
                      type=float)
    clip_grad_norm: float | None = _flag(None, "greatest norm of an update's gradient, over all "
                                         "parameters; default: no limit", group=OPTIMISER,
                                         type=float)
    ema: float | None = _flag(None, "average the weights over updates with this decay (0.9999 "
                              "where the flag stands alone), validate and save the average; "
                              "default: off", group=OPTIMISER, type=float, nargs="?", const=0.9999)
    lr_mode: str = _flag("step", "how the learning rate falls", group=OPTIMISER,
                         choices=("step", "cosine", "poly", "constant"))
    lr_decay: float = _flag(0.1, "step: factor of each fall", group=OPTIMISER, type=float)
    lr_decay_epoch: tuple[int, ...] = _flag((30, 60, 90), "step: epochs of the falls",
                                            group=OPTIMISER, type=_numbers(int))
    lr_decay_period: int = _flag(0, "step: epochs between falls, in place of --lr-decay-epoch; "
                                 "0: off", group=OPTIMISER, type=int)
    warmup_epochs: int = _flag(0, "epochs of warm-up", group=OPTIMISER, type=int)
    warmup_updates: int = _flag(0, "updates of warm-up, in place of --warmup-epochs",
                                group=OPTIMISER, type=int)
    warmup_mode: str = _flag("linear", "warm-up: gradual, or at --warmup-lr throughout",
                             group=OPTIMISER, choices=("linear", "constant"))
    warmup_lr: float = _flag(0.0, "learning rate the warm-up starts from", group=OPTIMISER,
                             type=float)
    dtype: str = _flag("float32", "type of weights and activations; bfloat16: of convolutions and "
                       "dense layers, on CPUs that have it", group=OPTIMISER,
                       choices=("float32", "float16", "bfloat16"))
    loss_scale: float | str | None = _flag(
        None, "float16: what the loss is multiplied by, a number or dynamic; default: dynamic",
        group=OPTIMISER, type=_loss_scale)

    label_smoothing: float = _flag(0.0, "eps; 0.1 where the flag stands alone", group=TRICKS,
                                   type=float, nargs="?", const=0.1)
    auto_augment: str | None = _flag(
        None, "AutoAugment: the policy, named for the set that it was found on; default: off",
        group=TRICKS, choices=("imagenet", "cifar10", "svhn"))
    mixup: bool = _switch("train on mixtures of pairs of samples", group=TRICKS)
    mixup_alpha: float | None = _flag(None, "shares are drawn from Beta(alpha, alpha); default: "
                                      "0.2", group=TRICKS, type=float)
    mixup_off_epoch: int = _flag(0, "last epochs without mixup", group=TRICKS, type=int)
    teacher: str | None = _flag(None, "distillation: the teacher's name, as for --model; GluonCV's "
                                "pretrained parameters are downloaded unless --teacher-params is "
                                "given", group=TRICKS)
    teacher_params: str | None = _flag(None, "the teacher's .params file", group=TRICKS)
    temperature: float | None = _flag(None, "distillation: T; default: 20", group=TRICKS,
                                      type=float)
    hard_weight: float | None = _flag(
        None, "distillation: w of GluonCV's w * hard + (1 - w) * T^2 * soft; default: the paper's "
        "hard + T^2 * soft", group=TRICKS, type=float)
    last_gamma: bool = _switch("zero gamma: the last BatchNorm of each block starts at 0",
                               group=TRICKS)
    no_wd: bool = _switch("no bias decay: weight decay on convolution and dense weights only",
                          group=TRICKS)
    gluoncv_compat: bool = _switch(
        "GluonCV's numerics: warm-up and decay an update off, smoothing by eps / K, one mixing "
        "share a batch, distillation with weights of a half", group=TRICKS)

    num_gpus: int = _flag(0, "GPUs, of all hosts, a process each; 0: the CPU", group=RUN, type=int)
    num_cpu_ranks: int = _flag(0, "processes that train together on CPUs, as so many GPUs would; "
                               "0: one process on all cores", group=RUN, type=int)
    grad_compression: str = _flag("none", "several devices: type that gradients of float32 and "
                                  "bfloat16 runs travel in", group=RUN, choices=("none", "fp16"))
    grad_predivide: float | None = _flag(
        None, "several devices: each one's gradients are divided by it before they are added up; "
        "default: the number of devices, so that no sum overflows", group=RUN, type=float)
    num_groups: int = _flag(
        0, "several devices: reduce gradients in so many groups, each when all of them are there; "
        "0: Horovod fuses what is there, on CPUs one group", group=RUN, type=int)
    seed: int = _flag(0, "of initialisation, order and augmentation", group=RUN, type=int)
    save_dir: str | None = _flag(None, "run folder; default: runs/MODEL-N", group=RUN)
    log_interval: int = _flag(50, "updates between lines of the log", group=RUN, type=int)
    logging_file: str = _flag("train.log", "name of the log in the run folder", group=RUN)
    tensorboard: bool = _switch("write TensorBoard's event files, too", group=RUN)
    resume: str | None = _flag(None, "go on from a checkpoint: its folder, a run's (its newest), "
                               "or auto (the newest in --save-dir; from the start where there is "
                               "none)", group=RUN)
    resume_params: str | None = _flag(None, "go on with a run of GluonCV's: its .params file",
                                      group=RUN, type=_text)
    resume_states: str | None = _flag(None, "and its .states file; default: momentum starts anew",
                                      group=RUN, type=_text)
    resume_epoch: int = _flag(0, "and how many of its epochs are done", group=RUN, type=int)
    keep: int = _flag(2, "checkpoints that are kept, the newest", group=RUN, type=int)
    save_frequency: int = _flag(0, "epochs between parameter files that stay, named as GluonCV's; "
                                "0: none", group=RUN, type=int)
    eval_frequency: int = _flag(1, "epochs between validations; the last is always validated; 0: "
                                "that one alone", group=RUN, type=int)
    checkpoint_steps: int = _flag(0, "updates between checkpoints inside an epoch; 0: at "
                                  "its end only", group=RUN, type=int)
    early_stop_patience: int = _flag(0, "stop after so many epochs without a better top-1; 0: "
                                     "never", group=RUN, type=int)
    nan: str = _flag("stop", "a loss that is not finite: stop the run, or skip its update (which "
                     "waits for the device at each update)", group=RUN, choices=("stop", "skip"))

    def rec_paths(self, part: str) -> tuple[Path, Path]:
        """.rec and .idx of `part`, which is "train" or "val"."""
        given, given_idx = getattr(self, f"rec_{part}"), getattr(self, f"rec_{part}_idx")
        rec = Path(given or f"{self.data_dir}/rec/{part}.rec").expanduser()
        return rec, Path(given_idx).expanduser() if given_idx else rec.with_suffix(".idx")

    def picture_folder(self, part: str) -> Path | None:
        """Where the pictures of `part` may lie in folders; None where flags ask for RecordIO."""
        given = getattr(self, f"rec_{part}") or getattr(self, f"rec_{part}_idx")
        return None if self.use_rec or given else Path(self.data_dir).expanduser() / part

    @property
    def world_size(self) -> int:
        """Processes that train together, one a device."""
        return max(1, self.num_gpus, self.num_cpu_ranks)

    @property
    def global_batch(self) -> int:
        """Samples of an update, over all devices."""
        return self.batch_size * self.world_size * self.accumulate

    @property
    def array_dtype(self) -> str:
        """Type of weights and pictures: bfloat16 is of operators alone."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def effective_lr(self) -> float:
        """The learning rate after warm-up; of settled settings."""
        return self.lr * self.global_batch / 256 if self.linear_scaling else self.lr

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch; of settled settings."""
        return self.num_training_samples // self.global_batch

    def schedule(self) -> dict[str, Any]:
        """The keyword arguments of `lr_at`, or of `gluoncv_lr_at`; of settled settings."""
        period = self.lr_decay_period
        epochs = range(period, self.num_epochs, period) if period else self.lr_decay_epoch
        own = {} if self.gluoncv_compat else {"warmup_mode": self.warmup_mode,
                                              "warmup_lr": self.warmup_lr}
        return {"base_lr": self.effective_lr, "updates": self.num_epochs * self.steps_per_epoch,
                "warmup_updates": self.warmup_updates or self.warmup_epochs * self.steps_per_epoch,
                **own, "decay": self.lr_mode, "step_factor": self.lr_decay,
                "step_updates": tuple(epoch * self.steps_per_epoch for epoch in epochs)}

    def to_json(self) -> str:
        """With what follows from the settings under "derived"; of settled settings."""
        other = {"base_lr"}  # it is "lr"
        if self.lr_mode != "step":
            other |= {"step_factor", "step_updates"}
        derived = {"global_batch": self.global_batch, "lr": self.effective_lr,
                   "steps_per_epoch": self.steps_per_epoch,
                   **{name: value for name, value in self.schedule().items() if name not in other}}
        return json.dumps({**dataclasses.asdict(self), "derived": derived}, indent=1)
