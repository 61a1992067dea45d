"""The scores of a pass over a set, and the sums that training's are made from."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gluon_tricks.parallel.ranks import Ranks


class Scores(NamedTuple):
    """Of `count` samples, the mean loss and figures by name, as a task defines them."""

    count: int
    loss: float
    figures: Mapping[str, float]


class Sums(NamedTuple):
    """What has been summed over `count` samples: the loss, and a task's parts by name."""

    count: int = 0
    loss: float = 0.0
    parts: Mapping[str, float] = {}

    def over(self, ranks: Ranks) -> "Sums":
        """Those of all ranks together."""
        count, loss, *parts = ranks.allreduce([self.count, self.loss, *self.parts.values()])
        return Sums(int(count), loss, dict(zip(self.parts, parts, strict=True)))


def mean_scores(sums: Sums) -> Scores:
    """The means. Raises ValueError if nothing was summed."""
    if not sums.count:
        raise ValueError("no batch was counted")
    return Scores(sums.count, sums.loss / sums.count,
                  {name: part / sums.count for name, part in sums.parts.items()})


def to_json(found: Scores | Sums | None) -> dict[str, Any] | None:
    """An object that gives back every bit."""
    return found and {**found._asdict(), found._fields[2]: dict(found[2])}


def from_json(kind: type[Scores] | type[Sums], found: Any, names: Iterable[str]) -> Scores | Sums:
    """What `to_json` gave. Raises ValueError for what it never gives, and unless there is a number
    for each of `names`."""
    last = kind._fields[2]
    if not isinstance(found, dict) or found.keys() != set(kind._fields):
        raise ValueError(f"{found!r} has not {', '.join(kind._fields)}")
    values = found[last]
    if (type(found["count"]) is not int or found["count"] < 0 or type(found["loss"]) is not float
            or not isinstance(values, dict) or not set(names) <= values.keys()
            or not all(type(value) is float for value in values.values())):
        raise ValueError(f"{found!r} is not what a run counts")
    return kind(found["count"], found["loss"], values)
