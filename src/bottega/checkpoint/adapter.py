"""PEFT adapters: low-rank changes to a model's matrices, in a folder of their own, put on the base as it is read.

Format (huggingface/peft): `adapter_config.json` and `adapter_model.safetensors` with tensors
`base_model.model.PATH.lora_A.weight` (r, in) and `….lora_B.weight` (out, r), where PATH.weight is a tensor of the
base. The changed matrix, with s = alpha / r (rsLoRA: alpha / √r, Kalajdzievski 2023, arXiv:2312.03732):

    LoRA   W + s · B A                                    (Hu et al. 2021, arXiv:2106.09685)
    DoRA   m · (W + s · B A) / ‖W + s · B A‖, row by row  (Liu et al. 2024, arXiv:2402.09353)

Embeddings have lora_embedding_A (r, vocab) and _B (hidden, r); `modules_to_save` are whole tensors. Rows of new
tokens are in `….token_adapter.trainable_tokens_delta` (they are the rows themselves, whatever the name says), their
ids in `trainable_token_indices`. What is changed is computed, and kept, in float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.config import ModelConfig, places, read_json
from bottega.checkpoint.header import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LEGACY_ADAPTER_WEIGHTS, TensorInfo, read_header
from bottega.checkpoint.hub import locate
from bottega.checkpoint.hub_repository import parse_name
from bottega.checkpoint.layout import HEAD
from bottega.checkpoint.rope_config import is_number
from bottega.checkpoint.tensors import LazyTensor, load_legacy, map_tensors
from bottega.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch

MAX_RANK = 1 << 17
MAX_TOKENS = 1 << 20
_PREFIX = "base_model.model."
_ROWS = ".token_adapter.trainable_tokens_delta"
_KINDS = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
# What changes the computation in ways that are not read here.
_UNSUPPORTED = ("layer_replication", "target_parameters", "alora_invocation_tokens")
# Ways to begin that take a part of the base's own weights away: such an adapter fits what was left, not the base.
_TAKES_FROM_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass
class _Change:
    """The parts of one tensor's change by kind, its rank, and its factor s."""

    rank: int
    scale: float
    parts: dict[str, LazyTensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenRows:
    """Rows of an embedding or a head, (n, hidden), that stand in the place of the base's at `ids`."""

    ids: tuple[int, ...]
    rows: LazyTensor


def base_of_adapter(config: Mapping[str, Any]) -> str:
    """The base that an adapter_config.json names, as `locate` takes it; empty if it names none."""
    base, revision = str(config.get("base_model_name_or_path") or ""), config.get("revision")
    parsed = None if Path(base).exists() else parse_name(base)
    has_own = parsed is None or parsed[1] is not None
    return base if has_own or not isinstance(revision, str) or not revision else f"{base}@{revision}"


@dataclass(frozen=True)
class Adapter:
    """An opened adapter: changes, rows and whole tensors by the base's tensor names, and its config as it is.

    `saved` are those of `replaced` that were trained: beside a changed embedding PEFT stores the base's own.
    """

    path: Path
    base_model: str
    changes: Mapping[str, _Change]
    replaced: Mapping[str, LazyTensor]
    rows: Mapping[str, TokenRows] = field(default_factory=dict)
    saved: frozenset[str] = frozenset()
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, adapter: Path | str) -> Adapter:
        """Read a folder, or `org/name` of the hub; headers only. Raises UserError."""
        path = locate(adapter)
        if not (path / ADAPTER_CONFIG).exists():
            raise UserError(f"{path} has no {ADAPTER_CONFIG}", hint="Name the folder of a PEFT adapter.")
        config = read_json(path / ADAPTER_CONFIG)
        if not isinstance(config, dict):
            raise UserError(f"{path / ADAPTER_CONFIG} is not a JSON object")
        _check_kind(config, path)
        changes: dict[str, _Change] = {}
        replaced: dict[str, LazyTensor] = {}
        rows: dict[str, TokenRows] = {}
        saved: set[str] = set()
        for name, tensor in _tensors(path).items():
            module, kind = _split(name, path)
            if kind == _ROWS:
                rows[f"{module}.weight"] = _token_rows(config, module, tensor, path)
            elif kind:
                change = changes.setdefault(f"{module}.weight", _Change(*_rank_and_scale(config, module, path)))
                change.parts[kind] = tensor
            else:
                replaced[module] = tensor
                saved |= set() if ".base_layer." in name else {module}
        if config.get("use_dora"):
            bare = [name for name, change in changes.items() if "lora_magnitude_vector" not in change.parts]
            if bare:
                raise UserError(f"{path}: use_dora is set, and {bare[0]} has no lora_magnitude_vector")
        return cls(path, base_of_adapter(config), changes, replaced, rows, frozenset(saved), config)

    def applied(self, tensors: Mapping[str, LazyTensor], config: ModelConfig) -> dict[str, LazyTensor]:
        """The base's tensors with the adapter on them, still lazy; raises UserError if it does not fit the base."""
        found = dict(tensors)

        def proper(name: str) -> str:
            return own_name(config, name)

        replaced = self._without_tied_head({proper(name): tensor for name, tensor in self.replaced.items()}, config)
        transposed = {place.name for place in places(config) if place.form == "transposed"}
        for name, tensor in replaced.items():
            base = self._base(found, name)
            if tensor.shape != base.shape:
                self._refuse(name, f"has the shape {list(tensor.shape)}, the base's {list(base.shape)}")
            found[name] = tensor
        for name, rows in self.rows.items():
            base = self._base(found, proper(name))
            self._check_rows(name, rows, base.shape)
            found[proper(name)] = LazyTensor(base.info, _rows_loader(rows, base))
        for name, change in self.changes.items():
            base = self._base(found, proper(name))
            turn = proper(name) in transposed
            self._check(name, change, base.shape[::-1] if turn else base.shape)
            info = TensorInfo(base.shape, "float32")
            found[proper(name)] = LazyTensor(info, _loader(change, base, transposed=turn))
        return found

    def _without_tied_head(self, replaced: dict[str, LazyTensor], config: ModelConfig) -> dict[str, LazyTensor]:
        """What is replaced, by the base's names; where the head is the embedding, both must have become the same."""
        family = config.family
        if not config.tie_word_embeddings:
            return replaced
        one, other = replaced.get(family.embedding), replaced.pop(family.head, None)
        if other is not None and one is None:
            self._refuse(family.head, "is the embedding too, which the adapter was trained to leave alone")
        changed = any(own_name(config, name) == family.embedding for name in self.changes)
        if changed or (one is not None and (other is None or not _equal(one, other))):
            self._refuse(family.embedding, "is the output layer too, which the adapter was trained to leave alone")
        return replaced

    def _check_rows(self, name: str, rows: TokenRows, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or rows.rows.shape != (len(rows.ids), shape[1]):
            self._refuse(name, f"has rows of the shape {list(rows.rows.shape)}, which do not fit {list(shape)}")
        if max(rows.ids) >= shape[0]:
            self._refuse(name, f"has a row for token {max(rows.ids)}, the base only {shape[0]}")

    def _base(self, tensors: Mapping[str, LazyTensor], name: str) -> LazyTensor:
        if name not in tensors:
            self._refuse(name, "is no tensor of the base", did_you_mean(name, tensors))
        return tensors[name]

    def _check(self, name: str, change: _Change, shape: tuple[int, ...]) -> None:
        """Raise UserError unless the parts fit a matrix of `shape`, (out, in) or (vocab, hidden)."""
        parts = {kind: tensor.shape for kind, tensor in change.parts.items()}
        if len(shape) != 2:
            self._refuse(name, "is no matrix")
        if "lora_embedding_A" in parts:
            wanted = {"lora_embedding_A": (None, shape[0]), "lora_embedding_B": (shape[-1], None)}
        else:
            wanted = {"lora_A.weight": (None, shape[-1]), "lora_B.weight": (shape[0], None)}
            if "lora_magnitude_vector" in parts:
                wanted["lora_magnitude_vector"] = (shape[0],)
        missing, extra = [kind for kind in wanted if kind not in parts], [kind for kind in parts if kind not in wanted]
        if missing or extra:
            self._refuse(
                name, f"lacks {', '.join(missing)}" if missing else f"has {', '.join(extra)} beside the others"
            )
        for kind, sizes in wanted.items():
            found = parts[kind]
            if len(sizes) != len(found) or any(b not in (None, a) for a, b in zip(found, sizes, strict=True)):
                self._refuse(name, f"has {kind} of shape {list(found)}, which does not fit the base's {list(shape)}")
        first, second = list(wanted)[:2]
        ranks = parts[first][0], parts[second][1]
        if ranks != (change.rank, change.rank):
            self._refuse(name, f"has the ranks {ranks[0]} and {ranks[1]}, its config says {change.rank}")

    def _refuse(self, name: str, problem: str, hint: str = "") -> None:
        made = f" It was made for {self.base_model}." if self.base_model else ""
        raise UserError(f"the adapter {self.path} does not fit: {name} {problem}", hint=(hint + made).strip())


def own_name(config: ModelConfig, name: str) -> str:
    """The family's own name of a tensor that an adapter's file names, as transformers calls its module.

    (A checkpoint of GPT-NeoX has `embed_out`, transformers' model of it since version 5 `lm_head`.)
    """
    return config.family.head if name == HEAD else config.family.proper_name(name)


def module_in_files(config: ModelConfig, module: str) -> str:
    """The name that an adapter's file has for the family's own `module`: the inverse of `own_name`."""
    return HEAD.removesuffix(".weight") if f"{module}.weight" == config.family.head else module


def open_adapters(adapters: Sequence[Path | str]) -> list[Adapter]:
    """`Adapter.open` of each, in the order in which they are put on."""
    return [Adapter.open(adapter) for adapter in adapters]


def _check_kind(config: dict[str, Any], path: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{path}: adapters of type {kind!r} are not supported", hint="Supported: LORA (rsLoRA, DoRA).")
    unsupported = [key for key in _UNSUPPORTED if config.get(key)]
    if config.get("bias") not in (None, "none"):
        unsupported.append(f"bias {config['bias']!r}")
    if config.get("lora_bias"):
        unsupported.append("lora_bias")
    if unsupported:
        raise UserError(f"{path}: {', '.join(unsupported)} of an adapter is not supported")
    if str(config.get("init_lora_weights")).startswith(_TAKES_FROM_BASE):
        raise UserError(
            f"{path} began with {config['init_lora_weights']}, which changed its base: it does not fit the original",
            hint="Save it as PEFT converts it: save_pretrained(…, path_initial_model_for_weight_conversion=…).",
        )


def _token_rows(config: dict[str, Any], module: str, tensor: LazyTensor, path: Path) -> TokenRows:
    """The rows of one module with their ids, from `trainable_token_indices`: a list, or lists by module."""
    given = config.get("trainable_token_indices")
    if isinstance(given, dict):
        given = next((ids for name, ids in given.items() if module == name or module.endswith(f".{name}")), None)
    ids = given if isinstance(given, list) else []
    if not ids or len(ids) > MAX_TOKENS or any(type(id_) is not int or id_ < 0 for id_ in ids):
        raise UserError(f"{path / ADAPTER_CONFIG}: trainable_token_indices has no usable ids for {module}")
    if len(set(ids)) < len(ids):
        raise UserError(f"{path / ADAPTER_CONFIG}: trainable_token_indices names a token of {module} twice")
    return TokenRows(tuple(ids), tensor)


def _rank_and_scale(config: dict[str, Any], module: str, path: Path) -> tuple[int, float]:
    """r, and alpha / r or alpha / √r; the module's own where the patterns name it."""
    rank = _for_module(config.get("rank_pattern"), module, config.get("r", 8), path)
    alpha = _for_module(config.get("alpha_pattern"), module, config.get("lora_alpha", 8), path)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK or not is_number(alpha):
        raise UserError(
            f"{path / ADAPTER_CONFIG}: r must be a whole number from 1 to {MAX_RANK}, and lora_alpha a number"
        )
    return rank, float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _for_module(patterns: Any, module: str, default: Any, path: Path) -> Any:
    """The value of the pattern that is the module's path (^ before it) or the end of it."""
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        text = str(pattern).removeprefix("^").replace("\\.", ".")
        if not re.fullmatch(r"[\w.-]+", text):
            # PEFT takes it for a regular expression; one from a file can take for ever.
            raise UserError(
                f"{path / ADAPTER_CONFIG}: the pattern {pattern!r} is no module's name, which is not supported"
            )
        if module == text or (module.endswith(f".{text}") and not str(pattern).startswith("^")):
            return value
    return default


def _tensors(path: Path) -> dict[str, LazyTensor]:
    if (path / ADAPTER_WEIGHTS).exists():
        return map_tensors(read_header(path / ADAPTER_WEIGHTS))
    if (path / LEGACY_ADAPTER_WEIGHTS).exists():
        return load_legacy([path / LEGACY_ADAPTER_WEIGHTS])
    raise UserError(
        f"{path} has no {ADAPTER_WEIGHTS}", hint="An adapter is a folder with adapter_config.json and its weights."
    )


def _split(name: str, path: Path) -> tuple[str, str]:
    """`base_model.model.PATH.lora_A.weight` → PATH, "lora_A.weight"; a replaced tensor → its name, ""."""
    if not name.startswith(_PREFIX):
        raise UserError(f"{path}: {name!r} is no tensor of an adapter; their names begin with {_PREFIX}")
    rest = name.removeprefix(_PREFIX)
    if rest.endswith(_ROWS):
        return rest.removesuffix(_ROWS), _ROWS
    for kind in _KINDS:
        found = re.fullmatch(rf"(.+)\.{re.escape(kind)}(\.weight)?", rest)
        if found:
            return found[1], kind
    if "lora_" in rest:
        raise UserError(f"{path}: {name!r} is of an unknown kind", hint=f"Known: {', '.join(_KINDS)}.")
    return rest.replace(".modules_to_save", "").replace(".base_layer", ""), ""


def _loader(change: _Change, base: LazyTensor, *, transposed: bool) -> Callable[[], torch.Tensor]:
    def load() -> torch.Tensor:
        weight = base.load().float()
        weight = weight.t() if transposed else weight
        parts = {kind: tensor.load().float() for kind, tensor in change.parts.items()}
        changed = _changed(weight, parts, change.scale)
        return (changed.t() if transposed else changed).contiguous()

    return load


def _rows_loader(rows: TokenRows, base: LazyTensor) -> Callable[[], torch.Tensor]:
    def load() -> torch.Tensor:
        import torch

        weight = base.load()
        return weight.index_copy(0, torch.tensor(rows.ids), rows.rows.load().to(weight.dtype))

    return load


def _equal(one: LazyTensor, other: LazyTensor) -> bool:
    import torch

    return one.info == other.info and torch.equal(one.load(), other.load())


def _changed(weight: torch.Tensor, parts: dict[str, torch.Tensor], scale: float) -> torch.Tensor:
    """The formulas above. weight (out, in) float32, or an embedding (vocab, hidden)."""
    if "lora_embedding_A" in parts:
        return weight + scale * (parts["lora_embedding_B"] @ parts["lora_embedding_A"]).t()
    summed = weight + scale * (parts["lora_B.weight"] @ parts["lora_A.weight"])
    if "lora_magnitude_vector" not in parts:
        return summed
    lengths = summed.norm(dim=1, keepdim=True).clamp_min(1e-38)  # a row of zeros stays one
    return parts["lora_magnitude_vector"].unsqueeze(1) * summed / lengths
