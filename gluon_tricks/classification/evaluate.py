"""Exact evaluation of a classifier: every record counted once, whatever the batch size."""

import math
from collections.abc import Callable
from typing import NamedTuple

import mxnet as mx
import numpy as np
from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification.loaders import Loader
from gluon_tricks.classification.metrics import Hits, MeanOverCrops, TopClass
from gluon_tricks.data.loader import Batch
from gluon_tricks.engine import validation
from gluon_tricks.engine.tally import Tally
from gluon_tricks.loss import SoftmaxCrossEntropy
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.scores import Scores, mean_scores

FIGURES = ("top1", "top5")


class Predictions(NamedTuple):
    """A network's prediction for each record of a rank's share: arrays of shape (records,)."""

    indices: np.ndarray  # of the records
    labels: np.ndarray
    predicted: np.ndarray  # the most probable class
    probabilities: np.ndarray  # of that class


class Evaluator:
    """Accumulates cross-entropy, top-1 and top-5 over batches.

    With several crops of each image the probabilities are averaged, and the loss is the negative
    logarithm of their mean. `each` is called with every batch and its logits (images, classes).
    """

    def __init__(self, network: HybridBlock, classes: int, device: mx.Context,
                 dtype: str = "float32", crops: int = 1,
                 each: Callable[[Batch, mx.nd.NDArray], None] = lambda batch, logits: None):
        self._network, self._device, self._dtype = network, device, dtype
        self._average = MeanOverCrops(crops) if crops > 1 else None
        self._loss, self._hits, self._tally = SoftmaxCrossEntropy(classes), Hits(five=True), \
            Tally(FIGURES)
        self._hits.hybridize()
        self._each = each

    def take(self, batch: Batch) -> mx.nd.NDArray:
        """Score one batch; returns its logits, which the device may still be computing."""
        images = batch.images.reshape(-1, *batch.images.shape[-3:])  # an image's crops are adjacent
        logits = self._network(mx.nd.array(images, ctx=self._device, dtype=self._dtype))
        if self._average:
            logits = self._average(logits)
        labels = mx.nd.array(batch.labels, ctx=self._device, dtype="int32")
        self._tally.add(self._loss(logits, labels), self._hits(logits, labels),
                        count=len(batch.labels))
        self._each(batch, logits)
        return logits

    def scores(self, ranks: Ranks) -> Scores:
        """The scores so far, over all ranks."""
        sums = self._tally.sums().over(ranks)
        return mean_scores(sums) if sums.count else \
            Scores(0, math.nan, dict.fromkeys(FIGURES, 0.0))


def evaluate(network: HybridBlock, loader: Loader, *, classes: int, device: mx.Context,
             dtype: str = "float32", ranks: Ranks | None = None) -> Scores:
    """Scores over all records of `loader`, on all ranks, except those it skips as damaged.

    Raises RunFault if the number of samples differs from the number of records.
    """
    evaluator = Evaluator(network, classes, device, dtype)
    return validation.evaluate(evaluator, network, loader, ranks=ranks or Ranks())


def evaluate_each(network: HybridBlock, loader: Loader, *, classes: int, device: mx.Context,
                  crops: int = 1, ranks: Ranks | None = None) -> tuple[Scores, Predictions]:
    """Like `evaluate`, and also the prediction for each record of this rank's share."""
    top = TopClass()
    indices, labels, tops = [], [], []

    def note(batch: Batch, logits: mx.nd.NDArray) -> None:
        indices.append(batch.indices)
        labels.append(batch.labels)
        tops.append(top(logits))

    evaluator = Evaluator(network, classes, device, crops=crops, each=note)
    scores = validation.evaluate(evaluator, network, loader, ranks=ranks or Ranks())
    found = np.concatenate([np.empty((0, 2)), *(part.asnumpy() for part in tops)])
    return scores, Predictions(*(np.concatenate([np.empty(0, np.int64), *parts])
                                 for parts in (indices, labels)),
                               found[:, 0].astype(np.int64), found[:, 1])


def correct(scores: Scores, figure: str) -> int:
    """How many samples a figure counts as correct."""
    return round(scores.figures[figure] * scores.count)


def flat(scores: Scores) -> dict[str, float]:
    """Scores by name, accuracies as counts of images, too."""
    return {"count": scores.count, "loss": scores.loss, **scores.figures,
            **{f"correct{name.removeprefix('top')}": correct(scores, name) for name in FIGURES}}


def shown(scores: Scores) -> str:
    """Scores as text for people."""
    return (f"top-1 {scores.figures['top1']:.2%}, top-5 {scores.figures['top5']:.2%}, "
            f"loss {scores.loss:.4f}, {scores.count} images")
