"""A text's words as n-grams are counted in, and which texts of a document stand in its prompt. Imports no torch.

Source of the words: T. Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C: "lowercase, whitespace
delimited, with no punctuation". Scripts without spaces between words (Han, kana) count each sign as a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

PUNCTUATION = re.compile(r"(?:[^\w\s]|_)+")
ASCII_PUNCTUATION = bytes(code for code in range(128) if PUNCTUATION.match(chr(code)))
SIGN = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
# A column of fewer words may stand in a prompt by chance.
FEWEST_WORDS = 3


def words(text: str) -> list[str]:
    """The words of `text`: lower case, without punctuation."""
    if text.isascii():  # the same, ten times as fast
        return text.lower().encode().translate(None, ASCII_PUNCTUATION).decode().split()
    if len(lines := text.splitlines()) > 1:  # so that most of a long text takes the fast way
        return [word for line in lines for word in words(line)]
    bare = PUNCTUATION.sub("", text.lower())
    return (SIGN.sub(r" \1 ", bare) if SIGN.search(bare) else bare).split()


def question_parts(doc: Mapping[str, Any], prompt: str) -> list[list[str]]:
    """The words of each of the document's texts that stand in the prompt: what is asked, without examples around it.

    [] if none does. A text that is part of another is left out.
    """
    asked = f" {' '.join(words(prompt))} "
    found: list[list[str]] = []
    for part in sorted(map(words, _texts(doc)), key=len, reverse=True):
        inside = f" {' '.join(part)} "
        if len(part) >= FEWEST_WORDS and inside in asked and not any(inside in f" {' '.join(one)} " for one in found):
            found.append(part)
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
