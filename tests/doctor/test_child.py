"""What a child reports, and how it ends, always reaches the parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gluon_tricks.doctor import child


@pytest.fixture
def ask(monkeypatch):
    """ask(code, seconds): the answer of a child whose function is of that body."""
    def run(code, seconds=30):
        # A module that the child finds among its modules: it has no file.
        prepared = ("import sys, types\nmodule = types.ModuleType('gluon_tricks.doctor.made')\n"
                    f"exec({code!r}, vars(module))\n"
                    "sys.modules['gluon_tricks.doctor.made'] = module\n")
        text = child._CODE.replace("child.serve", "PREPARED\nchild.serve")
        text = text.replace("PREPARED", prepared.replace("{", "{{").replace("}", "}}"))
        monkeypatch.setattr(child, "_CODE", text)
        with child.Child("made", "work", "a'b", 3, seconds=seconds) as started:
            return started.answer()
    return run


def test_reports_and_arguments(ask):
    answer = ask("def work(report, *arguments):\n    report({'first': arguments})\n"
                 "    print('noise')\n    report({'second': None})")
    assert answer == ([{"first": ["a'b", 3]}, {"second": None}], None)


@pytest.mark.parametrize(("number", "ended"), [
    (signal.SIGSEGV, "crashed (SIGSEGV)"), (signal.SIGABRT, "crashed (SIGABRT)"),
    (signal.SIGILL, "crashed: it uses an instruction that this processor lacks (SIGILL)")
])
def test_a_crash_keeps_what_was_reported_before(ask, number, ended):
    answer = ask("import os\ndef work(report, *arguments):\n    report({'a': 1})\n"
                 f"    os.kill(os.getpid(), {number:d})")
    assert answer == ([{"a": 1}], ended)


@pytest.mark.parametrize(("signals", "spare"), [
    ("", 100),  # by its own alarm
    ("import signal\nold = signal.alarm\nsignal.alarm = lambda seconds: 0\n", 1),  # by its parent
])
def test_a_child_that_hangs_in_c_is_ended(ask, monkeypatch, signals, spare):
    monkeypatch.setattr(child, "_SPARE", spare)
    began = time.monotonic()
    # A PyDLL holds Python's lock.
    answer = ask(f"import ctypes\n{signals}def work(report, *arguments):\n"
                 "    report({'a': 1})\n    ctypes.PyDLL(None).sleep(60)", seconds=2)
    assert answer == ([{"a": 1}], "took too long and was ended")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("error", "report"), [
    ("ValueError('first\\nlast')", {"error": "ValueError: last", "remedy": ""}),
    ("ModuleNotFoundError('No module named mxnet', name='mxnet')",
     {"error": "ModuleNotFoundError: No module named mxnet", "remedy": "No module named mxnet: "
      "install all that is needed, `pip install --no-deps --require-hashes -r "
      "docker/requirements-cpu.txt` (or -gpu.txt)"}),
    ("InputError('a.rec is missing: give one')", {"error": "a.rec is missing: give one",
                                                  "remedy": "a.rec is missing: give one"}),
])
def test_an_error_is_a_report(ask, error, report):
    answer = ask("from gluon_tricks.errors import InputError\ndef work(report, *arguments):\n"
                 f"    raise {error}")
    assert answer == ([report], None)


def test_an_exit_is_told_by_its_last_line(ask):
    answer = ask("import os, sys\ndef work(report, *arguments):\n"
                 "    print('first\\nwhy', file=sys.stderr, flush=True)\n    os._exit(7)")
    assert answer == ([], "why")
    assert child.how_it_ended(7, "") == "ended with exit code 7"


def test_children_do_not_outlive_their_parent():
    """As when doctor is stopped by Ctrl-C."""
    code = ("import sys\nfrom gluon_tricks.doctor.child import Child\n"
            "with Child('probes', 'native') as started:\n"
            "    print(started._process.pid)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
