"""How fast the engine trains, compared with the bare step and a plain GluonCV-style loop.

    python scripts/benchmarks/train_step.py --model resnet50_v1d --batch-size 16

All loops train the same network on the same made-up batch and take turns, round by round, so that
a noisy machine is noisy for all. Shown are medians over the rounds: samples/s, and the ratio to the
first row in the same round. "bare" is forward, backward and update, and nothing else; "engine" is
what train_imagenet.py runs; "gluoncv" updates its metric after each batch, which waits for the
device, and copies a batch only when it needs it; "gluoncv-network" is the same with the network as
GluonCV builds it. If there are several models, they are compared with the first.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags
from gluon_tricks.config.fields import for_script
from gluon_tricks.config.flags import add_flags
from gluon_tricks.errors import InputError

LOOPS = ("bare", "engine", "gluoncv", "gluoncv-network")
WARM_UP = 3  # updates before the clock starts
Loop = Callable[[int], float]  # makes so many updates, returns the seconds they took


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50_v1d", help="names, separated by commas "
                        "(default: resnet50_v1d)")
    parser.add_argument("--loops", default="bare,engine,gluoncv",
                        help=f"some of {','.join(LOOPS)} (default: the first three)")
    parser.add_argument("--updates", type=cli.positive, default=10, help="per round (default: 10)")
    parser.add_argument("--rounds", type=cli.positive, default=5, help="(default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON lines, one per row")
    add_flags(parser, Settings, only=for_script(Settings, "train_step"))
    return parser


def engine_loop(settings: Settings, most: int, stack: ExitStack) -> Loop:
    from gluon_tricks.classification.start import make_task
    from gluon_tricks.engine.benchmark import SyntheticRun

    return SyntheticRun(settings, make_task(), most, stack).seconds


def gluoncv_network(settings: Settings) -> Any:
    from gluoncv.model_zoo import get_model

    try:
        return get_model(settings.model, classes=settings.num_classes)
    except ValueError as error:  # its message lists all names, one per line
        raise InputError(f"GluonCV has no {settings.model}: drop the loop gluoncv-network"
                         ) from error


def plain_loop(settings: Settings, *, like_gluoncv: bool, own_network: bool) -> Loop:
    """A loop without the engine; with `like_gluoncv`, as in GluonCV's scripts."""
    import mxnet as mx
    from mxnet import autograd, gluon

    from gluon_tricks.classification.network import build_network, initialize
    from gluon_tricks.classification.start import make_task
    from gluon_tricks.engine.optimizer import create_optimizer
    from gluon_tricks.parallel.device import find_device

    task = make_task()
    settings = task.without_data(settings)
    device = find_device(settings.num_gpus, settings.dtype)
    network = gluoncv_network(settings) if own_network else build_network(settings)
    initialize(network, settings, device)
    trainer = gluon.Trainer(network.collect_params(), create_optimizer(settings))
    loss_of, metric = gluon.loss.SoftmaxCrossEntropyLoss(), mx.metric.Accuracy()
    made = task.example()

    def on_device() -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        return mx.nd.array(made.images, ctx=device), mx.nd.array(made.labels, ctx=device)

    images, labels = on_device()

    def run(updates: int) -> float:
        nonlocal images, labels
        mx.nd.waitall()
        started = time.perf_counter()
        for _ in range(updates):
            if like_gluoncv:
                images, labels = on_device()
            with autograd.record():
                logits = network(images)
                loss = loss_of(logits, labels)
            loss.backward()
            trainer.step(len(labels))
            if like_gluoncv:
                metric.update(labels, logits)
        mx.nd.waitall()
        return time.perf_counter() - started
    return run


def loop_of(name: str, settings: Settings, most: int, stack: ExitStack) -> Loop:
    if name == "engine":
        return engine_loop(settings, most, stack)
    return plain_loop(settings, like_gluoncv=name != "bare", own_network=name == "gluoncv-network")


def measure(loops: dict[tuple[str, str], Loop], updates: int, rounds: int,
            batch: int) -> list[dict[str, Any]]:
    """A row for each loop: medians over the rounds, and the range of the ratio."""
    for loop in loops.values():
        loop(WARM_UP)
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in loops}
    for number in range(rounds):
        for name, loop in loops.items():
            print(f"round {number + 1}/{rounds}: {' '.join(name)}", file=sys.stderr)
            seconds[name].append(loop(updates))
    first = next(iter(seconds.values()))
    rows = []
    for (model, loop), taken in seconds.items():
        ratios = [one / own for one, own in zip(first, taken, strict=True)]
        rows.append({"model": model, "loop": loop, "ratio": round(statistics.median(ratios), 4),
                     "samples_per_second": round(batch * updates / statistics.median(taken), 2),
                     "least_ratio": round(min(ratios), 4), "most_ratio": round(max(ratios), 4)})
    return rows


def main() -> None:
    flags = build_parser().parse_args()
    names = [name for name in flags.loops.split(",") if name]
    if not names or set(names) - set(LOOPS):
        raise InputError(f"--loops {flags.loops}: choose from {', '.join(LOOPS)}")
    most = max(flags.updates, WARM_UP)
    with ExitStack() as stack:
        loops = {}
        for model in dict.fromkeys(flags.model.split(",")):
            settings = from_flags(argparse.Namespace(**{**vars(flags), "model": model}))
            for name in dict.fromkeys(names):
                loops[model, name] = loop_of(name, settings, most, stack)
        rows = measure(loops, flags.updates, flags.rounds, settings.global_batch)
    if flags.json:
        for row in rows:
            print(json.dumps(row))
        return
    from tabulate import tabulate

    print(tabulate(rows, headers="keys"))


if __name__ == "__main__":
    cli.run(main)
