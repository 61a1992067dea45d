"""The rules that settings must keep: each a condition that breaks it, and what to say then."""

import math
from collections.abc import Iterator

from gluon_tricks.config.settings import DALI, Settings
from gluon_tricks.errors import InputError

RUN_FILES = ("config.json", "log.jsonl", "curves.png", "best.params", "last.params", "checkpoints",
             "tensorboard", "classes.json", ".lock")
MAX_SIDE = 16_000  # of the pictures a network sees, which is absurd already
Rule = tuple[bool, str]


def broken_rules(settings: Settings) -> Iterator[str]:
    """What to say of each rule that the settings break, a line with the remedy."""
    for rules in (_range_rules, _picture_rules, _start_rules, _backend_rules, _optimiser_rules,
                  _schedule_rules, _trick_rules, _run_rules, _device_rules):
        for broken, message in rules(settings):
            if broken:
                yield message


def validate(settings: Settings) -> Settings:
    """The settings themselves. Raises InputError for the first one that cannot work."""
    for message in broken_rules(settings):
        raise InputError(message)
    return settings


def _at_least(s: Settings, low: float, *names: str) -> Iterator[Rule]:
    for name in names:
        value = getattr(s, name)
        flag = f"--{name.replace('_', '-')}"
        yield (value is not None and not low <= value < math.inf,
               f"{flag} {value}: must be at least {low}, and finite")


def _above_zero(s: Settings, *names: str) -> Iterator[Rule]:
    for name in names:
        value = getattr(s, name)
        flag = f"--{name.replace('_', '-')}"
        yield (value is not None and not 0 < value < math.inf,
               f"{flag} {value}: must be above 0, and finite")


def _without(needless: bool, flag: str, other: str) -> Rule:
    return needless, f"{flag} has no meaning without {other}: give both or none"


def _beside(needless: bool, flag: str, other: str) -> Rule:
    return needless, f"{flag} has no meaning with {other}: leave one of them out"


def _given(s: Settings, name: str) -> bool:
    """Whether a setting is not at its default."""
    return getattr(s, name) != getattr(type(s), name)


def _range_rules(s: Settings) -> Iterator[Rule]:
    yield from _at_least(s, 1, "batch_size", "num_epochs", "input_size", "log_interval",
                         "num_training_samples", "accumulate", "keep")
    yield from _at_least(s, 0, "num_data_workers", "lr", "wd", "lr_decay", "warmup_lr", "l1",
                         "warmup_epochs", "warmup_updates", "num_gpus", "lr_decay_period",
                         "num_cpu_ranks", "num_groups",
                         "pca_noise", "mixup_off_epoch", "checkpoint_steps", "early_stop_patience",
                         "lr_mult_head", "save_frequency", "eval_frequency", "resume_epoch")
    yield from _at_least(s, 0.001, "mixup_alpha")  # NumPy's draw from Beta may not end below
    yield from _above_zero(s, "clip_grad_norm", "final_lr", "lars_eta", "temperature",
                           "grad_predivide")
    yield from _at_least(s, 2, "num_classes")
    yield not 0 <= s.seed < 2**64, f"--seed {s.seed}: must be from 0 to 2^64 - 1"
    yield (s.ema is not None and not 0 < s.ema < 1,
           f"--ema {s.ema}: must be above 0 and below 1; leave it out to average nothing")
    for name in ("momentum", "label_smoothing", "dropout", "dropblock_prob"):
        value = getattr(s, name)
        yield (value is not None and not 0 <= value < 1,
               f"--{name.replace('_', '-')} {value}: must be from 0 to below 1")
    for name in ("color_jitter", "hard_weight"):
        value = getattr(s, name)
        yield (value is not None and not 0 <= value <= 1,
               f"--{name.replace('_', '-')} {value}: must be from 0 to 1")


def _picture_rules(s: Settings) -> Iterator[Rule]:
    yield s.input_size > MAX_SIDE, f"--input-size {s.input_size}: must be at most {MAX_SIDE}"
    yield not 0 < s.crop_ratio <= 1, (f"--crop-ratio {s.crop_ratio}: must be above 0 and at most "
                                      "1, a crop cannot be larger than the resized picture")
    yield (s.crop_ratio > 0 and s.input_size / s.crop_ratio > 2 * MAX_SIDE,
           f"--crop-ratio {s.crop_ratio} makes the shorter edge {s.input_size / s.crop_ratio:.0f} "
           f"pixels long: more than {2 * MAX_SIDE}")
    area = s.crop_area or (0.08, 1.0)
    yield (len(area) != 2 or not 0 < area[0] <= area[1] <= 1,
           f"--crop-area {area}: needs two shares, 0 < least <= greatest <= 1")
    yield _beside(s.crop == "pad" and s.crop_area is not None, "--crop-area", "--crop pad")
    yield _beside(s.crop == "pad" and _given(s, "crop_ratio"), "--crop-ratio", "--crop pad")
    for flag, values in (("--rgb-mean", s.rgb_mean), ("--rgb-std", s.rgb_std)):
        yield (len(values) != 3 or not all(map(math.isfinite, values)),
               f"{flag} {values}: needs three numbers, for R, G and B")
    yield min(s.rgb_std, default=1) <= 0, f"--rgb-std {s.rgb_std}: must be above 0"


