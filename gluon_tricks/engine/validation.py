"""Exact evaluation: counts each sample once, whatever the batch size and the number of ranks."""

import contextlib
from collections.abc import Callable

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.engine.inflight import InFlight
from gluon_tricks.engine.task import Batch, Evaluator, Loader
from gluon_tricks.errors import RunFault
from gluon_tricks.models.parameters import restore_layout
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.scores import Scores


def evaluate(evaluator: Evaluator, network: HybridBlock, loader: Loader, *, ranks: Ranks,
             between: Callable[[], None] = lambda: None) -> Scores:
    """Scores over all ranks and all samples of `loader` except those it skips as damaged.

    `between` is called after each batch, equally often on every rank; what it raises ends the
    evaluation. Raises RunFault if the number of samples is not that of the records.
    """
    feed(loader, evaluator.take, between)
    loader.skipped.update(ranks.union(loader.skipped))
    expected = loader.order.records - len(loader.skipped)
    if not expected:
        raise ranks.agreed_error(loader.no_decodable_record())
    scores = evaluator.scores(ranks)  # waits for the device, without which nothing is restored
    restore_layout(network)
    if scores.count != expected:
        raise ranks.agreed_error(RunFault(
            f"evaluation counted {scores.count} samples of {expected} records: please report this "
            "with the command you ran"))
    return scores


def feed(loader: Loader, take: Callable[[Batch], mx.nd.NDArray],
         between: Callable[[], None] = lambda: None) -> None:
    """Call `take` with each batch that is not empty, and `between` as often as the rank with the
    most batches has batches."""
    in_flight = InFlight()
    with contextlib.closing(loader.epoch()) as batches:
        for _ in range(loader.order.steps_of_longest_rank):
            batch = next(batches, None)
            if batch is not None and len(batch.indices):
                in_flight.add(take(batch))
            between()
