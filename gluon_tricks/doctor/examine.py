"""Collects all findings, in order."""

from contextlib import ExitStack
from pathlib import Path

from gluon_tricks.doctor import gpus, machine, packages, self_test
from gluon_tricks.doctor.child import Answer, Child
from gluon_tricks.doctor.finding import FAULT, WARNING, Finding
from gluon_tricks.machine import cuda

_ALWAYS = ("numpy", "opencv", "native", "driver")  # probes that work with any Python and NumPy


def examine(folder: Path, num_gpus: int, *, problem: str | None, try_it: bool
            ) -> tuple[list[Finding], int]:
    """All findings, and how many GPUs a run can use.

    Runs go to `folder` and want `num_gpus`. `problem` says why gluon_tricks refused to be imported.
    """
    answers = _ask(num_gpus, problem)
    missing = Answer([], None)
    loaded = [report["features"] for report in answers.get("mxnet", missing).reports
              if "features" in report]
    builds = loaded[0].get("CUDA", False) if loaded else cuda.has_build()
    found = [*packages.python(problem), *packages.numpy(problem, answers["numpy"])]
    if "mxnet" in answers:
        found += packages.mxnet(answers["mxnet"], num_gpus)
        found += packages.gluoncv(answers["gluoncv"] if loaded else None)
    else:
        found.append(Finding(packages.GROUP, WARNING, "MXNet", "not tried: it needs another Python "
                             "or NumPy", "fix that first"))
    found += [*packages.opencv(answers["opencv"]), *packages.native(answers["native"]),
              *packages.others()]
    said, usable = gpus.driver(answers["driver"], builds, num_gpus)
    found += [*gpus.libraries(answers.get("cuda", missing), builds), *said]
    said, count = gpus.seen(answers.get("mxnet", missing), len(usable), builds, num_gpus)
    found += said
    said, joins = gpus.horovod(answers["horovod"] if loaded else None, builds, num_gpus)
    found += [*said, *machine.findings(folder)]
    return found + _self_test(found, folder, num_gpus, try_it), count if joins else min(count, 1)


def _ask(num_gpus: int, problem: str | None) -> dict[str, Answer]:
    """The answers of all probes, which run in child processes at the same time."""
    probes: dict[str, tuple] = dict.fromkeys(_ALWAYS, ())
    if problem is None:
        probes |= {"mxnet": (num_gpus,), "gluoncv": (), "horovod": ()}
    if cuda.has_build():
        probes["cuda"] = ()
    with ExitStack() as stack:
        children = {name: stack.enter_context(Child("probes", name, *arguments))
                    for name, arguments in probes.items()}
        return {name: child.answer() for name, child in children.items()}


def _self_test(found: list[Finding], folder: Path, num_gpus: int, try_it: bool) -> list[Finding]:
    if not try_it:
        return self_test.skipped("--no-self-test")
    faults = [finding.name for finding in found if finding.level == FAULT]
    if faults:
        return self_test.skipped(f"{faults[0]} has a fault", WARNING)
    return self_test.findings(machine.nearest(folder), num_gpus)
