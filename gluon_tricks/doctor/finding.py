"""One thing that was looked at."""

from typing import NamedTuple

OK, WARNING, FAULT = "ok", "warning", "fault"


class Finding(NamedTuple):
    """A fault keeps a run from starting, a warning does not. What needs no remedy has none."""

    group: str
    level: str
    name: str
    value: str
    remedy: str = ""
