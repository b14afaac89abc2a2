"""Words by their neighbours.

Thousands of stories are read, and every word gets a vector from nothing but the words that stand beside it. The grammar
knows which words are names, animals, colours. Nobody tells the vectors; do they find out?
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course import world
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 20
BATCH = 1024
LOST = 100.0  # a loss at which a run is given up


class Params(Config):
    """What can be changed."""

    stories: int = Field(default=3000, ge=20, le=6000)
    """Stories to read."""
    window: int = Field(default=2, ge=1, le=10)
    """Words on each side that count as neighbours."""
    size: int = Field(default=16, ge=2, le=64)
    """Numbers in a word's vector."""
    negatives: int = Field(default=5, ge=1, le=20)
    """Random words against each true neighbour."""
    steps: int = Field(default=1200, ge=50, le=5000)
    """Steps of a thousand pairs."""


def run(params: Params) -> Iterator[Event]:
    """Count, train three kinds of vectors, and hold them against the grammar."""
    told = [story.words for story in world.stories(0, params.stories)]
    words = sorted({word for text in told for word in text})
    place = {word: i for i, word in enumerate(words)}
    texts = [[place[word] for word in text] for text in told]
    pairs = _pairs(texts, params.window)
    counts = np.zeros((len(words), len(words)))
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    classes = world.word_classes()
    yield Say(f"{params.stories:,} stories, {sum(map(len, texts)):,} words, {len(pairs):,} pairs of neighbours.")

    found: dict[str, np.ndarray] = {"counts": counts, "PPMI and SVD": _ppmi_svd(counts, params.size)}
    frequency = np.bincount(np.concatenate(texts), minlength=len(words)).astype(float)
    yield Axes("loss", "Skip-gram with negative samples", "step", "nats per pair", log_y=True)
    ends = {}
    for rule in ("Adagrad", "summed SGD"):
        vectors, losses = yield from _skip_gram(params, pairs, frequency, rule)
        ends[rule] = losses
        if rule == "Adagrad":
            found["skip-gram"] = vectors
    found["GloVe"] = _glove(counts, params.size)
    found["GloVe, zeros too"] = _glove(counts, params.size, 5.0)
    found["chance"] = np.random.default_rng(5).normal(size=(len(words), params.size))
    purity = {name: _purity(vectors, words, classes) for name, vectors in found.items()}
    bars = [Bar(name, share, baseline=name == "chance") for name, share in purity.items()]
    title = "Words whose nearest neighbour is of their own class"
    yield Show("purity", Bars(title, "share", bars, percent=True))
    rows = []
    for word in (each for each in ("mia", "cat", "brave", "dance", "forest", "golden", "key", "rainy") if each in place):
        near = _nearest(found["skip-gram"], place[word])[:4]
        rows.append((word, classes[word], ", ".join(words[i] for i in near)))
    yield Show("nearest", Table("Nearest by skip-gram, among all words", ["word", "its class", "nearest"], rows))
    shown = [each for each in ("red", "golden", "the", "mia", ".") if each in place]
    pmi = _pmi(counts)
    table = [
        (word, f"{int(counts[place[word], place['ball']]):,}", f"{pmi[place[word], place['ball']]:.2f}") for word in shown
    ]
    yield Show("beside", Table("Beside “ball”", ["word", "times", "pointwise mutual information"], table))
    yield Value("vocabulary", len(words), "words", 0)
    yield Value("pairs", len(pairs), "pairs", 0)
    yield Value("classed", sum(word in classes for word in words), "words", 0)
    for name, key in (("counts", "counts"), ("PPMI and SVD", "svd"), ("skip-gram", "skip_gram"), ("GloVe", "glove"),
                      ("GloVe, zeros too", "glove_zeros"), ("chance", "chance")):  # fmt: skip
        yield Value(f"{key}_purity", purity[name], "of the words", {"glove": 0.2, "chance": 2}.get(key, 0.1))
    yield Value("start", ends["Adagrad"][0], "nats per pair", 0.02)
    yield Value("end", float(np.mean(ends["Adagrad"][-20:])), "nats per pair", 0.1)
    yield Value("diverged", max(ends["summed SGD"]), "nats per pair", 5)
    yield Value("diverged_at", len(ends["summed SGD"]), "steps", 0.5)
    yield Value("pmi_red", float(pmi[place["red"], place["ball"]]), "nats", 0.1)
    yield Value("pmi_the", float(pmi[place["the"], place["ball"]]), "nats", 0.1)
    yield Effect("nearly every word's nearest neighbour by skip-gram is of its class", purity["skip-gram"] > 0.9)
    yield Effect("counting and taking apart does as well", purity["PPMI and SVD"] > 0.9)
    yield Effect("random vectors do not", purity["chance"] < 0.4)
    yield Effect("summed SGD leaves the rails where Adagrad does not", max(ends["summed SGD"]) > 3 * ends["Adagrad"][0])


