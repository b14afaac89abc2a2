"""Which of the drafted tokens stand, and which token follows them: speculation that loses nothing.

Two rules, both of which emit tokens distributed exactly as the target model's own, whatever was drafted:

`match` samples every position as if there were no speculation, with the position's own uniform number, and lets a
draft stand while it is the token sampled. Since a position's number depends on nothing but seed and index,
the answer is the very one that the same seed gives without speculation. Right for drafts made without
chance (lookup, greedy drafting): there a draft x stands with probability p(x), and no rule does better.

`verify` (Leviathan et al. 2023, arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318) is
for drafts drawn from a distribution q: x stands with probability min(1, p(x) / q(x)), and the first that
does not is replaced by a draw from max(p - q, 0), normalised. Without q (one-hot) that too is p(x).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def match(drafted: Sequence[int], sampled: Sequence[int]) -> tuple[int, int]:
    """How many drafts stand, and the token behind them.

    Args:
        drafted: k tokens.
        sampled: k + 1 tokens; entry i was chosen by the target behind the first i drafts.
    """
    accepted = 0
    while accepted < len(drafted) and drafted[accepted] == sampled[accepted]:
        accepted += 1
    return accepted, sampled[accepted]


def verify(
    drafted: Sequence[int],
    draft_probabilities: Tensor | None,
    target: tuple[Tensor, Tensor],
    uniforms: Sequence[tuple[float, float]],
) -> tuple[int, int]:
    """How many drafts stand, and the token behind them.

    Args:
        drafted: k tokens.
        draft_probabilities: (k, V), the distributions that the drafts were drawn from; None if no chance was in them.
        target: candidates (k + 1, K) int64 and their probabilities (k + 1, K), as `sampling.distribution` gives
            them; row i stands behind the first i drafts. What is no candidate has probability 0.
        uniforms: k + 1 pairs in [0, 1): one number decides whether the position's draft stands, the other draws.
    """
    tokens, probabilities = target[0], target[1].double()
    for place, token in enumerate(drafted):
        p = probabilities[place]
        if draft_probabilities is None:
            q = (tokens[place] == token).double()
            drawn = 1.0
        else:
            q = draft_probabilities[place].double()[tokens[place]]
            drawn = float(draft_probabilities[place, token])
        likely = float(p[tokens[place] == token].sum())
        accept, draw = uniforms[place]
        if accept >= acceptance(likely, drawn):
            return place, int(tokens[place, inverse(residual(p, q), draw)])
    last = len(drafted)
    return last, int(tokens[last, inverse(probabilities[last], uniforms[last][1])])


def acceptance(p: float, q: float) -> float:
    """With which probability a token stands that was drawn with probability `q` and has `p` in the target."""
    return min(1.0, p / q)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """What is left of the target (K,) where it exceeds the draft (K,); not normalised."""
    left = (p - q).clamp_min(0.0)
    # All zero only where p = q up to rounding, and then a draft is refused with a probability of that size.
    return left if bool(left.any()) else p


def inverse(weights: Tensor, uniform: float) -> int:
    """The first place at which the cumulative weights (K,) exceed `uniform` of their sum."""
    cumulative = weights.cumsum(-1)
    place = int(torch.searchsorted(cumulative, cumulative[-1] * uniform, right=True))
    return min(place, int(weights.nonzero()[-1]))
