"""Exact evaluation: every record counted once, whatever the batch size."""

import contextlib
import ctypes
import dataclasses
import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import mxnet as mx
from mxnet.base import _LIB, check_call
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config import Settings
from gluon_tricks.data.check import fingerprint
from gluon_tricks.data.classes import check_same_classes, read_classes
from gluon_tricks.data.record import RecordSet
from gluon_tricks.engine import build
from gluon_tricks.engine.agreement import agreed
from gluon_tricks.engine.inflight import InFlight
from gluon_tricks.engine.metrics import Scores, Tally, mean_scores
from gluon_tricks.engine.parameters import (
    arrays_of,
    classes_of,
    load_parameters,
    read_parameters,
)
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.loss import SoftmaxCrossEntropy
from gluon_tricks.parallel import Ranks, join


def evaluate(network: HybridBlock, loader: build.Loader, *, classes: int, device: mx.Context,
             dtype: str = "float32", between: Callable[[], None] = lambda: None,
             ranks: Ranks | None = None) -> Scores:
    """Scores over all records of `loader` but those it skips as damaged; of all ranks' shares.

    The loss is the plain cross-entropy. `between` is called after batches, as often on every rank;
    what it raises ends the evaluation. Raises RunFault where the count of samples is not that of
    the records.
    """
    ranks = ranks or Ranks()
    loss = SoftmaxCrossEntropy(classes)
    tally, in_flight = Tally(), InFlight()
    with contextlib.closing(loader.epoch()) as batches:
        for _ in range(loader.order.most_steps):
            batch = next(batches, None)
            if batch is not None and len(batch.labels):
                labels = mx.nd.array(batch.labels, ctx=device, dtype="int32")
                logits = network(mx.nd.array(batch.images, ctx=device, dtype=dtype))
                tally.update(loss(logits, labels), logits, labels)
                in_flight.add(logits)
            between()
    sums = tally.sums().over(ranks)
    loader.skipped.update(ranks.union(loader.skipped))
    expected = loader.order.records - len(loader.skipped)
    if not expected:
        raise ranks.once(build.nothing_left(loader))
    restore_layout(network)
    if sums.count != expected:
        raise ranks.once(RunFault(f"evaluation counted {sums.count} samples of {expected} records: "
                                  "please report this with the command you ran"))
    return mean_scores(sums)


def restore_layout(network: HybridBlock) -> None:
    """Put the weights back into the plain layout after a forward pass in predict mode.

    On the CPU oneDNN then leaves them in a layout of its own and puts them back amid the next
    training steps, whose last bits depend on when. Asking for an array's address does it now.
    """
    address = ctypes.c_void_p()
    for parameter in network.collect_params().values():
        for array in parameter.list_data():
            check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))


def evaluate_file(settings: Settings, params: Path) -> Scores | None:
    """Scores of a .params file on the validation set that the settings name; for the first rank.

    The number of classes is the file's unless the settings give one. Raises InputError where
    the file, the network and the set do not fit together.
    """
    with ExitStack() as stack:
        ranks = stack.enter_context(join(settings.world_size))
        ranks.check_same(agreed(settings))
        with ranks.together():
            device = build.device(settings, ranks.local_rank)
            records = stack.enter_context(RecordSet(*settings.rec_paths("val")))
            settings, network = _network_of(settings, params, records)
            load_parameters(network, params, device)
            build.hybridize(network, settings)
            loader = stack.enter_context(build.eval_loader(
                settings, records, build.damaged_records(settings, records), ranks))
        ranks.check_same(agreed(settings, validation_set=fingerprint(records),
                                backend=loader.backend))
        ranks.broadcast(arrays_of(network))
        scores = evaluate(network, loader, classes=settings.num_classes, device=device, ranks=ranks)
        if ranks.first:
            note = f" ({loader.backend_note})" if loader.backend_note else ""
            print(f"data backend: {loader.backend}{note}", file=sys.stderr)
            if loader.skipped:
                print(build.skipped_line(loader), file=sys.stderr)
        if not math.isfinite(scores.loss):
            raise ranks.once(RunFault(f"{params}: the loss is {scores.loss}, these parameters are "
                                      "of a run that diverged"))
    return scores if ranks.first else None


def _network_of(settings: Settings, params: Path,
                records: RecordSet) -> tuple[Settings, HybridBlock]:
    """The settings with their number of classes, and the network, without parameters."""
    names = params.with_name("classes.json")
    if names.is_file():  # params lie in a run folder
        check_same_classes(records.path, records.class_names(), read_classes(names))
    arrays = read_parameters(params)
    classes = settings.num_classes or max(2, records.class_count())
    network = build.network(dataclasses.replace(settings, num_classes=classes))
    found = classes_of(network, arrays)
    if settings.num_classes is None and found not in (None, classes):
        if found < 2:
            raise InputError(f"{params} is of a network with one output, no classifier: give "
                             "the parameters of one with two classes or more")
        classes = found
        network = build.network(dataclasses.replace(settings, num_classes=classes))
    return dataclasses.replace(settings, num_classes=classes), network
