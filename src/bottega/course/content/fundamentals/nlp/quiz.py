"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
import re
from typing import Any


def ngrams_of(draw: random.Random) -> dict[str, Any]:
    """n − k + 1."""
    words, n = draw.randint(5, 40), draw.choice([2, 3, 4])
    name = {2: "pairs", 3: "triples", 4: "runs of four"}[n]
    return {
        "stem": f"How many {name} of neighbouring words has a text of {words} words, repeated ones counted?",
        "answer": words - n + 1, "tolerance": 0, "unit": "n-grams",
        "why": f"One begins at each word but the last {n - 1}: {words} − {n - 1} = {words - n + 1}.",
        "mistakes": {str(words): f"The last {n - 1} words begin none."},
    }  # fmt: skip


def cut_output(draw: random.Random) -> dict[str, Any]:
    """Words of two characters or more."""
    line = " ".join([
        draw.choice(["I", "a", "A"]), draw.choice(["didn't", "can't", "won't"]), draw.choice(["see", "buy", "read"]),
        draw.choice(["3.50", "2.99", "4.5"]), draw.choice(["U.S.", "e.g.", "p.m."]),
    ])  # fmt: skip
    return {
        "stem": "scikit-learn's usual rule cuts a line into words. What is printed?",
        "code": f'import re\nprint(re.findall(r"\\b\\w\\w+\\b", "{line}"))\n',
        "answer": str(re.findall(r"\b\w\w+\b", line)),
        "why": "Only runs of two or more letters or digits are words: single letters and digits vanish.",
    }


