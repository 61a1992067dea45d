"""How speed scales with the number of ranks: measured on this machine's cores, planned for GPUs.

    python scripts/benchmarks/scaling.py --ranks 1,2
    python scripts/benchmarks/scaling.py --plan

It measures updates of train_imagenet.py on made-up data, with one core and the same batch per rank,
so that R ranks should make R times the images/s of one (weak scaling): efficiency is
speed(R) / (R * speed(1)). "apart" is the control: R processes of one rank at the same time, which
do not communicate. What they lose is lost to the machine (caches, memory, neighbors): the ceiling
for what ranks can reach. All take turns, round by round, in alternating order, and ratios are taken
within a round. Shown are medians over the rounds.

--plan measures nothing and needs no GPU. It computes what each link must carry with 8 to 512 GPUs,
and what share of the speed is left when gradients are all-reduced.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gluon_tricks import cli
from gluon_tricks.classification.settle import from_flags, resolve_without_data
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.machine import processor
from gluon_tricks.parallel import launch

TRAIN = Path(__file__).resolve().parents[1] / "train_imagenet.py"
TARGET = 0.9
SPEED = re.compile(r"([\d.]+) samples/s, [\d.]+ ms an update of (\d+), on made-up data")
BOTH = ("model", "num_classes", "input_size", "batch_size")
MEASURED = {"model": "cifar_resnet20_v1", "num_classes": 10, "input_size": 32, "batch_size": 128,
            "ranks": "1,2", "updates": 20, "rounds": 5}
PLANNED = {"model": "resnet50_v1d", "num_classes": 1000, "input_size": 224, "batch_size": None,
           "dtype": "float16", "gpu_speed": None, "num_groups": 8}


def positive_speed(text: str) -> float:
    """The type of a flag that is a speed: above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="(default: cifar_resnet20_v1; plan: resnet50_v1d)")
    parser.add_argument("--num-classes", type=cli.positive, help="(default: 10; plan: 1000)")
    parser.add_argument("--input-size", type=cli.positive, help="(default: 32; plan: 224)")
    parser.add_argument("--batch-size", type=cli.positive, help="samples per rank or GPU (default: "
                        "128; plan: 256, with float32 128)")
    parser.add_argument("--json", type=cli.path, nargs="?", const=Path("-"), metavar="FILE",
                        help="JSON lines, one per row: to FILE in addition to the table, or to "
                        "stdout in its place")
    measured = parser.add_argument_group("measuring")
    measured.add_argument("--ranks", help="numbers of ranks, separated by commas; 1 is always "
                          "measured (default: 1,2)")
    measured.add_argument("--updates", type=cli.positive, help="per measurement (default: 20)")
    measured.add_argument("--rounds", type=cli.positive, help="(default: 5)")
    planned = parser.add_argument_group("planning")
    planned.add_argument("--plan", action="store_true", help="print the plan for 8 to 512 GPUs")
    planned.add_argument("--dtype", choices=("float16", "float32"), help="of the gradients that "
                         "are reduced (default: float16)")
    planned.add_argument("--gpu-speed", type=positive_speed, help="images/s of one GPU (default: "
                         "what NVIDIA measured for ResNet-50 v1.5 on a V100)")
    planned.add_argument("--num-groups", type=cli.positive, help="reductions per step (default: 8)")
    return parser


def settle(flags: argparse.Namespace) -> None:
    """Fill in the defaults for measuring or planning. Raises InputError for a flag of the other."""
    own, other = (PLANNED, MEASURED) if flags.plan else (MEASURED, PLANNED)
    for name in other:
        if name not in BOTH and getattr(flags, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is for "
                             + ("measuring: drop --plan" if flags.plan else
                                "planning: give --plan, too"))
    for name, default in own.items():
        if getattr(flags, name) is None:
            setattr(flags, name, default)


def checked_ranks(text: str, cores: int) -> list[int]:
    """Numbers of ranks, 1 first. Raises InputError if they cannot be run here."""
    try:
        ranks = sorted({1, *(int(number) for number in text.split(","))})
    except ValueError:
        raise InputError(f"--ranks {text}: give numbers separated by commas") from None
    if ranks[0] < 1:
        raise InputError(f"--ranks {text}: must be at least 1")
    if ranks[-1] > cores:
        raise InputError(f"--ranks {text}: each needs a core, but this process may use {cores}")
    if ranks[-1] > 1:
        launch.require_horovod()
    return ranks


def command(flags: argparse.Namespace, ranks: int) -> list[str]:
    words = [sys.executable, str(TRAIN), "--benchmark", str(flags.updates)]
    for name in BOTH:
        words += [f"--{name.replace('_', '-')}", str(getattr(flags, name))]
    return words if ranks == 1 else [*words, "--num-cpu-ranks", str(ranks)]


