"""Writing adapters in PEFT's layout: config, tensors and card.

`bottega.json` says beside them what PEFT's config has no key for: on which base exactly (a hash of its weights), on
what rounding of it the adapter was trained, and with which settings, so that training can go on and a merge can tell
whether it has the right base.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.card import CARD_FILE, CardText, escape, without_revision
from bottega.checkpoint.folder import weight_files
from bottega.checkpoint.header import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from bottega.checkpoint.hub import locate
from bottega.core.atomic import write_json, write_text
from bottega.core.errors import UserError
from bottega.core.hashing import digest_data, digest_file
from bottega.core.model_files import optional_object

if TYPE_CHECKING:
    import torch

BASE_FILE = "bottega.json"
ROUNDINGS = ("none", "nf4", "int8")


@dataclass(frozen=True)
class AdapterBase:
    """What an adapter was trained on. `rounding` is none, nf4 or int8; `sha256` that of the base's weight files."""

    name: str = ""
    sha256: str = ""
    rounding: str = "none"
    double_quant: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings of the training, as `AdapterSettings.as_data` gives them."""


def weights_hash(model: Path | str) -> str:
    """SHA-256 of a model's weight files, whatever stands beside them. Raises UserError if there are none."""
    path = locate(model)
    return digest_data({file.name: digest_file(file) for file in weight_files(path)})


def write_adapter(
    folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], base: AdapterBase, text: CardText
) -> None:
    """Write the files of an adapter into `folder`; what else stands there stays.

    Args:
        folder: made if it is not there.
        tensors: by PEFT's names.
        config: the content of adapter_config.json.
        base: what it was trained on.
        text: for the card.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{ADAPTER_WEIGHTS}.{os.getpid()}.tmp"
    try:
        save_file(dict(sorted(tensors.items())), temporary, metadata={"format": "pt"})
        os.replace(temporary, folder / ADAPTER_WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)
    write_json(folder / ADAPTER_CONFIG, dict(config))
    write_json(folder / BASE_FILE, asdict(base))
    write_text(folder / CARD_FILE, adapter_card(config, base, text, sum(tensor.numel() for tensor in tensors.values())))


def read_base(adapter: Adapter) -> AdapterBase:
    """What an opened adapter was trained on; of one that others made only the name is known. Raises UserError."""
    data = optional_object(adapter.path / BASE_FILE)
    if not data:
        return AdapterBase(name=adapter.base_model)
    kinds = {"name": str, "sha256": str, "rounding": str, "double_quant": bool, "settings": dict}
    found = {key: data[key] for key in kinds if key in data}
    wrong = [key for key, value in found.items() if not isinstance(value, kinds[key])]
    if wrong or found.get("rounding", "none") not in ROUNDINGS:
        raise UserError(
            f"{adapter.path / BASE_FILE}: {(wrong or ['rounding'])[0]} is not usable",
            hint="Without this file the adapter is read as one of PEFT's.",
        )
    return AdapterBase(**found)


def adapter_card(config: Mapping[str, Any], base: AdapterBase, text: CardText, numbers: int) -> str:
    """The card as Markdown, with the front matter that the hub reads."""
    front: dict[str, Any] = {"library_name": "peft", "pipeline_tag": "text-generation"}
    if text.licence:
        front["license"] = text.licence
    if text.languages:
        front["language"] = list(text.languages)
    front["tags"] = ["bottega", "lora", *text.tags]
    if text.base_model or base.name:
        front["base_model"] = without_revision(text.base_model or Path(base.name).name)
    kept = {"none": "as it is", "nf4": "rounded to NF4", "int8": "rounded to int8"}[base.rounding]
    rows = [
        ("Base", f"{text.base_model or base.name}, {kept}"),
        ("SHA-256 of the base's weights", base.sha256[:16] or "not known"),
        ("Numbers in its file", f"{numbers:,}"),
        ("Rank, alpha", f"{config['r']}, {config['lora_alpha']}{' (rsLoRA)' if config['use_rslora'] else ''}"),
        ("Changed modules", ", ".join(config["target_modules"]) or "none"),
        *([("Trained whole", ", ".join(config["modules_to_save"]))] if config.get("modules_to_save") else []),
        *([("Kind", "DoRA")] if config.get("use_dora") else []),
    ]
    table = ["| | |", "| --- | --- |", *(f"| {escape(name)} | {escape(value)} |" for name, value in rows)]
    sections = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---",
        f"# {escape(text.title)}",
        escape(text.summary),
        "## The adapter",
        "\n".join(table),
    ]
    parts = {
        "Data": text.data,
        "Method": text.method,
        "Compared with the model it came from": text.compared,
        "Limits": text.limits,
    }
    for heading, lines in parts.items():
        if lines:
            sections += [f"## {heading}", "\n".join(f"- {escape(line)}" for line in lines)]
    return "\n\n".join(sections) + "\n"
