"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from typing import Any


def training_cost(draw: random.Random) -> dict[str, Any]:
    """6 N D."""
    size, tokens = draw.choice([1, 3, 7, 13, 70]) * draw.randint(1, 4), draw.randint(1, 20) * 100
    found = 6 * size * 1e9 * tokens * 1e9
    return {
        "stem": f"A model of {size} billion parameters reads {tokens} billion tokens. How many floating-point operations is that, roughly?",
        "answer": found, "tolerance": 0.02 * found, "unit": "operations",
        "why": f"6ND = 6 · {size}e9 · {tokens}e9 = {found:.3g}.",
        "mistakes": {f"{found / 3:.6g}": "2ND is the way forward alone; the way back costs twice as much again."},
    }  # fmt: skip


def memory_adam(draw: random.Random) -> dict[str, Any]:
    """16 bytes a parameter."""
    size = draw.choice([1, 1.5, 3, 7, 8, 13, 34, 70]) + draw.randint(0, 9) / 10
    return {
        "stem": f"How many gigabytes (10⁹ bytes) do weights, gradients and Adam's states of a model of {size:g} billion parameters take in mixed precision?",
        "answer": round(16 * size, 1), "tolerance": round(0.1 * size, 2), "unit": "GB",
        "why": f"2 + 2 + 4 + 4 + 4 = 16 bytes for each: 16 · {size:g} = {16 * size:g}.",
        "mistakes": {f"{2 * size:g}": "That are the weights alone, as for writing with the model."},
    }  # fmt: skip


def bits_per_byte(draw: random.Random) -> dict[str, Any]:
    """nats / (ln 2 · bytes)."""
    loss, size = draw.randint(12, 40) / 10, draw.choice([2.5, 3.0, 3.8, 4.2, 4.5])
    found = loss / math.log(2) / size
    return {
        "stem": f"A model has {loss} nats a token, and its tokens hold {size} bytes on average. How many bits per byte is that?",
        "answer": round(found, 3), "tolerance": 0.01, "unit": "bits per byte",
        "why": f"{loss} / ln 2 / {size} = {found:.3f}.",
        "mistakes": {f"{loss / size:.3f}": "Those are nats: divide by ln 2 = 0.693 to get bits."},
    }  # fmt: skip


def perplexity_of(draw: random.Random) -> dict[str, Any]:
    """e^L."""
    loss = draw.randint(5, 40) / 10
    return {
        "stem": f"What is the perplexity of a loss of {loss} nats?",
        "answer": round(math.exp(loss), 2), "tolerance": round(0.01 * math.exp(loss), 3), "unit": "",
        "why": f"e^{loss} = {math.exp(loss):.2f}.",
        "mistakes": {f"{2**loss:.2f}": "2 to the power of the loss is right for bits, not for nats."},
    }  # fmt: skip


def chinchilla(draw: random.Random) -> dict[str, Any]:
    """N = sqrt(C / 120)."""
    budget = draw.randint(1, 9) * 10 ** draw.choice([19, 20, 21, 22])
    size = math.sqrt(budget / 120) / 1e9
    return {
        "stem": f"By the rule of 20 tokens a parameter, how many billion parameters should {budget:.0e} operations train?",
        "answer": round(size, 3), "tolerance": round(0.03 * size, 4), "unit": "billion",
        "why": f"6 N · 20 N = 120 N²; N = sqrt({budget:.0e} / 120) = {size:.3f} billion.",
        "mistakes": {f"{math.sqrt(budget / 6) / 1e9:.3f}": "The tokens are 20 N: 6 N · 20 N = 120 N²."},
    }  # fmt: skip


def ring_share(draw: random.Random) -> dict[str, Any]:
    """2 (n − 1) / n."""
    workers = draw.randint(3, 64)
    found = 2 * (workers - 1) / workers
    return {
        "stem": f"{workers} workers add up a gradient in a ring. How many times its gradient does each send?",
        "answer": round(found, 4), "tolerance": 0.005, "unit": "times",
        "why": f"2 (n - 1) / n = 2 · {workers - 1} / {workers} = {found:.4f}.",
        "mistakes": {str(workers - 1): "That would be sending all of it to everybody; in a ring only pieces travel."},
    }  # fmt: skip


def pipeline_bubble(draw: random.Random) -> dict[str, Any]:
    """(p − 1) / (m + p − 1)."""
    stages, parts = draw.randint(2, 8), draw.choice([1, 2, 4, 8, 16, 32])
    found = 100 * (stages - 1) / (parts + stages - 1)
    return {
        "stem": f"A pipeline of {stages} stages works on {parts} part(s) of a batch. Which share of the time is idle, in per cent?",
        "answer": round(found, 2), "tolerance": 0.6, "unit": "%",
        "why": f"({stages} - 1) / ({parts} + {stages} - 1) = {found:.1f} %.",
    }  # fmt: skip


def jaccard(draw: random.Random) -> dict[str, Any]:
    """|A ∩ B| / |A ∪ B|."""
    shared, first, second = draw.randint(5, 60), draw.randint(5, 60), draw.randint(5, 60)
    found = shared / (shared + first + second)
    return {
        "stem": f"Two documents share {shared} runs of words; the first has {first} more, the second {second} more. What is their Jaccard similarity?",
        "answer": round(found, 3), "tolerance": 0.005, "unit": "",
        "why": f"{shared} / ({shared} + {first} + {second}) = {found:.3f}.",
        "mistakes": {f"{shared / (shared + first):.3f}": "The union counts what either has, not what the first has."},
    }  # fmt: skip
