"""The processor this process may use. Imports nothing but the standard library."""

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def physical_cores(topology: Path = _TOPOLOGY) -> int:
    """Cores this process may run on; two hardware threads of one core count once.

    Where the system does not say which threads are siblings, each counts as a core.
    """
    siblings = set()
    for thread in os.sched_getaffinity(0):
        file = topology / f"cpu{thread}" / "topology" / "thread_siblings_list"
        siblings.add(file.read_text().strip() if file.is_file() else str(thread))
    return len(siblings)


def use_all_cores() -> None:
    """Let MXNet, imported later, compute on every physical core.

    Left to itself it takes half of what the system calls processors, for it expects two threads a
    core, and so half of the cores where there is but one. OMP_NUM_THREADS, where set, stands.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(physical_cores()))


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16, so that it is no slow imitation."""
    return cpuinfo.is_file() and "avx512_bf16" in cpuinfo.read_text().split()
