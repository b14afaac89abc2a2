"""When to ask again: FSRS-6 (package `fsrs`), one card for each concept.

A day ends at four in the morning, local time, so that an answer late at night and one after breakfast are a day apart;
of a day, the first answer counts. The largest interval is two months: a course is used over months, not decades.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fsrs import Card, Rating, Scheduler

RETENTION, LONGEST_DAYS, ROLLOVER_HOUR = 0.9, 60, 4
_SCHEDULER = Scheduler(
    desired_retention=RETENTION, learning_steps=(), relearning_steps=(), maximum_interval=LONGEST_DAYS,
    enable_fuzzing=False,
)  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """What is remembered of a concept: its card, and the day of the last answer that counted."""

    card: Card
    day: datetime

    def due(self) -> datetime:
        """The beginning of the day from which it is to be asked again."""
        return self.card.due

    def recall(self, now: datetime) -> float:
        """The probability that it is remembered now."""
        return _SCHEDULER.get_card_retrievability(self.card, day_of(now))


def day_of(at: datetime) -> datetime:
    """The beginning of the learner's day, in UTC as `fsrs` wants it."""
    local = at - timedelta(hours=ROLLOVER_HOUR)
    start = local.replace(hour=ROLLOVER_HOUR, minute=0, second=0, microsecond=0)
    return start.astimezone(UTC)


def remembered(memory: Memory | None, at: datetime, rating: Rating) -> Memory:
    """The memory after an answer; a second one on the same day changes nothing."""
    day = day_of(at)
    if memory is not None and memory.day == day:
        return memory
    card, _ = _SCHEDULER.review_card(memory.card if memory else Card(), rating, review_datetime=day)
    return Memory(card, day)


def rating_of(right: bool, *, helped: bool = False, unsure: bool = False, code: bool = False) -> Rating:
    """Wrong, or with help: again. Unsure: hard. Right: good; a coded exercise at the first run: easy."""
    if not right or helped:
        return Rating.Again
    if unsure:
        return Rating.Hard
    return Rating.Easy if code else Rating.Good
