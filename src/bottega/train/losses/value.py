"""PPO's other half: rewards of tokens, advantages from a value model, and the value model's own loss.

In PPO (Schulman et al. 2017, arXiv:1707.06347) a value head V predicts at each token the reward that is
still to come; a token's advantage is how much better it went. With language models (Ziegler et al. 2019,
arXiv:1909.08593; Ouyang et al. 2022, arXiv:2203.02155) an answer's score arrives at its last token, and
at every token the distance from the reference model is taken off, so that the policy does not wander
to where the reward model is wrong (`token_rewards`):

    r_t = -β KL_t + [t is the last] score          KL_t by k1 or k3 (losses/policy.py)

From these, advantages by generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438,
Eq. 16; `generalised_advantages`), from an answer's last token to its first:

    δ_t = r_t + γ V_{t+1} - V_t        A_t = δ_t + γ λ A_{t+1}        return_t = A_t + V_t

λ = 1 is the sampled return less V (no bias, much variance), λ = 0 trusts V one token on. Behind the last token
V is 0, as the answer has ended. Advantages are whitened over the whole step (`moments`, `whiten`), then go
to `policy_loss`. V itself is trained towards the returns, a step no further than a clip c (`value_loss`;
Engstrom et al. 2020, arXiv:2005.12729):

    ½ max((V - return)², (clip(V, V_old - c, V_old + c) - return)²)

The normaliser of both losses is the trained tokens of the step. β may follow a target (`next_kl_weight`).

Tokens lie as in a packed batch: one answer's behind another's, in order; `lengths` counts each answer's.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bottega.train.losses.policy import divergence

SMALLEST_VARIANCE = 1e-8  # added to a variance that divides


def token_rewards(
    scores: Tensor,
    log_probs: Tensor,
    reference: Tensor,
    lengths: Tensor,
    *,
    kl_weight: float,
    estimator: Literal["k1", "k3"] = "k1",
) -> Tensor:
    """Reward of each token, (N,).

    Args:
        scores: (A,) of the answers.
        log_probs: (N,) of the answers' tokens by the weights that drew them.
        reference: (N,) the same by the reference model.
        lengths: (A,) int64, at least 1 each, sum N.
        kl_weight: β, not below 0.
        estimator: k1 (Ziegler et al.), or k3, which is never negative.
    """
    rewards = -kl_weight * divergence(log_probs, reference, estimator)
    return rewards.index_add(0, lengths.cumsum(0) - 1, scores.to(rewards.dtype))


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    lengths: Tensor,
    *,
    discount: float = 1.0,
    trace: float = 0.95,
    final_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantage of each token and the return its value is trained towards, (N,) and (N,), without gradient.

    Args:
        rewards: (N,) from `token_rewards`.
        values: (N,) V at each token, before it was drawn.
        lengths: (A,) int64, sum N.
        discount: γ, above 0 to 1.
        trace: λ, 0 to 1.
        final_values: (A,) V behind the last token, for answers that were cut and would have gone on; None is 0.
    """
    rewards, values = rewards.detach(), values.detach()
    inside = torch.arange(int(lengths.max()), device=lengths.device) < lengths.unsqueeze(1)
    reward, value, advantage = (rewards.new_zeros(inside.shape) for _ in range(3))
    reward[inside], value[inside] = rewards, values
    following = value.roll(-1, 1)
    ends = lengths.unsqueeze(1) - 1
    final = torch.zeros_like(rewards[:1]).expand(len(lengths)) if final_values is None else final_values.detach()
    following.scatter_(1, ends, final.to(following.dtype).unsqueeze(1))
    change = reward + discount * following - value
    later = rewards.new_zeros(len(lengths))
    for t in reversed(range(inside.shape[1])):
        later = torch.where(inside[:, t], change[:, t] + discount * trace * later, 0.0)
        advantage[:, t] = later
    advantages = advantage[inside]
    return advantages, advantages + values


def moments(values: Tensor) -> Tensor:
    """(3,) float64: count, sum and sum of squares; those of several parts or ranks are added."""
    values = values.detach().double()
    return torch.stack([torch.full_like(values.sum(), values.numel()), values.sum(), values.square().sum()])


def whiten(values: Tensor, of: Tensor, *, shift: bool = True) -> Tensor:
    """The values with mean 0 and variance 1 over everything that `of`, the `moments`, counts.

    Args:
        values: (N,).
        of: (3,) from `moments`.
        shift: False keeps the mean and only scales.
    """
    count, total, squares = of.tolist()
    mean = total / max(count, 1)
    variance = max(squares - count * mean * mean, 0.0) / max(count - 1, 1)
    whitened = (values - mean) / (variance + SMALLEST_VARIANCE) ** 0.5
    return whitened if shift else whitened + mean


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each token's value, (N,), and figures of the tokens.

    Args:
        values: (N,) V now.
        old: (N,) V by the weights that drew the answers.
        returns: (N,) from `generalised_advantages`.
        clip: how far V may move from `old` in one batch of answers, above 0.
    """
    near = torch.minimum(torch.maximum(values, old - clip), old + clip)
    free, clipped = (values - returns).square(), (near - returns).square()
    figures = {"value": values, "return": returns, "value_clip": (clipped > free).to(values.dtype)}
    return 0.5 * torch.maximum(free, clipped), {name: x.detach() for name, x in figures.items()}


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(return - V) / Var(return): 1 where V knows what comes, 0 where a constant does as well; NaN for 0/0."""
    return 1 - (returns - values).var(correction=0) / returns.var(correction=0)
