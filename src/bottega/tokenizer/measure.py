"""How many tokens a tokenizer needs for a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bottega.tokenizer.tokenizer import Tokenizer


@dataclass
class Measure:
    """Counts over some texts. A word is what stands between spaces."""

    bytes: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    """Tokens that stand for what the vocabulary cannot write."""

    @property
    def bytes_per_token(self) -> float:
        """Compression: more is shorter."""
        return round(self.bytes / max(self.tokens, 1), 4)

    @property
    def tokens_per_word(self) -> float:
        """Fertility; says little where words are not written apart."""
        return round(self.tokens / max(self.words, 1), 4)


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> Measure:
    """Encode the texts and count."""
    found = Measure()
    for text in texts:
        found.bytes += len(text.encode("utf-8"))
        found.characters += len(text)
        found.words += len(text.split())
        ids = tokenizer.encode(text)
        found.tokens += len(ids)
        found.unknown += sum(id_ in tokenizer.unknown_ids for id_ in ids)
    return found
