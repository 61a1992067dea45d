"""The learning rate as a pure function of the update number (arXiv 1812.01187, sections 3.1, 5.1).

Update u (from 0) is the paper's batch i = u + 1. With n updates, m of them warm-up:

    linear warm-up   lr = warmup_lr + (base_lr - warmup_lr) * i / m            i = 1 .. m
    constant         lr = warmup_lr                                            i = 1 .. m
    cosine           lr = target + (base_lr - target) * (1 + cos(pi t / T)) / 2
    poly             lr = target + (base_lr - target) * (1 - t / T) ** power
    step             lr = base_lr * step_factor ** (number of step_updates reached)
    constant         lr = base_lr

where T = n - m and t = u - m, so that a decay starts at base_lr right after the warm-up.
`step_updates` count from the start of the run, like the epochs they come from.
"""

import math
from collections.abc import Sequence

WARMUP_MODES = ("linear", "constant")
DECAYS = ("step", "cosine", "poly", "constant")


def lr_at(update: int, *, base_lr: float, updates: int, warmup_updates: int = 0,
          warmup_mode: str = "linear", warmup_lr: float = 0.0, decay: str = "cosine",
          step_updates: Sequence[int] = (), step_factor: float = 0.1, power: float = 2,
          target_lr: float = 0.0) -> float:
    """The learning rate of `update`, 0 <= update < updates; `updates` includes the warm-up.

    Raises ValueError for an update outside the run, an unknown mode, or a warm-up longer than
    the run.
    """
    if not 0 <= update < updates:
        raise ValueError(f"update {update} is outside a run of {updates} updates")
    if not 0 <= warmup_updates <= updates:
        raise ValueError(f"a warm-up of {warmup_updates} updates in a run of {updates}")
    if warmup_mode not in WARMUP_MODES or decay not in DECAYS:
        raise ValueError(f"warm-up {warmup_mode!r} is not one of {WARMUP_MODES} "
                         f"or decay {decay!r} not one of {DECAYS}")
    if update < warmup_updates:
        if warmup_mode == "constant":
            return warmup_lr
        return warmup_lr + (base_lr - warmup_lr) * (update + 1) / warmup_updates
    if decay == "constant":
        return base_lr
    if decay == "step":
        return base_lr * step_factor ** sum(update >= step for step in step_updates)
    done = (update - warmup_updates) / (updates - warmup_updates)
    left = (1 + math.cos(math.pi * done)) / 2 if decay == "cosine" else (1 - done) ** power
    return target_lr + (base_lr - target_lr) * left
