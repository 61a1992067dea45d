"""The verdict, and how findings are shown."""

import io
import json

import pytest

from gluon_tricks.doctor import report
from gluon_tricks.doctor.finding import Finding

GOOD = Finding("packages", "ok", "numpy", "1.23.5")
MEAN = Finding("machine", "warning", "open files", "256 at most", "`ulimit -n 1024`")
BAD = Finding("packages", "fault", "MXNet", "does not load", "install it")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("findings", "gpus", "line"), [
    ([GOOD, MEAN], 0, "usable on the CPU"), ([GOOD], 1, "usable on 1 GPU"),
    ([GOOD, MEAN], 8, "usable on 8 GPUs"), ([GOOD, BAD, MEAN, BAD], 8, "not usable: MXNet")])
def test_verdict(findings, gpus, line):
    assert report.verdict(findings, gpus) == line
    assert report.usable(findings) == (BAD not in findings)
    said = json.loads(report.as_json(findings, gpus))
    assert (said["verdict"], said["usable"], said["gpus"]) == (line, BAD not in findings, gpus)
    assert said["findings"] == [finding._asdict() for finding in findings]


def test_lines_are_aligned_by_groups():
    out = io.StringIO()
    report.write([GOOD, MEAN, BAD], 0, out)
    assert out.getvalue() == """\
packages
  ok       numpy       1.23.5
  fault    MXNet       does not load
                       -> install it
machine
  warning  open files  256 at most
                       -> `ulimit -n 1024`
not usable: MXNet
"""


def test_colour_and_width_are_a_terminals(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    long = BAD._replace(value="word " * 30, remedy="other " * 30)
    out = Terminal()
    report.write([long], 0, out)
    lines = out.getvalue().splitlines()
    assert "\033[31mfault  \033[0m" in lines[1]
    assert lines[-1] == "\033[31mnot usable: MXNet\033[0m"
    plain = [line.replace("\033[31m", "").replace("\033[1m", "").replace("\033[0m", "")
             for line in lines]
    assert max(map(len, plain)) <= 70 < len(long.value)
    monkeypatch.setenv("NO_COLOR", "")
    out = Terminal()
    report.write([long], 0, out)
    assert "\033" not in out.getvalue()
