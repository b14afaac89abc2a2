"""Data into a tokens folder: shards, examples beside them, and the manifest.

Text: each document is the tokenizer's document prefix (BOS, if it has one that it adds) and the ids
of the text. Every other form: what `encode` makes of the examples of a row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from bottega.core.atomic import plain, write_json
from bottega.core.errors import UserError
from bottega.data import spec
from bottega.data.config import ExampleOptions
from bottega.data.convert import text_of
from bottega.data.encode import Encoded, encode_example
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import (
    Completion,
    Conversation,
    Example,
    Labelled,
    Pair,
    Prompt,
    Ranked,
    Rejected,
    Text,
    Tokens,
)
from bottega.data.rows import Skipped, read_rows
from bottega.data.shards import ShardWriter
from bottega.data.sources import Document, read_documents
from bottega.data.spec import Form
from bottega.tokenizer.tokenizer import Tokenizer

Advance = Callable[[float], None]
_BATCH_CHARACTERS = 2**20
_BATCH_DOCUMENTS = 512


class TokensWriter:
    """Writes one tokens folder and counts what goes into it; `finish` writes the manifest."""

    def __init__(
        self, folder: Path, form: Form, tokenizer: Tokenizer, options: ExampleOptions, shard_tokens: int
    ) -> None:
        self.folder, self.tokenizer, self.options = folder, tokenizer, options
        self.form: Form = form
        self.shards = ShardWriter(
            folder, vocab_size=tokenizer.vocab_size, chat=form != "text", shard_tokens=shard_tokens
        )
        self.skipped, self.formats = Skipped(), Counter[str]()
        self.rows = self.text_bytes = self.stops = 0

    def write_text(self, source: Path, advance: Advance) -> None:
        """Documents, each trained as a whole."""
        prefix = self.tokenizer.document_prefix()
        for batch in _batches(read_documents(source, self.skipped)):
            size = sum(len(text.encode("utf-8")) for text in batch)
            for ids in self.tokenizer.encode_batch(batch):
                self.shards.add(prefix + ids)
            self.text_bytes += size
            advance(size)

    def write_rows(self, source: Path, advance: Advance) -> None:
        """The examples of rows; raises UserError if there are rows, and none can be used."""
        with ExitStack() as stack:
            file = None
            if self.form in ("pairs", "labelled", "prompts"):
                path = self.folder / spec.EXAMPLES_FILE
                file = stack.enter_context(path.open("w", encoding="utf-8", errors="replace"))
            for row in read_rows(source, self.skipped):
                advance(row.size)
                self.rows += 1
                try:
                    self._add_row(row.value, file)
                except Rejected as rejected:
                    self.skipped.add(str(rejected), row.place)
        if self.rows and not self.shards.documents:
            reason, count = self.skipped.counts.most_common(1)[0]
            raise UserError(f"none of {self.rows} rows can be used as {self.form}; {count} because: {reason}")

    def finish(self, *, licence: str = "", reason: str = "") -> dict[str, Any]:
        """Close the shards and write the manifest; returns it."""
        self.shards.close()
        if self.form == "chat" and self.rows and not self.stops and self.options.train_on_eos != "none":
            self._check_stops()
        writer = self.shards
        manifest = {
            "kind": "tokens",
            "schema_version": spec.SCHEMA_VERSION,
            "form": self.form,
            "chat": self.form == "chat",
            "vocab_size": self.tokenizer.vocab_size,
            "tokenizer_hash": self.tokenizer.hash,
            "template_hash": self.tokenizer.template_hash if self.form != "text" else "",
            "documents": writer.documents,
            "tokens": writer.tokens,
            "trained_tokens": writer.trained_tokens,
            "masked_share": round(1 - writer.trained_tokens / writer.tokens, 4) if writer.tokens else 0.0,
            "longest": writer.longest,
            "stops": self.stops,
            "text_bytes": self.text_bytes,
            "license": licence,
            "formats": dict(self.formats),
            "options": self.options.model_dump(include=set(ExampleOptions.model_fields)) if self.form != "text" else {},
            "dropped": self.skipped.as_data(),
            "reason": reason,
            "dtype": writer.dtype.name,
            "shards": writer.shards,
        }
        write_json(self.folder / spec.MANIFEST_FILE, manifest)
        return manifest

    def _add_row(self, row: Any, file: IO[str] | None) -> None:
        found, examples = examples_of(row, self.form, every_pair=self.options.ranked == "all")
        encoded = [encode_example(self.tokenizer, example, self.options) for example in examples]
        for example, documents in zip(examples, encoded, strict=True):
            for document in documents:
                self._add(document)
            if file is not None:
                file.write(json.dumps(plain(example_row(example)), ensure_ascii=False, default=str) + "\n")
        self.formats[found.name] += 1
        self.text_bytes += sum(len(said(example).encode("utf-8")) for example in examples)

    def _add(self, document: Encoded) -> None:
        ids, mask = document
        if self.form == "text":
            if not all(mask):
                raise Rejected("labels that leave tokens out of training (kind chat keeps them)")
            self.shards.add(ids)
        else:
            self.shards.add(ids, mask)
        stops = self.tokenizer.stop_ids
        self.stops += any(trained and id_ in stops for id_, trained in zip(ids, mask, strict=True))

    def _check_stops(self) -> None:
        if set(self.formats) == {"tokens"}:  # somebody else made them: the manifest says it
            return
        raise UserError(
            "no conversation trains a token that ends the assistant's turn, so the model would never stop",
            hint="Set eos_token_id in the tokenizer's generation_config.json to the token that its template ends with.",
        )


def example_row(example: Example) -> dict[str, Any]:
    """What `examples.jsonl` says of an example."""
    match example:
        case Labelled():
            return {"label": example.label}
        case Prompt():
            return example.row
        case Pair():
            scores = {} if example.scores is None else {"scores": list(example.scores)}
            return scores if example.margin is None else scores | {"margin": example.margin}
        case _:
            return {}


def said(example: Example) -> str:
    """All texts of an example."""
    match example:
        case Text():
            return example.text
        case Conversation():
            return text_of(example.messages)
        case Tokens():
            return ""
        case Pair():
            sides = (example.prompt, example.chosen, example.rejected)
        case Ranked():
            sides = (example.prompt, *example.answers)
        case Labelled() | Completion():
            sides = (example.prompt, example.completion)
        case Prompt():
            sides = (example.prompt,)
    return "\n\n".join(side if isinstance(side, str) else text_of(side) for side in sides)


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
