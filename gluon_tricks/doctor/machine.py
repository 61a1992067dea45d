"""Findings on the machine: cores, memory, shared memory, disk, open files."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gluon_tricks.doctor.finding import FAULT, OK, WARNING, Finding
from gluon_tricks.machine import processor

GROUP = "machine"
GIB = 2**30
# Training took 0.63 GiB for the quickstart's network at 64 pixels, and 9.3 for resnet50_v1d at 224
# (train_imagenet.py --benchmark 1, batch 32 on the CPU, the largest resident size).
MEMORY = 1 * GIB
# NCCL's buffers between the GPUs of a host are there; Docker gives 64 MiB by default.
SHARED = 1 * GIB
# ResNet-50 has 102 MB of parameters: a run keeps two checkpoints of them and their momentum, plus
# the best and the last parameters, while it writes a third checkpoint: 0.8 GB.
DISK = 1 * GIB
FILES = 1024


def findings(folder: Path) -> list[Finding]:
    """All findings on the machine; runs go to `folder`."""
    return [cores(), memory(), shared_memory(), *disk(folder), open_files()]


def cores(root: Path = Path("/")) -> Finding:
    """Which cores this process may use, and how much of their time."""
    threads, physical = len(os.sched_getaffinity(0)), processor.physical_cores()
    value = (f"{os.cpu_count()} hardware threads; this process may run on {threads}, "
             f"{physical} core{'s' * (physical != 1)}")
    quota = cpu_quota(root)
    if quota is None:
        return Finding(GROUP, OK, "cores", f"{value}; no quota")
    value += f"; a cgroup's quota of {quota:g}"
    if quota < physical:
        whole = max(1, int(quota))
        return Finding(GROUP, WARNING, "cores", f"{value}, and OpenMP would start {physical} "
                       "threads, which then wait for each other",
                       f"`export OMP_NUM_THREADS={whole}`, and -j {whole}; or raise the quota "
                       "(docker run --cpus)")
    return Finding(GROUP, OK, "cores", value)


def memory(root: Path = Path("/")) -> Finding:
    lines = (root / "proc/meminfo").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    usable, limit = sizes.get("MemAvailable", sizes["MemFree"]), memory_limit(root)
    value = f"{gib(sizes['MemTotal'])}, {gib(usable)} available"
    if limit is not None and limit < sizes["MemTotal"]:
        usable, value = min(usable, limit), f"{value}; a cgroup's limit of {gib(limit)}"
    if usable < MEMORY:
        return Finding(GROUP, WARNING, "memory", value, "a run on the CPU needs more, and the "
                       "system would kill it: lower --batch-size, close other programs, or raise "
                       "the limit (docker run --memory)")
    return Finding(GROUP, OK, "memory", value)


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"


def cpu_quota(root: Path) -> float | None:
    """The CPU quota of this process's cgroups, in processors; None if unlimited."""
    quotas = []
    for folder in cgroups(root, "cpu"):
        two = _words(folder / "cpu.max")
        one = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        for words in (two, one):
            if len(words) == 2 and words[0] not in ("max", "-1"):
                quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit(root: Path) -> int | None:
    """The memory limit of this process's cgroups, in bytes; None if unlimited."""
    return min((int(words[0]) for folder in cgroups(root, "memory")
                for name in ("memory.max", "memory.limit_in_bytes")
                for words in [_words(folder / name)] if words and words[0] != "max"), default=None)


def cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the cgroups (version 2 or 1) that this process is in, up to the root cgroup.

    In a container the path may be the host's, while its own cgroup is mounted as the root.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if names else "")
        folder = top / path.lstrip("/")
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent
        yield top


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return Finding(GROUP, WARNING, "shared memory", f"{folder}: {error.strerror}",
                       "several GPUs need it: mount a tmpfs there")
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    value = f"{gib(size)} in {folder}, {gib(free)} free"
    if free < SHARED:
        return Finding(GROUP, WARNING, "shared memory", value, "several GPUs need more: docker run "
                       "--shm-size 1g, or --ipc host; elsewhere `mount -o remount,size=1G "
                       "/dev/shm`")
    return Finding(GROUP, OK, "shared memory", value)


def nearest(folder: Path) -> Path:
    """The folder itself, or its nearest existing parent."""
    folder = folder.absolute()
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def disk(folder: Path) -> list[Finding]:
    """Whether runs can be written in `folder`, and how much space is left. Leaves nothing there."""
    place = nearest(folder)
    name = "run folder"
    try:
        with tempfile.NamedTemporaryFile(prefix=".gluon_tricks-doctor-", dir=place) as file:
            file.write(b"x")
    except OSError as error:
        return [Finding(GROUP, FAULT, name, f"{place} cannot be written: {error.strerror}",
                        "give another one with --save-dir, or get write access to it")]
    free = shutil.disk_usage(place).free
    found = [Finding(GROUP, OK, name, f"{place} can be written")]
    value = f"{gib(free)} free in {place}"
    if free < DISK:
        return [*found, Finding(GROUP, WARNING, "disk", value, "a run of ResNet-50 keeps 0.8 GB: "
                                "free some space, or give another --save-dir")]
    return [*found, Finding(GROUP, OK, "disk", value)]


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding(GROUP, OK, "open files", "no limit")
    if soft < FILES:
        return Finding(GROUP, WARNING, "open files", f"{soft} at most",
                       f"`ulimit -n {FILES if hard < 0 else min(FILES, hard)}`"
                       + (f"; the hard limit is {hard}, which root can raise" if 0 < hard < FILES
                          else ""))
    return Finding(GROUP, OK, "open files", f"{soft} at most")
