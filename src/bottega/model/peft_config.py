"""`adapter_config.json` as huggingface/peft writes and reads it, and our settings back from one. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.checkpoint.adapter import Adapter, module_in_files, own_name
from bottega.checkpoint.adapter_base import AdapterSpec, read_base
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.hub_repository import parse_name
from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_targets import (
    Target,
    Whole,
    low_rank_targets,
    module_of,
    row_modules,
    saved_modules,
    short_targets,
)

# What a training that goes on with an adapter may set anew.
MAY_CHANGE = frozenset({"name", "dropout", "lora_plus_ratio"})
_CHOOSING = frozenset({"target_modules", "exclude_modules", "layers_to_transform"})
PEFT_VERSION = "0.21.2"  # the one whose keys these are
# Keys that PEFT has and that are always at their neutral value here.
_NEUTRAL: dict[str, Any] = {
    "alora_invocation_tokens": None, "auto_mapping": None, "bias": "none", "exclude_modules": None,
    "inference_mode": True, "init_lora_weights": True, "layer_replication": None, "layers_pattern": None,
    "loftq_config": {}, "lora_bias": False, "megatron_config": None, "megatron_core": "megatron.core",
    "target_parameters": None,
}  # fmt: skip


def peft_config(
    config: ModelConfig,
    settings: AdapterSettings,
    targets: Sequence[Target],
    whole: Sequence[Whole],
    ids: Sequence[int],
    base_name: str,
) -> dict[str, Any]:
    """The file's content for an adapter of these parts on `base_name` (a folder, or org/name[@revision] of the hub)."""
    settings = written_settings(settings)
    family = config.family
    layers = settings.layers_to_transform
    row_names = [module_in_files(config, module_of(tensor)) for tensor in row_modules(config)]
    saved = [module_in_files(config, each.name) for each in whole]
    tied = config.tie_word_embeddings and module_of(family.embedding) in saved
    names = short_targets(config, [target.name for target in targets], layers)
    # A folder may be called like a name of the hub; of such a name PEFT keeps the revision apart.
    name, revision = (None if Path(base_name).exists() else parse_name(base_name)) or (base_name, None)
    return {
        **_NEUTRAL,
        "base_model_name_or_path": name,
        "revision": revision,
        "peft_type": "LORA",
        "peft_version": PEFT_VERSION,
        "task_type": "CAUSAL_LM",
        "r": settings.r,
        "lora_alpha": _plain(settings.lora_alpha),
        "lora_dropout": settings.dropout,
        "use_rslora": settings.use_rslora,
        "use_dora": settings.use_dora,
        "target_modules": [module_in_files(config, name) for name in names],
        "layers_to_transform": list(layers) or None,
        "rank_pattern": dict(settings.rank_pattern),
        "alpha_pattern": {name: _plain(alpha) for name, alpha in settings.alpha_pattern.items()},
        "modules_to_save": (saved + (["lm_head"] if tied else [])) or None,
        "ensure_weight_tying": tied,
        "fan_in_fan_out": any(target.place.form == "transposed" for target in targets),
        "trainable_token_indices": {name.rpartition(".")[2]: list(ids) for name in row_names} if ids else None,
    }


def settings_of(adapter: Adapter, config: ModelConfig, *, name: str = "default") -> AdapterSettings:
    """The settings under which training of an opened adapter of a model can go on. Raises UserError."""
    data = adapter.config
    targets, saved = ([module_of(own_name(config, t)) for t in each] for each in (adapter.changes, adapter.saved))
    return AdapterSettings.parse(
        {
            "name": name,
            "r": data.get("r", 8),
            "alpha": data.get("lora_alpha", 8),
            "dropout": data.get("lora_dropout") or 0.0,
            "use_rslora": bool(data.get("use_rslora")),
            "use_dora": bool(data.get("use_dora")),
            "target_modules": tuple(targets),
            "rank_pattern": _literal(data.get("rank_pattern")),
            "alpha_pattern": _literal(data.get("alpha_pattern")),
            "modules_to_save": tuple(dict.fromkeys(saved)),
            "new_tokens": tuple(sorted({id_ for rows in adapter.rows.values() for id_ in rows.ids})),
        },
        where=str(adapter.path),
    )


