"""bitsandbytes' paged 8-bit AdamW, for GPUs: its states move to the CPU's memory when the GPU's runs out.

Dettmers et al. 2023, QLoRA (arXiv:2305.14314), §3. It needs CUDA's unified memory, so there is none of ours; where
bitsandbytes is not installed, or there is no GPU, it is refused. Not run where the project is tested.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch

from bottega.core.errors import UserError


def paged_adamw8bit(
    groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> torch.optim.Optimizer:
    """The optimiser; raises UserError where it cannot be had."""
    if not torch.cuda.is_available():
        raise UserError(
            "the paged 8-bit AdamW needs a CUDA GPU, and there is none",
            hint="Use adamw8bit: its states are as small, and a CPU has nowhere else to put them.",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("the paged 8-bit AdamW is bitsandbytes', which is not installed", hint="Use adamw8bit.")
    optim = importlib.import_module("bitsandbytes.optim")
    return optim.PagedAdamW8bit(groups, lr=lr, betas=betas, eps=eps, weight_decay=0.0)
