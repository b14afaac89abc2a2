"""The families: for each `model_type`, its tensors, the spelling of its config, and its switches.

Another family is another entry of `FAMILIES`, a function that reads its switches from its config, and, where its
checkpoints are laid out in a way of their own, rows in `layout.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.layout import (
    BLOOM_ROWS,
    EMBEDDING,
    GPT2_ROWS,
    GPT_NEOX_ROWS,
    HEAD,
    LLAMA_ROWS,
    MIXTRAL_ROWS,
    PHI3_ROWS,
    TensorRow,
)
from bottega.checkpoint.switches import Experts, Rope, Switches
from bottega.core.errors import UserError

if TYPE_CHECKING:
    from bottega.checkpoint.config import ModelConfig

MOST_EXPERTS = 4096


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type`: its architecture in transformers and everything that is its own."""

    model_type: str
    architecture: str
    rows: tuple[TensorRow, ...] = LLAMA_ROWS
    switches: Callable[[ModelConfig], Switches]
    keys: Mapping[str, str] = field(default_factory=dict)
    """Field of `ModelConfig` → this family's key in config.json, where it is another."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What transformers assumes for a key that config.json leaves out."""
    reads: frozenset[str] = frozenset()
    """Further keys of config.json that decide what the model computes."""
    partial_rotary: bool = False
    """Whether partial_rotary_factor has a meaning."""
    widening: int = 0
    """The feed-forward layer's width as a multiple of hidden_size, where config.json need not say it."""
    without: tuple[str, ...] = ()
    """Fields of `ModelConfig` that this family's config.json does not have."""
    local_rope: bool = False
    """Whether layers with a window have a rotary base of their own (rope_local_base_freq)."""
    prefixes: tuple[tuple[str, str], ...] = ()
    """Patterns at the beginning of tensor names that some writers use, and what they stand for."""
    ignored: tuple[str, ...] = ()
    """Patterns of tensor names that old files carry and that no reader needs."""
    embedding: str = EMBEDDING
    head: str = HEAD

    def ignores(self, name: str) -> bool:
        """Whether a tensor of this name carries nothing that the model needs."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def proper_name(self, name: str) -> str:
        """The family's own name of a tensor that a file may call by another."""
        for pattern, replacement in self.prefixes:
            if found := re.match(pattern, name):
                return replacement + name[found.end() :]
        return name


# ------------------------------------------------------------------------------ switches


def _llama(config: ModelConfig, **changes: Any) -> Switches:
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


def _mistral(config: ModelConfig) -> Switches:
    window = _count(config, "sliding_window", config.family.defaults.get("sliding_window"))
    return _llama(config, windows=(window,) * config.num_hidden_layers)


def _mixtral(config: ModelConfig) -> Switches:
    experts = Experts(
        count=_experts(config, "num_local_experts", 8),
        per_token=_count(config, "num_experts_per_tok", 2) or 2,
        intermediate_size=config.intermediate_size,
        normalised=True,
        sparse=(True,) * config.num_hidden_layers,
    )
    return _llama(config, windows=(_count(config, "sliding_window"),) * config.num_hidden_layers, experts=experts)


def _qwen2(config: ModelConfig, **changes: Any) -> Switches:
    first = _count(config, "max_window_layers", 28, least=0) or 0
    windows = _windows(config, lambda layer: layer >= first)
    return _llama(config, **{"windows": windows, "query_bias": True, "output_bias": False, **changes})


def _qwen2_moe(config: ModelConfig) -> Switches:
    last = _count(config, "max_window_layers", 28, least=0) or 0
    windows = _windows(config, lambda layer: layer % 2 == 0 and layer < last)
    shared = _count(config, "shared_expert_intermediate_size", 5632) or 0
    bias = _flag(config, "qkv_bias", True)
    return _qwen2(config, windows=windows, query_bias=bias, experts=_qwen_experts(config, 60, 4, 1408, shared))


def _qwen3(config: ModelConfig, **changes: Any) -> Switches:
    biases = {"query_bias": config.attention_bias, "output_bias": config.attention_bias}
    return _qwen2(config, **{**biases, "query_key_norm": "head", **changes})


def _qwen3_moe(config: ModelConfig) -> Switches:
    windows = _windows(config, lambda _: True)
    return _qwen3(config, windows=windows, experts=_qwen_experts(config, 128, 8, 768, 0))


def _gemma2(config: ModelConfig, **changes: Any) -> Switches:
    if config.extra.get("use_bidirectional_attention"):
        raise UserError("use_bidirectional_attention is not supported: it is no language model then")
    score = config.extra.get("query_pre_attn_scalar", 256)
    if not isinstance(score, int | float) or score <= 0:
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
    return _llama(config, **{**values, **changes})


def _gemma3(config: ModelConfig) -> Switches:
    pattern = _count(config, "sliding_window_pattern", 6) or 6
    slides = _slides(config, lambda layer: (layer + 1) % pattern != 0)
    local = _rope(config, theta=config.rope_local_theta, scaled=False)
    return _gemma2(
        config,
        windows=_windows(config, lambda layer: slides[layer]),
        query_key_norm="head",
        score_cap=_cap(config, "attn_logit_softcapping", None),
        logit_cap=_cap(config, "final_logit_softcapping", None),
        ropes={"global": _rope(config), "local": local},
        layer_ropes=tuple("local" if slide else "global" for slide in slides),
    )


