"""Style control: Bradley–Terry with what can be seen of an answer without reading it.

The log-odds of a win get, beside θ_a − θ_b, a term γ·x for each style s of STYLES, x = (s_a − s_b) / (s_a + s_b + 1)
over its root mean square (LMSYS, "Does style matter?", 2024). So the ratings say what is left when both answers are
equally long and equally decorated. Two differences from FastChat's `rating_systems.py`: x is not centred, so that
swapping the sides of all votes changes nothing; and the ridge (½·½·γ²) lies on the γ alone, not on the ratings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bottega.core.errors import UserError
from bottega.core.progress import Bar
from bottega.evaluate.arena.battles import Battles, Flags, Reals, reached
from bottega.evaluate.arena.bradley_terry import CONVERGED, ITERATIONS
from bottega.evaluate.arena.votes import STYLES, Vote

RIDGE = 0.5
_CODE = re.compile(r"^ {0,3}(```|~~~).*?(^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
_LIST = re.compile(r"^\s*(?:[-*+]|\d{1,9}[.)])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^*\n]+(?<=\S)\*\*|__(?=\S)[^_\n]+(?<=\S)__")


@dataclass(frozen=True)
class Styled:
    """Battles with their standardised style differences `features` (votes, styles) and the names of the styles."""

    battles: Battles
    features: Reals
    styles: tuple[str, ...]


def style_counts(answer: str) -> tuple[float, ...]:
    """By STYLES: characters, Markdown headers, list items, bold passages; these three outside of blocks of code."""
    prose = _CODE.sub("", answer)
    return float(len(answer)), *(float(len(found.findall(prose))) for found in (_HEADER, _LIST, _BOLD))


def styled(battles: Battles, votes: Sequence[Vote], rated: Flags) -> Styled:
    """The battles of these votes with their features; a style that never differs among `rated` models is left out.

    Raises UserError if a vote has neither answers nor counts.
    """
    lacking = sum(vote.style_a is None and not (vote.answer_a or vote.answer_b) for vote in votes)
    if lacking:
        raise UserError(
            f"style_control needs the answers, and {lacking} of {len(votes)} votes have none",
            hint="Give votes with answer_a and answer_b (or FastChat's conversations), or leave --style-control out.",
        )
    first = np.array([vote.style_a or style_counts(vote.answer_a) for vote in votes])
    second = np.array([vote.style_b or style_counts(vote.answer_b) for vote in votes])
    features = (first - second) / (first + second + 1)
    inside = rated[battles.first] & rated[battles.second]
    spread = np.sqrt((features[inside] ** 2).sum(axis=0) / max(1, inside.sum()))
    kept = spread > 0
    names = tuple(name for name, keep in zip(STYLES, kept, strict=True) if keep)
    return Styled(battles, features[:, kept] / spread[kept], names)


def fit_styled(data: Styled, weights: Reals, reference: int, start: Reals | None = None) -> tuple[Reals, Reals]:
    """(θ (models,), γ (styles,)) of votes that count `weights` (votes,) times; θ as `fit_strengths` gives it.

    `start`, strengths and γ one after the other, is where Newton's method begins.
    """
    wins = data.battles.wins(weights)
    above, below = reached(wins.T > 0, reference), reached(wins > 0, reference)
    rated = above & below
    inside = rated[data.battles.first] & rated[data.battles.second] & (weights > 0)
    all_ = data.battles
    battles = Battles(all_.models, all_.first[inside], all_.second[inside], all_.score[inside])
    fitted = _newton(Styled(battles, data.features[inside], data.styles), weights[inside], rated, start)
    count = len(rated)
    strengths = np.where(rated, fitted[:count], np.where(above, np.inf, np.where(below, -np.inf, np.nan)))
    return strengths, fitted[count:]


def bootstrap_styled(
    data: Styled, reference: int, fitted: tuple[Reals, Reals], *, seed: int, resamples: int, bar: Bar
) -> tuple[Reals, Reals]:
    """θ (resamples, models) and γ (resamples, styles) of votes drawn anew; the same seed gives the same."""
    generator = np.random.default_rng(seed)
    start = np.concatenate([np.where(np.isfinite(fitted[0]), fitted[0], 0.0), fitted[1]])
    strengths, effects = [], []
    for _ in range(resamples):
        drawn = generator.integers(0, len(data.battles), size=len(data.battles))
        weights = np.bincount(drawn, minlength=len(data.battles)).astype(np.float64)
        strength, effect = fit_styled(data, weights, reference, start)
        strengths.append(strength)
        effects.append(effect)
        bar.advance()
    return np.array(strengths), np.array(effects)


def _newton(data: Styled, weights: Reals, rated: Flags, start: Reals | None) -> Reals:
    """θ then γ at the maximum of the penalised likelihood; models that are not rated stay at 0."""
    count, size = len(rated), len(rated) + len(data.styles)
    parameters = np.zeros(size) if start is None else start * np.concatenate([rated, np.ones(len(data.styles))])
    parameters[:count] -= np.where(rated, parameters[:count].sum() / rated.sum(), 0.0)
    level = np.zeros((size, size))
    level[:count, :count] = np.outer(rated, rated) + np.diag(~rated)  # the mean of the rated is 0
    level[count:, count:] = RIDGE * np.eye(len(data.styles))
    loss = _loss(data, weights, parameters)
    for _ in range(ITERATIONS):
        chance = 1 / (1 + np.exp(-_logits(data, parameters)))
        gradient = _spread(data, weights * (data.battles.score - chance))
        gradient[count:] -= RIDGE * parameters[count:]
        curvature = level + _information(data, weights * chance * (1 - chance))
        step = np.linalg.solve(curvature, gradient)
        gain, length = float(gradient @ step), 1.0
        while True:
            moved = parameters + length * step
            after = _loss(data, weights, moved)
            if after <= loss - 1e-4 * length * gain + 1e-12 * (1 + abs(loss)):
                break
            length /= 2
        parameters, loss = moved, after
        if gain < CONVERGED:
            return parameters
    raise ArithmeticError("style-controlled ratings did not converge")


def _logits(data: Styled, parameters: Reals) -> Reals:
    strengths, effects = np.split(parameters, [len(data.battles.models)])
    return strengths[data.battles.first] - strengths[data.battles.second] + data.features @ effects


def _loss(data: Styled, weights: Reals, parameters: Reals) -> float:
    logits, effects = _logits(data, parameters), parameters[len(data.battles.models) :]
    # −ln σ(z) for a win, −ln σ(−z) = −ln σ(z) + z for a loss, half of each for a tie.
    fit = weights @ (np.logaddexp(0.0, -logits) + (1 - data.battles.score) * logits)
    return float(fit + RIDGE / 2 * effects @ effects)


def _spread(data: Styled, values: Reals) -> Reals:
    """Aᵀ values, for the design matrix A whose row has +1 at the first model, −1 at the second, and the features."""
    count = len(data.battles.models)
    each = np.bincount(data.battles.first, values, count) - np.bincount(data.battles.second, values, count)
    return np.concatenate([each.astype(np.float64), data.features.T @ values])


def _information(data: Styled, values: Reals) -> Reals:
    """Aᵀ diag(values) A (parameters, parameters)."""
    battles, count = data.battles, len(data.battles.models)
    met = np.bincount(battles.first * count + battles.second, values, count * count).reshape(count, count)
    met = met + met.T
    mixed = np.array([_spread(data, values * column)[:count] for column in data.features.T]).reshape(-1, count)
    own = data.features.T @ (values[:, None] * data.features)
    return np.block([[np.diag(met.sum(axis=1)) - met, mixed.T], [mixed, own]])
