"""All that an arena says about its votes, as plain data: ratings with intervals, win rates, bias, style."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottega.core.errors import UserError, did_you_mean
from bottega.core.progress import Bar
from bottega.evaluate.arena.battles import Battles, Flags, Reals, battles_of, connected_groups, rated_models
from bottega.evaluate.arena.bradley_terry import (
    INITIAL,
    POINTS,
    bootstrap_strengths,
    bound_of_sweep,
    expected_score,
    extended_interval,
    fit_strengths,
    level_to,
)
from bottega.evaluate.arena.elo import bootstrap_elo, elo_ratings
from bottega.evaluate.arena.style import bootstrap_styled, fit_styled, styled
from bottega.evaluate.arena.votes import Vote
from bottega.evaluate.statistics import CONFIDENCE, wilson

FEWEST = 4  # models of a group that are named in full


@dataclass(frozen=True)
class Ratings:
    """Ratings of all models (models,), of each resample (resamples, models), and the ends of their intervals.

    A model that is not rated is at ±∞ or NaN; what is known of it is one end.
    """

    value: Reals
    resampled: Reals
    low: Reals
    high: Reals


def rate(
    votes: Sequence[Vote],
    *,
    bar: Bar,
    anchor: str | None = None,
    anchor_rating: float = INITIAL,
    style_control: bool = False,
    k: float = 4.0,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that `ratings.json` holds (docs/arena.md says what).

    Raises UserError if there are no votes, the models are not connected by them, or the anchor is unknown
    or cannot be rated.
    """
    blind = [vote for vote in votes if vote.blind]
    in_time = all(vote.time is not None for vote in blind)
    if in_time:
        blind.sort(key=lambda vote: vote.time or 0.0)
    if not blind:
        raise UserError("there are no votes to rate" + (": none was blind" if votes else ""))
    battles = battles_of(blind)
    rated = _require_rateable(battles, anchor)
    games = np.bincount(np.concatenate([battles.first, battles.second]), minlength=len(rated))
    reference = battles.models.index(anchor) if anchor else int(np.argmax(np.where(rated, games, -1)))
    level = reference if anchor else None
    drawn = bootstrap_strengths(battles, reference, seed=seed, resamples=resamples)
    bar.advance()
    ratings = _ratings(battles, rated, fit_strengths(battles.wins(), reference), drawn, level, anchor_rating)
    effects: dict[str, Any] | None = None
    if style_control:
        uncontrolled = ratings
        data = styled(battles, blind, rated)
        fitted = fit_styled(data, np.ones(len(battles)), reference)
        drawn, gammas = bootstrap_styled(data, reference, fitted, seed=seed, resamples=resamples, bar=bar)
        ratings = _ratings(battles, rated, fitted[0], drawn, level, anchor_rating)
        effects = {"styles": _effects(data.styles, fitted[1], gammas), "without": _intervals(battles, uncontrolled)}
    elo = _elo(battles, level, anchor_rating, k, seed, resamples)
    bar.advance()
    counts = Counter(vote.winner for vote in blind)
    return {
        "votes": len(blind),
        "ties": counts["tie"],
        "both_bad": counts["both_bad"],
        "not_blind": len(votes) - len(blind),
        "anchor": anchor,
        "anchor_rating": anchor_rating,
        "models": _table(battles, ratings, elo, anchor_rating),
        "style": effects,
        "wins": _win_matrix(battles, ratings),
        "position": _position(blind, battles, ratings.value),
        "judges": {judge: _position([vote for vote in blind if vote.judge == judge], battles, ratings.value)
                   for judge in sorted({vote.judge for vote in blind})},
        "elo": {"k": k, "order": "time" if in_time else "file"},
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
    }  # fmt: skip


