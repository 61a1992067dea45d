"""How scripts end: exit codes, one-line errors, and a --help that loads nothing heavy."""

import os
import signal
from importlib import metadata
from pathlib import Path

import pytest
from processes import ROOT, python

from gluon_tricks import cli
from gluon_tricks.config.fields import numbers
from gluon_tricks.errors import InputError, ReportedByAnotherRank, RunFault

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


@pytest.fixture
def end(capsys):
    """end(main): the exit code and what is on stderr."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(main):
        with pytest.raises(SystemExit) as caught:
            cli.run(main)
        return caught.value.code, capsys.readouterr().err
    yield run
    signal.signal(signal.SIGTERM, handler)


def raising(error):
    def main():
        raise error
    return main


@pytest.mark.parametrize(("error", "code", "line"), [
    (InputError("x.rec is missing: give one"), 2, "error: x.rec is missing: give one\n"),
    (KeyboardInterrupt(), 130, "error: stopped by Ctrl-C\n"),
    (cli.Terminated(), 143, "error: stopped by SIGTERM\n"),
    (OSError(28, "No space left on device", "a.params"), 1,
     "error: [Errno 28] No space left on device: 'a.params'\n"),
    (RunFault("the loss is nan"), 1, "error: the loss is nan\n"),
    (ReportedByAnotherRank(143), 143, ""), (ReportedByAnotherRank(1), 1, "")])
def test_exit_codes(end, error, code, line):
    assert end(raising(error)) == (code, line)


def test_an_end_without_fault(end):
    assert end(lambda: None) == (0, "")
    assert end(lambda: 0) == (0, "")
    assert end(lambda: 2) == (2, "")


def test_an_unexpected_fault_shows_its_traceback():
    done = python("from gluon_tricks import cli\ncli.run(lambda: 1 / 0)")
    _, err = done.communicate(timeout=60)
    assert done.returncode == 1
    assert err.startswith("Traceback") and err.rstrip().endswith(
        "ZeroDivisionError: division by zero")


@pytest.mark.parametrize(("number", "code", "name"), [
    (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_signals_unwind_and_end_in_one_line(number, code, name):
    process = python(
        "import time\nfrom gluon_tricks import cli\n"
        "def main():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    except Exception:\n"
        "        print('swallowed')\n"
        "    finally:\n"
        "        print('cleaned up', flush=True)\n"
        "cli.run(main)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "cleaned up\n", f"error: stopped by {name}\n")


@pytest.mark.parametrize(("number", "code", "said"), [
    ("SIGTERM", 143, "error: stopped by SIGTERM\n"), ("SIGINT", 130, "error: stopped by Ctrl-C\n")])
def test_a_signal_before_there_are_ranks(number, code, said):
    process = python(f"""
        import os, signal
        from gluon_tricks import cli
        from gluon_tricks.parallel import launch
        launch.require_horovod = lambda: os.kill(os.getpid(), signal.{number})
        cli.run(lambda: launch.launch(2, pin=False, command=['false']))
    """)
    assert (*process.communicate(timeout=30), process.returncode) == ("", said, code)


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_reader_that_left_is_no_fault_to_print(length):
    """As with `| head -1`: nothing on stderr, whether the output filled a buffer or not."""
    read, write = os.pipe()
    os.close(read)
    process = python(f"from gluon_tricks import cli\ncli.run(lambda: print('x' * {length}))",
                     stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")


def test_the_parser_takes_no_abbreviation_and_errs_in_one_line(capsys):
    parser = cli.Parser(prog="thing")
    parser.add_argument("--long-flag", type=int)
    assert parser.parse_args(["--long-flag", "3"]).long_flag == 3
    for arguments in (["--long", "3"], ["--long-flag", "x"], ["--other"]):
        with pytest.raises(SystemExit) as caught:
            parser.parse_args(arguments)
        line, = capsys.readouterr().err.splitlines()
        assert caught.value.code == 2
        assert line.startswith("thing: error: ") and "--help" in line


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_loads_neither_mxnet_nor_opencv(name):
    code = (f"import runpy, sys\nsys.argv = [{name!r}, '--help']\n"
            "try:\n"
            f"    runpy.run_path({str(ROOT / 'scripts' / name)!r}, run_name='__main__')\n"
            "except SystemExit as end:\n"
            "    print('code', end.code or 0)\n"
            "print('loaded', {'mxnet', 'gluoncv', 'cv2', 'matplotlib', 'horovod'}\n"
            "      & set(sys.modules))\n")
    process = python(code)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert out.startswith("usage: ")
    assert out.splitlines()[-2:] == ["code 0", "loaded set()"]


def test_a_second_sigterm_does_not_break_the_clean_up():
    code = ("import os, signal\nfrom gluon_tricks import cli\n"
            "def main():\n"
            "    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
            "    finally:\n        os.kill(os.getpid(), signal.SIGTERM)\n        print('cleaned')\n"
            "cli.run(main)")
    process = python(code)
    assert process.communicate(timeout=60) == ("cleaned\n", "error: stopped by SIGTERM\n")
    assert process.returncode == 143


def test_a_rank_takes_its_cores_before_all_else():
    """Threads keep the cores that they start with, and OpenMP's are counted from these.

    That it has a launcher is not for the processes that it starts.
    """
    core = min(os.sched_getaffinity(0))
    process = python(
        "import os, sys\nfrom gluon_tricks import cli\n"
        "cli.run(lambda: print(os.sched_getaffinity(0), os.environ['OMP_NUM_THREADS'],\n"
        "                      {'numpy', 'GLUON_TRICKS_LAUNCHER'} & {*sys.modules, *os.environ}))",
        env={"GLUON_TRICKS_CORES": str(core), "HOROVOD_LOCAL_SIZE": "4",
             "GLUON_TRICKS_LAUNCHER": str(os.getpid())})
    assert process.communicate(timeout=60) == (f"{{{core}}} 1 set()\n", "")


@pytest.mark.parametrize(("rank", "ending", "code", "shut_down"), [
    (1, "OSError('full')", 1, False), (1, "InputError('no x')", 2, False),
    (1, "ZeroDivisionError", 1, False), (0, "ZeroDivisionError", 1, False),
    (1, "ReportedByAnotherRank(2)", 2, False), (1, "Stopped(signal.SIGTERM, 'saved')", 143, False),
    (1, "SystemExit(0)", 0, True), (0, "OSError('full')", 1, False)])
def test_a_rank_that_fails_is_gone_before_its_peers_are_told(rank, ending, code, shut_down):
    """A line on stderr represents what Horovod does when Python exits."""
    process = python(
        "import atexit, signal, sys\nfrom gluon_tricks import cli\n"
        "from gluon_tricks.errors import *\n"
        "atexit.register(print, 'shutdown', file=sys.stderr)\n"
        "def main():\n"
        "    print('line')\n"
        f"    raise {ending}\n"
        "cli.run(main)", env={"HOROVOD_RANK": str(rank), "HOROVOD_SIZE": "2"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, "shutdown" in err) == (code, "line\n", shut_down)
    said = [word for word in ("full", "no x", "ZeroDivisionError", "saved") if word in ending]
    assert all(f"{word}\n" in err for word in said) and ("Zero" in ending) == ("Trace" in err)


def test_a_rank_whose_launcher_is_gone_before_it_began():
    process = python("from gluon_tricks import cli\ncli.run(lambda: print('ran'))",
                     env={"GLUON_TRICKS_LAUNCHER": "1"})
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 143


def test_missing_packages_are_named_with_their_remedy(end):
    code, line = end(raising(ModuleNotFoundError("No module named 'mxnet'", name="mxnet")))
    assert code == 1 and "`pip install --no-deps --require-hashes -r docker/requirements-cpu.txt`" \
        in line
    code, line = end(raising(ImportError("libGL.so.1: cannot open", name="cv2")))
    assert code == 1 and "pip install --no-deps opencv-python-headless==4.11.0.86`" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(("names", "gone"), [
    (["opencv-python"], "pip uninstall -y opencv-python && "),
    (["opencv_python_headless", "opencv-python", "numpy"],
     "pip uninstall -y opencv-python opencv-python-headless && "),
    ([], "")])
@pytest.mark.parametrize("error", [ImportError, ModuleNotFoundError])
def test_opencvs_remedy_uninstalls_what_is_listed(tmp_path, monkeypatch, names, gone, error):
    for name in names:
        info = tmp_path / f"{name}-4.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.9\n")
    found = list(metadata.distributions(path=[str(tmp_path)]))
    monkeypatch.setattr(cli.metadata, "distributions", lambda: found)
    remedy = cli.import_remedy(error("libGL.so.1: cannot open", name="cv2"))
    if not names and error is ModuleNotFoundError:  # nothing is there
        assert "-r docker/requirements-cpu.txt`" in remedy
    else:
        assert remedy == ("OpenCV cannot be loaded (libGL.so.1: cannot open): replace it with "
                          f"the headless build, `{gone}pip install --no-deps "
                          "opencv-python-headless==4.11.0.86`")


@pytest.mark.parametrize(("library", "remedy"), [
    ("libgomp.so.1", "apt-get install libgomp1"),
    ("libquadmath.so.0", "apt-get install libquadmath0"),
    ("libother-1.2.so", "install the system package that has libother-1.2.so"),
    ("libcuda.so.1", "use the CPU build"),
    ("libcudnn.so.8", "--require-hashes -r docker/requirements-gpu.txt` installs them")])
def test_a_library_that_mxnet_does_not_find_is_named_with_its_remedy(end, library, remedy):
    said = f"{library}: cannot open shared object file: No such file or directory"
    code, line = end(raising(OSError(said)))
    assert code == 1 and said in line and remedy in line
    assert line.count("\n") == 1


def test_an_import_error_of_our_own_keeps_its_traceback():
    with pytest.raises(ImportError):
        cli.run(raising(ImportError("no such name", name="gluon_tricks.data")))


def test_a_path_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert cli.path("~/a.rec") == Path("/home/someone/a.rec")


def test_asking_for_a_file_to_write_leaves_the_folder_as_it_is(tmp_path):
    (tmp_path / "there.csv").write_text("kept")
    for name in ("there.csv", "new.csv"):
        assert cli.output(".csv")(str(tmp_path / name)) == tmp_path / name
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "kept"


def test_several_numbers_keep_their_order_and_come_once():
    assert numbers(int, distinct=True)("256, 224,256,") == (256, 224)
    assert numbers(float, distinct=True)("0.875") == (0.875,)
