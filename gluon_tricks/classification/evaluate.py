"""Exact evaluation: every record counted once, whatever the batch size."""

import contextlib
import ctypes
from collections.abc import Callable
from typing import NamedTuple

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call
from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification.loaders import Loader
from gluon_tricks.classification.metrics import MeanOverCrops, Tally, TopClass
from gluon_tricks.data.loader import Batch, nothing_left
from gluon_tricks.engine.inflight import InFlight
from gluon_tricks.errors import RunFault
from gluon_tricks.loss import SoftmaxCrossEntropy
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.scores import Scores, mean_scores


class Answers(NamedTuple):
    """What a network says of the records of a rank's share, one by one: (records,) each."""

    indices: np.ndarray  # which records these are
    labels: np.ndarray
    predicted: np.ndarray  # the first class
    probabilities: np.ndarray  # its


def evaluate(network: HybridBlock, loader: Loader, *, classes: int, device: mx.Context,
             dtype: str = "float32", between: Callable[[], None] = lambda: None,
             ranks: Ranks | None = None) -> Scores:
    """Scores over all records of `loader` but those it skips as damaged; of all ranks' shares.

    The loss is the plain cross-entropy. `between` is called after batches, as often on every rank;
    what it raises ends the evaluation. Raises RunFault where the count of samples is not that of
    the records.
    """
    loss, tally = SoftmaxCrossEntropy(classes), Tally()

    def score(batch: Batch, logits: mx.nd.NDArray) -> None:
        labels = mx.nd.array(batch.labels, ctx=device, dtype="int32")
        tally.update(loss(logits, labels), logits, labels)

    _feed(network, loader, score, device, dtype, between)
    return _scores(tally, network, loader, ranks or Ranks())


def evaluate_each(network: HybridBlock, loader: Loader, *, classes: int, device: mx.Context,
                  crops: int = 1, ranks: Ranks | None = None) -> tuple[Scores, Answers]:
    """As `evaluate`, with the answer to each record of this rank's share.

    Of several crops of each picture the probabilities are averaged; the loss is the negative
    logarithm of their mean.
    """
    loss, tally, top = SoftmaxCrossEntropy(classes), Tally(), TopClass()
    average = MeanOverCrops(crops)
    indices, labels, tops = [], [], []

    def score(batch: Batch, logits: mx.nd.NDArray) -> None:
        own = mx.nd.array(batch.labels, ctx=device, dtype="int32")
        logits = logits if crops == 1 else average(logits)
        tally.update(loss(logits, own), logits, own)
        indices.append(batch.indices)
        labels.append(batch.labels)
        tops.append(top(logits))

    _feed(network, loader, score, device)
    scores = _scores(tally, network, loader, ranks or Ranks())
    found = np.concatenate([np.empty((0, 2)), *(part.asnumpy() for part in tops)])
    return scores, Answers(*(np.concatenate([np.empty(0, np.int64), *parts])
                             for parts in (indices, labels)),
                           found[:, 0].astype(np.int64), found[:, 1])


def _feed(network: HybridBlock, loader: Loader,
          score: Callable[[Batch, mx.nd.NDArray], None], device: mx.Context,
          dtype: str = "float32", between: Callable[[], None] = lambda: None) -> None:
    """Call `score` with each batch that is not empty and its logits, a row a crop, and `between`
    after each of the batches of the rank that has most of them."""
    in_flight = InFlight()
    with contextlib.closing(loader.epoch()) as batches:
        for _ in range(loader.order.most_steps):
            batch = next(batches, None)
            if batch is not None and len(batch.labels):
                images = batch.images.reshape(-1, *batch.images.shape[-3:])  # crops in a row
                logits = network(mx.nd.array(images, ctx=device, dtype=dtype))
                score(batch, logits)
                in_flight.add(logits)
            between()


def _scores(tally: Tally, network: HybridBlock, loader: Loader, ranks: Ranks) -> Scores:
    """Of all ranks together. Raises RunFault where a record is missing or counted twice."""
    sums = tally.sums().over(ranks)
    loader.skipped.update(ranks.union(loader.skipped))
    expected = loader.order.records - len(loader.skipped)
    if not expected:
        raise ranks.once(nothing_left(loader))
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
