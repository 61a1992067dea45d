"""How a setting is declared: a dataclass field that says all there is to know of it.

Nothing else lists settings by name. Beside what argparse takes, a field may say:

    least, above, most, below   the range of a number; None is always fine
    per_host      each rank may have its own value: files, folders, threads
    on_resume     "fixed": a checkpoint is made for this value; "free": what the run computes does
                  not depend on it; else a change is warned of
    of_network    "name", "structure" (decides which parameters there are), "layer" (a layer without
                  parameters), "start" (how it is initialized) or "input" (how it is fed)
    in_table      the table that a run's log starts with has its value in a line of another name
    also_in       the scripts, besides those that train, that have its flag
    not_in        the scripts that train and do not have it
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

MODEL, DATA, OPTIMIZER, TRICKS, RUN = GROUPS = ("model", "data", "optimizer", "tricks", "run")
TRAITS = ("least", "above", "most", "below", "per_host", "on_resume", "of_network", "in_table",
          "also_in", "not_in")


def flag(default: Any, text: str, *, group: str, **more: Any) -> Any:
    """A field with its flag's help text, its group, argparse's options and the traits above."""
    traits = {name: more.pop(name) for name in TRAITS if name in more}
    return dataclasses.field(default=default, metadata={
        "group": group, "argparse": {"help": text, **more}, **traits})


def switch(text: str, *, group: str, **more: Any) -> Any:
    """A field that is False, or True if its flag is given."""
    return flag(False, text, group=group, action="store_true", **more)


def ordered(kind: type) -> list[dataclasses.Field]:
    """The fields of a settings class, group by group."""
    return sorted(dataclasses.fields(kind),
                  key=lambda setting: GROUPS.index(setting.metadata["group"]))


def named(kind: type, **traits: Any) -> Iterator[str]:
    """The names of the fields whose traits are these; of a tuple, one of these."""
    for setting in dataclasses.fields(kind):
        found = (setting.metadata.get(name) in (want if isinstance(want, tuple) else (want,))
                 for name, want in traits.items())
        if all(found):
            yield setting.name


def for_script(kind: type, script: str) -> tuple[str, ...]:
    """The names of the fields whose flags a script has that does not train."""
    return _naming(kind, "also_in", script)


def not_for_script(kind: type, script: str) -> tuple[str, ...]:
    """The names of the fields whose flags a script does not have that trains."""
    return _naming(kind, "not_in", script)


def _naming(kind: type, trait: str, script: str) -> tuple[str, ...]:
    return tuple(setting.name for setting in dataclasses.fields(kind)
                 if script in setting.metadata.get(trait, ()))


def flag_name(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def numbers(kind: type, *, distinct: bool = False) -> Callable[[str], tuple]:
    """What argparse makes of numbers with commas between; if they must be `distinct`, of one or
    more, each kept once."""
    def parse(text: str) -> tuple:
        values = tuple(kind(part) for part in text.split(",") if part.strip())
        if distinct and not values:
            raise argparse.ArgumentTypeError("needs a number")
        return tuple(dict.fromkeys(values)) if distinct else values
    parse.__name__ = f"comma-separated list of {kind.__name__}"  # argparse's messages use it
    return parse


def text(given: str) -> str | None:
    """What argparse makes of a text; "" is what GluonCV's scripts have if nothing is given."""
    return given or None


def loss_scale_of(given: str) -> float | str:
    """What argparse makes of a loss scale."""
    return given if given == "dynamic" else float(given)


loss_scale_of.__name__ = "number, or dynamic,"  # argparse's messages use it
