"""Classification as a task for the engine: images and labels, and the tricks that mix and smooth
them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon.block import HybridBlock

from gluon_tricks.augment.rng import batch_rng
from gluon_tricks.classification import evaluate, summary
from gluon_tricks.classification.initial import check_teacher, load_initial, resume_gluoncv_run
from gluon_tricks.classification.loaders import (
    Loader,
    damaged_records,
    eval_loader,
    open_records,
    resolve_backend,
    train_loader,
)
from gluon_tricks.classification.metrics import Hits
from gluon_tricks.classification.network import (
    build_loss,
    build_network,
    build_teacher,
    build_teacher_network,
    initialize,
)
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve, resolve_without_data
from gluon_tricks.data.check import fingerprint
from gluon_tricks.data.classes import check_same_classes, write_classes
from gluon_tricks.data.loader import Batch
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.loss import smooth_labels
from gluon_tricks.mixing.mixup import draw_gluoncv_pairs, draw_pairs, mixup
from gluon_tricks.models.freezing import names_before
from gluon_tricks.models.graph import is_random
from gluon_tricks.models.parameters import named_arrays
from gluon_tricks.optim.update import ParameterUpdater
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.curves import Panel
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.scores import Scores


class Inputs(NamedTuple):
    """A batch on its device, ready for the network and the loss."""

    images: mx.nd.NDArray
    labels: mx.nd.NDArray  # (batch,) int32
    targets: mx.nd.NDArray  # the labels, or (batch, classes) mixed
    partner_labels: mx.nd.NDArray | None = None  # (batch,) int32
    lam: mx.nd.NDArray | None = None  # (batch,) float32, the share of the sample itself


class Classification:
    """Trains and evaluates classifiers; engine/task.py documents each method."""

    name, figure, parts = "classification", "top1", ("top1",)
    random = False

    settings: Settings
    _classes: list[str] | None = None  # their names, if the training set knows them

    def open(self, settings: Settings, part: str, train: ImageSet | None = None) -> ImageSet:
        return open_records(settings, part, train and train.class_names())

    def fingerprint(self, data: ImageSet) -> str:
        return fingerprint(data)

    def resolve(self, settings: Settings, train: ImageSet,
                val: ImageSet | None = None) -> Settings:
        self.settings = settings = resolve(settings, len(train), train.class_count())
        self._classes = train.class_names()
        if val is not None:
            check_same_classes(val.path, val.class_names(), self._classes)
            check_teacher(settings, self._classes)
        return settings

    def loader(self, data: ImageSet, ranks: Ranks, *, training: bool) -> Loader:
        make = train_loader if training else eval_loader
        return make(self.settings, data, damaged_records(self.settings, data), ranks)

    def settled(self, loader: Loader) -> Settings:
        self.settings = resolve_backend(self.settings, loader)
        return self.settings

    def network(self, device: mx.Context) -> HybridBlock:
        settings = self.settings
        network, self._teacher = build_network(settings), build_teacher(settings, device)
        initialize(network, settings, device)
        self.random, self._device, self._dtype = is_random(network), device, settings.array_dtype
        self._loss, self._hits = build_loss(settings), (Hits(), Hits())  # of plain, mixed labels
        for hits in self._hits:
            hits.hybridize()
        return network

    def constants(self) -> Mapping[str, mx.nd.NDArray]:
        return named_arrays(self._teacher) if self._teacher else {}

    def load_initial(self, network: HybridBlock) -> list[str]:
        return load_initial(network, self.settings, self._classes)

    def adopt(self, network: HybridBlock, updater: ParameterUpdater) -> Progress | None:
        if not self.settings.resume_params:
            return None
        return resume_gluoncv_run(network, updater, self.settings)

    def files(self) -> Mapping[str, Callable[[Path], None]]:
        """classes.json, for whoever evaluates the parameters."""
        classes = self._classes
        return {"classes.json": lambda path: write_classes(path, classes)} if classes else {}

    def inputs(self, batch: Batch, *, epoch: int, rank: int) -> Inputs:
        """Copy a batch to the device and mix it there."""
        settings, device = self.settings, self._device
        images = mx.nd.array(batch.images, ctx=device, dtype=self._dtype)
        labels = mx.nd.array(batch.labels, ctx=device, dtype="int32")
        if not settings.mixup:
            return Inputs(images, labels, labels)
        targets = smooth_labels(mx.nd, labels, settings.num_classes, settings.label_smoothing,
                                uniform=settings.gluoncv_compat)
        if epoch >= settings.num_epochs - settings.mixup_off_epoch:
            return Inputs(images, labels, targets)
        draw = draw_gluoncv_pairs if settings.gluoncv_compat else draw_pairs
        rng = batch_rng(settings.seed, epoch, batch.step, rank)
        pairs = draw(rng, len(labels), settings.mixup_alpha)
        lam = mx.nd.array(pairs.lam, ctx=device, dtype="float32")
        partner = mx.nd.array(pairs.partner, ctx=device, dtype="int32")
        images, targets = mixup(images, targets, lam, partner)
        return Inputs(images, labels, targets, mx.nd.take(labels, partner), lam)

    def losses(self, network: HybridBlock,
               inputs: Inputs) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        images, labels, targets, *mixed = inputs
        soft = []
        if self._teacher is not None:
            with autograd.pause():  # in predict mode
                soft = [self._teacher(images)]
        logits = network(images)
        loss = self._loss(logits, targets, *soft)
        with autograd.pause():
            hits = self._hits[0](logits, labels) if mixed[0] is None else \
                self._hits[1](logits, labels, *mixed)
        return loss, hits

    def evaluator(self, network: HybridBlock) -> evaluate.Evaluator:
        return evaluate.Evaluator(network, self.settings.num_classes, self._device, self._dtype)

    def lines(self, network: HybridBlock, train: ImageSet,
              val: ImageSet) -> tuple[dict[str, str], list[str]]:
        return (summary.rows(self.settings, train, val),
                summary.notes(self.settings, network, train))

    def words(self, scores: Scores, *, training: bool) -> str:
        """Scores as GluonCV's scripts log them."""
        if training:
            return f"accuracy={scores.figures['top1']:f}"
        return " ".join(f"err-{name}={1 - value:f}" for name, value in scores.figures.items())

    def shown(self, scores: Scores) -> str:
        return evaluate.shown(scores)

    def panel(self) -> Panel:
        return summary.panel(self.settings)

    def without_data(self, settings: Settings) -> Settings:
        self.settings = resolve_without_data(settings)
        return self.settings

    def check(self) -> None:
        names_before(build_network(self.settings), self.settings.freeze_until)
        if self.settings.teacher:
            build_teacher_network(self.settings)

    def example(self) -> Batch:
        """A batch of normal noise, in the shapes that the settings ask for."""
        settings = self.settings
        rng = np.random.default_rng(settings.seed)
        shape = (settings.batch_size, 3, settings.input_size, settings.input_size)
        return Batch(rng.standard_normal(shape, np.float32).astype(settings.array_dtype),
                     rng.integers(settings.num_classes, size=settings.batch_size, dtype=np.int32),
                     np.arange(settings.batch_size), 0)