def _start_rules(s: Settings) -> Iterator[Rule]:
    """What a run starts from."""
    initial = s.init_params is not None or s.use_pretrained is not None
    yield ("" in (s.init_params, s.use_pretrained, s.teacher, s.teacher_params),
           "--init-params, --use-pretrained, --teacher or --teacher-params names nothing: give a "
           "source, or leave it out")
    yield _beside(s.init_params is not None and s.use_pretrained is not None, "--init-params",
                  "--use-pretrained")
    yield _beside(s.resume_params is not None and initial, "--resume-params",
                  "--init-params or --use-pretrained")
    yield _beside(s.resume_params is not None and s.resume not in (None, "auto"),
                  "--resume-params", f"--resume {s.resume}, which goes on with a run of ours")
    yield _without(s.new_classifier and not initial, "--new-classifier",
                   "--init-params or --use-pretrained")
    # A run that --resume PATH goes on with has its parameters; auto may have to start one.
    yield _without(bool(s.freeze_until) and not initial and s.resume in (None, "auto"),
                   "--freeze-until", "--init-params or --use-pretrained")
    yield _without(s.resume_states is not None and s.resume_params is None, "--resume-states",
                   "--resume-params")
    yield _without(s.resume_epoch > 0 and s.resume_params is None, "--resume-epoch",
                   "--resume-params")
    yield (s.resume_epoch >= s.num_epochs > 0 and s.resume_params is not None,
           f"--resume-epoch {s.resume_epoch} leaves no epoch of --num-epochs {s.num_epochs}")


def _backend_rules(s: Settings) -> Iterator[Rule]:
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
    yield (s.auto_augment is not None and s.data_backend == "native",
           f"--auto-augment {s.auto_augment}: the native decoder cannot do this; take "
           "--data-backend opencv, or leave one of them out")
    yield (s.auto_augment is not None and s.dct_shortcut not in (None, "never"),
           f"--dct-shortcut {s.dct_shortcut} needs the native decoder, which has no "
           "--auto-augment: leave one of them out")
    mxnet = s.data_backend == "mxnet"
    for given, flag in ((s.antialias, "--antialias"), (s.crop == "pad", "--crop pad"),
                        (s.auto_augment is not None, "--auto-augment"),
                        (s.shuffle_labels, "--shuffle-labels"),
                        (s.on_bad_record == "skip", "--on-bad-record skip"),
                        (s.checkpoint_steps > 0, "--checkpoint-steps")):
        yield (mxnet and given, f"{flag}: ImageRecordIter cannot do this; take another "
               "--data-backend, or leave it out")


def _optimiser_rules(s: Settings) -> Iterator[Rule]:
    yield (s.num_training_samples is not None and s.num_training_samples < s.global_batch,
           f"the training set has {s.num_training_samples} records, fewer than one global batch of "
           f"{s.global_batch}: lower --batch-size or --accumulate")
    for name, optimizers in (("momentum", ("nag", "sgd", "lars")), ("lars_eta", ("lars",)),
                             ("final_lr", ("adabound", "amsbound"))):
        yield _beside(getattr(s, name) is not None and s.optimizer not in optimizers,
                      f"--{name.replace('_', '-')}", f"--optimizer {s.optimizer}")
    yield (s.lr == 0 and s.optimizer in ("adabound", "amsbound"),
           f"--lr {s.lr}: --optimizer {s.optimizer} divides by it; give more than 0")
    yield (s.dtype == "float16" and s.num_gpus == 0,
           "--dtype float16 needs a GPU: MXNet's CPU build has no FP16 convolution; "
           "add --num-gpus or take float32")
    yield (s.dtype == "bfloat16" and s.num_gpus > 0,
           "--dtype bfloat16 is for CPUs: MXNet has no GPU code for it; take float16")
    yield (s.loss_scale is not None and s.dtype != "float16",
           f"--loss-scale has no meaning with --dtype {s.dtype}: leave one of them out")
    yield (isinstance(s.loss_scale, float) and not 0 < s.loss_scale < math.inf,
           f"--loss-scale {s.loss_scale}: must be dynamic, or a number above 0")


