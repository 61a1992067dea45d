"""GluonCV's learning rate: LRSequential of a linear warm-up and a decay, as its scripts use them.

Unlike in the paper, update u (from 0) is counted as u + 1, the warm-up ends at i / (m - 1) instead
of i / m, and a decay over N updates reaches its end at N - 1. So the last two updates of a cosine
decay run at lr 0, and a step comes one update early.
"""

import math
from collections.abc import Sequence


def gluoncv_lr_at(update: int, *, base_lr: float, updates: int, warmup_updates: int = 0,
                  decay: str = "cosine", step_updates: Sequence[int] = (),
                  step_factor: float = 0.1, power: float = 2) -> float:
    """The learning rate of `update`, 0 <= update < updates; `updates` includes the warm-up.

    The arguments are those of `lr_at`; GluonCV's warm-up is linear from 0, whatever its flags say.
    A phase of one update, where GluonCV divides by zero, is at its end.
    """
    number = min(update + 1, updates - 1)
    if number < warmup_updates:
        return base_lr * _share(number, warmup_updates)
    if decay == "constant":
        return base_lr
    if decay == "step":
        return base_lr * step_factor ** sum(number >= step for step in step_updates)
    done = _share(number - warmup_updates, updates - warmup_updates)
    return base_lr * ((1 + math.cos(math.pi * done)) / 2 if decay == "cosine"
                      else (1 - done) ** power)


def _share(done: int, updates: int) -> float:
    return done / (updates - 1) if updates > 1 else 1.0
