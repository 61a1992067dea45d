"""Two tasks for the engine that have nothing of a classifier: a dense one, a ragged one.

Their samples are made of their numbers. Those that `damaged` names cannot be made.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import loss, nn

from gluon_tricks.augment.flip import draw_flips
from gluon_tricks.config.fields import DATA, MODEL, flag, numbers, switch
from gluon_tricks.config.rules import validate_by
from gluon_tricks.config.settings import RunSettings
from gluon_tricks.data.loader import SampleLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.engine.tally import Tally
from gluon_tricks.errors import InputError
from gluon_tricks.models.graph import hybridize, is_random
from gluon_tricks.runs.curves import Panel
from gluon_tricks.runs.scores import Scores, mean_scores

TRAIN, VAL = 40, 13  # samples
SIZE, KINDS = 16, 3  # of masks


@dataclass(frozen=True)
class ToySettings(RunSettings):
    """What both have beside every run's."""

    plain: bool = switch("neither BatchNorm nor dropout", group=MODEL)
    damaged: tuple[int, ...] = flag((), "samples that cannot be made", group=DATA,
                                    type=numbers(int))


@dataclass(frozen=True)
class DenseSettings(ToySettings):
    width: int = flag(8, "channels between the layers", group=MODEL, type=int, least=1,
                      on_resume="fixed")


@dataclass(frozen=True)
class RaggedSettings(ToySettings):
    hidden: int = flag(8, "channels of the hidden layer", group=MODEL, type=int, least=1,
                       on_resume="fixed")


class Data:
    """Samples that `draw` makes of a generator each."""

    def __init__(self, part: str, draw: Callable[[np.random.Generator], tuple],
                 damaged: tuple[int, ...] = ()):
        self.path, self.keys = Path("generated") / part, range(TRAIN if part == "train" else VAL)
        self._stream, self._draw, self._damaged = len(part), draw, damaged

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __len__(self):
        return len(self.keys)

    def name(self, index):
        return f"{self.path}: sample {index}"

    def sample(self, index):
        if index in self._damaged:
            raise InputError(f"{self.name(index)} is damaged")
        return self._draw(np.random.default_rng([self._stream, index]))


class Toy:
    """What both do alike. A subclass has draw, flipped, collate and layers."""

    random = False

    def open(self, settings, part, train=None):
        return Data(part, self.draw, settings.damaged)

    def fingerprint(self, data):
        return f"{self.name} {data.path} {len(data)}"

    def resolve(self, settings, train, val=None):
        self.settings = validate_by(
            dataclasses.replace(settings, num_training_samples=len(train)).filled())
        return self.settings

    def loader(self, data, ranks, *, training):
        settings = self.settings
        order = TrainOrder(len(data), settings.batch_size, settings.seed, ranks.rank, ranks.size,
                           settings.accumulate) if training else \
            EvalOrder(len(data), settings.batch_size, ranks.rank, ranks.size)
        return SampleLoader(
            data, order, lambda index, mirrored: self.flipped(*data.sample(index), mirrored),
            self.collate, draw=draw_flips if training else None, seed=settings.seed,
            workers=settings.num_data_workers, skip_damaged=settings.on_bad_record == "skip")

    def settled(self, loader):
        return self.settings

    def network(self, device):
        network, self._device = self.layers(), device
        mx.random.seed(self.settings.seed)
        network.initialize(mx.init.Xavier(), ctx=device)
        self.random = is_random(network)
        return network

    def constants(self):
        return {}

    def load_initial(self, network):
        return []

    def adopt(self, network, updater):
        return None

    def files(self):
        return {}

    def lines(self, network, train, val):
        return {"training set": f"{train.path}: {len(train)} samples"}, [f"{self.name} begins"]

    def words(self, scores, *, training):
        return " ".join(f"{name}={value:f}" for name, value in scores.figures.items())

    def shown(self, scores):
        return f"{self.figure} {scores.figures[self.figure]:.1%}"

    def without_data(self, settings):
        samples = settings.num_training_samples or TRAIN
        self.settings = validate_by(
            dataclasses.replace(settings, num_training_samples=samples).filled())
        return self.settings

    def check(self):
        self.layers()

    def example(self):
        count = self.settings.batch_size
        samples = [self.draw(np.random.default_rng(index)) for index in range(count)]
        return self.collate(samples, np.arange(count), 0)


