"""`config.json`: the sizes and switches of a decoder, in every spelling that is in use.

transformers 5 moved `rope_theta` and `rope_scaling` into `rope_parameters`, and `torch_dtype`
to `dtype`; vLLM, llama.cpp's converter and transformers 4 read the older keys. Both are read,
both are written. Families spell sizes in their own ways (`n_embd`); keys that only one of them
knows are kept as they were read, and decide its switches (`families.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from bottega.checkpoint.families import FAMILIES, Family
from bottega.checkpoint.layout import PARTS, Place, TensorRow
from bottega.checkpoint.relatives import find_family, text_part
from bottega.checkpoint.rope_config import GLOBAL, LOCAL, is_number, read_rope, rope_problems
from bottega.checkpoint.switches import Switches
from bottega.core.errors import UserError
from bottega.core.model_files import ADAPTER_CONFIG, MAX_JSON_BYTES, parse_json, read_bounded

CONFIG_FILE = "config.json"
ACTIVATIONS = ("silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_bloom", "relu")
FLOAT_DTYPES = ("float32", "bfloat16", "float16", "float64")
REQUIRED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings",
)  # fmt: skip
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
MOST_TENSORS = 1 << 18
_FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias")
_OPTIONAL = ("bos_token_id", "pad_token_id", "rope_scaling", "rope_local_theta")  # None has a meaning there
# Keys of config.json that are not kept: they say how a file was made, or name code to run.
_DROPPED = frozenset(
    {"_name_or_path", "transformers_version", "auto_map", "quantization_config", "torch_dtype", "use_cache"}
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The config of one model. Checked when it is made: an instance is consistent.

    `rope_scaling` is None for plain RoPE, else a mapping with `rope_type` and its parameters
    (without `rope_theta`). `rms_norm_eps` is that of LayerNorm too. `dtype` is that of the stored weights.
    `extra` are the keys of config.json that have no field here; `switches` follow from all of it.
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
    rope_local_theta: float | None = None
    partial_rotary_factor: float = 1.0
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    initializer_range: float = 0.02
    dtype: str = "float32"
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    switches: Switches = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise UserError naming everything that does not fit together."""
        problems = list(_problems(self))
        if problems:
            raise UserError("the model's config is not usable: " + "; ".join(problems))
        object.__setattr__(self, "switches", self.family.switches(self))
        experts = self.switches.experts
        if self.num_hidden_layers * (experts.count if experts else 1) > MOST_TENSORS:
            raise UserError("the model's config is not usable: it has more experts than any model")

    @property
    def family(self) -> Family:
        """The row of `FAMILIES` that this model belongs to."""
        return FAMILIES[self.model_type]

    @property
    def context_length(self) -> int:
        """Tokens that the model is made for: what its positions reach, scaled as `rope_scaling` says."""
        scaling = self.rope_scaling or {}
        kind, factor = scaling.get("rope_type"), scaling.get("factor", 1.0)
        if kind == "dynamic":
            return round(self.max_position_embeddings * max(1.0, factor))
        if kind == "yarn":  # files written for older readers leave max_position_embeddings at its old value
            return max(self.max_position_embeddings, round(scaling["original_max_position_embeddings"] * factor))
        return self.max_position_embeddings

    @classmethod
    def from_data(cls, data: Mapping[str, Any], *, where: str = CONFIG_FILE) -> Self:
        """From the content of a `config.json`; raises UserError that begins with `where`."""
        if not isinstance(data, Mapping):
            raise UserError(f"{where} is not a JSON object")
        data = text_part(data)
        own = frozenset(f.name for f in fields(cls)) - {"extra", "switches"}
        family = find_family(data, own, where)
        try:
            values = _values(cls, family, data)
            absent = [family.keys.get(key, key) for key in REQUIRED if values.get(key) is None]
            if absent:
                raise UserError(f"lacks {', '.join(absent)}", hint="It is not the config of a language model.")
            return cls(**values)
        except UserError as error:
            raise UserError(f"{where}: {error.message}", hint=error.hint) from None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From `folder/config.json`; raises UserError."""
        return cls.from_data(read_json(folder / CONFIG_FILE), where=str(folder / CONFIG_FILE))

    def to_data(self) -> dict[str, Any]:
        """The content of `config.json`, in both spellings, and in the family's own."""
        keys = self.family.keys
        left_out = {"extra", "switches", *self.family.without}
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        eos = list(self.eos_token_id)
        plain["eos_token_id"] = eos if len(eos) > 1 else eos[0] if eos else None
        local = plain.pop("rope_local_theta", None)
        rope = {**(self.rope_scaling or {"rope_type": "default"}), "rope_theta": self.rope_theta}
        if self.family.partial_rotary:
            rope["partial_rotary_factor"] = self.partial_rotary_factor
        else:
            del plain["partial_rotary_factor"]
        if self.switches.positions != "rotary":
            del plain["rope_theta"], plain["rope_scaling"]
        elif self.family.local_rope:
            plain["rope_local_base_freq"] = local
            plain["rope_parameters"] = {GLOBAL: rope, LOCAL: {"rope_type": "default", "rope_theta": local}}
        else:
            plain["rope_parameters"] = rope
        return {
            "architectures": [self.family.architecture],
            **self.extra,
            **{keys.get(name, name): value for name, value in plain.items()},
            "torch_dtype": self.dtype,
            "use_cache": True,
        }

    def sizes(self) -> dict[str, int]:
        """The sizes that `TensorRow.shape` names."""
        query, key_value = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        experts = self.switches.experts
        return {
            "one": 1,
            "vocab": self.vocab_size,
            "hidden": self.hidden_size,
            "intermediate": self.intermediate_size,
            "positions": self.max_position_embeddings,
            "head": self.head_dim,
            "query": query,
            "key_value": key_value,
            "fused_query": query + 2 * key_value,
            "fused_gate": 2 * self.intermediate_size,
            "experts": experts.count if experts else 0,
            "expert_intermediate": experts.intermediate_size if experts else 0,
            "shared_intermediate": experts.shared_intermediate_size if experts else 0,
        }

    def parameter_count(self) -> int:
        """All parameters; tied embeddings count once."""
        return sum(self.parameters_by_part().values())

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of embedding, attention, feed_forward, norms, head (0 if tied)."""
        counts: dict[str, int] = dict.fromkeys(PARTS, 0)
        for row, copies in self._row_counts():
            counts[row.part] += copies * math.prod(self.sizes()[size] for size in row.shape)
        return counts

    def active_parameter_count(self) -> int:
        """Parameters that one token meets: of the experts only the chosen ones."""
        experts = self.switches.experts
        if experts is None:
            return self.parameter_count()
        idle = experts.count - min(experts.per_token, experts.count)
        return self.parameter_count() - sum(
            copies // experts.count * idle * math.prod(self.sizes()[size] for size in row.shape)
            for row, copies in self._row_counts()
            if "{expert}" in row.name
        )

    def kv_cache_bytes(self, tokens: int, batch: int = 1, bytes_per_value: int = 2) -> int:
        """Bytes of the keys and values of `batch` sequences of `tokens` tokens."""
        values = 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim
        return values * tokens * batch * bytes_per_value

    def _row_counts(self) -> Iterator[tuple[TensorRow, int]]:
        """Every row of the layout with the number of tensors it stands for."""
        layers = [self.switches.flags(layer) for layer in range(self.num_hidden_layers)]
        experts = self.switches.experts.count if self.switches.experts else 0
        for row in self.family.rows:
            flags = layers if "{layer}" in row.name else [self.switches.flags()]
            copies = sum(_exists(row, self, each) for each in flags)
            yield row, copies * (experts if "{expert}" in row.name else 1)


def places(config: ModelConfig) -> list[Place]:
    """Every tensor of a checkpoint of `config`, in the order in which the model uses them."""
    sizes, rows = config.sizes(), config.family.rows
    per_layer = [row for row in rows if "{layer}" in row.name]
    border = rows.index(per_layer[0])
    found = [_place(row, config, sizes) for row in rows[:border] if _exists(row, config, config.switches.flags())]
    for layer in range(config.num_hidden_layers):
        flags = config.switches.flags(layer)
        for row in per_layer:
            if _exists(row, config, flags):
                count = sizes["experts"] if "{expert}" in row.name else 1
                found += [_place(row, config, sizes, layer=layer, expert=expert) for expert in range(count)]
    rest = (row for row in rows[border:] if "{layer}" not in row.name)
    return found + [_place(row, config, sizes) for row in rest if _exists(row, config, config.switches.flags())]


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in a checkpoint of `config`, in the order in which the model uses them."""
    return {place.name: place.shape for place in places(config)}


