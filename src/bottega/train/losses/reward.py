"""The reward model's loss: Bradley-Terry on pairs.

Bradley and Terry (1952) say that of two things with scores c and r, the first is preferred with
probability σ(c - r). A reward model is trained by maximum likelihood of the choices (Ouyang et al. 2022,
arXiv:2203.02155, Eq. 1). A pair may carry a margin m, the more the clearer the choice (Touvron et al. 2023,
arXiv:2307.09288, Eq. 2). Only differences are learned, so that scores may drift together; a small
pull κ holds them around zero (Eisenstein et al. 2023, arXiv:2312.09244):

    -log σ(c - r - m) + κ (c + r)²

The normaliser is the number of pairs in the step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reward_loss(
    chosen: Tensor, rejected: Tensor, margins: Tensor | None = None, *, centre: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair, (P,), and figures of each pair.

    Args:
        chosen: (P,) scores of the chosen answers.
        rejected: (P,) of the rejected ones.
        margins: (P,) m of each pair; None is 0.
        centre: κ, not below 0.
    """
    difference = chosen - rejected
    losses = -F.logsigmoid(difference if margins is None else difference - margins)
    if centre:
        losses = losses + centre * (chosen + rejected).square()
    difference = difference.detach()
    figures = {
        "reward": torch.cat([chosen, rejected]).detach(),
        "reward_margin": difference,
        "reward_accuracy": (difference > 0).to(difference.dtype),
    }
    return losses, figures
