"""The figures of a run over its steps, as charts: one for each kind of figure, where `metrics.jsonl` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bottega.core.view import Chart, Series

Rows = Sequence[Mapping[str, Any]]
HELD = "heldout_"


@dataclass(frozen=True)
class Curve:
    """A chart: its lines are figures of the rows by name, `lines` maps them to what they are called."""

    title: str
    unit: str
    lines: Mapping[str, str]
    note: str = ""


CURVES = (
    Curve("Rewards", "reward", {
        "reward": "mean", "reward_chosen": "chosen", "reward_rejected": "rejected", "margin": "margin",
        "reward_desirable": "good", "reward_undesirable": "bad",
    }),
    Curve("Accuracy", "share", {"accuracy": "training"}, "Share of the examples that are told apart."),
    Curve("Log-probabilities of the answers", "nats", {
        "log_prob_chosen": "chosen", "log_prob_rejected": "rejected", "log_prob_desirable": "good",
        "log_prob_undesirable": "bad",
    }, "Where both fall, the answers that were preferred become rarer too."),
    Curve("Distance from the start", "KL, nats", {"kl": "KL"}),
    Curve("Entropy", "nats per token", {"entropy": "entropy"}, "How open the next token is: near zero nothing is new."),
    Curve("Length of the answers", "tokens", {"length": "mean"}),
    Curve("Answers and groups", "share", {
        "finished": "ended by themselves", "zero_variance": "groups of equal rewards",
        "clip_low": "ratio clipped below", "clip_high": "ratio clipped above",
    }),
)  # fmt: skip
SILENT = ("clip_low", "clip_high", "drift")  # with one step on each batch of answers these are zero throughout
HELD_TOO = ("reward", "margin", "accuracy")


def curves(rows: Rows) -> list[Chart]:
    """A chart of each kind that the rows have figures of."""
    found = [chart for curve in CURVES if (chart := _chart(curve, rows)) is not None]
    return found if (parts := _parts(rows)) is None else [found[0], parts, *found[1:]]


def points(rows: Rows, name: str) -> list[tuple[float, float]]:
    """(step, value) of a figure, in order."""
    return [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]


def is_silent(rows: Rows, name: str) -> bool:
    """Whether a figure has nothing to say in this run."""
    return name in SILENT and not any(value for _, value in points(rows, name))


def _chart(curve: Curve, rows: Rows) -> Chart | None:
    series = []
    for name, label in curve.lines.items():
        if is_silent(rows, name):
            continue
        for key, shown in ((name, label), (HELD + name, f"held-out{'' if len(curve.lines) == 1 else ', ' + label}")):
            if (found := points(rows, key)) and (key == name or name in HELD_TOO):
                series.append(Series(shown, found))
    return Chart(curve.title, "steps", curve.unit, series, note=curve.note) if series else None


def _parts(rows: Rows) -> Chart | None:
    """The rewards one by one, where there are several."""
    names = sorted({key for row in rows for key in row if key.startswith("reward/") and not key.endswith("_std")})
    if len(names) < 2:
        return None
    series = [Series(name.partition("/")[2], points(rows, name)) for name in names]
    return Chart("Rewards one by one", "steps", "reward", series)
