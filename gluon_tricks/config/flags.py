"""Makes one flag for each field of the settings, and settings from parsed flags."""

import argparse
import dataclasses
from typing import Any

from gluon_tricks.config import presets
from gluon_tricks.config.fields import GROUPS, flag_name, ordered
from gluon_tricks.config.settings import RunSettings


def add_flags(parser: argparse.ArgumentParser, kind: type[RunSettings],
              only: tuple[str, ...] | None = None, preset: presets.Preset = presets.IMAGENET,
              without: tuple[str, ...] = ()) -> None:
    """Add a flag for each field of a settings class, or for those in `only`, except those in
    `without`.

    --help shows the preset's defaults. Flags that are not given are absent from the parsed flags.
    """
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for setting in ordered(kind):
        if setting.name in without or (only is not None and setting.name not in only):
            continue
        options = dict(setting.metadata["argparse"])
        names = [short for short in (options.pop("short", None),) if short]
        names += [flag_name(setting.name), *options.pop("also", ())]
        default = preset.usual.get(setting.name, setting.default)
        options["help"] += _shown(default)
        options["required"] = options.get("required", False) and not default
        groups[setting.metadata["group"]].add_argument(
            *names, dest=setting.name, default=argparse.SUPPRESS, **options)


def _shown(default: Any) -> str:
    """A default as --help shows it; nothing for None, False and ""."""
    if default is None or default is False or default == "":
        return ""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f" (default: {shown})"


def explicit(kind: type[RunSettings], flags: argparse.Namespace) -> dict[str, Any]:
    """The fields of a settings class that were given as flags, by name."""
    names = {setting.name for setting in dataclasses.fields(kind)}
    return {name: value for name, value in vars(flags).items() if name in names}


def chosen(kind: type[RunSettings], flags: argparse.Namespace,
           preset: presets.Preset) -> dict[str, Any]:
    """The fields of a settings class that parsed flags or a preset give; flags override it."""
    given = explicit(kind, flags)
    return {**presets.defaults(preset, given), **given}
