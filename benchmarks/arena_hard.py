"""Arena-Hard's published Bradley-Terry scores beside ours, from its `bootstrap_stats_arena_hard_bt.jsonl`.

    python benchmarks/arena_hard.py FOLDER        (which holds that file)

The file has, of 28 models, the score, the ends of its 95 % interval, and the scores of 100 resamples; not the battles.
So three things are reproduced, each with its difference from what is published:

1. intervals: the percentiles of the recorded resamples;
2. scores: the battles were all against one model, so that scores fix the share of points of each of the others; our
   fit of a table of wins with these shares must give the scores back;
3. the width of intervals: our bootstrap of such a table, beside the recorded ones. The number of votes per model is not
   in the file (500 questions in both orders, a clear verdict counted three times); one number for all 27 is fitted to
   the recorded widths. What remains of the difference is the noise of 100 recorded resamples (7 % of a width), and that
   models had more votes or fewer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bottega.core.view import Table
from bottega.evaluate.arena.battles import Battles, Reals
from bottega.evaluate.arena.bradley_terry import (
    POINTS,
    bootstrap_strengths,
    expected_score,
    extended_interval,
    fit_strengths,
    level_to,
)

FILE = "bootstrap_stats_arena_hard_bt.jsonl"
BASELINE, ANCHOR, ANCHOR_RATING = "gpt-4-0314", "mixtral-8x7b-instruct-v0.1", 1114.0
CONFIDENCE = 0.95


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help=f"folder with {FILE}")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="200 resamples")
    return parser.parse_args()


def anchored(strengths: Reals, anchor: int) -> Reals:
    """Ratings with the anchor at its published rating."""
    return ANCHOR_RATING + POINTS * (strengths - strengths[..., [anchor]])


def votes_of_shares(models: tuple[str, ...], shares: Reals, votes: int) -> Battles:
    """Whole votes against the baseline, the points rounded to halves of one (a tie)."""
    baseline = models.index(BASELINE)
    first, score = [], []
    for model, share in enumerate(shares):
        if model == baseline:
            continue
        halves = round(2 * share * votes)
        first += [model] * votes
        score += [1.0] * (halves // 2) + [0.5] * (halves % 2) + [0.0] * (votes - halves // 2 - halves % 2)
    numbers = np.array(first, dtype=np.int64)
    return Battles(models, numbers, np.full_like(numbers, baseline), np.array(score))


def main() -> None:
    options = arguments()
    rows: list[dict[str, Any]] = [json.loads(line) for line in (options.folder / FILE).read_text("utf-8").splitlines()]
    models = tuple(str(row["model"]) for row in rows)
    scores, low, high = (np.array([row[key] for row in rows]) for key in ("score", "lower", "upper"))
    anchor, baseline = models.index(ANCHOR), models.index(BASELINE)

    recorded = extended_interval(np.array([row["results"] for row in rows]).T, CONFIDENCE)

    shares = expected_score(scores - scores[baseline])
    wins = np.zeros((len(models), len(models)))
    wins[:, baseline], wins[baseline, :] = shares, 1 - shares
    wins[baseline, baseline] = 0
    fitted = anchored(fit_strengths(wins, anchor), anchor)

    resamples = 200 if options.quick else options.resamples
    others = np.arange(len(models)) != anchor

    def bootstrap(votes: int) -> tuple[tuple[Reals, Reals], Reals]:
        """Our intervals with so many votes per model, and their widths over the published ones."""
        battles = votes_of_shares(models, shares, votes)
        drawn = bootstrap_strengths(battles, anchor, seed=0, resamples=resamples)
        level = level_to(drawn, fit_strengths(battles.wins(), anchor), anchor)
        ends = extended_interval(anchored(level, anchor), CONFIDENCE)
        return ends, (ends[1] - ends[0])[others] / (high - low)[others]

    # Widths go as 1/√votes: those with any number give the number that fits.
    votes = round(1000 * float(np.exp(np.log(bootstrap(1000)[1]).mean())) ** 2)
    ours, ratio = bootstrap(votes)

    show(models, scores, fitted, (low, high), recorded, ours)
    furthest = max(np.abs(recorded[0] - low).max(), np.abs(recorded[1] - high).max())
    print(f"\n1. intervals of the recorded resamples: largest difference {furthest:.1e} points")
    print(f"2. scores: largest difference {np.abs(fitted - scores).max():.1e} points")
    print(f"3. widths of our bootstrap ({votes} votes per model, {resamples} resamples) over the published ones:")
    print(f"   {ratio.min():.2f} to {ratio.max():.2f}, median {np.median(ratio):.2f}")


def show(
    models: tuple[str, ...],
    scores: Reals,
    fitted: Reals,
    published: tuple[Reals, Reals],
    recorded: tuple[Reals, Reals],
    ours: tuple[Reals, Reals],
) -> None:
    from rich.console import Console

    from bottega.cli.render import show as print_blocks

    def ends(interval: tuple[Reals, Reals], model: int) -> str:
        return f"{interval[0][model]:.1f} {interval[1][model]:.1f}"

    lines = [
        (
            name,
            f"{scores[model]:.2f}",
            f"{fitted[model]:.2f}",
            f"{fitted[model] - scores[model]:+.0e}",
            ends(published, model),
            ends(recorded, model),
            ends(ours, model),
        )
        for model, name in enumerate(models)
    ]
    columns = ("model", "score", "ours", "difference", "interval", "of the recorded resamples", "our bootstrap")
    print_blocks([Table("Arena-Hard, Bradley-Terry", columns, lines)], Console(width=160))


if __name__ == "__main__":
    main()