def read_json(path: Path) -> Any:
    """A JSON file of a model folder; raises UserError if it is missing or damaged."""
    if not path.exists():
        hint = "Is it a model folder?"
        if (path.parent / ADAPTER_CONFIG).is_file():
            hint = (
                "It is an adapter: name its base as the model and give this as --adapter, or make one model of both: "
                f"bottega adapter merge {path.parent} --out MODEL"
            )
        raise UserError(f"{path.parent} has no {path.name}", hint=hint)
    return parse_json(read_bounded(path, MAX_JSON_BYTES), path)


def _exists(row: TensorRow, config: ModelConfig, flags: frozenset[str]) -> bool:
    name = row.when.removeprefix("not ")
    holds = not name or name in flags or (name == "tie_word_embeddings" and config.tie_word_embeddings)
    return holds != row.when.startswith("not ")


def _place(row: TensorRow, config: ModelConfig, sizes: dict[str, int], **numbers: int) -> Place:
    holds = row.holds or ((row.name, row.shape[0]),)
    return Place(
        name=row.name.format(**numbers),
        shape=tuple(sizes[size] for size in row.shape),
        part=row.part,
        holds=tuple((name.format(**numbers), sizes[size]) for name, size in holds),
        form=row.form,
        head_dim=config.head_dim,
    )


