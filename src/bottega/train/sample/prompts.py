"""Prompts of a file of JSON lines, and their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.evaluate.judge.answers import rows_of
from bottega.tokenizer.chat import check_messages, encode_chat
from bottega.tokenizer.tokenizer import Tokenizer

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """A prompt: a text, or messages up to the last that is not the assistant's; and its row with all fields."""

    asked: str | Messages
    row: Mapping[str, Any]

    @property
    def messages(self) -> Messages:
        """As messages."""
        return [{"role": "user", "content": self.asked}] if isinstance(self.asked, str) else self.asked


def prompts_of(path: Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a file, its first `limit`; raises UserError naming the first line that is none."""
    found: list[Prompt] = []
    for where, row in rows_of(path):
        if limit is not None and len(found) == limit:
            break
        found.append(Prompt(_asked(row, where), row))
    if not found:
        raise UserError(f"{path} has no prompts", hint='Write one a line: {"prompt": "…", "answer": "…"}.')
    return found


def encode(tokenizer: Tokenizer, prompts: Sequence[Prompt], *, plain: bool) -> list[list[int]]:
    """The tokens of each, up to where its answer begins; raises UserError for messages that are to be plain text."""
    if not plain:
        return [encode_chat(tokenizer, each.messages, add_generation_prompt=True).ids for each in prompts]
    texts = [each.asked for each in prompts if isinstance(each.asked, str)]
    if len(texts) < len(prompts):
        raise UserError("messages cannot be continued as plain text", hint="Leave --plain out.")
    return [[*tokenizer.document_prefix(), *tokenizer.encode(text)] for text in texts]


def _asked(row: Mapping[str, Any], where: str) -> str | Messages:
    given = next((row[name] for name in ("messages", "prompt", "question") if row.get(name)), None)
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise UserError(f"{where} is no prompt", hint="It has prompt, question or messages.")
    try:
        check_messages(given)
    except UserError as error:
        raise UserError(f"{where}: {error.message}", hint=error.hint) from None
    end = max((at + 1 for at, message in enumerate(given) if message["role"] != "assistant"), default=0)
    if not end or given[end - 1]["role"] not in ("user", "tool"):
        raise UserError(f"{where} is no prompt: nobody asks anything")
    return [dict(message) for message in given[:end]]
