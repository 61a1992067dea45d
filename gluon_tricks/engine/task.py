"""The protocol between the engine and what it trains: all that the engine does not know of it."""

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
    """An open data set, for training or validation. Also a context manager."""

    path: Path

    def __len__(self) -> int: ...


class Batch(Protocol):
    """Some samples of a rank's share; a NamedTuple, for --benchmark replaces its `step`."""

    indices: np.ndarray  # of the samples in the set; damaged ones are missing, perhaps all
    step: int  # the batch's number in its epoch, from 0


class Order(Protocol):
    """Which samples a rank reads, in which order (data/order.py)."""

    records: int
    steps_of_longest_rank: int


class Loader(Protocol):
    """A rank's batches. Also a context manager."""

    order: Order
    backend: str  # what makes the samples, and a note why
    backend_note: str
    skipped: set[int]  # damaged samples that were skipped so far

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]: ...

    def skipped_line(self) -> str:
        """Which samples were skipped, in one line; "" if none was."""

    def no_decodable_record(self) -> InputError:
        """What to raise if all were skipped."""


class Evaluator(Protocol):
    """Scores a network, batch by batch; each sample counts once."""

    def take(self, batch: Batch) -> mx.nd.NDArray:
        """Predict and count a batch; an array that the device may not have computed yet."""

    def scores(self, ranks: Ranks) -> Scores:
        """The scores over all ranks; `count` is the number of samples."""


class Task(Reporter, Protocol):
    """One run's task. The engine calls `open` for both parts, `resolve`, `network` and `loader` for
    both parts once each, then the other methods as often as it likes."""

    name: str  # "classification"; in config.json and state.json
    figure: str  # the score that "best" and early stopping compare; greater is better
    parts: tuple[str, ...]  # what training sums besides the loss, by name
    random: bool  # whether training draws random numbers on the device

    def open(self, settings: RunSettings, part: str, train: Data | None = None) -> Data:
        """The "train" part, or the "val" part of the same data."""

    def fingerprint(self, data: Data) -> str:
        """A string that is the same only for the same samples in the same order."""

    def resolve(self, settings: RunSettings, train: Data,
                val: Data | None = None) -> RunSettings:
        """The settings with what the data decide filled in, and validated. Raises InputError."""

    def loader(self, data: Data, ranks: Ranks, *, training: bool) -> Loader:
        """The batches of a rank's share; a sample depends on (seed, epoch, index) only."""

    def settled(self, loader: Loader) -> RunSettings:
        """The settings with what the training loader decided filled in."""

    def network(self, device: mx.Context) -> HybridBlock:
        """The complete network: initialized, nothing deferred, frozen parts marked, hybridized."""

    def constants(self) -> Mapping[str, mx.nd.NDArray]:
        """Arrays that `losses` uses besides the network's; rank 0's are broadcast."""

    def load_initial(self, network: HybridBlock) -> list[str]:
        """Load the parameters that the settings name. Returns lines for the log."""

    def adopt(self, network: HybridBlock, updater: ParameterUpdater) -> Progress | None:
        """Load another program's run into the network and the updater; where to resume it."""

    def files(self) -> Mapping[str, Callable[[Path], None]]:
        """The task's own files in the run's folder: by name, what writes each."""

    def inputs(self, batch: Batch, *, epoch: int, rank: int) -> Any:
        """A batch on the device, with the random draws that training needs."""

    def losses(self, network: HybridBlock,
               inputs: Any) -> tuple[mx.nd.NDArray, mx.nd.NDArray | None]:
        """Each sample's own loss, (samples,), under autograd; sums of `parts`, (parts,) float64."""

    def evaluator(self, network: HybridBlock) -> Evaluator: ...

    def lines(self, network: HybridBlock, train: Data, val: Data) -> tuple[dict[str, str],
                                                                           list[str]]:
        """Rows for the table that starts the log, and lines to follow it."""

    def shown(self, scores: Scores) -> str:
        """Scores as text for people."""

    def without_data(self, settings: RunSettings) -> RunSettings:
        """As `resolve`, with an assumed size of the data."""

    def check(self) -> None:
        """Build the network as far as that needs no device and no parameters. Raises InputError."""

    def example(self) -> Batch:
        """A training batch of made-up samples."""
