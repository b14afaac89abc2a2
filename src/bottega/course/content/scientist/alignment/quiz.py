"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from typing import Any


def pairs_of_ranking(draw: random.Random) -> dict[str, Any]:
    """n (n - 1) / 2."""
    count = draw.randint(3, 9)
    found = count * (count - 1) // 2
    return {
        "stem": f"A rater ranks {count} answers to one prompt, without ties. How many pairs does that make?",
        "answer": found, "tolerance": 0, "unit": "pairs",
        "why": f"{count} · {count - 1} / 2 = {found}: each two answers are a pair.",
        "mistakes": {str(count - 1): "Neighbours only; every answer is also better than those farther down.",
                     str(2 * found): "Each pair was counted twice."},
    }  # fmt: skip


def win_probability(draw: random.Random) -> dict[str, Any]:
    """σ(a - b)."""
    a, b = draw.randint(-20, 30) / 10, draw.randint(-20, 30) / 10
    b = b + 0.5 if a == b else b
    found = 1 / (1 + math.exp(b - a))
    return {
        "stem": f"Two answers have the rewards {a} and {b}. With which probability is the first one preferred, by Bradley-Terry?",
        "answer": round(found, 3), "tolerance": min(0.01, 0.15 * found), "unit": "",
        "why": f"σ({a} − {b}) = σ({a - b:.1f}) = {found:.3f}.",
        "mistakes": {f"{1 - found:.3f}": "That is the probability of the second one."},
    }  # fmt: skip


def td_error(draw: random.Random) -> dict[str, Any]:
    """r + γ V' - V."""
    reward, gamma = draw.choice([0, 0, 1]), draw.choice([0.9, 0.95, 1.0])
    value, after = draw.randint(3, 9) / 10, draw.randint(1, 9) / 10
    found = reward + gamma * after - value
    if abs(found) < 0.05:
        after += 0.3
        found = reward + gamma * after - value
    return {
        "stem": f"A token earns {reward}. The value before it is {value}, behind it {after:g}, and γ is {gamma}. What is δ?",
        "answer": round(found, 4), "tolerance": 0.005, "unit": "",
        "why": f"{reward} + {gamma} · {after:g} − {value} = {found:.3f}.", "mistakes": {},
    }  # fmt: skip


def clipped_term(draw: random.Random) -> dict[str, Any]:
    """min(w A, clip(w) A)."""
    ratio, advantage = draw.choice([0.5, 0.7, 0.9, 1.1, 1.3, 1.5]), draw.choice([-3, -2, -1, 1, 2, 3])
    found = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
    return {
        "stem": f"The ratio of a token is {ratio}, its advantage {advantage}, and ε is 0.2. What is min(w A, clip(w) A)?",
        "answer": round(found, 4), "tolerance": 0.005, "unit": "",
        "why": f"w A = {ratio * advantage:.2f}, clipped {min(max(ratio, 0.8), 1.2) * advantage:.2f}: the smaller is {found:.2f}.",
        "mistakes": {},
    }  # fmt: skip


def best_of_n(draw: random.Random) -> dict[str, Any]:
    """ln n - (n - 1) / n."""
    count = draw.choice([4, 8, 16, 32, 64, 128])
    found = math.log(count) - (count - 1) / count
    return {
        "stem": f"The best of {count} answers is taken. How far, in nats of KL, is that from the model?",
        "answer": round(found, 3), "tolerance": 0.02, "unit": "nats",
        "why": f"ln {count} − {count - 1}/{count} = {found:.3f}.",
        "mistakes": {f"{math.log(count):.3f}": "That is ln n; (n − 1)/n is to be taken away."},
    }  # fmt: skip


def group_advantage(draw: random.Random) -> dict[str, Any]:
    """1 - share, of a right answer."""
    count = draw.choice([4, 5, 8, 10])
    right = draw.randint(1, count - 1)
    found = 1 - right / count
    return {
        "stem": f"Of {count} answers to a prompt {right} earn 1 and the others 0. What is the advantage of a right one, without division by the deviation?",
        "answer": round(found, 4), "tolerance": 0.005, "unit": "",
        "why": f"1 − {right}/{count} = {found:g}.", "mistakes": {} if found == 1 else {"1": "The mean of the group is to be taken away."},
    }  # fmt: skip


def dpo_loss_value(draw: random.Random) -> dict[str, Any]:
    """-ln σ(β margin)."""
    beta, margin = draw.choice([0.1, 0.2, 0.5]), draw.randint(2, 12)
    found = math.log(1 + math.exp(-beta * margin))
    return {
        "stem": f"β is {beta}. Since the reference the chosen answer gained {margin} nats more than the rejected one. What is the DPO loss, in nats?",
        "answer": round(found, 4), "tolerance": 0.03 * found, "unit": "nats",
        "why": f"−ln σ({beta} · {margin}) = −ln σ({beta * margin:g}) = {found:.3f}.",
        "mistakes": {f"{math.log(1 + math.exp(-margin)):.4f}": "β stands inside the sigmoid."},
    }  # fmt: skip
