"""Votes of models whose strengths are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bottega.evaluate.arena.battles import Battles
from bottega.evaluate.arena.votes import Vote


class Silent:
    """A bar that shows nothing."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        pass


def battles(ratings: Sequence[float], count: int, seed: int, ties: float = 0.0) -> Battles:
    """Votes on random pairs; a share of those that either side could have won as well is a tie."""
    generator = np.random.default_rng(seed)
    strength, models = np.asarray(ratings, dtype=np.float64), len(ratings)
    first = generator.integers(0, models, count)
    second = (first + generator.integers(1, models, count)) % models
    chance = 1 / (1 + 10 ** ((strength[second] - strength[first]) / 400))
    score = (generator.random(count) < chance).astype(np.float64)
    score[generator.random(count) < ties] = 0.5
    return Battles(tuple(f"m{number}" for number in range(models)), first, second, score)


def votes_of(found: Battles) -> list[Vote]:
    """The same as votes, a second apart, with answers."""
    words = {1.0: "a", 0.5: "tie", 0.0: "b"}
    return [
        Vote(
            model_a=found.models[first],
            model_b=found.models[second],
            winner=words[score],  # type: ignore[arg-type]
            id=str(number),
            time=float(number),
            prompt="What is two and two?",
            answer_a=f"Four, says {first}.",
            answer_b=f"Four, says {second}{'!' * (number % 7)}",
        )
        for number, (first, second, score) in enumerate(zip(found.first, found.second, found.score, strict=True))
    ]
