"""How far a run is: with the arrays, all that it needs to go on."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from gluon_tricks.optim.precision import LossScale
from gluon_tricks.runs.scores import Scores, Sums


@dataclass
class Progress:
    """Where a run stands between two updates; `state.json` of a checkpoint holds it."""

    epoch: int = 0
    step: int = 0  # batches of the epoch that are done; where all are, validation is not
    trained: Sums = field(default_factory=Sums)  # of the epoch so far
    seconds: float = 0.0  # of training, in this epoch so far
    waited: float = 0.0  # of these, waiting for data
    loss_scale: LossScale = field(default_factory=LossScale)
    bad_updates: int = 0  # left out by --nan skip
    best_epoch: int = -1
    best: Scores | None = None
    last: Scores | None = None

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch, self.step, self.trained = self.epoch + 1, 0, Sums()
        self.seconds = self.waited = 0.0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> "Progress":
        """What `to_json` gave, to the bit. Raises ValueError, naming it, for what it never gives.
        """
        parts = {"trained": Sums, "loss_scale": LossScale, "best": Scores, "last": Scores}
        own = cls()
        for name in sorted(vars(own).keys() ^ state.keys()):
            raise ValueError(f"{name!r} is missing or unknown")
        for name, value in state.items():
            if name not in parts:
                _check(name, value, type(getattr(own, name)))
                setattr(own, name, value)
            elif value is not None or name in ("trained", "loss_scale"):
                kind = parts[name]
                if not isinstance(value, list) or len(value) != len(kind._fields):
                    raise ValueError(f"{name!r} is {value!r}")
                for number, want in zip(value, kind.__annotations__.values(), strict=True):
                    _check(name, number, want)
                setattr(own, name, kind(*value))
        return own


def is_due(epoch: int, frequency: int, epochs: int) -> bool:
    """Whether `epoch`, from 0, is the last of `epochs` or ends `frequency` more; 0: the last alone.
    """
    return epoch + 1 == epochs or (frequency > 0 and (epoch + 1) % frequency == 0)


def _check(name: str, value: Any, kind: type) -> None:
    """Raise ValueError where a number is of another type, or none that a run counts."""
    if type(value) is not kind or (kind is int and value < -1):
        raise ValueError(f"{name!r} is {value!r}")
