"""The ranks of a run, one process per device: a single one, or several that Horovod joins.

All ranks must call the same methods in the same order; those that return a result wait for all
ranks. Values are sent as JSON and arrays as they are: nothing that another rank sends can run code.
Horovod is imported only if there are several ranks.
"""

import argparse
import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gluon_tricks.errors import InputError, ReportedByAnotherRank, RunFault, Stopped
from gluon_tricks.machine import gpus
from gluon_tricks.parallel.launch import launch, launched_size, require_horovod

_AT_ONCE = 4  # sums in flight: names repeat after so many of a length
# What Horovod says when a rank is gone; Gloo and NCCL say it of the operation that was in flight.
_GONE = re.compile(r"Horovod has been shut down|by peer|broken pipe|not connected|"
                   r"(read|write) error|timed out|timeout|nccl", re.IGNORECASE)


class Ranks:
    """A run's processes, as seen from one of them. This class is for a single process."""

    rank = 0
    size = 1
    local_rank = 0  # number among the ranks on this machine
    hosts = 1
    _agreed = False  # whether all exit because of an error that all know of

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        pass

    def allgather_object(self, value: Any) -> list:
        """Each rank's value, in the order of ranks, after a round trip through JSON."""
        return [json.loads(json.dumps(value))]

    def allreduce_async(self, numbers: Sequence[float]) -> Callable[[], list[float]]:
        """Start to sum numbers over ranks, as float64; call what it returns to wait for the sums.

        Of sums of the same length, at most three may be in flight when another is started.
        """
        return lambda: list(numbers)

    def broadcast(self, arrays: Mapping[str, Any]) -> None:
        """Copy rank 0's MXNet arrays to all ranks, in place."""

    def average(self, arrays: Mapping[str, Any]) -> None:
        """Replace MXNet arrays by their mean over ranks, in place. Does not wait."""

    def allreduce_gradients(self, gradients: Sequence[Any], *, groups: int = 0,
                            compress: bool = False, predivide: float | None = None) -> float:
        """Sum gradients over ranks, in place; what they were divided by. Does not wait.

        Each rank's are first divided by `predivide` (None: the number of ranks, which makes the sum
        a mean), lest a sum in FP16 overflow. `compress`: FP32 is sent as FP16. `groups`: Horovod
        reduces each of so many groups as one; 0: it fuses what is ready within a cycle.
        """
        return 1.0

    def allreduce(self, numbers: Sequence[float]) -> list[float]:
        """Sums of numbers over ranks, as float64."""
        return self.allreduce_async(numbers)()

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value; the values of the others are ignored."""
        return self.allgather_object(value if self.first else None)[0]

    def union(self, numbers: Iterable[int]) -> set[int]:
        """The union of all ranks' numbers."""
        return set().union(*self.allgather_object(sorted(int(number) for number in numbers)))

    def wait(self) -> None:
        """Wait until all ranks have called this: a barrier."""
        self.allgather_object(None)

    def all(self, good: bool) -> bool:
        """Whether `good` is true on all ranks."""
        return all(self.allgather_object(bool(good)))

    def agreed_error(self, error: BaseException) -> BaseException:
        """What to raise when all ranks know of the same error: only rank 0 reports it."""
        self._agreed = True
        if self.first:
            return error
        return ReportedByAnotherRank(128 + error.number if isinstance(error, Stopped) else
                             2 if isinstance(error, InputError) else 1)

    @contextlib.contextmanager
    def all_or_none(self) -> Iterator[None]:
        """A block that succeeds on all ranks or on none: if it raises InputError on one, it does on
        all, and rank 0 reports it."""
        error = None
        try:
            yield
        except InputError as raised:
            error = raised
        texts = self.allgather_object(error and str(error))
        said = {rank: text for rank, text in enumerate(texts) if text}
        if 0 in said:
            raise self.agreed_error(error or InputError(said[0]))
        if said:
            rank, text = next(iter(said.items()))
            raise self.agreed_error(InputError(f"rank {rank}: {text}")) from error

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Raise InputError if a rank has another value than rank 0."""
        every = self.allgather_object(dict(values))
        for rank, theirs in enumerate(every):
            for name in sorted(every[0].keys() | theirs.keys()):
                first, other = every[0].get(name), theirs.get(name)
                if first != other:
                    raise self.agreed_error(InputError(
                        f"rank {rank} has {name} {other}, rank 0 has {first}: start all ranks with "
                        "the same flags, on the same data, with the same versions"))


class Horovod(Ranks):
    """One of several processes. Raises InputError if Horovod cannot join `size` of them."""

    def __init__(self, size: int):
        require_horovod()
        import horovod.mxnet as hvd  # only here: it is optional

        self._hvd = hvd
        hvd.init()
        if hvd.size() != size:
            raise InputError(f"{size} ranks were asked for, but Horovod joins {hvd.size()}: start "
                             "them with horovodrun, which tells each their number")
        self.rank, self.size, self.local_rank = hvd.rank(), hvd.size(), hvd.local_rank()
        self.hosts = hvd.cross_size()  # as the first rank of each sees it
        self._sums: Counter[int] = Counter()  # by length

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        import mxnet as mx

        if kind is None:
            mx.nd.waitall()
        if kind is None or self._agreed:
            self._hvd.shutdown()  # else skip it: the first to leave counts as the cause
            with contextlib.suppress(mx.MXNetError):  # of operations in flight; MXNet would raise
                mx.nd.waitall()                       # it when Python exits
        if isinstance(error, mx.MXNetError) and is_peer_failure(error):
            raise RunFault(peer_failure_message(error)) from error

    def allgather_object(self, value: Any) -> list:
        import mxnet as mx

        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self._hvd.allgather(mx.nd.array([len(text)], dtype="int64"), name="lengths")
        joined = self._hvd.allgather(mx.nd.array(text, dtype="uint8"), name="texts").asnumpy()
        ends = np.cumsum(lengths.asnumpy())
        return [json.loads(part.tobytes()) for part in np.split(joined, ends[:-1])]

    def allreduce_async(self, numbers: Sequence[float]) -> Callable[[], list[float]]:
        import mxnet as mx

        # Names are reused, since Horovod caches by name; for each length, only after _AT_ONCE sums,
        # lest one that is still in flight has the same name.
        count = len(numbers)
        self._sums[count] = (self._sums[count] + 1) % _AT_ONCE
        sums = self._hvd.allreduce(mx.nd.array(list(numbers), dtype="float64"), op=self._hvd.Sum,
                                   name=f"sum of {count}, {self._sums[count]}")
        return lambda: sums.asnumpy().tolist()

    def broadcast(self, arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            self._hvd.broadcast_(array, 0, name=f"broadcast {name}")
        for array in arrays.values():
            array.wait_to_read()

    def average(self, arrays: Mapping[str, Any]) -> None:
        # One group: else timing decides what Horovod fuses, the order of adding, and the last bits.
        for number, part in enumerate(_parts(list(arrays.values()), 1)):
            self._hvd.grouped_allreduce_(part, op=self._hvd.Sum, prescale_factor=1 / self.size,
                                         name=f"average {next(iter(arrays))} {number}")

    def allreduce_gradients(self, gradients: Sequence[Any], *, groups: int = 0,
                            compress: bool = False, predivide: float | None = None) -> float:
        divisor = predivide or float(self.size)
        buffers = [(gradient / divisor).astype("float16") for gradient in gradients] \
            if compress else list(gradients)
        options = {"op": self._hvd.Sum, "prescale_factor": 1.0 if compress else 1 / divisor}
        if groups:
            for number, part in enumerate(_parts(buffers, groups)):
                self._hvd.grouped_allreduce_(part, name=f"gradients {number}", priority=-number,
                                             **options)
        else:  # the first layers first, since the next forward pass begins with them
            for number, gradient in enumerate(buffers):
                self._hvd.allreduce_(gradient, name=f"gradient {number}", priority=-number,
                                     **options)
        if compress:
            for gradient, sent in zip(gradients, buffers, strict=True):
                gradient[:] = sent.astype(gradient.dtype)
        return divisor


def _parts(arrays: Sequence[Any], groups: int) -> Iterator[list]:
    """Split arrays, in order, into groups of about equal length, and each of these by dtype."""
    groups = min(groups, len(arrays))  # no groups if there are no arrays
    for group in range(groups):
        part = arrays[len(arrays) * group // groups:len(arrays) * (group + 1) // groups]
        for dtype in dict.fromkeys(array.dtype for array in part):
            yield [array for array in part if array.dtype == dtype]


def is_peer_failure(error: Exception) -> bool:
    """Whether an MXNet error says that a rank exited or could not be reached."""
    return _GONE.search(str(error)) is not None


def peer_failure_message(error: Exception) -> str:
    """What to say about such an error: its own text, too, if that says more."""
    said, words = "another rank exited; this one cannot continue", str(error).strip()
    return said if "Horovod has been shut down" in words else \
        f"{said} ({words.splitlines()[-1][:200]})"


def join(size: int) -> Ranks:
    """The ranks of a run of `size` processes, of which this is one. Raises InputError."""
    return Horovod(size) if size > 1 else Ranks()


def infer_device_count(flags: argparse.Namespace) -> None:
    """Under horovodrun, set --num-gpus or --num-cpu-ranks to the number of ranks it started, if
    neither was given. Raises InputError if another number was given."""
    size = launched_size()
    if size in (None, 1):
        return
    wanted = getattr(flags, "num_gpus", 0), getattr(flags, "num_cpu_ranks", 0)
    if not any(wanted):
        import mxnet as mx

        wanted = (size, 0) if mx.context.num_gpus() else (0, size)
        flags.num_gpus, flags.num_cpu_ranks = wanted
    name = "--num-gpus" if wanted[0] else "--num-cpu-ranks"
    given = max(wanted)
    if given != size:
        raise InputError(f"{name} {given}, but {size} ranks were started: it counts the devices of "
                         f"all ranks; give {size}, or drop it")


def check_gpus(wanted: int, here: int) -> None:
    """Raise InputError if MXNet sees fewer than `here` GPUs, which a run on `wanted` GPUs needs on
    this machine, or if it has no code for one of them."""
    gpus.check(wanted, here, gpus.load_driver())
    import mxnet as mx

    found = mx.context.num_gpus()
    if found == 0:
        raise InputError(f"--num-gpus {wanted}: MXNet sees no GPU here; use --num-gpus 0, or "
                         "install mxnet-cu112 and an NVIDIA driver")
    if found < here:
        raise InputError(f"--num-gpus {wanted}: MXNet sees {found} here; use --num-gpus {found}, "
                         "or start ranks on several hosts with horovodrun")


def start_ranks(num_gpus: int, num_cpu_ranks: int) -> int:
    """Run this script again on this machine, once per device; the exit code of the job.

    Raises InputError if there are fewer GPUs, or no Horovod.
    """
    if num_gpus:
        check_gpus(num_gpus, num_gpus)
    return launch(num_gpus or num_cpu_ranks, pin=num_gpus == 0)
