"""Runs of tiny networks, one after another, by the same ranks: `runs_in_ranks.py JOBS.json`.

JOBS.json is a list of [network, mistake, settings]: a function of networks.py, a function of this
file or null, and what Settings takes.
"""

import contextlib
import json
import sys
from pathlib import Path

import networks

from gluon_tricks import cli
from gluon_tricks.classification import network as classifiers
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import make_task
from gluon_tricks.engine import train
from gluon_tricks.errors import ReportedByAnotherRank
from gluon_tricks.parallel import launch
from gluon_tricks.parallel.ranks import Horovod, join


class Unscaled(Horovod):
    """Mistakes the mean of the gradients for their sum."""

    def allreduce_gradients(self, gradients, **options):
        super().allreduce_gradients(gradients, **options)
        return 1.0


class Alone(Horovod):
    """Sums nothing, and divides as if it had."""

    def allreduce_gradients(self, gradients, **options):
        return float(self.size)


def main():
    jobs = json.loads(Path(sys.argv[1]).read_text())
    with join(launch.launched_size()) as ranks:
        own = type(ranks)
        train.join = lambda size: contextlib.nullcontext(ranks)
        for network, mistake, settings in jobs:
            ranks.__class__ = globals()[mistake] if mistake else own
            classifiers.get_model = getattr(networks, network)
            if ranks.rank and settings.get("init_params"):  # only rank 0 has the file
                settings["init_params"] = "/nowhere.params"
            with contextlib.suppress(ReportedByAnotherRank):
                train.train(Settings(**settings), make_task())


cli.run(main)
