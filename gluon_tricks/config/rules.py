"""The rules for every run's settings: each is a condition that breaks it, and a message."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

from gluon_tricks.config.fields import flag_name
from gluon_tricks.config.settings import RunSettings
from gluon_tricks.errors import InputError

RUN_FILES = ("config.json", "log.jsonl", "curves.png", "best.params", "last.params", "checkpoints",
             "tensorboard", "classes.json", ".lock")
Rule = tuple[bool, str]
S = TypeVar("S", bound=RunSettings)
Rules = Callable[[S], Iterator[Rule]]


def broken_rules(settings: S, *own: Rules) -> Iterator[str]:
    """The message, one line with the remedy, of each rule that the settings break: the ranges of
    all fields, the `own` rules of a task, and those of every run."""
    for rules in (_range_rules, *own, _optimizer_rules, _schedule_rules, _run_rules, _device_rules):
        for broken, message in rules(settings):
            if broken:
                yield message


def validate_by(settings: S, *own: Rules) -> S:
    """Return the settings as they are. Raises InputError for the first rule that they break."""
    message = next(broken_rules(settings, *own), None)
    if message is not None:
        raise InputError(message)
    return settings


def needs(pointless: bool, flag: str, other: str) -> Rule:
    """The rule that a flag does nothing without another."""
    return pointless, f"{flag} does nothing without {other}: give both or neither"


def excludes(pointless: bool, flag: str, other: str) -> Rule:
    """The rule that two flags cannot be combined, since the first would do nothing."""
    return pointless, f"{flag} cannot be combined with {other}: drop one of them"


def is_changed(settings: RunSettings, name: str) -> bool:
    """Whether a setting differs from its default."""
    return getattr(settings, name) != getattr(type(settings), name)


def _range_rules(s: RunSettings) -> Iterator[Rule]:
    for setting in dataclasses.fields(s):
        value = getattr(s, setting.name)
        if isinstance(value, (int, float)):
            wrong = out_of_range(value, **{name: setting.metadata[name] for name in
                                           ("least", "above", "most", "below")
                                           if name in setting.metadata})
            yield wrong is not None, f"{flag_name(setting.name)} {value}: {wrong}"
    yield not 0 <= s.seed < 2**64, f"--seed {s.seed}: must be from 0 to 2^64 - 1"
    yield (s.ema is not None and not 0 < s.ema < 1,
           f"--ema {s.ema}: must be above 0 and below 1; drop it to average nothing")


def out_of_range(value: float, least: float | None = None, above: float | None = None,
                 most: float | None = None, below: float | None = None) -> str | None:
    """What a number must be, if it is not; None if it is in range. A range without an upper end
    requires a finite number."""
    if above is not None:
        return None if above < value < math.inf else f"must be above {above}, and finite"
    if least is None:
        return None
    if most is not None:
        return None if least <= value <= most else f"must be from {least} to {most}"
    if below is not None:
        return None if least <= value < below else f"must be from {least} to below {below}"
    return None if least <= value < math.inf else f"must be at least {least}, and finite"


def _optimizer_rules(s: RunSettings) -> Iterator[Rule]:
    yield (s.num_training_samples is not None and s.num_training_samples < s.global_batch,
           f"the training set has {s.num_training_samples} records, fewer than one global batch of "
           f"{s.global_batch}: lower --batch-size or --accumulate")
    for name, optimizers in (("momentum", ("nag", "sgd", "lars")), ("lars_eta", ("lars",)),
                             ("final_lr", ("adabound", "amsbound"))):
        yield excludes(getattr(s, name) is not None and s.optimizer not in optimizers,
                      flag_name(name), f"--optimizer {s.optimizer}")
    yield (s.lr == 0 and s.optimizer in ("adabound", "amsbound"),
           f"--lr {s.lr}: --optimizer {s.optimizer} divides by it; give a rate above 0")
    yield (s.dtype == "float16" and s.num_gpus == 0,
           "--dtype float16 needs a GPU: MXNet's CPU build has no FP16 convolution; "
           "add --num-gpus or use float32")
    yield (s.dtype == "bfloat16" and s.num_gpus > 0,
           "--dtype bfloat16 is for CPUs: MXNet has no GPU code for it; use float16")
    yield (s.loss_scale is not None and s.dtype != "float16",
           f"--loss-scale cannot be combined with --dtype {s.dtype}: drop one of them")
    yield (isinstance(s.loss_scale, float) and not 0 < s.loss_scale < math.inf,
           f"--loss-scale {s.loss_scale}: must be dynamic, or a number above 0")


def _schedule_rules(s: RunSettings) -> Iterator[Rule]:
    yield (s.warmup_epochs > s.num_epochs,
           f"--warmup-epochs {s.warmup_epochs} is more than --num-epochs {s.num_epochs}")
    yield excludes(s.warmup_epochs > 0 and s.warmup_updates > 0, "--warmup-updates",
                  "--warmup-epochs")
    yield (s.num_training_samples is not None
           and s.warmup_updates > s.num_epochs * s.steps_per_epoch,
           f"--warmup-updates {s.warmup_updates} is more than the run's updates")
    warms = s.warmup_epochs > 0 or s.warmup_updates > 0
    yield needs(s.warmup_lr > 0 and not warms, "--warmup-lr",
                   "--warmup-epochs or --warmup-updates")
    yield needs(s.warmup_mode == "constant" and not (warms and s.warmup_lr > 0),
                   "--warmup-mode constant",
                   "--warmup-lr and one of --warmup-epochs and --warmup-updates")
    yield excludes(s.gluoncv_compat and (s.warmup_mode != "linear" or s.warmup_lr > 0),
                  "--warmup-mode constant or --warmup-lr", "--gluoncv-compat, which ignores it")
    yield (min(s.lr_decay_epoch, default=0) < 0,
           f"--lr-decay-epoch {s.lr_decay_epoch}: epochs count from 0")
    for name in ("lr_decay", "lr_decay_epoch", "lr_decay_period"):
        yield excludes(s.lr_mode != "step" and is_changed(s, name), flag_name(name),
                      f"--lr-mode {s.lr_mode}")
    yield excludes(s.lr_decay_period > 0 and is_changed(s, "lr_decay_epoch"), "--lr-decay-epoch",
                  "--lr-decay-period")
    yield (s.lr_decay >= 1, f"--lr-decay {s.lr_decay}: must be below 1; --lr-mode constant keeps "
           "the rate constant")
    yield (s.lr_decay_period >= s.num_epochs > 0,
           f"--lr-decay-period {s.lr_decay_period} never decays the rate within {s.num_epochs} "
           "epochs: lower it, or use --lr-mode constant")
    yield (s.lr is not None and s.warmup_lr > s.effective_lr,
           f"--warmup-lr {s.warmup_lr} is above the learning rate: lower it, or raise --lr")


def _run_rules(s: RunSettings) -> Iterator[Rule]:
    yield (s.early_stop_patience > 0 and s.early_stop_patience >= s.num_epochs - 1,
           f"--early-stop-patience {s.early_stop_patience} cannot end a run of {s.num_epochs} "
           "epochs early: lower it, or drop it")
    yield excludes(s.early_stop_patience > 0 and s.eval_frequency == 0, "--early-stop-patience",
                  "--eval-frequency 0")
    yield ("/" in s.logging_file or s.logging_file in ("", ".", "..", *RUN_FILES),
           f"--logging-file {s.logging_file!r}: must be a name without folders, since it is in the "
           f"run folder, and none of {', '.join(RUN_FILES)}")
    yield needs(s.resume == "auto" and s.save_dir is None, "--resume auto", "--save-dir")


def _device_rules(s: RunSettings) -> Iterator[Rule]:
    yield excludes(s.num_gpus > 0 and s.num_cpu_ranks > 0, "--num-cpu-ranks", "--num-gpus")
    for name in ("grad_compression", "grad_predivide", "num_groups"):
        yield needs(s.world_size == 1 and is_changed(s, name), flag_name(name),
                       "--num-gpus or --num-cpu-ranks of 2 or more")
    yield excludes(s.grad_compression == "fp16" and s.dtype == "float16", "--grad-compression fp16",
                  "--dtype float16, whose gradients are FP16 already")
