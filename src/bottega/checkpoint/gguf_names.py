"""The tensors of a GGUF file, for each family: their names in the Hugging Face checkpoint, and how they were changed.

llama.cpp's converter gives tensors short names of its own and stores some of them otherwise
than the checkpoint does; a row of a table says both. Source: `gguf-py/gguf/tensor_mapping.py`
and the classes of `conversion/` in llama.cpp. The changes, as the converter makes them (reading
undoes them):

    rotary_query, rotary_key   rows of each head taken apart: 0 … d−1 → 0, d/2, 1, d/2 + 1, …
    plus_one                   Gemma's norms: 1 is added
    per_head                   query, key, value of each head → all queries, all keys, all values
    transposed                 GPT-2's (in, out) → (out, in)
    experts                    one tensor per expert → one with a first dimension more
    row                        (1, n) → (n,)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from bottega.core.errors import UserError, did_you_mean

Change = Literal["", "rotary_query", "rotary_key", "plus_one", "per_head", "transposed", "experts", "row"]


class Row(NamedTuple):
    """One tensor of every layer (names from the layer on), or of the whole model; without `.weight`."""

    checkpoint: str
    gguf: str
    change: Change = ""
    bias: bool = False
    """Whether a `.bias` may stand beside the weight; the change is done to it as well, but for `transposed`."""


@dataclass(frozen=True)
class GgufFamily:
    """One `model_type`: rows of the whole model, and of each layer after `layer` (its name) and `blk.N.`."""

    model_type: str
    whole: tuple[Row, ...]
    layer: str
    rows: tuple[Row, ...]


def family(model_type: str) -> GgufFamily:
    """The tables of a `model_type`; raises UserError."""
    if model_type not in FAMILIES:
        raise UserError(
            f"GGUF files of models of type {model_type!r} are not read", hint=did_you_mean(model_type, FAMILIES)
        )
    return FAMILIES[model_type]


_WHOLE = (
    Row("model.embed_tokens", "token_embd"),
    Row("model.norm", "output_norm"),
    Row("lm_head", "output"),
)
_LAYER = "model.layers.{layer}."
_INPUT_NORM = (Row("input_layernorm", "attn_norm"),)
_ATTENTION = (
    Row("self_attn.q_proj", "attn_q", bias=True),
    Row("self_attn.k_proj", "attn_k", bias=True),
    Row("self_attn.v_proj", "attn_v", bias=True),
    Row("self_attn.o_proj", "attn_output", bias=True),
)
_ROTARY_ATTENTION = (
    Row("self_attn.q_proj", "attn_q", "rotary_query", bias=True),
    Row("self_attn.k_proj", "attn_k", "rotary_key", bias=True),
    *_ATTENTION[2:],
)
_HEAD_NORMS = (Row("self_attn.q_norm", "attn_q_norm"), Row("self_attn.k_norm", "attn_k_norm"))
_FFN_NORM = (Row("post_attention_layernorm", "ffn_norm"),)
_FEED_FORWARD = (
    Row("mlp.gate_proj", "ffn_gate", bias=True),
    Row("mlp.up_proj", "ffn_up", bias=True),
    Row("mlp.down_proj", "ffn_down", bias=True),
)
_MIXTRAL_EXPERTS = (
    Row("block_sparse_moe.gate", "ffn_gate_inp"),
    Row("block_sparse_moe.experts.{expert}.w1", "ffn_gate_exps", "experts"),
    Row("block_sparse_moe.experts.{expert}.w2", "ffn_down_exps", "experts"),
    Row("block_sparse_moe.experts.{expert}.w3", "ffn_up_exps", "experts"),
)
_QWEN_EXPERTS = (
    Row("mlp.gate", "ffn_gate_inp"),
    Row("mlp.experts.{expert}.gate_proj", "ffn_gate_exps", "experts"),
    Row("mlp.experts.{expert}.up_proj", "ffn_up_exps", "experts"),
    Row("mlp.experts.{expert}.down_proj", "ffn_down_exps", "experts"),
)
_SHARED_EXPERT = (
    Row("mlp.shared_expert_gate", "ffn_gate_inp_shexp", "row"),
    Row("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    Row("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    Row("mlp.shared_expert.down_proj", "ffn_down_shexp"),
)
_GEMMA_WHOLE = (_WHOLE[0], Row("model.norm", "output_norm", "plus_one"))
_GEMMA_NORMS = (
    Row("input_layernorm", "attn_norm", "plus_one"),
    Row("post_attention_layernorm", "post_attention_norm", "plus_one"),
    Row("pre_feedforward_layernorm", "ffn_norm", "plus_one"),
    Row("post_feedforward_layernorm", "post_ffw_norm", "plus_one"),
)
_GEMMA_HEAD_NORMS = tuple(row._replace(change="plus_one") for row in _HEAD_NORMS)
_OLMO2_NORMS = (
    Row("post_attention_layernorm", "post_attention_norm"),
    Row("post_feedforward_layernorm", "post_ffw_norm"),
)
_PHI3 = (
    Row("self_attn.qkv_proj", "attn_qkv"),
    Row("self_attn.o_proj", "attn_output"),
    Row("mlp.gate_up_proj", "ffn_up"),
    Row("mlp.down_proj", "ffn_down"),
)
_LLAMA = (*_INPUT_NORM, *_ROTARY_ATTENTION, *_FFN_NORM, *_FEED_FORWARD)
_QWEN2 = (*_INPUT_NORM, *_ATTENTION, *_FFN_NORM)
_QWEN3 = (*_QWEN2, *_HEAD_NORMS)

_GPT2 = GgufFamily(
    "gpt2",
    (
        Row("transformer.wte", "token_embd"),
        Row("transformer.wpe", "position_embd"),
        Row("transformer.ln_f", "output_norm", bias=True),
        Row("lm_head", "output"),
    ),
    "transformer.h.{layer}.",
    (
        Row("ln_1", "attn_norm", bias=True),
        Row("attn.c_attn", "attn_qkv", "transposed", bias=True),
        Row("attn.c_proj", "attn_output", "transposed", bias=True),
        Row("ln_2", "ffn_norm", bias=True),
        Row("mlp.c_fc", "ffn_up", "transposed", bias=True),
        Row("mlp.c_proj", "ffn_down", "transposed", bias=True),
    ),
)


def _fused_layer(attention: str) -> tuple[Row, ...]:
    """The rows of gpt-neox's and bloom's layers, which differ in the attention's name only."""
    return (
        Row("input_layernorm", "attn_norm", bias=True),
        Row(f"{attention}.query_key_value", "attn_qkv", "per_head", bias=True),
        Row(f"{attention}.dense", "attn_output", bias=True),
        Row("post_attention_layernorm", "ffn_norm", bias=True),
        Row("mlp.dense_h_to_4h", "ffn_up", bias=True),
        Row("mlp.dense_4h_to_h", "ffn_down", bias=True),
    )


