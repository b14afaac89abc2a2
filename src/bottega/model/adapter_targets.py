"""Which modules an adapter changes, by the names of the family's own checkpoints. Imports no torch.

An adapter's file names modules as PEFT does on transformers' model of the family: GPT-2 has one `c_attn` for query,
key and value, Phi-3 a `gate_up_proj`. Such a module is changed as a whole: its parts share A, and each has its rows
of B. What is decided here is decided from a model's config alone, so that a plan can say what will be trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bottega.checkpoint.config import ModelConfig, places
from bottega.checkpoint.layout import Place
from bottega.core.errors import UserError, did_you_mean
from bottega.model.adapter_config import AdapterSettings

ALL_LINEAR = "all-linear"
Number = TypeVar("Number", int, float)
_PLAIN_NAME = re.compile(r"[\w.-]+")
# Routers choose; a change of low rank to so few outputs is a change of full rank.
_ROUTERS = (".gate.weight", ".shared_expert_gate.weight")


@dataclass(frozen=True)
class Target:
    """A matrix that gets a change of low rank. `name` is its module's; `place` says which decoder modules are in it."""

    name: str
    place: Place
    rank: int
    alpha: float
    scale: float

    @property
    def outputs(self) -> int:
        """Rows of the matrix as a linear layer has it."""
        return self.place.shape[1] if self.place.form == "transposed" else self.place.shape[0]

    @property
    def inputs(self) -> int:
        """Columns of it."""
        return self.place.shape[0] if self.place.form == "transposed" else self.place.shape[1]

    @property
    def is_embedding(self) -> bool:
        """Whether it is the token embedding, (vocabulary, hidden)."""
        return self.place.part == "embedding"


