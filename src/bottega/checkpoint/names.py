"""The families: for each `model_type`, which tensors a checkpoint holds, their shapes, and the defaults of its config.

A family is a row of `FAMILIES`; another one is another row (and rows of `TensorRow`), not a
copy of the code. Tensor names are those of the Hugging Face checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Part = Literal["embedding", "attention", "feed_forward", "norms", "head"]
PARTS: tuple[Part, ...] = ("embedding", "attention", "feed_forward", "norms", "head")

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class TensorRow:
    """One tensor, or one per layer where the name has `{layer}`.

    `shape` names sizes that the config knows (see `ModelConfig.sizes`); the tensor exists if the
    switch `when` is true in the config (`not NAME`: if it is false).
    """

    name: str
    shape: tuple[str, ...]
    part: Part
    when: str = ""


@dataclass(frozen=True)
class Family:
    """One `model_type`: its architecture in transformers, its tensors, its config's defaults."""

    model_type: str
    architecture: str
    rows: tuple[TensorRow, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    """Patterns of tensor names that old files carry and that no reader needs."""

    def ignores(self, name: str) -> bool:
        """Whether a tensor of this name carries nothing that the model needs."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


_LAYER = "model.layers.{layer}."

LLAMA_ROWS = (
    TensorRow(EMBEDDING, ("vocab", "hidden"), "embedding"),
    TensorRow(_LAYER + "input_layernorm.weight", ("hidden",), "norms"),
    TensorRow(_LAYER + "self_attn.q_proj.weight", ("query", "hidden"), "attention"),
    TensorRow(_LAYER + "self_attn.k_proj.weight", ("key_value", "hidden"), "attention"),
    TensorRow(_LAYER + "self_attn.v_proj.weight", ("key_value", "hidden"), "attention"),
    TensorRow(_LAYER + "self_attn.o_proj.weight", ("hidden", "query"), "attention"),
    TensorRow(_LAYER + "self_attn.q_proj.bias", ("query",), "attention", "attention_bias"),
    TensorRow(_LAYER + "self_attn.k_proj.bias", ("key_value",), "attention", "attention_bias"),
    TensorRow(_LAYER + "self_attn.v_proj.bias", ("key_value",), "attention", "attention_bias"),
    TensorRow(_LAYER + "self_attn.o_proj.bias", ("hidden",), "attention", "attention_bias"),
    TensorRow(_LAYER + "post_attention_layernorm.weight", ("hidden",), "norms"),
    TensorRow(_LAYER + "mlp.gate_proj.weight", ("intermediate", "hidden"), "feed_forward"),
    TensorRow(_LAYER + "mlp.up_proj.weight", ("intermediate", "hidden"), "feed_forward"),
    TensorRow(_LAYER + "mlp.down_proj.weight", ("hidden", "intermediate"), "feed_forward"),
    TensorRow(_LAYER + "mlp.gate_proj.bias", ("intermediate",), "feed_forward", "mlp_bias"),
    TensorRow(_LAYER + "mlp.up_proj.bias", ("intermediate",), "feed_forward", "mlp_bias"),
    TensorRow(_LAYER + "mlp.down_proj.bias", ("hidden",), "feed_forward", "mlp_bias"),
    TensorRow("model.norm.weight", ("hidden",), "norms"),
    TensorRow(HEAD, ("vocab", "hidden"), "head", "not tie_word_embeddings"),
)

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    rows=LLAMA_ROWS,
    # What transformers' LlamaConfig assumes for a key that config.json leaves out.
    defaults={"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    ignored=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"model\.rotary_emb\.inv_freq"),
)

FAMILIES: dict[str, Family] = {family.model_type: family for family in (LLAMA,)}
