"""Findings on NVIDIA's driver, its GPUs, CUDA's libraries, and Horovod, which joins devices."""

import os
from importlib import metadata

from gluon_tricks import cli
from gluon_tricks.doctor.child import Answer
from gluon_tricks.doctor.finding import FAULT, OK, WARNING, Finding
from gluon_tricks.doctor.packages import installed
from gluon_tricks.errors import install_packages
from gluon_tricks.machine import cuda, gpus

GROUP = "GPUs"


def libraries(answer: Answer, builds: bool) -> list[Finding]:
    """Version and file of each CUDA library that MXNet needs. `builds`: whether MXNet is the CUDA
    build."""
    if not builds:
        return [Finding(GROUP, OK, "CUDA's libraries", "MXNet's CPU build needs none")]
    again = f"`{install_packages('gpu', '--force-reinstall ')}`"
    if answer.ended:
        return [Finding(GROUP, FAULT, "CUDA's libraries", answer.ended, again)]
    found = [_library(report) for report in answer.reports if "file" in report]
    missing = [report for report in answer.reports if "error" in report]
    if missing:
        error = missing[0]["error"]
        found.append(Finding(
            GROUP, FAULT, "CUDA's libraries", f"{len(missing)} of {len(answer.reports)} do not "
            f"load: {', '.join(report['soname'] for report in missing)} ({error})",
            cli.import_remedy(OSError(error)) or again))
    return found


def _library(report: dict) -> Finding:
    soname = report["soname"]
    wheel = cuda.LIBRARIES[soname][0]
    version = f"{wheel} {metadata.version(wheel)}" if report["wheel"] and \
        wheel in installed() else os.path.basename(report["file"])
    return Finding(GROUP, OK, soname, f"{version}, {report['file']}")


def driver(answer: Answer, builds: bool, num_gpus: int) -> tuple[list[Finding], list[gpus.Gpu]]:
    """Findings on the driver and each GPU, and the GPUs that a run can use. It uses the first ones,
    so those are the GPUs before the first unusable one."""
    name, needed = "NVIDIA's driver", FAULT if num_gpus else WARNING
    reports = {key: value for report in answer.reports for key, value in report.items()}
    if answer.ended or reports.get("error"):
        return [Finding(GROUP, needed, name, answer.ended or reports["error"],
                        "see whether nvidia-smi works; reinstall the driver")], []
    if not reports["driver"]:
        level = needed if builds or num_gpus else OK
        said = "libcuda.so.1: cannot open shared object file"
        return [Finding(GROUP, level, name, "none: no GPU can be used",
                        cli.import_remedy(OSError(said)) if level != OK else "")], []
    if "fault" in reports:
        return [Finding(GROUP, needed, name, reports["fault"], "see whether nvidia-smi works; the "
                        "versions of the driver and its kernel module must be the same")], []
    newest = reports["cuda"]
    value = f"CUDA up to {newest // 1000}.{newest % 1000 // 10}, {reports['file']}"
    value += f"; {reports['kernel']}" if reports["kernel"] else ""
    if newest < gpus.OLDEST_CUDA:
        return [Finding(GROUP, needed, name, value, gpus.too_old(newest))], []
    listed, usable = _gpus(answer, num_gpus)
    own = Finding(GROUP, OK, name, value) if newest >= gpus.FUSION_CUDA else \
        Finding(GROUP, WARNING, name, f"{value}; fused operators need 11.8",
                "install driver 520.61 or newer, or turn fusion off: MXNET_USE_FUSION=0")
    return [own, *listed], usable


def _gpus(answer: Answer, num_gpus: int) -> tuple[list[Finding], list[gpus.Gpu]]:
    found, usable, first = [], [], True
    for report in answer.reports:
        if "gpu" not in report:
            continue
        gpu, reason = gpus.Gpu(*report["gpu"]), report["why_not"]
        major, minor = gpu.architecture
        value = f"{gpu.name}, {gpu.memory / 2**30:.1f} GiB, sm_{major}{minor}"
        first = first and reason is None
        if first:
            usable.append(gpu)
        level = OK if reason is None else FAULT if gpu.number < num_gpus else WARNING
        found.append(Finding(GROUP, level, f"GPU {gpu.number}",
                             f"{value}: refused, {reason}" if reason else value,
                             "choose other GPUs with CUDA_VISIBLE_DEVICES, or use --num-gpus 0"
                             if reason else ""))
    if not found:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        found.append(Finding(GROUP, FAULT if num_gpus else WARNING, "GPUs", "0: the driver sees "
                             "none" + (f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden is not None
                                       else ""),
                             "see whether nvidia-smi lists one; a container needs --gpus all"))
    return found, usable


def seen(answer: Answer, usable: int, builds: bool, num_gpus: int) -> tuple[list[Finding], int]:
    """How many GPUs a run can use, as MXNet also counts them; `usable` is the driver's count."""
    counts = [report for report in answer.reports if "gpus" in report]
    mine = counts[0]["gpus"] if counts else 0
    count = min(mine, usable)
    if counts and counts[0]["refusal"]:
        return [Finding(GROUP, FAULT, "MXNet's GPUs", f"{count}, and {num_gpus} are asked for",
                        counts[0]["refusal"])], count
    if usable and not builds:
        return [Finding(GROUP, WARNING, "MXNet's GPUs", f"0 of {usable}: it is the CPU build",
                        f"`pip uninstall -y mxnet && {install_packages('gpu')}`")], 0
    if usable > mine:
        errors = [report["error"] for report in answer.reports if "error" in report]
        return [Finding(GROUP, WARNING, "MXNet's GPUs", f"{mine} of {usable}"
                        + (f": {errors[0]}" if errors else ""), "see whether nvidia-smi works")], \
            count
    told = [Finding(GROUP, OK, "MXNet's GPUs", str(mine))] if builds and counts else []
    return told, count


def horovod(answer: Answer | None, builds: bool, num_gpus: int) -> tuple[list[Finding], bool]:
    """Findings on Horovod, and whether it can join several devices.

    One device needs none: then nothing about it is a fault. No answer: MXNet does not load.
    """
    name, version = "Horovod", installed().get("horovod")
    level = FAULT if num_gpus > 1 else WARNING
    if answer is None:
        value = f"{version}, not tried" if version else "not installed"
        return [Finding("several devices", OK, name, value)], False
    errors = [report for report in answer.reports if "error" in report]
    if errors or answer.ended:
        remedy = errors[0]["remedy"] or errors[0]["error"] if errors else answer.ended
        if version is None:
            return [Finding("several devices", level if num_gpus > 1 else OK, name,
                            "not installed; only several devices need it", remedy)], False
        return [Finding("several devices", level, name, f"{version} cannot be used; only several "
                        "devices need it", remedy)], False
    reports = {key: value for report in answer.reports for key, value in report.items()}
    backends = [backend for key, backend in (("gloo", "Gloo"), ("nccl", "NCCL"), ("mpi", "MPI"))
                if reports[key]]
    value = f"{version}, with MXNet, {', '.join(backends)}"
    if builds and not reports["nccl"]:
        found = [Finding("several devices", WARNING, name, f"{value}; without NCCL, sums over GPUs "
                         "pass through the CPU", "build it again with HOROVOD_GPU_OPERATIONS=NCCL "
                         "and --force-reinstall --no-cache-dir")]
    else:
        found = [Finding("several devices", OK, name, value)]
    if "host" in reports:
        found.append(Finding("several devices", WARNING, "host name",
                             f"cannot be resolved: {reports['host']}; Gloo needs it",
                             "add a line with it to /etc/hosts: 127.0.1.1 NAME"))
    return found, True
