"""Bayesian knowledge tracing (Corbett & Anderson 1995): the probability that a concept is known, answer by answer.

    right:  P' = P (1 − s) / (P (1 − s) + (1 − P) g)        wrong:  P' = P s / (P s + (1 − P)(1 − g))
    learn:  P ← P' + (1 − P') t

Nobody's answers exist to fit parameters to, so they follow from the kind of question: g is the chance of a guess, s
that of a slip. The first answer to a question counts, and help counts as a wrong answer.
"""

from __future__ import annotations

START = 0.3
LEARN = 0.15
SLIP, SLIP_CODE, GUESS_CODE = 0.10, 0.05, 0.01
MASTERY, READY = 0.95, 0.8


def after_answer(known: float, right: bool, *, guess: float, slip: float = SLIP, learn: float = LEARN) -> float:
    """P after an answer; guess and slip together are below 1."""
    if right:
        seen = known * (1 - slip) / (known * (1 - slip) + (1 - known) * guess)
    else:
        seen = known * slip / (known * slip + (1 - known) * (1 - guess))
    return seen + (1 - seen) * learn


def chance(known: float, *, guess: float, slip: float = SLIP) -> float:
    """The probability of a right answer."""
    return known * (1 - slip) + (1 - known) * guess
