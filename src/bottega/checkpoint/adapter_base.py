"""What an adapter was trained on, and whether a model is that.

PEFT's config names the base and has no key for what it was. `bottega.json` beside it says it: a hash of the base's
weights, a hash of a sample of them that is quick to take again, how they were rounded, and the settings of the
training, so that training can go on and a merge can tell whether it has the right base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.config import CONFIG_FILE
from bottega.checkpoint.folder import ModelFolder, weight_files
from bottega.checkpoint.hub import locate
from bottega.checkpoint.hub_repository import parse_name
from bottega.core.errors import UserError
from bottega.core.hashing import digest_data, digest_file
from bottega.core.model_files import optional_object
from bottega.core.plan import Check, Spec, Specs

BASE_FILE = "bottega.json"
ROUNDINGS = ("none", "nf4", "int8")
SAMPLES, SAMPLE_BYTES = 32, 4096  # of each file of weights


@dataclass(frozen=True)
class AdapterBase:
    """What an adapter was trained on. `rounding` is none, nf4 or int8; `sha256` that of the base's weight files."""

    name: str = ""
    sha256: str = ""
    sample: str = ""
    """`weights_sample` of the base."""
    rounding: str = "none"
    double_quant: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings of the training, as `AdapterSettings.as_data` gives them."""

    @classmethod
    def of(cls, model: Path | str, settings: Mapping[str, Any], name: str) -> AdapterBase:
        """Of an adapter that was trained under these settings on `model`, which is to be called `name`."""
        hashes = weights_hash(model), weights_sample(model)
        return cls(name, *hashes, settings["base"], settings["double_quant"], dict(settings))


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter, for plans. `changed` are the tensors of the base that it changes, by its file's names of them."""

    kind: ClassVar[str] = "adapter"

    base: AdapterBase
    changed: frozenset[str]
    tokenizer: Spec | None = None
    """Of an adapter that a plan is going to make: what its tokenizer will be."""

    @classmethod
    def read(cls, path: Path) -> AdapterSpec:
        """From its folder, or org/name of the hub; raises UserError."""
        opened = Adapter.open(path)
        base = read_base(opened)
        named = replace(base, name=opened.base_model or base.name)
        return cls(named, frozenset((*opened.changes, *opened.rows, *opened.replaced)))


def weights_hash(model: Path | str) -> str:
    """SHA-256 of a model's weight files, whatever stands beside them. Raises UserError if there are none."""
    path = locate(model)
    return digest_data({file.name: digest_file(file) for file in weight_files(path)})


def weights_sample(model: Path | str) -> str:
    """SHA-256 of blocks spread over a model's weight files, and of their sizes: no two trainings leave the same.

    A change of a few small tensors alone may escape it. Raises UserError if there are no weights.
    """
    return digest_data({file.name: _sampled(file) for file in weight_files(locate(model))})


def _sampled(file: Path) -> list[Any]:
    size, digest = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as opened:
        for number in range(SAMPLES):
            opened.seek(max(0, size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            digest.update(opened.read(SAMPLE_BYTES))
    return [size, digest.hexdigest()]


def read_base(adapter: Adapter) -> AdapterBase:
    """What an opened adapter was trained on; of one that others made only the name is known. Raises UserError."""
    data = optional_object(adapter.path / BASE_FILE)
    if not data:
        return AdapterBase(name=adapter.base_model)
    kinds = {"name": str, "sha256": str, "sample": str, "rounding": str, "double_quant": bool, "settings": dict}
    found = {key: data[key] for key in kinds if key in data}
    wrong = [key for key, value in found.items() if not isinstance(value, kinds[key])]
    if wrong or found.get("rounding", "none") not in ROUNDINGS:
        raise UserError(
            f"{adapter.path / BASE_FILE}: {(wrong or ['rounding'])[0]} is not usable",
            hint="Without this file the adapter is read as one of PEFT's.",
        )
    return AdapterBase(**found)


def adapter_checks(model: Path | str, adapters: Sequence[Path | str], specs: Specs) -> list[Check]:
    """Whether each adapter fits the model, and whether that is the one it was trained on; from headers and samples.

    What an earlier step of a chain is yet to make is not checked.
    """
    if not adapters or any(specs.is_predicted(Path(each)) for each in (model, *adapters)):
        return []
    try:
        ModelFolder.open(model, adapters)
        doubts = [base_doubt(Adapter.open(adapter), model) for adapter in adapters]
    except UserError as error:
        return [Check("adapter", False, f"{error.message}. {error.hint}".rstrip(". ") + ".")]
    found = [Check("adapter's base", True, doubt, warns=True) for doubt in doubts if doubt]
    return [Check("adapter", True, ", ".join(map(str, adapters))), *found]


def base_doubt(adapter: Adapter, model: Path | str) -> str:
    """Why `model` may be another one than the adapter was trained on; empty if nothing says so.

    Weights are compared by a sample; where the adapter has none, as PEFT's have, by the names of the two.
    """
    origin = read_base(adapter)
    if origin.sample:
        if origin.sample == weights_sample(model):
            return ""
        return (
            f"{adapter.path} was trained on {origin.name}, and the weights of {model} are others: "
            "it belongs to them only if they are the same ones stored in another way"
        )
    folder = locate(model)
    own = optional_object(folder / CONFIG_FILE).get("_name_or_path") if folder.is_dir() else None
    known = {_last_name(each) for each in (str(model), str(folder), own) if isinstance(each, str)}
    if not origin.name or _last_name(origin.name) in known:
        return ""
    return f"{adapter.path} names {origin.name} as its base; nothing tells whether {model} is the same model"


def _last_name(name: str) -> str:
    """`org/Name@revision` and `/models/Name/` → name."""
    parsed = None if Path(name).exists() else parse_name(name)
    return Path(parsed[0] if parsed else name).name.lower()
