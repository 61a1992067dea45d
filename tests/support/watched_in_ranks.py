"""Runs of tiny networks by the same ranks, watched: `watched_in_ranks.py JOBS.json FOLDER`.

JOBS.json is {name: [network, settings, faults]}: a function of networks.py, what Settings takes,
and {function of this file: [ranks it applies to, its arguments...]}. Each rank writes what it
held at the end to FOLDER/NAME.RANK.npz, what it saw to FOLDER/NAME.RANK.json.
"""

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from unittest import mock

import mxnet as mx
import networks
import numpy as np

from gluon_tricks import cli
from gluon_tricks.classification import network as classifiers
from gluon_tricks.classification import task
from gluon_tricks.classification.network import build_teacher, initialize
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import make_task
from gluon_tricks.data import loader
from gluon_tricks.engine import step, train
from gluon_tricks.engine.run import Run
from gluon_tricks.errors import InputError, ReportedByAnotherRank, RunFault
from gluon_tricks.models.parameters import is_statistic, named_arrays
from gluon_tricks.parallel import launch
from gluon_tricks.parallel.ranks import join
from gluon_tricks.runs import checkpoint, runlog

TRAINING = 45  # records of the training sets, which identifies their loaders
written = []  # files and folders that this process has changed


def poisoned(*steps):
    """These batches of the first epoch hold NaN."""
    def epoch(self, number=0, start_step=0, original=loader.RecordLoader.epoch):
        for batch in original(self, number, start_step):
            if number == 0 and batch.step in steps and self.order.records == TRAINING:
                batch.images[:] = np.nan
            yield batch

    return mock.patch.object(loader.RecordLoader, "epoch", epoch)


def left_out(*steps):
    """These batches are empty, as if all their records were damaged."""
    return mock.patch.object(train, "timed", lambda run, batches: (
        loader.Batch(*(part[:0] for part in batch[:3]), batch.step)
        if batch.step in steps else batch for batch in batches))


def overflow(number):
    """The gradient of this batch of the first epoch has one infinite element."""
    def add_gradients(run, batch, tally, original=step.add_gradients):
        losses = original(run, batch, tally)
        if (run.progress.epoch, batch.step) == (0, number):
            run.updater.gradients[-1][0] = np.inf
        return losses

    return mock.patch.object(step, "add_gradients", add_gradients)


def dynamic():
    """The loss scale is dynamic, which no flag can set for FP32."""
    def start(*arguments, original=train.start):
        run = original(*arguments)
        return dataclasses.replace(run, settings=dataclasses.replace(run.settings,
                                                                     loss_scale="dynamic"))

    return mock.patch.object(train, "start", start)


def another_seed():
    """The network starts from other parameters."""
    def changed(net, settings, where, original=initialize):
        original(net, dataclasses.replace(settings, seed=settings.seed + 1), where)

    return mock.patch.object(task, "initialize", changed)


def another_teacher(path):
    """The teacher's file holds other parameters."""
    def teacher(settings, where, original=build_teacher):
        return original(dataclasses.replace(settings, teacher_params=path), where)

    return mock.patch.object(task, "build_teacher", teacher)


def no_checkpoint():
    """No checkpoint can be read."""
    return mock.patch.object(checkpoint, "read", side_effect=InputError("not on this machine"))


@contextlib.contextmanager
def watched(seen, held):
    """Note what a run draws, and its arrays and progress when its training ends."""
    def inputs(self, batch, original=task.Classification.inputs, **place):
        found = original(self, batch, **place)
        if found.partner_labels is not None:
            seen["mixed"].append([found.lam.asnumpy().tolist(), found.labels.asnumpy().tolist(),
                                  found.partner_labels.asnumpy().tolist(), batch.indices.tolist()])
        return found

    def draw_pairs(*arguments, original=task.draw_pairs):
        pairs = original(*arguments)
        seen["partners"].append(pairs.partner.tolist())
        return pairs

    def seed(number, ctx=None, original=mx.random.seed):
        original(number, ctx or "all")
        seen["seeds"] += [number] if ctx else []

    def agree(self, original=Run.agree_statistics):
        mx.nd.waitall()
        for part, arrays in (("model", named_arrays(self.network)),
                             ("average", self.average.arrays if self.average else {})):
            held.update({f"first own {part}:{name}": array.asnumpy()
                         for name, array in arrays.items()
                         if is_statistic(name) and f"first own {part}:{name}" not in held})
        original(self)

    def train_epochs(run, original=train.train_epochs):
        try:
            return original(run)
        finally:
            mx.nd.waitall()
            seen["progress"] = {**run.progress.to_json(), "seconds": 0, "waited": 0}
            for part, arrays in (("model", named_arrays(run.network)), ("optimizer",
                                 run.updater.arrays()), ("average", run.average.arrays
                                                        if run.average else {})):
                held.update({f"{part}:{name}": array.asnumpy()
                             for name, array in arrays.items()})

    with mock.patch.object(task.Classification, "inputs", inputs), \
            mock.patch.object(task, "draw_pairs", draw_pairs), \
            mock.patch.object(mx.random, "seed", seed), \
            mock.patch.object(Run, "agree_statistics", agree), \
            mock.patch.object(train, "train_epochs", train_epochs):
        yield


def note_writing(event, arguments):
    """An audit hook: what Python opens to write, makes, renames and removes."""
    if event == "open" and isinstance(arguments[0], str) and (
            arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        written.append(arguments[0])
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        written.append(str(arguments[0]))


def save(path, arrays, original=mx.nd.save):
    written.append(path)
    original(path, arrays)


def main():
    jobs, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    sys.addaudithook(note_writing)
    mx.nd.save = save
    runlog.draw_curves = lambda *_: None  # to save time
    with join(launch.launched_size()) as ranks:
        train.join = lambda size: contextlib.nullcontext(ranks)
        for name, (network, settings, faults) in jobs.items():
            seen = {"mixed": [], "partners": [], "seeds": [], "raised": None, "result": False}
            held = {}
            classifiers.get_model = getattr(networks, network)
            written.clear()
            with contextlib.ExitStack() as stack:
                for fault, (befallen, *arguments) in faults.items():
                    if ranks.rank in befallen:
                        stack.enter_context(globals()[fault](*arguments))
                stack.enter_context(watched(seen, held))
                try:
                    seen["result"] = train.train(Settings(**settings), make_task()) is not None
                except (InputError, RunFault, ReportedByAnotherRank) as error:
                    seen["raised"] = [type(error).__name__, str(error)]
            seen["written"] = [path for path in written if not path.startswith("/dev/")]
            np.savez(folder / f"{name}.{ranks.rank}.npz", **held)
            (folder / f"{name}.{ranks.rank}.json").write_text(json.dumps(seen))


cli.run(main)
