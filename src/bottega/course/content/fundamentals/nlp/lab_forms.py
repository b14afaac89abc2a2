"""Where words end, and which are the same.

A line with traps is cut into words in four ways, and a text with traps into sentences in two. Then three stemmers cut
the endings off: how often do they part what belongs together, and join what does not?
"""

import re
from collections.abc import Callable, Iterator
from itertools import combinations

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 15
LINE = "Dr. Lee didn't pay $3.50 for a well-known U.S. book (see https://b.org/a.html)."
SENTENCES = (
    "Dr. Lee came at 3.15 p.m. and left soon.",
    "Why?",
    "Nobody knew!",
    "She had read Vol. 2, i.e. the blue one.",
    "It cost $4.20.",
    "Mr. and Mrs. Hill were late.",
    "“Is it true?” asked Tom.",
    "They met Prof. Ada B. Grant at St. John Street.",
    "The end came quickly … or so it seemed.",
    "They came at noon, etc.",
    "Then they left.",
)
ABBREVIATIONS = {"dr.", "mr.", "mrs.", "prof.", "vol.", "i.e.", "e.g.", "st.", "p.m.", "etc."}
FAMILIES = (
    "connect connects connected connecting", "connection connections", "universe universes",
    "university universities", "new newer newest", "news", "organ organs", "organisation organisations",
    "police polices", "policy policies", "mouse mice", "go goes going went gone", "good better best",
    "run runs running ran", "leaf leaves", "study studies studying studied", "happy happier happiest",
    "wand wands", "wander wanders wandering wandered", "arm arms", "army armies", "general generals",
    "generate generates generated generating", "past", "paste pastes pasted pasting", "car cars", "care cares caring",
)  # fmt: skip


class Params(Config):
    """What can be changed."""

    words: str = Field(default="running flies universities happily better mice organisation", min_length=1)
    """Words whose stems are shown, with spaces between them."""


def run(params: Params) -> Iterator[Event]:
    """Cut, split, stem, and count what went wrong."""
    from nltk.stem import LancasterStemmer, PorterStemmer, SnowballStemmer
    from nltk.tokenize import TreebankWordTokenizer

    cut: dict[str, Callable[[str], list[str]]] = {
        "at spaces": str.split,
        r"runs of letters and digits, \w+": lambda line: re.findall(r"\w+", line),
        "scikit-learn's rule": lambda line: re.findall(r"\b\w\w+\b", line.lower()),
        "NLTK's Treebank rules": TreebankWordTokenizer().tokenize,
    }
    rows = [(name, len(rule(LINE)), " | ".join(rule(LINE))) for name, rule in cut.items()]
    yield Show("words", Table(LINE, ["cut by", "words", "these"], rows))
    text = " ".join(SENTENCES)
    ways = {"every . ! or ? before a space": naive_sentences(text), "the rule below": ruled_sentences(text)}
    marks = []
    for name, found in ways.items():
        whole = sum(each in SENTENCES for each in found)
        marks.append((name, len(found), whole))
    title = f"A text of {len(SENTENCES)} sentences"
    yield Show("sentences", Table(title, ["cut at", "pieces", "of them whole sentences"], marks))
    missed = [each for each in SENTENCES if each not in ways["the rule below"]]
    yield Say("The rule does not find: " + " / ".join(missed))

    stemmers = {"Porter": PorterStemmer(), "Snowball": SnowballStemmer("english"), "Lancaster": LancasterStemmer()}
    shown = [(word, *(stemmer.stem(word) for stemmer in stemmers.values())) for word in params.words.split()]
    yield Show("stems", Table("Stems", ["word", *stemmers], shown))
    groups = [family.split() for family in FAMILIES]
    home = {word: i for i, group in enumerate(groups) for word in group}
    errors: dict[str, tuple[float, float, list[str]]] = {}
    for name, stemmer in stemmers.items():
        parted = joined = within = 0
        examples: list[str] = []
        met: set[tuple[int, int]] = set()
        for one, two in combinations(home, 2):
            same = stemmer.stem(one) == stemmer.stem(two)
            if home[one] == home[two]:
                within += 1
                parted += not same
            elif same:
                joined += 1
                if (home[one], home[two]) not in met:
                    examples.append(f"{one} = {two}")
                met.add((home[one], home[two]))
        errors[name] = (parted / within, joined, examples)
    rows = [(name, f"{parted:.0%}", joined, "; ".join(examples[:6])) for name, (parted, joined, examples) in errors.items()]
    columns = ["stemmer", "pairs of one word that are parted", "pairs of two words that are joined", "for example"]
    yield Show("errors", Table(f"{len(home)} forms of {len(groups)} words", columns, rows))
    bars = [Bar(name, parted) for name, (parted, _, _) in errors.items()]
    yield Show("parted", Bars("Forms of one word with different stems", "share of the pairs", bars, percent=True))
    yield Value("naive_pieces", marks[0][1], "pieces", 0)
    yield Value("naive_whole", marks[0][2], "sentences", 0)
    yield Value("ruled_pieces", marks[1][1], "pieces", 0)
    yield Value("ruled_whole", marks[1][2], "sentences", 0)
    yield Value("sentences", len(SENTENCES), "sentences", 0)
    for name, (parted, joined, _) in errors.items():
        yield Value(f"{name.lower()}_parted", parted, "of the pairs", 0.1)
        yield Value(f"{name.lower()}_joined", joined, "pairs", 0.2)
    yield Effect("cutting at every full stop makes too many pieces", marks[0][1] > len(SENTENCES) + 5)
    yield Effect("a list of abbreviations finds nearly all sentences", marks[1][2] >= len(SENTENCES) - 3)
    yield Effect("and not all of them", marks[1][2] < len(SENTENCES))
    yield Effect("every stemmer makes both kinds of errors", all(p > 0.05 and j > 0 for p, j, _ in errors.values()))
    yield Effect("the one that cuts most joins most", errors["Lancaster"][1] > errors["Snowball"][1])


def naive_sentences(text: str) -> list[str]:
    """Cut behind every mark that a space follows."""
    return re.split(r"(?<=[.!?]) ", text)


def ruled_sentences(text: str) -> list[str]:
    """The same, but not behind an abbreviation or a single capital, and only before something that can begin."""
    found, begin = [], 0
    for mark in re.finditer(r"[.!?…][”’)]* (?=[“‘(]?[A-Z])", text):
        last = text[begin : mark.end()].split()[-1].lower()
        if last in ABBREVIATIONS or re.fullmatch(r"[a-z]\.", last):
            continue
        found.append(text[begin : mark.end()].strip())
        begin = mark.end()
    return [*found, text[begin:].strip()]
