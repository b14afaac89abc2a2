"""Prompts of a file in any of the usual formats (docs/data.md), and their tokens: those that training sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bottega.core.errors import UserError
from bottega.data.config import ExampleOptions
from bottega.data.encode import encode_example
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Message, Prompt, Rejected
from bottega.data.formats.read import as_messages
from bottega.data.rows import Skipped, read_rows
from bottega.tokenizer.tokenizer import Tokenizer


def prompts_of(path: Path, limit: int | None = None) -> tuple[list[Prompt], Skipped]:
    """The prompts of a file or folder, its first `limit`, and what is none. Raises UserError if none is left."""
    found: list[Prompt] = []
    skipped = Skipped()
    for row in read_rows(path, skipped):
        try:
            _, examples = examples_of(row.value, "prompts")
        except Rejected as reason:
            skipped.add(str(reason), row.place)
            continue
        found += [each for each in examples if isinstance(each, Prompt)]
        if limit is not None and len(found) >= limit:
            return found[:limit], skipped
    if not found:
        reasons = ", ".join(skipped.counts) or "it is empty"
        raise UserError(
            f"{path} has no prompts ({reasons})", hint='Write one a line: {"prompt": "…", "answer": "…"}.'
        )
    return found, skipped


def messages_of(prompt: Prompt) -> list[Message]:
    """The prompt as messages."""
    return as_messages(prompt.prompt, "user")


def encode(tokenizer: Tokenizer, prompts: Sequence[Prompt], *, plain: bool) -> list[list[int]]:
    """The tokens of each, up to where its answer begins; raises UserError for one that cannot be asked so."""
    if plain:
        texts = [each.prompt for each in prompts if isinstance(each.prompt, str)]
        if len(texts) < len(prompts):
            raise UserError("messages cannot be continued as plain text", hint="Leave --plain out.")
        return [[*tokenizer.document_prefix(), *tokenizer.encode(text)] for text in texts]
    found = []
    for number, each in enumerate(prompts, 1):
        try:
            found.append(encode_example(tokenizer, each, ExampleOptions())[0].ids)
        except Rejected as reason:
            raise UserError(f"prompt {number} cannot be asked: {reason}") from None
    return found