def _olmo2(config: ModelConfig) -> Switches:
    return _llama(config, norm="rms_wide", placement="after", query_key_norm="whole")


def _smollm3(config: ModelConfig) -> Switches:
    layers, interval = config.num_hidden_layers, _count(config, "no_rope_layer_interval", 4) or 4
    given = config.extra.get("no_rope_layers")
    uses = [int((layer + 1) % interval != 0) for layer in range(layers)] if given is None else given
    if not isinstance(uses, list) or len(uses) != layers or not all(value in (0, 1) for value in uses):
        raise UserError(f"no_rope_layers must be a list of {layers} ones and zeros (1: with rotary positions)")
    windows = _windows(config, lambda layer: not uses[layer])
    return _llama(config, windows=windows, layer_ropes=tuple("global" if use else None for use in uses))


def _gpt2(config: ModelConfig) -> Switches:
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if config.extra.get(key):
            raise UserError(f"{key} is not supported")
    scale = None if _flag(config, "scale_attn_weights", True) else 1.0
    return _plain(config, positions="learned", score_scale=scale)


def _gpt_neox(config: ModelConfig) -> Switches:
    return _plain(
        config,
        positions="rotary",
        ropes={"global": _rope(config)},
        layer_ropes=("global",) * config.num_hidden_layers,
        parallel=_flag(config, "use_parallel_residual", True),
        query_bias=config.attention_bias,
        output_bias=config.attention_bias,
    )


def _bloom(config: ModelConfig) -> Switches:
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
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30):
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


def _qwen_experts(config: ModelConfig, count: int, per_token: int, size: int, shared: int) -> Experts:
    step = _count(config, "decoder_sparse_step", 1) or 1
    dense = config.extra.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise UserError(f"mlp_only_layers must be a list of layers, not {dense!r}")
    layers = range(config.num_hidden_layers)
    return Experts(
        # transformers 5 calls Qwen 3's experts as Mixtral's.
        count=_experts(config, "num_local_experts" if "num_local_experts" in config.extra else "num_experts", count),
        per_token=_count(config, "num_experts_per_tok", per_token) or per_token,
        intermediate_size=_count(config, "moe_intermediate_size", size) or size,
        normalised=_flag(config, "norm_topk_prob", False),
        shared_intermediate_size=shared,
        sparse=tuple(layer not in dense and (layer + 1) % step == 0 for layer in layers),
    )


# ------------------------------------------------------------------------------ the table