def _schedule_rules(s: Settings) -> Iterator[Rule]:
    yield (s.warmup_epochs > s.num_epochs,
           f"--warmup-epochs {s.warmup_epochs} is more than --num-epochs {s.num_epochs}")
    yield _beside(s.warmup_epochs > 0 and s.warmup_updates > 0, "--warmup-updates",
                  "--warmup-epochs")
    yield (s.num_training_samples is not None
           and s.warmup_updates > s.num_epochs * s.steps_per_epoch,
           f"--warmup-updates {s.warmup_updates} is more than the run's updates")
    warms = s.warmup_epochs > 0 or s.warmup_updates > 0
    yield _without(s.warmup_lr > 0 and not warms, "--warmup-lr",
                   "--warmup-epochs or --warmup-updates")
    yield _without(s.warmup_mode == "constant" and not (warms and s.warmup_lr > 0),
                   "--warmup-mode constant",
                   "--warmup-lr and one of --warmup-epochs and --warmup-updates")
    yield _beside(s.gluoncv_compat and (s.warmup_mode != "linear" or s.warmup_lr > 0),
                  "--warmup-mode constant or --warmup-lr", "--gluoncv-compat, which ignores it")
    yield (min(s.lr_decay_epoch, default=0) < 0,
           f"--lr-decay-epoch {s.lr_decay_epoch}: epochs count from 0")
    for name in ("lr_decay", "lr_decay_epoch", "lr_decay_period"):
        yield _beside(s.lr_mode != "step" and _given(s, name), f"--{name.replace('_', '-')}",
                      f"--lr-mode {s.lr_mode}")
    yield _beside(s.lr_decay_period > 0 and _given(s, "lr_decay_epoch"), "--lr-decay-epoch",
                  "--lr-decay-period")
    yield (s.lr_decay >= 1, f"--lr-decay {s.lr_decay}: must be below 1; --lr-mode constant keeps "
           "the rate as it is")
    yield (s.lr_decay_period >= s.num_epochs > 0,
           f"--lr-decay-period {s.lr_decay_period} leaves no fall in {s.num_epochs} epochs: lower "
           "it, or take --lr-mode constant")
    yield (s.lr is not None and s.warmup_lr > s.effective_lr,
           f"--warmup-lr {s.warmup_lr} is above the learning rate: lower it, or raise --lr")


def _trick_rules(s: Settings) -> Iterator[Rule]:
    yield _without(s.mixup_alpha is not None and not s.mixup, "--mixup-alpha", "--mixup")
    yield _without(s.mixup_off_epoch > 0 and not s.mixup, "--mixup-off-epoch", "--mixup")
    yield (s.mixup and s.mixup_off_epoch >= s.num_epochs > 0,
           f"--mixup-off-epoch {s.mixup_off_epoch} leaves no epoch of {s.num_epochs} for --mixup")
    yield (s.mixup and s.batch_size == 1, "--mixup mixes the samples of a batch: take a "
           "--batch-size of 2 or more")
    yield (s.num_classes is not None and not s.gluoncv_compat
           and s.label_smoothing * s.num_classes >= s.num_classes - 1 > 0,
           f"--label-smoothing {s.label_smoothing} leaves the true one of {s.num_classes} classes "
           "no more than the others: lower it")
    for name in ("teacher_params", "temperature", "hard_weight"):
        yield _without(getattr(s, name) is not None and s.teacher is None,
                       f"--{name.replace('_', '-')}", "--teacher")
    yield _beside(s.hard_weight == 1, "--teacher", "--hard-weight 1")
    yield _beside(s.hard_weight == 0 and s.label_smoothing > 0, "--label-smoothing",
                  "--hard-weight 0")


def _run_rules(s: Settings) -> Iterator[Rule]:
    yield (s.early_stop_patience > 0 and s.early_stop_patience >= s.num_epochs - 1,
           f"--early-stop-patience {s.early_stop_patience} cannot end a run of {s.num_epochs} "
           "epochs early: lower it, or leave it out")
    yield _beside(s.early_stop_patience > 0 and s.eval_frequency == 0, "--early-stop-patience",
                  "--eval-frequency 0")
    yield ("/" in s.logging_file or s.logging_file in ("", ".", "..", *RUN_FILES),
           f"--logging-file {s.logging_file!r}: must be a name without folders, it lies in the run "
           f"folder, and none of {', '.join(RUN_FILES)}")
    yield _without(s.resume == "auto" and s.save_dir is None, "--resume auto", "--save-dir")


def _device_rules(s: Settings) -> Iterator[Rule]:
    yield _beside(s.num_gpus > 0 and s.num_cpu_ranks > 0, "--num-cpu-ranks", "--num-gpus")
    for name in ("grad_compression", "grad_predivide", "num_groups"):
        yield _without(s.world_size == 1 and _given(s, name), f"--{name.replace('_', '-')}",
                       "--num-gpus or --num-cpu-ranks of 2 or more")
    yield _beside(s.grad_compression == "fp16" and s.dtype == "float16", "--grad-compression fp16",
                  "--dtype float16, whose gradients travel as they are")
    yield (s.data_backend == "mxnet" and s.world_size > 1,
           "--data-backend mxnet cannot share a set among processes: take another --data-backend")
