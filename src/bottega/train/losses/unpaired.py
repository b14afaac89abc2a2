"""Losses on single answers that somebody judged good or bad: KTO, and APO's unpaired form.

KTO (Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 7) takes people's own way of valuing a gain:
relative to where they stand, and steepest there. With s = log π(y|x) - log π_ref(y|x), and z₀ the
distance between the two models as the point of reference,

    desirable answer      λ_D (1 - σ(β (s - z₀)))
    undesirable answer    λ_U (1 - σ(β (z₀ - s)))

z₀ = max(0, mean over examples of log π(y'|x) - log π_ref(y'|x)), where y' is the answer of *another*
example of the step: on answers that were not written for the prompt, the mean is an estimate of
KL(π ‖ π_ref) that is biased but costs no sampling. No gradient flows through it.
One z₀ serves the whole step, so that parts of a batch do not each have their own.

`apo_zero_unpaired` (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7 taken apart) is the same with
z₀ = 0 and needs no mismatched answers.

The normaliser is the number of examples in the step, good and bad together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bottega.core.errors import UserError, did_you_mean

LOSSES = ("kto", "apo_zero_unpaired")


def unpaired_loss(
    log_probs: Tensor,
    reference: Tensor,
    desirable: Tensor,
    divergence: Tensor | float = 0.0,
    *,
    loss: str = "kto",
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each example, (E,), and figures of the desirable and of the undesirable ones.

    Args:
        log_probs: (E,) log-probability of each answer, summed over its tokens, in nats.
        reference: (E,) the same by the reference model.
        desirable: (E,) bool.
        divergence: z₀ from `divergence_estimate`; apo_zero_unpaired ignores it.
        loss: kto or apo_zero_unpaired.
        beta: strength β, above 0.
        desirable_weight: λ_D.
        undesirable_weight: λ_U.

    Raises:
        UserError: no loss has this name.
    """
    if loss not in LOSSES:
        raise UserError(f"there is no loss {loss!r} on single answers", hint=did_you_mean(loss, LOSSES))
    scores = log_probs - reference
    origin = torch.as_tensor(divergence if loss == "kto" else 0.0).to(scores).detach()
    gain = beta * (scores - origin)
    # 1 - σ(x) is σ(-x), which does not cancel.
    weights = torch.where(desirable, desirable_weight, undesirable_weight)
    losses = weights * torch.sigmoid(torch.where(desirable, -gain, gain))
    return losses, _figures(beta * scores.detach(), log_probs.detach(), desirable, origin)


def divergence_estimate(log_probs: Tensor, reference: Tensor) -> Tensor:
    """z₀ of the module's text from log-probabilities of mismatched answers, (M,) and (M,), of the whole step.

    A step that is spread over parts or ranks gathers them first: the maximum is taken of the whole mean.
    """
    return (log_probs - reference).detach().mean().clamp(min=0)


def balanced_weights(desirable: int, undesirable: int) -> tuple[float, float]:
    """(λ_D, λ_U) that give both kinds the same say: λ_D · desirable = λ_U · undesirable, the larger kind's at 1.

    The paper advises a ratio of the two products from 1 to 4/3 (Eq. 8).
    """
    largest = max(desirable, undesirable)
    return largest / max(desirable, 1), largest / max(undesirable, 1)


def _figures(rewards: Tensor, log_probs: Tensor, desirable: Tensor, origin: Tensor) -> dict[str, Tensor]:
    # A reward on the right side of the reference point: what accuracy is where there are no pairs.
    right = torch.where(desirable, rewards > 0, rewards < 0).to(rewards.dtype)
    return {
        "reward_desirable": rewards[desirable],
        "reward_undesirable": rewards[~desirable],
        "reward_accuracy": right,
        "log_prob_desirable": log_probs[desirable],
        "log_prob_undesirable": log_probs[~desirable],
        "kl": origin.reshape(1),
    }
