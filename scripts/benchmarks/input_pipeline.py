"""How fast training images are made, compared with mx.io.ImageRecordIter in the same run.

    python scripts/benchmarks/input_pipeline.py --rec train.rec --engines native,mxnet --cores 1,2

Each engine runs in its own process, pinned to the given number of cores, over a whole epoch; the
engines take turns, round by round, so that a noisy machine is noisy for all. Shown are medians over
the rounds: images per second, images per second of processor time, and the ratio to ImageRecordIter
in the same round. "mxnet" is ImageRecordIter with GluonCV's settings, with which it runs half as
many threads as there are cores; "mxnet-openmp" lets it use them all. "decoded" is the native
decoder alone, on the windows that crops need (the floor); "resampled" is that and resizing, so the
differences are what the stages cost; "interpreter" is all that Python does, without the decoder.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gluon_tricks import cli
from gluon_tricks.errors import InputError, RunFault

ENGINES = ("native", "native-antialias", "opencv", "mxnet", "mxnet-openmp", "dali")
STAGES = ("decoded", "resampled", "interpreter")
LEAST = 1500  # records per epoch; a smaller set is measured as several copies of it
SIZE, BATCH = 224, 64


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rec", required=True, type=cli.path, help="a .rec, its .idx next to it")
    parser.add_argument("--engines", default="native,native-antialias,opencv,mxnet",
                        help=f"of {','.join(ENGINES)} (default: all but dali)")
    parser.add_argument("--cores", default="1", help="numbers of cores, such as 1,2 (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON lines, one per row")
    return parser


def checked(flags: argparse.Namespace) -> tuple[list[str], list[int]]:
    """Engines and numbers of cores. Raises InputError."""
    engines = list(dict.fromkeys(name for name in flags.engines.split(",") if name))
    unknown = set(engines) - set(ENGINES)
    if unknown or not engines:
        raise InputError(f"--engines {flags.engines}: choose from {', '.join(ENGINES)}")
    try:
        cores = list(dict.fromkeys(int(number) for number in flags.cores.split(",")))
    except ValueError:
        raise InputError(f"--cores {flags.cores}: give numbers separated by commas") from None
    here = len(os.sched_getaffinity(0))  # the cores this process may use
    if not all(1 <= number <= here for number in cores):
        raise InputError(f"--cores {flags.cores}: this machine has {here}")
    if flags.rounds < 1:
        raise InputError(f"--rounds {flags.rounds}: must be at least 1")
    return engines, cores


@contextlib.contextmanager
def long_enough(rec: Path) -> Iterator[Path]:
    """The .rec, or if it is short, a temporary one with its records several times."""
    from gluon_tricks.data.record import RecordSet, RecordWriter

    with RecordSet(rec) as records, tempfile.TemporaryDirectory() as folder:
        if len(records) >= LEAST:
            yield rec
            return
        with RecordWriter(Path(folder) / "set") as writer:
            for copy in range(-(-LEAST // len(records))):
                for index in range(len(records)):
                    writer.write(copy * len(records) + index, float(records.labels[index]),
                                 records.read(index))
        yield Path(folder) / "set.rec"


def epochs(engine: str, rec: Path, cores: int) -> Iterator[int]:
    """Make epochs endlessly, one per step; yields each one's number of images."""
    from gluon_tricks.data.order import TrainOrder
    from gluon_tricks.data.record import RecordSet
    from gluon_tricks.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TrainTransform

    records = RecordSet(rec)
    order = TrainOrder(len(records), BATCH, seed=0)
    images = order.steps * BATCH
    if engine == "dali":
        from _dali import dali_batches

        batches = dali_batches(rec, rec.with_suffix(".idx"), BATCH, cores, SIZE)
        while True:
            for _ in range(order.steps):
                next(batches)
            yield images
    if engine.startswith("mxnet"):
        from gluon_tricks.data.image_record_iter import ImageRecordLoader

        loader = ImageRecordLoader.train(records, order, size=SIZE, workers=cores,
                                         mean=IMAGENET_MEAN, std=IMAGENET_STD,
                                         openmp=engine == "mxnet-openmp")
    elif engine in ("decoded", "resampled"):
        yield from staged_epochs(engine, records, order, cores)
    else:
        from gluon_tricks.data import backends
        from gluon_tricks.data.loader import RecordLoader

        if engine == "interpreter":
            # Patched, since the loader accepts no other job; this process does nothing else.
            backends.native_job = idle_job(backends.native_job)
            engine = "native"
        backend, _, antialias = engine.partition("-")
        loader = RecordLoader(records, TrainTransform(SIZE, antialias=bool(antialias)), order,
                              workers=cores, backend=backend, dct_shortcut=backend == "native")
    for epoch in range(sys.maxsize):
        for _ in loader.epoch(epoch):
            pass
        yield images


def idle_job(native_job: Any) -> Any:
    """A native_job whose jobs do nothing."""
    def make(*arguments: Any, **options: Any) -> Any:
        job = native_job(*arguments, **options)
        return type("Idle", (), {"run": staticmethod(lambda begin, end: []), "of": job})

    return make


