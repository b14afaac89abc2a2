"""Losses on pairs of a chosen and a rejected answer: DPO and its variants, ORPO, SimPO, CPO.

All start from log π(y|x) = Σ_t log π(y_t | x, y_<t), the log-probability of an answer's tokens, and
from a *score* of each answer:

    with a reference model      log π(y|x) - log π_ref(y|x)     what training has changed
    orpo, simpo, cpo            log π(y|x)                      no reference model at all
    ipo, sigmoid_norm,
    orpo, simpo                 the same, divided by the answer's tokens

With c and r the scores of the chosen and the rejected answer, β the strength, ε the share of labels
believed to be wrong, and Δ = c - r, the loss of one pair is

    sigmoid       -(1 - ε) log σ(βΔ) - ε log σ(-βΔ)         DPO, Rafailov et al. 2023, arXiv:2305.18290, Eq. 7;
                                                            ε > 0: "conservative", Mitchell 2023
    sigmoid_norm  the same on scores by token               as in Tülu 3, Lambert et al. 2024, arXiv:2411.15124
    ipo           (Δ - 1 / (2β))²                           Azar et al. 2023, arXiv:2310.12036, Eq. 17
    hinge         max(0, 1 - βΔ)                            SLiC-HF, Zhao et al. 2023, arXiv:2305.10425
    robust        (-(1 - ε) log σ(βΔ) + ε log σ(-βΔ)) / (1 - 2ε)    Chowdhury et al. 2024, arXiv:2403.00409
    exo_pair      KL(σ(±βΔ) ‖ 1 - ε, ε)                     Ji et al. 2024, arXiv:2402.00856, Eq. 16
    nca_pair      -log σ(βc) - ½ log σ(-βc) - ½ log σ(-βr)  Chen et al. 2024, arXiv:2402.05369
    sppo_hard     (c - 1/(2β))² + (r + 1/(2β))²             Wu et al. 2024, arXiv:2405.00675
    apo_zero      1 - σ(βc) + σ(βr)                         D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7
    apo_down      σ(βc) + 1 - σ(βΔ)                         the same, Eq. 8
    cpo           as sigmoid, without a reference           Xu et al. 2024, arXiv:2401.08417
    simpo         as sigmoid, of βΔ - γ                     Meng et al. 2024, arXiv:2405.14734, Eq. 6
    orpo          -β log σ(log odds(c) - log odds(r))       Hong et al. 2024, arXiv:2403.07691, Eq. 7; their λ is β
                  with log odds(s) = s - log(1 - exp s)

To each, `nll_weight` α times the chosen answer's own cross-entropy may be added: it is part of ORPO
and CPO (α = 1), and keeps DPO from lowering the chosen answers too (Pang et al. 2024, arXiv:2404.19733).

The normaliser is the number of pairs in the step. The cross-entropy's is either the same, each
answer's mean over its tokens (the papers of ORPO and of RPO), or all chosen tokens of the step (TRL,
and CPO's code), which the caller asks for with `tokens_per_pair`.

Where TRL 1.16 differs: its `sigmoid` ignores label smoothing; its ORPO takes the cross-entropy over the
prompt too, ours over the answer as in the paper. Its `aot` losses sort the scores of a batch, so that
a batch in parts would have another loss than the whole; they are not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bottega.core.errors import UserError, did_you_mean

REFERENCE_FREE = frozenset({"orpo", "simpo", "cpo"})
PER_TOKEN = frozenset({"ipo", "sigmoid_norm", "orpo", "simpo"})


class Strength(NamedTuple):
    """The numbers that a variant may depend on: β, ε and γ of the module's text."""

    beta: float
    label_smoothing: float
    margin: float


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor | None,
    reference_rejected: Tensor | None,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    *,
    loss: str,
    beta: float,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    nll_weight: float = 0.0,
    tokens_per_pair: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair, (P,), and figures of each pair.

    Args:
        chosen: (P,) log-probabilities of the chosen answers, summed over their tokens, in nats.
        rejected: (P,) those of the rejected ones.
        reference_chosen: (P,) of the chosen answers by the reference model; None for the losses without one.
        reference_rejected: (P,) of the rejected ones by it.
        chosen_tokens: (P,) how many tokens each sum is over, at least 1.
        rejected_tokens: (P,) the same of the rejected ones.
        loss: a name of the module's text.
        beta: strength β, above 0.
        label_smoothing: ε, below one half (sigmoid, sigmoid_norm, robust, exo_pair, cpo, simpo).
        margin: γ of simpo, in the units of the loss (of βΔ).
        nll_weight: α, weight of the chosen answer's cross-entropy.
        tokens_per_pair: chosen tokens over pairs of the whole step, to normalise that by tokens; None: by each answer.

    Raises:
        UserError: no loss has this name, it lacks its reference, or it cannot be with this label smoothing.
    """
    variant = _variant(loss, label_smoothing)
    tokens = torch.stack([chosen_tokens, rejected_tokens]).to(chosen.dtype).clamp(min=1)
    sums = torch.stack([chosen, rejected])
    rewards = sums if loss in REFERENCE_FREE else sums - _reference(loss, reference_chosen, reference_rejected)
    scores = rewards / tokens if loss in PER_TOKEN else rewards
    losses = variant(scores[0], scores[1], Strength(beta, label_smoothing, margin))
    nll = -chosen / (tokens[0] if tokens_per_pair is None else tokens_per_pair)
    if nll_weight:
        losses = losses + nll_weight * nll
    # An answer's reward is β times its score; where a reference is there, that of the answer as a whole.
    shown = beta * (scores if loss in REFERENCE_FREE else rewards).detach()
    return losses, _figures(shown, sums.detach(), tokens, nll.detach())


def _figures(rewards: Tensor, sums: Tensor, tokens: Tensor, nll: Tensor) -> dict[str, Tensor]:
    return {
        "reward_chosen": rewards[0],
        "reward_rejected": rewards[1],
        "reward_margin": rewards[0] - rewards[1],
        "reward_accuracy": (rewards[0] > rewards[1]).to(rewards.dtype),
        "log_prob_chosen": sums[0],
        "log_prob_rejected": sums[1],
        "nll_chosen": nll,
        # Above one half where the pairs prefer long answers: what the model may learn instead.
        "longer_chosen": (tokens[0] > tokens[1]).to(rewards.dtype),
    }


def _variant(loss: str, label_smoothing: float) -> Callable[[Tensor, Tensor, Strength], Tensor]:
    if loss not in VARIANTS:
        raise UserError(f"there is no preference loss {loss!r}", hint=did_you_mean(loss, VARIANTS))
    if not 0 <= label_smoothing < 0.5:
        raise UserError(f"label_smoothing {label_smoothing} is not from 0 to below 0.5")
    if loss == "exo_pair" and not label_smoothing:
        raise UserError("exo_pair needs a label_smoothing above 0", hint="The paper's code has 0.001.")
    return VARIANTS[loss]


def _reference(loss: str, chosen: Tensor | None, rejected: Tensor | None) -> Tensor:
    if chosen is None or rejected is None:
        raise UserError(f"the loss {loss!r} needs log-probabilities of a reference model")
    return torch.stack([chosen, rejected])


def log_odds(log_prob: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p: the logit of a probability. A p of 1 counts as the largest number below it."""
    log_prob = log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps / 2)
    small = log_prob < -math.log(2)  # log(1 - exp x) without cancellation on both sides (Mächler 2012)
    # The branch that is not taken is kept away from its pole, where its gradient would be NaN.
    low = torch.log1p(-torch.where(small, log_prob, -1.0).exp())
    high = torch.log(-torch.expm1(torch.where(small, -0.5, log_prob)))
    return log_prob - torch.where(small, low, high)


