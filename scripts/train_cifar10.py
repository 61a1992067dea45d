"""Train on CIFAR-10: GluonCV's train_cifar10.py and, with --mixup, its train_mixup_cifar10.py.

    python scripts/train_cifar10.py --num-epochs 200 --lr-decay-epoch 100,150

Reads folders (train/ and val/ under --data-dir), RecordIO (--rec-train, --rec-val, --use-rec), or
the data set's binary files, which it downloads if they are missing.
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags
from gluon_tricks.classification.start import dispatch
from gluon_tricks.config import presets
from gluon_tricks.engine import command
from gluon_tricks.errors import InputError
from gluon_tricks.parallel.ranks import infer_device_count

TRAIN, CLASSES = 50_000, 10  # assumed if no data is read


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_flags(parser, Settings, presets.CIFAR10)
    own = parser.add_argument_group("GluonCV's other names")
    for flag, setting, kind in (("--drop-rate", "dropout", float),
                                ("--save-period", "save_frequency", int),
                                ("--resume-from", "init_params", str)):
        own.add_argument(flag, dest=setting, type=kind, default=argparse.SUPPRESS,
                         help=f"the same as --{setting.replace('_', '-')}")
    own.add_argument("--save-plot-dir", type=cli.path, metavar="DIR", help="copy the curves there, "
                     "as MODEL_history.png, at the end of the run")
    own.add_argument("--logging-dir", type=cli.path, metavar="DIR", help="copy the log there, as "
                     "train_cifar10_MODEL.log, at the end of the run")
    return parser


def copy_to(folder: Path, flag: str) -> Path:
    """Create the folder that `flag` names. Raises InputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{flag} {folder}: {error.strerror}; choose another") from error
    return folder


def provide(settings: Settings) -> None:
    """Unpack the data set's binary files if the settings name no other form of it."""
    folder = settings.image_folder("train")
    if folder is not None and not folder.is_dir():
        from gluon_tricks.prepare.cifar import cifar10_records  # late: it imports OpenCV

        cifar10_records(settings.data_dir)


def main() -> int | None:
    flags = build_parser().parse_args()
    infer_device_count(flags)
    settings = from_flags(flags, presets.CIFAR10)
    copies = []
    if command.reads_data(flags):
        name = settings.model + "_mixup" * settings.mixup
        if flags.save_plot_dir:
            copies.append(("curves.png", copy_to(flags.save_plot_dir, "--save-plot-dir")
                           / f"{name}_history.png"))
        if flags.logging_dir:
            copies.append((settings.logging_file, copy_to(flags.logging_dir, "--logging-dir")
                           / f"train_cifar10_{name}.log"))
        provide(settings)
    else:
        settings = dataclasses.replace(
            settings, num_classes=settings.num_classes or CLASSES,
            num_training_samples=settings.num_training_samples or TRAIN)
    done = dispatch(flags, settings)
    if isinstance(done, int) or done is None:
        return done
    for source, to in copies:
        shutil.copyfile(done.folder / source, to)
    return None


if __name__ == "__main__":
    cli.run(main)
