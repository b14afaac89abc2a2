"""What a comparison with the start shows: in the terminal, the report and the card. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bottega.core.view import Block, Table, Text
from bottega.evaluate.analysis.compare import NO_DIFFERENCE
from bottega.evaluate.analysis.compare_view import comparison_blocks as task_blocks
from bottega.evaluate.analysis.compare_view import verdict_text

TOO_LITTLE = "one document only: no interval"
PARTS = {"general": "general text", "heldout": "held-out data"}


def comparison_blocks(found: Mapping[str, Any], *, whole: bool = True) -> list[Block]:
    """The texts, the distances, the tasks (`whole`: one by one), and last what could not be compared."""
    blocks: list[Block] = []
    parts = {name: found[name] for name in PARTS if name in found}
    if parts:
        blocks += [_likelihoods(parts), _distances(parts)]
    if "tasks" in found:
        blocks += task_blocks(found["tasks"]) if whole else [Text(f"Tasks: {verdict_text(found['tasks'])}")]
    errors = {**found.get("errors", {}), **({} if whole else found.get("tasks", {}).get("not_compared", {}))}
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


def _named(name: str, part: Mapping[str, Any]) -> str:
    return f"{PARTS[name]}, {part['text']}" if "text" in part else PARTS[name]


def _interval(interval: Sequence[float] | None, least: float = float("-inf")) -> str:
    return "" if interval is None else f"[{max(least, interval[0]):.4f}, {interval[1]:.4f}]"
