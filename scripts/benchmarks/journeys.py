"""How many files one follows from a flag to the loss, through an update, through a command: traced.

    python scripts/benchmarks/journeys.py

A file counts if one of its functions runs (what runs while it is imported does not), and then with
all its lines.

label smoothing   from `--label-smoothing` to the loss: the functions that have the number in hand,
                  as an argument, a variable, a value of the dict that they return, or what they
                  read by its name; those that only pass on the settings it is in do not count
... with callers  those, and all that are on the stack when the command calls one of those: who
                  passes the settings on, who validates them, who calls the loss
update            one turn of the training loop in steady state: from its request for a batch to the
                  end of the update, with what the loader's threads do meanwhile
command           `train_imagenet.py` from main() on: one update, validation, a checkpoint

The network is cifar_resnet20_v1 on made-up images on the CPU; other settings are the defaults.
"""

import argparse
import contextlib
import inspect
import io
import json
import runpy
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from tabulate import tabulate

from gluon_tricks import cli

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gluon_tricks"
EPS = 0.1234567890123  # a number that nothing else is
NAMES = {"label_smoothing", "_eps"}  # what the settings and the loss call it
BATCH = 8
FIRST, LAST = 5, 8  # the updates of 12 that are traced: the loader is busy throughout
See = Callable[[FrameType, str, Any], bool]
Function = tuple[str, str]  # its file in the package, its name


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON lines, with the names "
                        "of the files")
    return parser


class Trace:
    """The package's functions that are called or return while it is entered, in all threads; if
    there is `wanted`, when that says so."""

    def __init__(self, wanted: See | None = None):
        self.functions: set[Function] = set()
        self._wanted = wanted
        self._known: dict[Any, Function | None] = {}  # by code

    def __enter__(self) -> "Trace":
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _see(self, frame: FrameType, event: str, value: Any) -> None:
        function = self.function(frame)
        if function and event in ("call", "return") and (
                self._wanted is None or self._wanted(frame, event, value)):
            self.functions.add(function)

    def function(self, frame: FrameType) -> Function | None:
        """The function that a frame runs, if it is the package's."""
        if frame.f_code not in self._known:
            self._known[frame.f_code] = _function_of(frame)
        return self._known[frame.f_code]


def _function_of(frame: FrameType) -> Function | None:
    """What dataclasses generate is in no file, and counts for that of its class."""
    code, name = frame.f_code, frame.f_code.co_filename
    if not code.co_flags & inspect.CO_OPTIMIZED:  # the body of a module or a class
        return None
    if name == "<string>" and "self" in frame.f_locals:
        module = sys.modules[type(frame.f_locals["self"]).__module__]
        name = getattr(module, "__file__", None) or name
    if not name.startswith(f"{PACKAGE}/"):
        return None
    return str(Path(name).relative_to(PACKAGE)), code.co_qualname.rpartition("<locals>.")[2]


def train(folder: Path, updates: int, *more: str) -> None:
    """`train_imagenet.py` on an epoch of so many updates, with `more` flags."""
    import cv2

    from gluon_tricks.data.record import RecordWriter

    prefix, rng = Path(tempfile.mkdtemp(dir=folder)) / "set", np.random.default_rng(0)
    with RecordWriter(prefix) as writer:
        for key in range(updates * BATCH):
            image = rng.integers(0, 256, (48, 64, 3), np.uint8)
            writer.write(key, key % 10, cv2.imencode(".jpg", image)[1].tobytes())
    main = runpy.run_path(str(ROOT / "scripts" / "train_imagenet.py"))["main"]
    given, sys.argv = sys.argv, [
        "train_imagenet.py", "--model", "cifar_resnet20_v1", "--input-size", "32", "--num-epochs",
        "1", "--batch-size", str(BATCH), "--rec-train", f"{prefix}.rec", "--rec-val",
        f"{prefix}.rec", "--save-dir", str(prefix.with_name("run")), *more]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main()
    finally:
        sys.argv = given


def command(folder: Path) -> set[Function]:
    with Trace() as trace:
        train(folder, 1)
    return trace.functions


def update(folder: Path) -> set[Function]:
    number, ended = 0, False

    def watch(frame: FrameType, event: str, value: Any) -> bool:
        nonlocal number, ended
        wanted = FIRST <= number < LAST and not (
            ended and threading.current_thread() is threading.main_thread())
        if frame.f_code.co_qualname == "timed" and event == "call":  # engine/train.py: asks
            number, ended = number + 1, False
        elif frame.f_code.co_qualname == "Step.take" and event == "return":  # engine/step.py
            ended = True
        return wanted

    with Trace(watch) as trace:
        train(folder, 12)
    return trace.functions


def smoothing(folder: Path) -> set[Function]:
    import mxnet as mx

    from gluon_tricks.classification.network import build_loss
    from gluon_tricks.classification.settings import Settings
    from gluon_tricks.classification.settle import from_flags
    from gluon_tricks.classification.start import make_task
    from gluon_tricks.engine.command import add_flags

    parser = cli.Parser()
    add_flags(parser, Settings)
    with Trace(_has_number) as trace:
        flags = parser.parse_args(["--model", "cifar_resnet20_v1", "--num-classes", "10",
                                   "--label-smoothing", str(EPS)])
        settings = make_task().without_data(from_flags(flags))
        build_loss(settings)(mx.nd.zeros((2, 10)), mx.nd.array([0, 1])).wait_to_read()
    return trace.functions


def _has_number(frame: FrameType, event: str, returned: Any) -> bool:
    """Whether a function has EPS in hand when it is called, returns or yields."""
    own = list(frame.f_locals.values())
    if isinstance(returned, dict) and event == "return":
        own += returned.values()
    own += [vars(thing).get(name) for name in NAMES & {*frame.f_code.co_names}
            for thing in own if hasattr(thing, "__dict__")]
    return any(type(value) is float and value == EPS for value in own)


def smoothing_with_callers(folder: Path) -> set[Function]:
    inner = smoothing(folder)
    found: set[Function | None] = set()

    def watch(frame: FrameType, event: str, value: Any) -> bool:
        copies = frame.f_code.co_filename == "<string>"  # dataclasses.replace, for other fields
        if not copies and trace.function(frame) in inner and _has_number(frame, event, value):
            while frame.f_code is not train.__code__:
                found.add(trace.function(frame))
                frame = frame.f_back
        return False

    with Trace(watch) as trace:
        train(folder, 1, "--label-smoothing", str(EPS))
    return inner | found - {None}


JOURNEYS = {"label smoothing": smoothing, "... with callers": smoothing_with_callers,
            "update": update, "command": command}


def row(name: str, functions: set[Function]) -> dict[str, Any]:
    """What is printed of a journey."""
    files = sorted({file for file, _ in functions})
    lines = sum(len((PACKAGE / file).read_text().splitlines()) for file in files)
    return {"journey": name, "files": len(files), "lines": lines, "functions": len(functions),
            "names": files}


def main() -> None:
    flags = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, trace(Path(folder))) for name, trace in JOURNEYS.items()]
    if flags.json:
        print("\n".join(map(json.dumps, rows)))
    else:
        print(tabulate([list(found.values())[:-1] for found in rows],
                       headers=("journey", "files", "lines", "functions"), tablefmt="github"))


if __name__ == "__main__":
    cli.run(main)
