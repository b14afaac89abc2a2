"""Bradley–Terry ratings by maximum likelihood, and their bootstrap.

Model i beats j with probability σ(θ_i − θ_j) (Bradley & Terry, 1952), a tie is half a win of each side; a rating is
1000 + 400 θ / ln 10, so that 400 points are odds of ten to one. The votes' sufficient statistic is the matrix of wins,
and log-likelihood is concave: Newton's method on all resamples at once. The bootstrap draws the counts of the distinct
outcomes (pair, winner) from a multinomial, which is the same as drawing votes (as FastChat's `rating_systems.py`).

A maximum exists only among models that each beat every other in steps. In a resample where some do not, they are
at +∞ or −∞ against the reference (or nowhere, NaN), and quantiles are taken on the extended reals: an interval whose
end lies there is open. FastChat's optimiser stops at some large number there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bottega.evaluate.arena.battles import Battles, Flags, Reals, reached

SCALE = 400.0
INITIAL = 1000.0
POINTS = SCALE / math.log(10)
"""Rating points per unit of θ (a natural logarithm of odds)."""
# Numbers that one block of resamples may hold at once (8 bytes each), in each of about ten arrays.
BLOCK_NUMBERS = 1 << 20
ITERATIONS = 200
CONVERGED = 1e-10
STEADY = 0.99


def expected_score(difference: Any) -> Any:
    """Probability of winning with so many rating points more than the other (a number or an array of them)."""
    with np.errstate(over="ignore"):
        return 1 / (1 + 10.0 ** (-np.asarray(difference, dtype=np.float64) / SCALE))


def fit_strengths(wins: Reals, reference: int = 0) -> Reals:
    """θ (…, models) of matrices of wins (…, models, models), with mean 0 over the rated ones.

    A model that beat the reference in steps, but was not so beaten back, is at +∞; the converse at −∞; one for which
    neither holds is NaN.
    """
    above = reached(np.swapaxes(wins, -1, -2) > 0, reference)
    below = reached(wins > 0, reference)
    rated = above & below
    inside = rated[..., :, None] & rated[..., None, :]
    strengths = _newton(np.where(inside, wins, 0.0), rated)
    return np.where(rated, strengths, np.where(above, np.inf, np.where(below, -np.inf, np.nan)))


def _newton(wins: Reals, rated: Flags) -> Reals:
    """The maximum for wins among `rated` models; others stay at 0."""
    games = wins + np.swapaxes(wins, -1, -2)
    # The likelihood knows differences only: one more square, of the sum, makes it strictly concave and the mean 0.
    level = (rated[..., :, None] & rated[..., None, :]).astype(np.float64)
    diagonal = np.arange(wins.shape[-1])
    strengths = np.zeros(wins.shape[:-1])
    loss = _loss(wins, strengths)
    for _ in range(ITERATIONS):
        chance = 1 / (1 + np.exp(-_differences(strengths)))
        gradient = (wins - games * chance).sum(axis=-1)
        weights = games * chance * (1 - chance)
        curvature = level - weights
        curvature[..., diagonal, diagonal] += weights.sum(axis=-1) + ~rated
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        gain = (gradient * step).sum(axis=-1)
        length = np.ones(gain.shape)
        while True:  # halved where the full step overshoots; rounding of the loss is no overshooting
            moved = strengths + length[..., None] * step
            after = _loss(wins, moved)
            worse = after > loss - 1e-4 * length * gain + 1e-12 * (1 + np.abs(loss))
            if not worse.any() or length.min() < 1e-15:
                break
            length = np.where(worse, length / 2, length)
        strengths, loss = moved, after
        if (gain < CONVERGED).all():
            return strengths
    raise ArithmeticError("Bradley-Terry ratings did not converge")


def _differences(strengths: Reals) -> Reals:
    return strengths[..., :, None] - strengths[..., None, :]


def _loss(wins: Reals, strengths: Reals) -> Reals:
    return (wins * np.logaddexp(0.0, -_differences(strengths))).sum(axis=(-1, -2))


def bootstrap_strengths(battles: Battles, reference: int, *, seed: int, resamples: int) -> Reals:
    """θ (resamples, models) of votes drawn anew, as many as there are; the same seed gives the same."""
    count = len(battles.models)
    low, high = np.minimum(battles.first, battles.second), np.maximum(battles.first, battles.second)
    swapped = battles.first > battles.second
    outcome = np.rint(2 * np.where(swapped, 1 - battles.score, battles.score)).astype(np.int64)
    cells, times = np.unique((low * count + high) * 3 + outcome, return_counts=True)
    pair, score = cells // 3, (cells % 3) / 2
    one, other = pair // count, pair % count
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK_NUMBERS // (count * count))
    found = []
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(len(battles), times / len(battles), size=min(rows, resamples - start))
        wins = np.zeros((len(drawn), count, count))
        for cell in range(len(cells)):  # a pair has up to three cells
            wins[:, one[cell], other[cell]] += drawn[:, cell] * score[cell]
            wins[:, other[cell], one[cell]] += drawn[:, cell] * (1 - score[cell])
        found.append(fit_strengths(wins, reference))
    return np.concatenate(found)


def level_to(strengths: Reals, fitted: Reals, anchor: int | None) -> Reals:
    """Resampled strengths (resamples, models) on the level of the `fitted` ones (models,).

    With an anchor, it is where it was fitted. Else the mean of the steady models (finite in 99 % of resamples)
    is theirs in the fit, so that one model with few votes does not move the others. With fewer than two steady
    ones, a resample in which a rated model sank to −∞ has every finite one at +∞ over the mean, and the converse.
    """
    finite = np.isfinite(strengths)
    if anchor is not None:
        return strengths + (fitted[anchor] - strengths[:, [anchor]])
    rated = np.isfinite(fitted)
    steady = rated & (finite.mean(axis=0) >= STEADY)
    level = finite & (steady if steady.sum() > 1 else rated)
    moved = np.where(level, fitted - np.where(level, strengths, 0.0), 0.0).sum(axis=-1) / level.sum(axis=-1)
    if steady.sum() < 2:
        sank, rose = ((strengths == end)[:, rated].any(axis=-1) for end in (-np.inf, np.inf))
        lost = ~finite[:, rated].all(axis=-1)
        moved = np.where(lost, np.where(sank & ~rose, np.inf, np.where(rose & ~sank, -np.inf, np.nan)), moved)
    return np.where(finite, np.where(finite, strengths, 0.0) + moved[:, None], strengths)


def extended_interval(values: Reals, confidence: float) -> tuple[Reals, Reals]:
    """Percentile ends of values (resamples, …), of which some may be infinite; NaN counts against both ends.

    Linear between neighbours, as NumPy's quantile; the outer one where they are not both finite.
    """
    tail = (1 - confidence) / 2
    ends = []
    for part, unknown in ((tail, -np.inf), (1 - tail, np.inf)):
        ordered = np.sort(np.where(np.isnan(values), unknown, values), axis=0)
        position = part * (len(ordered) - 1)
        before, after = ordered[math.floor(position)], ordered[math.ceil(position)]
        between = np.isfinite(before) & np.isfinite(after)
        part_of = np.where(between, after, 0.0) - np.where(between, before, 0.0)
        outer = before if unknown < 0 else after
        ends.append(np.where(between, before + (position % 1) * part_of, outer))
    return ends[0], ends[1]


def bound_of_sweep(opponents: Reals, confidence: float) -> float:
    """The lowest rating with which all of these opponents (ratings, one per vote) are beaten with a tail's chance.

    An exact one-sided bound given their ratings, the end of the open interval of a model that lost nothing; by symmetry
    −bound(−opponents) is the upper end of one that won nothing.
    """
    low, high = float(opponents.min()) - 100 * SCALE, float(opponents.max()) + 100 * SCALE
    tail = math.log((1 - confidence) / 2)
    for _ in range(100):
        middle = (low + high) / 2
        chance = -np.logaddexp(0.0, (opponents - middle) / POINTS).sum()
        low, high = (middle, high) if chance < tail else (low, middle)
    return (low + high) / 2
