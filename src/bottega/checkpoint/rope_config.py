"""Rotary positions in `config.json`, in all spellings that are in use.

transformers 4 writes `rope_theta` and `rope_scaling` (with `type`, later `rope_type`); 5 writes both into
`rope_parameters`, and for models whose windowed layers have a base of their own one object per kind of layer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from bottega.core.errors import UserError

# rope_type → the keys it cannot do without. The formulas are in `bottega.model.rope`.
ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "longrope": ("original_max_position_embeddings",),
}
MOST = 1 << 30  # tokens, and times as many: more is a mistake or an attack
OPTIONAL_NUMBERS = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read_rope(data: Mapping[str, Any], defaults: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """rope_theta, rope_scaling (None for plain), partial_rotary_factor, rope_local_theta (None if not told)."""
    theta_key, share_key = keys.get("rope_theta", "rope_theta"), keys.get("partial_rotary_factor", "")
    parameters = data.get("rope_parameters")
    local: Any = {}
    if isinstance(parameters, Mapping) and GLOBAL in parameters:
        local, parameters = parameters.get(LOCAL) or {}, parameters[GLOBAL] or {}
        if not isinstance(local, Mapping) or local.get("rope_type", "default") != "default":
            raise UserError("scaled rotary positions in layers with a window are not supported")
    # As transformers 5 does: a rope_scaling that says something wins over rope_parameters.
    rope = data.get("rope_scaling") or parameters or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"rope_scaling must be an object, not {rope!r}")
    places = [rope, data, parameters if isinstance(parameters, Mapping) else {}]

    def told(*names: str) -> Any:
        return next((place[n] for place in places for n in names if n and place.get(n) is not None), None)

    theta = told("rope_theta", theta_key)
    share = told("partial_rotary_factor", share_key)
    local_theta = local.get("rope_theta") or data.get("rope_local_base_freq")
    return {
        "rope_theta": defaults.get("rope_theta", 10000.0) if theta is None else theta,
        "rope_scaling": _scaling(dict(rope), data, defaults.get("max_position_embeddings")),
        "partial_rotary_factor": defaults.get("partial_rotary_factor", 1.0) if share is None else share,
        "rope_local_theta": local_theta,
    }


def _scaling(rope: dict[str, Any], data: Mapping[str, Any], longest: int | None) -> dict[str, Any] | None:
    for key in ("rope_theta", "partial_rotary_factor"):
        rope.pop(key, None)
    old = rope.pop("type", None)
    kind = rope.pop("rope_type", None) or old or "default"
    if data.get("model_type") == "phi3" and kind in ("su", "yarn"):
        kind = "longrope"  # what Phi-3's first files called it
    if kind == "default":
        return None
    original = data.get("original_max_position_embeddings") or data.get("max_position_embeddings") or longest
    if kind in ("yarn", "longrope"):
        rope.setdefault("original_max_position_embeddings", original)
    return {"rope_type": kind, **rope}


def rope_problems(rope: Any, pairs: int, theta: Any) -> Iterator[str]:
    """What is wrong with a `rope_scaling`, for `pairs` turned pairs of channels and a base `theta`.

    Among it what the formulas would divide by.
    """
    if rope is None:
        return
    if not isinstance(rope, dict) or rope.get("rope_type") not in tuple(ROPE_TYPES):
        yield f"rope_scaling {rope!r} is not supported; rope_type is one of {', '.join(ROPE_TYPES)}"
        return
    kind = rope["rope_type"]
    for key in ROPE_TYPES[kind]:
        if not is_number(rope.get(key)) or not 0 < rope[key] <= MOST:
            yield f"rope_scaling of type {kind} needs a positive number {key}, not {rope.get(key)!r}"
    if kind == "dynamic" and pairs < 2:
        yield "rope_scaling of type dynamic needs more than one pair of channels"
    if kind == "yarn" and is_number(theta) and theta <= 1:
        yield f"rope_scaling of type yarn needs a rope_theta above 1, not {theta!r}"
    if kind == "longrope" and rope.get("original_max_position_embeddings") == 1:
        yield "rope_scaling of type longrope needs an original_max_position_embeddings above 1"
    for key in (*OPTIONAL_NUMBERS, *(("factor",) if kind == "longrope" else ())):
        if rope.get(key) is not None and (not is_number(rope[key]) or rope[key] < 0):
            yield f"{key} of rope_scaling must be a positive number, not {rope[key]!r}"
    if kind == "longrope":
        for key in ("short_factor", "long_factor"):
            factors = rope.get(key)
            good = isinstance(factors, list) and len(factors) == pairs and all(is_number(f) and f > 0 for f in factors)
            if not good:
                yield f"{key} of rope_scaling must be a list of {pairs} positive numbers"


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a float holds."""
    # A comparison, for JSON can write whole numbers that no float holds.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
