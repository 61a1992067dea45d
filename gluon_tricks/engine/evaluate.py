"""Exact evaluation: every record counted once, whatever the batch size."""

import ctypes
import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

import mxnet as mx
from mxnet.base import _LIB, check_call
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config import Settings
from gluon_tricks.data.classes import check_same_classes, read_classes
from gluon_tricks.data.record import RecordSet
from gluon_tricks.engine import build
from gluon_tricks.engine.inflight import InFlight
from gluon_tricks.engine.metrics import Scores, Tally
from gluon_tricks.engine.parameters import classes_of, load_parameters, read_parameters
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.loss import SoftmaxCrossEntropy


def evaluate(network: HybridBlock, loader: build.Loader, *, classes: int, device: mx.Context,
             dtype: str = "float32", between: Callable[[], None] = lambda: None) -> Scores:
    """Scores over all records of `loader` but those it skips as damaged.

    The loss is the plain cross-entropy. `between` is called between batches; what it raises ends
    the evaluation. Raises RunFault where the count of samples is not that of
    the records.
    """
    loss = SoftmaxCrossEntropy(classes)
    tally, in_flight = Tally(), InFlight()
    for batch in loader.epoch():
        labels = mx.nd.array(batch.labels, ctx=device, dtype="int32")
        logits = network(mx.nd.array(batch.images, ctx=device, dtype=dtype))
        tally.update(loss(logits, labels), logits, labels)
        in_flight.add(logits)
        between()
    if len(loader.skipped) == loader.order.records:
        raise build.nothing_left(loader)
    scores = tally.scores()
    restore_layout(network)
    expected = loader.order.records - len(loader.skipped)
    if scores.count != expected:
        raise RunFault(f"evaluation counted {scores.count} samples of {expected} records: please "
                       "report this with the command you ran")
    return scores


def restore_layout(network: HybridBlock) -> None:
    """Put the weights back into the plain layout after a forward pass in predict mode.

    On the CPU oneDNN then leaves them in a layout of its own and puts them back amid the next
    training steps, whose last bits depend on when. Asking for an array's address does it now.
    """
    address = ctypes.c_void_p()
    for parameter in network.collect_params().values():
        for array in parameter.list_data():
            check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))


def evaluate_file(settings: Settings, params: Path) -> Scores:
    """Scores of a .params file on the validation set that the settings name.

    The number of classes is the file's unless the settings give one. Raises InputError where
    the file, the network and the set do not fit together.
    """
    device = build.device(settings)
    with RecordSet(*settings.rec_paths("val")) as records:
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
        load_parameters(network, params, device)
        build.hybridize(network, settings)
        settings = dataclasses.replace(settings, num_classes=classes)
        with build.eval_loader(settings, records,
                               build.damaged_records(settings, records)) as loader:
            scores = evaluate(network, loader, classes=classes, device=device)
            note = f" ({loader.backend_note})" if loader.backend_note else ""
            print(f"data backend: {loader.backend}{note}", file=sys.stderr)
            if loader.skipped:
                print(build.skipped_line(loader), file=sys.stderr)
    if not math.isfinite(scores.loss):
        raise RunFault(f"{params}: the loss is {scores.loss}, these parameters are of a run that "
                       "diverged")
    return scores
