"""`bottega data check`: what data holds and what will become of it, before anything is written.

The exit status is 2 where nothing of it can be used, so that a script stops before it trains.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Bar, Bars, Block, Spans, Style, Table, Text, human_bytes
from bottega.data.config import CheckData
from bottega.data.detection import Detected, data_path, detect, splits
from bottega.data.findings import Findings, examine
from bottega.data.formats.kinds import Completion, Conversation, Example, Labelled, Pair, Prompt, Side
from bottega.data.formats.kinds import Text as PlainText
from bottega.data.formats.read import as_messages
from bottega.data.prepare import form_checks, source_sizes
from bottega.data.spec import Form
from bottega.tokenizer.chat import ChatTokens
from bottega.tokenizer.inspect_verb import mask_view
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

MAX_SHOWN = 600
"""Tokens (without a tokenizer characters, ten times as many) of an example that are shown."""
_BYTES_PER_SECOND = 1.5e6
_BINS = 12
_ANSWER_LEGEND: dict[Style, str] = {"trained": "trained", "muted": "only read"}


def plan_check(config: CheckData, specs: Specs) -> Plan:
    """Check that the data is there and of a known format, and that the tokenizer can write it."""
    plan = Plan("data check", config, inputs={"data": config.data})
    found = detect(config.data)
    form = config.kind or found.form
    source = data_path(config.data, form)
    size = source_sizes(source, form)[0]
    plan.checks.append(Check("data", True, f"{found.format}: {found.why}"))
    if config.tokenizer is not None and config.model is not None:
        raise UserError("both tokenizer and model are given", hint="Give one of them.")
    folder = config.tokenizer or config.model
    if folder is not None:
        plan.inputs["tokenizer"] = folder
        checks = form_checks(form, source, specs.of(folder, TokenizerSpec)) if form != "text" else []
        plan.checks += [check for check in checks if check.name in ("chat template", "end of sequence")]
    elif config.row_length:
        plan.checks.append(Check("row length", False, "lengths in tokens need a tokenizer or a model"))
    plan.work = [f"read {human_bytes(size)} as {form}"]
    plan.cost = Cost(bytes_read=size, peak_memory=int(300e6), seconds=0.5 + size / _BYTES_PER_SECOND)
    return plan


def run_check(plan: Plan, context: Context) -> Result:
    """Read all of it and report."""
    config = plan.config
    assert isinstance(config, CheckData)
    detected = detect(config.data)
    form: Form = config.kind or detected.form
    folder = config.tokenizer or config.model
    tokenizer = Tokenizer.load(folder) if folder else None
    with context.reporter.bar("reading", plan.cost.bytes_read or None, "B") as bar:
        found = examine(
            data_path(config.data, form),
            form,
            tokenizer,
            config,
            row_length=config.row_length,
            most=config.rows,
            advance=bar.advance,
        )
    data: dict[str, Any] = {
        "format": detected.format,
        "why": detected.why,
        "unit": "tokens" if tokenizer else "characters",
    }
    data |= found.as_data() | {"splits": splits(config.data)}
    data["example"] = _example_data(found, tokenizer)
    view = _view(found, detected, data, tokenizer)
    if found.usable:
        return Result(data, view)
    return Result(data, [*view, Text(f"Nothing here can be used as {found.form}.")], exit_status=UserError.exit_status)


def _view(found: Findings, detected: Detected, data: dict[str, Any], tokenizer: Tokenizer | None) -> list[Block]:
    blocks: list[Block] = [_summary(found, detected, data)]
    for title, skipped in (("Rejected", found.rejected), ("To look at", found.doubtful)):
        rows = [(reason, row["count"], ", ".join(row["examples"])) for reason, row in skipped.as_data().items()]
        if rows:
            blocks.append(Table(title, ("", "count", "where"), rows))
    lengths = [(name, data[key]) for name, key in (("all", "lengths"), ("trained", "trained_lengths")) if data[key]]
    if lengths:
        columns = list(lengths[0][1])
        rows = [(name, *(round(values[column], 1) for column in columns)) for name, values in lengths]
        blocks.append(Table(f"Length of a document in {data['unit']}", ("", *columns), rows))
        blocks.append(_histogram(found.lengths, data["unit"]))
    return [*blocks, *_shown(found, tokenizer)]


def _summary(found: Findings, detected: Detected, data: dict[str, Any]) -> Table:
    rejected = sum(found.rejected.counts.values())
    rows: list[tuple[str, Any, str]] = [
        ("format", detected.format, detected.why),
        ("used as", found.form, "" if found.form == detected.form else f"its format is made for {detected.form}"),
        ("rows", found.rows, ", ".join(f"{name} {count}" for name, count in found.formats.most_common())),
        ("examples", found.examples, ""),
        ("rejected", rejected, f"{rejected / max(found.rows, 1):.1%} of the rows" if rejected else ""),
        (data["unit"], data["total_length"], ""),
    ]
    if data["trained_share"] is not None:
        rows.append(("trained", data["trained"], f"{data['trained_share']:.1%}"))
    if len(data["splits"]) > 1:
        rows.append(("read together", ", ".join(data["splits"]), "to keep them apart, name the files of one"))
    for label, count in data["labels"].items():
        rows.append((f"label {label}", count, f"{count / found.examples:.1%}"))
    if data["pairs"]:
        pairs = data["pairs"]
        means = f"means {pairs['chosen_mean']} and {pairs['rejected_mean']} {data['unit']}"
        rows.append(("chosen is longer", f"{pairs['chosen_longer_share']:.1%}", means))
    return Table("Data", ("", "", ""), rows)


def _histogram(lengths: array[int], unit: str) -> Bars:
    """How many documents have which length; each bar reaches to twice the length of the one before."""
    values = np.asarray(lengths)
    top = max(int(values.max()), 1)
    ends = [2**power for power in range(top.bit_length() + 1) if 2**power // 2 < top][-_BINS:]
    starts = [0, *ends[:-1]]
    counts = [int(((values > start) & (values <= end)).sum()) for start, end in zip(starts, ends, strict=True)]
    counts[0] += int((values <= 0).sum())
    while len(counts) > 1 and not counts[0]:
        counts, ends = counts[1:], ends[1:]
    bars = [Bar(f"up to {end:,}", count) for end, count in zip(ends, counts, strict=True)]
    return Bars(f"Documents by length in {unit}", "documents", bars)


def _shown(found: Findings, tokenizer: Tokenizer | None) -> list[Block]:
    if found.shown is None:
        return []
    place, example, documents = found.shown
    names = ("chosen", "rejected") if isinstance(example, Pair) else ("",)
    if tokenizer is None:
        return [_plain_view(f"{place} {name}".strip(), example, name) for name in names]
    blocks: list[Block] = []
    for name, (ids, mask) in zip(names, documents, strict=True):
        view = mask_view(tokenizer, ChatTokens(ids[:MAX_SHOWN], mask[:MAX_SHOWN], ""))
        more = f", the first {MAX_SHOWN} shown" if len(ids) > MAX_SHOWN else ""
        title = f"{place} {name}".strip() + f": {len(ids):,} tokens, {sum(mask):,} trained{more}"
        blocks.append(Spans(title, view.spans, view.legend))
    return blocks


def _plain_view(title: str, example: Example, name: str) -> Spans:
    """An example as it is written, before a template."""
    match example:
        case Conversation():
            sides: list[tuple[Side, bool]] = [(example.messages, True)]
        case Completion() | Labelled():
            sides = [(example.prompt, False), (example.completion, True)]
        case Pair():
            sides = [(example.prompt, False), (example.rejected if name == "rejected" else example.chosen, True)]
        case Prompt():
            sides = [(example.prompt, False)]
        case PlainText():
            sides = [(example.text, True)]
        case _:
            sides = []
    spans: list[tuple[str, Style]] = []
    room = 10 * MAX_SHOWN
    for side, answer in sides:
        for message in [{"role": "", "content": side}] if isinstance(side, str) else as_messages(side, ""):
            trained = answer and message["role"] in ("", "assistant")
            text = f"{message['role']}: {message['content']}\n" if message["role"] else message["content"]
            spans.append((text[:room], "trained" if trained else "muted"))
            room = max(room - len(text), 0)
    return Spans(title, [span for span in spans if span[0]], _ANSWER_LEGEND)


def _example_data(found: Findings, tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    if found.shown is None:
        return None
    place, _, documents = found.shown
    if tokenizer is None:
        return {"place": place}
    tokens = [[tokenizer.token_text(id_) for id_ in document.ids] for document in documents]
    return {
        "place": place,
        "documents": [
            {"ids": document.ids, "tokens": texts, "mask": document.mask}
            for document, texts in zip(documents, tokens, strict=True)
        ],
    }
