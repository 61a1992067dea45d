"""What a run trains: all that the engine's steps, checkpoints, ranks and logs do not know of it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import mxnet as mx
import numpy as np
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config.settings import RunSettings
from gluon_tricks.errors import InputError
from gluon_tricks.optim.update import ParameterUpdater
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.runlog import Reporter
from gluon_tricks.runs.scores import Scores


class Data(Protocol):
    """A part of the data, open: the training set or the validation set. Also a context manager."""

    path: Path

    def __len__(self) -> int: ...


class Batch(Protocol):
    """Some samples of a rank's share."""

    indices: np.ndarray  # which samples these are; a batch may have lost damaged ones, even all
    step: int  # which batch of the epoch this is


class Order(Protocol):
    """Which samples a rank reads, and when (data/order.py)."""

    records: int
    steps_of_longest_rank: int


class Loader(Protocol):
    """A rank's batches. Also a context manager."""

    order: Order
    backend: str  # what makes the samples, and a note why
    backend_note: str
    skipped: set[int]  # damaged samples that were left out so far

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]: ...

    def skipped_line(self) -> str:
        """Which samples were left out, in one line; "" if none was."""

    def no_decodable_record(self) -> InputError:
        """What to raise if all were left out."""


class Evaluator(Protocol):
    """Scores a network, batch by batch; each sample counts once."""

    def take(self, batch: Batch) -> mx.nd.NDArray:
        """Predict and count; an array that the device may yet compute."""

    def scores(self, ranks: Ranks) -> Scores:
        """Over all ranks; the count is that of the samples."""


class Task(Reporter, Protocol):
    """One run's task. The engine calls `open` for both parts, `resolve`, `loader` for both parts
    and `network` once each, in this order, then the others as often as it likes."""

    name: str  # "classification": config.json and state.json have it
    figure: str  # the score that "best" and early stopping compare; greater is better
    parts: tuple[str, ...]  # what training sums beside the loss, by name
    random: bool  # whether training draws random numbers on the device

    def open(self, settings: RunSettings, part: str, train: Data | None = None) -> Data:
        """The "train" part, or the "val" part of the same data."""

    def fingerprint(self, data: Data) -> str:
        """The same for the same samples in the same order."""

    def resolve(self, settings: RunSettings, train: Data,
                val: Data | None = None) -> RunSettings:
        """The settings with what the data decide, valid. Raises InputError if they cannot work."""

    def loader(self, data: Data, ranks: Ranks, *, training: bool) -> Loader:
        """A rank's share; a sample depends on (seed, epoch, index) alone."""

    def settled(self, loader: Loader) -> RunSettings:
        """The settings with what the training loader decided of those that were open."""

    def network(self, device: mx.Context) -> HybridBlock:
        """Whole, initialized, nothing deferred, frozen parts marked, compiled."""

    def constants(self) -> Mapping[str, mx.nd.NDArray]:
        """Arrays that `losses` uses beside the network's, which all ranks must have alike."""

    def load_initial(self, network: HybridBlock) -> list[str]:
        """Load the parameters that the settings name; lines for the log."""

    def adopt(self, network: HybridBlock, updater: ParameterUpdater) -> Progress | None:
        """Where to continue a run of another program, which filled the network and the updater."""

    def files(self) -> Mapping[str, Callable[[Path], None]]:
        """Files of its own in the run's folder, by name: what writes each."""

    def inputs(self, batch: Batch, *, epoch: int, rank: int) -> Any:
        """A batch on the device, with the draws that training needs."""

    def losses(self, network: HybridBlock,
               inputs: Any) -> tuple[mx.nd.NDArray, mx.nd.NDArray | None]:
        """Each sample's own loss, (samples,), recorded; sums of `parts`, (parts,) float64."""

    def evaluator(self, network: HybridBlock) -> Evaluator: ...

    def lines(self, network: HybridBlock, train: Data, val: Data) -> tuple[dict[str, str],
                                                                           list[str]]:
        """Rows of the table that the log starts with, and what to say after it."""

    def shown(self, scores: Scores) -> str:
        """Scores for people."""

    def without_data(self, settings: RunSettings) -> RunSettings:
        """As `resolve`, with a size of the data that is assumed."""

    def check(self) -> None:
        """Build what `network` builds as far as no device and no parameters are needed."""

    def example(self) -> Batch:
        """Made-up samples, as a batch of training has them."""
