"""Sentences of a passage, and the rule by which one supports another.

A model's sentence is supported by a sentence of its source if it can be made from it by leaving words out, and
nothing was left out that the rest depends on:

1. its words, stemmed and without articles and the like, stand in the source in the same order;
2. every word that limits the source (not, only, if, may, most, less, believed …) is still there;
3. from its first to its last word it keeps every number, and at least half of the words;
4. both deny, or neither does.

What a citation says can so be shortened, and not turned round: "A beats B" is not supported by "B beats A". What is
said in other words is refused, true or not. (What the rule lets through and refuses: benchmarks/tutor.py.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bottega.retrieve.words import STOP_WORDS, stem, words

_BLOCK = re.compile(  # fenced code, headings, and of tables the heading
    r"^(`{3,}|~{3,})[^\n]*\n(?s:.*?)^\1[^\n]*$|^#+ .*$|^\|.*\|[ \t]*\n\|[-:| ]+\|[ \t]*$", re.MULTILINE
)
_FORMULA = re.compile(r"\s*\$\$(.+?)\$\$\s*", re.DOTALL)
_ROW = re.compile(r"^\|(.*)\|[ \t]*$", re.MULTILINE)
_END = re.compile(
    r"(?<=[.!?])[\"”')\]*_]*\s+(?=[\"“'(*_`]*[A-Z0-9$])"  # a mark, and the next sentence begins
    r"|(?<=\$\$)\s+(?=[A-Z*])"  # a formula that ends one
    r"|(?<=[。！？])(?![”」』）])|(?<=[。！？][”」』）])"
    r"|\n{2,}|\n(?=[-*] |\d+\. )"
)
_DENIALS = frozenset(
    (
        *("no", "not", "never", "none", "nothing", "nobody", "neither", "nor", "cannot", "without"),
        *("isn't", "don't", "doesn't", "won't", "can't", "aren't", "wasn't", "didn't"),
    )
)
_LIMITS = """
    not no never none nothing nobody neither nor cannot without only if when while because unless except until than less
    fewer more most least rarely seldom hardly barely scarcely almost nearly roughly about half twice once sometimes
    often usually always mostly may might could would should can some all every any each both few many instead rather
    below above under over before after first last same other too enough even still
    believe believed think thought read say said claim claimed seem seems appear suppose wrong mistake bug myth pretend
""".split()  # noqa: SIM905
LIMITS = frozenset(stem(word) for word in _LIMITS)
"""Words that a source may not lose: what it says does not hold without them. Of names of opinions too."""
# Words that a rewriter may add or leave out: they join.
CONNECTIVES = frozenset(map(stem, ("also", "thus", "hence", "therefore", "however", "so", "moreover", "indeed")))
LEAST_KEPT = 0.5


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text and the rows of its tables, without code and headings (tables' too)."""
    plain = _ROW.sub(r"\n\n\1\n\n", _BLOCK.sub("\n\n", text))
    found = []
    for part in _END.split(_FORMULA.sub(r" $$\1$$ ", plain)):
        sentence = re.sub(r"^(?:[-*] |\d+\. )", "", " ".join(part.split())).strip()
        if len(sentence) > 5 or (sentence and ord(sentence[0]) > 0x3000):
            found.append(sentence)
    return found


def supports(source: str, sentence: str) -> bool:
    """Whether one sentence says what another one claims."""
    if denies(source) != denies(sentence):
        return False
    given, wanted = _compared(source), _compared(sentence)
    places = _places(wanted, given)
    if not places or len(places) < len(wanted):
        return False
    left_out = [given[i] for i in range(len(given)) if i not in set(places)]
    if any(word in LIMITS for word in left_out):
        return False
    span = given[places[0] : places[-1] + 1]
    numbers = [word for word in span if word[0].isdigit()]
    kept = [word for word in wanted if word[0].isdigit()]
    return numbers == kept and len(places) >= LEAST_KEPT * len(span)


def supporting(sentence: str, text: str) -> str | None:
    """The sentence of `text` that supports a sentence; None if there is none."""
    return next((source for source in sentences(text) if supports(source, sentence)), None)


def denies(sentence: str) -> bool:
    """Whether a sentence denies something; two denials say the opposite of one."""
    plain = re.findall(r"[a-z']+", sentence.lower().replace("’", "'"))
    return sum(word in _DENIALS for word in plain) % 2 == 1


def _compared(text: str) -> list[str]:
    """The words of a sentence that are compared, in order; signs of comparison count as words."""
    found = []
    for part in re.findall(r"[<>≤≥=±∝−+-]+|[^<>≤≥=±∝−+\s-]+(?:-[^<>≤≥=±∝−+\s-]+)*", text):
        few = words(part)
        found += few if few else [part] if part[0] in "<>≤≥=±∝−+" else []
    return [word for word in found if (word not in STOP_WORDS or word in LIMITS) and word not in CONNECTIVES]


def _places(wanted: Sequence[str], given: Sequence[str]) -> list[int]:
    """Where the words of one list stand in another, in order: up to the first that does not."""
    found: list[int] = []
    for word in wanted:
        at = next((i for i in range(found[-1] + 1 if found else 0, len(given)) if given[i] == word), None)
        if at is None:
            return found
        found.append(at)
    return found