class DenseBatch(NamedTuple):
    images: np.ndarray  # (samples, 3, SIZE, SIZE)
    masks: np.ndarray  # (samples, SIZE, SIZE), kinds
    indices: np.ndarray
    step: int


class Dense(Toy):
    """What kind each pixel is of: noise, or one of two bright rectangles."""

    name, figure, parts = "dense", "mean_iou", ("pixel_accuracy",)

    @staticmethod
    def draw(rng):
        image = 0.3 * rng.standard_normal((3, SIZE, SIZE), np.float32)
        mask = np.zeros((SIZE, SIZE), np.int32)
        for kind in range(1, KINDS):
            top, left = rng.integers(0, SIZE - 6, 2)
            height, width = rng.integers(3, 7, 2)
            place = slice(top, top + height), slice(left, left + width)
            mask[place] = kind
            image[(kind, *place)] += 1
        return image, mask

    @staticmethod
    def flipped(image, mask, mirrored):
        return (image[..., ::-1], mask[:, ::-1]) if mirrored else (image, mask)

    @staticmethod
    def collate(samples, indices, step):
        images, masks = zip(*samples, strict=True) if samples else ((), ())
        return DenseBatch(np.array(images, np.float32), np.array(masks, np.int32), indices, step)

    def layers(self):
        width, net = self.settings.width, nn.HybridSequential()
        net.add(nn.Conv2D(width, 3, padding=1, in_channels=3))
        if not self.settings.plain:
            net.add(nn.BatchNorm(in_channels=width))
        net.add(nn.Activation("relu"))
        if not self.settings.plain:
            net.add(nn.Dropout(0.2))
        net.add(nn.Conv2D(KINDS, 3, padding=1, in_channels=width))
        return net

    def network(self, device):
        network = super().network(device)
        hybridize(network)
        self.loss = loss.SoftmaxCrossEntropyLoss(axis=1)  # the mean over a sample's pixels
        return network

    def inputs(self, batch, *, epoch, rank):
        return (mx.nd.array(batch.images, ctx=self._device),
                mx.nd.array(batch.masks, ctx=self._device))

    def losses(self, network, inputs):
        images, masks = inputs
        logits = network(images)
        with autograd.pause():
            right = (logits.argmax(axis=1) == masks).astype("float64").mean(axis=(1, 2)).sum()
        return self.loss(logits, masks), right.reshape((1,))

    def evaluator(self, network):
        return DenseEvaluator(self, network)

    def panel(self):
        return Panel("mean IoU, %", {"training, of pixels": "train_pixel_accuracy",
                                     "validation": "val_mean_iou"}, 100)


class DenseEvaluator:
    """Adds up a confusion matrix."""

    def __init__(self, task, network):
        self._task, self._network, self._tally = task, network, Tally()
        self._confusion = mx.nd.zeros((KINDS, KINDS), ctx=task._device, dtype="float64")

    def take(self, batch):
        images, masks = self._task.inputs(batch, epoch=0, rank=0)
        logits = self._network(images)
        self._tally.add(self._task.loss(logits, masks), count=len(batch.indices))
        true, said = (mx.nd.one_hot(kinds.reshape((-1,)), KINDS)
                      for kinds in (masks, logits.argmax(axis=1)))
        counts = mx.nd.dot(true, said, transpose_a=True)
        self._confusion = self._confusion + counts.astype("float64")
        return counts

    def scores(self, ranks):
        sums = self._tally.sums().over(ranks)
        cells = ranks.allreduce(self._confusion.asnumpy().ravel().tolist())
        confusion = np.reshape(cells, (KINDS, KINDS))
        own = confusion.diagonal()
        iou = own / np.maximum(confusion.sum(0) + confusion.sum(1) - own, 1)
        return Scores(sums.count, sums.loss / sums.count, {"mean_iou": float(iou.mean())})


class RaggedBatch(NamedTuple):
    images: list  # (3, height, width) each
    boxes: list  # (boxes, 4) each: the center's row and column, half the height and the width
    indices: np.ndarray
    step: int


