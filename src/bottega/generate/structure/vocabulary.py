"""A tokenizer's vocabulary as bytes, as llguidance and token healing need it; made once per tokenizer."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from functools import cached_property
from itertools import takewhile

import torch
from llguidance import LLTokenizer, TokenizerWrapper

from bottega.core.errors import UserError
from bottega.generate.constraint import mask_words
from bottega.tokenizer.tokenizer import Tokenizer


class Vocabulary:
    """The exact bytes of every token, and which ids end a text or stand for no text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.family == "other":
            raise UserError(
                "structured output needs a tokenizer whose tokens are bytes; this one changes the text it decodes",
                hint="Use a model with a byte-level or byte-fallback tokenizer.",
            )
        if not tokenizer.stop_ids:
            raise UserError(
                "structured output needs a stop token, and the tokenizer names none",
                hint="Add eos_token to tokenizer_config.json, or eos_token_id to generation_config.json.",
            )
        self.size = tokenizer.vocab_size
        self.stop_ids = tokenizer.stop_ids
        self.special_ids = tokenizer.special_ids | tokenizer.stop_ids
        self.bytes = [tokenizer.token_bytes(id_) for id_ in range(self.size)]
        self.words = mask_words(self.size)
        self.stops = packed(self.stop_ids, self.words)
        self.guidance = LLTokenizer(TokenizerWrapper(_Source(tokenizer, self)), eos_token=sorted(self.stop_ids))

    @cached_property
    def sorted(self) -> list[tuple[bytes, int]]:
        """The tokens that stand for text, in the order of their bytes."""
        return sorted((text, id_) for id_, text in enumerate(self.bytes) if text and id_ not in self.special_ids)

    @cached_property
    def unwritable(self) -> str:
        """The printable characters of ASCII that are in no token: the model can never say them."""
        known = frozenset().union(*(text for text, _ in self.sorted))
        return "".join(chr(code) for code in range(32, 127) if code not in known)

    def starting_with(self, prefix: bytes) -> list[tuple[bytes, int]]:
        """The tokens whose bytes begin with `prefix`, itself among them."""
        place = bisect_left(self.sorted, (prefix, -1))
        end = place
        while end < len(self.sorted) and self.sorted[end][0].startswith(prefix):
            end += 1
        return self.sorted[place:end]


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer, made at the first call and then kept on the tokenizer itself.

    Raises UserError if its tokens are no bytes, or nothing could end an answer.
    """
    kept = vars(tokenizer).get("_vocabulary")
    if kept is None:
        kept = vars(tokenizer)["_vocabulary"] = Vocabulary(tokenizer)
    return kept


def packed(ids: frozenset[int] | set[int], words: int) -> torch.Tensor:
    """The mask of these tokens, (words,) int32."""
    bits = torch.zeros(words * 32, dtype=torch.int64)
    bits[list(ids)] = 1
    values = (bits.view(words, 32) << torch.arange(32)).sum(-1)
    return torch.where(values >= 2**31, values - 2**32, values).to(torch.int32)


class _Source:
    """What llguidance asks a tokenizer. It keeps the tokenizer only weakly, for the tokenizer keeps it."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self.eos_token_id = min(vocabulary.stop_ids)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = vocabulary.bytes
        self.special_token_ids = sorted(vocabulary.special_ids)
        self._special = vocabulary.special_ids
        self._tokenizer = weakref.ref(tokenizer)

    def __call__(self, text: str | bytes) -> list[int]:
        """Ids of text in the middle of an answer: which tokens a forced text is written with."""
        if isinstance(text, bytes):
            raise TypeError("text, not bytes")
        tokenizer = self._tokenizer()
        ids = [] if tokenizer is None else tokenizer.encode_inside(text)
        # What the vocabulary cannot write comes back as the unknown token, which is no text.
        return list(takewhile(lambda id_: id_ not in self._special, ids))
