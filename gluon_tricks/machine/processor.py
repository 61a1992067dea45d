"""The processor cores this process may use. Imports only the standard library."""

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


# In a rank that its launcher pins: the hardware threads that only it may use, such as "0,2".
PINNED = "GLUON_TRICKS_CORES"
# The OMP_NUM_THREADS that this module chose: a rank inherits both from its launcher.
_CHOSEN = "GLUON_TRICKS_OMP_THREADS"


def cores(topology: Path = _TOPOLOGY) -> list[list[int]]:
    """The hardware threads this process may run on: a list for each core, by its first thread.

    If the system does not say which threads are siblings, each counts as a core.
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
    """The hardware threads of each of `ranks` processes: equally many adjacent cores for each.

    Leftover cores stay unused, since the slowest rank sets the speed of all. None if there are
    fewer cores than ranks.
    """
    found = cores(topology)
    each = len(found) // ranks
    if each == 0:
        return None
    return [[thread for core in found[rank * each:(rank + 1) * each] for thread in core]
            for rank in range(ranks)]


def local_ranks() -> int:
    """Ranks on this machine; 1 if this process is not a rank."""
    return int(os.environ.get("HOROVOD_LOCAL_SIZE")
               or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or 1)


def cores_for_this_rank(count: int) -> int:
    """How many of `count` cores this process should use, given the other ranks on this machine.

    At least 1. A pinned rank has its own cores, so it uses all that it counts.
    """
    return max(1, count if PINNED in os.environ else count // local_ranks())


def use_all_cores() -> None:
    """Make MXNet, imported later, compute on all physical cores, or on this rank's share of them.

    By default it uses half of the logical processors, assuming two threads per core: half of the
    cores, if each has one. OMP_NUM_THREADS is kept if it is set.
    """
    if os.environ.get("OMP_NUM_THREADS") in (None, os.environ.get(_CHOSEN)):
        threads = str(cores_for_this_rank(physical_cores()))
        os.environ["OMP_NUM_THREADS"] = os.environ[_CHOSEN] = threads


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 in hardware, rather than slowly emulating it."""
    return cpuinfo.is_file() and "avx512_bf16" in cpuinfo.read_text().split()