def smooth_idf(draw: random.Random) -> dict[str, Any]:
    """ln((1 + N) / (1 + df)) + 1."""
    documents = draw.choice([4, 9, 19, 99, 999])
    df = draw.randint(1, max(1, documents // 2))
    found = math.log((1 + documents) / (1 + df)) + 1
    return {
        "stem": f"{documents} documents, {df} of them have the word. What is its smoothed idf, ln((1 + N) / (1 + df)) + 1?",
        "answer": round(found, 4), "tolerance": 0.01, "unit": "",
        "why": f"ln({1 + documents} / {1 + df}) + 1 = {found:.3f}.",
        "mistakes": {f"{found - 1:.4g}": "The 1 behind the logarithm is missing."},
    }  # fmt: skip


def bayes_word(draw: random.Random) -> dict[str, Any]:
    """(count + 1) / (total + V)."""
    count, total, size = draw.randint(0, 6), draw.randint(10, 60), draw.choice([8, 10, 20, 25])
    found = (count + 1) / (total + size)
    return {
        "stem": f"A class has {total} words in its texts, {count} of them are “slow”; the vocabulary has {size} words. What is P(slow | class) with one added to each count?",
        "answer": round(found, 5), "tolerance": round(found / 50, 6), "unit": "",
        "why": f"({count} + 1) / ({total} + {size}) = {found:.4f}.",
        "mistakes": {f"{(count + 1) / (total + 1):.5f}": "One is added for every word of the vocabulary, not once."},
    }  # fmt: skip


def pmi_of(draw: random.Random) -> dict[str, Any]:
    """ln(P(w, c) / P(w)P(c))."""
    total = draw.choice([1000, 10000])
    one, two = draw.randint(20, 100), draw.randint(20, 100)
    both = draw.randint(4, 18)
    found = math.log(both * total / (one * two))
    return {
        "stem": f"Of {total:,} pairs of neighbours {one} have the first word, {two} the second, and {both} have both. What is their PMI in nats?",
        "answer": round(found, 4), "tolerance": min(0.02, abs(found) / 6), "unit": "nats",
        "why": f"ln({both}/{total} / ({one}/{total} · {two}/{total})) = ln({both * total / (one * two):.3f}) = {found:.3f}.",
    }  # fmt: skip


def start_loss(draw: random.Random) -> dict[str, Any]:
    """(k + 1) ln 2."""
    k = draw.choice([1, 2, 3, 4, 5, 8, 10, 15, 20])
    return {
        "stem": f"Skip-gram with {k} negative sample(s). What is the loss of a pair while all vectors are zero?",
        "answer": round((k + 1) * math.log(2), 4), "tolerance": 0.01, "unit": "nats",
        "why": f"Every sigmoid is one half: ({k} + 1) · ln 2 = {(k + 1) * math.log(2):.3f}.",
        "mistakes": {f"{k * math.log(2):.4g}": "The true neighbour has a term too.", f"{math.log(k + 1):.4g}": "That is a softmax over all; here each word has a sigmoid of its own."},
    }  # fmt: skip


def pieces_of(draw: random.Random) -> dict[str, Any]:
    """L + 3 − n."""
    word, n = draw.choice(["where", "apple", "golden", "running", "flower", "connect", "mouse", "university"]), draw.choice([3, 4])
    found = len(word) + 3 - n
    shown = [f"<{word}>"[i : i + n] for i in range(found)]
    return {
        "stem": f"How many pieces of {n} letters does fastText make of “{word}”, borders included?",
        "answer": found, "tolerance": 0, "unit": "pieces",
        "why": f"`<{word}>` has {len(word) + 2} characters: " + ", ".join(f"`{each}`" for each in shown) + ".",
        "mistakes": {str(len(word) - n + 1): "The borders `<` and `>` are characters too."},
    }  # fmt: skip


def recurrent_parameters(draw: random.Random) -> dict[str, Any]:
    """H D + H² + H."""
    inputs, hidden = draw.choice([8, 10, 16, 32]), draw.choice([10, 20, 32, 64])
    found = hidden * inputs + hidden * hidden + hidden
    return {
        "stem": f"A plain recurrent layer with inputs of {inputs} numbers, a state of {hidden} and one bias reads texts of 100 words. How many parameters has it?",
        "answer": found, "tolerance": 0, "unit": "parameters",
        "why": f"{hidden}·{inputs} + {hidden}² + {hidden} = {found}; the same at every word.",
        "mistakes": {str(100 * found): "The weights are shared by all steps.", str(hidden * inputs + hidden): "The state has weights into itself as well."},
    }  # fmt: skip


def vanish(draw: random.Random) -> dict[str, Any]:
    """factor^steps."""
    factor, steps = draw.choice([0.3, 0.5, 0.7, 0.8, 0.9]), draw.choice([10, 20, 30, 50])
    found = factor**steps
    return {
        "stem": f"Each step back multiplies a gradient by {factor}. By what has it been multiplied after {steps} steps?",
        "answer": float(f"{found:.5g}"), "tolerance": float(f"{0.03 * found:.3g}"), "unit": "",
        "why": f"{factor} to the power of {steps} is {found:.3g}.",
    }  # fmt: skip


def gate_sum(draw: random.Random) -> dict[str, Any]:
    """f c + i g."""
    f, i = draw.choice([0.1, 0.5, 0.8, 0.9, 1.0]), draw.choice([0.1, 0.2, 0.5, 0.9])
    c, g = draw.choice([-2.0, -1.0, 1.5, 3.0]), draw.choice([-0.8, -0.5, 0.5, 0.9])
    found = f * c + i * g
    if abs(found) < 0.05:
        c, found = c + 1, found + f
    return {
        "stem": f"An LSTM's forget gate is at {f}, its input gate at {i}, the candidate is {g}, the cell was {c}. What is it now?",
        "answer": round(found, 4), "tolerance": min(0.005, abs(found) / 6), "unit": "",
        "why": f"{f} · {c} + {i} · {g} = {found:.3f}.".replace("· -", "· −").replace("+ -", "+ −"),
        "mistakes": {f"{(1 - f) * c + i * g:.4g}": "The forget gate says what is kept, despite its name."} if f not in (0.5,) and abs((1 - 2 * f) * c) > 0.1 else {},
    }  # fmt: skip
