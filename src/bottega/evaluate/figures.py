"""A task's figures as `evaluation.json` holds them, and how they are written for people. Imports no torch.

A figure is `{"value", "stderr", "ci95"}`. What is a share of 1 (acc, exact_match …) is written in per cent, everything
else as the number that it is; only shares can be averaged over tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Figure = Mapping[str, Any]
# Means over items that are no share, though higher is better: points of 100, or without bounds.
NO_SHARES = ("bleu", "chrf", "ter", "rouge", "perplexity", "eqbench", "likelihood", "percent_parseable")


def is_share(metric: str, figure: Figure, *, higher_is_better: bool = True) -> bool:
    """Whether a metric is a share of 1 of which more is better, so that it may enter an average."""
    named_otherwise = any(word in metric.lower() for word in NO_SHARES)
    return higher_is_better and not named_otherwise and 0 <= figure["value"] <= 1


def higher_is_better(facts: Mapping[str, Any], metric: str) -> bool:
    """By the task's facts; metrics that it does not name are taken to be better the higher."""
    return bool(facts.get("higher_is_better", {}).get(metric, True))


def shown_metric(results: Mapping[str, Figure], facts: Mapping[str, Any], wanted: str | None = None) -> str:
    """The metric that stands for a task: the one `wanted`, the task's main one, or its first share if that is none."""
    if wanted in results:
        return str(wanted)
    main = facts.get("main_metric")
    shares = [name for name, each in results.items() if is_share(name, each, **_direction(facts, name))]
    if main in results and (main in shares or not shares):
        return str(main)
    return shares[0] if shares else next(iter(results))


def value_text(value: float, *, share: bool) -> str:
    """0.4621 → '46.2 %' of a share, '0.4621' otherwise."""
    if not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.1f} %" if share else f"{value:.4g}"


def interval_text(figure: Figure, *, share: bool) -> str:
    """'[43.1, 49.3] %', or why there is none."""
    if not figure.get("ci95"):
        return "none"
    low, high = figure["ci95"]
    return f"[{100 * low:.1f}, {100 * high:.1f}] %" if share else f"[{low:.4g}, {high:.4g}]"


def difference_text(value: float, *, share: bool, is_ratio: bool = False, sign: str = "+") -> str:
    """'+4.6' points of a share, '+0.046' otherwise; of ln perplexities their ratio, '×0.955'."""
    if is_ratio:
        return f"×{math.exp(value):.4g}" if abs(value) < 700 else "×∞" if value > 0 else "×0"
    return f"{100 * value:{sign}.1f}" if share else f"{value:{sign}.4g}"


def half_width(figure: Figure) -> float | None:
    """Half of the 95 % interval, if there is one."""
    return (figure["ci95"][1] - figure["ci95"][0]) / 2 if figure.get("ci95") else None


def with_interval(figure: Figure, *, share: bool) -> str:
    """'46.2 [43.1, 49.3]' (per cent of a share); without an interval the value alone.

    Not `±`: near 0 and 1 an interval reaches farther to one side, and its half would be right of neither.
    """
    if not math.isfinite(figure["value"]):
        return "not finite"
    value = value_text(figure["value"], share=share).removesuffix(" %")
    return f"{value} {interval_text(figure, share=share).removesuffix(' %')}" if figure.get("ci95") else value


def _direction(facts: Mapping[str, Any], metric: str) -> dict[str, bool]:
    return {"higher_is_better": higher_is_better(facts, metric)}
