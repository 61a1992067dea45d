"""Prints doctor's findings and verdict: grouped and aligned for people, or as JSON."""

import json
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import TextIO

from gluon_tricks.doctor.finding import FAULT, OK, WARNING, Finding

_COLORS = {OK: 32, WARNING: 33, FAULT: 31}  # of a terminal: green, yellow, red


def usable(findings: Sequence[Finding]) -> bool:
    return all(finding.level != FAULT for finding in findings)


def verdict(findings: Sequence[Finding], gpus: int) -> str:
    """The verdict as one line; `gpus` is how many a run can use."""
    faults = [finding.name for finding in findings if finding.level == FAULT]
    if faults:
        return f"not usable: {', '.join(dict.fromkeys(faults))}"
    return f"usable on {gpus} GPU{'s' * (gpus != 1)}" if gpus else "usable on the CPU"


def as_json(findings: Sequence[Finding], gpus: int) -> str:
    return json.dumps({"verdict": verdict(findings, gpus), "usable": usable(findings),
                       "gpus": gpus, "findings": [finding._asdict() for finding in findings]},
                      indent=1)


def write(findings: Sequence[Finding], gpus: int, out: TextIO) -> None:
    """Print a line for each finding and one for its remedy; on a terminal in color, wrapped to fit.
    """
    terminal = out.isatty()
    colored = terminal and "NO_COLOR" not in os.environ
    columns = shutil.get_terminal_size().columns if terminal else 0
    name_width = max(len(finding.name) for finding in findings)
    indent = " " * (2 + 7 + 2 + name_width + 2)
    for group in dict.fromkeys(finding.group for finding in findings):
        out.write(f"{_in(1, group, colored)}\n")
        for finding in (finding for finding in findings if finding.group == group):
            mark = _in(_COLORS[finding.level], f"{finding.level:7}", colored)
            first, *rest = _lines(finding.value, columns - len(indent))
            out.write(f"  {mark}  {finding.name:{name_width}}  {first}\n")
            if finding.remedy:
                remedy = _lines(finding.remedy, columns - len(indent) - 3)
                rest += [f"{'   ' if number else '-> '}{line}" for number, line in
                         enumerate(remedy)]
            out.write("".join(f"{indent}{line}\n" for line in rest))
    level = OK if usable(findings) else FAULT
    out.write(f"{_in(_COLORS[level], verdict(findings, gpus), colored)}\n")


def _in(code: int, text: str, colored: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colored else text


def _lines(text: str, width: int) -> list[str]:
    """Wrap the text to that width, unless it is too narrow."""
    if width < 30:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
