"""Sentences and words of English text, split without downloaded data as NLTK's tokenisers split ordinary text.

Sources: Kiss and Strunk 2006, Unsupervised Multilingual Sentence Boundary Detection (Punkt; numbers below are its
sections), and the Penn Treebank's word tokenisation. IFEval counts with both, so published scores depend on them.
Punkt learns from a corpus which words are abbreviations and which open sentences; here they are two short lists, so
the results may differ after an abbreviation, an initial or "..." that a capital follows. "e.g." and "etc." may end a
sentence even before a small letter: the published English model does not know them either. Curly quotation marks close
sentences, as in NLTK 3.10.4.
"""

from __future__ import annotations

import re
from itertools import pairwise

# Single letters: initials that never end a sentence, while the others may before a word of STARTERS.
_ABBREVIATIONS = """
c d e f g h k l m n p r s t v w
adm ala ariz aug ave bros calif cie co col colo conn corp cos ct dec dr feb fla fri ft ga gen ill inc jan jr kan ky lt
ltd maj messrs mg mich minn mr mrs ms nev nov oct okla ore pa ph.d prof rep reps sen sep sept sr st sw tenn tues va vs
vt wash wed wis yr a.m b.v d.c j.j j.k j.p j.r l.a n.c n.h n.j n.v n.y p.m s.a u.k u.n u.s u.s.a w.w
"""
_STARTERS = """
although among both but despite does even finally he her here however i if in indeed instead it many meanwhile
moreover most nevertheless nonetheless please similarly since so some sorry still such thank thanks the therefore
these they this though thus under wait were when which while without yes yet your
"""
ABBREVIATIONS, STARTERS = frozenset(_ABBREVIATIONS.split()), frozenset(_STARTERS.split())

_CLOSERS = "\"')\\]}‘’“”«»"
_NON_WORD = rf"[{_CLOSERS};*:@({{\[?!]"
_MARK = re.compile(rf"[.?!](?={_NON_WORD}|\s+\S)")
_DOTS = r"-{2,}|\.{2,}"
_WORD_END = rf"\s|$|{_NON_WORD}|{_DOTS}"
_TOKEN = re.compile(rf"{_DOTS}|[^\s(\"`{{\[:;&#*@)}}\]\-,]\S*?(?={_WORD_END}|,(?:{_WORD_END}))|\S")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")
_REALIGNED = re.compile(rf"[{_CLOSERS}]+?(?:\s+|(?=--)|$)", re.MULTILINE)

_SEPARATE = re.compile(r"""[«»“”‘’„`"*;@#$%&?!()\[\]{}<>\u2012-\u2015]|\.{2,}|--|''|[:,](?!\d)""")
_FINAL_PERIOD = re.compile(r"""(?<=[^.])\.(?=[])}>"'»”’ ]*\s*$)""")
_CLITICS = re.compile(r"(?<=[^' ])('[sSmMdD]?|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)(?= )")
_CONTRACTIONS = re.compile(
    r"(?i)\b(can)(not)\b|\b(d)('ye)\b|\b(gim|lem)(me)\b|\b(gon)(na)\b|\b(got)(ta)\b|\b(more)('n)\b|\b(wan)(na)(?=\s)"
    r"| ('t)(is|was)\b"
)


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, in order and without the white space between them."""
    sentences, start = [], 0
    for chunk in re.finditer(r"(\S+)(\s+)?(?=(\S+)?)", text):
        word, space, following = (group or "" for group in chunk.groups())
        ends = [mark.end() for mark in _MARK.finditer(word + space + following) if mark.end() <= len(word)]
        # Only the last mark of a chunk is weighed, and one that opens it: "?!" on its own counts twice.
        for end in sorted({*ends[:1], *ends[-1:]} if ends[:1] == [1] else ends[-1:]):
            at_space = end == len(word)
            if not _has_break(word[:end] + (space + following if at_space else word[end])):
                continue
            stop = chunk.start() + end
            opening = stop + len(space) * at_space
            if closing := _REALIGNED.match(text, opening):
                stop, opening = opening + len(closing[0].rstrip()), closing.end()
            sentences.append(text[start:stop].strip())
            start = opening
    return [*sentences, *([rest] if (rest := text[start:].strip()) else [])]


def _has_break(context: str) -> bool:
    """Whether a sentence ends within a chunk and what follows it, even if before or after the mark in question."""
    return any(_is_break(token, following) for token, following in pairwise(_TOKEN.findall(context)))


def _is_break(token: str, following: str) -> bool:
    if token in (".", "?", "!"):
        return True
    if not token.endswith("."):
        return False
    word, capital = token[:-1].lower(), following[0].isupper()
    opens = capital and following.lower().removesuffix(".") in STARTERS  # 4.1.1 and 4.1.3
    continues = following[0].islower() or following in ";:,.!?"
    abbreviation = word in ABBREVIATIONS or word.rpartition("-")[2] in ABBREVIATIONS
    if len(word) == 1 and word.isalpha():  # 4.3: initials
        return not abbreviation and (opens or not (capital or continues))
    if abbreviation or token.endswith(".."):  # 4.2
        return opens
    return not (continues and _NUMBER.fullmatch(word))  # 4.3: ordinals


def split_words(text: str) -> list[str]:
    """The Treebank tokens of `text`, sentence by sentence: punctuation, clitics and contractions are set apart."""
    return [word for sentence in split_sentences(text) for word in _treebank_words(sentence)]


def _treebank_words(sentence: str) -> list[str]:
    spaced = _SEPARATE.sub(r" \g<0> ", _FINAL_PERIOD.sub(" . ", sentence))
    spaced = _CLITICS.sub(r" \1", f" {' '.join(spaced.split())} ")
    return _CONTRACTIONS.sub(lambda match: f" {' '.join(filter(None, match.groups()))} ", spaced).split()
