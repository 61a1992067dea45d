"""Collects what the ranks of a run must have in common."""

import dataclasses
from typing import Any

from gluon_tricks.config.fields import flag_name
from gluon_tricks.config.settings import RunSettings
from gluon_tricks.runs.checkpoint import versions


def agreed(settings: RunSettings, **more: Any) -> dict[str, Any]:
    """What `Ranks.check_same` compares: flags (except per-host ones), versions, and `more`."""
    flags = {flag_name(setting.name): getattr(settings, setting.name)
             for setting in dataclasses.fields(settings) if not setting.metadata.get("per_host")}
    return {**flags, **versions(), **{name.replace("_", " "): what for name, what in more.items()}}
