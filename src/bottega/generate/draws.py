"""One uniform number per decision, and the token that it draws.

The numbers are counter-based (a hash of seed, position and purpose) instead of a stream with a state: what a request
draws for its i-th token depends neither on the batch around it, nor on preemption, nor on how many positions a
speculative step tried. The hash is SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
"""

from __future__ import annotations

import secrets

import torch
from torch import Tensor
from torch.nn.functional import pad

# What a number is for.
TOKEN = 0
XTC = 1

BLOCK = 256

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, index: int, which: int = 0) -> float:
    """The number in [0, 1), 53 bits, by which a request with `seed` decides `which` about its token `index`."""
    state = _mixed(_mixed(_mixed(seed) ^ (index & _MASK)) ^ (which & _MASK))
    return (state >> 11) * 2.0**-53


def fresh_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbits(63)


def _mixed(state: int) -> int:
    state = (state + _GOLDEN) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def greedy(scores: Tensor) -> Tensor:
    """The most probable token of each row, the first of equals. (B, V) → (B,) int64."""
    if scores.device.type != "cpu":
        return scores.argmax(-1)
    return torch.from_numpy(scores.detach().numpy().argmax(-1))  # vectorised, unlike torch's


def draw(probabilities: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of the cumulative distribution: the first place whose cumulative mass exceeds the number.

    First the block of places is found, then the place in it, so that a vocabulary is summed but once.

    Args:
        probabilities: (R, K), 0 or more; they need not sum to 1.
        numbers: (R,) float64 in [0, 1).

    Returns:
        places (R,) int64, whose probability is never 0, and the ends (R,), (R,) of each one's share of [0, 1).
    """
    rows = torch.arange(len(probabilities), device=probabilities.device)
    blocks = pad(probabilities, (0, -probabilities.shape[1] % BLOCK)).view(len(rows), -1, BLOCK)
    masses = blocks.sum(-1).double()
    total = masses.cumsum(-1)[:, -1:]
    target = numbers.to(total.device).unsqueeze(1) * total
    block, before = _inverse(masses, target)
    within = blocks[rows, block.squeeze(1)].double()
    place, begin = _inverse(within, target - before)
    low = before + begin
    high = low + within.gather(1, place)
    return (block * BLOCK + place).squeeze(1), (low / total).squeeze(1), (high / total).squeeze(1)


def _inverse(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first place of each row (R, N) at which the cumulative weight exceeds the target, and what is before it."""
    cumulative = weights.cumsum(-1)
    # Rounding must not carry the target to the total, behind which only impossible places stand.
    target = torch.minimum(target.clamp_min(0), torch.nextafter(cumulative[:, -1:], torch.zeros_like(target)))
    place = torch.searchsorted(cumulative, target, right=True)
    return place, cumulative.gather(1, place) - weights.gather(1, place)