def _values(cls: type[ModelConfig], family: Family, data: Mapping[str, Any]) -> dict[str, Any]:
    """The dataclass's fields from either spelling. Types are not checked here, except where a step needs them."""
    names = {f.name for f in fields(cls) if f.init and f.name != "extra"}
    own = {name: family.keys.get(name, name) for name in names - set(family.without)}
    given = {name: data[key] for name, key in own.items() if key in data}
    given |= {name: data[name] for name in own if name in data and data.get(own[name]) is None}
    values = {**{name: value for name, value in family.defaults.items() if name in names}, **given}
    values["hidden_act"] = given.get("hidden_act") or family.defaults.get("hidden_act", "silu")
    values.update(read_rope(data, family.defaults, family.keys))
    if family.local_rope and values["rope_local_theta"] is None:
        values["rope_local_theta"] = 10000.0
    if values["partial_rotary_factor"] != 1.0 and not family.partial_rotary:
        raise UserError("partial_rotary_factor other than 1 is not supported")
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = heads
    if values.get("intermediate_size") is None and family.widening and isinstance(hidden, int):
        values["intermediate_size"] = family.widening * hidden
    if values.get("head_dim") is None and hidden is not None and heads is not None:
        values["head_dim"] = _head_dim(hidden, heads)
    _token_values(values, family, given)
    dtype = data.get("dtype") or data.get("torch_dtype") or "float32"
    values["dtype"] = dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype
    spelled = {*own.values(), *names, "rope_parameters", "rope_local_base_freq", "architectures"}
    extra = {key: value for key, value in data.items() if key not in spelled and key not in _DROPPED}
    # null means "the default" for everything but the special tokens.
    return {k: v for k, v in values.items() if v is not None or k in _OPTIONAL or k in REQUIRED} | {"extra": extra}


def _token_values(values: dict[str, Any], family: Family, given: Mapping[str, Any]) -> None:
    """Special tokens in one form. A default that the vocabulary does not have is none."""
    vocab = values.get("vocab_size")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        default = key not in given and key in family.defaults
        if default and _is_int(vocab) and not family.defaults[key] < vocab:
            values[key] = None
    values["eos_token_id"] = _token_ids(values.get("eos_token_id"))
    for key in ("bos_token_id", "pad_token_id"):
        # -1 was an old way to say "none".
        if _is_int(values.get(key)) and values[key] < 0:
            values[key] = None


def _head_dim(hidden: Any, heads: Any) -> int:
    if not (_is_int(hidden) and _is_int(heads) and heads > 0):
        raise UserError(f"hidden_size {hidden!r} and num_attention_heads {heads!r} must be positive whole numbers")
    if hidden % heads:
        raise UserError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    return hidden // heads


def _token_ids(value: Any) -> Any:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
    if config.num_attention_heads % config.num_key_value_heads:
        yield (
            f"num_attention_heads {config.num_attention_heads} is not a multiple of "
            f"num_key_value_heads {config.num_key_value_heads}"
        )
    for key in _FLAGS:
        if not isinstance(getattr(config, key), bool):
            yield f"{key} must be true or false, not {getattr(config, key)!r}"
    if config.hidden_act not in ACTIVATIONS:
        yield f"hidden_act {config.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}"
    if config.dtype not in FLOAT_DTYPES:
        yield f"dtype {config.dtype!r} is not one of {', '.join(FLOAT_DTYPES)}"
    for key in ("rms_norm_eps", "rope_theta", "initializer_range", "partial_rotary_factor"):
        value = getattr(config, key)
        if not is_number(value) or value < 0 or (value == 0 and key in ("rope_theta", "partial_rotary_factor")):
            yield f"{key} must be a positive number, not {value!r}"
    local = config.rope_local_theta
    if local is not None and (not is_number(local) or local <= 0):
        yield f"rope_local_base_freq must be a positive number, not {local!r}"
    yield from _token_problems(config)
    yield from _rotary_problems(config)


def _token_problems(config: ModelConfig) -> Iterator[str]:
    named = [("bos_token_id", config.bos_token_id), ("pad_token_id", config.pad_token_id)]
    named += [("eos_token_id", token) for token in config.eos_token_id]
    for key, token in named:
        if token is not None and (not _is_int(token) or not 0 <= token < config.vocab_size):
            yield f"{key} {token!r} is not a token of the vocabulary of {config.vocab_size}"


def _rotary_problems(config: ModelConfig) -> Iterator[str]:
    """Rotary positions turn pairs of channels."""
    share = config.partial_rotary_factor
    if not is_number(share) or not 0 < share <= 1:
        yield f"partial_rotary_factor must lie above 0 and at most at 1, not {share!r}"
        return
    turned = int(config.head_dim * share)
    if turned % 2 or not turned:
        yield (
            f"head_dim {config.head_dim} is odd; rotary positions turn pairs"
            if share == 1
            else (f"{turned} channels of a head are turned, which are no pairs")
        )
    yield from rope_problems(config.rope_scaling, turned // 2, config.rope_theta)
