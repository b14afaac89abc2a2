"""What the `config.json` of a GGUF file's model would be, from its metadata.

Keys of a GGUF file carry the architecture's name first (`llama.block_count`). Source: llama.cpp
`gguf-py/gguf/constants.py`, the `set_gguf_parameters` of `conversion/`, and for what a file
leaves unsaid `src/models/`. What a file does not say and llama.cpp does not assume is left out,
so that the family's own default holds.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping
from typing import Any

from bottega.core.errors import UserError, did_you_mean

# general.architecture → model_type. Files of "llama" may also be mistral's or mixtral's.
MODEL_TYPES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "gptneox": "gpt_neox",
    "olmo2": "olmo2",
    "smollm3": "smollm3",
    "bloom": "bloom",
}
# general.file_type → dtype, where there is one for all matrices.
FILE_TYPES = {0: "float32", 1: "float16", 32: "bfloat16"}

_SIZES = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_DECODER = {**_SIZES, "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
# Keys that must be there, by model_type, and those that may be.
_REQUIRED: dict[str, dict[str, str]] = {
    "gpt2": {
        "block_count": "n_layer",
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    "bloom": {
        "block_count": "n_layer",
        "embedding_length": "hidden_size",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    "gpt_neox": {**_SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"},
}
_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
_MIXTRAL = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
_QWEN_MOE = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_MORE: dict[str, dict[str, str]] = {
    "mistral": {**_OPTIONAL, "attention.sliding_window": "sliding_window"},
    "mixtral": {**_OPTIONAL, **_MIXTRAL},
    "qwen2_moe": {
        **_OPTIONAL,
        **_QWEN_MOE,
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    },
    "qwen3_moe": {**_OPTIONAL, **_QWEN_MOE},
    "gemma2": {
        **_OPTIONAL,
        "attention.sliding_window": "sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    "gemma3_text": {
        **_OPTIONAL,
        "attention.sliding_window": "sliding_window",
        "final_logit_softcapping": "final_logit_softcapping",
        "rope.freq_base_swa": "rope_local_base_freq",
    },
    "phi3": {**_OPTIONAL, "rope.scaling.original_context_length": "original_max_position_embeddings"},
    "gpt2": {"feed_forward_length": "n_inner"},
    "bloom": {"context_length": "seq_length"},
    "gpt_neox": {"rope.freq_base": "rotary_emb_base", "use_parallel_residual": "use_parallel_residual"},
}
# What no file says, for every model of the type is so.
_CONSTANT: dict[str, dict[str, Any]] = {
    "gemma2": {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"},
    "gemma3_text": {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"},
    "gpt2": {"activation_function": "gelu_new"},
    "gpt_neox": {"hidden_act": "gelu"},
    "bloom": {},
    "qwen2_moe": {"hidden_act": "silu", "norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "qwen3_moe": {"hidden_act": "silu", "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "smollm3": {"hidden_act": "silu", "no_rope_layer_interval": 4},
}
# Gemma's largest models divide attention's scores by the root of hidden_size / heads, not of head_dim.
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3_text": 62}
_MAX_TOKEN = 1 << 22
_MAX_LAYERS = 1 << 12


def config_data(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `config.json` in Hugging Face's spelling; raises UserError if the architecture is not read.

    What only the tensors tell (ties, biases, RoPE factors, the rows of the embedding) is left to
    `open_gguf`.
    """
    keys = _Keys(metadata)
    model_type = keys.model_type()
    data: dict[str, Any] = {"model_type": model_type}
    for key, name in _REQUIRED.get(model_type, _DECODER).items():
        data[name] = keys.required(key)
    for key, name in _MORE.get(model_type, _OPTIONAL).items():
        value = keys.number(key)
        if value is not None:
            data[name] = value
    data |= _CONSTANT.get(model_type, {"hidden_act": "silu"})
    data |= _attention(keys, model_type, data)
    data |= keys.rope_scaling()
    data |= keys.tokens()
    tokens = metadata.get("tokenizer.ggml.tokens")
    vocab_size = keys.number("vocab_size") or (len(tokens) if isinstance(tokens, list) else None)
    if vocab_size:
        data["vocab_size"] = vocab_size
    file_type = _whole(metadata.get("general.file_type"))
    if file_type in FILE_TYPES:
        data["torch_dtype"] = FILE_TYPES[file_type]
    return data


