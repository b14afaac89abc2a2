"""Learning-rate schedules: a factor of the peak as a function of the step.

`wsd` is warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395; linear decay to zero as in
Hägele et al. 2024, arXiv:2405.18392); `cosine` is Loshchilov & Hutter 2016, arXiv:1608.03983.
"""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["wsd", "cosine", "linear", "constant"]


def learning_rate_factor(step: int, steps: int, kind: Schedule, *, warmup: float, decay: float, floor: float) -> float:
    """Factor for `step` of `steps` (counted from 0).

    Args:
        step: the step about to be taken.
        steps: steps in all.
        kind: shape after the warm-up.
        warmup: share of the steps in which the rate rises linearly.
        decay: share of the steps in which `wsd` falls linearly.
        floor: factor reached at the end.
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind == "constant":
        return 1.0
    if kind == "wsd":
        decay_steps = max(1, round(decay * steps))
        left = min(1.0, (steps - step) / decay_steps)
        return floor + (1 - floor) * left
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    if kind == "linear":
        return 1 - (1 - floor) * done
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
