"""How scripts end: exit codes, one-line errors, and a --help that loads nothing heavy."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gluon_tricks
from gluon_tricks import cli
from gluon_tricks.errors import InputError, RunFault

ROOT = Path(gluon_tricks.__file__).parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


@pytest.fixture
def end(capsys):
    """end(main): the exit code and what stands on stderr."""
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


def python(code, **options):
    """A process of `code`, which finds this package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen([sys.executable, "-c", code], text=True, env=environment,
                            **{"stderr": subprocess.PIPE, **options})


@pytest.mark.parametrize(("error", "code", "line"), [
    (InputError("x.rec is missing: give one"), 2, "error: x.rec is missing: give one\n"),
    (KeyboardInterrupt(), 130, "error: stopped by Ctrl-C\n"),
    (cli.Terminated(), 143, "error: stopped by SIGTERM\n"),
    (OSError(28, "No space left on device", "a.params"), 1,
     "error: [Errno 28] No space left on device: 'a.params'\n"),
    (RunFault("the loss is nan"), 1, "error: the loss is nan\n")])
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
        "cli.run(main)", stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "cleaned up\n", f"error: stopped by {name}\n")


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
            "print('loaded', {'mxnet', 'gluoncv', 'cv2', 'matplotlib'} & set(sys.modules))\n")
    process = python(code, stdout=subprocess.PIPE)
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
    process = python(code, stdout=subprocess.PIPE)
    assert process.communicate(timeout=60) == ("cleaned\n", "error: stopped by SIGTERM\n")
    assert process.returncode == 143


def test_missing_packages_are_named_with_their_remedy(end):
    code, line = end(raising(ModuleNotFoundError("No module named 'mxnet'", name="mxnet")))
    assert code == 1 and "pip install -e '.[cpu]'" in line
    code, line = end(raising(ImportError("libGL.so.1: cannot open", name="cv2")))
    assert code == 1 and "pip install opencv-python-headless==4.11.0.86" in line
    assert line.count("\n") == 1


def test_an_import_error_of_our_own_keeps_its_traceback():
    with pytest.raises(ImportError):
        cli.run(raising(ImportError("no such name", name="gluon_tricks.data")))


def test_a_path_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert cli.path("~/a.rec") == Path("/home/someone/a.rec")
