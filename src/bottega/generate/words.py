"""Words as users write them, to the token ids that the sampler works with.

A word is a text, not a token: it is found as the tokenizer writes it inside a text and behind a space. Other spellings
in tokens (letter by letter, say) stay possible; a grammar is what forbids a text in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from bottega.core.errors import UserError
from bottega.tokenizer.tokenizer import Tokenizer

# What ends a repeat for DRY where a request does not say (llama.cpp's and koboldcpp's default).
DRY_BREAKERS = ("\n", ":", '"', "*")


def banned_words(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Token sequences of words that may not be said."""
    return tuple(sorted({spelling for word in words for spelling in _spellings(tokenizer, word, "banned_words")}))


def allowed_words(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[int, ...]:
    """The tokens in which these words are written, and the stop tokens: only they may be said."""
    spelled = {
        token for word in words for spelling in _spellings(tokenizer, word, "allowed_words") for token in spelling
    }
    return tuple(sorted(spelled | tokenizer.stop_ids))


def dry_breakers(tokenizer: Tokenizer, texts: Sequence[str]) -> frozenset[tuple[int, ...]]:
    """Every token that contains one of the texts, and the token sequences in which they are written."""
    return frozenset[tuple[int, ...]]().union(*(_containing(tokenizer, text) for text in texts))


def token_of(tokenizer: Tokenizer, text: str, setting: str = "stop_token") -> int:
    """The id that a text names: a number is an id, else a token by its text. Raises UserError if that is not one."""
    if text.isascii() and text.isdigit():
        return int(text)
    if (token := tokenizer.id_of(text)) is not None:
        return token
    ids = tokenizer.encode_inside(text)
    if len(ids) != 1:
        raise UserError(f"{setting}: {text!r} is {len(ids)} tokens, not one", hint="Give a token's text, or its id.")
    return ids[0]


def biases(tokenizer: Tokenizer, given: Iterable[str]) -> tuple[tuple[int, float], ...]:
    """`TOKEN=BIAS` each, the token by its text or id."""
    found: dict[int, float] = {}
    for text in given:
        token, separator, bias = text.rpartition("=")
        try:
            found[token_of(tokenizer, token, "logit_bias")] = float(bias)
        except ValueError:
            separator = ""
        if not separator or not token:
            raise UserError(f"logit_bias {text!r} is not TOKEN=BIAS", hint="For example: --logit-bias ' the=-5'.")
    return tuple(sorted(found.items()))


def _spellings(tokenizer: Tokenizer, word: str, setting: str) -> list[tuple[int, ...]]:
    if not word:
        raise UserError(f"{setting} has an empty word")
    return [tuple(tokenizer.encode_inside(text)) for text in (word, " " + word)]


@lru_cache(maxsize=64)  # it reads the whole vocabulary
def _containing(tokenizer: Tokenizer, text: str) -> frozenset[tuple[int, ...]]:
    if not text:
        raise UserError("dry_breakers has an empty text")
    content = text.encode()
    tokens = {(id_,) for id_ in range(tokenizer.vocab_size) if content in tokenizer.token_bytes(id_)}
    return frozenset(tokens | {tuple(tokenizer.encode_inside(text))})