def continued_settings(adapter: Adapter, config: ModelConfig, name: str = "default") -> AdapterSettings:
    """The settings of an adapter's training; where PEFT's config has no key for one, those of `bottega.json`."""
    found, base = settings_of(adapter, config, name=name), read_base(adapter)
    kept = {"lora_plus_ratio", "double_quant", "base", "type"} & base.settings.keys()
    return AdapterSettings.parse(
        {**found.as_data(), **{key: base.settings[key] for key in kept}}, where=str(adapter.path)
    )


def written_settings(settings: AdapterSettings) -> AdapterSettings:
    """The settings of the adapter that a training under `settings` leaves.

    A PiSSA adapter is written with the part that the base gave up subtracted: twice the rank, the same scale.
    """
    if settings.init != "pissa":
        return settings
    raised = math.sqrt(2) if settings.use_rslora else 2
    wider = {
        "init": "default",
        "r": 2 * settings.r,
        "alpha": settings.lora_alpha * raised,
        "rank_pattern": {name: 2 * rank for name, rank in settings.rank_pattern.items()},
        "alpha_pattern": {name: alpha * raised for name, alpha in settings.alpha_pattern.items()},
    }
    return settings.model_copy(update=wider)


def started_settings(given: AdapterSettings, config: ModelConfig, specs: Specs) -> AdapterSettings:
    """The settings of a training that goes on with `given.start`: the file's, and what may be new.

    Raises UserError if `given` says otherwise than the file.
    """
    assert given.start is not None
    may_change = MAY_CHANGE
    if specs.is_predicted(given.start):
        found = AdapterSettings.parse(specs.of(given.start, AdapterSpec).base.settings)
    else:
        opened = Adapter.open(given.start)
        found = continued_settings(opened, config, given.name)
        if not read_base(opened).settings:  # PEFT's files do not say how the base was rounded
            may_change |= {"base", "double_quant"}
    set_again = given.model_fields_set - {"start", "type"}
    for name in sorted(set_again - may_change):
        chosen = {each: getattr(given, each) for each in _CHOOSING & set_again} if name in _CHOOSING else {}
        over = found.model_copy(update=chosen or {name: getattr(given, name)})
        asked, stored = _meaning(name, over, config), _meaning(name, found, config)
        if asked != stored and getattr(given, name) is not None:
            raise UserError(
                f"adapter.{name} is {_shown(asked)}, and the adapter to go on with has {_shown(stored)}: {given.start}",
                hint=f"Leave {name} out, or begin a new adapter on the merged model (bottega adapter merge).",
            )
    fresh = {name: getattr(given, name) for name in may_change & set_again}
    return found.model_copy(update={**fresh, "start": given.start})


def _meaning(name: str, settings: AdapterSettings, config: ModelConfig) -> Any:
    """What a setting comes to: there is more than one way to name the same modules."""
    if name in _CHOOSING:
        return sorted(target.name for target in low_rank_targets(config, settings))
    if name == "modules_to_save":
        return sorted(whole.name for whole in saved_modules(config, settings))
    value = getattr(settings, name)
    return sorted(set(value)) if name == "new_tokens" and isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    """A value in a message; of modules how many, and their last names."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return repr(value)
    return f"{len(value)} modules ({', '.join(sorted({each.rpartition('.')[2] for each in value}))})"


def _literal(patterns: Any) -> dict[str, Any]:
    """Patterns as names; a reader has refused those that are none."""
    given = patterns if isinstance(patterns, dict) else {}
    return {str(key).replace("\\.", "."): value for key, value in given.items()}


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