class Ragged(Toy):
    """How large the box around each of some points is; its color says so, up to noise."""

    name, figure, parts = "ragged", "hit_rate", ("distance", "hit_share")

    @staticmethod
    def draw(rng):
        height, width = rng.integers(14, 25, 2)
        image = 0.05 * rng.standard_normal((3, height, width), np.float32)
        boxes = []
        for _ in range(rng.integers(0, 4)):  # none, too
            row, column = rng.integers(5, (height - 5, width - 5))
            half = rng.integers(1, 5, 2)
            boxes.append((row, column, *half))
            image[:, row - 1:row + 2, column - 1:column + 2] = np.array(
                [*half / 4, 1])[:, None, None]
        return image, np.array(boxes, np.float32).reshape(-1, 4)

    @staticmethod
    def flipped(image, boxes, mirrored):
        if not mirrored:
            return image, boxes
        boxes = boxes.copy()
        boxes[:, 1] = image.shape[2] - 1 - boxes[:, 1]
        return image[..., ::-1], boxes

    @staticmethod
    def collate(samples, indices, step):
        return RaggedBatch([image for image, _ in samples], [boxes for _, boxes in samples],
                           indices, step)

    def layers(self):
        hidden, net = self.settings.hidden, nn.HybridSequential()  # not compiled: sizes differ
        net.add(nn.Conv2D(hidden, 3, padding=1, in_channels=3, activation="relu"))
        if not self.settings.plain:
            net.add(nn.Dropout(0.05))
        net.add(nn.Conv2D(3, 1, in_channels=hidden))  # half the height and width; is it a center?
        return net

    def inputs(self, batch, *, epoch, rank):
        return [(mx.nd.array(image[None], ctx=self._device), boxes)
                for image, boxes in zip(batch.images, batch.boxes, strict=True)]

    def losses(self, network, inputs):
        found = [self.loss_of_one(network, *one) for one in inputs]
        parts = mx.nd.stack(*(part for _, part in found)).sum(axis=0)
        return mx.nd.concat(*(loss for loss, _ in found), dim=0), parts[:2]

    def loss_of_one(self, network, image, boxes):
        """The loss (1,); its distance, its share of hits, its hits and its boxes, float64."""
        output = network(image).reshape((3, -1))
        places = boxes[:, 0] * image.shape[3] + boxes[:, 1]
        there = np.zeros((1, output.shape[1]), np.float32)
        there[0, places.astype(int)] = 1
        found = loss.SigmoidBCELoss()(output[2:], mx.nd.array(there, ctx=self._device))
        if not len(boxes):
            return found, mx.nd.array([0, 1, 0, 0], ctx=self._device, dtype="float64")
        halves = output[:2].take(mx.nd.array(places, ctx=self._device), axis=1).T
        wanted = mx.nd.array(boxes[:, 2:], ctx=self._device)
        distance = (halves - wanted).abs().mean().reshape((1,))
        with autograd.pause():
            both = mx.nd.minimum(halves, wanted).relu().prod(axis=1)  # they have one center
            iou = both / (halves.relu().prod(axis=1) + wanted.prod(axis=1) - both)
            hits = (iou > 0.5).sum().astype("float64").reshape((1,))
            parts = mx.nd.concat(distance.astype("float64"), hits / len(boxes), hits,
                                 mx.nd.full((1,), len(boxes), ctx=self._device, dtype="float64"),
                                 dim=0)
        return found + distance, parts

    def evaluator(self, network):
        return RaggedEvaluator(self, network)

    def panel(self):
        return Panel("hits, %", {"training": "train_hit_share", "validation": "val_hit_rate"}, 100)


class RaggedEvaluator:
    """Counts hits, of all boxes alike."""

    def __init__(self, task, network):
        self._task, self._network = task, network
        self._tally = Tally(("distance", "hit_share", "hits", "boxes"))

    def take(self, batch):
        for one in self._task.inputs(batch, epoch=0, rank=0):
            found, parts = self._task.loss_of_one(self._network, *one)
            self._tally.add(found, parts, count=1)
        return found

    def scores(self, ranks):
        sums = self._tally.sums().over(ranks)
        count, mean, _ = mean_scores(sums)
        return Scores(count, mean, {"hit_rate": sums.parts["hits"] / max(sums.parts["boxes"], 1)})


TASKS = {"dense": (Dense, DenseSettings), "ragged": (Ragged, RaggedSettings)}
