"""How far a run has come: with the arrays, all that it needs to resume."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gluon_tricks.optim.precision import LossScale
from gluon_tricks.runs import scores
from gluon_tricks.runs.scores import Scores, Sums


@dataclass
class Progress:
    """Where a run is between two updates; saved in a checkpoint's `state.json`."""

    epoch: int = 0
    step: int = 0  # batches of the epoch that are done; if all are, validation comes next
    trained: Sums = field(default_factory=Sums)  # of the epoch so far
    seconds: float = 0.0  # of training, in this epoch so far
    waited: float = 0.0  # of these, waiting for data
    loss_scale: LossScale = field(default_factory=LossScale)
    bad_updates: int = 0  # skipped by --nan skip
    best_epoch: int = -1
    best: Scores | None = None
    last: Scores | None = None

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.step, self.trained = self.epoch + 1, 0, Sums()
        self.seconds = self.waited = 0.0

    def to_json(self) -> dict[str, Any]:
        """Its form in state.json."""
        return {**vars(self), "loss_scale": list(self.loss_scale),
                **{name: scores.to_json(getattr(self, name))
                   for name in ("trained", "best", "last")}}

    @classmethod
    def from_json(cls, state: dict[str, Any], parts: Sequence[str] = (),
                  figure: str | None = None) -> "Progress":
        """The inverse of `to_json`, to the bit. Raises ValueError, naming the field, for what
        `to_json` never gives, and unless the sums have `parts` and the scores have `figure`."""
        own = cls()
        wrong = min(vars(own).keys() ^ state.keys(), default=None)
        if wrong:
            raise ValueError(f"{wrong!r} is missing or unknown")
        for name, value in state.items():
            setattr(own, name, _read(name, value, getattr(own, name), parts, figure))
        return own


def _read(name: str, value: Any, default: Any, parts: Sequence[str], figure: str | None) -> Any:
    """A field of Progress from its JSON form. Raises ValueError, naming it."""
    try:
        if name == "trained":
            summed = isinstance(value, dict) and value.get("count")
            return scores.from_json(Sums, value, parts if summed else ())
        if name in ("best", "last"):
            wanted = [figure] if figure else ()
            return None if value is None else scores.from_json(Scores, value, wanted)
        if name == "loss_scale":
            kinds = LossScale.__annotations__.values()
            if not isinstance(value, list) or len(value) != len(kinds):
                raise ValueError(f"{value!r}")
            return LossScale(*(_number(each, kind)
                               for each, kind in zip(value, kinds, strict=True)))
        return _number(value, type(default))
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error


def _number(value: Any, kind: type) -> Any:
    """The number. Raises ValueError if it has another type, or is an int below -1."""
    if type(value) is not kind or (kind is int and value < -1):
        raise ValueError(f"{value!r}")
    return value


def from_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """Convert the progress of a state.json of format 1, which only classifiers wrote, to format 2.

    Raises ValueError for what format 1 never held.
    """
    def scored(found: Any) -> Any:
        if found is None:
            return None
        count, loss, top1, top5, *_ = found
        return {"count": count, "loss": loss, "figures": {"top1": top1, "top5": top5}}

    try:
        count, loss, hits, _ = state["trained"]
        trained = {"count": count, "loss": loss, "parts": {"top1": hits} if count else {}}
        return {**state, "trained": trained, "best": scored(state["best"]),
                "last": scored(state["last"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not progress of format 1: {error}") from error


def is_due(epoch: int, *, every: int, last: int) -> bool:
    """Whether something is due after `epoch`, from 0: the last of `last` epochs, or every `every`
    epochs (0: only the last)."""
    return epoch + 1 == last or (every > 0 and (epoch + 1) % every == 0)
