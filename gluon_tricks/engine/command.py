"""What the training scripts share, whatever the task: their flags, and what these start."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from gluon_tricks import cli
from gluon_tricks.config import flags as setting_flags
from gluon_tricks.config import presets
from gluon_tricks.config.settings import RunSettings
from gluon_tricks.parallel import launch
from gluon_tricks.parallel.ranks import start_ranks

if TYPE_CHECKING:
    from gluon_tricks.engine.task import Task
    from gluon_tricks.engine.train import Result


def add_flags(parser: cli.Parser, kind: type[RunSettings],
              preset: presets.Preset = presets.IMAGENET, without: tuple[str, ...] = ()) -> None:
    """Add a flag for each field of the settings except those in `without`, and the flags that do
    something in place of training."""
    setting_flags.add_flags(parser, kind, preset=preset, without=without)
    instead = parser.add_argument_group("in place of training").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true",
                         help="check all settings, build the network, print the settings as JSON; "
                         "reads no data and needs no device")
    instead.add_argument("--benchmark", type=cli.positive, nargs="?", const=50, metavar="UPDATES",
                         help="time this many updates (50 if no number is given) on made-up "
                         "data; reads no data, writes nothing")
    instead.add_argument("--test-io", type=cli.positive, nargs="?", const=100, metavar="BATCHES",
                         help="time the input pipeline alone on this many batches (100 if no "
                         "number is given) of the training set")


def reads_data(flags: argparse.Namespace) -> bool:
    """Whether the flags ask for something that reads the training set."""
    return not (flags.dry_run or flags.benchmark)


def dispatch(flags: argparse.Namespace, settings: RunSettings,
             make_task: "Callable[[], Task]") -> "Result | int | None":
    """Do what the flags ask for. `make_task` may take seconds: it imports MXNet.

    Returns the result of training if this process trained as rank 0, or the exit code of the ranks
    if it started some.
    """
    if flags.dry_run:
        task = make_task()
        settings = task.without_data(settings)
        task.check()
        print(settings.to_json())
    elif flags.test_io:
        _measure_input(settings, make_task(), flags.test_io)
    elif settings.world_size > 1 and not launch.launched():
        return start_ranks(settings.num_gpus, settings.num_cpu_ranks)
    elif flags.benchmark:
        _measure_updates(settings, make_task(), flags.benchmark)
    else:
        return _train(settings, make_task())
    return None


def _measure_input(settings: RunSettings, task: "Task", batches: int) -> None:
    from gluon_tricks.engine.benchmark import input_speed  # late: MXNet takes seconds

    speed, backend = input_speed(settings, task, batches)
    print(f"{speed:.0f} samples/s, made by {backend}")


def _measure_updates(settings: RunSettings, task: "Task", updates: int) -> None:
    from gluon_tricks.engine.benchmark import training_speed

    speed = training_speed(settings, task, updates)
    if speed:
        print(f"{speed:.1f} samples/s, {settings.global_batch / speed * 1000:.0f} ms an update of "
              f"{settings.global_batch}, on made-up data")


def _train(settings: RunSettings, task: "Task") -> "Result | None":
    from gluon_tricks.engine.train import train

    result = train(settings, task)
    if result:  # rank 0 prints it
        print(f"validation: {task.shown(result.last)}; best: {task.shown(result.best)}, "
              f"epoch {result.best_epoch + 1}")
        print(f"run folder: {result.folder}")
        print(f"curves: {result.folder / 'curves.png'}")
    return result
