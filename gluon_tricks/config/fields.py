"""Declares settings: a setting is a dataclass field that holds all there is to know about it.

Nothing else lists settings by name. Besides argparse's options, a field may have these traits:

    least, above, most, below   the range of a number; None is always valid
    per_host      each rank may have its own value: files, folders, threads
    on_resume     "fixed": a checkpoint works with this value only; "free": it does not affect what
                  the run computes; otherwise a change causes a warning
    of_network    "name", "structure" (decides which parameters there are), "layer" (a layer without
                  parameters), "start" (how it is initialized) or "input" (how it is fed)
    in_table      the table that starts a run's log shows its value under another name
    also_in       the scripts that do not train and yet have its flag
    not_in        the training scripts that do not have its flag
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

MODEL, DATA, OPTIMIZER, TRICKS, RUN = GROUPS = ("model", "data", "optimizer", "tricks", "run")
TRAITS = ("least", "above", "most", "below", "per_host", "on_resume", "of_network", "in_table",
          "also_in", "not_in")


def flag(default: Any, text: str, *, group: str, **more: Any) -> Any:
    """A field with its flag's help text and group, and argparse's options and the traits above."""
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
    """The names of the fields with these traits, group by group; a tuple means any one of its
    values."""
    for setting in ordered(kind):
        found = (setting.metadata.get(name) in (want if isinstance(want, tuple) else (want,))
                 for name, want in traits.items())
        if all(found):
            yield setting.name


def for_script(kind: type, script: str) -> tuple[str, ...]:
    """The names of the fields whose flags a script that does not train has."""
    return _naming(kind, "also_in", script)


def not_for_script(kind: type, script: str) -> tuple[str, ...]:
    """The names of the fields whose flags a training script does not have."""
    return _naming(kind, "not_in", script)


def _naming(kind: type, trait: str, script: str) -> tuple[str, ...]:
    return tuple(setting.name for setting in dataclasses.fields(kind)
                 if script in setting.metadata.get(trait, ()))


def flag_name(name: str) -> str:
    """The flag of a field: "--batch-size" for "batch_size"."""
    return f"--{name.replace('_', '-')}"


def numbers(kind: type, *, distinct: bool = False) -> Callable[[str], tuple]:
    """The type of a flag that takes numbers separated by commas; with `distinct`, there must be at
    least one, and duplicates are dropped."""
    def parse(text: str) -> tuple:
        values = tuple(kind(part) for part in text.split(",") if part.strip())
        if distinct and not values:
            raise argparse.ArgumentTypeError("needs a number")
        return tuple(dict.fromkeys(values)) if distinct else values
    parse.__name__ = f"comma-separated list of {kind.__name__}"  # argparse's messages use it
    return parse


def text(given: str) -> str | None:
    """The type of a flag that takes text; "" means None, as in GluonCV's scripts."""
    return given or None


def loss_scale_of(given: str) -> float | str:
    """The type of a flag that takes a loss scale: a number or "dynamic"."""
    return given if given == "dynamic" else float(given)


loss_scale_of.__name__ = "number, or dynamic,"  # argparse's messages use it