def _require_rateable(battles: Battles, anchor: str | None) -> Flags:
    """Which models have a finite rating; raises UserError if there is no common scale, or the anchor is not on it."""
    wins = battles.wins()
    groups = connected_groups(wins)
    if len(groups) > 1:
        named = [_named([battles.models[place] for place in group]) for group in groups]
        raise UserError(
            f"the votes do not connect all models, so they have no common scale: {'; '.join(named)}",
            hint="Compare a model of one group with one of another, or rate each group's votes alone.",
        )
    rated = rated_models(wins)
    names = [name for name, has in zip(battles.models, rated, strict=True) if has]
    if anchor is not None and anchor not in battles.models:
        raise UserError(f"no vote is about the anchor {anchor!r}", hint=did_you_mean(anchor, battles.models))
    if anchor is not None and anchor not in names:
        raise UserError(
            f"the anchor {anchor!r} has no finite rating: it never lost to the models that have one, or never won",
            hint=f"Choose one of {_named(names)}.",
        )
    return rated


def _named(names: Sequence[str]) -> str:
    more = len(names) - FEWEST
    return ", ".join(names[:FEWEST]) + (f" and {more} more" if more > 0 else "")


def _ratings(
    battles: Battles, rated: Flags, fitted: Reals, strengths: Reals, anchor: int | None, anchor_rating: float
) -> Ratings:
    """Strengths as ratings on the wanted level, with their intervals."""
    shift = anchor_rating - POINTS * fitted[anchor] if anchor is not None else INITIAL
    value = shift + POINTS * fitted
    resampled = shift + POINTS * level_to(strengths, fitted, anchor)
    low, high = extended_interval(resampled, CONFIDENCE)
    met = battles.wins()
    met = met + met.T
    for model in np.flatnonzero(~rated):
        # Its votes against rated models, all won or all lost: they bound it from one side.
        opponents = np.repeat(value[rated], np.rint(met[model, rated]).astype(np.int64))
        low[model], high[model] = -np.inf, np.inf
        if len(opponents) and value[model] > 0:
            low[model] = bound_of_sweep(opponents, CONFIDENCE)
        elif len(opponents):
            high[model] = -bound_of_sweep(-opponents, CONFIDENCE)
    return Ratings(value, resampled, low, high)


def _elo(
    battles: Battles, anchor: int | None, anchor_rating: float, k: float, seed: int, resamples: int
) -> tuple[Reals, Reals, Reals]:
    """Elo ratings and the ends of their intervals, the anchor at its rating."""
    value, resampled = elo_ratings(battles, k), bootstrap_elo(battles, k, seed=seed, resamples=resamples)
    if anchor is not None:
        value, resampled = (each + anchor_rating - each[..., [anchor]] for each in (value, resampled))
    return value, *extended_interval(resampled, CONFIDENCE)


def _table(battles: Battles, ratings: Ratings, elo: tuple[Reals, Reals, Reals], anchor_rating: float) -> list[Any]:
    """A row per model, the best first; models without a finite rating by what bounds them."""
    wins = battles.wins()
    ties = np.bincount(np.concatenate([battles.first, battles.second])[np.tile(battles.score == 0.5, 2)],
                       minlength=len(wins))  # fmt: skip
    value, low, high = ratings.value, ratings.low, ratings.high
    known = np.where(np.isfinite(value), value, np.nan)
    keys = np.where(np.isfinite(value), value, np.where(value > 0, low, high))
    unbounded = [2 * (each == np.inf) - 2 * (each == -np.inf) for each in value]
    order = sorted(range(len(wins)), key=lambda model: (-unbounded[model], -keys[model], battles.models[model]))
    rows = []
    for place, model in enumerate(order):
        following = order[place + 1] if place + 1 < len(order) else None
        better = sum(_difference(ratings, other, model)["shown"] for other in order[:place])
        rows.append(
            {
                "model": battles.models[model],
                "rank": 1 + better,
                "rating": _finite(value[model]),
                "low": _finite(low[model]),
                "high": _finite(high[model]),
                "unrated": None if np.isfinite(value[model]) else _direction(value[model]),
                "votes": int((wins[model] + wins[:, model]).sum()),
                "wins": int(wins[model].sum() - ties[model] / 2),
                "ties": int(ties[model]),
                "win_rate": {
                    name: _share(end[model] - anchor_rating)
                    for name, end in (("value", known), ("low", low), ("high", high))
                },
                "over_next": None if following is None else _difference(ratings, model, following),
                "elo": {name: float(end[model]) for name, end in zip(("value", "low", "high"), elo, strict=True)},
            }
        )
    return rows


