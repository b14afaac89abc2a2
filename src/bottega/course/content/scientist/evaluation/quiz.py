"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from typing import Any

Made = dict[str, Any]


def _made(stem: str, answer: float, why: str, *, tolerance: float, unit: str = "", mistakes: dict[str, str] | None = None) -> Made:
    """A numeric question; a mistake that is the answer is none."""
    kept = {key: said for key, said in (mistakes or {}).items() if abs(float(key) - answer) > tolerance + 0.005 * abs(answer)}
    return {"stem": stem, "answer": round(answer, 6), "tolerance": tolerance, "unit": unit, "why": why, "mistakes": kept}


def perplexity_of(draw: random.Random) -> Made:
    """e to the mean over tokens."""
    easy, hard = draw.randint(5, 30), draw.randint(1, 4)
    mean = (0.5 * easy + 5.0 * hard) / (easy + hard)
    return _made(f"{easy} tokens have a loss of 0.5 nats, {hard} have one of 5. What is the perplexity?", math.exp(mean),
                 f"The mean is {mean:.3f}, and e to that {math.exp(mean):.2f}.", tolerance=0.02 * math.exp(mean),
                 mistakes={f"{(math.exp(0.5) * easy + math.exp(5.0) * hard) / (easy + hard):.2f}": "The mean of the losses first, then the exponential."})  # fmt: skip


def brevity(draw: random.Random) -> Made:
    """e^(1 - r/c)."""
    reference = draw.choice([20, 25, 30, 40])
    candidate = draw.randint(reference // 2, reference - 2)
    found = math.exp(1 - reference / candidate)
    return _made(f"A candidate has {candidate} words, its reference {reference}. By what factor is its BLEU multiplied?", found,
                 f"e^(1 − {reference}/{candidate}) = {found:.3f}.", tolerance=0.01, mistakes={f"{candidate / reference:.3f}": "That is the share of the length; the penalty is steeper."})  # fmt: skip


def half_width(draw: random.Random) -> Made:
    """1.96 sqrt(p (1-p) / n), in points."""
    share, count = draw.choice([0.5, 0.6, 0.7, 0.8, 0.9]), draw.choice([50, 100, 200, 500, 1000])
    found = 196 * math.sqrt(share * (1 - share) / count)
    return _made(f"{100 * share:g} % of {count} questions are answered rightly. How many points is the 95 % interval on either side (1.96 standard errors)?", found,
                 f"1.96 · √({share} · {1 - share:.1f} / {count}) = {found:.1f} points.", tolerance=0.03 * found, unit="points",
                 mistakes={f"{found / 1.96:.2f}": "That is one standard error."})  # fmt: skip


def by_byte(draw: random.Random) -> Made:
    """sum / bytes."""
    total, size = -draw.randint(6, 40) / 2, draw.randint(4, 30)
    return _made(f"An option of {size} bytes has a log-probability of {total:g} nats in all. What is it per byte?", total / size,
                 f"{total:g} / {size} = {total / size:.3f}.", tolerance=0.02 * abs(total / size), unit="nats a byte")  # fmt: skip


def leaked_score(draw: random.Random) -> Made:
    """s * 1 + (1 - s) * p."""
    share, right = draw.choice([10, 20, 25, 40, 50]), draw.choice([40, 50, 60, 70])
    found = share + (100 - share) * right / 100
    return _made(f"A model is right in {right} % of new questions, and knows the {share} % of a test that it has seen by heart. What does it score, in per cent?", found,
                 f"{share} + {100 - share} · {right / 100:g} = {found:g}.", tolerance=0.05, unit="%", mistakes={str(right): "That is the score on a clean test.", str(share + right): "Of the others it gets only its share."})  # fmt: skip


def f1_of_words(draw: random.Random) -> Made:
    """2 c / (a + b)."""
    gold, said = draw.randint(2, 6), draw.randint(2, 9)
    common = draw.randint(1, min(gold, said))
    found = 2 * common / (gold + said)
    return _made(f"The right answer has {gold} words, what was said has {said}, and {common} are common to both. What is F1?", found,
                 f"2 · {common} / ({gold} + {said}) = {found:.3f}.", tolerance=0.01, mistakes={f"{common / gold:.3f}": "That is recall.", f"{common / said:.3f}": "That is precision."})  # fmt: skip


def pass_at_k(draw: random.Random) -> Made:
    """1 - C(n-c, k) / C(n, k)."""
    n = draw.choice([4, 5, 6, 8, 10])
    c, k = draw.randint(1, n - 2), 2
    found = 1 - math.comb(n - c, k) / math.comb(n, k)
    return _made(f"{c} of {n} programs pass. What is pass@{k}, unbiased?", found,
                 f"1 − C({n - c}, {k}) / C({n}, {k}) = {found:.3f}.", tolerance=0.005, mistakes={f"{1 - (1 - c / n) ** k:.3f}": "That draws with putting back."})  # fmt: skip


def elo_expected(draw: random.Random) -> Made:
    """1 / (1 + 10^(-d/400))."""
    gap = draw.choice([-200, -100, 50, 100, 150, 200, 300, 400])
    found = 1 / (1 + 10 ** (-gap / 400))
    return _made(f"A model has {1200 + gap} rating points, its opponent 1200. What share of the points is it expected to win?", found,
                 f"1 / (1 + 10^(−({gap})/400)) = {found:.3f}.", tolerance=0.01, mistakes={f"{1 - found:.3f}": "That is the opponent's share."})  # fmt: skip


def best_of_equal(draw: random.Random) -> Made:
    """The chance that at least one of n is above by luck."""
    count, chance = draw.choice([5, 10, 20, 50]), draw.choice([0.01, 0.05])
    found = 100 * (1 - (1 - chance) ** count)
    return _made(f"{count} changes, none of which does anything, are each tested at p < {chance:g}. With what chance, in per cent, does at least one look like an improvement or a loss?", found,
                 f"1 − {1 - chance:g}^{count} = {found:.0f} %.", tolerance=0.03 * found, unit="%", mistakes={f"{100 * chance:g}": "That is the chance of one of them.", f"{100 * chance * count:g}": "Chances of several tries do not add up."})  # fmt: skip
