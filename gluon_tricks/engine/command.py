"""What the scripts that train share: their flags, and what is done in place of training."""

import argparse
from typing import TYPE_CHECKING

from gluon_tricks import cli
from gluon_tricks.classification.settle import resolve_without_data
from gluon_tricks.config import flags as setting_flags
from gluon_tricks.config import presets
from gluon_tricks.config.settings import Settings
from gluon_tricks.parallel import launch
from gluon_tricks.parallel.ranks import start_ranks

if TYPE_CHECKING:
    from gluon_tricks.engine.train import Result


def add_flags(parser: cli.Parser, preset: presets.Preset = presets.IMAGENET,
              without: tuple[str, ...] = ()) -> None:
    """A flag for each of the settings but those of `without`, and the ways not to train."""
    setting_flags.add_flags(parser, preset=preset, without=without)
    instead = parser.add_argument_group("in place of training").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true",
                         help="check all settings, build the network, print the settings as JSON; "
                         "reads no data and needs no device")
    instead.add_argument("--benchmark", type=cli.positive, nargs="?", const=50, metavar="UPDATES",
                         help="measure so many updates (50 where the flag stands alone) on "
                         "made-up data; reads no data, writes nothing")
    instead.add_argument("--test-io", type=cli.positive, nargs="?", const=100, metavar="BATCHES",
                         help="measure the input pipeline alone on so many batches (100) of the "
                         "training set")


def reads_data(flags: argparse.Namespace) -> bool:
    """Whether the flags ask for what needs the training set."""
    return not (flags.dry_run or flags.benchmark)


def carry_out(flags: argparse.Namespace, settings: Settings) -> "Result | int | None":
    """Do what the flags ask for. The result of training, where this process trained and is the
    first rank; the exit code of the ranks it started, where it did."""
    if flags.dry_run:
        _dry_run(settings)
    elif flags.test_io:
        from gluon_tricks.engine.benchmark import input_speed  # late: MXNet takes seconds

        speed, backend = input_speed(settings, flags.test_io)
        print(f"{speed:.0f} samples/s, made by {backend}")
    elif settings.world_size > 1 and not launch.launched():
        return start_ranks(settings.num_gpus, settings.num_cpu_ranks)
    elif flags.benchmark:
        _benchmark(settings, flags.benchmark)
    else:
        return _train(settings)
    return None


def _dry_run(settings: Settings) -> None:
    from gluon_tricks.classification.network import build_network, build_teacher_network
    from gluon_tricks.models.freezing import frozen_names

    settings = resolve_without_data(settings)
    frozen_names(build_network(settings), settings.freeze_until)
    if settings.teacher:
        build_teacher_network(settings)
    print(settings.to_json())


def _benchmark(settings: Settings, updates: int) -> None:
    from gluon_tricks.engine.benchmark import training_speed

    speed = training_speed(settings, updates)
    if speed:
        print(f"{speed:.1f} samples/s, {settings.global_batch / speed * 1000:.0f} ms an update of "
              f"{settings.global_batch}, on made-up data")


def _train(settings: Settings) -> "Result | None":
    from gluon_tricks.engine.train import train

    result = train(settings)
    if result:  # the first rank says it
        print(f"validation top-1 {result.last.top1:.2%}, top-5 {result.last.top5:.2%} "
              f"on {result.last.count} pictures; best top-1 {result.best.top1:.2%} "
              f"after epoch {result.best_epoch + 1}")
        print(f"run folder: {result.folder}")
        print(f"curves: {result.folder / 'curves.png'}")
    return result
