"""`bottega data prepare`: from documents or conversations to memory-mapped shards of token ids.

Text: each document is the tokenizer's document prefix (BOS, if it has one that it adds) and
the ids of the text. Chat: what the chat template makes of the conversation, with a mask that
is True on what the model is trained to produce.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_json
from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Table, human_bytes, human_count
from bottega.data import spec
from bottega.data.config import PrepareData
from bottega.data.shards import ShardWriter
from bottega.data.sources import Document, Skipped, read_documents, source_files
from bottega.data.spec import CorpusSpec, TokensSpec
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

_BATCH_CHARACTERS = 2**20
_BATCH_DOCUMENTS = 512
# Estimates for plans, from English text and Python sources.
_BYTES_PER_TOKEN = 3.6
_BYTES_PER_CONVERSATION = 140
_TEXT_BYTES_PER_SECOND = 2.8e6
_CONVERSATIONS_PER_SECOND = 3_400
_TRAINED_SHARE = 0.4


def plan_prepare(config: PrepareData, specs: Specs) -> Plan:
    """Check that data and tokenizer are there and fit; numbers are estimates from file sizes."""
    plan = Plan("data prepare", config, out=config.out, inputs={"data": config.data, "tokenizer": config.tokenizer})
    tokenizer = specs.of(config.tokenizer, TokenizerSpec)
    plan.checks.append(Check("tokenizer", True, f"{tokenizer.vocab_size} tokens"))
    if config.kind == "chat":
        detail = "present" if tokenizer.has_template else f"{config.tokenizer} has none, so conversations have no form"
        plan.checks.append(Check("chat template", tokenizer.has_template, detail))
    size, documents = _sizes(config, specs)
    tokens = int(size / _BYTES_PER_TOKEN)
    item = 2 if tokenizer.vocab_size <= 2**16 else 4
    is_chat = config.kind == "chat"
    plan.work = [f"tokenize about {human_bytes(size)} of {config.kind}", f"write about {human_count(tokens)} tokens"]
    plan.cost = Cost(
        bytes_read=size,
        bytes_written=tokens * (item + is_chat) + 8 * documents,
        peak_memory=int(200e6),
        seconds=0.1 + (documents / _CONVERSATIONS_PER_SECOND if is_chat else size / _TEXT_BYTES_PER_SECOND),
    )
    plan.produces = TokensSpec(
        tokens=tokens,
        documents=documents,
        trained_tokens=int(tokens * _TRAINED_SHARE) if is_chat else tokens,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.hash,
        template_hash=tokenizer.template_hash if is_chat else "",
        chat=is_chat,
        text_bytes=size,
    )
    return plan


def run_prepare(plan: Plan, context: Context) -> Result:
    """Write shards and manifest; raises UserError if there is nothing to train on."""
    config = plan.config
    assert isinstance(config, PrepareData)
    tokenizer = Tokenizer.load(config.tokenizer)
    is_chat = config.kind == "chat"
    writer = ShardWriter(context.out, vocab_size=tokenizer.vocab_size, chat=is_chat, shard_tokens=config.shard_tokens)
    skipped, formats = Skipped(), Counter[str]()
    documents = read_documents(_data_path(config), skipped)
    text_bytes = 0
    with context.reporter.bar("tokenizing", plan.cost.bytes_read or None, "B") as bar:
        if is_chat:
            text_bytes = _write_chat(tokenizer, documents, writer, skipped, formats, bar.advance)
        else:
            text_bytes = _write_text(tokenizer, documents, writer, bar.advance)
    writer.close()
    reason = _why_empty(config, skipped) if not writer.documents else ""
    manifest = {
        "kind": "tokens",
        "schema_version": spec.SCHEMA_VERSION,
        "chat": is_chat,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_hash": tokenizer.hash,
        "template_hash": tokenizer.template_hash if is_chat else "",
        "documents": writer.documents,
        "tokens": writer.tokens,
        "trained_tokens": writer.trained_tokens,
        "masked_share": round(1 - writer.trained_tokens / writer.tokens, 4) if writer.tokens else 0.0,
        "longest": writer.longest,
        "text_bytes": text_bytes,
        "license": CorpusSpec.read(config.data).licence if (config.data / spec.CORPUS_FILE).is_file() else "",
        "formats": dict(formats),
        "dropped": skipped.as_data(),
        "reason": reason,
        "dtype": writer.dtype.name,
        "shards": writer.shards,
    }
    write_json(context.out / spec.MANIFEST_FILE, manifest)
    return Result(manifest, [_table(manifest)])


def _write_text(
    tokenizer: Tokenizer, documents: Iterator[Document], writer: ShardWriter, advance: Callable[[float], None]
) -> int:
    prefix = tokenizer.document_prefix()
    text_bytes = 0
    for batch in _batches(documents):
        size = sum(len(text.encode("utf-8")) for text in batch)
        for ids in tokenizer.encode_batch(batch):
            writer.add(prefix + ids)
        text_bytes += size
        advance(size)
    return text_bytes


def _batches(documents: Iterator[Document]) -> Iterator[list[str]]:
    """Texts in groups that bound the memory and are worth a call into Rust."""
    batch: list[str] = []
    characters = 0
    for document in documents:
        batch.append(document.text)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _write_chat(
    tokenizer: Tokenizer,
    documents: Iterator[Document],
    writer: ShardWriter,
    skipped: Skipped,
    formats: Counter[str],
    advance: Callable[[float], None],
) -> int:
    text_bytes = stops = rows = 0
    for document in documents:
        size = len(document.text.encode("utf-8"))
        advance(size)
        if document.messages is None:
            skipped.add("text without a conversation", document.id)
            continue
        rows += 1
        try:
            chat = encode_chat(tokenizer, document.messages)
        except UserError as error:
            skipped.add(error.message.partition(": ")[2] or error.message, document.id)
            continue
        # The first token has nothing before it: a mask on it alone trains nothing.
        if not any(chat.mask[1:]):
            skipped.add("no token to train on", document.id)
            continue
        stops += any(trained and id_ in tokenizer.stop_ids for id_, trained in zip(chat.ids, chat.mask, strict=True))
        writer.add(chat.ids, chat.mask)
        formats[document.format] += 1
        text_bytes += size
    if rows and not writer.documents:
        reason, count = skipped.counts.most_common(1)[0]
        raise UserError(f"none of {rows} conversations can be trained on; {count} because: {reason}")
    if writer.documents and not stops:
        raise UserError(
            "no conversation trains a token that ends the assistant's turn, so the model would never stop",
            hint="Set eos_token_id in the tokenizer's generation_config.json to the token that its template ends with.",
        )
    return text_bytes


def _why_empty(config: PrepareData, skipped: Skipped) -> str:
    """Why there is no document, for the manifest; raises UserError where that cannot be meant."""
    if config.kind == "chat" and (config.data / spec.CORPUS_FILE).is_file():
        return "the corpus holds no conversations: its corpus.json says why"
    reasons = ", ".join(f"{reason} ({count})" for reason, count in skipped.counts.most_common(5))
    wanted = "conversation" if config.kind == "chat" else "text"
    raise UserError(f"no {wanted} found in {config.data}" + (f": {reasons}" if reasons else ""))


def _data_path(config: PrepareData) -> Path:
    """The file of a corpus folder that is meant, or the data itself."""
    if not (config.data / spec.CORPUS_FILE).is_file():
        return config.data
    if config.kind == "chat":
        return config.data / spec.CONVERSATIONS_FILE
    return config.data / (spec.TRAIN_FILE if config.split == "train" else spec.HELDOUT_FILE)


def _sizes(config: PrepareData, specs: Specs) -> tuple[int, int]:
    """About how many bytes of text and how many documents will be read; raises UserError if the data is not there."""
    is_corpus = specs.is_predicted(config.data) or (config.data / spec.CORPUS_FILE).is_file()
    if is_corpus:
        corpus = specs.of(config.data, CorpusSpec)
        if config.kind == "chat":
            # A corpus not made yet: about as the standard library's, a conversation for each 900 bytes.
            count = corpus.conversations if corpus.exact else corpus.bytes // 900
            return (count * _BYTES_PER_CONVERSATION, count) if corpus.has_conversations is not False else (0, 0)
        share = corpus.heldout_bytes / max(corpus.bytes, 1)
        share = share if config.split == "heldout" else 1 - share
        return int(corpus.bytes * share), int(corpus.documents * share)
    if not config.data.exists():
        raise UserError(f"{config.data} does not exist", hint="Give a corpus folder, or a file or folder of documents.")
    files = list(source_files(config.data, Skipped())) if config.data.is_dir() else [config.data]
    size = sum(file.stat().st_size for file in files)
    return size, max(len(files), size // _BYTES_PER_CONVERSATION if config.kind == "chat" else 0)


def _table(manifest: dict[str, Any]) -> Table:
    rows: list[tuple[str, Any, str]] = [
        ("documents", manifest["documents"], ""),
        ("tokens", manifest["tokens"], f"{manifest['text_bytes'] / max(manifest['tokens'], 1):.2f} bytes each"),
        ("trained tokens", manifest["trained_tokens"], f"{manifest['masked_share']:.1%} masked"),
        ("longest document", manifest["longest"], "tokens"),
        *((f"format {name}", count, "") for name, count in manifest["formats"].items()),
    ]
    for reason, row in manifest["dropped"].items():
        rows.append((f"dropped: {reason}", row["count"], ", ".join(row["examples"])))
    return Table("Tokens", ("", "count", ""), rows, note=manifest["reason"])
