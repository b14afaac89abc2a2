"""Cut, stem, count.

One text, cut into words by three rules and into sentences by two; then its word forms are folded together by three
stemmers and by a dictionary. Each rule is right where its author looked, and wrong somewhere else.
"""

import re
from collections import Counter
from collections.abc import Iterator

from nltk.stem import LancasterStemmer, PorterStemmer, SnowballStemmer
from nltk.tokenize import TreebankWordTokenizer, wordpunct_tokenize
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 10
TEXT = (
    "Dr. Meyer didn't pay $3.50 for the state-of-the-art e-mail client. He paid 1,200 euros in the U.S. last year! "
    "Was it worth it? “Hardly,” he says, “but we're learning.”"
)
SENTENCES = 4
# Groups of forms that belong together; forms of two groups do not.
FAMILIES = (
    "connect connects connected connecting connection", "run runs running ran", "study studies studied studying",
    "better good best", "universe universes", "university universities", "organ organs", "organise organised organises",
    "news", "new newer newest", "policy policies", "police", "mouse mice", "general generals", "generous generously",
    "leaf leaves", "leave leaving left", "happy happier happiest happiness",
)  # fmt: skip
LEMMAS = {
    "ran": "run", "running": "run", "runs": "run", "better": "good", "best": "good", "mice": "mouse", "leaves": "leaf",
    "left": "leave", "leaving": "leave", "studies": "study", "studied": "study", "studying": "study",
    "policies": "policy", "universities": "university", "universes": "universe", "organs": "organ",
    "organised": "organise", "organises": "organise", "connects": "connect", "connected": "connect",
    "connecting": "connect", "newer": "new", "newest": "new", "generals": "general", "happier": "happy",
    "happiest": "happy",
}  # fmt: skip


class Params(Config):
    """What can be changed."""

    text: str = Field(default=TEXT, min_length=1, max_length=1000)
    """The text to cut."""


def run(params: Params) -> Iterator[Event]:
    """Cut, fold, and count the mistakes."""
    cuts = {
        "spaces": params.text.split(),
        "words or marks": wordpunct_tokenize(params.text),
        "Penn Treebank's rules": TreebankWordTokenizer().tokenize(params.text),
    }
    rows = [(name, len(words), " · ".join(words)) for name, words in cuts.items()]
    yield Show("words", Table("Three ways to cut words", ["cut at", "pieces", "pieces of the text"], rows))
    simple = [each for each in re.split(r"(?<=[.!?])\s+", params.text) if each]
    known = PunktParameters()
    known.abbrev_types = {"dr", "u.s"}
    told = PunktSentenceTokenizer(known).tokenize(params.text)
    rows = [(rule, len(each), " ‖ ".join(each)) for rule, each in (
        ("a mark and a space", simple), ("Punkt, told of “dr” and “u.s”", told),
    )]  # fmt: skip
    yield Show("sentences", Table("Two ways to cut sentences", ["rule", "sentences", "cut"], rows))

    folds = {
        "as they are": lambda word: word, "Porter": PorterStemmer().stem, "Snowball": SnowballStemmer("english").stem,
        "Lancaster": LancasterStemmer().stem, "dictionary": lambda word: LEMMAS.get(word, word),
    }  # fmt: skip
    families: list[list[str]] = [[*family.split()] for family in FAMILIES]
    forms = [form for family in families for form in family]
    rows, faults = [], {}
    for name, fold in folds.items():
        stems = {form: fold(form) for form in forms}
        apart, together = _faults(families, stems)
        faults[name] = (apart, together)
        rows.append((name, len(set(stems.values())), apart, together))
    columns = ["folded by", "different words left", "related pairs kept apart", "strangers put together"]
    note = f"{len(forms)} forms of {len(families)} words; {sum(len(f) * (len(f) - 1) // 2 for f in families)} related pairs."
    yield Show("stemmers", Table("Folding word forms", columns, rows, note=note))
    shown = ("studies", "universities", "universe", "policies", "police", "running", "ran", "better", "news", "leaves")
    rows = [(word, *(fold(word) for fold in list(folds.values())[1:])) for word in shown]
    yield Show("forms", Table("The same words, folded", ["word", *list(folds)[1:]], rows))

    counts = sorted(Counter(_long_text()).values(), reverse=True)
    ranks = sorted({min(round(1.15**power), len(counts)) for power in range(70)})
    curve = Series("words of Python's documentation", [(rank, counts[rank - 1]) for rank in ranks])
    yield Show("zipf", Chart("How often each word occurs", "rank", "times", [curve], log_x=True, log_y=True))
    once = sum(count == 1 for count in counts) / len(counts)
    top = sum(counts[:20]) / sum(counts)
    yield Say(f"{sum(counts):,} words, {len(counts):,} different ones. The 20 most frequent are {top:.0%} of the text; "
              f"{once:.0%} of the different words occur once.")  # fmt: skip

    yield Value("space_pieces", len(cuts["spaces"]), "pieces", 0)
    yield Value("treebank_pieces", len(cuts["Penn Treebank's rules"]), "pieces", 0)
    yield Value("simple_sentences", len(simple), "sentences", 0)
    yield Value("told_sentences", len(told), "sentences", 0)
    yield Value("forms", len(forms), "forms", 0)
    for name in ("Porter", "Lancaster", "dictionary"):
        apart, together = faults[name]
        yield Value(f"{name.lower()}_apart", apart, "pairs", 0)
        yield Value(f"{name.lower()}_together", together, "pairs", 0)
    yield Value("once", once, "share of the different words", 0.3)
    yield Value("top20", top, "share of the text", 0.3)
    porter, lancaster = faults["Porter"], faults["Lancaster"]
    yield Effect("a stemmer joins related forms", porter[0] < faults["as they are"][0])
    yield Effect("and puts strangers together", porter[1] > 0)
    yield Effect("the rougher stemmer puts more of them together", lancaster[1] > porter[1])
    yield Effect("the dictionary puts no strangers together, and misses what it does not hold",
                 faults["dictionary"][1] == 0 < faults["dictionary"][0])  # fmt: skip
    if params.text == TEXT:
        yield Effect("a full stop that ends no sentence deceives the simple rule", len(simple) > SENTENCES)
        yield Effect("and not one that knows the abbreviations", len(told) == SENTENCES)


def _faults(families: list[list[str]], stems: dict[str, str]) -> tuple[int, int]:
    """Pairs of one family with different stems, and pairs of different families with the same one."""
    apart = together = 0
    home = {form: number for number, family in enumerate(families) for form in family}
    forms = list(home)
    for at, first in enumerate(forms):
        for second in forms[at + 1 :]:
            same = stems[first] == stems[second]
            apart += home[first] == home[second] and not same
            together += home[first] != home[second] and same
    return apart, together


def _long_text() -> list[str]:
    """Words of real English that is at hand wherever this runs: the documentation strings of Python's own library."""
    import argparse
    import collections
    import datetime
    import decimal
    import random
    import statistics
    import subprocess
    import tarfile
    import typing
    import unittest

    modules = (argparse, collections, datetime, decimal, random, statistics, subprocess, tarfile, typing, unittest)
    texts = []
    for module in modules:
        for value in vars(module).values():
            texts.append(getattr(value, "__doc__", None) or "")
            texts += [getattr(each, "__doc__", None) or "" for each in vars(value).values()] if isinstance(value, type) else []
    return re.findall(r"[a-z']+", " ".join(text for text in texts if isinstance(text, str)).lower())
