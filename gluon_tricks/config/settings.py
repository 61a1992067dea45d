"""The settings that every run has, whatever its task: one frozen dataclass, and its JSON.

A field is named like its flag, with underscores. The defaults are the paper's baseline (arXiv
1812.01187, section 2); GluonCV's flag names are kept. A task's own settings are a subclass.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

from gluon_tricks.config.fields import (
    DATA,
    OPTIMIZER,
    RUN,
    TRICKS,
    flag,
    loss_scale_of,
    numbers,
    ordered,
    switch,
)

OPTIMIZERS = ("nag", "sgd", "adam", "adabound", "amsbound", "lars")
ADAPTIVE = ("adam", "adabound", "amsbound")  # their steps hardly depend on the gradient's size


@dataclass(frozen=True)
class RunSettings:
    """What every run has: optimizer, schedule, devices, folder, resume. None means "from the data"
    or "depends on other settings"."""

    num_data_workers: int = flag(
        4, "threads that decode and augment; 0: one per core. Several devices of a machine share "
        "them, but each uses at least 4 if 4 or more are asked for", group=DATA, type=int,
        short="-j", least=0, per_host=True, also_in=("evaluate", "preview"),
        not_in=("train_horovod",))
    on_bad_record: str = flag(
        "fail", "damaged records, which are looked for before training: stop, or skip and count "
        "them", group=DATA, choices=("fail", "skip"), also_in=("evaluate",))
    num_training_samples: int | None = flag(
        None, "records of the training set; default: counted", group=DATA, type=int,
        least=1, on_resume="fixed", in_table=True)
    batch_size: int = flag(32, "samples per batch, on each device", group=OPTIMIZER, type=int,
                           least=1, in_table=True, also_in=("evaluate", "train_step"))
    accumulate: int = flag(1, "batches whose gradients make an update", group=OPTIMIZER, type=int,
                           least=1, in_table=True)
    num_epochs: int = flag(120, "passes over the training set", group=OPTIMIZER, type=int, least=1)
    optimizer: str = flag("nag", "how gradients become updates", group=OPTIMIZER,
                          choices=OPTIMIZERS, on_resume="fixed")
    lr: float | None = flag(None, "learning rate after warm-up; default: 0.1; 0.001 for adam, "
                            "adabound and amsbound", group=OPTIMIZER, type=float,
                            least=0, in_table=True)
    linear_scaling: bool = switch("--lr is for a global batch of 256: scale it to this run's batch",
                                  group=OPTIMIZER, in_table=True, not_in=("train_horovod",))
    momentum: float | None = flag(None, "nag, sgd, lars: momentum; default: 0.9", group=OPTIMIZER,
                                  type=float, least=0, below=1)
    final_lr: float | None = flag(None, "adabound, amsbound: the rate of the SGD they turn "
                                  "into; default: 0.1", group=OPTIMIZER, type=float, above=0)
    lars_eta: float | None = flag(None, "lars: trust coefficient; default: 0.001",
                                  group=OPTIMIZER, type=float, above=0)
    wd: float = flag(1e-4, "weight decay (L2)", group=OPTIMIZER, type=float, least=0)
    l1: float = flag(0.0, "L1 regularization of convolution and dense weights", group=OPTIMIZER,
                     type=float, least=0)
    clip_grad_norm: float | None = flag(None, "largest norm of an update's gradient, over all "
                                        "parameters; default: no limit", group=OPTIMIZER,
                                        type=float, above=0)
    ema: float | None = flag(None, "average the weights over updates with this decay (0.9999 "
                             "if no number is given), validate and save the average; "
                             "default: off", group=OPTIMIZER, type=float, nargs="?", const=0.9999)
    lr_mode: str = flag("step", "how the learning rate decays", group=OPTIMIZER,
                        choices=("step", "cosine", "poly", "constant"),
                        in_table=True, not_in=("train_horovod",))
    lr_decay: float = flag(0.1, "step: factor of each decay", group=OPTIMIZER, type=float,
                           least=0, not_in=("train_horovod",))
    lr_decay_epoch: tuple[int, ...] = flag((30, 60, 90), "step: epochs at which it decays",
                                           group=OPTIMIZER, type=numbers(int),
                                           not_in=("train_horovod",))
    lr_decay_period: int = flag(0, "step: epochs between decays, in place of --lr-decay-epoch; "
                                "0: off", group=OPTIMIZER, type=int,
                                least=0, not_in=("train_horovod",))
    warmup_epochs: int = flag(0, "epochs of warm-up", group=OPTIMIZER, type=int, least=0)
    warmup_updates: int = flag(0, "updates of warm-up, in place of --warmup-epochs",
                               group=OPTIMIZER, type=int, least=0)
    warmup_mode: str = flag("linear", "warm-up: linear, or --warmup-lr throughout",
                            group=OPTIMIZER, choices=("linear", "constant"))
    warmup_lr: float = flag(0.0, "learning rate that warm-up starts from", group=OPTIMIZER,
                            type=float, least=0)
    dtype: str = flag("float32", "type of weights and activations; bfloat16: only in convolutions "
                      "and dense layers, on CPUs that have it", group=OPTIMIZER,
                      choices=("float32", "float16", "bfloat16"), on_resume="fixed")
    loss_scale: float | str | None = flag(
        None, "float16: what the loss is multiplied by, a number or dynamic; default: dynamic",
        group=OPTIMIZER, type=loss_scale_of)
    no_wd: bool = switch("no bias decay: weight decay only on convolution and dense weights",
                         group=TRICKS)
    gluoncv_compat: bool = switch(
        "GluonCV's numerics: warm-up and decay off by one update, smoothing by eps / K, one mixing "
        "share per batch, distillation with weights of 1/2", group=TRICKS)
    num_gpus: int = flag(0, "GPUs of all hosts, one process each; 0: the CPU", group=RUN, type=int,
                         least=0, in_table=True, also_in=("evaluate", "train_step"))
    num_cpu_ranks: int = flag(0, "processes that train together on CPUs, as that many GPUs "
                              "would; 0: one process on all cores", group=RUN, type=int,
                              least=0, in_table=True, also_in=("evaluate",))
    grad_compression: str = flag("none", "several devices: type in which gradients of float32 and "
                                 "bfloat16 runs are sent", group=RUN, choices=("none", "fp16"))
    grad_predivide: float | None = flag(
        None, "several devices: divide each one's gradients by this before they are summed; "
        "default: the number of devices, so that no sum overflows", group=RUN, type=float, above=0)
    num_groups: int = flag(
        0, "several devices: all-reduce gradients in this many groups, each as soon as it is "
        "complete; 0: Horovod fuses what is ready, on CPUs one group", group=RUN, type=int, least=0)
    seed: int = flag(0, "seed of initialization, order and augmentation", group=RUN, type=int,
                     on_resume="fixed", also_in=("preview",))
    save_dir: str | None = flag(None, "run folder; default: runs/MODEL-N", group=RUN,
                                per_host=True, in_table=True)
    log_interval: int = flag(50, "updates between log lines", group=RUN, type=int,
                             least=1, on_resume="free")
    logging_file: str = flag("train.log", "name of the log in the run folder", group=RUN,
                             per_host=True)
    tensorboard: bool = switch("also write TensorBoard's event files", group=RUN, per_host=True)
    resume: str | None = flag(None, "resume from a checkpoint: its folder, a run's (its newest), "
                              "or auto (the newest in --save-dir; from the start if there is "
                              "none)", group=RUN, per_host=True)
    keep: int = flag(2, "how many of the newest checkpoints to keep", group=RUN, type=int,
                     least=1, on_resume="free")
    save_frequency: int = flag(0, "epochs between parameter files that are kept, named as "
                               "GluonCV's; 0: none", group=RUN, type=int, least=0, on_resume="free")
    eval_frequency: int = flag(1, "epochs between validations; the last epoch is always validated; "
                               "0: only that one", group=RUN, type=int, least=0)
    checkpoint_steps: int = flag(0, "updates between checkpoints within an epoch; 0: only at "
                                 "its end", group=RUN, type=int, least=0, on_resume="free")
    early_stop_patience: int = flag(0, "stop after this many epochs without a better "
                                    "validation score; 0: never", group=RUN, type=int, least=0)
    nan: str = flag("stop", "if a loss is not finite: stop the run, or skip its update (which "
                    "waits for the device at each update)", group=RUN, choices=("stop", "skip"))

    @property
    def world_size(self) -> int:
        """Processes that train together, one per device."""
        return max(1, self.num_gpus, self.num_cpu_ranks)

    @property
    def global_batch(self) -> int:
        """Samples per update, over all devices."""
        return self.batch_size * self.world_size * self.accumulate

    @property
    def array_dtype(self) -> str:
        """Type of the weights and the input: with bfloat16, only operators use that."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def effective_lr(self) -> float:
        """The learning rate after warm-up. For resolved settings."""
        return self.lr * self.global_batch / 256 if self.linear_scaling else self.lr

    @property
    def run_name(self) -> str:
        """What a run's folder is named after if --save-dir is not given."""
        return "run"

    def params_name(self, epoch: int) -> str:
        """The name of the parameter file that --save-frequency keeps after `epoch`, from 0."""
        return f"{self.run_name}-{epoch}.params"

    def filled(self) -> Self:
        """The settings with each None that depends on other settings filled in."""
        fitting = {"momentum": (("nag", "sgd", "lars"), 0.9), "lars_eta": (("lars",), 1e-3),
                   "final_lr": (("adabound", "amsbound"), 0.1)}
        return dataclasses.replace(
            self, **{name: first(getattr(self, name), default)
                     for name, (optimizers, default) in fitting.items()
                     if self.optimizer in optimizers},
            lr=first(self.lr, 1e-3 if self.optimizer in ADAPTIVE else 0.1),
            loss_scale=first(self.loss_scale, "dynamic") if self.dtype == "float16" else None)

    @property
    def steps_per_epoch(self) -> int:
        """Updates per epoch. For resolved settings."""
        return self.num_training_samples // self.global_batch

    def schedule(self) -> dict[str, Any]:
        """The keyword arguments of `lr_at`, or of `gluoncv_lr_at`. For resolved settings."""
        period = self.lr_decay_period
        epochs = range(period, self.num_epochs, period) if period else self.lr_decay_epoch
        own = {} if self.gluoncv_compat else {"warmup_mode": self.warmup_mode,
                                              "warmup_lr": self.warmup_lr}
        return {"base_lr": self.effective_lr, "updates": self.num_epochs * self.steps_per_epoch,
                "warmup_updates": self.warmup_updates or self.warmup_epochs * self.steps_per_epoch,
                **own, "decay": self.lr_mode, "step_factor": self.lr_decay,
                "step_updates": tuple(epoch * self.steps_per_epoch for epoch in epochs)}

    def to_json(self, **more: Any) -> str:
        """As JSON: `more` first, then the settings, then what follows from them as "derived". For
        resolved settings."""
        other = {"base_lr"}  # is there as "lr"
        if self.lr_mode != "step":
            other |= {"step_factor", "step_updates"}
        derived = {"global_batch": self.global_batch, "lr": self.effective_lr,
                   "steps_per_epoch": self.steps_per_epoch,
                   **{name: value for name, value in self.schedule().items() if name not in other}}
        own = {setting.name: getattr(self, setting.name) for setting in ordered(type(self))}
        return json.dumps({**more, **own, "derived": derived}, indent=1)


def first(value: Any, otherwise: Any) -> Any:
    """The value, unless it is None."""
    return otherwise if value is None else value
