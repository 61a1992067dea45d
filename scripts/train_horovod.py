"""GluonCV's train_horovod.py: its flags and defaults, translated for the engine of train_imagenet.

    horovodrun -np 8 python scripts/train_horovod.py --rec-train T.rec --rec-val V.rec --use-rec

--lr is for one device and is multiplied by their number; the decay is always a cosine. --num-gpus N
or --num-cpu-ranks N starts the ranks on this machine without horovodrun.
"""

import argparse

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags
from gluon_tricks.classification.start import dispatch
from gluon_tricks.config import presets
from gluon_tricks.config.fields import not_for_script
from gluon_tricks.engine import command
from gluon_tricks.errors import InputError
from gluon_tricks.machine import processor
from gluon_tricks.parallel import launch
from gluon_tricks.parallel.ranks import infer_device_count


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_flags(parser, Settings, presets.HOROVOD,
                      without=not_for_script(Settings, "train_horovod"))
    own = parser.add_argument_group("GluonCV's other names")
    own.add_argument("--data-nthreads", type=cli.positive, default=8, help="threads that decode, "
                     "for each device (default: 8)")
    own.add_argument("--auto_aug", action="store_true", help="AutoAugment's ImageNet policy")
    own.add_argument("--no-cuda", action="store_true", help="train on CPUs")
    return parser


def translate(flags: argparse.Namespace) -> Settings:
    """The settings that these flags mean. Raises InputError."""
    given = vars(flags)
    if flags.no_cuda and given.get("num_gpus"):
        raise InputError("--no-cuda cannot be combined with --num-gpus: drop one of them")
    if not given.get("num_gpus") and not given.get("num_cpu_ranks"):
        on_cpus = flags.no_cuda or "num_gpus" in given  # which is 0
        kind = "num_cpu_ranks" if on_cpus else "num_gpus"
        given[kind] = launch.launched_size() or int(not on_cpus)
    infer_device_count(flags)
    devices = max(1, given.get("num_gpus", 0), given.get("num_cpu_ranks", 0))
    here = processor.local_ranks() if launch.launched() else devices
    given["num_data_workers"] = flags.data_nthreads * here
    given["lr"] = given.get("lr", presets.HOROVOD.usual["lr"]) * devices
    if flags.auto_aug:
        given["auto_augment"] = "imagenet"
    if given.get("teacher"):
        given.setdefault("hard_weight", 0.5)
    return from_flags(flags, presets.HOROVOD)


def main() -> int | None:
    flags = build_parser().parse_args()
    done = dispatch(flags, translate(flags))
    return done if isinstance(done, int) else None


if __name__ == "__main__":
    cli.run(main)