@dataclass(frozen=True)
class Whole:
    """A module that is trained as a whole: its own name, and the places of its tensors."""

    name: str
    places: tuple[Place, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The decoder's modules in it."""
        return tuple(dict.fromkeys(module_of(held) for place in self.places for held, _ in place.holds))


def module_of(tensor: str) -> str:
    """`model.norm.weight` → `model.norm`."""
    return tensor.rpartition(".")[0]


def low_rank_targets(config: ModelConfig, settings: AdapterSettings) -> list[Target]:
    """The matrices that get a change of low rank, in the model's order; raises UserError naming what does not exist."""
    candidates = [place for place in places(config) if len(place.shape) == 2 and place.name.endswith(".weight")]
    _require_known(config, settings, candidates)
    chosen = [place for place in candidates if _is_chosen(place, config, settings)]
    if not chosen:
        raise UserError(
            f"target_modules {_shown(settings.target_modules)} names no module of a {config.model_type} model",
            hint=f"It has {', '.join(_short_names(candidates))}.",
        )
    return [_target(place, settings) for place in chosen]


def saved_modules(config: ModelConfig, settings: AdapterSettings) -> list[Whole]:
    """The modules that `modules_to_save` names; embedding and head together where they are one. Raises UserError."""
    by_module: dict[str, list[Place]] = {}
    for place in places(config):
        by_module.setdefault(module_of(place.name), []).append(place)
    found: dict[str, Whole] = {}
    family = config.family
    for given in settings.modules_to_save:
        wanted = _own_module(config, given)
        names = [name for name in by_module if _ends_with(name, wanted)]
        if config.tie_word_embeddings and _ends_with(module_of(family.head), wanted):
            names.append(module_of(family.embedding))  # one matrix under two names
        if not names:
            known = sorted({name.rpartition(".")[2] for name in by_module})
            raise UserError(
                f"modules_to_save: a {config.model_type} model has no {given!r}",
                hint=did_you_mean(wanted, known) or f"It has {', '.join(known)}.",
            )
        found |= {name: Whole(name, tuple(by_module[name])) for name in names}
    return list(found.values())


def row_modules(config: ModelConfig) -> list[str]:
    """Tensor names of the matrices that have a row for each token: the embedding, and a head of its own."""
    family = config.family
    return [family.embedding] if config.tie_word_embeddings else [family.embedding, family.head]


def token_ids(config: ModelConfig, settings: AdapterSettings, added: Sequence[int] = ()) -> tuple[int, ...]:
    """The tokens whose rows are trained; `added` are those that "auto" stands for. Raises UserError."""
    ids = tuple(sorted(set(added if settings.new_tokens == "auto" else settings.new_tokens)))
    if ids and ids[-1] >= config.vocab_size:
        raise UserError(
            f"new_tokens: {ids[-1]} is no row of an embedding of {config.vocab_size}",
            hint="`bottega tokenizer extend` gives a model the rows of new tokens.",
        )
    clash = [whole.name for whole in saved_modules(config, settings) if f"{whole.name}.weight" in row_modules(config)]
    if ids and clash:
        raise UserError(f"{clash[0]} is trained whole (modules_to_save): its rows are not trained on their own besides")
    return ids


def trainable_parameters(config: ModelConfig, settings: AdapterSettings, added: Sequence[int] = ()) -> int:
    """How many numbers will be trained."""
    targets = low_rank_targets(config, settings)
    count = sum(target.rank * (target.inputs + target.outputs) for target in targets)
    if settings.use_dora:
        count += sum(target.outputs for target in targets if not target.is_embedding)
    rows = len(token_ids(config, settings, added)) * config.hidden_size * len(row_modules(config))
    whole = sum(math.prod(place.shape) for each in saved_modules(config, settings) for place in each.places)
    return count + rows + whole


def short_targets(config: ModelConfig, names: Iterable[str], layers: Sequence[int]) -> list[str]:
    """`target_modules` as a file says it: last names where they mean exactly these modules, else their whole paths."""
    wanted = set(names)
    last = {name.rpartition(".")[2] for name in wanted}
    modules = {module_of(place.name) for place in places(config) if len(place.shape) == 2}
    meant = {name for name in modules if name.rpartition(".")[2] in last and _in_layers(name, layers)}
    return sorted(last if meant == wanted else wanted)


def _is_chosen(place: Place, config: ModelConfig, settings: AdapterSettings) -> bool:
    name, wanted = module_of(place.name), settings.target_modules
    if not _in_layers(name, settings.layers_to_transform) or any(_ends_with(name, n) for n in settings.exclude_modules):
        return False
    if wanted in (ALL_LINEAR, (ALL_LINEAR,)):
        inside = place.part in ("attention", "feed_forward") and "experts." not in name
        return inside and not place.holds[0][0].endswith(_ROUTERS)
    if isinstance(wanted, str) and not _PLAIN_NAME.fullmatch(wanted):
        return re.fullmatch(wanted, name) is not None
    names = (wanted,) if isinstance(wanted, str) else wanted
    return any(_ends_with(name, _own_module(config, each)) for each in names)


def _require_known(config: ModelConfig, settings: AdapterSettings, candidates: Sequence[Place]) -> None:
    """Raise UserError for a name of `target_modules` that no module has, or that a tied model has no matrix for."""
    wanted = settings.target_modules
    given = wanted if isinstance(wanted, tuple) else (wanted,) if _PLAIN_NAME.fullmatch(wanted) else ()
    names = [_own_module(config, name) for name in given]
    modules = [module_of(place.name) for place in candidates]
    if config.tie_word_embeddings:
        family = config.family
        both = [module_of(family.embedding), module_of(family.head)]
        if clash := [name for name in names if any(_ends_with(module, name) for module in both)]:
            raise UserError(
                f"{clash[0]} is embedding and output layer in one, which a change of low rank would tear apart",
                hint="Train rows of it (new_tokens), or all of it (modules_to_save).",
            )
    for name in names:
        if name != ALL_LINEAR and not any(_ends_with(module, name) for module in modules):
            problem = f"target_modules: a {config.model_type} model has no {name!r}"
            raise UserError(problem, hint=_hint(name, candidates))


def _hint(name: str, candidates: Sequence[Place]) -> str:
    """Where a part of a fused matrix is, or what there is."""
    for place in candidates:
        if any(_ends_with(module_of(held), name) for held, _ in place.holds):
            return f"It is held in {module_of(place.name).rpartition('.')[2]}, which is changed as a whole."
    return did_you_mean(name, _short_names(candidates)) or f"It has {', '.join(_short_names(candidates))}."


def _target(place: Place, settings: AdapterSettings) -> Target:
    name = module_of(place.name)
    rank = _of_pattern(settings.rank_pattern, name, settings.r)
    alpha = _of_pattern(settings.alpha_pattern, name, settings.lora_alpha)
    return Target(name, place, rank, alpha, alpha / (math.sqrt(rank) if settings.use_rslora else rank))


def _of_pattern(patterns: Mapping[str, Number], name: str, default: Number) -> Number:
    """The first pattern that is the module's path (^ before it) or the end of it, as a reader takes it."""
    for pattern, value in patterns.items():
        text = pattern.removeprefix("^")
        if name == text or (_ends_with(name, text) and not pattern.startswith("^")):
            return value
    return default


def _own_module(config: ModelConfig, name: str) -> str:
    """The family's own name of what every family may call embed_tokens and lm_head."""
    family = config.family
    return {"embed_tokens": module_of(family.embedding), "lm_head": module_of(family.head)}.get(name, name)


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _in_layers(name: str, layers: Sequence[int]) -> bool:
    found = re.search(r"\.(\d+)\.", name)
    return not layers or (found is not None and int(found[1]) in layers)


def _short_names(candidates: Sequence[Place]) -> list[str]:
    return sorted({module_of(place.name).rpartition(".")[2] for place in candidates})


def _shown(names: str | tuple[str, ...]) -> str:
    return repr(names) if isinstance(names, str) else ", ".join(names)

