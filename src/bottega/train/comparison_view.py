"""What a comparison with the start shows: in the terminal, the report and the card. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bottega.core.view import Block, Table, Text
from bottega.evaluate.analysis.compare import NO_DIFFERENCE
from bottega.evaluate.analysis.compare_view import difference_bars, verdict_text
from bottega.evaluate.figures import difference_text

TASKS_NOTE = (
    "Trained minus start on the same items, by the paired bootstrap; shares in points, perplexities (↓: less is "
    "better) as a ratio. A difference is shown where the interval leaves it no doubt and its p, corrected for the "
    "number of tasks, is under 0.05. A smaller one may be there and not be seen."
)
TOO_LITTLE = "one document only: no interval"
PARTS = {"general": "general text", "heldout": "held-out data"}


def comparison_blocks(found: Mapping[str, Any], *, whole: bool = True) -> list[Block]:
    """The texts, the distances, the tasks (`whole`: drawn too), and last what could not be compared."""
    blocks: list[Block] = []
    parts = {name: found[name] for name in PARTS if name in found}
    if parts:
        blocks += [_likelihoods(parts), _distances(parts)]
    if "tasks" in found:
        blocks += [Text(f"Tasks: {verdict_text(found['tasks'])}"), _tasks(found["tasks"])]
        bars = difference_bars(found["tasks"]) if whole else None
        blocks += [replace(bars, value_label="trained − start")] if bars else []
    errors = {**found.get("errors", {}), **found.get("tasks", {}).get("not_compared", {})}
    if errors:
        rows = [(PARTS.get(name, name), message) for name, message in errors.items()]
        blocks.append(Table("Could not be compared", ("", "why"), rows))
    return blocks


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """The same in a sentence or two each, for a card."""
    lines = []
    for name, part in ((name, found[name]) for name in PARTS if name in found):
        change = f"{part['bits_per_byte_difference']:+.4f} {_interval(part['bits_per_byte_difference_interval'])}"
        lines.append(
            f"On {_named(name, part)} ({part['compared_tokens']:,} tokens): {part['bits_per_byte']:.4f} bits per byte, "
            f"the start {part['reference']['bits_per_byte']:.4f} ({change.rstrip()}: {verdict(part)}). KL from the "
            f"start {part['kl_mean']:.4f} nats a token, 99th percentile {part['kl_p99']:.3f}; the likeliest token is "
            f"the same at {part['top1_agreement']:.1%}."
        )
    if "tasks" in found:
        lines.append(f"Tasks, item by item against the start: {verdict_text(found['tasks'])}")
    lines += [f"{str(PARTS.get(name, name)).capitalize()}: could not be compared: {why}"
              for name, why in (found.get("errors") or {}).items()]  # fmt: skip
    return lines


def verdict(part: Mapping[str, Any]) -> str:
    """Whether a difference in bits per byte is shown, by its interval."""
    if part["bits_per_byte_difference_interval"] is None:
        return TOO_LITTLE
    low, high = part["bits_per_byte_difference_interval"]
    return NO_DIFFERENCE if low <= 0 <= high else "worse than the start" if low > 0 else "better than the start"


def _likelihoods(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: list[Sequence[Any]] = []
    for name, part in parts.items():
        start = part["reference"]
        difference = f"{part['bits_per_byte_difference']:+.4f}"
        interval = _interval(part["bits_per_byte_difference_interval"])
        rows.append((PARTS[name], "bits per byte", f"{part['bits_per_byte']:.4f}", f"{start['bits_per_byte']:.4f}",
                     difference, interval, verdict(part)))  # fmt: skip
        rows.append((PARTS[name], "perplexity", f"{part['perplexity']:.4g}", f"{start['perplexity']:.4g}", "", "", ""))
    columns = ("on", "measure", "trained", "start", "difference", "95 % interval", "what is shown")
    said = [f"General text: {parts['general']['text']}."] if "general" in parts else []
    said += ["Of held-out data the trained part counts: the answers."] if "heldout" in parts else []
    return Table("Beside the start", columns, rows, " ".join(said))


def _distances(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        (
            PARTS[name],
            f"{part['kl_mean']:.4f}",
            _interval(part["kl_mean_interval"], least=0.0),
            f"{part['kl_p99']:.3f}",
            f"{100 * part['top1_agreement']:.1f} %",
            part["compared_tokens"],
        )
        for name, part in parts.items()
    ]
    columns = ("on", "KL, mean", "95 % interval", "99th percentile", "same likeliest token", "tokens")
    return Table("Distance from the start", columns, rows, "KL(start ‖ trained) in nats per token.")


def _tasks(found: Mapping[str, Any]) -> Table:
    rows = [(row["task"], row) for row in found["tasks"]]
    if found["overall"] is not None:
        rows.insert(0, (f"mean of {len(found['overall']['tasks'])}", found["overall"]))
    columns = ("task", "metric", "items", "trained", "start", "difference", "shown")
    return Table("Tasks beside the start", columns, [(name, *_task_cells(row)) for name, row in rows], TASKS_NOTE)


def _task_cells(row: Mapping[str, Any]) -> list[Any]:
    def amount(value: float) -> str:
        return difference_text(value, share=row["is_share"], is_ratio=row.get("is_ratio", False))

    scores = [f"{100 * row[side]:.1f} %" if row["is_share"] else f"{row[side]:.4g}" for side in ("first", "second")]
    interval = "" if row["ci95"] is None else f" [{amount(row['ci95'][0])}, {amount(row['ci95'][1])}]"
    verdict = row["verdict"].replace("A is", "trained is").replace("B is", "start is")
    metric = row.get("metric", "").partition(",")[0] + ("" if row["higher_is_better"] else " ↓")
    return [metric, row["items"], *scores, amount(row["difference"]) + interval, verdict]


def _named(name: str, part: Mapping[str, Any]) -> str:
    return f"{PARTS[name]}, {part['text']}" if "text" in part else PARTS[name]


def _interval(interval: Sequence[float] | None, least: float = float("-inf")) -> str:
    return "" if interval is None else f"[{max(least, interval[0]):.4f}, {interval[1]:.4f}]"