def _attention(keys: _Keys, model_type: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from several keys: partial rotation, windows by layer, Gemma's scale of scores."""
    found: dict[str, Any] = {}
    heads = data.get("num_attention_heads", data.get("n_head"))
    hidden = data.get("hidden_size", data.get("n_embd"))
    if not heads or not hidden or heads < 1:
        raise UserError(f"the GGUF file's model has {heads} heads and hidden states of {hidden}")
    head_dim = data.get("head_dim") or hidden // heads
    if model_type not in _REQUIRED:
        # As llama.cpp assumes; some families' own defaults are those of one of their models.
        found = {"num_key_value_heads": heads, "head_dim": head_dim, "rope_theta": 10_000.0, **data}
    rotated = keys.number("rope.dimension_count")
    if rotated and head_dim and rotated != head_dim:
        found["rotary_pct" if model_type == "gpt_neox" else "partial_rotary_factor"] = rotated / head_dim
    elif rotated and model_type == "gpt_neox":
        found["rotary_pct"] = 1.0
    if model_type in _GEMMA_27B_LAYERS:
        largest = data["num_hidden_layers"] == _GEMMA_27B_LAYERS[model_type]
        found["query_pre_attn_scalar"] = hidden // heads if largest else head_dim
    if model_type == "gemma3_text":
        found |= _pattern(keys)
        found = {**found, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, **data}
    if model_type == "olmo2" and keys.number("attention.sliding_window"):
        raise UserError("the GGUF file is OLMo 3's (olmo2 with a sliding window), which is not read")
    if model_type == "phi3":
        found["sliding_window"] = keys.number("attention.sliding_window") or None
    return found


def _pattern(keys: _Keys) -> dict[str, Any]:
    """Which layers of Gemma 3 look at a window only: five of six, if the file does not say."""
    pattern = keys.raw("attention.sliding_window_pattern")
    if isinstance(pattern, array):
        if len(pattern) != keys.number("block_count") or len(pattern) > _MAX_LAYERS:
            raise UserError(f"the GGUF file has {len(pattern)} kinds of layers, which are not its layers")
        return {"layer_types": ["sliding_attention" if windowed else "full_attention" for windowed in pattern]}
    return {"sliding_window_pattern": _whole(pattern) or 6}


class _Keys:
    """The metadata, asked for the keys of its architecture."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in MODEL_TYPES:
            hint = did_you_mean(architecture, MODEL_TYPES) if isinstance(architecture, str) else ""
            raise UserError(
                f"GGUF files of the architecture {str(architecture)[:60]!r} are not read; "
                f"read are {', '.join(MODEL_TYPES)}",
                hint=hint if hint.startswith("Did") else "",
            )
        self.architecture: str = architecture

    def model_type(self) -> str:
        """The model_type in Hugging Face's names."""
        if self.architecture == "llama":
            if self.number("expert_count"):
                return "mixtral"
            return "mistral" if self.number("attention.sliding_window") else "llama"
        return MODEL_TYPES[self.architecture]

    def raw(self, key: str) -> Any:
        return self.metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str) -> Any:
        """A number or truth value, None if it is not there; a list with one value for each layer if all are equal."""
        value = self.raw(key)
        if isinstance(value, array):
            if not value or any(item != value[0] for item in value):
                raise UserError(f"{self.architecture}.{key} differs from layer to layer, which is not read")
            value = value[0]
        if value is not None and (not isinstance(value, bool | int | float) or not abs(value) < 1 << 40):
            raise UserError(f"{self.architecture}.{key} is {str(value)[:60]!r}, not a usable number")
        return _short(value) if isinstance(value, float) else value

    def required(self, key: str) -> Any:
        value = self.number(key)
        if value is None:
            raise UserError(f"the GGUF file lacks {self.architecture}.{key}", hint="It is not a whole model's file.")
        return value

    def rope_scaling(self) -> dict[str, Any]:
        """`rope_scaling`, or nothing. longrope's and llama3's factors are tensors."""
        kind, factor = self.raw("rope.scaling.type"), self.number("rope.scaling.factor")
        if kind is None:
            kind, factor = "linear", self.number("rope.scale_linear")  # older files
        if kind in ("none", "longrope") or (kind == "linear" and factor in (None, 0, 1)):
            return {}
        if kind not in ("linear", "yarn") or not factor:
            raise UserError(f"the GGUF file's RoPE scaling {str(kind)[:60]!r} with factor {factor} is not read")
        scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            for key, name in (
                ("rope.scaling.original_context_length", "original_max_position_embeddings"),
                ("rope.scaling.yarn_beta_fast", "beta_fast"),
                ("rope.scaling.yarn_beta_slow", "beta_slow"),
                ("rope.scaling.yarn_attn_factor", "attention_factor"),
            ):
                value = self.number(key)
                if value is not None:
                    scaling[name] = value
        return {"rope_scaling": scaling}

    def tokens(self) -> dict[str, Any]:
        """Ids of the special tokens. A turn's end (`eot`) ends a generation as `eos` does."""

        def id_of(name: str) -> int | None:
            value = _whole(self.metadata.get(f"tokenizer.ggml.{name}_token_id"))
            return value if value is not None and 0 <= value < _MAX_TOKEN else None  # 2^32 − 1 says "none"

        ends = list(dict.fromkeys(id_ for id_ in (id_of("eos"), id_of("eot")) if id_ is not None))
        return {
            "bos_token_id": id_of("bos"),
            "eos_token_id": ends if len(ends) > 1 else ends[0] if ends else None,
            "pad_token_id": id_of("padding"),
        }


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _short(value: float) -> float:
    """The shortest number with the same float32: files say 9.999999747378752e-06 for 1e-05."""
    if not math.isfinite(value):
        raise UserError(f"the GGUF file says {value} where a number is needed")
    short = float(f"{value:.7g}")
    try:
        return short if struct.pack("<f", short) == struct.pack("<f", value) else value
    except OverflowError:
        return value