def _logistic(logits: Tensor, label_smoothing: float) -> Tensor:
    if not label_smoothing:
        return -F.logsigmoid(logits)
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)


def _sigmoid(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return _logistic(by.beta * (chosen - rejected), by.label_smoothing)


def _simpo(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return _logistic(by.beta * (chosen - rejected) - by.margin, by.label_smoothing)


def _orpo(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return -by.beta * F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def _ipo(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return (chosen - rejected - 1 / (2 * by.beta)).square()


def _hinge(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return torch.relu(1 - by.beta * (chosen - rejected))


def _robust(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    logits, wrong = by.beta * (chosen - rejected), by.label_smoothing
    return (-(1 - wrong) * F.logsigmoid(logits) + wrong * F.logsigmoid(-logits)) / (1 - 2 * wrong)


def _exo_pair(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    logits, wrong = by.beta * (chosen - rejected), by.label_smoothing
    right = torch.sigmoid(logits) * (F.logsigmoid(logits) - math.log1p(-wrong))
    return right + torch.sigmoid(-logits) * (F.logsigmoid(-logits) - math.log(wrong))


def _nca_pair(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    pull = -F.logsigmoid(by.beta * chosen)
    return pull - 0.5 * F.logsigmoid(-by.beta * chosen) - 0.5 * F.logsigmoid(-by.beta * rejected)


def _sppo_hard(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return (chosen - 0.5 / by.beta).square() + (rejected + 0.5 / by.beta).square()


def _apo_zero(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return torch.sigmoid(-by.beta * chosen) + torch.sigmoid(by.beta * rejected)


def _apo_down(chosen: Tensor, rejected: Tensor, by: Strength) -> Tensor:
    return torch.sigmoid(by.beta * chosen) + torch.sigmoid(-by.beta * (chosen - rejected))


VARIANTS: Mapping[str, Callable[[Tensor, Tensor, Strength], Tensor]] = {
    "sigmoid": _sigmoid,
    "sigmoid_norm": _sigmoid,
    "ipo": _ipo,
    "hinge": _hinge,
    "robust": _robust,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "cpo": _sigmoid,
    "simpo": _simpo,
    "orpo": _orpo,
}
"""Loss of each pair from the scores of its answers, (P,) and (P,) → (P,)."""
