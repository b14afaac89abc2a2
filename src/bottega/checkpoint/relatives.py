"""Which family a `config.json` belongs to, and for one that is unknown, the nearest and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bottega.checkpoint.families import FAMILIES, Family
from bottega.core.errors import UserError, did_you_mean


def text_part(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a model that reads images too, the config of its language model."""
    text = data.get("text_config")
    if not isinstance(text, Mapping) or text.get("model_type") not in tuple(FAMILIES):
        return data
    shared = {key: data[key] for key in ("eos_token_id", "bos_token_id", "dtype", "torch_dtype") if key in data}
    return {**shared, **text}


def find_family(data: Mapping[str, Any], fields: frozenset[str], where: str) -> Family:
    """The family of a config; raises UserError that names the nearest one if it is unknown.

    `fields` are those of `ModelConfig`, which every family spells.
    """
    model_type = data.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f"{where} lacks model_type", hint="It is not the config of a language model.")
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    nearest = max(FAMILIES.values(), key=lambda family: _likeness(family, model_type, data, fields))
    unknown = sorted(set(data) - _known_keys(nearest, fields) - _UNIMPORTANT)
    differs = f"its config has {', '.join(unknown[:8])}, which {nearest.model_type}'s has not" if unknown else (
        f"its config has the keys of {nearest.model_type}'s; what it computes may differ all the same"
    )  # fmt: skip
    raise UserError(
        f"{where}: models of type {model_type!r} are not supported; supported: {', '.join(FAMILIES)}",
        hint=f"The nearest is {nearest.model_type!r}: {differs}.",
    )


_COMMON = frozenset(
    {"model_type", "architectures", "torch_dtype", "dtype", "use_cache", "rope_parameters", "transformers_version"}
    | {"attention_dropout", "hidden_dropout", "pretraining_tp", "auto_map", "_name_or_path"}
)
# They are of tasks other than language modelling, or of training.
_UNIMPORTANT = frozenset({"id2label", "label2id", "problem_type", "output_attentions", "output_hidden_states"})


def _known_keys(family: Family, fields: frozenset[str]) -> frozenset[str]:
    return frozenset(family.keys.get(name, name) for name in fields) | family.reads | _COMMON


def _likeness(family: Family, model_type: str, data: Mapping[str, Any], fields: frozenset[str]) -> float:
    """How much a config looks like the family's: the share of keys they have in common, and the name."""
    known, given = _known_keys(family, fields), set(data) - _UNIMPORTANT
    named = did_you_mean(model_type, [family.model_type]).startswith("Did")
    return len(known & given) / len(known | given) + 0.5 * named