_INVERSE_FREQUENCIES = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"model\.rotary_emb\.inv_freq")
_WINDOW = frozenset({"sliding_window", "layer_types"})
_QWEN = _WINDOW | {"use_sliding_window", "max_window_layers"}
_QWEN_EXPERTS = frozenset(
    {"num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"}
    | {"decoder_sparse_step", "mlp_only_layers"}
)
_GEMMA = _WINDOW | {
    "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention",
}  # fmt: skip
_QWEN_DEFAULTS = {"max_position_embeddings": 32768, "sliding_window": 4096}
_GEMMA_DEFAULTS = {
    "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True, "sliding_window": 4096,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
_NO_BIAS = ("attention_bias", "mlp_bias")
_PLAIN = ("num_key_value_heads", "head_dim", "mlp_bias")
_OLD_PREFIX = (r"(?=(wte|wpe|h|ln_f|word_embeddings|word_embeddings_layernorm)\.)", "transformer.")

_ALL = (
    Family(
        model_type="llama",
        architecture="LlamaForCausalLM",
        switches=_llama,
        defaults={"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
        ignored=_INVERSE_FREQUENCIES,
    ),
    Family(
        model_type="mistral",
        architecture="MistralForCausalLM",
        switches=_mistral,
        without=_NO_BIAS,
        reads=frozenset({"sliding_window"}),
        defaults={
            "max_position_embeddings": 131072, "num_key_value_heads": 8, "bos_token_id": 1, "eos_token_id": 2,
            "sliding_window": 4096,
        },
        ignored=_INVERSE_FREQUENCIES,
    ),
    Family(
        model_type="mixtral",
        architecture="MixtralForCausalLM",
        rows=MIXTRAL_ROWS,
        switches=_mixtral,
        without=_NO_BIAS,
        reads=frozenset({"sliding_window", "num_local_experts", "num_experts_per_tok"}),
        defaults={
            "max_position_embeddings": 131072, "num_key_value_heads": 8, "bos_token_id": 1, "eos_token_id": 2,
            "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        },
        ignored=_INVERSE_FREQUENCIES,
    ),
    Family(
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        switches=_qwen2,
        without=_NO_BIAS,
        reads=_QWEN,
        defaults=_QWEN_DEFAULTS,
        ignored=_INVERSE_FREQUENCIES,
    ),
    Family(
        model_type="qwen2_moe",
        architecture="Qwen2MoeForCausalLM",
        switches=_qwen2_moe,
        without=_NO_BIAS,
        reads=_QWEN | _QWEN_EXPERTS | {"shared_expert_intermediate_size", "qkv_bias"},
        defaults=_QWEN_DEFAULTS,
    ),
    Family(
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        switches=_qwen3,
        without=("mlp_bias",),
        reads=_QWEN,
        defaults={**_QWEN_DEFAULTS, "head_dim": 128},
    ),
    Family(
        model_type="qwen3_moe",
        architecture="Qwen3MoeForCausalLM",
        switches=_qwen3_moe,
        without=("mlp_bias",),
        reads=(_QWEN | _QWEN_EXPERTS) - {"max_window_layers"},
        defaults={**_QWEN_DEFAULTS, "num_key_value_heads": 4},
    ),
    Family(
        model_type="gemma2",
        architecture="Gemma2ForCausalLM",
        switches=_gemma2,
        without=("mlp_bias",),
        keys={"hidden_act": "hidden_activation"},
        reads=_GEMMA,
        defaults={**_GEMMA_DEFAULTS, "max_position_embeddings": 8192},
    ),
    Family(
        model_type="gemma3_text",
        architecture="Gemma3ForCausalLM",
        switches=_gemma3,
        without=("mlp_bias",),
        keys={"hidden_act": "hidden_activation"},
        reads=_GEMMA | {"sliding_window_pattern"},
        defaults={**_GEMMA_DEFAULTS, "max_position_embeddings": 131072, "rope_theta": 1e6, "vocab_size": 262208},
        local_rope=True,
        prefixes=(
            (r"(model\.)?language_model\.model\.", "model."),
            (r"model\.language_model\.", "model."),
            (r"language_model\.lm_head\.", "lm_head."),
        ),
        ignored=(r"(model\.)?(vision_tower|multi_modal_projector)\..*",),
    ),
    Family(
        model_type="phi3",
        architecture="Phi3ForCausalLM",
        rows=PHI3_ROWS,
        switches=_mistral,
        without=_NO_BIAS,
        reads=frozenset({"sliding_window", "original_max_position_embeddings"}),
        defaults={
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 32000,
            "pad_token_id": 32000,
        },
        partial_rotary=True,
    ),
    Family(
        model_type="gpt2",
        architecture="GPT2LMHeadModel",
        rows=GPT2_ROWS,
        switches=_gpt2,
        without=(*_PLAIN, "attention_bias"),
        widening=4,
        keys={
            "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions", "intermediate_size": "n_inner",
            "hidden_act": "activation_function", "rms_norm_eps": "layer_norm_epsilon",
        },
        reads=frozenset({"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention"}),
        defaults={
            "max_position_embeddings": 1024, "hidden_act": "gelu_new", "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True, "bos_token_id": 50256, "eos_token_id": 50256,
        },
        prefixes=(_OLD_PREFIX,),
        ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
        embedding="transformer.wte.weight",
    ),
    Family(
        model_type="gpt_neox",
        architecture="GPTNeoXForCausalLM",
        rows=GPT_NEOX_ROWS,
        switches=_gpt_neox,
        without=_PLAIN,
        keys={
            "rms_norm_eps": "layer_norm_eps", "partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base",
        },
        reads=frozenset({"use_parallel_residual"}),
        defaults={
            "max_position_embeddings": 2048, "hidden_act": "gelu", "rms_norm_eps": 1e-5, "attention_bias": True,
            "partial_rotary_factor": 0.25, "bos_token_id": 0, "eos_token_id": 2,
        },
        partial_rotary=True,
        ignored=(r"gpt_neox\.layers\.\d+\.attention\.(masked_bias|bias|rotary_emb\.inv_freq)",),
        embedding="gpt_neox.embed_in.weight",
        head="embed_out.weight",
    ),
    Family(
        model_type="bloom",
        architecture="BloomForCausalLM",
        rows=BLOOM_ROWS,
        switches=_bloom,
        without=(*_PLAIN, "attention_bias"),
        widening=4,
        keys={
            "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "rms_norm_eps": "layer_norm_epsilon",
            "max_position_embeddings": "seq_length",
        },
        reads=frozenset({"apply_residual_connection_post_layernorm"}),
        defaults={
            "max_position_embeddings": 2048, "hidden_act": "gelu_bloom", "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
        },
        prefixes=(_OLD_PREFIX,),
        embedding="transformer.word_embeddings.weight",
    ),
    Family(
        model_type="olmo2",
        architecture="Olmo2ForCausalLM",
        switches=_olmo2,
        without=("mlp_bias",),
        defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "pad_token_id": 1, "eos_token_id": 50279},
    ),
    Family(
        model_type="smollm3",
        architecture="SmolLM3ForCausalLM",
        switches=_smollm3,
        reads=_WINDOW | {"use_sliding_window", "no_rope_layers", "no_rope_layer_interval"},
        defaults={
            "max_position_embeddings": 32768, "num_key_value_heads": 4, "rope_theta": 2e6,
            "tie_word_embeddings": True, "bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": 128004,
        },
    ),
)  # fmt: skip

FAMILIES: dict[str, Family] = {family.model_type: family for family in _ALL}
