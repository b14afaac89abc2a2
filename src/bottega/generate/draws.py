"""One uniform number per decision, and the token that it draws.

The numbers are counter-based (a hash of seed, position and purpose) instead of a stream with a state: what a request
draws for its i-th token depends neither on the batch around it, nor on preemption, nor on how many positions a
speculative step tried. The hash is SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
"""

from __future__ import annotations

import secrets

import torch
from torch import Tensor

# What a number is for.
TOKEN = 0
XTC = 1

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

    Args:
        probabilities: (R, K), 0 or more; they need not sum to 1.
        numbers: (R,) float64 in [0, 1).

    Returns:
        places (R,) int64, whose probability is never 0, and the ends (R,), (R,) of each one's share of [0, 1).
    """
    cumulative = probabilities.double().cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not carry the threshold to the total, behind which only impossible tokens stand.
    threshold = torch.minimum(
        numbers.to(total.device).unsqueeze(1) * total, torch.nextafter(total, total.new_zeros(()))
    )
    places = torch.searchsorted(cumulative, threshold, right=True)
    high = cumulative.gather(1, places)
    low = high - probabilities.double().gather(1, places)
    return places.squeeze(1), (low / total).squeeze(1), (high / total).squeeze(1)
