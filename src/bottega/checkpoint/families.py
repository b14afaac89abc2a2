"""The families: for each `model_type`, its tensors, the spelling of its config, and its switches.

Another family is another entry of `FAMILIES`, a function in `family_switches.py` that reads its switches from its
config, and, where its checkpoints are laid out in a way of their own, rows in `layout.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bottega.checkpoint import family_switches
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
from bottega.checkpoint.switches import Switches

if TYPE_CHECKING:
    from bottega.checkpoint.config import ModelConfig


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
        switches=family_switches.llama,
        defaults={"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
        ignored=_INVERSE_FREQUENCIES,
    ),
    Family(
        model_type="mistral",
        architecture="MistralForCausalLM",
        switches=family_switches.mistral,
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
        switches=family_switches.mixtral,
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
        switches=family_switches.qwen2,
        without=_NO_BIAS,
        reads=_QWEN,
        defaults=_QWEN_DEFAULTS,
        ignored=_INVERSE_FREQUENCIES,
    ),
    Family(
        model_type="qwen2_moe",
        architecture="Qwen2MoeForCausalLM",
        switches=family_switches.qwen2_moe,
        without=_NO_BIAS,
        reads=_QWEN | _QWEN_EXPERTS | {"shared_expert_intermediate_size", "qkv_bias"},
        defaults=_QWEN_DEFAULTS,
    ),
    Family(
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        switches=family_switches.qwen3,
        without=("mlp_bias",),
        reads=_QWEN,
        defaults={**_QWEN_DEFAULTS, "head_dim": 128},
    ),
    Family(
        model_type="qwen3_moe",
        architecture="Qwen3MoeForCausalLM",
        switches=family_switches.qwen3_moe,
        without=("mlp_bias",),
        reads=(_QWEN | _QWEN_EXPERTS) - {"max_window_layers"},
        defaults={**_QWEN_DEFAULTS, "num_key_value_heads": 4},
    ),
    Family(
        model_type="gemma2",
        architecture="Gemma2ForCausalLM",
        switches=family_switches.gemma2,
        without=("mlp_bias",),
        keys={"hidden_act": "hidden_activation"},
        reads=_GEMMA,
        defaults={**_GEMMA_DEFAULTS, "max_position_embeddings": 8192},
    ),
    Family(
        model_type="gemma3_text",
        architecture="Gemma3ForCausalLM",
        switches=family_switches.gemma3,
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
        switches=family_switches.mistral,
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
        switches=family_switches.gpt2,
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
        switches=family_switches.gpt_neox,
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
        switches=family_switches.bloom,
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
        switches=family_switches.olmo2,
        without=("mlp_bias",),
        defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "pad_token_id": 1, "eos_token_id": 50279},
    ),
    Family(
        model_type="smollm3",
        architecture="SmolLM3ForCausalLM",
        switches=family_switches.smollm3,
        reads=_WINDOW | {"use_sliding_window", "no_rope_layers", "no_rope_layer_interval"},
        defaults={
            "max_position_embeddings": 32768, "num_key_value_heads": 4, "rope_theta": 2e6,
            "tie_word_embeddings": True, "bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": 128004,
        },
    ),
)  # fmt: skip

FAMILIES: dict[str, Family] = {family.model_type: family for family in _ALL}
