"""The rules for settings: what breaks each, the message, and what barely satisfies it."""

import dataclasses

import pytest
from command_line import parse

from gluon_tricks.classification import rules as classifiers
from gluon_tricks.classification.settings import Settings
from gluon_tricks.config import rules
from gluon_tricks.config.fields import flag_name
from gluon_tricks.errors import InputError

TEACHER = "--teacher resnet152_v1d "
FP16 = "--dtype float16 --num-gpus 1 "
# A command line that breaks a rule; the message, word for word; one that barely satisfies it.
RANGES = [
    ("--batch-size 0", "--batch-size 0: must be at least 1", "--batch-size 1"),
    ("--num-epochs 0", "--num-epochs 0: must be at least 1", "--num-epochs 1"),
    ("--input-size 0", "--input-size 0: must be at least 1", "--input-size 1"),
    ("--log-interval 0", "--log-interval 0: must be at least 1", "--log-interval 1"),
    ("--num-training-samples 0", "--num-training-samples 0: must be at least 1",
     "--num-training-samples 32"),
    ("--accumulate 0", "--accumulate 0: must be at least 1", "--accumulate 1"),
    ("--keep 0", "--keep 0: must be at least 1", "--keep 1"),
    ("-j -1", "--num-data-workers -1: must be at least 0", "-j 0"),
    ("--lr -0.1", "--lr -0.1: must be at least 0", "--lr 0"),
    ("--lr nan", "--lr nan: must be at least 0, and finite", "--lr 1e-9"),
    ("--lr inf", "--lr inf: must be at least 0, and finite", "--lr 1e9"),
    ("--wd -1", "--wd -1.0: must be at least 0", "--wd 0"),
    ("--lr-decay -1", "--lr-decay -1.0: must be at least 0", "--lr-decay 0"),
    ("--warmup-epochs 1 --warmup-lr -1", "--warmup-lr -1.0: must be at least 0",
     "--warmup-epochs 1 --warmup-lr 0"),
    ("--l1 -1", "--l1 -1.0: must be at least 0", "--l1 0"),
    ("--warmup-epochs -1", "--warmup-epochs -1: must be at least 0", "--warmup-epochs 0"),
    ("--warmup-updates -1", "--warmup-updates -1: must be at least 0", "--warmup-updates 0"),
    ("--num-gpus -1", "--num-gpus -1: must be at least 0", "--num-gpus 0"),
    ("--lr-decay-period -1", "--lr-decay-period -1: must be at least 0", "--lr-decay-period 0"),
    ("--pca-noise inf", "--pca-noise inf: must be at least 0, and finite", "--pca-noise 0"),
    ("--mixup --mixup-off-epoch -1", "--mixup-off-epoch -1: must be", "--mixup-off-epoch 0"),
    ("--checkpoint-steps -1", "--checkpoint-steps -1: must be", "--checkpoint-steps 0"),
    ("--early-stop-patience -1", "--early-stop-patience -1: must", "--early-stop-patience 0"),
    # NumPy never finishes drawing from Beta(1e-30, 1e-30).
    ("--mixup --mixup-alpha 1e-30", "--mixup-alpha 1e-30: must be at least 0.001",
     "--mixup --mixup-alpha 0.001"),
    ("--clip-grad-norm 0", "--clip-grad-norm 0.0: must be above 0", "--clip-grad-norm 1e-9"),
    ("--optimizer adabound --final-lr 0", "--final-lr 0.0: must be above 0",
     "--optimizer adabound --final-lr 1e-9"),
    ("--optimizer lars --lars-eta 0", "--lars-eta 0.0: must be above 0",
     "--optimizer lars --lars-eta 1e-9"),
    (TEACHER + "--temperature 0", "--temperature 0.0: must be above 0",
     TEACHER + "--temperature 1e-9"),
    ("--lr-mult-head -1", "--lr-mult-head -1.0: must be at least 0", "--lr-mult-head 0"),
    ("--save-frequency -1", "--save-frequency -1: must be at least 0", "--save-frequency 0"),
    ("--eval-frequency -1", "--eval-frequency -1: must be at least 0", "--eval-frequency 0"),
    ("--resume-params 9.params --resume-epoch -1", "--resume-epoch -1: must be at least 0",
     "--resume-params 9.params --resume-epoch 0"),
    ("--dropblock-prob 1", "--dropblock-prob 1.0: must be from 0 to below 1",
     "--dropblock-prob 0.1"),
    ("--num-classes 1", "--num-classes 1: must be at least 2", "--num-classes 2"),
    ("--seed -1", "--seed -1: must be from 0 to 2^64 - 1", "--seed 0"),
    (f"--seed {2**64}", f"--seed {2**64}: must be from 0", f"--seed {2**64 - 1}"),
    ("--ema 0", "--ema 0.0: must be above 0 and below 1; drop it", "--ema 1e-9"),
    ("--ema 1", "--ema 1.0: must be above 0 and below 1; drop it", "--ema 0.999999"),
    ("--momentum 1", "--momentum 1.0: must be from 0 to below 1", "--momentum 0"),
    ("--momentum nan", "--momentum nan: must be from 0 to below 1", "--momentum 0.99"),
    ("--label-smoothing 1", "--label-smoothing 1.0: must be from 0 to below 1",
     "--label-smoothing 0.99"),
    ("--label-smoothing -0.1", "--label-smoothing -0.1: must be", "--label-smoothing 0"),
    ("--dropout 1", "--dropout 1.0: must be from 0 to below 1", "--dropout 0.99"),
    ("--color-jitter 1.1", "--color-jitter 1.1: must be from 0 to 1", "--color-jitter 1"),
    ("--color-jitter nan", "--color-jitter nan: must be from 0 to 1", "--color-jitter 0"),
    (TEACHER + "--hard-weight 1.1", "--hard-weight 1.1: must be from 0 to 1",
     TEACHER + "--hard-weight 0.99"),
    (TEACHER + "--hard-weight -0.1", "--hard-weight -0.1: must be from 0 to 1",
     TEACHER + "--hard-weight 0"),
]
IMAGES = [
    ("--input-size 16001", "--input-size 16001: must be at most 16000", "--input-size 16000"),
    ("--crop-ratio 0", "--crop-ratio 0.0: must be above 0 and at most 1", "--crop-ratio 0.5"),
    ("--crop-ratio 1.1", "--crop-ratio 1.1: must be above 0 and at most 1", "--crop-ratio 1"),
    ("--crop-ratio nan", "--crop-ratio nan: must be above 0 and at most 1", "--crop-ratio 0.1"),
    ("--crop-ratio 0.0069", "--crop-ratio 0.0069 makes the shorter edge 32464 pixels long",
     "--crop-ratio 0.007"),
    ("--crop-area 0,1", "--crop-area (0.0, 1.0): needs two shares", "--crop-area 0.001,1"),
    ("--crop-area 0.5", "--crop-area (0.5,): needs two shares", "--crop-area 0.5,0.5"),
    ("--crop-area 0.5,0.4", "--crop-area (0.5, 0.4): needs", "--crop-area 0.4,0.5"),
    ("--crop-area 0.5,1.1", "--crop-area (0.5, 1.1): needs", "--crop-area 1,1"),
    ("--crop-area nan,1", "--crop-area (nan, 1.0): needs", "--crop-area 0.1,1"),
    ("--crop pad --crop-area 0.1,1", "--crop-area cannot be combined with --crop pad: drop one",
     "--crop resized --crop-area 0.1,1"),
    ("--crop pad --crop-ratio 0.9", "--crop-ratio cannot be combined with --crop pad: drop one",
     "--crop resized --crop-ratio 0.9"),
    ("--rgb-mean 1,2", "--rgb-mean (1.0, 2.0): needs three numbers", "--rgb-mean 0,-1,2"),
    ("--rgb-mean nan,1,1", "--rgb-mean (nan, 1.0, 1.0): needs three numbers", "--rgb-mean 0,0,0"),
    ("--rgb-std 1,2,3,4", "--rgb-std (1.0, 2.0, 3.0, 4.0): needs three", "--rgb-std 1,2,3"),
    ("--rgb-std ,", "--rgb-std (): needs three numbers", "--rgb-std 1,1,1"),
    ("--rgb-std 1,0,1", "--rgb-std (1.0, 0.0, 1.0): must be above 0", "--rgb-std 1,0.01,1"),
    ("--rgb-std 1,1,inf", "--rgb-std (1.0, 1.0, inf): needs three", "--rgb-std 1,1,1e9"),
]
BACKENDS = [
    ("--data-backend dali-cpu", "--data-backend dali-cpu: DALI no longer has an MXNet plugin; use "
     "--data-backend native", "--data-backend native"),
    ("--data-backend dali-gpu", "--data-backend dali-gpu: DALI no longer", "--data-backend auto"),
    ("--antialias --crop pad", "--antialias cannot be combined with --crop pad", "--antialias"),
    ("--dct-shortcut train --data-backend opencv", "--dct-shortcut train needs --data-backend "
     "native: drop", "--dct-shortcut never --data-backend opencv --antialias"),
    ("--dct-shortcut always --data-backend mxnet", "--dct-shortcut always needs --data-backend "
     "native: drop", "--dct-shortcut never --data-backend mxnet -j 0"),
    ("--dct-shortcut always --crop pad", "--dct-shortcut always cannot be combined with --crop pad",
     "--dct-shortcut never --crop pad --on-bad-record skip"),
    ("--auto-augment svhn --data-backend native", "--auto-augment svhn: the native decoder cannot "
     "do this; use --data-backend opencv, or drop", "--auto-augment svhn --data-backend opencv"),
    ("--auto-augment svhn --dct-shortcut train", "--dct-shortcut train needs the native decoder, "
     "which has no --auto-augment: drop one", "--auto-augment svhn --dct-shortcut never"),
    ("--auto-augment svhn --data-backend mxnet", "--auto-augment: ImageRecordIter cannot do this; "
     "use another --data-backend", "--auto-augment svhn --data-backend auto"),
    *((f"{flag} --data-backend mxnet", f"{flag.removesuffix(' 5')}: ImageRecordIter cannot do "
       "this; use another --data-backend", f"{flag} --data-backend native")
      for flag in ("--antialias", "--crop pad", "--shuffle-labels", "--on-bad-record skip",
                   "--checkpoint-steps 5")),
]
OPTIMIZER = [
    ("--num-training-samples 31", "31 records, fewer than one global batch of 32: lower "
     "--batch-size", "--num-training-samples 32"),
    ("--num-training-samples 127 --accumulate 2 --num-gpus 2", "global batch of 128: lower "
     "--batch-size or --accumulate", "--num-training-samples 128 --accumulate 2 --num-gpus 2"),
    ("--optimizer adam --momentum 0.9", "--momentum cannot be combined with --optimizer adam: drop",
     "--optimizer sgd --momentum 0.9"),
    ("--optimizer amsbound --momentum 0", "--momentum cannot be combined with --optimizer amsbound",
     "--optimizer lars --momentum 0"),
    ("--lars-eta 0.01", "--lars-eta cannot be combined with --optimizer nag",
     "--optimizer lars --lars-eta 0.01"),
    ("--optimizer adam --final-lr 0.1", "--final-lr cannot be combined with --optimizer adam",
     "--optimizer amsbound --final-lr 0.1"),
    ("--optimizer adabound --lr 0", "--lr 0.0: --optimizer adabound divides by it; give a rate "
     "above 0", "--optimizer adabound --lr 1e-9"),
    ("--dtype float16", "--dtype float16 needs a GPU", FP16),
    ("--dtype bfloat16 --num-gpus 1", "--dtype bfloat16 is for CPUs", "--dtype bfloat16"),
    ("--loss-scale 128", "--loss-scale cannot be combined with --dtype float32: drop one",
     FP16 + "--loss-scale 128"),
    ("--loss-scale dynamic --dtype bfloat16", "--loss-scale cannot be combined with",
     FP16 + "--loss-scale dynamic"),
    (FP16 + "--loss-scale 0", "--loss-scale 0.0: must be dynamic, or a number above 0",
     FP16 + "--loss-scale 0.5"),
    (FP16 + "--loss-scale nan", "--loss-scale nan: must be dynamic, or a number above 0",
     FP16 + "--loss-scale 1e9"),
    (FP16 + "--loss-scale inf", "--loss-scale inf: must be dynamic, or a number above 0",
     FP16 + "--loss-scale 65536"),
]
SCHEDULE = [
    ("--warmup-epochs 121", "--warmup-epochs 121 is more than --num-epochs 120",
     "--warmup-epochs 120"),
    ("--warmup-epochs 1 --warmup-updates 5", "--warmup-updates cannot be combined with "
     "--warmup-epochs: drop one", "--warmup-epochs 0 --warmup-updates 5"),
    ("--num-training-samples 64 --num-epochs 3 --warmup-updates 7", "--warmup-updates 7 is more "
     "than the run's updates", "--num-training-samples 64 --num-epochs 3 --warmup-updates 6"),
    ("--warmup-lr 0.01", "--warmup-lr does nothing without --warmup-epochs or --warmup-updates",
     "--warmup-lr 0.01 --warmup-updates 5"),
    ("--warmup-mode constant --warmup-epochs 5", "--warmup-mode constant does nothing without "
     "--warmup-lr and", "--warmup-mode constant --warmup-epochs 5 --warmup-lr 0.01"),
    ("--warmup-mode constant --warmup-lr 0.01 --warmup-epochs 1 --gluoncv-compat", "--warmup-mode "
     "constant or --warmup-lr cannot be combined with --gluoncv-compat",
     "--warmup-epochs 1 --gluoncv-compat"),
    ("--warmup-lr 0.01 --warmup-epochs 1 --gluoncv-compat", "--warmup-lr cannot be combined with",
     "--warmup-lr 0 --warmup-epochs 1 --gluoncv-compat"),
    ("--warmup-lr 0.21 --warmup-epochs 1 --lr 0.2", "--warmup-lr 0.21 is above the learning rate: "
     "lower it, or raise --lr", "--warmup-lr 0.2 --warmup-epochs 1 --lr 0.2"),
    ("--warmup-lr 0.02 --warmup-epochs 1 --linear-scaling --lr 0.1", "--warmup-lr 0.02 is above",
     "--warmup-lr 0.0125 --warmup-epochs 1 --linear-scaling --lr 0.1"),
    ("--lr-decay-epoch=-30,60", "--lr-decay-epoch (-30, 60): epochs count from 0",
     "--lr-decay-epoch 0,60"),
    ("--lr-mode cosine --lr-decay-period 10", "--lr-decay-period cannot be combined with --lr-mode "
     "cosine", "--lr-mode step --lr-decay-period 10"),
    ("--lr-mode poly --lr-decay-epoch 40,60", "--lr-decay-epoch cannot be combined with --lr-mode",
     "--lr-mode step --lr-decay-epoch 40,60"),
    ("--lr-mode constant --lr-decay 0.5", "--lr-decay cannot be combined with --lr-mode constant",
     "--lr-mode step --lr-decay 0.5"),
    ("--lr-decay-period 10 --lr-decay-epoch 40", "--lr-decay-epoch cannot be combined with "
     "--lr-decay-period: drop one", "--lr-decay-period 0 --lr-decay-epoch 40"),
    ("--lr-decay 1", "--lr-decay 1.0: must be below 1; --lr-mode constant", "--lr-decay 0.99"),
    ("--lr-decay-period 120", "--lr-decay-period 120 never decays the rate within 120 epochs",
     "--lr-decay-period 119"),
]
TRICKS = [
    ("--mixup-alpha 0.2", "--mixup-alpha does nothing without --mixup: give both or neither",
     "--mixup --mixup-alpha 0.2"),
    ("--mixup-off-epoch 5", "--mixup-off-epoch does nothing without --mixup",
     "--mixup --mixup-off-epoch 5"),
    ("--mixup --mixup-off-epoch 120", "--mixup-off-epoch 120 leaves no epoch of 120 for --mixup",
     "--mixup --mixup-off-epoch 119"),
    ("--mixup --batch-size 1", "--mixup mixes the samples of a batch: use a --batch-size of 2",
     "--mixup --batch-size 2"),
    *((f"--{name} {value}", f"--{name} does nothing without --teacher: give both or neither",
       f"{TEACHER} --{name} {value}")
      for name, value in (("teacher-params", "t.params"), ("temperature", "4"),
                          ("hard-weight", "0.5"))),
    (TEACHER + "--hard-weight 1", "--teacher cannot be combined with --hard-weight 1: drop one",
     TEACHER + "--hard-weight 0.999"),
    (TEACHER + "--hard-weight 0 --label-smoothing", "--label-smoothing cannot be combined with "
     "--hard-weight 0: drop one", TEACHER + "--hard-weight 0.001 --label-smoothing"),
    # From (K - 1) / K on, the true class gets no more than the others; with eps / K it does.
    ("--num-classes 10 --label-smoothing 0.9", "--label-smoothing 0.9 gives the true one of 10 "
     "classes no more than the others: lower it", "--num-classes 10 --label-smoothing 0.89"),
    ("--num-classes 2 --label-smoothing 0.5", "--label-smoothing 0.5 gives the true one of 2",
     "--num-classes 2 --label-smoothing 0.5 --gluoncv-compat"),
]
RUN = [
    ("--early-stop-patience 119", "--early-stop-patience 119 cannot end a run of 120 epochs early",
     "--early-stop-patience 118"),
    ("--early-stop-patience 1 --num-epochs 2", "--early-stop-patience 1 cannot end a run of 2",
     "--early-stop-patience 1 --num-epochs 3"),
    ("--early-stop-patience 9 --eval-frequency 0", "--early-stop-patience cannot be combined with "
     "--eval-frequency 0: drop one", "--early-stop-patience 9 --eval-frequency 2"),
    *((f"--logging-file '{name}'", f"--logging-file {name!r}: must be a name without folders",
       f"--logging-file a{name.replace('/', '')}")
      for name in ("a/b.log", "", ".", "..", "config.json", "log.jsonl", "curves.png",
                   "best.params", "last.params", "checkpoints", "tensorboard", "classes.json",
                   ".lock")),
    ("--resume auto", "--resume auto does nothing without --save-dir: give both",
     "--resume auto --save-dir runs/1"),
]
FILE = "--init-params a.params "
STARTS = [
    ("--init-params=", "--init-params, --use-pretrained, --teacher or --teacher-params is "
     "empty: give a source, or drop it", "--use-pretrained"),
    ("--teacher=", "--init-params, --use-pretrained, --teacher or --teacher-params is empty",
     ""),
    (FILE + "--use-pretrained", "--init-params cannot be combined with --use-pretrained: drop one",
     "--use-pretrained"),
    (FILE + "--resume-params 9.params", "--resume-params cannot be combined with --init-params or "
     "--use-pretrained: drop one", "--resume-params 9.params"),
    ("--resume-params 9.params --resume runs/1", "--resume-params cannot be combined with --resume "
     "runs/1, which resumes a run of ours: drop one",
     "--resume-params 9.params --resume auto --save-dir a"),
    ("--new-classifier", "--new-classifier does nothing without --init-params or "
     "--use-pretrained: give both", FILE + "--new-classifier"),
    ("--freeze-until layer3", "--freeze-until does nothing without --init-params or",
     "--use-pretrained --freeze-until=layer3"),
    ("--resume-states 9.states", "--resume-states does nothing without --resume-params",
     "--resume-params 9.params --resume-states 9.states"),
    ("--resume-epoch 3", "--resume-epoch does nothing without --resume-params",
     "--resume-params 9.params --resume-epoch 3"),
    ("--resume-params 9.params --num-epochs 9 --resume-epoch 9", "--resume-epoch 9 leaves no epoch "
     "of --num-epochs 9", "--resume-params 9.params --num-epochs 9 --resume-epoch 8"),
]
NEED_RANKS = "does nothing without --num-gpus or --num-cpu-ranks of 2 or more: give both"
DEVICES = [
    ("--num-cpu-ranks -1", "--num-cpu-ranks -1: must be at least 0", "--num-cpu-ranks 1"),
    ("--num-cpu-ranks 2 --num-groups -1", "--num-groups -1: must be at least 0",
     "--num-cpu-ranks 2 --num-groups 1"),
    ("--num-gpus 2 --grad-predivide 0", "--grad-predivide 0.0: must be above 0",
     "--num-gpus 2 --grad-predivide 0.1"),
    ("--num-gpus 2 --num-cpu-ranks 2", "--num-cpu-ranks cannot be combined with --num-gpus",
     "--num-gpus 2"),
    ("--num-gpus 1 --grad-compression fp16", f"--grad-compression {NEED_RANKS}",
     "--num-gpus 2 --grad-compression fp16"),
    ("--grad-predivide 2", f"--grad-predivide {NEED_RANKS}", "--num-gpus 8 --grad-predivide 2"),
    ("--num-groups 1", f"--num-groups {NEED_RANKS}", "--num-gpus 2 --num-groups 1"),
    ("--num-gpus 2 --dtype float16 --grad-compression fp16", "--grad-compression fp16 cannot be "
     "combined with --dtype float16, whose gradients are FP16 already: drop one",
     "--num-cpu-ranks 2 --dtype bfloat16 --grad-compression fp16"),
    ("--num-gpus 2 --data-backend mxnet", "--data-backend mxnet cannot share a set among processes",
     "--num-gpus 1 --data-backend mxnet"),
]
ROWS = [*RANGES, *IMAGES, *BACKENDS, *OPTIMIZER, *SCHEDULE, *TRICKS, *RUN, *STARTS, *DEVICES]


