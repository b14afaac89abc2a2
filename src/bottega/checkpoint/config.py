"""`config.json`: the sizes and switches of a decoder, in both spellings that are in use.

transformers 5 moved `rope_theta` and `rope_scaling` into `rope_parameters`, and `torch_dtype`
to `dtype`; vLLM, llama.cpp's converter and transformers 4 read the older keys. Both are read,
both are written.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from bottega.checkpoint.names import FAMILIES, PARTS, Family, TensorRow
from bottega.core.errors import UserError, did_you_mean

CONFIG_FILE = "config.json"
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")
FLOAT_DTYPES = ("float32", "bfloat16", "float16", "float64")
# rope_type → the keys it cannot do without. The formulas are the model's.
ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# Larger than any model there is: such a number is a mistake or an attack.
LIMITS = {
    "vocab_size": 1 << 22,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 19,
    "num_hidden_layers": 1 << 11,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 12,
    "max_position_embeddings": 1 << 30,
}
_SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The config of one model. Checked when it is made: an instance is consistent.

    `rope_scaling` is None for plain RoPE, else a mapping with `rope_type` and its parameters
    (without `rope_theta`). `dtype` is that of the stored weights.
    """

    model_type: str = "llama"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    initializer_range: float = 0.02
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Raise UserError naming everything that does not fit together."""
        problems = list(_problems(self))
        if problems:
            raise UserError("the model's config is not usable: " + "; ".join(problems))

    @property
    def family(self) -> Family:
        """The row of `FAMILIES` that this model belongs to."""
        return FAMILIES[self.model_type]

    @classmethod
    def from_data(cls, data: Mapping[str, Any], *, where: str = CONFIG_FILE) -> Self:
        """From the content of a `config.json`; raises UserError that begins with `where`."""
        if not isinstance(data, Mapping):
            raise UserError(f"{where} is not a JSON object")
        family = _family(data, where)
        absent = [key for key in REQUIRED if data.get(key) is None]
        if absent:
            raise UserError(f"{where} lacks {', '.join(absent)}", hint="It is not the config of a language model.")
        if data.get("quantization_config"):
            method = _method(data["quantization_config"])
            raise UserError(
                f"{where}: the weights are quantised ({method}), which is not supported",
                hint="Use the model it was made from.",
            )
        try:
            return cls(**_values(cls, family, data))
        except UserError as error:
            raise UserError(f"{where}: {error.message}", hint=error.hint) from None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From `folder/config.json`; raises UserError."""
        return cls.from_data(read_json(folder / CONFIG_FILE), where=str(folder / CONFIG_FILE))

    def to_data(self) -> dict[str, Any]:
        """The content of `config.json`, in both spellings."""
        data = asdict(self)
        eos = list(self.eos_token_id)
        rope = self.rope_scaling or {"rope_type": "default"}
        return {
            "architectures": [self.family.architecture],
            **data,
            "eos_token_id": eos if len(eos) > 1 else eos[0] if eos else None,
            "rope_parameters": {**rope, "rope_theta": self.rope_theta},
            "torch_dtype": self.dtype,
            "attention_dropout": 0.0,
            "use_cache": True,
        }

    def sizes(self) -> dict[str, int]:
        """The sizes that `TensorRow.shape` names."""
        return {
            "vocab": self.vocab_size,
            "hidden": self.hidden_size,
            "intermediate": self.intermediate_size,
            "query": self.num_attention_heads * self.head_dim,
            "key_value": self.num_key_value_heads * self.head_dim,
        }

    def parameter_count(self) -> int:
        """All parameters; tied embeddings count once."""
        return sum(self.parameters_by_part().values())

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of embedding, attention, feed_forward, norms, head (0 if tied)."""
        counts: dict[str, int] = dict.fromkeys(PARTS, 0)
        sizes = self.sizes()
        for row in _present(self):
            copies = self.num_hidden_layers if "{layer}" in row.name else 1
            counts[row.part] += copies * math.prod(sizes[size] for size in row.shape)
        return counts

    def kv_cache_bytes(self, tokens: int, batch: int = 1, bytes_per_value: int = 2) -> int:
        """Bytes of the keys and values of `batch` sequences of `tokens` tokens."""
        values = 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim
        return values * tokens * batch * bytes_per_value


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in a checkpoint of `config`, in the order in which the model uses them."""
    sizes = config.sizes()
    rows = list(_present(config))
    first, per_layer, last = [], [], []
    for row in rows:
        shape = tuple(sizes[size] for size in row.shape)
        group = per_layer if "{layer}" in row.name else last if per_layer else first
        group.append((row.name, shape))
    layers = [
        (name.format(layer=layer), shape) for layer in range(config.num_hidden_layers) for name, shape in per_layer
    ]
    return dict([*first, *layers, *last])


