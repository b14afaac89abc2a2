"""Which models of which runs, by which metric, and which of their items are the same. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottega.core.errors import UserError, did_you_mean
from bottega.evaluate.figures import shown_metric
from bottega.evaluate.items import Item
from bottega.evaluate.report.read import Measured, read_runs


@dataclass
class Matched:
    """Items that both models were asked alike, by pairs, and how many others there are, and why."""

    pairs: list[tuple[Item, Item]] = field(default_factory=list)
    other_prompt: int = 0
    """Items of one place in the task, asked with another prompt or other choices."""
    other_answer: int = 0
    """Asked alike, but with another right answer."""
    alone: int = 0
    """Items that only one of the models was asked."""

    @property
    def refused(self) -> dict[str, int]:
        """The counts by reason, without those that are none."""
        counts = {
            "asked differently": self.other_prompt,
            "another right answer": self.other_answer,
            "asked of one model only": self.alone,
        }
        return {reason: count for reason, count in counts.items() if count}


def choose_models(runs: Sequence[Path], names: Sequence[str], most: int = 2) -> list[Measured]:
    """The models called `names`, or all of the runs if there are not more than `most`; UserError otherwise."""
    found, _ = read_runs(runs)
    known = {model.name: model for model in found}
    if not names:
        if len(found) > most:
            raise UserError(f"the runs have {len(found)} models: {', '.join(known)}", hint="Say which with --models.")
        return found
    if len(set(names)) < len(names):
        raise UserError(f"models: {names[0]} is given twice")
    chosen = []
    for name in names:
        same = [model for model in found if name in (model.name, model.data["model"])]
        if not same:
            raise UserError(f"models: {name!r} is in no run", hint=did_you_mean(name, known) or ", ".join(known))
        if len(same) > 1:
            raise UserError(f"models: {name!r} is in both runs", hint=f"Say {' or '.join(each.name for each in same)}.")
        chosen += same
    return chosen


def match(first: Measured, second: Measured, task: str) -> Matched:
    """The items of a task that are the same for both: place in the task, prompt and choices, right answer."""
    left, right = first.items.get(task, {}), second.items.get(task, {})
    found = Matched(alone=len(left.keys() ^ right.keys()))
    for doc_id in sorted(left.keys() & right.keys()):
        (digest, one), (other_digest, other) = left[doc_id], right[doc_id]
        # Answers to a corpus's questions keep no prompt: there the document says what was asked.
        if (one.prompt_hash or digest) != (other.prompt_hash or other_digest):
            found.other_prompt += 1
        elif (one.gold, one.target) != (other.gold, other.target):
            found.other_answer += 1
        else:
            found.pairs.append((one, other))
    return found


def item_metrics(model: Measured, task: str) -> list[str]:
    """The task's metrics whose figure is the mean of its items' values, the one that stands for the task first."""
    results, items = model.data["results"].get(task), model.items.get(task)
    if not results or not items:
        return []
    found = []
    for metric, figure in results.items():
        values = [item.metrics.get(metric, math.nan) for _, item in items.values()]
        # A perplexity's items hold log-likelihoods, a corpus's BLEU none: their mean is another number.
        if math.isclose(sum(values) / len(values), figure["value"], rel_tol=1e-6, abs_tol=1e-6):
            found.append(metric)
    shown = shown_metric(results, model.data["tasks"].get(task, {}))
    return sorted(found, key=lambda metric: metric != shown)
