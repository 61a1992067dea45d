"""One thing that was checked, with the result."""

from typing import NamedTuple

OK, WARNING, FAULT = "ok", "warning", "fault"


class Finding(NamedTuple):
    """The result of a check, and its remedy if it needs one. A fault keeps a run from starting, a
    warning does not."""

    group: str
    level: str
    name: str
    value: str
    remedy: str = ""
