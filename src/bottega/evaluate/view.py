"""An evaluation's figures as blocks for people; from `evaluation.json` alone, so that a report can show them too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottega.core.view import Bar, Bars, Block, Table, Text
from bottega.evaluate.tasks_view import evaluation_tasks_blocks

GROUPS = {"seen": "Seen in training, in new phrasing", "unseen": "Never seen in training"}


def evaluation_blocks(data: dict[str, Any]) -> list[Block]:
    """Everything that was measured, in order: text, baselines, comparison, questions."""
    blocks: list[Block] = []
    if "bits_per_byte" in data:
        blocks += text_blocks(data)
    if "reference" in data:
        blocks += comparison_blocks(data)
    if "choice" in data:
        blocks += choice_blocks(data["choice"])
    if "models" in data:
        blocks += evaluation_tasks_blocks(data)
    if "not_asked" in data:
        blocks.append(Text(data["not_asked"]))
    if data.get("samples"):
        blocks.append(sample_table(data["samples"]))
    return blocks


def sample_table(samples: Sequence[dict[str, Any]]) -> Table:
    """Questions (or beginnings), what the model said, and what it should have said."""
    rows = [(GROUPS.get(row["group"], row["group"]), row["prompt"], row["answer"], row["right"]) for row in samples]
    columns = ("", "asked", "the model says", "the source says")
    return Table("In its own words", columns, rows, "Greedy answers: the most probable token each time.")


def text_blocks(data: dict[str, Any]) -> list[Block]:
    """Bits per byte and perplexity; with baselines, their bars on the same bytes."""
    rows: list[Sequence[Any]] = [
        ("bits per byte", _rounded(data["bits_per_byte"]), _interval(data["bits_per_byte_interval"])),
        ("perplexity per token", _rounded(data["perplexity"]), ""),
        ("tokens", data["tokens"], ""),
        ("bytes", data["bytes"], ""),
        ("documents", data["documents"], ""),
    ]
    columns = ("measure", "value", "95 % interval")
    blocks: list[Block] = [Table("Likelihood of the text", columns, rows, _text_note(data))]
    if "baselines" in data:
        blocks.append(baseline_bars(data))
    return blocks


def baseline_bars(data: dict[str, Any]) -> Bars:
    """Bits per byte of the model beside unigram, bigram and xz."""
    simple = data["baselines"]
    low, high = data["bits_per_byte_interval"] or (None, None)
    primed = simple["primed_bytes"] / 1e6
    bars = [
        Bar("this model", data["bits_per_byte"], low, high),
        Bar(f"xz after {primed:.3g} MB of training text", simple["xz_primed"], baseline=True),
        Bar("xz alone", simple["xz"], baseline=True),
        Bar("byte bigram", simple["bigram"], baseline=True),
        Bar("byte unigram", simple["unigram"], baseline=True),
    ]
    note = f"All on the same {simple['held_out_bytes']:,} bytes; {simple['training_bytes']:,} bytes to learn from."
    return Bars("Bits per byte of held-out text", "bits per byte (lower is better)", bars, note=note)


def comparison_blocks(data: dict[str, Any]) -> list[Block]:
    """The model and its reference on the same text."""
    other = data["reference"]
    rows: list[Sequence[Any]] = [
        ("bits per byte", _rounded(data["bits_per_byte"]), _rounded(other["bits_per_byte"])),
        ("perplexity per token", _rounded(data["perplexity"]), _rounded(other["perplexity"])),
    ]
    gap = f"{data['bits_per_byte_difference']:+.4g} {_interval(data['bits_per_byte_difference_interval'])}".rstrip()
    note = f"Difference in bits per byte: {gap}."
    table = Table("Beside the reference", ("measure", "model", "reference"), rows, note)
    if "kl_mean" not in data:
        return [table, Text(data["not_comparable"])]
    top = data["top1_agreement"]
    rows = [
        ("KL(reference ‖ model), mean, nats per token", _rounded(data["kl_mean"]), _interval(data["kl_mean_interval"])),
        ("KL(reference ‖ model), 99th percentile", _rounded(data["kl_p99"]), ""),
        ("same likeliest token", f"{100 * top:.2f} %", _interval(data["top1_agreement_interval"], percent=True)),
    ]
    note = f"On {data['compared_tokens']:,} tokens."
    return [table, Table("Distance from the reference", ("measure", "value", "95 % interval"), rows, note)]


def choice_blocks(choice: dict[str, Any]) -> list[Block]:
    """Accuracy by group as bars, by kind as a table."""
    asked = "through the chat template" if choice["prompt"] == "chat" else "as plain text"
    gain, p_value = choice["over_answers_alone"], choice["over_answers_alone"]["p_value"]
    more = f"{100 * gain['difference']:+.1f} points {_interval(gain['interval'], percent=True)}".rstrip()
    note = (
        f"{choice['questions']} questions, asked {asked}; log-likelihood per byte of the answer. "
        f"Over the answers alone: {more}, p = {p_value:.2g} (McNemar)."
    )
    blocks: list[Block] = [choice_bars(choice, note)]
    kinds = choice["by_kind"]
    if kinds:
        rows = [
            (
                kind,
                part["questions"],
                f"{100 * part['accuracy']:.1f} %",
                _interval(part["accuracy_interval"], percent=True),
                f"{100 * part['answers_alone']:.1f} %",
                f"{100 * part['chance']:.1f} %",
            )
            for kind, part in kinds.items()
        ]
        columns = ("kind", "questions", "accuracy", "95 % interval", "answers alone", "chance")
        blocks.append(Table("Questions by kind", columns, rows))
    return blocks


def choice_bars(choice: dict[str, Any], note: str = "") -> Bars:
    """Accuracy with its interval beside the answers alone and chance, for each group."""
    parts = {GROUPS.get(name, name): part for name, part in choice["by_group"].items()} or {"": choice}
    bars = []
    for group, part in parts.items():
        title = f"{group} ({part['questions']} questions)" if group else ""
        bars += [
            Bar("this model", part["accuracy"], *part["accuracy_interval"], group=title),
            Bar("answers alone", part["answers_alone"], *part["answers_alone_interval"], group=title, baseline=True),
            Bar("chance", part["chance"], group=title, baseline=True),
        ]
    return Bars("Multiple-choice questions", "accuracy, with 95 % interval", bars, percent=True, note=note)


def _text_note(data: dict[str, Any]) -> str:
    parts = [f"Context {data['context']}, stride {data['stride']}, in {data['dtype']}."]
    if not data["whole"]:
        parts.append(_sample_note(data))
    if data["lossy_documents"]:
        lossy = data["lossy_documents"]
        parts.append(f"The tokenizer cannot give back {lossy} documents exactly: their bits per byte are too low.")
    if data["bits_per_byte_interval"] is None:
        parts.append("No interval: it needs two documents or more.")
    return " ".join(parts)


def _sample_note(data: dict[str, Any]) -> str:
    count, all_, tokens = data["documents"], data["of_documents"], f"{data['tokens']:,} of {data['of_tokens']:,} tokens"
    if data["cut"]:
        return f"Only the beginning of one of {all_} documents was scored ({tokens}): none fits --max-tokens."
    note = f"Drawn at random as --max-tokens allows: {count} of {all_} documents, {tokens}."
    if data["passed_over"]:
        note += f" Passed over, because they are longer than what was left: {data['passed_over']}."
    return note


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _interval(bounds: Sequence[float] | None, *, percent: bool = False) -> str:
    if bounds is None or bounds[0] is None:
        return ""
    low, high = bounds
    return f"[{100 * low:.1f}, {100 * high:.1f}] %" if percent else f"[{low:.4g}, {high:.4g}]"
