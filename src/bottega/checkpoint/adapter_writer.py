"""Writing adapters in PEFT's layout: config, tensors and card; and what they were trained on (adapter_base.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bottega.checkpoint.adapter_base import BASE_FILE, AdapterBase
from bottega.checkpoint.card import CARD_FILE, CardText, escape, without_revision
from bottega.checkpoint.header import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from bottega.core.atomic import write_json, write_text

if TYPE_CHECKING:
    import torch


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
