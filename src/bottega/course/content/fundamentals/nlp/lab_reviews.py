"""Good or bad? A baseline for sentiment.

Reviews are made of sentences like “the plot was not boring”. Which words to keep, and whether to count pairs of words,
decides what a linear classifier can know at all. Stop words are the classic trap: *not* is on every list of them.
"""

import random
from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 20
THINGS = ("the plot", "the acting", "the food", "the service", "the room", "the music", "the ending", "the staff")
GOOD = ("good", "great", "lovely", "charming", "moving", "funny", "fresh", "kind", "clever", "warm")
BAD = ("bad", "dull", "awful", "boring", "cold", "noisy", "rude", "stale", "clumsy", "slow")
FRAMES = ("{thing} was {says}", "we found {thing} {says}", "{thing} seemed {says}", "honestly , {thing} is {says}")
ASIDES = ("we went there on monday", "i saw it with two friends", "it was our second visit", "my sister chose it")


class Params(Config):
    """What can be changed."""

    train: int = Field(default=800, ge=50, le=5000)
    """Reviews to learn from."""
    negated: float = Field(default=0.4, ge=0.0, le=0.5)
    """Share of opinions that say the contrary with *not* or *never*."""


def run(params: Params) -> Iterator[Event]:
    """Learn from some reviews, judge others."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB

    texts, labels = reviews(params.train, 1, params.negated)
    others, truth = reviews(2000, 2, params.negated)
    majority = max(sum(truth), len(truth) - sum(truth)) / len(truth)
    yield Say(f"For example: {texts[0]}")
    ways = {
        "words": {}, "words, no stop words": {"stop_words": "english"}, "words and pairs": {"ngram_range": (1, 2)},
        "words and pairs, no stop words": {"ngram_range": (1, 2), "stop_words": "english"},
    }  # fmt: skip
    found, rows = {}, []
    for way, settings in ways.items():
        for kind, make in (("counts", CountVectorizer), ("TF-IDF", TfidfVectorizer)):
            vectorizer = make(token_pattern=r"[a-z]+", **settings)
            seen, unseen = vectorizer.fit_transform(texts), vectorizer.transform(others)
            linear = LogisticRegression(C=10.0, max_iter=1000).fit(seen, labels).score(unseen, truth)
            bayes = MultinomialNB().fit(seen, labels).score(unseen, truth)
            found[way, kind] = linear
            rows.append((way, kind, len(vectorizer.vocabulary_), f"{linear:.3f}", f"{bayes:.3f}"))
    columns = ["features", "weighted by", "columns", "logistic regression", "naive Bayes"]
    yield Show("accuracy", Table("Share of 2,000 new reviews judged rightly", columns, rows))
    bars = [Bar(way, found[way, "TF-IDF"], reference=majority) for way in ways]
    yield Show("bars", Bars("What the features can know", "accuracy", bars, percent=True, reference_label="majority"))

    vectorizer = TfidfVectorizer(token_pattern=r"[a-z]+", ngram_range=(1, 2))
    model = LogisticRegression(C=10.0, max_iter=1000).fit(vectorizer.fit_transform(texts), labels)
    weights = dict(zip(vectorizer.get_feature_names_out(), model.coef_[0], strict=True))
    rows = [(word, f"{weights[word]:+.2f}", f"{weights.get(f'not {word}', 0):+.2f}") for word in ("boring", "awful", "funny", "kind")]
    yield Show("weights", Table("What the classifier holds of them", ["word", "weight", "weight of “not …”"], rows,
                                note="Above zero speaks for a good review."))  # fmt: skip
    idf = dict(zip(vectorizer.get_feature_names_out(), vectorizer.idf_, strict=True))
    rows = [(word, sum(f" {word} " in f" {text} " for text in texts), f"{idf[word]:.2f}") for word in ("the", "was", "we", "plot", "boring")]
    yield Show("idf", Table(f"Inverse document frequency in {len(texts)} reviews", ["word", "reviews with it", "idf"], rows))

    words, pairs = found["words", "TF-IDF"], found["words and pairs", "TF-IDF"]
    bare = found["words and pairs, no stop words", "TF-IDF"]
    yield Value("majority", majority, "of the reviews", 0)
    yield Value("words", words, "accuracy", 0.1)
    yield Value("pairs", pairs, "accuracy", 0.05)
    yield Value("pairs_without_stop_words", bare, "accuracy", 0.1)
    yield Value("idf_the", idf["the"], "", 0.1)
    yield Value("idf_boring", idf["boring"], "", 0.1)
    if params.negated >= 0.3 and params.train >= 500:
        yield Effect("pairs know what “not” does, single words do not", pairs > words + 0.15)
        yield Effect("without stop words, pairs are worth nothing", bare < words + 0.05)
        turned = all(weights[w] * weights.get(f"not {w}", 0.0) < 0 for w in ("boring", "awful", "funny", "kind"))
        yield Effect("“not” before a word turns its weight round", turned)


def reviews(count: int, seed: int, negated: float) -> tuple[list[str], list[int]]:
    """Reviews and whether they are good ones (1). Nine of ten opinions agree with the verdict."""
    draw = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        good = draw.random() < 0.5
        parts = []
        for thing in draw.sample(THINGS, 3):
            positive = good if draw.random() < 0.9 else not good
            turned = draw.random() < negated
            word = draw.choice(GOOD if positive != turned else BAD)
            says = f"{draw.choice(('not', 'never'))} {word}" if turned else word
            parts.append(draw.choice(FRAMES).format(thing=thing, says=says))
        parts.insert(draw.randrange(4), draw.choice(ASIDES))
        texts.append(" . ".join(parts) + " .")
        labels.append(int(good))
    return texts, labels
