"""Settings from a command line, for tests."""

import shlex

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags
from gluon_tricks.cli import Parser
from gluon_tricks.config.flags import add_flags


def parse(*arguments: str) -> Settings:
    """The settings of the words in `arguments`; --model is given already."""
    parser = Parser(prog="train")
    add_flags(parser, Settings)
    words = [word for argument in arguments for word in shlex.split(argument)]
    return from_flags(parser.parse_args(["--model", "resnet50_v1d", *words]))