_GPT_NEOX = GgufFamily(
    "gpt_neox",
    (
        Row("gpt_neox.embed_in", "token_embd"),
        Row("gpt_neox.final_layer_norm", "output_norm", bias=True),
        Row("embed_out", "output"),
    ),
    "gpt_neox.layers.{layer}.",
    _fused_layer("attention"),
)
_BLOOM = GgufFamily(
    "bloom",
    (
        Row("transformer.word_embeddings", "token_embd"),
        Row("transformer.word_embeddings_layernorm", "token_embd_norm", bias=True),
        Row("transformer.ln_f", "output_norm", bias=True),
        Row("lm_head", "output"),
    ),
    "transformer.h.{layer}.",
    _fused_layer("self_attention"),
)
FAMILIES: dict[str, GgufFamily] = {
    tables.model_type: tables
    for tables in (
        GgufFamily("llama", _WHOLE, _LAYER, _LLAMA),
        GgufFamily("mistral", _WHOLE, _LAYER, _LLAMA),
        GgufFamily(
            "mixtral",
            _WHOLE,
            _LAYER,
            (*_INPUT_NORM, *_ROTARY_ATTENTION, *_FFN_NORM, *_MIXTRAL_EXPERTS),
        ),
        GgufFamily("smollm3", _WHOLE, _LAYER, _LLAMA),
        GgufFamily("qwen2", _WHOLE, _LAYER, (*_QWEN2, *_FEED_FORWARD)),
        GgufFamily("qwen2_moe", _WHOLE, _LAYER, (*_QWEN2, *_QWEN_EXPERTS, *_SHARED_EXPERT)),
        GgufFamily("qwen3", _WHOLE, _LAYER, (*_QWEN3, *_FEED_FORWARD)),
        GgufFamily("qwen3_moe", _WHOLE, _LAYER, (*_QWEN3, *_QWEN_EXPERTS)),
        GgufFamily("gemma2", _GEMMA_WHOLE, _LAYER, (*_GEMMA_NORMS, *_ATTENTION, *_FEED_FORWARD)),
        GgufFamily(
            "gemma3_text",
            (*_GEMMA_WHOLE, _WHOLE[2]),
            _LAYER,
            (*_GEMMA_NORMS, *_ATTENTION, *_GEMMA_HEAD_NORMS, *_FEED_FORWARD),
        ),
        GgufFamily("phi3", _WHOLE, _LAYER, (*_INPUT_NORM, *_FFN_NORM, *_PHI3)),
        GgufFamily(
            "olmo2",
            _WHOLE,
            _LAYER,
            (*_ATTENTION, *_HEAD_NORMS, *_OLMO2_NORMS, *_FEED_FORWARD),
        ),
        _GPT2,
        _GPT_NEOX,
        _BLOOM,
    )
}
