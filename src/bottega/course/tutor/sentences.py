"""Sentences of a passage, and the rule by which one supports another.

The rule: a sentence is supported by a source sentence if its content words, stemmed, stand in the source in the same
order (words may be left out, none added, none moved), every number of it stands there, and both deny or neither does.
What a citation says can so be shortened, and not turned round: "A beats B" is not supported by "B beats A".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bottega.retrieve.words import STOP_WORDS, words

_BLOCK = re.compile(r"```.*?```|~~~.*?~~~|^#+ .*$|^\|[-:| ]+\|$", re.DOTALL | re.MULTILINE)
_FORMULA = re.compile(r"\s*\$\$(.+?)\$\$\s*", re.DOTALL)
_ROW = re.compile(r"^\|(.*)\|[ \t]*$", re.MULTILINE)
_END = re.compile(
    r"(?<=[.!?])[\"”')\]*_]*\s+(?=[\"“'(*_`]*[A-Z0-9$])"  # a mark, and the next sentence begins
    r"|(?<=\$\$)\s+(?=[A-Z*])"  # a formula that ends one
    r"|(?<=[。！？])(?![”」』）])|(?<=[。！？][”」』）])"
    r"|\n{2,}|\n(?=[-*] |\d+\. )"
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_DENIALS = frozenset(
    (
        *("no", "not", "never", "none", "nothing", "nobody", "neither", "nor", "cannot", "without"),
        *("isn't", "don't", "doesn't", "won't", "can't", "aren't", "wasn't"),
    )
)
# Words that a rewriter may add to join what it took.
CONNECTIVES = frozenset(
    ("also", "because", "thus", "hence", "therefore", "however", "while", "when", "so", "that", "example", "called")
)


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text and the rows of its tables, without code and headings."""
    plain = _ROW.sub(r"\n\n\1\n\n", _BLOCK.sub("\n\n", text))
    found = []
    for part in _END.split(_FORMULA.sub(r" $$\1$$ ", plain)):
        sentence = re.sub(r"^(?:[-*] |\d+\. )", "", " ".join(part.split())).strip()
        if len(sentence) > 5 or (sentence and ord(sentence[0]) > 0x3000):
            found.append(sentence)
    return found


def content(text: str) -> list[str]:
    """The content words of a sentence, stemmed, in order."""
    return [word for word in words(text) if word not in STOP_WORDS and word not in CONNECTIVES]


def supports(source: str, sentence: str) -> bool:
    """Whether one sentence says what another one claims."""
    if denies(source) != denies(sentence):
        return False
    if not set(_NUMBER.findall(sentence)) <= set(_NUMBER.findall(source)):
        return False
    return _in_order(content(sentence), content(source))


def is_supported(sentence: str, text: str) -> bool:
    """Whether some sentence of `text` supports it."""
    return any(supports(source, sentence) for source in sentences(text))


def denies(sentence: str) -> bool:
    """Whether a sentence denies something; two denials say the opposite of one."""
    plain = re.findall(r"[a-z']+", sentence.lower().replace("’", "'"))
    return sum(word in _DENIALS for word in plain) % 2 == 1


def _in_order(wanted: Sequence[str], given: Sequence[str]) -> bool:
    left: Iterator[str] = iter(given)
    return bool(wanted) and all(word in left for word in wanted)
