"""Count, weigh, classify.

First a search among stories, by plain counts and by TF-IDF. Then reviews that are written by a grammar, so that the
best possible accuracy is known: how near do counts of words, of pairs and of triples come to it?
"""

import math
import random
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course import world
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 30
ADJECTIVES = (("bad", "rude", "stale", "noisy", "slow", "dirty"), ("good", "friendly", "fresh", "quiet", "quick", "clean"))
THINGS = ("food", "service", "room", "waiter", "bread", "place", "bar", "kitchen")
CLEAR, NEGATED, VERY = 0.85, 0.4, 0.3


class Params(Config):
    """What can be changed."""

    reviews: int = Field(default=2000, ge=20, le=5000)
    """Reviews to learn from."""
    queries: int = Field(default=300, ge=20, le=1000)
    """Searches."""


def run(params: Params) -> Iterator[Event]:
    """Search, then classify."""
    yield from _search(params)
    yield from _classify(params)


def _search(params: Params) -> Iterator[Event]:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.preprocessing import normalize

    stories = list(world.stories(0, 1000))
    texts = [story.text for story in stories]
    draw = random.Random(1)
    asked = [draw.choice(stories).choices for _ in range(params.queries)]
    questions = [
        "in the story there was a {trait} {animal} , and in the {place2} the {animal} saw the {colour} {thing} of {name}".format(**each)
        for each in asked
    ]
    wanted = [{each[key] for key in ("trait", "animal", "place2", "colour", "thing", "name")} for each in asked]
    hits = {}
    for name, vectoriser in (("counts", CountVectorizer(token_pattern=r"\S+")), ("TF-IDF", TfidfVectorizer(token_pattern=r"\S+"))):
        documents: Any = normalize(vectoriser.fit_transform(texts))
        asking: Any = normalize(vectoriser.transform(questions))
        scores = (asking @ documents.T).toarray()
        found = [set(texts[best].split()) for best in scores.argmax(1)]
        hits[name] = sum(len(want & got) / len(want) for want, got in zip(wanted, found, strict=True)) / len(wanted)
    rows = []
    for word in ("the", "sunny", "cat", "ball", "rainy", "golden"):
        count = sum(word in set(text.split()) for text in texts)
        rows.append((word, count, f"{math.log(1001 / (1 + count)) + 1:.2f}"))
    yield Show("idf", Table(f"Of {len(texts):,} stories", ["word", "stories with it", "idf"], rows))
    bars = [Bar(name, share) for name, share in hits.items()]
    yield Show("search", Bars("Words asked for that the first hit has", "share", bars, percent=True))
    yield Value("counts_hits", hits["counts"], "of the words", 0.05)
    yield Value("tfidf_hits", hits["TF-IDF"], "of the words", 0.05)
    yield Value("idf_the", math.log(1001 / 1001) + 1, "", 0)
    yield Value("idf_golden", float(rows[-1][2]), "", 0.05)
    yield Value("golden_stories", rows[-1][1], "stories", 0.05)
    yield Effect("TF-IDF finds more of what was asked for", hits["TF-IDF"] > hits["counts"] + 0.05)


def review(draw: random.Random) -> tuple[str, int, list[tuple[int, int]]]:
    """A text, its label, and for each sentence the adjective's tone and whether it is negated."""
    label = draw.randrange(2)
    parts, made = [f"we came on {draw.choice(('monday', 'friday', 'sunday'))} ."], []
    for _ in range(3):
        meant = label if draw.random() < CLEAR else 1 - label
        negated = int(draw.random() < NEGATED)
        tone = meant ^ negated
        words = ["the", draw.choice(THINGS), "was"]
        words += [draw.choice(("not", "never"))] * negated + ["very"] * (draw.random() < VERY)
        parts.append(" ".join([*words, draw.choice(ADJECTIVES[tone]), "."]))
        made.append((tone, negated))
    return " ".join(parts), label, made


def _best(made: list[tuple[int, int]]) -> int:
    """The likelier label under the grammar: what most of the three sentences mean."""
    return int(sum(tone ^ negated for tone, negated in made) >= 2)


def _classify(params: Params) -> Iterator[Event]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    draw = random.Random(4)
    learnt, others = [review(draw) for _ in range(5000)], [review(draw) for _ in range(2000)]
    yield Say(f"For example: “{learnt[0][0]}” ({'good' if learnt[0][1] else 'bad'})")
    truth = [label for _, label, _ in others]
    best = sum(_best(made) == label for _, label, made in others) / len(others)
    majority = max(sum(truth), len(truth) - sum(truth)) / len(truth)
    stop = [*ENGLISH_STOP_WORDS]
    models = {
        "words": lambda: make_pipeline(CountVectorizer(), MultinomialNB()),
        "words and pairs": lambda: make_pipeline(CountVectorizer(ngram_range=(1, 2)), MultinomialNB()),
        "words, pairs, triples": lambda: make_pipeline(CountVectorizer(ngram_range=(1, 3)), MultinomialNB()),
        "the same without stop words": lambda: make_pipeline(CountVectorizer(ngram_range=(1, 3), stop_words=stop), MultinomialNB()),
        "TF-IDF of triples, logistic": lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 3)), LogisticRegression(C=10)),
    }  # fmt: skip

    def accuracy(name: str, count: int) -> tuple[float, int]:
        model: Any = models[name]().fit([text for text, _, _ in learnt[:count]], [label for _, label, _ in learnt[:count]])
        return float(model.score([text for text, _, _ in others], truth)), len(model[0].vocabulary_)

    found = {name: accuracy(name, params.reviews) for name in models}
    rows = [(name, f"{size:,}", f"{share:.1%}") for name, (share, size) in found.items()]
    rows = [("always the commoner label", "0", f"{majority:.1%}"), *rows, ("the grammar itself", "", f"{best:.1%}")]
    yield Show("table", Table(f"{params.reviews:,} reviews to learn from", ["features", "how many", "right"], rows))
    yield Axes("curve", "How much text each needs", "reviews to learn from", "right, in per cent", log_x=True, floors={"the grammar itself": 100 * best})
    counts = (20, 50, 100, 300, 1000, 3000, 5000)
    for done, count in enumerate(counts):
        for name in ("words", "words and pairs", "words, pairs, triples"):
            yield Point("curve", name, count, 100 * accuracy(name, count)[0])
        yield Step(done + 1, len(counts), f"{count} reviews")
    keys = dict(zip(models, ("words", "pairs", "triples", "stopped", "logistic"), strict=True))
    for name, key in keys.items():
        yield Value(key, found[name][0], "right", 0.04)
        yield Value(f"{key}_features", found[name][1], "features", 0.05)
    yield Value("best", best, "right", 0.01)
    yield Value("majority", majority, "right", 0.02)
    yield Value("not_stopped", sum(word in ENGLISH_STOP_WORDS for word in ("not", "never", "no")), "of three words", 0)
    yield Effect("words alone are not much better than guessing", found["words"][0] < 0.75)
    yield Effect("pairs see the negation", found["words and pairs"][0] > found["words"][0] + 0.1)
    yield Effect("removing stop words removes it again", found["the same without stop words"][0] < found["words and pairs"][0] - 0.1)
    yield Effect("nothing is better than the grammar", max(share for share, _ in found.values()) <= best + 0.01)