@contextlib.contextmanager
def started(words: list[str], cores: list[int]) -> Iterator[subprocess.Popen]:
    """A process pinned to `cores`, one thread per rank; it is terminated when the block ends."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"},
                          preexec_fn=lambda: os.sched_setaffinity(0, cores)) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def speed(process: subprocess.Popen, batch: int) -> float:
    """Images/s that a process printed at its end. Raises its InputError; RunFault if there is none.
    """
    out, errors = process.communicate()
    last = (errors.strip() or "it printed nothing").splitlines()[-1]
    last = re.sub(r"^(\S+: )?error: ", "", last)
    if process.returncode == 2:
        raise InputError(last)
    if process.returncode:
        raise RunFault(f"train_imagenet.py ended with exit code {process.returncode}: {last}")
    found = SPEED.search(out)
    if found is None or int(found[2]) != batch:
        raise RunFault(f"train_imagenet.py printed no speed of updates of {batch}: {out.strip()}")
    return float(found[1])


def images_per_second(flags: argparse.Namespace, ranks: int, apart: bool,
                      cores: list[int]) -> float:
    """Total images/s of `ranks` ranks, or (`apart`) of as many processes of one rank at once."""
    with contextlib.ExitStack() as stack:
        if not apart:
            process = stack.enter_context(started(command(flags, ranks), cores[:ranks]))
            return speed(process, ranks * flags.batch_size)
        processes = [stack.enter_context(started(command(flags, 1), [core]))
                     for core in cores[:ranks]]
        return sum(speed(process, flags.batch_size) for process in processes)


def measure(ranks: list[int], rounds: int, run: Callable[[int, bool], float]) -> dict:
    """Speeds by (ranks, apart), each a list over the rounds; `run` measures one."""
    turns = [(number, apart) for number in ranks for apart in ((False, True) if number > 1
                                                               else (False,))]
    seen = {turn: [] for turn in turns}
    for number in range(rounds):
        for turn in turns if number % 2 == 0 else turns[::-1]:
            print(f"round {number + 1}/{rounds}: {label(*turn)}", file=sys.stderr)
            seen[turn].append(run(*turn))
    return seen


def label(ranks: int, apart: bool) -> str:
    return f"{ranks} apart" if apart else f"{ranks} rank{'s' * (ranks > 1)}"


def summarize(seen: dict) -> list[dict[str, Any]]:
    """A row for each (ranks, apart) of `measure`: efficiency, and the share of the ceiling."""
    rows = []
    for (ranks, apart), speeds in seen.items():
        row = {"run": label(ranks, apart), "ranks": ranks, "apart": apart,
               "images_per_second": round(statistics.median(speeds), 1)}
        if ranks > 1:
            row |= ratios("efficiency", [several / (ranks * one) for several, one in
                                         zip(speeds, seen[1, False], strict=True)])
        if ranks > 1 and not apart:
            row |= {"target": TARGET, "met": row["efficiency"] >= TARGET}
            row |= ratios("of_ceiling", [together / ceiling for together, ceiling in
                                         zip(speeds, seen[ranks, True], strict=True)])
        rows.append(row)
    return rows


def ratios(name: str, found: list[float]) -> dict[str, float]:
    """Median, minimum and maximum, as columns."""
    return {name: round(statistics.median(found), 4), f"least_{name}": round(min(found), 4),
            f"most_{name}": round(max(found), 4)}


def show_measured(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    def shown(row: dict[str, Any], name: str) -> str:
        return (f"{row[name]:.3f} ({row['least_' + name]:.3f} to {row['most_' + name]:.3f})"
                if name in row else "-")

    table = tabulate([(row["run"], f"{row['images_per_second']:.1f}", shown(row, "efficiency"),
                       shown(row, "of_ceiling")) for row in rows],
                     headers=("", "images/s", "efficiency (least to most)", "of the ceiling"),
                     disable_numparse=True, colalign=("left", "right", "left", "left"))
    verdicts = [f"{row['run']}: weak scaling efficiency {row['efficiency']:.3f}, target {TARGET}: "
                + ("met" if row["met"] else "missed") for row in rows if "met" in row]
    return "\n".join([table, *verdicts])


def measured(flags: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """The measured rows, and the text to print about them."""
    cores = [threads[0] for threads in processor.cores()]
    ranks = checked_ranks(flags.ranks, len(cores))
    rows = summarize(measure(ranks, flags.rounds,
                             lambda number, apart: images_per_second(flags, number, apart, cores)))
    return rows, show_measured(rows)


def planned(flags: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """The plan's rows, and the text to print about them. Raises InputError."""
    import _plan

    published = _plan.PUBLISHED[flags.dtype][-1]
    flags.batch_size = flags.batch_size or published.batch
    source = "--gpu-speed"
    if flags.gpu_speed is None:
        if not re.fullmatch("resnet50_v1[bcd]?", flags.model) or flags.input_size != 224:
            raise InputError(f"no speed of {flags.model} at {flags.input_size} on a GPU is known: "
                             "give --gpu-speed")
        flags.gpu_speed = published.speeds[1]
        source = (f"NVIDIA's ResNet-50 v1.5 on one V100 of a DGX-2, batch {published.batch}; "
                  "nothing was measured here")
    network = argparse.Namespace(**{name: getattr(flags, name) for name in BOTH[:3]})
    settings = resolve_without_data(from_flags(network))

    from gluon_tricks.classification.network import (
        build_network,  # late: MXNet takes seconds to import
    )
    from gluon_tricks.models.profile import profile

    built = build_network(settings)
    layers = profile(built, (3, flags.input_size, flags.input_size)).layers
    if flags.num_groups > len(layers):
        raise InputError(f"--num-groups {flags.num_groups}: {flags.model} has {len(layers)} layers "
                         "with parameters")
    tensors = sum(one.grad_req != "null" for one in built.collect_params().values())
    rows = _plan.rows(layers, flags.dtype, flags.batch_size, flags.gpu_speed, flags.num_groups)
    return rows, "\n\n".join([plan_table(rows), *plan_notes(flags, layers, tensors, source)])


