"""A run of a toy task: `python toy_run.py NAME SETTINGS [KILL]`.

SETTINGS are JSON. With KILL the process gets a SIGKILL when it comes to that batch of
training, from 0.
"""

import itertools
import json
import os
import signal
import sys

from toy_tasks import TASKS

from gluon_tricks import cli
from gluon_tricks.engine.train import train


def main():
    kind, settings = TASKS[sys.argv[1]]
    task = kind()
    if len(sys.argv) > 3:
        losses, batches = task.losses, itertools.count()

        def strike(network, inputs):
            if next(batches) == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            return losses(network, inputs)
        task.losses = strike
    train(settings(**json.loads(sys.argv[2])), task)


cli.run(main)