def llama3_scaling(factors: list[float], theta: float) -> dict[str, Any] | None:
    """The `rope_scaling` of type llama3 whose factors these are, None if they change nothing; raises UserError.

    A file has only the factors f_i (`rope_freqs.weight`), by which the frequency with wavelength
    λ_i = 2π·θ^(2i/d) is divided: 1 for short waves, F for long ones, and between them
    1/f = (1 − s)/F + s with s = (L/λ − low)/(high − low). So s is linear in 1/λ, which two of the
    factors fix; of low, high and L one can be chosen, and low is 1 in all models there are.
    """
    greatest = float(f"{max(factors):.5g}")
    if all(abs(factor - 1) < 1e-6 for factor in factors):
        return None
    if theta <= 1:
        raise UserError(f"the GGUF file has RoPE factors for a base of {theta}")
    inverse = [theta ** (-2 * i / (2 * len(factors))) / (2 * math.pi) for i in range(len(factors))]
    between = [
        (x, (1 / factor - 1 / greatest) / (1 - 1 / greatest))
        for x, factor in zip(inverse, factors, strict=True)
        if 1 + 1e-4 < factor < greatest * (1 - 1e-4)
    ]
    candidates = [(4.0, 8192.0)]
    if len(between) > 1 and between[0][0] > between[-1][0]:
        (x, s), (y, t) = between[0], between[-1]
        slope = (s - t) / (x - y)
        at_zero = s - slope * x
        if at_zero < 0 < slope:
            high = 1 - 1 / at_zero
            length = slope * (high - 1)
            candidates += [(float(round(high)), float(round(length))), (high, length)]
    for high, length in candidates:
        made = [_llama3_factor(x, greatest, high, length) for x in inverse]
        if all(abs(ours - theirs) < 1e-4 * theirs for ours, theirs in zip(made, factors, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": greatest,
                "low_freq_factor": 1.0,
                "high_freq_factor": high,
                "original_max_position_embeddings": round(length),
            }
    raise UserError("the GGUF file's RoPE factors (rope_freqs.weight) follow no rule that is known here")


def _llama3_factor(inverse_wavelength: float, factor: float, high: float, length: float) -> float:
    turns = length * inverse_wavelength  # of this frequency in the original context
    if turns > high:
        return 1.0
    if turns < 1 or high == 1:
        return factor
    smooth = (turns - 1) / (high - 1)
    return 1 / ((1 - smooth) / factor + smooth)
