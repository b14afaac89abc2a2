"""From a family's `config.json` to its switches: one function a family, and the reading of the keys that decide.

Keys come from a file: each is checked where it is read, and a wrong one is a UserError that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.rope_config import is_number
from bottega.checkpoint.switches import Experts, Rope, Switches
from bottega.core.errors import UserError

if TYPE_CHECKING:
    from bottega.checkpoint.config import ModelConfig

MOST_EXPERTS = 4096


def llama(config: ModelConfig, **changes: Any) -> Switches:
    """Llama: the base of all that follow."""
    layers = config.num_hidden_layers
    values: dict[str, Any] = {
        "ropes": {"global": _rope(config)},
        "layer_ropes": ("global",) * layers,
        "windows": (None,) * layers,
        "query_bias": config.attention_bias,
        "output_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
    }
    return Switches(**{**values, **changes})


def mistral(config: ModelConfig) -> Switches:
    """Mistral and Phi-3: a window in every layer, if one is named."""
    window = _count(config, "sliding_window", config.family.defaults.get("sliding_window"))
    return llama(config, windows=(window,) * config.num_hidden_layers)


def mixtral(config: ModelConfig) -> Switches:
    """Mixtral: experts in every layer."""
    count = _experts(config, "num_local_experts", 8)
    experts = Experts(
        count=count,
        per_token=_experts_per_token(config, count, 2),
        intermediate_size=config.intermediate_size,
        normalised=True,
        sparse=(True,) * config.num_hidden_layers,
    )
    return llama(config, windows=(_count(config, "sliding_window"),) * config.num_hidden_layers, experts=experts)


def qwen2(config: ModelConfig, **changes: Any) -> Switches:
    """Qwen 2: biases on query, key and value; windows in the upper layers, if they are turned on."""
    first = _count(config, "max_window_layers", 28, least=0) or 0
    windows = _windows(config, lambda layer: layer >= first)
    return llama(config, **{"windows": windows, "query_bias": True, "output_bias": False, **changes})


def qwen2_moe(config: ModelConfig) -> Switches:
    """Qwen 2 MoE: experts, and one that every token passes."""
    last = _count(config, "max_window_layers", 28, least=0) or 0
    windows = _windows(config, lambda layer: layer % 2 == 0 and layer < last)
    shared = _count(config, "shared_expert_intermediate_size", 5632) or 0
    bias = _flag(config, "qkv_bias", True)
    return qwen2(config, windows=windows, query_bias=bias, experts=_qwen_experts(config, 60, 4, 1408, shared))


def qwen3(config: ModelConfig, **changes: Any) -> Switches:
    """Qwen 3: a norm on each head's query and key."""
    biases = {"query_bias": config.attention_bias, "output_bias": config.attention_bias}
    return qwen2(config, **{**biases, "query_key_norm": "head", **changes})


def qwen3_moe(config: ModelConfig) -> Switches:
    """Qwen 3 MoE."""
    windows = _windows(config, lambda _: True)
    return qwen3(config, windows=windows, experts=_qwen_experts(config, 128, 8, 768, 0))


def gemma2(config: ModelConfig, **changes: Any) -> Switches:
    """Gemma 2: norms on both sides, caps, windows in every other layer."""
    if config.extra.get("use_bidirectional_attention"):
        raise UserError("use_bidirectional_attention is not supported: it is no language model then")
    score = config.extra.get("query_pre_attn_scalar", 256)
    if not is_number(score) or score <= 0:
        raise UserError(f"query_pre_attn_scalar must be a positive number, not {score!r}")
    values: dict[str, Any] = {
        "norm": "rms_offset",
        "placement": "both",
        "windows": _windows(config, lambda layer: layer % 2 == 0),
        "score_scale": float(score) ** -0.5,
        "score_cap": _cap(config, "attn_logit_softcapping", 50.0),
        "logit_cap": _cap(config, "final_logit_softcapping", 30.0),
        "embedding_scale": config.hidden_size**0.5,
    }
    return llama(config, **{**values, **changes})


def gemma3(config: ModelConfig) -> Switches:
    """Gemma 3: as Gemma 2, without caps; head norms; windowed layers turn at a base of their own."""
    pattern = _count(config, "sliding_window_pattern", 6) or 6
    slides = _slides(config, lambda layer: (layer + 1) % pattern != 0)
    local = _rope(config, theta=config.rope_local_theta, scaled=False)
    return gemma2(
        config,
        windows=_windows(config, lambda layer: slides[layer]),
        query_key_norm="head",
        score_cap=_cap(config, "attn_logit_softcapping", None),
        logit_cap=_cap(config, "final_logit_softcapping", None),
        ropes={"global": _rope(config), "local": local},
        layer_ropes=tuple("local" if slide else "global" for slide in slides),
    )


def olmo2(config: ModelConfig) -> Switches:
    """OLMo 2: norms behind attention and feed-forward; query and key normalised as a whole."""
    return llama(config, norm="rms_wide", placement="after", query_key_norm="whole")