def _pairs(texts: list[list[int]], window: int) -> np.ndarray:
    found = []
    for text in texts:
        for i, word in enumerate(text):
            found += [(word, text[j]) for j in range(max(0, i - window), min(len(text), i + window + 1)) if j != i]
    return np.array(found)


def _pmi(counts: np.ndarray) -> np.ndarray:
    total = counts.sum()
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(counts / expected)


def _ppmi_svd(counts: np.ndarray, size: int) -> np.ndarray:
    positive = np.nan_to_num(np.maximum(_pmi(counts), 0), nan=0.0, posinf=0.0, neginf=0.0)
    left, strengths, _ = np.linalg.svd(positive)
    return left[:, :size] * np.sqrt(strengths[:size])


def _skip_gram(params: Params, pairs: np.ndarray, frequency: np.ndarray, rule: str) -> Iterator[Event]:
    """Train centre and context vectors; returns the centre vectors and the losses."""
    draw = np.random.default_rng(1)
    count = len(frequency)
    centre, context = draw.normal(size=(2, count, params.size)) * 0.1
    centre_squares, context_squares = np.full((count, 1), 1e-8), np.full((count, 1), 1e-8)
    noise = frequency**0.75 / (frequency**0.75).sum()
    losses: list[float] = []
    steps = params.steps if rule == "Adagrad" else min(params.steps, 200)
    for step in range(steps):
        chosen = pairs[draw.integers(0, len(pairs), BATCH)]
        word = chosen[:, 0]
        others = np.concatenate([chosen[:, 1:], draw.choice(count, (BATCH, params.negatives), p=noise)], 1)
        scores = np.einsum("bd,bkd->bk", centre[word], context[others])
        scores[:, 1:] *= -1  # a random word is to have a low score
        losses.append(float(np.logaddexp(0, -scores).sum(1).mean()))
        if losses[-1] > LOST:
            yield Point("loss", rule, step, losses[-1])
            break
        slope = -0.5 * (1 - np.tanh(scores / 2))  # of ln(1 + exp(-score))
        slope[:, 1:] *= -1
        by_centre, by_context = np.zeros_like(centre), np.zeros_like(context)
        np.add.at(by_centre, word, np.einsum("bk,bkd->bd", slope, context[others]))
        np.add.at(by_context, others, slope[:, :, None] * centre[word][:, None])
        if rule == "Adagrad":
            for values, gradient, squares in ((centre, by_centre, centre_squares), (context, by_context, context_squares)):
                squares += (gradient**2).mean(1, keepdims=True)
                values -= 0.2 * gradient / np.sqrt(squares)
        else:
            centre -= 0.1 * by_centre
            context -= 0.1 * by_context
        if step % 20 == 0:
            yield Point("loss", rule, step, losses[-1])
            yield Step(step, steps, f"{rule}: {losses[-1]:.3f}")
    return centre, losses


def _glove(counts: np.ndarray, size: int, zeros: float = 0.0) -> np.ndarray:
    """Weighted least squares on the logarithms of the counts, with Adagrad."""
    draw = np.random.default_rng(2)
    weight = np.minimum(1, np.maximum(counts, zeros) / 100) ** 0.75
    logarithm = np.log(np.maximum(counts, 0.5 if zeros else 1))
    parts = [draw.normal(size=(len(counts), size)) * 0.1, draw.normal(size=(len(counts), size)) * 0.1,
             np.zeros((len(counts), 1)), np.zeros((len(counts), 1))]  # fmt: skip
    squares = [np.full_like(part, 1e-8) for part in parts]
    for _ in range(500):
        words, contexts, word_bias, context_bias = parts
        error = weight * (words @ contexts.T + word_bias + context_bias.T - logarithm)
        gradients = (error @ contexts, error.T @ words, error.sum(1, keepdims=True), error.sum(0)[:, None])
        for part, gradient, square in zip(parts, gradients, squares, strict=True):
            square += gradient**2
            part -= 0.2 * gradient / np.sqrt(square)
    return parts[0] + parts[1]


def _nearest(vectors: np.ndarray, word: int) -> np.ndarray:
    """Other words, the nearest by cosine first."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scores = unit @ unit[word]
    scores[word] = -2
    return np.argsort(-scores)[:-1]


def _purity(vectors: np.ndarray, words: list[str], classes: dict[str, str]) -> float:
    """Of the words that have a class, how many have a nearest neighbour, among all words, of the same one."""
    classed = [i for i, word in enumerate(words) if word in classes]
    same = [classes.get(words[_nearest(vectors, i)[0]]) == classes[words[i]] for i in classed]
    return float(np.mean(same))