def _difference(ratings: Ratings, one: int, other: int) -> dict[str, Any]:
    """By how much one model is above another, on the same resamples; shown if the interval lies above 0.

    With a model that has no finite rating, it is shown if the models' intervals lie apart.
    """
    pair = ratings.value[[one, other]]
    if not np.isfinite(pair).all():
        apart = ratings.low[one] - ratings.high[other] if np.isfinite(pair).any() else -np.inf
        return {"value": None, "low": _finite(apart), "high": None, "shown": bool(apart > 0)}
    with np.errstate(invalid="ignore"):  # both at infinity: nothing is known of their difference
        ends = extended_interval(ratings.resampled[:, one] - ratings.resampled[:, other], CONFIDENCE)
    low, high = (float(end) for end in ends)
    difference = float(pair[0] - pair[1])
    return {"value": difference, "low": _finite(low), "high": _finite(high), "shown": bool(low > 0)}


def _direction(value: float) -> str:
    return "unknown" if np.isnan(value) else "above" if value > 0 else "below"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(difference: float) -> float | None:
    return None if np.isnan(difference) else float(expected_score(difference))


def _effects(names: Sequence[str], fitted: Reals, resampled: Reals) -> dict[str, Any]:
    """Of each style, what one standard deviation more than the other answer is worth: points, and odds of winning."""
    low, high = extended_interval(resampled, CONFIDENCE)
    return {
        name: {
            "points": POINTS * float(value),
            "low": POINTS * float(below),
            "high": POINTS * float(above),
            "odds": float(np.exp(value)),
        }
        for name, value, below, above in zip(names, fitted, low, high, strict=True)
    }


def _intervals(battles: Battles, ratings: Ratings) -> dict[str, Any]:
    return {
        model: {"rating": _finite(value), "low": _finite(low), "high": _finite(high)}
        for model, value, low, high in zip(battles.models, ratings.value, ratings.low, ratings.high, strict=True)
    }


def _win_matrix(battles: Battles, ratings: Ratings) -> dict[str, Any]:
    """What each row's model took from each column's, of how many votes, and what their ratings expect."""
    wins = battles.wins()
    with np.errstate(invalid="ignore"):
        expected = expected_score(ratings.value[:, None] - ratings.value[None, :])
    return {
        "models": list(battles.models),
        "points": wins.tolist(),
        "votes": np.rint(wins + wins.T).astype(int).tolist(),
        "expected": [[_finite(value) for value in row] for row in expected],
    }


def _position(votes: Sequence[Vote], battles: Battles, value: Reals) -> dict[str, Any]:
    """How often the answer that was shown first won, of the votes that had a winner; what the ratings expect of it.

    The ratings know no sides: a share beyond them is the position's doing.
    """
    number = {name: place for place, name in enumerate(battles.models)}
    decided = [vote for vote in votes if vote.winner in ("a", "b")]
    won = sum((vote.winner == "a") == (vote.order == "ab") for vote in decided)
    with np.errstate(invalid="ignore"):
        gaps = [
            (value[number[vote.model_a]] - value[number[vote.model_b]]) * (1 if vote.order == "ab" else -1)
            for vote in decided
        ]
    expected = float(expected_score(np.array(gaps)).mean()) if gaps else float("nan")
    share = wilson(won, len(decided))
    return {
        "votes": len(votes),
        "decided": len(decided),
        "first_won": _finite(share.value),
        "low": share.low,
        "high": share.high,
        "expected": _finite(expected),
    }
