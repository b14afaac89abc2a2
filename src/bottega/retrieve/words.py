"""The words of a text, for lexical search: lower case, light stems, parts of identifiers, pairs of CJK characters.

The stemmer takes endings off in the manner of Harman's S-stemmer (1991, "How effective is suffixing?") and of the
first steps of Porter (1980): plurals, -ing, -ed, -ly, a final e. It is meant to make a question's words meet those of
an answer, not to be a linguist's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_RUN = re.compile(r"[^\W_]+(?:[_'’.\-][^\W_]+)*", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+(?:[.,]\d+)*|[^\W\d_A-Za-z]+")
_CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]+")
_VOWEL = re.compile(r"[aeiouy]")

_COMMON = (
    """
    a an the this that these those it its is are was were be been being am do does did done doing have has had having
    i me my we us our you your he him his she her they them their what which who whom whose when where why how there
    here of in on at by for with about into to from up down out as and or but if so than then too very can could
    will would shall should may might must not no nor just only also some any each all both more most other such same
    own able want need happen s t don now please tell explain show give let say mean means
    """.split()  # noqa: SIM905
)


def words(text: str) -> list[str]:
    """Every word of `text` as it is searched for, in order; a compound gives itself and its parts."""
    found: list[str] = []
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text)):
        found += _of_run(run[0])
    return found


def content_words(text: str) -> list[str]:
    """The words that say what a text is about: without those that every text has."""
    return [word for word in words(text) if word not in STOP_WORDS]


def stem(word: str) -> str:
    """The word without its ending: 'tokenizers' and 'tokenizing' become 'tokeniz', 'losses' becomes 'loss'."""
    word = re.sub(r"(?:'s|’s|'|’)$", "", word)
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    word = word.replace("isation", "ization") if word.endswith(("isation", "isations")) else word
    word = re.sub(r"(?<=[a-z]{3})is(e[srd]?|ing|ers)$", r"iz\1", word)  # both spellings of -ise
    word = _singular(word)
    for ending in ("ization", "izing", "ized", "izer", "ize"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + "iz"
    for ending in ("ingly", "edly", "ing", "ed", "ly"):
        root = word[: -len(ending)]
        if word.endswith(ending) and len(root) >= 3 and _VOWEL.search(root):
            return _undoubled(root.removesuffix("e"))
    if word.endswith("y") and len(word) > 4:
        return word[:-1] + "i"
    return word.removesuffix("e") if len(word) > 4 else word


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _undoubled(root: str) -> str:
    doubled = len(root) > 3 and root[-1] == root[-2] and root[-1] not in "aeioulsz"
    return root[:-1] if doubled else root


def _of_run(run: str) -> Iterator[str]:
    if _NUMBER.fullmatch(run):
        yield run
        return
    lower = run.lower()
    parts = [part for piece in re.split(r"[_'’.\-]", run) for part in _PART.findall(piece)]
    if len(parts) != 1 and not _CJK.fullmatch(run):
        yield stem(lower)
    for part in parts:
        if _CJK.fullmatch(part):
            yield from (part,) if len(part) == 1 else (part[i : i + 2] for i in range(len(part) - 1))
        elif len(parts) == 1 or len(part) > 1 or part.isdigit():
            yield stem(part.lower())


STOP_WORDS = frozenset(_COMMON) | frozenset(map(stem, _COMMON))
"""Words that every text has, as they are written and as they are searched for."""
