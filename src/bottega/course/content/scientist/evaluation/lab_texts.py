"""What counts of words can see.

Five answers to one reference: a paraphrase that any reader accepts, a copy with its meaning turned round, and others.
BLEU, ROUGE, F1 and exact match give their marks; a reader gives another.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course.lab import Effect, Event, Show, Value

BUDGET = 10
REFERENCE = "The committee did not approve the plan because it was too expensive."
ANSWERS = {
    "the same": (REFERENCE, 1.0),
    "a paraphrase": ("They turned the proposal down: the cost was too high.", 1.0),
    "not left out": ("The committee did approve the plan because it was too expensive.", 0.0),
    "one name changed": ("The court did not approve the plan because it was too expensive.", 0.2),
    "short and right": ("It was rejected as too expensive.", 0.9),
}


class Params(Config):
    """What can be changed."""

    answer: str = Field(default="The plan was rejected because it cost too much.", max_length=300)
    """An answer of yours."""


def run(params: Params) -> Iterator[Event]:
    """Mark the answers, then many answers to short questions."""
    from bottega.evaluate.metrics.bleu import bleu_score, bleu_statistics
    from bottega.evaluate.metrics.rouge import rouge_l

    answers = {**{name: text for name, (text, _) in ANSWERS.items()}, "yours": params.answer}
    marks = {}
    for name, text in answers.items():
        bleu = float(bleu_score(np.array(bleu_statistics([REFERENCE], text), dtype=np.float64)))
        marks[name] = bleu, 100 * rouge_l(REFERENCE, text), 100 * f1(REFERENCE, text), float(text == REFERENCE)
    rows = [(name, f"{m[0]:.1f}", f"{m[1]:.1f}", f"{m[2]:.1f}", "yes" if m[3] else "no", text) for (name, text), m in zip(answers.items(), marks.values(), strict=True)]
    yield Show("marks", Table(f"Reference: {REFERENCE}", ["answer", "BLEU", "ROUGE-L", "F1 of words", "exact", "text"], rows))
    bars = [Bar(name, marks[name][0], group="BLEU") for name in ANSWERS] + [Bar(name, 100 * ANSWERS[name][1], group="a reader") for name in ANSWERS]
    yield Show("readers", Bars("BLEU and a reader", "of 100", bars))

    gold, said = "42", ["42", "The answer is 42.", "42.0", "forty-two", "It is 24, no, 42", "between 42 and 43"]
    rows, right = [], []
    for text in said:
        strict, loose, last = text == gold, gold in text, last_number(text) == 42.0
        right.append((strict, loose, last))
        rows.append((text, *("yes" if each else "no" for each in (strict, loose, last))))
    yield Show("extraction", Table("Is it 42?", ["answer", "exact match", "contains “42”", "last number is 42"], rows))
    yield Value("bleu_paraphrase", marks["a paraphrase"][0], "of 100", 0)
    yield Value("bleu_negation", marks["not left out"][0], "of 100", 0)
    yield Value("rouge_paraphrase", marks["a paraphrase"][1], "of 100", 0)
    yield Value("rouge_negation", marks["not left out"][1], "of 100", 0)
    yield Value("f1_short", marks["short and right"][2], "of 100", 0)
    for place, name in enumerate(("strict", "loose", "last")):
        yield Value(name, sum(each[place] for each in right), "of six", 0)
    yield Effect("BLEU prefers the opposite to a paraphrase", marks["not left out"][0] > marks["a paraphrase"][0] + 50)
    yield Effect("so does ROUGE", marks["not left out"][1] > marks["a paraphrase"][1] + 30)
    yield Effect("three ways to read an answer give three counts", len({sum(each[i] for each in right) for i in range(3)}) == 3)


def f1(reference: str, text: str) -> float:
    """F1 of bags of words, small letters, without marks."""
    from collections import Counter

    bags = [Counter("".join(c for c in each.lower() if c.isalnum() or c == " ").split()) for each in (reference, text)]
    common = (bags[0] & bags[1]).total()
    return 2 * common / (bags[0].total() + bags[1].total()) if common else 0.0


def last_number(text: str) -> float | None:
    """The last number that stands in a text."""
    import re

    found = re.findall(r"-?\d+(?:\.\d+)?", text)
    return float(found[-1]) if found else None
