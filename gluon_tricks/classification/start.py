"""Starts a classifier's run, from Python or from a script's flags. Imports MXNet late."""

import argparse
from typing import TYPE_CHECKING

from gluon_tricks.classification.settings import Settings
from gluon_tricks.engine import command

if TYPE_CHECKING:
    from gluon_tricks.classification.task import Classification
    from gluon_tricks.engine.train import Result


def make_task() -> "Classification":
    """The classification task of one run."""
    from gluon_tricks.classification.task import Classification

    return Classification()


def train(settings: Settings) -> "Result | None":
    """Train a classifier; see engine.train.train."""
    from gluon_tricks.engine import train as engine

    return engine.train(settings, make_task())


def dispatch(flags: argparse.Namespace, settings: Settings) -> "Result | int | None":
    """Do what the flags ask for; see engine.command.dispatch."""
    return command.dispatch(flags, settings, make_task)
