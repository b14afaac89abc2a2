"""Learning from the rewards of the model's own answers: GRPO, Dr. GRPO, DAPO, GSPO, RLOO, and PPO's clipped objective.

A policy gradient makes each token of an answer likelier by as much as the answer was better than
expected: its *advantage* A. With n answers to each prompt, rewards R, what was expected comes from the
prompt's other answers, and no value model is needed (`group_advantages`):

    grpo      (R - mean) / (std + 1e-4) of the prompt's answers      Shao et al. 2024, arXiv:2402.03300, §4.1.2
    dr_grpo   R - mean: no prompt counts more for having an          Liu et al. 2025, arXiv:2503.20783
              even result
    batch     (R - mean of the prompt's) / (std of all + 1e-4)       Liu et al. 2025, arXiv:2508.08221
    rloo      R - mean of the *other* answers: free of bias          Ahmadian et al. 2024, arXiv:2402.14740

The answers were drawn from older weights. With w the ratio of probabilities now and then, the loss of
each token is (PPO, Schulman et al. 2017, arXiv:1707.06347, Eq. 7; `policy_loss`)

    -min(w A, clip(w, 1 - ε_low, 1 + ε_high) A) + β KL

so that a step gains nothing from moving a token further than the clip allows. ε_high above ε_low leaves room
for unlikely tokens to grow (DAPO, Yu et al. 2025, arXiv:2503.14476, Eq. 10). For A < 0 the ratio is not
bounded above; δ bounds it (two-sided clipping, INTELLECT-2, 2025, arXiv:2505.07291, Eq. 4). The ratio w is

    token      π(y_t) / π_old(y_t)                                   PPO, GRPO
    sequence   the geometric mean of the answer's token ratios       GSPO, Zheng et al. 2025, arXiv:2507.18071, Eq. 7
    product    the product of them: the answer as one action         RLOO

KL is the estimate k3 = exp(d) - d - 1 with d = log π_ref - log π, which is never below 0 and has
the right mean (Schulman 2020, "Approximating KL divergence"; GRPO's Eq. 4). RLOO instead takes k1 = -d, summed over the
answer, off the reward; `divergence` has both.

What the sum over tokens is divided by (`token_weights`, `normaliser_share`), with all counts those of the
whole step:

    grpo      each answer's mean over its tokens, then the mean over answers: long answers' tokens count less
    dapo      the tokens of all answers: each token counts the same ("bnpo" is this by micro-batch)
    dr_grpo   answers · greatest length: as dapo, but independent of what was drawn

`sequence` and `product` go with the first: all tokens of an answer then have one loss, and the mean is it.
An answer left out (cut at the greatest length, say) owns no token, but counts as an answer where
the caller counts it, as in TRL.

Where TRL 1.16 differs: rounding leaves a group of equal rewards with advantages near 0, and a single scored
answer of a group with NaN in the figures, where ours are 0; its bonus for entropy is a mean over tokens under every
normaliser, ours is weighed as the token's loss is.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bottega.train.log_probs import sum_by_document

Advantage = Literal["grpo", "dr_grpo", "batch", "rloo"]
Normaliser = Literal["grpo", "dapo", "dr_grpo"]
Ratio = Literal["token", "sequence", "product"]
SMALLEST_DEVIATION = 1e-4  # added to a standard deviation that divides, as in TRL


def group_advantages(rewards: Tensor, kind: Advantage = "grpo") -> tuple[Tensor, dict[str, Tensor]]:
    """Advantage of each answer, (G, n), and figures of the answers and of the groups.

    A reward that is NaN (nothing could judge the answer) has the advantage 0 and takes no part in its
    group. A group whose rewards are all the same teaches nothing: its advantages are exactly 0.

    Args:
        rewards: (G, n) of the n answers to each of G prompts.
        kind: a name of the module's text.
    """
    centred = rewards - rewards.nanmean(1, keepdim=True)
    deviations = _deviation(rewards, 1)
    if kind == "grpo":
        centred = centred / (deviations + SMALLEST_DEVIATION)
    elif kind == "batch":
        centred = centred / (_deviation(rewards.flatten(), 0) + SMALLEST_DEVIATION)
    elif kind == "rloo":
        # r - (sum - r) / (m - 1) = (r - sum / m) · m / (m - 1)
        scored = (~rewards.isnan()).sum(1, keepdim=True)
        centred = centred * (scored / (scored - 1))
    highest, lowest = (rewards.nan_to_num(nan=nan) for nan in (-torch.inf, torch.inf))
    same = highest.amax(1, keepdim=True) <= lowest.amin(1, keepdim=True)
    figures = {
        "reward": rewards[~rewards.isnan()],
        "reward_deviation": deviations.squeeze(1),
        "zero_variance": same.squeeze(1).to(rewards.dtype),
    }
    return centred.nan_to_num(nan=0.0).masked_fill(same, 0.0), figures


def policy_loss(
    log_probs: Tensor,
    old: Tensor | None,
    advantages: Tensor,
    owners: Tensor,
    answers: int,
    *,
    ratio: Ratio = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    delta: float | None = None,
    reference: Tensor | None = None,
    kl_weight: float = 0.0,
    entropy: Tensor | None = None,
    entropy_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each token, (N,), and figures of the tokens (of the answers, where the ratio is an answer's).

    `clip_low` and `clip_high` tell where the clip took the gradient away, `drift` is the distance from the
    old weights, `kl` that from the reference (k3 both).

    Args:
        log_probs: (N,) of the answers' tokens now, each answer's tokens together and in order.
        old: (N,) those of the weights that drew them; None where these are the weights now: the ratio is 1.
        advantages: (N,) of each token's answer, or its own (PPO).
        owners: (N,) int64, the answer of each token.
        answers: how many answers there are.
        ratio: token, sequence or product.
        clip_low: ε_low.
        clip_high: ε_high.
        delta: δ, above 1 + ε_high.
        reference: (N,) those of the reference model; needed where kl_weight is not 0, else only for the figure.
        kl_weight: β.
        entropy: (N,) of the distributions now, with gradient if `entropy_weight`.
        entropy_weight: of the bonus that keeps the distributions wide; 0 in most recipes.
    """
    old = log_probs.detach() if old is None else old
    weight = _whole(log_probs - old, owners, answers, ratio).exp()
    limited = weight.clamp(1 - clip_low, 1 + clip_high)
    bounded = weight if delta is None else weight.clamp(max=delta)
    losses = -torch.minimum(bounded * advantages, limited * advantages)
    low, high = (weight < 1 - clip_low) & (advantages < 0), (weight > 1 + clip_high) & (advantages > 0)
    first = slice(None) if ratio == "token" else owners.diff(prepend=owners.new_full((1,), -1)) != 0
    # The tokens were drawn from the old weights, so that this is the distance seen from there.
    figures = {"clip_low": low[first], "clip_high": high[first], "drift": divergence(old, log_probs, "k3")}
    if reference is not None:
        figures["kl"] = divergence(log_probs, reference, "k3")
        losses = losses + kl_weight * figures["kl"] if kl_weight else losses
    if entropy is not None:
        figures["entropy"] = entropy
        losses = losses - entropy_weight * entropy if entropy_weight else losses
    return losses, {name: values.detach().to(losses.dtype) for name, values in figures.items()}