def plan_table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    def shown(share: float | None) -> str:
        return "-" if share is None else f"{share:.3f}"

    links = rows[0]["efficiency"]
    return tabulate(
        [(row["gpus"], row["batch"], f"{row['lr']:g}", row["recipe"],
          f"{row['link_bytes'] / 1e6:.1f}", f"{row['needed_gigabytes']:.2f}",
          *map(shown, row["efficiency"].values()), shown(row["nvidia"])) for row in rows],
        headers=("GPUs", "batch", "lr", "recipe", "MB", "GB/s",
                 *(name.replace(" ", "\n") for name in links), "NVIDIA"),
        disable_numparse=True, colalign=("right",) * 3 + ("left",) + ("right",) * (len(links) + 3))


def plan_notes(flags: argparse.Namespace, layers: tuple, tensors: int, source: str) -> list[str]:
    """Paragraphs that explain the table's numbers and where they come from."""
    import textwrap

    import _plan

    element, step = _plan.BYTES[flags.dtype], flags.batch_size / flags.gpu_speed
    parameters = sum(layer.parameters for layer in layers)
    gradient, backward = element * parameters, _plan.backward_seconds(step)
    last = _plan.gradient_buffers(layers, flags.num_groups, element)[-1].bytes
    fewest, most = _plan.fused_buffers(gradient, tensors, step)
    links = ", ".join(f"{link.name} {link.gigabytes:g} GB/s and {link.hop:g} us"
                      for link in _plan.LINKS)
    measured = "; ".join(
        f"{one.speeds[gpus] / one.speeds[1]:.2f}x on {gpus} of a {one.machine} at batch "
        f"{one.batch}, a step {one.added(gpus) * 1e3:.1f} ms longer"
        for one in _plan.PUBLISHED[flags.dtype] for gpus in one.speeds if gpus > 1)
    return [textwrap.fill(text, 100) for text in (
        f"{flags.model} at {flags.input_size}: {parameters:,} parameters, {gradient:,} bytes of "
        f"gradient in {flags.dtype}. One GPU: {flags.gpu_speed:g} images/s ({source}), so "
        f"{step * 1e3:.1f} ms per step of {flags.batch_size}, {backward * 1e3:.1f} ms of it "
        f"backward. {_plan.HOST_GPUS} GPUs per host; PCIe and NVLink: all in one host.",
        "MB: what each GPU's and each host's link carries per step, each way. GB/s: the speed at "
        "which that takes as long as the backward pass. Columns of links: efficiency with "
        f"{flags.num_groups} reductions per step and nothing else lost, at {links} per hop. "
        f"NVIDIA: what it measured, data included, with ResNet-50 v1.5: {measured}.",
        f"Half of the gradient is ready after {_plan.half_ready(layers):.0%} of the backward pass. "
        f"The {last / 1e3:.1f} kB of the last reduction, with the stem's, come at its end, "
        "and nothing hides them. Horovod's defaults (128 MiB, a cycle of 1 ms) make "
        f"{fewest} to {most} reductions of the {tensors} gradients.",
        "Recipe: where ResNet-50 was trained with such a batch, and reported to lose no accuracy. "
        "The paper's ends at 1024, that of 1706.02677 at 8192, that of LARS (1708.03888) at 32768. "
        "Beyond that, use fewer samples per GPU (--batch-size). lr: 0.1 * batch / 256.")]


def main() -> None:
    flags = build_parser().parse_args()
    settle(flags)
    rows, text = planned(flags) if flags.plan else measured(flags)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if flags.json == Path("-"):
        print(lines, end="")
        return
    if flags.json:
        flags.json.write_text(lines)
    print(text)


if __name__ == "__main__":
    cli.run(main)
