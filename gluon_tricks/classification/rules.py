"""The rules for a classifier's settings, in addition to those for every run."""

import math
from collections.abc import Iterator

from gluon_tricks.classification.settings import DALI, Settings
from gluon_tricks.config.fields import flag_name
from gluon_tricks.config.rules import Rule, excludes, is_changed, needs, validate_by

MAX_SIDE = 16_000  # of the images a network sees; absurdly large already


def validate(settings: Settings) -> Settings:
    """Return the settings as they are. Raises InputError for the first rule that they break."""
    return validate_by(settings, _image_rules, _start_rules, _backend_rules, _trick_rules)


def _image_rules(s: Settings) -> Iterator[Rule]:
    yield s.input_size > MAX_SIDE, f"--input-size {s.input_size}: must be at most {MAX_SIDE}"
    yield not 0 < s.crop_ratio <= 1, (f"--crop-ratio {s.crop_ratio}: must be above 0 and at most "
                                      "1, a crop cannot be larger than the resized image")
    yield (s.crop_ratio > 0 and s.input_size / s.crop_ratio > 2 * MAX_SIDE,
           f"--crop-ratio {s.crop_ratio} makes the shorter edge {s.input_size / s.crop_ratio:.0f} "
           f"pixels long: more than {2 * MAX_SIDE}")
    area = s.crop_area or (0.08, 1.0)
    yield (len(area) != 2 or not 0 < area[0] <= area[1] <= 1,
           f"--crop-area {area}: needs two shares, 0 < smallest <= largest <= 1")
    yield excludes(s.crop == "pad" and s.crop_area is not None, "--crop-area", "--crop pad")
    yield excludes(s.crop == "pad" and is_changed(s, "crop_ratio"), "--crop-ratio", "--crop pad")
    for flag, values in (("--rgb-mean", s.rgb_mean), ("--rgb-std", s.rgb_std)):
        yield (len(values) != 3 or not all(map(math.isfinite, values)),
               f"{flag} {values}: needs three numbers, for R, G and B")
    yield min(s.rgb_std, default=1) <= 0, f"--rgb-std {s.rgb_std}: must be above 0"


def _start_rules(s: Settings) -> Iterator[Rule]:
    """Rules for what a run starts from."""
    initial = s.init_params is not None or s.use_pretrained is not None
    yield ("" in (s.init_params, s.use_pretrained, s.teacher, s.teacher_params),
           "--init-params, --use-pretrained, --teacher or --teacher-params is empty: give a "
           "source, or drop it")
    yield excludes(s.init_params is not None and s.use_pretrained is not None, "--init-params",
                  "--use-pretrained")
    yield excludes(s.resume_params is not None and initial, "--resume-params",
                  "--init-params or --use-pretrained")
    yield excludes(s.resume_params is not None and s.resume not in (None, "auto"),
                  "--resume-params", f"--resume {s.resume}, which resumes a run of ours")
    yield needs(s.new_classifier and not initial, "--new-classifier",
                   "--init-params or --use-pretrained")
    # A run that --resume PATH resumes has its parameters; auto may have to start a new one.
    yield needs(bool(s.freeze_until) and not initial and s.resume in (None, "auto"),
                   "--freeze-until", "--init-params or --use-pretrained")
    yield needs(s.resume_states is not None and s.resume_params is None, "--resume-states",
                   "--resume-params")
    yield needs(s.resume_epoch > 0 and s.resume_params is None, "--resume-epoch",
                   "--resume-params")
    yield (s.resume_epoch >= s.num_epochs > 0 and s.resume_params is not None,
           f"--resume-epoch {s.resume_epoch} leaves no epoch of --num-epochs {s.num_epochs}")


def _backend_rules(s: Settings) -> Iterator[Rule]:
    """Rules for what only some data backends can do."""
    yield (s.data_backend in DALI,
           f"--data-backend {s.data_backend}: DALI no longer has an MXNet plugin; use "
           "--data-backend native, which decodes faster on the CPU")
    yield (s.antialias and s.crop == "pad",
           "--antialias cannot be combined with --crop pad, which resizes nothing: drop one of "
           "them")
    yield (s.dct_shortcut not in (None, "never") and s.data_backend in ("opencv", "mxnet"),
           f"--dct-shortcut {s.dct_shortcut} needs --data-backend native: drop one of them")
    yield (s.dct_shortcut not in (None, "never") and s.crop == "pad",
           f"--dct-shortcut {s.dct_shortcut} cannot be combined with --crop pad, which resizes "
           "nothing: drop one of them")
    yield (s.auto_augment is not None and s.data_backend == "native",
           f"--auto-augment {s.auto_augment}: the native decoder cannot do this; use "
           "--data-backend opencv, or drop one of them")
    yield (s.auto_augment is not None and s.dct_shortcut not in (None, "never"),
           f"--dct-shortcut {s.dct_shortcut} needs the native decoder, which has no "
           "--auto-augment: drop one of them")
    mxnet = s.data_backend == "mxnet"
    for given, flag in ((s.antialias, "--antialias"), (s.crop == "pad", "--crop pad"),
                        (s.auto_augment is not None, "--auto-augment"),
                        (s.shuffle_labels, "--shuffle-labels"),
                        (s.on_bad_record == "skip", "--on-bad-record skip"),
                        (s.checkpoint_steps > 0, "--checkpoint-steps")):
        yield (mxnet and given, f"{flag}: ImageRecordIter cannot do this; use another "
               "--data-backend, or drop it")
    yield (s.data_backend == "mxnet" and s.world_size > 1,
           "--data-backend mxnet cannot share a set among processes: use another --data-backend")


def _trick_rules(s: Settings) -> Iterator[Rule]:
    yield needs(s.mixup_alpha is not None and not s.mixup, "--mixup-alpha", "--mixup")
    yield needs(s.mixup_off_epoch > 0 and not s.mixup, "--mixup-off-epoch", "--mixup")
    yield (s.mixup and s.mixup_off_epoch >= s.num_epochs > 0,
           f"--mixup-off-epoch {s.mixup_off_epoch} leaves no epoch of {s.num_epochs} for --mixup")
    yield (s.mixup and s.batch_size == 1, "--mixup mixes the samples of a batch: use a "
           "--batch-size of 2 or more")
    yield (s.num_classes is not None and not s.gluoncv_compat
           and s.label_smoothing * s.num_classes >= s.num_classes - 1 > 0,
           f"--label-smoothing {s.label_smoothing} gives the true one of {s.num_classes} classes "
           "no more than the others: lower it")
    for name in ("teacher_params", "temperature", "hard_weight"):
        yield needs(getattr(s, name) is not None and s.teacher is None,
                       flag_name(name), "--teacher")
    yield excludes(s.hard_weight == 1, "--teacher", "--hard-weight 1")
    yield excludes(s.hard_weight == 0 and s.label_smoothing > 0, "--label-smoothing",
                  "--hard-weight 0")
