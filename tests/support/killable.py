"""train_imagenet.py for tests of killed runs: `python killable.py FLAGS`.

GluonCV's smallest network gets a dropout before its classifier, and with PAUSE=SECONDS in the
environment each step of a save waits that long, so that kills often hit one.
"""

import functools
import os
import runpy
import time
from pathlib import Path

from mxnet.gluon import nn

from gluon_tricks.classification import network as classifiers
from gluon_tricks.runs import checkpoint

PAUSE = float(os.environ.get("PAUSE", "0"))


def slowed(step):
    @functools.wraps(step)
    def wait_and_call(*arguments):
        time.sleep(PAUSE)
        return step(*arguments)
    return wait_and_call


def with_dropout(name, get_model=classifiers.get_model, **options):
    network = get_model(name, **options)
    network.features.add(nn.Dropout(0.3))
    return network


for name in ("write_arrays", "_write", "_sync", "_discard"):
    setattr(checkpoint, name, slowed(getattr(checkpoint, name)))
classifiers.get_model = with_dropout
runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "train_imagenet.py"),
               run_name="__main__")
