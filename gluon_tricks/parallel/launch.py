"""Starts a command as several ranks on this machine, watches them, and exits as they exit.

The ranks get the same environment as from `horovodrun --gloo`. That program itself (Horovod 0.28.1)
is not used, because

- if /bin/sh is dash, SIGTERM and Ctrl-C reach the ranks as SIGTERM, followed by SIGKILL after five
  seconds, while a save may take minutes; if it is bash, they are stopped (SIGSTOP) before SIGTERM
  is sent, so they are killed without having noticed;
- it exits with 1 whatever the exit codes of its ranks are;
- it loads MXNet before it starts anything, to see how Horovod was built.

Here each signal is forwarded as it is, and the ranks have all the time they need. Once a rank has
failed, the others, which wait for it in a collective operation, have `grace` seconds to notice
before SIGKILL. A rank that exits with 0 sets no such limit, since rank 0 may still be writing. But
130 and 143 count as failures: when all exit together, none may exit before rank 0 has saved. Ctrl-Z
stops only the launcher.

Rank 0 has the launcher's terminal. Of the others' output only the last lines are kept, to be shown
if one of them is the first to fail.
"""

import contextlib
import ctypes
import mmap
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gluon_tricks.errors import InputError
from gluon_tricks.machine import processor

GRACE = 10.0  # seconds from the first failure until all are killed
_LINES, _WIDTH = 20, 2000  # of a rank's output: how many lines are kept, and bytes of each
_LAUNCHER = "GLUON_TRICKS_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def launched() -> bool:
    """Whether this process is one of several ranks."""
    return (launched_size() or 1) > 1


def launched_size() -> int | None:
    """How many ranks `launch`, horovodrun or mpirun started, this one included; None if this is not
    a rank."""
    for name in ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if name in os.environ:
            return int(os.environ[name])
    return None


def adopt_launcher() -> None:
    """In a rank: pin it to its cores, and get SIGTERM when the launcher dies. Else do nothing.

    Must be called before anything starts threads, which would keep the cores they started with.
    Exits with 143 if the launcher is already gone.
    """
    if processor.PINNED in os.environ:
        os.sched_setaffinity(0, map(int, os.environ[processor.PINNED].split(",")))
    launcher = os.environ.pop(_LAUNCHER, None)  # child processes must not see it
    if launcher is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(launcher):
            sys.exit(143)


def launch(ranks: int, *, pin: bool, command: Sequence[str] | None = None,
           grace: float = GRACE) -> int:
    """Run `command` (None: this script again) as that many ranks, and return their exit code.

    `pin`, for ranks that compute on the CPU, gives each its own cores, if there are enough, and
    makes Horovod look for work every 10 ms instead of 1. The code is that of the first rank that
    failed: 1 if a signal killed it, 128 + n if that was signal n and the launcher had forwarded it;
    0 if none failed. Prints on stderr which rank it was, unless rank 0 reported it. Must be called
    from the main thread. Raises InputError if Horovod is missing or was built without MXNet or
    Gloo.
    """
    command = [sys.executable, *sys.orig_argv[1:]] if command is None else command
    with _environments(ranks, pin) as environments, _signals() as arrived:
        job = _Job(ranks)
        try:
            for environment in environments:
                job.start(command, environment)
            job.wait(arrived, grace)
        finally:
            job.finish()
        job.report()
        return job.code()


@contextlib.contextmanager
def _environments(ranks: int, pin: bool) -> Iterator[list[dict[str, str]]]:
    """Each rank's environment, while Horovod's server runs, by which ranks find each other."""
    require_horovod()
    # Imported late: Horovod is optional. This part of it does not load MXNet.
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousServer

    slots = get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks)
    shares = processor.partition_cores(ranks) if pin else None
    server = RendezvousServer()
    port = server.start()
    try:
        server.init(slots)
        common = {**os.environ, "PYTHONUNBUFFERED": "1", _LAUNCHER: str(os.getpid()),
                  **create_run_env_vars("127.0.0.1", ["lo"], str(port))}
        common.pop(processor.PINNED, None)
        if pin:  # waking every 1 ms took Horovod a tenth of a rank's only core
            common.setdefault("HOROVOD_CYCLE_TIME", "10")
        yield [{**common, **create_slot_env_vars(slot),
                **({processor.PINNED: ",".join(map(str, shares[slot.rank]))} if shares else {})}
               for slot in slots]
    finally:
        server.stop()
        server._httpd.server_close()  # its stop() leaves the socket open


def require_horovod() -> None:
    """Raise InputError unless Horovod is installed with MXNet and Gloo. Takes 0.1 s."""
    try:
        import horovod
        import horovod.runner.gloo_run
        from horovod.common.util import get_extension_full_path
    except ImportError as error:
        raise InputError(f"several ranks need Horovod ({error}): {_remedy()}") from None
    extension = get_extension_full_path(horovod.__file__, "mxnet", "mpi_lib")
    again = " --force-reinstall --no-deps --no-cache-dir"
    if not os.path.exists(extension):
        raise InputError(f"this Horovod was built without MXNet: {_remedy(again)}")
    with open(extension, "rb") as file, \
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # A variable that its Gloo code reads; asking Horovod itself would load MXNet.
        if content.find(b"HOROVOD_GLOO_RENDEZVOUS_ADDR") < 0:
            raise InputError(f"this Horovod was built without Gloo: {_remedy(again)}")


