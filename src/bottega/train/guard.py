"""Bad steps: a loss or gradient that is not finite, or a loss far above the recent ones.

The rule is OLMo's skip step: compare with mean and standard deviation of the last 128 good losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bottega.core.errors import BottegaError

WINDOW = 128
WARM = 32
MOST_IN_A_ROW = 10
LEAST_RISE = 0.5  # nats; where the losses hardly differ, any wobble is many standard deviations


@dataclass
class Guard:
    """Judges each step before the optimiser sees its gradient."""

    sigma: float
    stop: bool
    recent: list[float] = field(default_factory=list)
    skipped: int = 0
    in_a_row: int = 0

    def accepts(self, step: int, loss: float, gradient_norm: float) -> bool:
        """Whether to take the step. Raises BottegaError if it must not be skipped, or too many have been."""
        reason = self._fault(loss, gradient_norm)
        if reason is None:
            self.in_a_row = 0
            self.recent = [*self.recent[-WINDOW + 1 :], loss]
            return True
        self.skipped += 1
        self.in_a_row += 1
        if self.stop or self.in_a_row >= MOST_IN_A_ROW:
            raise BottegaError(
                f"step {step}: {reason}",
                hint="The last saved state is kept. A lower learning_rate or a longer warmup usually helps.",
            )
        return False

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
