"""Meaning from neighbours: four ways to a word vector.

Every word of the stories gets a vector from nothing but the words around it: by counting (PPMI and a singular value
decomposition), by prediction (skip-gram with negative samples), and by fitting logarithms of counts (GloVe). As a
grammar made the stories, it is known which words belong together, and how well each way finds that can be counted.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Heat, Series, Table
from bottega.course import world
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 30
SIZE = 16  # numbers of a vector
BATCH, SAMPLES = 1024, 5


class Params(Config):
    """What can be changed."""

    stories: int = Field(default=1000, ge=50, le=5000)
    """Stories to read."""
    window: int = Field(default=3, ge=1, le=10)
    """How many words to each side are neighbours."""
    steps: int = Field(default=1500, ge=50, le=5000)
    """Steps of skip-gram and of GloVe."""
    rate: float = Field(default=0.3, gt=0.0, le=10.0)
    """Learning rate of skip-gram."""
    plain: bool = False
    """Plain gradient descent instead of Adagrad."""


def run(params: Params) -> Iterator[Event]:
    """Count, decompose, predict, fit; then compare neighbours."""
    stories = [story.words for story in world.stories(0, params.stories)]
    words = sorted({word for story in stories for word in story})
    ids = {word: at for at, word in enumerate(words)}
    centres, contexts = pairs(stories, ids, params.window)
    counts = np.zeros((len(words), len(words)))
    np.add.at(counts, (centres, contexts), 1)
    yield Say(f"{len(centres):,} pairs of neighbours, {len(words)} words.")

    found = {"counts": counts, "PPMI": ppmi(counts)}
    u, s, _ = np.linalg.svd(found["PPMI"])
    found["PPMI, SVD"] = u[:, :SIZE] * s[:SIZE] ** 0.5
    yield Axes("loss", "Skip-gram learns", "step", "loss of a pair")
    for step, loss, vectors in skip_gram(centres, contexts, len(words), params):
        yield Point("loss", "loss", step, loss)
        yield Step(step, params.steps, f"loss {loss:.3f}")
        found["skip-gram"] = vectors
    found["GloVe"] = glove(counts, params.steps)

    classes = {word: kind for word, kind in world.word_classes().items() if word in ids}
    purity = {name: purity_of(vectors, words, classes) for name, vectors in found.items()}
    yield Show("purity", Bars("Words whose nearest neighbour is of their own class", "share",
                              [Bar(name, value) for name, value in purity.items()], percent=True))  # fmt: skip
    shown = ("fox", "red", "ball", "park", "anna", "happy")
    rows = [(word, *(", ".join(nearest(found[name], words, word, 3)) for name in ("PPMI, SVD", "skip-gram", "GloVe")))
            for word in shown if word in ids]  # fmt: skip
    yield Show("nearest", Table("The three nearest words", ["word", "PPMI, SVD", "skip-gram", "GloVe"], rows))
    ordered = sorted(classes, key=lambda word: (classes[word], word))
    unit = normed(found["skip-gram"])[[ids[word] for word in ordered]]
    names = [f"{word} ({classes[word]})" for word in ordered]
    yield Show("similarity", Heat("Cosines of skip-gram's vectors, sorted by class", "word", "word", names, ordered,
                                  np.clip(unit @ unit.T, 0, 1).round(3).tolist(), low=0.0, high=1.0))  # fmt: skip

    few = {name: [] for name in ("counts", "PPMI, SVD", "skip-gram")}
    for number in (3, 10, 30, 100, 300):
        for name, value in purity_of_few(stories[:number], words, ids, classes, params).items():
            few[name].append((number, value))
    yield Show("few", Chart("How much text each needs", "stories", "nearest neighbour of the own class",
                            [Series(name, points) for name, points in few.items()], log_x=True))  # fmt: skip
    yield Value("pairs", len(centres), "pairs", 0)
    for name, key in (("counts", "counts"), ("PPMI", "ppmi"), ("PPMI, SVD", "svd"), ("skip-gram", "sgns"), ("GloVe", "glove")):
        yield Value(f"purity_{key}", purity[name], "of the words", 0.15)
    for name, key in (("counts", "counts"), ("PPMI, SVD", "svd"), ("skip-gram", "sgns")):
        yield Value(f"ten_{key}", dict(few[name])[10], "of the words, after ten stories", 0.3)
    if not params.plain and params.rate <= 1 and params.steps >= 500 and params.stories >= 300:
        yield Effect("skip-gram finds every class", purity["skip-gram"] > 0.95)
        yield Effect("so does counting with PPMI", purity["PPMI, SVD"] > 0.9)
        yield Effect("GloVe nearly so", purity["GloVe"] > 0.8)
    yield Effect("all numbers are finite", all(bool(np.isfinite(each).all()) for each in found.values()))


def purity_of_few(stories, words, ids, classes, params) -> dict[str, float]:
    """How pure the neighbours are when only these stories were read."""
    centres, contexts = pairs(stories, ids, params.window)
    counts = np.ones((len(words), len(words))) * 1e-3
    np.add.at(counts, (centres, contexts), 1)
    u, s, _ = np.linalg.svd(ppmi(counts))
    *_, (_, _, predicted) = skip_gram(centres, contexts, len(words), params.model_copy(update={"steps": 300}))
    ways = {"counts": counts, "PPMI, SVD": u[:, :SIZE] * s[:SIZE] ** 0.5, "skip-gram": predicted}
    return {name: purity_of(vectors, words, classes) for name, vectors in ways.items()}


def pairs(stories, ids, window: int):
    """Centre and context of every pair of neighbours, as ids."""
    centres, contexts = [], []
    for story in stories:
        row = np.array([ids[word] for word in story])
        for distance in range(1, window + 1):
            centres += [row[:-distance], row[distance:]]
            contexts += [row[distance:], row[:-distance]]
    return np.concatenate(centres), np.concatenate(contexts)


def ppmi(counts):
    """max(0, ln p(w, c) / (p(w) p(c))), with p(c) smoothed by the power 0.75."""
    smooth = counts.sum(0) ** 0.75
    expected = counts.sum(1, keepdims=True) * (smooth / smooth.sum())
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(counts / expected), 0)


def skip_gram(centres, contexts, size: int, params):
    """Vectors by skip-gram with negative samples; yields step, loss and vectors now and then."""
    draw = np.random.default_rng(0)
    table, other = draw.normal(0, 0.1, (size, SIZE)), np.zeros((size, SIZE))
    squares, other_squares = np.full_like(table, 1e-8), np.full_like(other, 1e-8)
    noise = np.bincount(contexts, minlength=size) ** 0.75
    noise = noise / noise.sum()
    for step in range(1, params.steps + 1):
        at = draw.integers(len(centres), size=BATCH)
        centre = centres[at]
        targets = np.concatenate([contexts[at][:, None], draw.choice(size, (BATCH, SAMPLES), p=noise)], axis=1)
        wanted = np.zeros((BATCH, 1 + SAMPLES))
        wanted[:, 0] = 1
        v, u = table[centre], other[targets]
        scores = np.einsum("bd,bkd->bk", v, u)
        error = 1 / (1 + np.exp(-np.clip(scores, -500, 500))) - wanted
        grad, other_grad = np.zeros_like(table), np.zeros_like(other)
        np.add.at(grad, centre, np.einsum("bk,bkd->bd", error, u) / BATCH * size)
        np.add.at(other_grad, targets, error[:, :, None] * v[:, None] / BATCH * size)
        for weights, slope, history in ((table, grad, squares), (other, other_grad, other_squares)):
            history += slope**2
            weights -= params.rate * (slope if params.plain else slope / np.sqrt(history))
        if step % 50 == 0 or step in (1, 2, 5, 10, 20) or step == params.steps:
            signs = np.where(wanted == 1, 1, -1) * scores
            yield step, float(np.logaddexp(0, -signs).sum(1).mean()), table


def glove(counts, steps: int):
    """Vectors whose products fit ln counts, rare pairs counting less (Pennington et al. 2014)."""
    draw = np.random.default_rng(0)
    size = len(counts)
    weight = np.minimum(1, (counts / np.quantile(counts[counts > 0], 0.9)) ** 0.75)
    target = np.log(np.maximum(counts, 1))
    tables = [draw.normal(0, 0.1, (size, SIZE)), draw.normal(0, 0.1, (size, SIZE)), np.zeros(size), np.zeros(size)]
    squares = [np.full_like(each, 1e-8) for each in tables]
    for _ in range(steps):
        left, right, left_bias, right_bias = tables
        error = weight * (left @ right.T + left_bias[:, None] + right_bias - target)
        for at, slope in enumerate((error @ right, error.T @ left, error.sum(1), error.sum(0))):
            squares[at] += slope**2
            tables[at] -= 0.1 * slope / np.sqrt(squares[at])
    return tables[0] + tables[1]


def normed(vectors):
    """Each vector with length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def nearest(vectors, words, word: str, count: int) -> list[str]:
    """The words with the largest cosines."""
    unit = normed(vectors)
    cosines = unit @ unit[words.index(word)]
    return [words[at] for at in np.argsort(-cosines) if words[at] != word][:count]


def purity_of(vectors, words, classes) -> float:
    """The share of the words with a class whose nearest among them is of the same class."""
    chosen = [word for word in words if word in classes]
    unit = normed(vectors)[[words.index(word) for word in chosen]]
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return float(np.mean([classes[chosen[at]] == classes[word] for at, word in zip(cosines.argmax(1), chosen, strict=True)]))
