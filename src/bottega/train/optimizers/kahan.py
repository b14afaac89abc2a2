"""AdamW for weights in bfloat16, with Kahan's correction: 10 bytes a parameter, gradients included, instead of 16.

bfloat16 keeps 8 bits of a number, so a weight of 0.02 cannot move by less than 6e-5, and Adam's steps are about as
large as the learning rate: below 3e-4 most of them would be lost. What rounding took from a weight is kept beside it,
in bfloat16 too, and added to the next step (Kahan 1965; Zamirai et al. 2020, arXiv:2010.06192, for training).
"""

from __future__ import annotations

from typing import Any

from bottega.train.optimizers.lean import LeanAdamW


class AdamWKahan(LeanAdamW):
    """AdamW over bfloat16 weights that follows float32 ones. Parameters in float32 are moved plainly.

    State: `exp_avg`, `exp_avg_sq` and `compensation`, bfloat16 of the parameter's shape. Where `betas[1]` is above
    1 − 1/32 the second moment is float32: in bfloat16 it would shrink at a wrong pace, or never.
    """

    def __init__(
        self,
        parameters: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, moments="bfloat16", kahan=True)