def divergence(log_probs: Tensor, reference: Tensor, estimator: Literal["k1", "k3"]) -> Tensor:
    """Estimate of KL(π ‖ π_ref) at each token drawn from π, (N,): k1 = log π - log π_ref, or k3 (see above)."""
    difference = reference - log_probs
    return -difference if estimator == "k1" else difference.expm1() - difference


def token_weights(owners: Tensor, answers: int, normaliser: Normaliser) -> Tensor:
    """Weight of each token's loss before it is summed, (N,) float32: 1, or 1 / its answer's tokens (grpo)."""
    ones = torch.ones(len(owners), device=owners.device)
    return ones if normaliser != "grpo" else 1 / sum_by_document(ones, owners, answers)[owners]


def normaliser_share(answers: int, tokens: int, normaliser: Normaliser, longest: int) -> float:
    """What a part of the step adds to the number that the sum of weighted losses is divided by.

    Args:
        answers: of the part, with those that own no token.
        tokens: of the part's answers, trained ones only.
        normaliser: grpo, dapo or dr_grpo.
        longest: the greatest length an answer may have, in tokens (dr_grpo).
    """
    return float({"grpo": answers, "dapo": tokens, "dr_grpo": answers * longest}[normaliser])


def _whole(log_ratio: Tensor, owners: Tensor, answers: int, ratio: Ratio) -> Tensor:
    """Each token's log ratio: its own, or its answer's."""
    if ratio == "token":
        return log_ratio
    whole = sum_by_document(log_ratio, owners, answers)
    if ratio == "sequence":
        whole = whole / sum_by_document(torch.ones_like(log_ratio), owners, answers).clamp(min=1)
    return whole[owners]


def _deviation(values: Tensor, dim: int) -> Tensor:
    """Standard deviation without the NaNs, with Bessel's correction; 0 of a single value."""
    scored = (~values.isnan()).sum(dim, keepdim=True)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (scored - 1).clamp(min=1)).sqrt()
