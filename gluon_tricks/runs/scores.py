"""The scores of a pass over a data set, and the sums that they are computed from."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gluon_tricks.parallel.ranks import Ranks


class Scores(NamedTuple):
    """The mean loss over `count` samples, and a task's figures by name."""

    count: int
    loss: float
    figures: Mapping[str, float]


class Sums(NamedTuple):
    """Sums over `count` samples: of the loss, and of a task's parts by name."""

    count: int = 0
    loss: float = 0.0
    parts: Mapping[str, float] = {}

    def over(self, ranks: Ranks) -> "Sums":
        """The sums over all ranks."""
        count, loss, *parts = ranks.allreduce([self.count, self.loss, *self.parts.values()])
        return Sums(int(count), loss, dict(zip(self.parts, parts, strict=True)))


def mean_scores(sums: Sums) -> Scores:
    """The means. Raises ValueError if nothing was summed."""
    if not sums.count:
        raise ValueError("no batch was counted")
    return Scores(sums.count, sums.loss / sums.count,
                  {name: part / sums.count for name, part in sums.parts.items()})


def to_json(found: Scores | Sums | None) -> dict[str, Any] | None:
    """A JSON object that keeps every bit."""
    return found and {**found._asdict(), found._fields[2]: dict(found[2])}


def from_json(kind: type[Scores] | type[Sums], found: Any, names: Iterable[str]) -> Scores | Sums:
    """The inverse of `to_json`. Raises ValueError for what `to_json` never gives, and unless there
    is a number for each of `names`."""
    last = kind._fields[2]
    if not isinstance(found, dict) or found.keys() != set(kind._fields):
        raise ValueError(f"{found!r} does not have the keys {', '.join(kind._fields)}")
    values = found[last]
    if (type(found["count"]) is not int or found["count"] < 0 or type(found["loss"]) is not float
            or not isinstance(values, dict) or not set(names) <= values.keys()
            or not all(type(value) is float for value in values.values())):
        raise ValueError(f"{found!r} does not hold valid counts and sums")
    return kind(found["count"], found["loss"], values)
