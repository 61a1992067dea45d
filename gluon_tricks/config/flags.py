"""The flags of the settings: one a field, and the settings that parsed flags stand for."""

import argparse
import dataclasses
from typing import Any

from gluon_tricks.config import presets
from gluon_tricks.config.rules import validate
from gluon_tricks.config.settings import Settings


def add_flags(parser: argparse.ArgumentParser, only: tuple[str, ...] | None = None,
              preset: presets.Preset = presets.IMAGENET, without: tuple[str, ...] = ()) -> None:
    """A flag for each of the settings, or for those named in `only`, but for those of `without`.

    --help shows the preset's defaults. What is not given is not among the parsed flags.
    """
    groups: dict[str, Any] = {}
    for setting in dataclasses.fields(Settings):
        if setting.name in without or (only is not None and setting.name not in only):
            continue
        options = dict(setting.metadata)
        name = options.pop("group")
        group = groups.setdefault(name, None) or parser.add_argument_group(name)
        groups[name] = group
        names = [short for short in (options.pop("short", None),) if short]
        names += [f"--{setting.name.replace('_', '-')}", *options.pop("also", ())]
        default = preset.usual.get(setting.name, setting.default)
        options["help"] += _shown(default)
        options["required"] = options.get("required", False) and not default
        group.add_argument(*names, dest=setting.name, default=argparse.SUPPRESS, **options)


def _shown(default: Any) -> str:
    """A default as --help shows it; None and switches explain themselves."""
    if default is None or default is False or default == "":
        return ""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f" (default: {shown})"


def explicit(flags: argparse.Namespace) -> dict[str, Any]:
    """Those of the settings that parsed flags give, by name."""
    names = {setting.name for setting in dataclasses.fields(Settings)}
    return {name: value for name, value in vars(flags).items() if name in names}


def from_flags(flags: argparse.Namespace, preset: presets.Preset = presets.IMAGENET) -> Settings:
    """The checked settings of parsed flags; the preset's defaults. Raises InputError."""
    wanted = explicit(flags)
    return validate(Settings(**{**presets.defaults(preset, wanted), **wanted}))
