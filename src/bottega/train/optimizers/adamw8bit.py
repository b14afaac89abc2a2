"""AdamW with moments in 8 bits: a quarter of the memory of float32 ones.

Dettmers et al. 2021, "8-bit optimizers via block-wise quantization" (arXiv:2110.02861): blocks of 256 values share a
scale, and their code books are dynamic, signed for the first moment and unsigned for the second. As in bitsandbytes,
tensors of fewer than 4096 values keep float32 moments; the paper's rule for embeddings (§2.3) is a group with
`bits: 32`, because their gradients are sparse and their moments differ most within a block.
"""

from __future__ import annotations

from typing import Any

from bottega.train.optimizers.bytes import SMALLEST_8BIT
from bottega.train.optimizers.lean import LeanAdamW


class AdamW8bit(LeanAdamW):
    """Block-wise 8-bit AdamW; with bfloat16 weights say `kahan=True`, or small steps are rounded away.

    State: `exp_avg`, `exp_avg_sq` uint8 of the parameter's shape, and `…_scales` float32, one for 256 values.
    """

    def __init__(
        self,
        parameters: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        kahan: bool = False,
        minimum: int = SMALLEST_8BIT,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, moments="8bit", kahan=kahan, minimum=minimum)