def smollm3(config: ModelConfig) -> Switches:
    """SmolLM 3: some layers without positions."""
    layers, interval = config.num_hidden_layers, _count(config, "no_rope_layer_interval", 4) or 4
    given = config.extra.get("no_rope_layers")
    uses = [int((layer + 1) % interval != 0) for layer in range(layers)] if given is None else given
    if not isinstance(uses, list) or len(uses) != layers or not all(value in (0, 1) for value in uses):
        raise UserError(f"no_rope_layers must be a list of {layers} ones and zeros (1: with rotary positions)")
    windows = _windows(config, lambda layer: not uses[layer])
    return llama(config, windows=windows, layer_ropes=tuple("global" if use else None for use in uses))


def gpt2(config: ModelConfig) -> Switches:
    """GPT-2: learned positions."""
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if config.extra.get(key):
            raise UserError(f"{key} is not supported")
    scale = None if _flag(config, "scale_attn_weights", True) else 1.0
    return _plain(config, positions="learned", score_scale=scale)


def gpt_neox(config: ModelConfig) -> Switches:
    """GPT-NeoX: attention and feed-forward side by side, partial rotary positions."""
    return _plain(
        config,
        positions="rotary",
        ropes={"global": _rope(config)},
        layer_ropes=("global",) * config.num_hidden_layers,
        parallel=_flag(config, "use_parallel_residual", True),
        query_bias=config.attention_bias,
        output_bias=config.attention_bias,
    )


def bloom(config: ModelConfig) -> Switches:
    """BLOOM: linear biases instead of positions."""
    if config.extra.get("apply_residual_connection_post_layernorm"):
        raise UserError("apply_residual_connection_post_layernorm is not supported")
    return _plain(config, positions="alibi", embedding_norm=True)


def _plain(config: ModelConfig, **changes: Any) -> Switches:
    """What the families before Llama share: LayerNorm, biases everywhere, two plain feed-forward layers."""
    layers = config.num_hidden_layers
    values: dict[str, Any] = {
        "norm": "layer",
        "gated": False,
        "query_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "layer_ropes": (None,) * layers,
        "windows": (None,) * layers,
    }
    return Switches(**{**values, **changes})


# ------------------------------------------------------------------------------ reading a config's further keys


def _rope(config: ModelConfig, *, theta: float | None = None, scaled: bool = True) -> Rope:
    return Rope(
        theta=config.rope_theta if theta is None else theta,
        dim=int(config.head_dim * config.partial_rotary_factor),
        trained_length=config.max_position_embeddings,
        scaling=config.rope_scaling if scaled else None,
    )


def _count(config: ModelConfig, key: str, default: int | None = None, *, least: int = 1) -> int | None:
    value = config.extra.get(key, default)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 31:
        raise UserError(f"{key} must be a whole number from {least} on, not {value!r}")
    return value


def _flag(config: ModelConfig, key: str, default: bool) -> bool:
    value = config.extra.get(key, default)
    if not isinstance(value, bool):
        raise UserError(f"{key} must be true or false, not {value!r}")
    return value


def _cap(config: ModelConfig, key: str, default: float | None) -> float | None:
    value = config.extra.get(key, default)
    if value is not None and (not is_number(value) or not 0 < value < 1e30):
        raise UserError(f"{key} must be a positive number or null, not {value!r}")
    return value


def _slides(config: ModelConfig, default: Callable[[int], bool]) -> list[bool]:
    """Which layers have a window: `layer_types` says, else the family's rule."""
    kinds, layers = config.extra.get("layer_types"), config.num_hidden_layers
    if kinds is None:
        return [default(layer) for layer in range(layers)]
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in known for kind in kinds):
        raise UserError(f"layer_types must be a list of {layers} of {' and '.join(known)}")
    return [kind == known[0] for kind in kinds]


def _windows(config: ModelConfig, default: Callable[[int], bool]) -> tuple[int | None, ...]:
    """The window of each layer; Qwen's and SmolLM's configs name one that only `use_sliding_window` turns on."""
    window = _count(config, "sliding_window", config.family.defaults.get("sliding_window"), least=0)
    on = "use_sliding_window" not in config.family.reads or _flag(config, "use_sliding_window", False)
    slides = _slides(config, default)
    return tuple(window if slide and on and window else None for slide in slides)


def _experts(config: ModelConfig, key: str, default: int) -> int:
    count = _count(config, key, default) or default
    if count > MOST_EXPERTS:
        raise UserError(f"{key} must be a whole number from 1 to {MOST_EXPERTS}, not {count}")
    return count


def _experts_per_token(config: ModelConfig, count: int, default: int) -> int:
    per_token = _count(config, "num_experts_per_tok", default) or default
    if per_token > count:
        raise UserError(f"num_experts_per_tok is {per_token}, but there are {count} experts")
    return per_token


def _qwen_experts(config: ModelConfig, count: int, per_token: int, size: int, shared: int) -> Experts:
    step = _count(config, "decoder_sparse_step", 1) or 1
    dense = config.extra.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise UserError(f"mlp_only_layers must be a list of layers, not {dense!r}")
    layers = range(config.num_hidden_layers)
    # transformers 5 calls Qwen 3's experts as Mixtral's.
    count = _experts(config, "num_local_experts" if "num_local_experts" in config.extra else "num_experts", count)
    return Experts(
        count=count,
        per_token=_experts_per_token(config, count, per_token),
        intermediate_size=_count(config, "moe_intermediate_size", size) or size,
        normalised=_flag(config, "norm_topk_prob", False),
        shared_intermediate_size=shared,
        sparse=tuple(layer not in dense and (layer + 1) % step == 0 for layer in layers),
    )
