"""Layouts: which tensors a family's checkpoint holds, and which of the decoder's parameters lie in each.

Tensor names are those of the Hugging Face checkpoints. For families that grew from Llama they are the
decoder's own; others fuse matrices, transpose them or call them otherwise, and a row says how:

    ""            one parameter, as it is
    "stacked"     several, their rows one after the other (Phi-3's qkv_proj)
    "transposed"  one or several, stored (in, out) instead of (out, in) (GPT-2's Conv1D)
    "interleaved" query, key and value of the first head, then of the second … (GPT-NeoX, BLOOM)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Part = Literal["embedding", "attention", "feed_forward", "norms", "head"]
PARTS: tuple[Part, ...] = ("embedding", "attention", "feed_forward", "norms", "head")
Form = Literal["", "stacked", "transposed", "interleaved"]

# The decoder's names of the two parameters that may be one.
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class TensorRow:
    """One stored tensor; one per layer where the name has `{layer}`, one per expert where it has `{expert}`.

    `shape` names sizes that the config knows (`ModelConfig.sizes`). The tensor exists if `when`, a flag of
    `Switches.flags` or of the config, holds (`not NAME`: does not). `holds` are the decoder's parameters in it,
    each with the size of its rows; none means the one of the same name.
    """

    name: str
    shape: tuple[str, ...]
    part: Part
    when: str = ""
    holds: tuple[tuple[str, str], ...] = ()
    form: Form = ""


@dataclass(frozen=True)
class Place:
    """A stored tensor of one model: its shape, and the decoder's parameters in it with their numbers of rows."""

    name: str
    shape: tuple[int, ...]
    part: Part
    holds: tuple[tuple[str, int], ...]
    form: Form
    head_dim: int

    def held_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each of the decoder's parameters in it."""
        inner = self.shape[:1] if self.form == "transposed" and len(self.shape) == 2 else self.shape[1:]
        return {name: (rows, *inner) for name, rows in self.holds}

    def unpack(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The decoder's parameters in a stored tensor (views of it where that is possible)."""
        if self.form == "transposed" and tensor.ndim == 2:
            tensor = tensor.t()
        if self.form == "interleaved":
            count = len(self.holds)
            parts = tensor.unflatten(0, (-1, count, self.head_dim)).unbind(1)
            return {name: part.flatten(0, 1) for (name, _), part in zip(self.holds, parts, strict=True)}
        if len(self.holds) == 1:
            return {self.holds[0][0]: tensor}
        parts = tensor.split([rows for _, rows in self.holds])
        return {name: part for (name, _), part in zip(self.holds, parts, strict=True)}

    def pack(self, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The stored tensor from the decoder's parameters: the inverse of `unpack`."""
        import torch

        parts = [parameters[name] for name, _ in self.holds]
        if self.form == "interleaved":
            tensor = torch.stack([part.unflatten(0, (-1, self.head_dim)) for part in parts], dim=1).flatten(0, 2)
        else:
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        return (tensor.t() if self.form == "transposed" and tensor.ndim == 2 else tensor).contiguous()


_LAYER = "model.layers.{layer}."
_ATTENTION, _MLP = _LAYER + "self_attn.", _LAYER + "mlp."


def _linear(stored: str, decoder: str, shape: tuple[str, str], part: Part, bias: str) -> list[TensorRow]:
    """A linear layer of another name: weight, and bias if the switch `bias` holds ("always": always)."""
    rows = [TensorRow(f"{stored}.weight", shape, part, "", ((f"{decoder}.weight", shape[0]),))]
    if bias:
        wanted = "" if bias == "always" else bias
        rows.append(TensorRow(f"{stored}.bias", shape[:1], part, wanted, ((f"{decoder}.bias", shape[0]),)))
    return rows


def _norm(stored: str, decoder: str, *, bias: bool = True) -> list[TensorRow]:
    """A norm over the hidden size under another name."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [TensorRow(f"{stored}.{k}", ("hidden",), "norms", "", ((f"{decoder}.{k}", "hidden"),)) for k in kinds]


def _gated(prefix: str, size: str, when: str, bias: str = "") -> list[TensorRow]:
    """Gate, up and down projections under the decoder's own names."""
    shapes = {"gate_proj": (size, "hidden"), "up_proj": (size, "hidden"), "down_proj": ("hidden", size)}
    rows = [TensorRow(f"{prefix}{name}.weight", shape, "feed_forward", when) for name, shape in shapes.items()]
    if bias:
        rows += [TensorRow(f"{prefix}{name}.bias", shape[:1], "feed_forward", bias) for name, shape in shapes.items()]
    return rows


_QKV = {"q_proj": "query", "k_proj": "key_value", "v_proj": "key_value"}
_EMBEDDING_ROWS = [TensorRow(EMBEDDING, ("vocab", "hidden"), "embedding")]
_ATTENTION_ROWS = [
    *(TensorRow(f"{_ATTENTION}{name}.weight", (size, "hidden"), "attention") for name, size in _QKV.items()),
    TensorRow(_ATTENTION + "o_proj.weight", ("hidden", "query"), "attention"),
    *(TensorRow(f"{_ATTENTION}{name}.bias", (size,), "attention", "query_bias") for name, size in _QKV.items()),
    TensorRow(_ATTENTION + "o_proj.bias", ("hidden",), "attention", "output_bias"),
    TensorRow(_ATTENTION + "q_norm.weight", ("head",), "norms", "head_norm"),
    TensorRow(_ATTENTION + "k_norm.weight", ("head",), "norms", "head_norm"),
    TensorRow(_ATTENTION + "q_norm.weight", ("query",), "norms", "whole_norm"),
    TensorRow(_ATTENTION + "k_norm.weight", ("key_value",), "norms", "whole_norm"),
]
_BEFORE_ATTENTION = [TensorRow(_LAYER + "input_layernorm.weight", ("hidden",), "norms", "norm_before")]
_AFTER_ATTENTION = [
    TensorRow(_LAYER + "post_attention_layernorm.weight", ("hidden",), "norms"),
    TensorRow(_LAYER + "pre_feedforward_layernorm.weight", ("hidden",), "norms", "norm_both"),
    TensorRow(_LAYER + "post_feedforward_layernorm.weight", ("hidden",), "norms", "norm_after"),
]
_EXPERT_ROWS = [
    TensorRow(_MLP + "gate.weight", ("experts", "hidden"), "feed_forward", "sparse"),
    *_gated(_MLP + "experts.{expert}.", "expert_intermediate", "sparse"),
    *_gated(_MLP + "shared_expert.", "shared_intermediate", "shared"),
    TensorRow(_MLP + "shared_expert_gate.weight", ("one", "hidden"), "feed_forward", "shared"),
]
_LAST_ROWS = [
    TensorRow("model.norm.weight", ("hidden",), "norms"),
    TensorRow(HEAD, ("vocab", "hidden"), "head", "not tie_word_embeddings"),
]

LLAMA_ROWS = (
    *_EMBEDDING_ROWS,
    *_BEFORE_ATTENTION,
    *_ATTENTION_ROWS,
    *_AFTER_ATTENTION,
    *_gated(_MLP, "intermediate", "dense", "mlp_bias"),
    *_EXPERT_ROWS,
    *_LAST_ROWS,
)

_MIXTRAL = _LAYER + "block_sparse_moe."
_MIXTRAL_NAMES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
MIXTRAL_ROWS = (
    *_EMBEDDING_ROWS,
    *_BEFORE_ATTENTION,
    *_ATTENTION_ROWS,
    *_AFTER_ATTENTION,
    *_linear(_MIXTRAL + "gate", _MLP + "gate", ("experts", "hidden"), "feed_forward", ""),
    *(
        row
        for stored, name in _MIXTRAL_NAMES.items()
        for row in _linear(
            f"{_MIXTRAL}experts.{{expert}}.{stored}",
            f"{_MLP}experts.{{expert}}.{name}",
            ("hidden", "expert_intermediate") if name == "down_proj" else ("expert_intermediate", "hidden"),
            "feed_forward",
            "",
        )
    ),
    *_LAST_ROWS,
)

_FUSED_QKV = tuple((f"{_ATTENTION}{name}.weight", size) for name, size in _QKV.items())
_FUSED_QKV_BIAS = tuple((f"{_ATTENTION}{name}.bias", size) for name, size in _QKV.items())
PHI3_ROWS = (
    *_EMBEDDING_ROWS,
    *_BEFORE_ATTENTION,
    TensorRow(_ATTENTION + "qkv_proj.weight", ("fused_query", "hidden"), "attention", "", _FUSED_QKV, "stacked"),
    TensorRow(_ATTENTION + "o_proj.weight", ("hidden", "query"), "attention"),
    TensorRow(_LAYER + "post_attention_layernorm.weight", ("hidden",), "norms"),
    TensorRow(
        _MLP + "gate_up_proj.weight",
        ("fused_gate", "hidden"),
        "feed_forward",
        "",
        ((_MLP + "gate_proj.weight", "intermediate"), (_MLP + "up_proj.weight", "intermediate")),
        "stacked",
    ),
    TensorRow(_MLP + "down_proj.weight", ("hidden", "intermediate"), "feed_forward"),
    *_LAST_ROWS,
)

_GPT2 = "transformer.h.{layer}."


def _conv1d(stored: str, weights: tuple[tuple[str, str], ...], shape: tuple[str, str], part: Part) -> list[TensorRow]:
    """GPT-2's Conv1D: a linear layer stored (in, out), with a bias. `weights` are the decoder's layers in it."""
    holds = {kind: tuple((f"{name}.{kind}", size) for name, size in weights) for kind in ("weight", "bias")}
    return [
        TensorRow(f"{stored}.weight", shape, part, "", holds["weight"], "transposed"),
        TensorRow(f"{stored}.bias", shape[1:], part, "", holds["bias"], "transposed"),
    ]


GPT2_ROWS = (
    TensorRow("transformer.wte.weight", ("vocab", "hidden"), "embedding", "", ((EMBEDDING, "vocab"),)),
    TensorRow(
        "transformer.wpe.weight",
        ("positions", "hidden"),
        "embedding",
        "",
        (("model.embed_positions.weight", "positions"),),
    ),
    *_norm(_GPT2 + "ln_1", _LAYER + "input_layernorm"),
    *_conv1d(
        _GPT2 + "attn.c_attn",
        tuple((_ATTENTION + name, size) for name, size in _QKV.items()),
        ("hidden", "fused_query"),
        "attention",
    ),
    *_conv1d(_GPT2 + "attn.c_proj", ((_ATTENTION + "o_proj", "hidden"),), ("query", "hidden"), "attention"),
    *_norm(_GPT2 + "ln_2", _LAYER + "post_attention_layernorm"),
    *_conv1d(_GPT2 + "mlp.c_fc", ((_MLP + "up_proj", "intermediate"),), ("hidden", "intermediate"), "feed_forward"),
    *_conv1d(_GPT2 + "mlp.c_proj", ((_MLP + "down_proj", "hidden"),), ("intermediate", "hidden"), "feed_forward"),
    *_norm("transformer.ln_f", "model.norm"),
    TensorRow(HEAD, ("vocab", "hidden"), "head", "not tie_word_embeddings"),
)


def _interleaved(prefix: str, bias: str) -> list[TensorRow]:
    """GPT-NeoX's and BLOOM's attention: one matrix for query, key and value, head by head, and `dense`."""
    return [
        TensorRow(
            prefix + "query_key_value.weight", ("fused_query", "hidden"), "attention", "", _FUSED_QKV, "interleaved"
        ),
        TensorRow(prefix + "query_key_value.bias", ("fused_query",), "attention", bias, _FUSED_QKV_BIAS, "interleaved"),
        *_linear(prefix + "dense", _ATTENTION + "o_proj", ("hidden", "query"), "attention", bias or "always"),
    ]


def _four_h(prefix: str) -> list[TensorRow]:
    """Their feed-forward layer."""
    return [
        *_linear(prefix + "dense_h_to_4h", _MLP + "up_proj", ("intermediate", "hidden"), "feed_forward", "always"),
        *_linear(prefix + "dense_4h_to_h", _MLP + "down_proj", ("hidden", "intermediate"), "feed_forward", "always"),
    ]


_NEOX = "gpt_neox.layers.{layer}."
GPT_NEOX_ROWS = (
    TensorRow("gpt_neox.embed_in.weight", ("vocab", "hidden"), "embedding", "", ((EMBEDDING, "vocab"),)),
    *_norm(_NEOX + "input_layernorm", _LAYER + "input_layernorm"),
    *_norm(_NEOX + "post_attention_layernorm", _LAYER + "post_attention_layernorm"),
    *_interleaved(_NEOX + "attention.", "query_bias"),
    *_four_h(_NEOX + "mlp."),
    *_norm("gpt_neox.final_layer_norm", "model.norm"),
    TensorRow("embed_out.weight", ("vocab", "hidden"), "head", "not tie_word_embeddings", ((HEAD, "vocab"),)),
)

_BLOOM = "transformer.h.{layer}."
BLOOM_ROWS = (
    TensorRow("transformer.word_embeddings.weight", ("vocab", "hidden"), "embedding", "", ((EMBEDDING, "vocab"),)),
    *_norm("transformer.word_embeddings_layernorm", "model.embed_norm"),
    *_norm(_BLOOM + "input_layernorm", _LAYER + "input_layernorm"),
    *_interleaved(_BLOOM + "self_attention.", ""),
    *_norm(_BLOOM + "post_attention_layernorm", _LAYER + "post_attention_layernorm"),
    *_four_h(_BLOOM + "mlp."),
    *_norm("transformer.ln_f", "model.norm"),
    TensorRow(HEAD, ("vocab", "hidden"), "head", "not tie_word_embeddings"),
)