@pytest.mark.parametrize(("broken", "words", "kept"), ROWS, ids=[row[0] for row in ROWS])
def test_each_rule_says_in_one_line_what_breaks_it_and_what_to_do(broken, words, kept):
    with pytest.raises(InputError) as caught:
        parse(broken)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    parse(kept)


def test_every_rule_is_the_first_to_be_broken_by_a_row(monkeypatch):
    """By the conditions themselves, numbered in the order in which each function yields them; those
    of ranges by their flag, for a field that is None has none."""
    ranges, *others = (value for name, value in vars(rules).items()
                       if name.startswith("_") and name.endswith("_rules"))
    own = [value for name, value in vars(classifiers).items()
           if name.startswith("_") and name.endswith("_rules")]

    def conditions(settings: Settings):
        return ((function.__name__, message.split()[0] if function is ranges else number, broken)
                for function in (ranges, *own, *others)
                for number, (broken, message) in enumerate(function(settings)))
    every = {(name, number) for name, number, _ in conditions(parse("--seed 0"))
             if name != ranges.__name__}
    every |= {(ranges.__name__, flag_name(field.name)) for field in dataclasses.fields(Settings)
              if field.name in ("seed", "ema")
              or {"least", "above", "most", "below"} & field.metadata.keys()}
    monkeypatch.setattr("gluon_tricks.classification.settle.validate", lambda settings: settings)
    first = {next((name, number) for name, number, broken in conditions(parse(row[0])) if broken)
             for row in ROWS}
    assert every - first == set()
