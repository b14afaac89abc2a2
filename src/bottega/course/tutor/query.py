"""From a question to what it asks about: terms, each with the ways to say it and how much it matters.

A term is found under another name (`content/synonyms.toml`, initials of a phrase that a lesson emphasises), under
another form (a shared beginning), or as it was meant (one letter wrong). A word that nothing of the course has, and
that is not of general use, is what tells a question that the course does not answer.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from bottega.course.library import CONTENT
from bottega.retrieve.bm25 import Bm25
from bottega.retrieve.words import STOP_WORDS, stem, words

Way = tuple[str, ...]
"""Words that say a thing together, stemmed."""
SYNONYM, FAMILY, MISSPELT = 0.8, 0.7, 0.9  # what another way to say it counts
SHARED = 0.7  # share of two words' letters that have to be the same at the beginning to be of one family
_CJK = re.compile(r"[\u3400-\u9fff]")
_ASKING = re.compile(
    "为什么|为何|什么|怎么样|怎么|怎样|如何|多少|哪些|哪个|哪里|是否|能否|可以|应该|请问|请|解释|介绍|说明|一下|有没有|区别|"
    "意思|作用|哪|吗|呢|吧|的|了|是|在|有|会|能|要|与|和|或|对|把|被|这|那|它|我|你|个|种|做|用|让"
)

_MANY = re.compile(r"\b(\d+(?:\.\d+)?)([KMBT])\b")


@dataclass(frozen=True)
class Term:
    """Something that is asked about: ways to say it, each with its weight; whether it is of no subject, or a name."""

    ways: Mapping[Way, float]
    general: bool = False
    name: bool = False
    known: bool = True
    """False of a name that the material lacks: it is no form of another word."""

    @property
    def words(self) -> set[str]:
        """All words of its ways."""
        return {word for way in self.ways for word in way}


@dataclass(frozen=True)
class Lexicon:
    """The words of the material, and what stands for what."""

    index: Bm25
    names: frozenset[str]
    """Words of titles: what a misspelt word may have meant."""
    short: Mapping[str, tuple[Way, ...]]
    """Initials → the phrases that have them."""

    def terms(self, question: str) -> list[Term]:
        """What `question` asks about."""
        single = list(_single(question, self.index.vocabulary))
        found: list[Term] = []
        ways = [dict(each.ways) for each in single]
        keys = [next(iter(each)) for each in ways]
        for at in range(len(keys)):
            for length, others in _groups(keys[at:]):
                for each in ways[at : at + length]:
                    each.update({other: SYNONYM for other in others if other not in each})
        for term, each in zip(single, ways, strict=True):
            found.append(replace(term, ways=each if term.general or not term.known else self._extended(each)))
        return list({next(iter(term.ways)): term for term in found}.values())

    def knows(self, way: Way) -> bool:
        """Whether every word of a way stands somewhere in the material."""
        return all(word in self.index.vocabulary for word in way)

    def _extended(self, ways: dict[Way, float]) -> dict[Way, float]:
        word = next(iter(ways))[0]
        for other in self.short.get(word, ()):
            ways.setdefault(other, SYNONYM)
        for other in self._family(word):
            ways.setdefault((other,), FAMILY)
        if not any(self.knows(way) for way in ways):
            ways |= {(name,): MISSPELT for name in self.names if _one_wrong(word, name)}
        return ways

    def _family(self, word: str) -> Iterator[str]:
        """Words with the same beginning: prediction for predict, parallelism for parallel."""
        if len(word) < 5 or not word.isalpha() or not word.isascii():
            return
        for other in self.index.vocabulary:
            if other[:5] == word[:5] and other != word and other.isalpha():
                same = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), None)
                same = min(len(word), len(other)) if same is None else same
                if same >= SHARED * max(len(word), len(other)):
                    yield other


def initials(phrases: Iterable[str]) -> dict[str, tuple[Way, ...]]:
    """Initials of phrases of two to five words, in lower case, with their phrases' content words."""
    found: dict[str, tuple[Way, ...]] = {}
    for phrase in phrases:
        parts = [part for part in re.split(r"[\s,-]+", phrase) if part[:1].isalpha()]
        if 2 <= len(parts) <= 5:
            short = "".join(part[0] for part in parts).lower()
            way = _way(phrase)
            if way and short not in STOP_WORDS and way not in found.get(short, ()):
                found[short] = (*found.get(short, ()), way)
    return found


