"""The processor this process may use. Imports nothing but the standard library."""

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


# Of a rank that its launcher pins: the hardware threads that are its alone, such as "0,2".
PINNED = "GLUON_TRICKS_CORES"
# The OMP_NUM_THREADS that this module chose, for a rank inherits both from its launcher.
_CHOSEN = "GLUON_TRICKS_OMP_THREADS"


def cores(topology: Path = _TOPOLOGY) -> list[list[int]]:
    """The hardware threads this process may run on: a list for each core, by its first thread.

    Where the system does not say which threads are siblings, each counts as a core.
    """
    siblings: dict[str, list[int]] = {}
    for thread in sorted(os.sched_getaffinity(0)):
        file = topology / f"cpu{thread}" / "topology" / "thread_siblings_list"
        core = file.read_text().strip() if file.is_file() else str(thread)
        siblings.setdefault(core, []).append(thread)
    return list(siblings.values())


def physical_cores(topology: Path = _TOPOLOGY) -> int:
    """Cores this process may run on; two hardware threads of one core count once."""
    return len(cores(topology))


def partition_cores(ranks: int, topology: Path = _TOPOLOGY) -> list[list[int]] | None:
    """The hardware threads of each of `ranks` processes: whole cores, as many for each, in a row.

    Cores that are left over stay unused, since the slowest rank is the speed of all. None where
    there are fewer cores than ranks.
    """
    dealt = cores(topology)
    each = len(dealt) // ranks
    if each == 0:
        return None
    return [[thread for core in dealt[rank * each:(rank + 1) * each] for thread in core]
            for rank in range(ranks)]


def local_ranks() -> int:
    """Ranks on this machine; 1 for a process that is none."""
    return int(os.environ.get("HOROVOD_LOCAL_SIZE")
               or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or 1)


def cores_for_this_rank(count: int) -> int:
    """Of `count` cores that this process may run on, those for it: all but for ranks beside it.

    At least 1. A rank that is pinned has its own cores, and so all of what is counted on them.
    """
    return max(1, count if PINNED in os.environ else count // local_ranks())


def use_all_cores() -> None:
    """Let MXNet, imported later, compute on every physical core, or on this rank's share of them.

    Left to itself it takes half of what the system calls processors, for it expects two threads a
    core, and so half of the cores where there is but one. OMP_NUM_THREADS, where set, stands.
    """
    if os.environ.get("OMP_NUM_THREADS") in (None, os.environ.get(_CHOSEN)):
        threads = str(cores_for_this_rank(physical_cores()))
        os.environ["OMP_NUM_THREADS"] = os.environ[_CHOSEN] = threads


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16, so that it is no slow imitation."""
    return cpuinfo.is_file() and "avx512_bf16" in cpuinfo.read_text().split()
