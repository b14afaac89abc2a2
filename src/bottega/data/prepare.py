"""`bottega data prepare`: from documents, conversations or preferences to memory-mapped shards of token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Table, human_bytes, human_count
from bottega.data import spec
from bottega.data.config import PrepareData
from bottega.data.detection import data_path, detect, sample, splits
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Completion, Conversation, Labelled, Pair, Prompt, Rejected, Tokens
from bottega.data.rows import ROW_READERS, Skipped, files_below, suffix_of
from bottega.data.sources import source_files
from bottega.data.spec import CorpusSpec, Form, TokensSpec
from bottega.data.writing import TokensWriter
from bottega.tokenizer.chat import GIVE_TEMPLATE
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

# Estimates for plans, from English text and Python sources.
_BYTES_PER_TOKEN = 3.6
_BYTES_PER_CONVERSATION = 140
_GZIP = 3  # bytes of text in a byte of .gz, where the file does not tell
_TEXT_BYTES_PER_SECOND = 2.8e6
_CONVERSATIONS_PER_SECOND = 3_400
_TRAINED_SHARE: dict[Form, float] = {"text": 1.0, "chat": 0.4, "pairs": 0.5, "labelled": 0.5, "prompts": 0.0}
_NEEDED: dict[Form, str] = {
    "text": "text",
    "chat": "messages, or prompt and completion, or instruction and output (docs/data.md)",
    "pairs": "chosen and rejected, best with a prompt (docs/data.md)",
    "labelled": "an answer with a label, true or false (docs/data.md)",
    "prompts": "prompt, or messages that end with the user's (docs/data.md)",
}


def plan_prepare(config: PrepareData, specs: Specs) -> Plan:
    """Check that data and tokenizer are there and fit; numbers are estimates from file sizes."""
    plan = Plan("data prepare", config, out=config.out, inputs={"data": config.data, "tokenizer": config.tokenizer})
    tokenizer = specs.of(config.tokenizer, TokenizerSpec)
    plan.checks.append(Check("tokenizer", True, f"{tokenizer.vocab_size} tokens"))
    size, documents = _sizes(config, specs)
    if config.kind != "text":
        plan.checks += _form_checks(config, tokenizer, specs)
    made = estimate(config.kind, tokenizer, size, documents)
    item = 2 if tokenizer.vocab_size <= 2**16 else 4
    plan.work = [
        f"tokenize about {human_bytes(size)} of {config.kind}",
        f"write about {human_count(made.tokens)} tokens",
    ]
    plan.cost = Cost(
        bytes_read=size,
        bytes_written=made.tokens * (item + made.masked) + 8 * documents,
        peak_memory=int(200e6),
        seconds=0.1 + (documents / _CONVERSATIONS_PER_SECOND if made.masked else size / _TEXT_BYTES_PER_SECOND),
    )
    plan.produces = made
    return plan


def estimate(form: Form, tokenizer: TokenizerSpec, size: int, documents: int) -> TokensSpec:
    """What about `size` bytes of data will become."""
    tokens = int(size / _BYTES_PER_TOKEN)
    return TokensSpec(
        tokens=tokens,
        documents=documents + (form == "pairs" and documents % 2),
        trained_tokens=int(tokens * _TRAINED_SHARE[form]),
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.hash,
        template_hash=tokenizer.template_hash if form != "text" else "",
        chat=form == "chat",
        text_bytes=size,
        form=form,
    )


def run_prepare(plan: Plan, context: Context) -> Result:
    """Write shards and manifest; raises UserError if there is nothing to train on."""
    config = plan.config
    assert isinstance(config, PrepareData)
    tokenizer = Tokenizer.load(config.tokenizer)
    writer = TokensWriter(context.out, config.kind, tokenizer, config, config.shard_tokens)
    source = data_path(config.data, config.kind, config.split)
    with context.reporter.bar("tokenizing", plan.cost.bytes_read or None, "B") as bar:
        write(writer, source, bar.advance)
    manifest = writer.finish(
        licence=CorpusSpec.read(config.data).licence if (config.data / spec.CORPUS_FILE).is_file() else "",
        reason=_why_empty(config, writer.skipped) if not writer.shards.documents else "",
    )
    return Result(manifest, [_table(manifest)])


def write(writer: TokensWriter, source: Path, advance: Any) -> None:
    """All of `source` through the writer, the way its form and its files need it."""
    if writer.form == "text" and not _is_tokens(source):
        writer.write_text(source, advance)
    else:
        writer.write_rows(source, advance)


def form_checks(form: Form, source: Path, tokenizer: TokenizerSpec) -> list[Check]:
    """Whether `source` is one data set whose first rows can be used as `form`, with a template if they need one."""
    rows = sample(source)
    if not rows:
        return _no_rows_checks(source)
    checks = [_splits_check(source)]
    examples: list[Any] = []
    reasons = Skipped()
    for row in rows:
        try:
            examples += examples_of(row.value, form)[1]
        except Rejected as rejected:
            reasons.add(str(rejected), row.place)
    seen = ", ".join(f"{name} ({count})" for name, count in detect(source).seen.items()) if examples else ""
    if not examples:
        reason, count = reasons.counts.most_common(1)[0]
        detail = f"none of the first {len(rows)} rows is {form}: {reason} ({count}). Needed: {_NEEDED[form]}"
        return [*checks, Check("format", False, detail)]
    checks.append(Check("format", True, seen))
    if all(_is_plain(example) for example in examples) and not tokenizer.has_template:
        has = tokenizer.eos_id is not None or form == "prompts"
        detail = "the texts end with the tokenizer's" if has else "the tokenizer has neither one nor a chat template"
        return [*checks, Check("end of sequence", has, detail)]
    return [*checks, *_template_check(tokenizer)]


def _no_rows_checks(source: Path) -> list[Check]:
    """Text is no data of rows; an empty file of rows may be, and is told when it is read."""
    files = files_below(source, ROW_READERS, Skipped()) if source.is_dir() else [source]
    if any(suffix_of(file) in ROW_READERS for file in files):
        return []
    return [Check("format", False, f"{source.name} is text and no rows: give a {', '.join(ROW_READERS)}")]


def _splits_check(source: Path) -> Check:
    """What is kept to measure with must not be trained on because it lies in the same folder."""
    found = splits(source)
    if "train" not in found or len(found) == 1:
        return Check("files", True, "one data set")
    return Check("files", False, f"{source} holds {', '.join(found)}: name one of them")


def _template_check(tokenizer: TokenizerSpec) -> list[Check]:
    has = tokenizer.has_template
    detail = "present" if has else f"the tokenizer has none, so conversations have no form. {GIVE_TEMPLATE}"
    return [Check("chat template", has, detail)]


def _form_checks(config: PrepareData, tokenizer: TokenizerSpec, specs: Specs) -> list[Check]:
    source = data_path(config.data, config.kind, config.split)
    if specs.is_predicted(config.data) or not source.exists():
        return _template_check(tokenizer)
    return form_checks(config.kind, source, tokenizer)


def _is_plain(example: Any) -> bool:
    """Whether it can be written without a chat template."""
    match example:
        case Conversation():
            return False
        case Prompt():
            return isinstance(example.prompt, str)
        case Pair():
            return isinstance(example.chosen, str)
        case Labelled():
            return isinstance(example.prompt, str) and isinstance(example.completion, str)
        case _:
            return isinstance(example, Completion | Tokens)


def _is_tokens(source: Path) -> bool:
    rows = sample(source, 1)
    return bool(rows) and isinstance(rows[0].value, dict) and "input_ids" in rows[0].value


def _why_empty(config: PrepareData, skipped: Skipped) -> str:
    """Why there is no document, for the manifest; raises UserError where that cannot be meant."""
    if config.kind == "chat" and (config.data / spec.CORPUS_FILE).is_file():
        return "the corpus holds no conversations: its corpus.json says why"
    reasons = ", ".join(f"{reason} ({count})" for reason, count in skipped.counts.most_common(5))
    wanted = {"text": "text", "chat": "conversation", "pairs": "pair", "labelled": "label", "prompts": "prompt"}
    raise UserError(f"no {wanted[config.kind]} found in {config.data}" + (f": {reasons}" if reasons else ""))


def _sizes(config: PrepareData, specs: Specs) -> tuple[int, int]:
    """About how many bytes of text and how many documents will be read; raises UserError if the data is not there."""
    is_corpus = specs.is_predicted(config.data) or (config.data / spec.CORPUS_FILE).is_file()
    if is_corpus:
        corpus = specs.of(config.data, CorpusSpec)
        if config.kind != "text":
            # A corpus not made yet: about as the standard library's, a conversation for each 900 bytes.
            count = corpus.conversations if corpus.exact else corpus.bytes // 900
            return (count * _BYTES_PER_CONVERSATION, count) if corpus.has_conversations is not False else (0, 0)
        share = corpus.heldout_bytes / max(corpus.bytes, 1)
        share = share if config.split == "heldout" else 1 - share
        return int(corpus.bytes * share), int(corpus.documents * share)
    return source_sizes(config.data, config.kind)


def source_sizes(source: Path, form: Form) -> tuple[int, int]:
    """About how many bytes and documents a file or folder of data has; raises UserError if it is not there."""
    if not source.exists():
        raise UserError(f"{source} does not exist", hint="Give a corpus folder, or a file or folder of data.")
    files = list(source_files(source, Skipped())) if source.is_dir() else [source]
    size = sum(_text_bytes(file) for file in files)
    if form == "text":
        return size, len(files)
    rows = sample(source)
    each = sum(row.size for row in rows) / len(rows) if rows else _BYTES_PER_CONVERSATION
    return size, max(1, int(size / max(each, 1))) * (2 if form == "pairs" else 1)


def _text_bytes(file: Path) -> int:
    """Bytes of a file when it is unpacked: gzip's own word for it, its last four bytes (RFC 1952), where that can be.

    They hold the size modulo 2³², and of the last part only; deflate packs to a thousandth at best.
    """
    size = file.stat().st_size
    if file.suffix != ".gz" or size < 18:
        return size
    with file.open("rb") as packed:
        packed.seek(-4, 2)
        said = int.from_bytes(packed.read(4), "little")
    return said if size <= said <= 1032 * size else _GZIP * size


def _table(manifest: dict[str, Any]) -> Table:
    rows: list[tuple[str, Any, str]] = [
        ("documents", manifest["documents"], ""),
        ("tokens", manifest["tokens"], f"{manifest['text_bytes'] / max(manifest['tokens'], 1):.2f} bytes each"),
        ("trained tokens", manifest["trained_tokens"], f"{manifest['masked_share']:.1%} masked"),
        *([("documents that train a stop token", manifest["stops"], "")] if manifest["trained_tokens"] else []),
        ("longest document", manifest["longest"], "tokens"),
        *((f"format {name}", count, "") for name, count in manifest["formats"].items()),
    ]
    for reason, row in manifest["dropped"].items():
        rows.append((f"dropped: {reason}", row["count"], ", ".join(row["examples"])))
    return Table("Tokens", ("", "count", ""), rows, note=manifest["reason"])