def read_json(path: Path) -> Any:
    """A JSON file of a model folder; raises UserError if it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no {path.name}", hint="Is it a model folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def _present(config: ModelConfig) -> Iterator[TensorRow]:
    for row in config.family.rows:
        switch = row.when.removeprefix("not ")
        if not switch or bool(getattr(config, switch)) != row.when.startswith("not "):
            yield row


def _family(data: Mapping[str, Any], where: str) -> Family:
    model_type = data.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f"{where} lacks model_type", hint="It is not the config of a language model.")
    if model_type not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise UserError(
            f"{where}: models of type {model_type!r} are not supported; supported: {supported}",
            hint=did_you_mean(model_type, FAMILIES) if len(FAMILIES) > 1 else "",
        )
    return FAMILIES[model_type]


def _method(quantization: Any) -> str:
    return str(quantization.get("quant_method", "unknown")) if isinstance(quantization, Mapping) else "unknown"


def _values(cls: type[ModelConfig], family: Family, data: Mapping[str, Any]) -> dict[str, Any]:
    """The dataclass's fields from either spelling. Types are not checked here, except where a step needs them."""
    values = {**family.defaults, **{key: data[key] for key in data if key in {f.name for f in fields(cls)}}}
    heads = values["num_attention_heads"]
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = heads
    if values.get("head_dim") is None:
        hidden = values["hidden_size"]
        if not (_is_int(hidden) and _is_int(heads) and heads > 0):
            raise UserError(f"hidden_size {hidden!r} and num_attention_heads {heads!r} must be positive whole numbers")
        if hidden % heads:
            raise UserError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
        values["head_dim"] = hidden // heads
    values["rope_theta"], values["rope_scaling"] = _rope(data)
    values["eos_token_id"] = _token_ids(values.get("eos_token_id"))
    for key in ("bos_token_id", "pad_token_id"):
        # -1 was an old way to say "none".
        if _is_int(values.get(key)) and values[key] < 0:
            values[key] = None
    dtype = data.get("dtype") or data.get("torch_dtype") or "float32"
    values["dtype"] = dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype
    # null means "the default" for everything but the special tokens.
    return {k: v for k, v in values.items() if v is not None or k in ("bos_token_id", "pad_token_id")}


def _rope(data: Mapping[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    # As transformers 5 does: a rope_scaling that says something wins over rope_parameters.
    rope = data.get("rope_scaling") or data.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"rope_scaling must be an object, not {rope!r}")
    rope = dict(rope)
    others = data.get("rope_parameters")
    places = (rope, data, others if isinstance(others, Mapping) else {})
    theta = next((place["rope_theta"] for place in places if place.get("rope_theta") is not None), 10000.0)
    rope.pop("rope_theta", None)
    old_type = rope.pop("type", None)
    rope["rope_type"] = rope.get("rope_type") or old_type or "default"
    for place in (rope, data):
        if place.get("partial_rotary_factor", 1.0) not in (1.0, None):
            raise UserError("partial_rotary_factor other than 1 is not supported")
    rope.pop("partial_rotary_factor", None)
    if rope["rope_type"] == "default":
        return theta, None
    if rope["rope_type"] == "yarn":
        rope.setdefault("original_max_position_embeddings", data.get("max_position_embeddings"))
    return theta, {"rope_type": rope.pop("rope_type"), **rope}


def _token_ids(value: Any) -> Any:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # A comparison, for JSON can write whole numbers that no float holds.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _problems(config: ModelConfig) -> Iterator[str]:
    if config.model_type not in FAMILIES:
        yield f"models of type {config.model_type!r} are not supported; supported: {', '.join(FAMILIES)}"
        return
    wrong_sizes = [
        f"{key} must be a whole number from 1 to {limit}, not {getattr(config, key)!r}"
        for key, limit in LIMITS.items()
        if not _is_int(getattr(config, key)) or not 1 <= getattr(config, key) <= limit
    ]
    if wrong_sizes:
        yield from wrong_sizes
        return
    if config.hidden_size % config.num_attention_heads:
        yield f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {config.num_attention_heads}"
    if config.num_attention_heads % config.num_key_value_heads:
        yield (
            f"num_attention_heads {config.num_attention_heads} is not a multiple of "
            f"num_key_value_heads {config.num_key_value_heads}"
        )
    if config.head_dim % 2:
        yield f"head_dim {config.head_dim} is odd; rotary positions turn pairs"
    for key in _SWITCHES:
        if not isinstance(getattr(config, key), bool):
            yield f"{key} must be true or false, not {getattr(config, key)!r}"
    if config.hidden_act not in ACTIVATIONS:
        yield f"hidden_act {config.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}"
    if config.dtype not in FLOAT_DTYPES:
        yield f"dtype {config.dtype!r} is not one of {', '.join(FLOAT_DTYPES)}"
    for key in ("rms_norm_eps", "rope_theta", "initializer_range"):
        value = getattr(config, key)
        if not _is_number(value) or value < 0 or (value == 0 and key == "rope_theta"):
            yield f"{key} must be a positive number, not {value!r}"
    yield from _token_problems(config)
    yield from _rope_problems(config.rope_scaling)


def _token_problems(config: ModelConfig) -> Iterator[str]:
    named = [("bos_token_id", config.bos_token_id), ("pad_token_id", config.pad_token_id)]
    named += [("eos_token_id", token) for token in config.eos_token_id]
    for key, token in named:
        if token is not None and (not _is_int(token) or not 0 <= token < config.vocab_size):
            yield f"{key} {token!r} is not a token of the vocabulary of {config.vocab_size}"


def _rope_problems(rope: Any) -> Iterator[str]:
    if rope is None:
        return
    if not isinstance(rope, dict) or rope.get("rope_type") not in tuple(ROPE_TYPES):
        yield f"rope_scaling {rope!r} is not supported; rope_type is one of {', '.join(ROPE_TYPES)}"
        return
    for key in ROPE_TYPES[rope["rope_type"]]:
        if not _is_number(rope.get(key)) or rope[key] <= 0:
            yield f"rope_scaling of type {rope['rope_type']} needs a positive number {key}, not {rope.get(key)!r}"
