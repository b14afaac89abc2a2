"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from typing import Any


def ngram_count(draw: random.Random) -> dict[str, Any]:
    """len - n + 1, distinct ones among them."""
    words = [draw.choice(["the", "owl", "saw", "a", "fox"]) for _ in range(draw.randint(6, 9))]
    size = draw.choice([2, 3])
    runs = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
    found = len(set(runs))
    mistakes = {} if len(runs) == found else {str(len(runs)): "So many runs there are; equal ones share a column."}
    if len(words) not in (found, len(runs)):
        mistakes[str(len(words))] = "So many words there are; the last ones begin no run."
    return {
        "stem": f"How many columns do the runs of {size} words of “{' '.join(words)}” need?",
        "answer": found, "tolerance": 0, "unit": "columns",
        "why": f"{len(words)} − {size} + 1 = {len(runs)} runs, {found} of them different.", "mistakes": mistakes,
    }  # fmt: skip


def smooth_idf(draw: random.Random) -> dict[str, Any]:
    """ln((1 + n)/(1 + df)) + 1."""
    count = draw.randint(4, 60)
    df = draw.randint(1, count - 1)
    found = math.log((1 + count) / (1 + df)) + 1
    return {
        "stem": f"{df} of {count} documents have a word. What is its smoothed idf, ln((1 + n)/(1 + df)) + 1?",
        "answer": round(found, 3), "tolerance": 0.01, "unit": "",
        "why": f"ln({1 + count}/{1 + df}) + 1 = {found:.3f}.",
        "mistakes": {f"{found - 1:.3f}": "The one behind the logarithm is missing."},
    }  # fmt: skip


def majority(draw: random.Random) -> dict[str, Any]:
    """The larger class."""
    total, other = draw.choice([200, 400, 500, 800, 1000]), draw.randint(5, 45)
    return {
        "stem": f"Of {total} texts {other} % are spam. What accuracy has a classifier that never looks at the text, in per cent?",
        "answer": 100 - other, "tolerance": 0, "unit": "%",
        "why": f"It always says “no spam”, and is right in {100 - other} %. A classifier is to be held against that.",
        "mistakes": {"50": "Tossing a coin is not the best that one can do without looking."},
    }  # fmt: skip


def pmi(draw: random.Random) -> dict[str, Any]:
    """ln(n c / (a b))."""
    a, b = draw.choice([100, 200, 400]), draw.choice([50, 100, 250])
    total = draw.choice([10_000, 20_000, 100_000])
    expected = a * b / total
    together = max(2, round(expected * draw.choice([2, 4, 8, 20])))
    found = math.log(together * total / (a * b))
    return {
        "stem": f"Among {total:,} pairs of neighbours one word occurs {a} times, another {b} times, and they are neighbours "
        f"{together} times. What is their pointwise mutual information, in nats?",
        "answer": round(found, 3), "tolerance": 0.02, "unit": "nats",
        "why": f"By chance they would be neighbours {expected:g} times: ln({together}/{expected:g}) = {found:.3f}.",
        "mistakes": {f"{found / math.log(2):.3f}": "Those are bits: nats use the natural logarithm."},
    }  # fmt: skip


def first_loss(draw: random.Random) -> dict[str, Any]:
    """(1 + k) ln 2."""
    samples = draw.randint(2, 20)
    found = (1 + samples) * math.log(2)
    return {
        "stem": f"Skip-gram with {samples} negative samples begins with context vectors of zeros. What is the loss of a pair, in nats?",
        "answer": round(found, 3), "tolerance": 0.01, "unit": "nats",
        "why": f"Every score is 0, and each of the 1 + {samples} guesses costs −ln σ(0) = ln 2: {found:.3f}.",
        "mistakes": {f"{samples * math.log(2):.3f}": "The true neighbour is a guess as well."},
    }  # fmt: skip


def rnn_step(draw: random.Random) -> dict[str, Any]:
    """tanh(w x + u h)."""
    w, u, x, h = (draw.choice((-1, 1)) * draw.randint(4, 9) / 10 for _ in range(4))
    u = abs(u) if w * x * h > 0 else -abs(u)  # both parts pull the same way, so that the answer is not near zero
    found = math.tanh(w * x + u * h)
    return {
        "stem": f"A recurrent network of one number: h' = tanh(w x + u h), w = {w}, u = {u}. It stands at h = {h} and reads x = {x}. What is h'?",
        "answer": round(found, 3), "tolerance": 0.005, "unit": "",
        "why": f"tanh({w * x + u * h:.3f}) = {found:.3f}.", "mistakes": {},
    }  # fmt: skip


def shrinking(draw: random.Random) -> dict[str, Any]:
    """r^n."""
    rate, steps = draw.choice([0.5, 0.6, 0.7, 0.8]), draw.randint(10, 30)
    found = rate**steps
    return {
        "stem": f"Each step back multiplies a gradient by {rate}. By what is it multiplied after {steps} steps?",
        "answer": float(f"{found:.4g}"), "tolerance": 0.02 * found, "unit": "",
        "why": f"{rate}^{steps} = {found:.3g}.",
        "mistakes": {f"{rate * steps:.6g}": "Steps multiply, they do not add up."},
    }  # fmt: skip


def kept(draw: random.Random) -> dict[str, Any]:
    """σ(b)^n."""
    bias, steps = draw.choice([1, 2, 3, 4]), draw.choice([5, 10, 20])
    gate = 1 / (1 + math.exp(-bias))
    found = 100 * gate**steps
    return {
        "stem": f"A forget gate stands at σ({bias}), and nothing new comes in. How many per cent of the cell are left after {steps} steps?",
        "answer": float(f"{found:.4g}"), "tolerance": 0.03 * found, "unit": "%",
        "why": f"σ({bias}) = {gate:.3f}, and {gate:.3f}^{steps} = {found / 100:.3g}.", "mistakes": {},
    }  # fmt: skip