def _single(text: str, known: Collection[str] | None = None) -> Iterator[Term]:
    """Each word of a text that says something; a compound also by its parts, or as these if it is not `known`."""
    text = _ASKING.sub(" ", text) if _CJK.search(text) else _MANY.sub(_written_out, text)
    for piece in re.findall(r"[\u3400-\u9fff]+|[^\s\u3400-\u9fff/]+", text):
        found = words(piece)
        if _CJK.search(piece):
            yield from (Term({(word,): 1.0}) for word in found)
        elif found and found[0] not in STOP_WORDS:
            yield from _of_piece(piece, found, known)


def _of_piece(piece: str, found: Sequence[str], known: Collection[str] | None) -> Iterator[Term]:
    """The terms of a word as it is written; `found` are its stems, the whole first."""
    raw, whole = re.sub(r"[^\w-]", "", piece.lower()), found[0]
    parts = tuple(word for word in found[1:] if word not in STOP_WORDS and not word.isdigit())
    if len(found) > 1 and not parts and "'" in piece.replace("’", "'"):
        return  # can't, it's
    new = known is not None and whole not in known and (whole,) not in _synonyms()
    numbered = bool(re.search(r"[A-Z].*\d", piece))  # what is said of GPT tells nothing of GPT-9
    name = len(re.findall(r"[A-Z]", piece)) > 1 or (known is not None and piece[:1].isupper())
    general = _is_general(raw) and not re.search(r"[a-z][A-Z]|[<|_(]", piece)  # ZeRO is not zero
    if new and (numbered or re.search(r"[a-z][A-Z]", piece)):  # PageRank is neither a page nor a rank
        yield Term({(whole,): 1.0}, name=True, known=False)
    elif new and parts and not general:
        yield from (Term({(part,): 1.0}, _is_general(part), name) for part in parts)
    else:
        ways = {(whole,): 1.0}
        if parts and not numbered:
            ways |= {parts: 1.0} | ({parts[-1:]: FAMILY} if len(parts) > 1 else {})
        aside = new and (raw.endswith("ly") or raw[:1].isdigit())
        yield Term(ways, general or aside, name)


def _written_out(number: re.Match[str]) -> str:
    """7B as 7 billion."""
    powers = {"K": "thousand", "M": "million", "B": "billion", "T": "trillion"}
    return f"{number[1]} {powers[number[2]]}"


def _way(phrase: str) -> Way:
    return tuple(word for term in _single(phrase) for word in next(iter(term.ways)))


def _groups(keys: Sequence[Way]) -> Iterator[tuple[int, list[Way]]]:
    """How many of the next keys say something together that can be said otherwise, and the other ways."""
    following = [word for key in keys for word in key]
    for length in range(1, min(4, len(following)) + 1):
        others = _synonyms().get(tuple(following[:length]))
        if others:
            yield length, others


@cache
def _read() -> dict:
    return tomllib.loads((CONTENT / "synonyms.toml").read_text("utf-8"))


@cache
def _synonyms() -> dict[Way, list[Way]]:
    found: dict[Way, list[Way]] = {}
    for group in _read()["groups"]:
        ways = [way for phrase in group if (way := _way(phrase))]
        for way in ways:
            found.setdefault(way, []).extend(other for other in ways if other != way)
    return found


@cache
def _general() -> Collection[str]:
    listed = _read()["general"].split()
    return frozenset(listed) | frozenset(stem(word) for word in listed if not word.endswith("ly"))


def _is_general(word: str) -> bool:
    """Whether a word is of no subject, in any form but that of an adverb: exact says more than exactly."""
    return word in _general() or stem(word) in _general()


def _one_wrong(word: str, other: str) -> bool:
    """Whether one letter was changed, left out, added, or two neighbours were exchanged (words of six and more)."""
    if len(word) < 6 or word[0] != other[0] or abs(len(word) - len(other)) > 1 or not word.isalpha():
        return False
    start = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    a, b = word[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
