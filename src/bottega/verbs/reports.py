"""What a recipe's report shows of each step, and the report itself (`report.html`).

Everything is read back from the steps' folders, so a report can be made again at any time, also of
steps that were done before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.core.recipe import Recipe, Step
from bottega.core.record import Record, read_record
from bottega.core.report import Fact, Section, write_report
from bottega.core.verb import report_of
from bottega.core.view import Block, Table, Text, human_seconds

SIDES = (("training", "train"), ("held-out", "heldout"))
MOST_UNITS = 40


def write_recipe_report(recipe: Recipe, folder: Path, steps: Sequence[Step]) -> Path:
    """Write `report.html` into the recipe's folder, a section per step that has something to show."""
    sections, headings = [], recipe.report.get("headings") or {}
    records = {step.name: read_record(step.plan.out) for step in steps if step.plan.out}
    for step in steps:
        blocks = report_of(step.verb, step.plan.out) if step.plan.out else []
        if blocks:
            sections.append(Section(str(headings.get(step.name, step.name)), blocks))
    if limits := _limits(recipe.report.get("limits") or [], records):
        sections.append(Section("What it cannot do", [Text(line) for line in limits]))
    sections.append(Section("How it was made", [_steps_table(records), _environment_table(records)]))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    title = str(recipe.report.get("title", recipe.name))
    subtitle = " ".join(filter(None, [recipe.description.partition("\n")[0], _made_from(records)]))
    write_report(path, title, sections, subtitle=subtitle, facts=_facts(records))
    return path


def _made_from(records: dict[str, Record | None]) -> str:
    """From what text, by the record of the corpus; nothing if there is none."""
    for record in records.values():
        if record is not None and record.verb == "data collect":
            source = str(record.config["source"])
            what = "this Python's standard library" if source == "python" else f"the documents in {Path(source).name}"
            return f"Made from {what}."
    return ""


def _limits(limits: Sequence[Any], records: dict[str, Record | None]) -> list[str]:
    """The sentences that hold: a limit is a sentence, or {text, when: STEP.FIGURE or a list of them}."""
    lines = []
    for limit in limits:
        if not isinstance(limit, dict):
            lines.append(str(limit))
            continue
        when = limit.get("when") or []
        if all(_holds(str(name), records) for name in ([when] if isinstance(when, str) else when)):
            lines.append(str(limit.get("text", "")))
    return lines


def _holds(name: str, records: dict[str, Record | None]) -> bool:
    """Whether a step's record has the figure `STEP.FIGURE`, and above zero (or not empty)."""
    step, *keys = name.split(".")
    record = records.get(step)
    value: Any = record.metrics if record else None
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value > 0 if isinstance(value, (int, float)) else bool(value)


def _facts(records: dict[str, Record | None]) -> list[Fact]:
    """The figures at the top: each evaluation's, beside what they are to be held against."""
    facts = []
    for record in records.values():
        if record is None or record.verb != "eval":
            continue
        metrics = record.metrics
        if "baselines" in metrics:
            rival = f"xz with the training text: {metrics['baselines']['xz_primed']:.2f}"
            facts.append(Fact("Held-out text", f"{metrics['bits_per_byte']:.2f} bits per byte", rival))
        for name, part in metrics.get("choice", {}).get("by_group", {}).items():
            rival = f"answers alone {part['answers_alone']:.0%}, chance {part['chance']:.0%}"
            facts.append(Fact(f"Questions, {name}", f"{part['accuracy']:.0%} right", rival))
    seconds = sum(record.seconds for record in records.values() if record)
    facts.append(Fact("Made in", human_seconds(seconds), "all steps together, on this machine"))
    return facts


def _steps_table(records: dict[str, Record | None]) -> Table:
    rows = [
        (name, record.verb, record.started, human_seconds(record.seconds), record.step_hash[:12])
        for name, record in records.items()
        if record
    ]
    return Table("Steps", ("step", "verb", "started", "took", "hash"), rows)


def _environment_table(records: dict[str, Record | None]) -> Table:
    last = next((record for record in reversed(list(records.values())) if record), None)
    environment: dict[str, Any] = last.environment if last else {}
    versions = environment.get("versions", {})
    rows = [("Python", environment.get("python")), ("system", environment.get("platform")), *versions.items()]
    return Table("Environment", ("", ""), rows)


def corpus(folder: Path) -> list[Block]:
    """What the documents are, how they were split, and what was derived from each side."""
    manifest = json.loads((folder / "corpus.json").read_text("utf-8"))
    split, dropped = manifest["split"], manifest["dropped"]
    rows = [(side, manifest[name]["documents"], manifest[name]["bytes"]) for side, name in SIDES]
    units = ", ".join(split["heldout_units"][:MOST_UNITS]) + (" …" if len(split["heldout_units"]) > MOST_UNITS else "")
    note = (
        f"Split by {split['unit']}, before anything was derived. Dropped from training because held-out text resembles "
        f"it: {dropped['near_duplicate_blocks']} blocks ({dropped['near_duplicate_bytes']:,} bytes); "
        f"exact duplicates: {dropped['exact_duplicate_documents']}. Source: {manifest['source']}."
    )
    derived = [(kind, count) for kind, count in manifest["conversations"]["kinds"].items()]
    return [
        Table("Documents", ("side", "documents", "bytes"), rows, note),
        Table("Held out", ("", ""), [("units", units)]),
        Table("Conversations for fine-tuning", ("kind", "count"), derived, f"{manifest['fine_tuning']}."),
    ]


def tokenizer(folder: Path) -> list[Block]:
    """Size of the vocabulary, and how it compresses both sides."""
    record = read_record(folder)
    metrics = record.metrics if record else {}
    parts = [(side, metrics[name]) for side, name in SIDES if isinstance(metrics.get(name), dict)]
    rows = [(side, part["bytes_per_token"], part["tokens_per_word"]) for side, part in parts]
    note = f"Byte-level BPE, {metrics.get('vocab_size')} tokens."
    return [Table("Compression", ("text", "bytes per token", "tokens per word"), rows, note)] if rows else []


def training(folder: Path) -> list[Block]:
    """What the figures of a run warn of, its curves, what it says before and after, and beside what it started from."""
    from bottega.train.view import training_blocks

    record = read_record(folder)
    metrics = record.metrics if record else {}
    if record is None or metrics.get("copied"):
        return [Text(str(metrics.get("reason", f"{folder.name} has no record")))]
    stage = str(record.config["stage"])
    unseen = stage == "sft" and metrics["passes"] < 1
    note = 'Less than one pass: not everything that the questions call "seen" was trained on.' if unseen else ""
    return training_blocks(metrics, folder, stage=stage, place=folder, whole=True, note=note)


def evaluation(folder: Path) -> list[Block]:
    """Bits per byte beside the baselines, and the multiple-choice results."""
    from bottega.evaluate.view import evaluation_blocks

    return evaluation_blocks(json.loads((folder / "evaluation.json").read_text("utf-8")))
