"""Ranks as real processes, most of plain Python: their environment, signals and failures."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import ROOT, alive, gone, python, wait_for

from gluon_tricks.machine import processor
from gluon_tricks.parallel import launch

RANK = "import json, os, signal, sys, time\nrank = int(os.environ['HOROVOD_RANK'])\n"
SCRIPT = """
    import sys
    from gluon_tricks import cli
    from gluon_tricks.parallel import launch
    command = [sys.executable, '-c', {rank!r}]
    cli.run(lambda: launch.launch({ranks}, pin={pin}, command=command, grace={grace}))
"""


@pytest.fixture
def horovod():
    """Skips if Horovod is missing, except in CI, which must have it."""
    if importlib.util.find_spec("horovod") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs Horovod")


@pytest.fixture
def run(horovod, tmp_path, monkeypatch):
    """run(code, ranks=2, grace=10): launch such ranks in `tmp_path`; the exit code."""
    def start(code: str, ranks: int = 2, grace: float = 10) -> int:
        command = [sys.executable, "-S", "-c", RANK + textwrap.dedent(code)]
        return launch.launch(ranks, pin=False, command=command, grace=grace)
    monkeypatch.chdir(tmp_path)
    return start


@pytest.fixture
def start(horovod, tmp_path):
    """start(code, ranks=2, grace=10): a script that launches such ranks in `tmp_path`."""
    started = []

    def begin(code, ranks=2, grace=10.0, pin=False, **options):
        rank = RANK + textwrap.dedent(code)
        process = python(SCRIPT.format(rank=rank, ranks=ranks, pin=pin, grace=grace),
                         cwd=tmp_path, **options)
        started.append(process)
        return process
    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_each_rank_has_the_environment_that_horovodrun_gives(run):
    assert run("""
        own = {name: value for name, value in os.environ.items()
               if name.startswith(("HOROVOD", "NCCL", "PYTHONUNB"))}
        own["leads a session"] = os.getsid(0) == os.getpid()
        json.dump(own, open(f"{rank}.json", "w"))
    """, ranks=3) == 0
    seen = [json.loads(Path(f"{rank}.json").read_text()) for rank in range(3)]
    port, = {one.pop("HOROVOD_GLOO_RENDEZVOUS_PORT") for one in seen}
    assert int(port) >= 1024
    for rank, one in enumerate(seen):
        assert one == {
            "HOROVOD_HOSTNAME": "localhost", "HOROVOD_RANK": str(rank), "HOROVOD_SIZE": "3",
            "HOROVOD_LOCAL_RANK": str(rank), "HOROVOD_LOCAL_SIZE": "3", "HOROVOD_CROSS_RANK": "0",
            "HOROVOD_CROSS_SIZE": "1", "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
            "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_IFACE": "lo", "NCCL_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1",
            "leads a session": True}


def test_rank_0_speaks_and_the_others_are_silent(run, capfd):
    assert run("print('out', rank); print('err', rank, file=sys.stderr)", ranks=3) == 0
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


LATER = "time.sleep(0.3)\n"
FAILURES = {
    "a rank says why": (
        "if rank == 1: print('reading'); sys.exit('no such file')\ntime.sleep(60)", 1,
        "[rank 1] reading\n[rank 1] no such file\nerror: rank 1 of 3 ended with exit code 1\n"),
    "the code of the first": (
        f"if rank == 2: sys.exit(7)\n{LATER}sys.exit(3)", 7,
        "error: rank 2 of 3 ended with exit code 7\n"),
    "a killed rank, and peers that notice": (
        f"if rank == 1: print('on'); os.kill(os.getpid(), 9)\n{LATER}sys.exit(1)", 1,
        "[rank 1] on\nerror: rank 1 of 3 was killed by SIGKILL\n"),
    "a killed rank that is seen after its peers": (
        f"if rank: {LATER}\nif rank == 1: os.kill(os.getpid(), 9)\nsys.exit(1)", 1,
        "error: rank 1 of 3 was killed by SIGKILL\n"),
    "rank 0 crashes": (
        f"if rank == 0: os.kill(os.getpid(), 11)\n{LATER}print('lost a peer'); sys.exit(1)", 1,
        "error: rank 0 of 3 was killed by SIGSEGV\n"),
    "rank 0 says it itself": (
        f"if rank == 0: sys.exit('a full disk')\n{LATER}print('lost a peer'); sys.exit(1)", 1,
        "a full disk\n"),
    "wrong input, which all have seen": (
        f"if rank == 0:\n  {LATER}  print('error: x.rec is missing', file=sys.stderr)\n"
        "else: print('something')\nsys.exit(2)", 2, "error: x.rec is missing\n"),
    "wrong input that rank 0 has not seen": (
        f"if rank == 1: print('cannot read'); sys.exit(2)\n{LATER}sys.exit(1)", 2,
        "[rank 1] cannot read\nerror: rank 1 of 3 ended with exit code 2\n"),
    "a joint end, said by rank 0": (
        f"if rank == 0: {LATER}\nif rank == 0: sys.exit('the loss is nan')\nsys.exit(1)", 1,
        "the loss is nan\n"),
    "a joint stop": (f"if rank == 0: {LATER}\nprint('saving')\nsys.exit(143)", 143, ""),
    "a stop of one rank alone": (
        "if rank == 1: sys.exit(143)\ntime.sleep(60)", 143,
        "error: rank 1 of 3 ended with exit code 143\n")}


@pytest.mark.parametrize(("code", "expected", "said"), FAILURES.values(), ids=FAILURES)
def test_failures(run, capfd, code, expected, said):
    assert run(code, ranks=3, grace=0.8) == expected
    assert capfd.readouterr().err == said


@pytest.mark.parametrize(("end", "others", "code"), [
    ("sys.exit(7)", 1, 7), ("os.kill(os.getpid(), 11)", 3, 1)])
def test_of_ranks_that_end_together_the_cause_is_named(run, capfd, monkeypatch, end, others, code):
    """Time stands still here, so all end together; 1 is the code of a rank that lost a peer."""
    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: 0.0))
    assert run(f"if rank == 1: {LATER}\nif rank == 1: {end}\nsys.exit({others})", ranks=3) == code
    assert "error: rank 1 of 3 " in capfd.readouterr().err


@pytest.mark.alone
def test_the_others_have_their_grace_and_no_more(run):
    """Rank 0 needs a part of it; rank 1 is stuck, and its child would outlive it."""
    began = time.monotonic()
    assert run("""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if rank == 2:
            os.kill(os.getpid(), 9)
        if rank == 0:
            time.sleep(0.5)
            open('done', 'w').write('saved')
            sys.exit(1)
        child = os.fork()
        if child:
            open('child', 'w').write(str(child))
        time.sleep(60)
    """, ranks=3, grace=1.5) == 1
    assert 1.5 <= time.monotonic() - began < 5
    assert Path("done").read_text() == "saved"
    assert gone(int(Path("child").read_text()))


def test_a_rank_that_is_done_sets_no_limit(run):
    assert run("""
        if rank == 0:
            time.sleep(1)
            open('picture', 'w').write('drawn')
    """, grace=0.2) == 0
    assert Path("picture").read_text() == "drawn"


def here():
    """What a launch must leave unchanged."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    return (children, set(threading.enumerate()), len(os.listdir("/proc/self/fd")),
            signal.set_wakeup_fd(-1),
            [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)])