def staged_epochs(stage: str, records: Any, order: Any, cores: int) -> Iterator[int]:
    """As `epochs`, but with the native decoder's work only up to a stage."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from gluon_tricks.augment.rng import SampleRng
    from gluon_tricks.data import backends
    from gluon_tricks.data.transforms import TrainTransform

    transform, images = TrainTransform(SIZE), np.empty((BATCH, 3, SIZE, SIZE), np.float32)
    spans = [(start, start + 8) for start in range(0, BATCH, 8)]
    with ThreadPoolExecutor(cores) as pool:
        for epoch in range(sys.maxsize):
            for indices in order.batches(epoch):
                draws = transform.draw(SampleRng(0, epoch, indices))
                job = backends.native_job(records, transform, draws, indices, images,
                                          channels_last=False, dct_shortcut=True, stage=stage)
                for done in [pool.submit(job.run, *span) for span in spans]:
                    done.result()
            yield order.steps * BATCH


def child(engine: str, rec: Path, cores: int, pipe: Any) -> None:
    """Make an epoch whenever the pipe asks; answer with (images, seconds, processor seconds)."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)
    try:
        work = epochs(engine, rec, cores)
        next(work)  # warm-up, which also reads the file into memory
        pipe.send(None)
        while pipe.recv():
            wall, used = time.perf_counter(), time.process_time()
            images = next(work)
            pipe.send((images, time.perf_counter() - wall, time.process_time() - used))
    except InputError as error:
        pipe.send(error)


@contextlib.contextmanager
def children(rec: Path, runs: list[tuple[str, int]]) -> Iterator[dict]:
    """A warmed-up process for each engine and number of cores: {(engine, cores): pipe}."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    try:
        for engine, cores in runs:
            pipes[engine, cores], theirs = context.Pipe()
            process = context.Process(target=child, args=(engine, rec, cores, theirs), daemon=True)
            process.start()
            processes.append(process)
            answer(pipes, (engine, cores))
        yield pipes
    finally:
        for process in processes:
            process.terminate()
            process.join()


def answer(pipes: dict, run: tuple[str, int]) -> Any:
    """What an engine's process sends. Raises an InputError that it sends, RunFault if it died."""
    try:
        found = pipes[run].recv()
    except EOFError as error:
        raise RunFault(f"the engine {run[0]} died, see its message above") from error
    if isinstance(found, InputError):
        raise found
    return found


def measure(pipes: dict, rounds: int) -> list[dict]:
    """A row for each engine and number of cores: medians over the rounds."""
    seen = {run: [] for run in pipes}
    for _ in range(rounds):
        for run, pipe in pipes.items():
            pipe.send(True)
            seen[run].append(answer(pipes, run))
    rows = []
    for (engine, cores), found in seen.items():
        speeds = [images / wall for images, wall, _ in found]
        row = {"engine": engine, "cores": cores,
               "images_per_second": statistics.median(speeds),
               "images_per_core_second": statistics.median(n / used for n, _, used in found)}
        reference = seen.get(("mxnet", cores))
        if reference:
            row["ratio"] = statistics.median(
                speed * wall / images
                for speed, (images, wall, _) in zip(speeds, reference, strict=True))
        rows.append(row)
    return rows


def add_shares(rows: list[dict]) -> None:
    """Add the share of the native decoder's time that each stage takes."""
    by = {(row["engine"], row["cores"]): row for row in rows}
    for (engine, cores), row in by.items():
        if engine != "native":
            continue
        whole, decoded, resampled = (1 / by[name, cores]["images_per_core_second"]
                                     for name in ("native", "decoded", "resampled"))
        row["shares"] = {"decode": decoded / whole, "resize": (resampled - decoded) / whole,
                         "color": (whole - resampled) / whole}
        row["interpreter_microseconds"] = 1e6 / by["interpreter", cores]["images_per_core_second"]
        row["of_floor"] = row["images_per_second"] / by["decoded", cores]["images_per_second"]


def show(row: dict) -> str:
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
    line = (f"{row['engine']:17}{row['cores']:6}{row['images_per_second']:11.0f}"
            f"{row['images_per_core_second']:16.0f}{ratio:>7}")
    if "shares" in row:
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in row["shares"].items())
        line += f"  {shares}; {row['of_floor']:.0%} of the floor; "
        line += f"interpreter {row['interpreter_microseconds']:.0f} microseconds per image"
    return line


def main() -> None:
    flags = build_parser().parse_args()
    engines, cores = checked(flags)
    if "native" in engines:
        engines.extend(STAGES)
    with (long_enough(flags.rec) as rec,
          children(rec, [(engine, number) for number in cores for engine in engines]) as pipes):
        rows = measure(pipes, flags.rounds)
    if "native" in engines:
        add_shares(rows)
    if flags.json:
        for row in rows:
            print(json.dumps(row))
        return
    print(f"{'engine':17}{'cores':>6}{'images/s':>11}{'a core-second':>16}{'ratio':>7}")
    for row in rows:
        print(show(row))


if __name__ == "__main__":
    cli.run(main)
