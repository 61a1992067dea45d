"""Runs the measurements for the documents, and keeps what their commands print in files."""

import datetime
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gluon_tricks import files
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.machine import processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "measured"
_PIPELINE = ("python scripts/benchmarks/input_pipeline.py --cores 1,2 --rounds 3 "
             "--engines {} --rec measured/{}.rec --json")
_ENGINES = "native,native-antialias,opencv,mxnet,mxnet-openmp"
_STEP = "python scripts/benchmarks/train_step.py"


@dataclass(frozen=True)
class Measurement:
    """Bash commands, run in the root of the clone; each prints JSON objects, one per line."""

    commands: tuple[str, ...]
    before: tuple[str, ...] = ()  # commands that make the data; their output is not kept


MEASUREMENTS = {
    "profile": Measurement(tuple(f"python scripts/profile_model.py --model resnet50_v1{tweak} "
                                 "--json" for tweak in ("", "b", "c", "d"))),
    "quickstart": Measurement(
        before=("bash scripts/quickstart.sh",),
        commands=("grep '\"kind\": \"epoch\"' demo/runs/resnet18_v1d/log.jsonl",
                  *(f"python scripts/evaluate.py --run demo/runs/resnet18_v1d "
                    f"--rec-val demo/val.rec{more} --json" for more in ("", " --crops 10")))),
    "input_pipeline": Measurement(
        before=("python -m zipfile -e $GLUON_TRICKS_TEST_DATA/imagenet-samples-300.zip measured",
                "python scripts/im2rec.py measured/imagenet-samples measured/A --pass-through",
                "python scripts/im2rec.py measured/imagenet-samples measured/B --resize 256 "
                "--quality 90",
                *(f"python scripts/im2rec.py measured/{name}.rec measured/{name}-seekable "
                  "--seekable" for name in "AB")),
        commands=tuple(_PIPELINE.format(engines, name + seekable) for name in "AB" for
                       engines, seekable in ((_ENGINES, ""), ("native,mxnet", "-seekable")))),
    "train_step": Measurement((
        f"{_STEP} --model resnet50_v1d --batch-size 16 --updates 6 --rounds 3 --json",
        f"{_STEP} --model cifar_resnet20_v1 --num-classes 10 --input-size 32 --batch-size 128 "
        "--updates 30 --loops bare,engine,gluoncv,gluoncv-network --json",
        f"OMP_NUM_THREADS=1 {_STEP} --model cifar_resnet20_v1 --num-classes 10 --input-size 32 "
        "--batch-size 128 --updates 20 --json")),
    "variants": Measurement((
        f"{_STEP} --model resnet50_v1,resnet50_v1b,resnet50_v1c,resnet50_v1d --batch-size 16 "
        "--loops engine --updates 4 --rounds 3 --json",)),
    "scaling": Measurement((
        "python scripts/benchmarks/scaling.py --ranks 1,2 --updates 15 --json",)),
    "plan": Measurement(("python scripts/benchmarks/scaling.py --plan --json",)),
    "journeys": Measurement(("python scripts/benchmarks/journeys.py --json",)),
}


def measure(name: str) -> None:
    """Run a measurement's commands and keep what they print in docs/measured/NAME.json.

    Raises InputError for an unknown name or missing data, RunFault if a command fails.
    """
    wanted = MEASUREMENTS.get(name)
    if wanted is None:
        raise InputError(f"--measure {name}: choose from {', '.join(MEASUREMENTS)}")
    if any("$GLUON_TRICKS_TEST_DATA" in command for command in wanted.before) and \
            "GLUON_TRICKS_TEST_DATA" not in os.environ:
        raise InputError(f"--measure {name} needs imagenet-samples-300.zip: set "
                         "GLUON_TRICKS_TEST_DATA to its folder")
    for command in wanted.before:
        _run(command)
    parts = [{"command": command, "rows": _rows(_run(command))} for command in wanted.commands]
    found = {"date": datetime.date.today().isoformat(), "machine": machine(), "parts": parts}
    files.write_text(RESULTS / f"{name}.json", json.dumps(found, indent=1) + "\n")


def _run(command: str) -> str:
    """Run a command with this Python as `python`; what it prints. Its stderr is shown."""
    print(command, file=sys.stderr)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise RunFault(f"`{command}` ended with exit code {done.returncode}, see above: nothing "
                       "of this measurement was kept")
    return done.stdout


def _rows(printed: str) -> list[dict[str, Any]]:
    """The JSON objects among the lines, without profile_model.py's layers."""
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [{name: value for name, value in row.items() if name != "layers"} for row in rows]


def machine() -> dict[str, Any]:
    """What the figures depend on: the processor, its cores, the versions of Python and MXNet."""
    from importlib import metadata

    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return {"processor": names[0] if names else "unknown", "cores": processor.physical_cores(),
            "python": sys.version.split()[0], "mxnet": metadata.version("mxnet")}


@dataclass(frozen=True)
class Result:
    """The contents of docs/measured/NAME.json."""

    date: str
    machine: dict[str, Any]
    parts: list[dict[str, Any]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all commands."""
        return [row for part in self.parts for row in part["rows"]]

    @property
    def provenance(self) -> str:
        """A line that says where and when it was measured."""
        m = self.machine
        cores = f"{m['cores']} core{'s' * (m['cores'] > 1)}"
        return f"{m['processor']}, {cores}, MXNet {m['mxnet']}, {self.date}"


class Results(dict[str, Result]):
    """Results by name. Raises InputError if a measurement is missing."""

    def __missing__(self, name: str) -> Result:
        raise InputError(f"docs/measured/{name}.json is missing: measure it with "
                         f"python scripts/benchmarks/measured.py --measure {name}")


def results() -> Results:
    """All results that are there."""
    return Results({name: Result(**json.loads((RESULTS / f"{name}.json").read_text()))
                    for name in MEASUREMENTS if (RESULTS / f"{name}.json").is_file()})