def test_nothing_is_left_behind(run, monkeypatch):
    """Neither by a job that ended nor by a launcher that failed."""
    signal.set_wakeup_fd(-1)
    before = here()
    assert run("sys.exit(rank)") == 1
    assert here() == before

    class Broken:
        def __init__(self):
            wait_for(Path("pid"))
            raise MemoryError

    monkeypatch.setattr(launch.selectors, "DefaultSelector", Broken)
    with pytest.raises(MemoryError):
        run("if rank: open('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    assert here() == before
    assert not alive(int(Path("pid").read_text()))


SAVING = """
    def save(number, frame):
        open(f'{rank}.got', 'a').write(f'{number} ')
        time.sleep(0.8)
        sys.exit(128 + number)
    def again(number, frame):
        if os.path.exists(f'{rank}.got'):
            open(f'{rank}.got', 'a').write(f'{number} ')
            os._exit(130)
        save(number, frame)
    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGINT, again)
    open(f'{rank}.pid', 'w').write(str(os.getpid()))
    time.sleep(60)
"""


@pytest.mark.alone
@pytest.mark.parametrize(("numbers", "code"), [
    ([signal.SIGTERM], 143), ([signal.SIGINT], 130), ([signal.SIGINT, signal.SIGINT], 130)])
def test_signals_reach_all_ranks_and_saving_takes_its_time(start, tmp_path, numbers, code):
    """It may take longer than the grace period, unless a second Ctrl-C ends it."""
    process = start(SAVING, grace=0.5)
    wait_for(tmp_path / "0.pid", tmp_path / "1.pid")
    for number in numbers:
        process.send_signal(number)
        sent = time.monotonic()
        wait_for(tmp_path / "0.got", tmp_path / "1.got")
        time.sleep(0.1)
    assert (*process.communicate(timeout=10), process.returncode) == ("", "", code)
    assert (time.monotonic() - sent > 0.7) == (len(numbers) == 1)
    for rank in range(2):
        assert (tmp_path / f"{rank}.got").read_text().split() == [str(int(n)) for n in numbers]


def test_ranks_that_a_signal_reaches_too_early(start, tmp_path):
    """They die of it; the job ends like a stopped one."""
    process = start("open(f'{rank}.pid', 'w').write('x')\ntime.sleep(60)")
    wait_for(tmp_path / "0.pid", tmp_path / "1.pid")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 143
    assert re.fullmatch(r"error: rank [01] of 2 was killed by SIGTERM\n", said)


FOLLOWING = """
    from gluon_tricks import cli
    def main():
        open(f'{rank}.pid', 'w').write(str(os.getpid()))
        try:
            time.sleep(60)
        except cli.Terminated:
            open(f'{rank}.got', 'w').write('SIGTERM')
            raise
    cli.run(main)
"""


def test_ranks_of_a_launcher_that_was_killed_get_sigterm(start, tmp_path):
    process = start(FOLLOWING)
    pids = [tmp_path / f"{rank}.pid" for rank in range(2)]
    wait_for(*pids)
    process.kill()
    wait_for(tmp_path / "0.got", tmp_path / "1.got", seconds=5)
    assert all(gone(int(path.read_text())) for path in pids)


def test_output_without_end_neither_blocks_nor_fills_the_memory(start):
    """At its end the rank that writes it prints the peak memory of its launcher."""
    process = start("""
        if rank:
            for _ in range(150):
                os.write(1, b'x' * 1_000_000)
                os.write(2, 3000 * b'line\\n')
            print([line for line in open(f'/proc/{os.getppid()}/status') if 'VmHWM' in line])
            sys.exit(5)
    """)
    *lines, used, last = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 5
    assert lines == 19 * ["[rank 1] line"]
    assert last == "error: rank 1 of 2 ended with exit code 5"
    assert int(re.search(r"(\d+) kB", used).group(1)) < 60_000


THREADS = """
    from gluon_tricks import cli
    def main():
        own = [os.environ['OMP_NUM_THREADS'], sorted(os.sched_getaffinity(0))]
        json.dump(own, open(f'{rank}.json', 'w'))
    cli.run(main)
"""


@pytest.mark.parametrize(("pin", "env"), [
    (False, {}), (True, {}), (False, {"OMP_NUM_THREADS": "7"}),
    (False, {"GLUON_TRICKS_CORES": ",".join(map(str, os.sched_getaffinity(0)))})])
def test_ranks_share_the_cores(start, tmp_path, pin, env):
    assert start(THREADS, pin=pin, env=env).wait(timeout=30) == 0
    threads, allowed = zip(*[json.loads((tmp_path / f"{rank}.json").read_text())
                             for rank in range(2)], strict=True)
    here = os.sched_getaffinity(0)
    each = max(1, processor.physical_cores() // 2)
    assert set(threads) == {env.get("OMP_NUM_THREADS", str(each))}
    if pin and processor.physical_cores() > 1:
        assert not set(allowed[0]) & set(allowed[1])
        assert len(allowed[0]) == len(allowed[1]) and {*allowed[0], *allowed[1]} <= here
    else:
        assert set(allowed[0]) == set(allowed[1]) == here


def test_without_a_command_the_script_starts_again(horovod, tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent("""
        import os, sys
        from gluon_tricks import cli
        from gluon_tricks.parallel import launch
        def main():
            if not launch.launched():
                return launch.launch(2, pin=False)
            assert ("null" in os.readlink("/proc/self/fd/0")) == (os.environ["HOROVOD_RANK"] == "1")
            print(sys.argv, sys.warnoptions, sys.flags.utf8_mode)
        cli.run(main)
    """))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", "script.py", "--a", "b c"], cwd=tmp_path,
        input="", capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['script.py', '--a', 'b c'] ['error'] 1\n"


@pytest.mark.parametrize("name", ["HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_who_is_a_rank(monkeypatch, name):
    assert not launch.launched() and launch.launched_size() is None
    for size, beside_others in (("1", False), ("2", True), ("16", True)):
        monkeypatch.setenv(name, size)
        assert launch.launched() is beside_others and launch.launched_size() == int(size)


@pytest.mark.parametrize(("built", "why"), [
    (None, "several ranks need Horovod"), ("nothing", "was built without MXNet"),
    (b"HOROVOD_RANK", "was built without Gloo")])
def test_horovod_is_missing_or_was_built_without_what_it_takes(tmp_path, built, why):
    """A package of that name in its place, with such an extension."""
    for name in ("__init__", "runner/__init__", "runner/gloo_run", "common/__init__"):
        file = tmp_path / "horovod" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    extension = tmp_path / "mpi_lib.so"
    (tmp_path / "horovod/common/util.py").write_text(
        f"def get_extension_full_path(*_): return {str(extension)!r}")
    if isinstance(built, bytes):
        extension.write_bytes(built)
    process = python(f"""
        import sys
        from gluon_tricks import cli
        from gluon_tricks.parallel import launch
        if {built is None}:
            sys.modules['horovod'] = None
        cli.run(lambda: launch.launch(2, pin=False, command=['true']))
    """, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    out, line = process.communicate(timeout=30)
    assert (process.returncode, out, line.count("\n")) == (2, "", 1)
    assert line.startswith("error: ") and why in line
    assert "HOROVOD_WITH_MXNET=1 HOROVOD_WITH_GLOO=1 pip install" in line
    assert ("--force-reinstall" in line) == (built is not None)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(("end", "code", "out", "said"), [
    ("pass", 0, "3 True 3.0\n", ""),
    ("raise OSError('full')", 1, "",
     "[rank 1] error: full\nerror: rank 1 of 3 ended with exit code 1\n")], ids=["sum", "fail"])
def test_ranks_that_reduce_by_horovod(start, end, code, out, said):
    """They find each other; the one that fails is named, though rank 0 ends just after it."""
    process = start(f"""
        from gluon_tricks import cli
        def main():
            import mxnet as mx
            import horovod.mxnet as hvd
            hvd.init()
            def add():
                return hvd.allreduce(mx.nd.array([hvd.rank()]), average=False).asscalar()
            total = add()
            if rank == 1:
                {end}
            add()
            print(hvd.size(), hvd.local_rank() == hvd.rank(), total)
        cli.run(main)
    """, ranks=3)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, printed) == (code, out), errors
    assert errors.endswith(said)
