"""Bounds on foreign files: far above any real vocabulary, far below what would hang a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from bottega.core.errors import UserError

MAX_VOCABULARY = 2_000_000
MAX_ADDED_TOKENS = 100_000
MAX_FILE_BYTES = 64 * 2**20
# The longest tokens of real vocabularies are runs of a few hundred spaces.
MAX_TOKEN_BYTES = 4096


def is_token(text: object) -> TypeGuard[str]:
    """Whether it is a text that a token can have: not empty, not longer than any, Unicode."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_TOKEN_BYTES or not is_text(text):
        return False
    return len(text.encode("utf-8")) <= MAX_TOKEN_BYTES


def is_text(text: str) -> bool:
    """Whether it is Unicode: no half of a surrogate pair, which JSON can write."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def check_tokens(tokens: Sequence[str], path: Path | str) -> None:
    """Raise UserError unless the tokens, in the order of their ids, can be a vocabulary."""
    if not 0 < len(tokens) <= MAX_VOCABULARY:
        raise UserError(f"{path} has {len(tokens):,} tokens; a vocabulary has 1 to {MAX_VOCABULARY:,}")
    for index, token in enumerate(tokens):
        if not is_token(token):
            raise UserError(f"{path}: token {index} is empty, longer than any, or no Unicode text")
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    if twice:
        raise UserError(f"{path} has the token {twice[0][:60]!r} twice")
