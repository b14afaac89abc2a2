"""The model card: `README.md` with the front matter that the hub reads (YAML between two `---` lines).

A view of the record and the headers, nothing that a person would have to keep in step. Whatever
comes from elsewhere (names, paths, values) is escaped, so that it can be no markup and no HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.hub_repository import parse_name
from bottega.core.atomic import write_text
from bottega.core.record import Record
from bottega.core.verb import NOT_IN_HASH
from bottega.core.view import human_count

CARD_FILE = "README.md"
_PART_NAMES = {
    "embedding": "Embedding",
    "attention": "Attention",
    "feed_forward": "Feed-forward",
    "norms": "Norms",
    "head": "Output layer",
}


@dataclass(frozen=True)
class CardText:
    """What a card says beyond what record and headers know."""

    title: str
    summary: str
    licence: str | None = None
    data: Sequence[str] = ()
    """Lines about the training data."""
    method: Sequence[str] = ()
    """Lines about how it was trained."""
    compared: Sequence[str] = ()
    """Lines about what it is beside the model that it came from."""
    limits: Sequence[str] = ()
    """Lines about what the model cannot do."""
    base_model: str | None = None
    tags: Sequence[str] = ()
    languages: Sequence[str] = ()


def front_matter(card: str) -> dict[str, Any]:
    """The YAML at the head of a card; {} if there is none, or if it is damaged."""
    match = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", card, re.DOTALL)
    if match is None or len(match[1]) > 1 << 20:
        return {}
    try:
        data = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_card(folder: Path, config: ModelConfig, text: CardText, record: Record | None = None) -> None:
    """Write `README.md` into a model folder."""
    write_text(folder / CARD_FILE, model_card(config, text, record))


def model_card(config: ModelConfig, text: CardText, record: Record | None = None) -> str:
    """The card as Markdown."""
    sections = [
        _front(text),
        f"# {escape(text.title)}",
        escape(text.summary),
        "## The model",
        _table(("", ""), _facts(config)),
    ]
    if text.data:
        sections += ["## Data", _list(text.data)]
    if text.method:
        sections += ["## Method", _list(text.method)]
    if record is not None:
        sections += ["## How it was made", _made(record)]
        if record.inputs:
            rows = [(name, Path(entry["path"]).name, entry["sha256"][:16]) for name, entry in record.inputs.items()]
            sections += ["## Made from", _table(("input", "name", "SHA-256"), rows)]
        told = {"comparison"} if text.compared else set()
        numbers = [(name, _value(value)) for name, value in _flat(record.metrics) if name.partition(".")[0] not in told]
        if numbers:
            sections += ["## Measured", _table(("metric", "value"), numbers)]
    if text.compared:
        sections += ["## Compared with the model it came from", _list(text.compared)]
    if text.limits:
        sections += ["## Limits", _list(text.limits)]
    return "\n\n".join(sections) + "\n"


def escape(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)
    # A list, a rule or a heading only where it begins the line.
    return re.sub(r"^([-+=#]|\d+(?=[.)](?: |$)))", _guard, line)


def _guard(match: re.Match[str]) -> str:
    # "\-" shows "-", but "\1" would show the backslash: there a reference to the digit does it.
    return f"&#{ord(match[1][0])};{match[1][1:]}" if match[1].isdigit() else "\\" + match[1]


def without_revision(model: str) -> str:
    """The name of a model as the front matter of a card has it: of org/name@revision only the name."""
    parsed = parse_name(model)
    return parsed[0] if parsed else model


def _front(text: CardText) -> str:
    data: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if text.licence:
        data["license"] = text.licence
    if text.languages:
        data["language"] = list(text.languages)
    data["tags"] = ["bottega", *text.tags]
    if text.base_model:
        data["base_model"] = without_revision(text.base_model)
    return "---\n" + yaml.safe_dump(data, sort_keys=False, allow_unicode=True) + "---"


def _facts(config: ModelConfig) -> list[tuple[str, object]]:
    parts = [
        (f"{_PART_NAMES[part]} parameters", f"{count:,}")
        for part, count in config.parameters_by_part().items()
        if count
    ]
    return [
        ("Architecture", config.family.architecture),
        ("Parameters", f"{config.parameter_count():,} ({human_count(config.parameter_count())})"),
        *parts,
        ("Layers", config.num_hidden_layers),
        ("Width", config.hidden_size),
        ("Attention heads (of keys and values)", f"{config.num_attention_heads} ({config.num_key_value_heads})"),
        ("Vocabulary", f"{config.vocab_size:,}"),
        ("Context", f"{config.context_length:,} tokens"),
        ("Stored as", config.dtype),
    ]


def _made(record: Record) -> str:
    versions = record.environment.get("versions", {})
    rows: list[tuple[str, object]] = [
        ("verb", f"{record.verb} (version {record.verb_version})"),
        ("started", record.started),
        ("took", f"{record.seconds:.0f} s"),
        ("step", record.step_hash[:16]),
        *((name, version) for name, version in versions.items()),
    ]
    # Where it ran and where its inputs lay says nothing about the model, and may say much about its maker.
    left_out = NOT_IN_HASH | set(record.inputs)
    rows += [(name, _value(value)) for name, value in _flat(record.config) if name not in left_out]
    return _table(("", ""), rows)


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values by dotted name; lists are left to the record."""
    rows: list[tuple[str, Any]] = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list | tuple) and value is not None:
            rows.append((prefix + name, value))
    return rows


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
