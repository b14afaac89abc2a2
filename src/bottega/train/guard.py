"""Bad steps, which are skipped, and runs that diverge, which are stopped.

A step is bad if its loss or gradient is not finite, or if its loss is a spike; the rule is OLMo's skip step: compare
with mean and standard deviation of the last 128 good losses. A run diverges if over a whole window its loss lies above
the one that it began with. Where a model learns from rewards the loss hovers around zero and says nothing: there the
rewards and the distance from the start are watched instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bottega.core.errors import BottegaError

WINDOW = 128
WARM = 32
MOST_IN_A_ROW = 10
LEAST_RISE = 0.5  # nats; where the losses hardly differ, any wobble is many standard deviations
BEGINNING, LATELY = 8, 32  # steps that the beginning is the mean of, and that it is held against
DIVERGED = 1.5  # times the loss of the beginning (and half a nat more)
LOST = 2.0  # nats a token away from the start: what is drawn is another language
HINT = "The last saved state is kept. A lower learning_rate or a longer warmup usually helps."


@dataclass
class Guard:
    """Judges each step before the optimiser sees its gradient."""

    sigma: float
    stop: bool
    recent: list[float] = field(default_factory=list)
    skipped: int = 0
    in_a_row: int = 0
    by_loss: bool = True
    """Whether the loss is what is to fall; else the rewards are to rise."""
    beginnings: dict[str, list[float]] = field(default_factory=dict)
    """The first values of each figure that is watched …"""
    lately: dict[str, list[float]] = field(default_factory=dict)
    """… and the last ones."""

    def accepts(self, step: int, loss: float, gradient_norm: float) -> bool:
        """Whether to take the step. Raises BottegaError if it must not be skipped, or too many have been."""
        reason = self._fault(loss, gradient_norm)
        if reason is None:
            self.in_a_row = 0
            self.recent = [*self.recent[-WINDOW + 1 :], loss]
            if self.by_loss:
                self._watch_loss(step, loss)
            return True
        self.skipped += 1
        self.in_a_row += 1
        if self.stop or self.in_a_row >= MOST_IN_A_ROW:
            raise BottegaError(f"step {step}: {reason}", hint=HINT)
        return False

    def watch(self, step: int, figures: Mapping[str, float]) -> None:
        """Look at the figures of answers that are learned from. Raises BottegaError if the run has diverged."""
        if self.by_loss:
            return
        reward = self._means("reward", figures)
        spread = self._means("reward_std", figures)
        if reward and spread and reward[1] < reward[0] - spread[0] < reward[0]:
            self._stop(step, f"the mean reward fell by more than its deviation, {reward[0]:.3f} → {reward[1]:.3f}")
        distance = self._means("kl", figures)
        if distance and distance[1] > LOST:
            self._stop(step, f"the answers are {distance[1]:.2f} nats a token away from the start's (KL)")

    def _watch_loss(self, step: int, loss: float) -> None:
        found = self._means("loss", {"loss": loss})
        if found and found[1] > DIVERGED * max(found[0], 0.0) + LEAST_RISE:
            self._stop(step, f"the loss rose from {found[0]:.3f} to {found[1]:.3f}")

    def _means(self, name: str, figures: Mapping[str, float]) -> tuple[float, float] | None:
        """Mean at the beginning and lately, once there are so many of both; `figures` hold the newest value."""
        if name not in figures:
            return None
        first, last = self.beginnings.setdefault(name, []), self.lately.setdefault(name, [])
        if len(first) < BEGINNING:
            first.append(figures[name])
            return None
        last.append(figures[name])
        del last[:-LATELY]
        return (sum(first) / len(first), sum(last) / len(last)) if len(last) == LATELY else None

    def _stop(self, step: int, reason: str) -> None:
        raise BottegaError(f"step {step}: the run has diverged: {reason}, over the last {LATELY} steps", hint=HINT)

    def _fault(self, loss: float, gradient_norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient's norm is {gradient_norm}"
        if len(self.recent) >= WARM:
            mean = sum(self.recent) / len(self.recent)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in self.recent) / len(self.recent))
            if loss > mean + self.sigma * deviation + LEAST_RISE:
                return f"the loss {loss:.3f} is a spike above {mean:.3f} ± {deviation:.3f}"
        return None
