"""killable.py for tests of several ranks: `python struck.py FLAGS --num-cpu-ranks 2`.

STRIKE="RANK PLACE NTH EVENT" in the environment makes that rank, when it reaches PLACE for the
NTH time, send itself the signal of that name, or its launcher (launcher:SIGINT), or fail with
OSError. Places: start (of training), take (of a batch), check (between validation's batches).
RANK_FLAGS='{"1": [FLAGS]}' gives a rank flags of its own. With TAKEN=FILE each rank adds
[rank, epoch, batch, records] to it for each batch that it takes.
"""

import functools
import json
import os
import runpy
import signal
import sys
from pathlib import Path

from gluon_tricks.machine import processor
from gluon_tricks.parallel import launch

HERE = Path(__file__).parent
if not launch.launched() and int(dict(zip(sys.argv, sys.argv[1:], strict=False)).get(
        "--num-cpu-ranks", 0)) > 1:  # the launcher, which imports no MXNet
    runpy.run_path(str(HERE.parents[1] / "scripts" / "train_imagenet.py"), run_name="__main__")
launch.adopt_launcher()  # before MXNet is imported, whose threads keep the cores they started with
processor.use_all_cores()


from gluon_tricks.classification import task  # noqa: E402
from gluon_tricks.engine.step import Step  # noqa: E402
from gluon_tricks.engine.stopping import StopRequest  # noqa: E402

RANK = os.environ.get("HOROVOD_RANK", "0")


def strike(event):
    whom, _, name = event.rpartition(":")
    if name == "OSError":
        raise OSError(5, "Input/output error", "train.rec")
    os.kill(os.getppid() if whom else os.getpid(), getattr(signal, name))


def struck(method, nth, event):
    calls = 0

    @functools.wraps(method)
    def call(*arguments):
        nonlocal calls
        calls += 1
        if calls == nth:
            strike(event)
        return method(*arguments)
    return call


def noting(take):
    @functools.wraps(take)
    def call(self, batch):
        with open(os.environ["TAKEN"], "a") as file:
            line = [int(RANK), self._run.progress.epoch, batch.step, batch.indices.tolist()]
            file.write(json.dumps(line) + "\n")
        return take(self, batch)
    return call


if "TAKEN" in os.environ:
    Step.take = noting(Step.take)
sys.argv += json.loads(os.environ.get("RANK_FLAGS", "{}")).get(RANK, [])
rank, place, nth, event = os.environ.get("STRIKE", "- - 0 -").split()
owner, name = {"start": (task, "initialize"), "take": (Step, "take"),
               "check": (StopRequest, "check")}.get(place, (None, None))
if owner and rank == RANK:
    setattr(owner, name, struck(getattr(owner, name), int(nth), event))
runpy.run_path(str(HERE / "killable.py"), run_name="__main__")
