"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-rotation layout of Hugging Face.

Channel i of the first half and channel i of the second half are one pair; position p turns
the pair by the angle p · theta^(-2i/d). A score then depends on the distance of two tokens alone.
A context longer than the trained one needs slower turns; the ways to slow them down:

    linear    every angle divided by a factor s (Chen et al. 2023, arXiv:2306.15595)
    dynamic   a larger theta, that grows with the length at hand ("NTK-aware", bloc97 and emozilla 2023)
    yarn      fast pairs kept, slow ones divided by s, a ramp between, and a temperature on the scores
              (Peng et al. 2023, arXiv:2309.00071)
    llama3    the same idea with bounds on the wavelength (Meta's Llama 3.1)
    longrope  a factor for each pair, found by search; short texts keep another set
              (Ding et al. 2024, arXiv:2402.13753)

Everything is computed in float32, with transformers' operations in its order, so that angles agree to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bottega.checkpoint.switches import Rope
from bottega.core.errors import UserError

FIRST_POSITIONS = 512
MOST_TABLES = 8  # kept at once, where texts of other lengths have other angles


class Rotation:
    """The cos and sin of one kind of rotary positions, computed as far as they have been asked for."""

    def __init__(self, rope: Rope) -> None:
        self.rope = rope
        self._tables: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    @property
    def adapts(self) -> bool:
        """Whether the angles depend on the length of the whole text."""
        return (self.rope.scaling or {}).get("rope_type") in ("dynamic", "longrope")

    def regime(self, length: int) -> int:
        """Texts of lengths of one regime have the same angles."""
        return _regime(self.rope, length)

    def table(self, positions: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin for at least `positions` positions, (positions, dim) each, float32, on `device`.

        `length` is that of the whole text, which decides the angles of the kinds that adapt to it.
        """
        key = (self.regime(length), device)
        table = self._tables.pop(key, None)
        if table is None or len(table[0]) < positions:
            count = max(FIRST_POSITIONS, 1 << (positions - 1).bit_length())
            with torch.inference_mode(False):  # kept: the next pass may be one that trains
                cos, sin = rotation_table(self.rope, count, length)
                table = cos.to(device), sin.to(device)
        while len(self._tables) >= MOST_TABLES:
            del self._tables[next(iter(self._tables))]
        self._tables[key] = table  # the latest last
        return table


def _regime(rope: Rope, length: int) -> int:
    """Lengths of one regime have the same angles."""
    scaling = rope.scaling or {}
    if scaling.get("rope_type") == "dynamic":
        return max(length, rope.trained_length)
    if scaling.get("rope_type") == "longrope":
        return int(length > scaling["original_max_position_embeddings"])
    return 0


def rotation_table(rope: Rope, positions: int, length: int = 0) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, float32, each (positions, dim); the first half of sin is negative (`rotate`)."""
    frequencies, temperature = inverse_frequencies(rope, length)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    cos, sin = angles.cos() * temperature, angles.sin() * temperature
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def inverse_frequencies(rope: Rope, length: int = 0) -> tuple[Tensor, float]:
    """Angle per position of each pair of channels, float32, (dim / 2,); and the factor on cos and sin.

    The factor is applied to queries and keys, so scores get its square. `length` as in `Rotation.table`.
    """
    exponent = torch.arange(0, rope.dim, 2, dtype=torch.int64).float() / rope.dim
    plain = 1.0 / (rope.theta**exponent)
    scaling = rope.scaling or {}
    match scaling.get("rope_type", "default"):
        case "default":
            return plain, 1.0
        case "linear":
            return plain / scaling["factor"], 1.0
        case "dynamic":
            return _dynamic(rope, exponent, scaling["factor"], length), 1.0
        case "llama3":
            return _llama3(plain, scaling), 1.0
        case "yarn":
            return _yarn(rope, scaling), yarn_temperature(scaling)
        case "longrope":
            return _longrope(rope, exponent, scaling, length)
        case kind:
            raise UserError(f"rope scaling {kind!r} is not supported")


def ntk_theta(theta: float, factor: float, dim: int) -> float:
    """The theta with which the slowest pair turns `factor` times slower, and the fastest hardly so."""
    return theta * factor ** (dim / (dim - 2))


def _dynamic(rope: Rope, exponent: Tensor, factor: float, length: int) -> Tensor:
    if length <= rope.trained_length:
        return 1.0 / (rope.theta**exponent)
    stretch = (factor * torch.tensor(length) / rope.trained_length) - (factor - 1)
    return 1.0 / ((rope.theta * stretch ** (rope.dim / (rope.dim - 2))) ** exponent)


def _llama3(plain: Tensor, scaling: Mapping[str, float]) -> Tensor:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > original / low, plain / factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * slowed / factor + smooth * slowed
    is_between = ~(wavelength < original / high) & ~(wavelength > original / low)
    return torch.where(is_between, between, slowed)


def _yarn(rope: Rope, scaling: Mapping[str, Any]) -> Tensor:
    """Between the pairs that turn beta_fast and beta_slow times in the trained length, a ramp (eq. 13 to 15)."""
    original, dim = scaling["original_max_position_embeddings"], rope.dim

    def pair_that_turns(times: float) -> float:
        return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(scaling.get("beta_fast") or 32), pair_that_turns(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    kept = 1 - ramp
    powers = rope.theta ** (torch.arange(0, dim, 2).float() / dim)
    return 1.0 / (scaling["factor"] * powers) * (1 - kept) + 1.0 / powers * kept


def yarn_temperature(scaling: Mapping[str, Any]) -> float:
    """The factor on cos and sin: 0.1 ln s + 1 (eq. 22), or what the config says (DeepSeek's two mscales)."""

    def of(mscale: float) -> float:
        factor = scaling["factor"]
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    if scaling.get("attention_factor") is not None:
        return scaling["attention_factor"]
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return of(scaling["mscale"]) / of(scaling["mscale_all_dim"])
    return of(1.0)


def _longrope(rope: Rope, exponent: Tensor, scaling: Mapping[str, Any], length: int) -> tuple[Tensor, float]:
    original = scaling["original_max_position_embeddings"]
    chosen = scaling["long_factor" if length > original else "short_factor"]
    frequencies = 1.0 / (torch.tensor(chosen, dtype=torch.float32) * rope.theta**exponent)
    if scaling.get("attention_factor") is not None:
        return frequencies, scaling["attention_factor"]
    factor = scaling.get("factor") or rope.trained_length / original
    return frequencies, 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of the first channels of `x`; those that cos does not reach stay.

    Args:
        x: (..., T, heads, head_dim).
        cos: (T, dim) or (B, T, dim) of `rotation_table`, dim ≤ head_dim.
        sin: like `cos`.
    """
    cos, sin = cos.to(x.dtype).unsqueeze(-2), sin.to(x.dtype).unsqueeze(-2)
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return torch.cat((_turn(x[..., :dim], cos, sin), x[..., dim:]), dim=-1)
    return _turn(x, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # Rolling by half swaps the halves: (a, b) → (a cos - b sin, b cos + a sin), in three operations.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
