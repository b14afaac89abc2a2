"""How many directions a table has.

A picture and a table of counts are matrices. Their singular values say how much of each a few directions hold: the
picture is rebuilt from one, two, five of them, and the words of the stories fall into their places.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Heat, Series, Table
from bottega.course import world
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 10


class Params(Config):
    """What can be changed."""

    rank: int = Field(default=2, ge=1, le=24)
    """Directions to rebuild the picture from."""
    noise: float = Field(default=0.05, ge=0.0, le=1.0)
    """Noise that is laid over the picture."""


def run(params: Params) -> Iterator[Event]:
    """Decompose the picture and the counts."""
    picture = face() + params.noise * np.random.default_rng(0).normal(size=(24, 24))
    u, s, vt = np.linalg.svd(picture)
    rebuilt = (u[:, : params.rank] * s[: params.rank]) @ vt[: params.rank]
    names = [str(each) for each in range(24)]
    for name, title, values in (("picture", "The picture: 24 × 24 = 576 numbers", picture),
                                ("rebuilt", f"From {params.rank} directions: {params.rank * 49} numbers", rebuilt)):  # fmt: skip
        yield Show(name, Heat(title, "row", "column", names, names, values.round(3).tolist(), low=0.0, high=1.0))
    energy = np.cumsum(s**2) / np.sum(s**2)
    random = np.linalg.svd(np.random.default_rng(1).normal(size=(24, 24)), compute_uv=False)
    yield Show("values", Chart("Singular values, as shares of the largest", "number", "share", [
        Series("the picture", [(at + 1, float(each / s[0])) for at, each in enumerate(s)]),
        Series("random numbers", [(at + 1, float(each / random[0])) for at, each in enumerate(random)]),
    ]))  # fmt: skip
    rows = []
    for rank in (1, 2, 3, 5, 10, 24):
        part = (u[:, :rank] * s[:rank]) @ vt[:rank]
        left = np.linalg.norm(picture - part) / np.linalg.norm(picture)
        predicted = np.sqrt(max(1 - energy[rank - 1], 0))
        rows.append((rank, rank * 49, f"{left:.4f}", f"{predicted:.4f}"))
    yield Show("table", Table("What is left out", ["rank", "numbers kept", "error, measured", "error, from the singular values"], rows))

    words, counts = neighbours()
    left, values, _ = np.linalg.svd(np.log1p(counts))
    share = np.cumsum(values**2) / np.sum(values**2)
    places = left[:, :3] * values[:3]
    classes = world.word_classes()
    rows = []
    for word in ("fox", "red", "anna", "park", "ball"):
        if word in words:
            gaps = np.linalg.norm(places - places[words.index(word)], axis=1)
            near = [words[at] for at in np.argsort(gaps) if words[at] != word][:3]
            rows.append((word, classes.get(word, ""), ", ".join(near)))
    yield Show("words", Table("Nearest in three directions", ["word", "class", "nearest"], rows))
    yield Say(f"{len(words)} words, {len(words)} columns: the first three directions hold {share[2]:.1%} of the squares.")
    two = float(np.linalg.norm(picture - (u[:, :2] * s[:2]) @ vt[:2]) / np.linalg.norm(picture))
    yield Value("error_1", float(np.sqrt(1 - energy[0])), "of the length", 0.05)
    yield Value("error_2", two, "of the length", 0.1)
    yield Value("error_5", float(np.sqrt(1 - energy[4])), "of the length", 0.1)
    yield Value("words_share", float(share[2]), "of the squares", 0.05)
    yield Effect("the error is what the singular values say", abs(two - np.sqrt(1 - energy[1])) < 1e-9)
    if params.noise <= 0.1:
        yield Effect("three directions hold nearly all of the picture", energy[2] > 0.98)
    yield Effect("random numbers have no few directions", float(np.sum(random[:3] ** 2) / np.sum(random**2)) < 0.5)
    same = sum(classes.get(row[2].split(", ")[0]) == row[1] for row in rows)
    yield Effect("nearest words are of the same class", same >= len(rows) - 1)


def face():
    """A picture of bars and a square: three products of a column and a row, so that its rank is three."""
    y, x = np.mgrid[0:24, 0:24]
    bars = np.where((x // 4) % 2 == 0, 0.5, 0.0)
    square = np.where((abs(x - 11.5) < 6) & (abs(y - 11.5) < 6), 0.4, 0.0)
    line = np.where(abs(y - 20) < 2, 0.3, 0.0)
    return bars + square + line


def neighbours():
    """Words, and how often each stands within two places of each."""
    stories = [story.words for story in world.stories(0, 500)]
    words = sorted({word for story in stories for word in story})
    at = {word: place for place, word in enumerate(words)}
    counts = np.zeros((len(words), len(words)))
    for story in stories:
        for place, word in enumerate(story):
            for other in story[max(0, place - 2) : place]:
                counts[at[word], at[other]] += 1
                counts[at[other], at[word]] += 1
    return words, counts