def _remedy(flags: str = "") -> str:
    return ("`pip install 'setuptools<70' wheel packaging 'cmake<4'`, then `HOROVOD_WITH_MXNET=1 "
            f"HOROVOD_WITH_GLOO=1 pip install --no-build-isolation{flags} horovod==0.28.1`; "
            "for GPUs add HOROVOD_GPU_OPERATIONS=NCCL")


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that receives the number of each SIGINT, SIGTERM and SIGCHLD as a byte.

    Within the block none of them interrupts the launcher.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        try:
            yield reader
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)


class OutputTail:
    """Keeps the last lines of an output; both it and its lines may be endless."""

    def __init__(self):
        self._complete: deque[bytes] = deque(maxlen=_LINES)
        self._open = b""

    def feed(self, block: bytes) -> None:
        """Take the next bytes. A carriage return also ends a line; empty lines are dropped."""
        *complete, self._open = re.split(rb"[\r\n]+", self._open + block)
        self._open = self._open[-_WIDTH:]
        self._complete.extend(line[-_WIDTH:] for line in complete if line.strip())

    def lines(self) -> list[str]:
        """At most 20 lines, decoded; invalid UTF-8 is replaced."""
        lines = [*self._complete, self._open] if self._open.strip() else self._complete
        return [line.decode(errors="replace") for line in lines][-_LINES:]


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen
    said: OutputTail = field(default_factory=OutputTail)
    ended: float | None = None  # when; the same for all that were found ended together
    killed_by_launcher: bool = False

    def listen(self) -> bool:
        """Read its new output, as much as a pipe holds; False if no more can come."""
        try:
            block = os.read(self.process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        self.said.feed(block)
        return bool(block)

    def end(self, now: float) -> None:
        """Kill it, if it is alive, and the processes it left behind; then reap it."""
        os.killpg(self.process.pid, signal.SIGKILL)  # not reaped yet, so the id is still its own
        self.process.wait()
        self.ended = now


class _Job:
    """The ranks of one launch."""

    def __init__(self, size: int):
        self._size = size
        self._ranks: list[_Rank] = []
        self._forwarded: set[int] = set()

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        """Start the next rank, in its own session: the launcher is to forward Ctrl-C."""
        number = len(self._ranks)
        terminal = {} if number == 0 else {
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=environment, bufsize=0, start_new_session=True,
                                   **terminal)
        self._ranks.append(_Rank(number, process))
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)

    def wait(self, arrived: socket.socket, grace: float) -> None:
        """Until all have ended, forward signals and read output; after a failure, wait no longer
        than `grace` seconds."""
        deadline = None
        with selectors.DefaultSelector() as selector:
            selector.register(arrived, selectors.EVENT_READ)
            for rank in self._ranks[1:]:
                selector.register(rank.process.stdout, selectors.EVENT_READ, rank)
            while self._living():
                left = None if deadline is None else deadline - time.monotonic()
                for key, _ in selector.select(left):
                    if key.fileobj is arrived:
                        self._forward(arrived.recv(1 << 12))
                    elif not key.data.listen():
                        selector.unregister(key.fileobj)
                self._reap()
                if deadline is None and self._failed():
                    deadline = time.monotonic() + grace
                elif deadline is not None and time.monotonic() >= deadline:
                    return  # `finish` kills the rest

    def finish(self) -> None:
        """Kill the ranks that are still alive, and read the last output of all."""
        self._reap()
        for rank in self._living():
            rank.killed_by_launcher = True
            rank.end(time.monotonic())
        for rank in self._ranks[1:]:
            rank.listen()
            rank.process.stdout.close()

    def code(self) -> int:
        """The exit code of the job."""
        failed = self._failed()
        if not failed:
            return 0
        status = min(failed, key=_failure_order).process.returncode
        if status > 0:
            return status
        return 128 - status if -status in self._forwarded else 1

    def report(self) -> None:
        """Print which rank failed first, unless rank 0 reported the reason."""
        failed = self._failed()
        if not failed:
            return
        first = min(failed, key=_failure_order)
        status = first.process.returncode
        lines = first.said.lines()
        if status == self._ranks[0].process.returncode > 0 and (
                first.number == 0 or status in (2, 130, 143) or not lines):
            return  # rank 0 failed alone, or all together: it reported the reason
        how = (f"was killed by {signal.Signals(-status).name}" if status < 0 else
               f"ended with exit code {status}")
        for line in lines:
            print(f"[rank {first.number}] {line}", file=sys.stderr)
        print(f"error: rank {first.number} of {self._size} {how}", file=sys.stderr)

    def _living(self) -> list[_Rank]:
        return [rank for rank in self._ranks if rank.ended is None]

    def _failed(self) -> list[_Rank]:
        """Ranks that ended with a status other than 0 and were not killed by the launcher."""
        return [rank for rank in self._ranks if rank.ended is not None
                and rank.process.returncode != 0 and not rank.killed_by_launcher]

    def _forward(self, numbers: bytes) -> None:
        for number in numbers:
            if number != signal.SIGCHLD:
                self._forwarded.add(number)
                for rank in self._living():
                    os.kill(rank.process.pid, number)

    def _reap(self) -> None:
        """Find and reap the ranks that have ended."""
        now = time.monotonic()
        for rank in self._living():
            if os.waitid(os.P_PID, rank.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                rank.end(now)


def _failure_order(rank: _Rank) -> tuple:
    """A sort key that puts the cause of a failure before its consequences.

    SIGKILL (out of memory, say) comes from outside, so it is a cause, even if a peer that noticed
    was found ended earlier. Of ranks found ended together, one with a code of its own comes before
    one with 1, which is the code of a rank that lost a peer.
    """
    status = rank.process.returncode
    return status != -signal.SIGKILL, rank.ended, status > 0, status == 1, rank.number
