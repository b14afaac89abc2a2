"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from collections import Counter
from typing import Any


def first_loss(draw: random.Random) -> dict[str, Any]:
    """ln V."""
    vocabulary = draw.choice([500, 1000, 8192, 32000, 50257, 100277, 151936]) + draw.randrange(100)
    return {
        "stem": f"A new model has a vocabulary of {vocabulary:,} tokens. What should its first loss be, in nats?",
        "answer": round(math.log(vocabulary), 3), "tolerance": 0.05, "unit": "nats",
        "why": f"It knows nothing, so each token has the chance 1/V: ln {vocabulary} = {math.log(vocabulary):.3f}.",
        "mistakes": {f"{math.log2(vocabulary):.3f}": "That is in bits: log2 instead of the natural logarithm."},
    }  # fmt: skip


def surprise(draw: random.Random) -> dict[str, Any]:
    """−ln p."""
    p = draw.randrange(4, 80) / 100
    return {
        "stem": f"The model gave the word that really came a probability of {p}. What does this word add to the loss, in nats?",
        "answer": round(-math.log(p), 3), "tolerance": 0.01, "unit": "nats",
        "why": f"The cross-entropy of one word is -ln p = -ln {p} = {-math.log(p):.3f}.",
        "mistakes": {f"{1 - p:g}": "1 - p is no logarithm: two words of probability p must cost twice as much as one."},
    }  # fmt: skip


def block_parameters(draw: random.Random) -> dict[str, Any]:
    """4 d² + 3 d f."""
    width = 64 * draw.randint(1, 16)
    inner = 32 * round(width / 12)
    found = 4 * width**2 + 3 * width * inner
    return {
        "stem": f"A block has four attention matrices of {width} × {width} and a gated feed-forward network of width {inner}. "
        "How many weights do its matrices have together?",
        "answer": float(found), "tolerance": 0.0, "unit": "weights",
        "why": f"4 · {width}² + 3 · {width} · {inner} = {4 * width**2:,} + {3 * width * inner:,} = {found:,}.",
        "mistakes": {str(4 * width**2 + 2 * width * inner): "A gated network has three matrices: gate, up and down."},
    }  # fmt: skip


def first_merge(draw: random.Random) -> dict[str, Any]:
    """The most frequent pair."""
    while True:
        text = "".join(draw.choice("abc") for _ in range(12))
        counts = Counter(a + b for a, b in zip(text, text[1:], strict=False)).most_common()
        if len(counts) > 1 and counts[0][1] > counts[1][1]:
            break
    pair, count = counts[0]
    return {
        "stem": f"Which two letters does byte-pair encoding merge first in `{text}`? Write them together.",
        "answer": [pair],
        "why": f"`{pair}` stands there {count} times, more often than any other pair.",
    } | {"stem": f"Byte-pair encoding is trained on `{text}`. Its first merge makes the token ___."}  # fmt: skip


def nucleus_size(draw: random.Random) -> dict[str, Any]:
    """How many tokens top-p keeps."""
    raw = sorted((draw.randint(1, 40) for _ in range(6)), reverse=True)
    probabilities = [x / sum(raw) for x in raw]
    p = draw.choice([0.5, 0.7, 0.8, 0.9])
    covered, kept = 0.0, 0
    while covered < p:
        covered += probabilities[kept]
        kept += 1
    shown = ", ".join(f"{x:.3f}" for x in probabilities)
    return {
        "stem": f"The next word's probabilities are {shown}. How many words does top-p with p = {p} keep?",
        "answer": float(kept), "tolerance": 0.0, "unit": "words",
        "why": f"The smallest set that reaches {p}: the first {kept} sum to {covered:.3f}.",
        "mistakes": {str(kept - 1): "One too few: their sum is still below p. The word that crosses p belongs to it."},
    }  # fmt: skip


def tempered(draw: random.Random) -> dict[str, Any]:
    """A softmax at a temperature."""
    gap, temperature = draw.choice([0.5, 1.0, 1.5, 2.0, 3.0]), draw.choice([0.4, 0.5, 0.8, 1.25, 2.0])
    p = 1 / (1 + math.exp(-gap / temperature))
    return {
        "stem": f"Two words have the logits {gap:g} and 0. What is the first one's probability at temperature {temperature:g}?",
        "answer": round(p, 3), "tolerance": 0.005, "unit": "",
        "why": f"1 / (1 + e^(-{gap:g}/{temperature:g})) = {p:.3f}: the logits are divided by the temperature first.",
        "mistakes": {f"{1 / (1 + math.exp(-gap * temperature)):.3f}": "The logits are divided by the temperature, not multiplied."},
    }  # fmt: skip


def beams_alive(draw: random.Random) -> dict[str, Any]:
    """b·V candidates."""
    beams, vocabulary = draw.randint(2, 10), draw.choice([10, 85, 500, 1000])
    return {
        "stem": f"Beam search with {beams} beams and a vocabulary of {vocabulary}: how many candidates are compared in a step "
        "(not the first)?",
        "answer": float(beams * vocabulary), "tolerance": 0.0, "unit": "candidates",
        "why": f"Each of the {beams} beams is extended with each of the {vocabulary} words; the best {beams} go on.",
        "mistakes": {str(vocabulary): "That is one beam, greedy decoding."},
    }  # fmt: skip


def score_count(draw: random.Random) -> dict[str, Any]:
    """T(T+1)/2."""
    length = draw.randint(4, 200)
    return {
        "stem": f"How many scores does one head need for a text of {length} tokens under the causal mask?",
        "answer": float(length * (length + 1) // 2), "tolerance": 0.0, "unit": "scores",
        "why": f"Token i looks at i tokens, itself included: 1 + 2 + … + {length} = {length * (length + 1) // 2:,}.",
        "mistakes": {str(length * length): "Half of the square lies in the future and is masked."},
    }  # fmt: skip
