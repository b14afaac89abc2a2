"""What a model answered to each item, whether that was right, and how sure it was. Imports no torch.

Only metrics that count an item as right or wrong (0 or 1) say what a mistake is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bottega.core.errors import UserError
from bottega.evaluate.figures import higher_is_better, shown_metric
from bottega.evaluate.items import ITEMS_FILE, Item, read_items
from bottega.evaluate.report.read import Measured

Key = tuple[str, int, str]
"""Task, place in the task, and what tells the prompt."""


@dataclass(frozen=True)
class Answered:
    """An item, and whether the answer counts as wrong by `metric`."""

    item: Item
    asked: str
    """Hash of the prompt, or of the document where no prompt is kept: the same for models that were asked the same."""
    metric: str
    wrong: bool

    @property
    def key(self) -> Key:
        """By which the same item is found among another model's."""
        return self.item.task, self.item.doc_id, self.asked

    @cached_property
    def scores(self) -> NDArray[np.float64] | None:
        """What the metric compares of each choice (n,); None if nothing is chosen among two or more."""
        item, count = self.item, len(self.item.choices)
        values = np.array(item.loglikelihoods, dtype=np.float64)
        if count < 2 or len(values) < count or not np.isfinite(values).all():
            return None
        if self.metric == "acc_norm":
            return values[:count] / [len(choice) or 1 for choice in item.choices]
        if self.metric == "acc_bytes":
            return values[:count] / [len(choice.encode()) or 1 for choice in item.choices]
        if self.metric == "acc_mutual_info" and len(values) == 2 * count:
            return values[:count] - values[count:]
        return values[:count]

    @property
    def chosen(self) -> int | None:
        """The index of the choice that scores best."""
        return None if self.scores is None else int(self.scores.argmax())

    @property
    def margin(self) -> float | None:
        """By how much the best choice is ahead of the second (nats, for acc_norm per character)."""
        return None if self.scores is None else float(np.diff(np.sort(self.scores)[-2:])[0])

    @property
    def confidence(self) -> float | None:
        """The chosen one's part of softmax(scores)."""
        return None if self.scores is None else float(1 / np.exp(self.scores - self.scores.max()).sum())

    @property
    def said(self) -> str | None:
        """The chosen text, or what was taken from the response; None if only the right answer was scored."""
        if self.chosen is not None:
            return self.item.choices[self.chosen]
        pipeline = self.metric.partition(",")[2] or "none"
        taken = self.item.filtered.get(pipeline) or next(iter(self.item.filtered.values()), [])
        found = taken or self.item.responses
        return str(found[0]) if found else None


def answers_of(model: Measured, wanted: str | None = None) -> tuple[list[Answered], dict[str, str]]:
    """A model's answers in the order of its runs, and why a task has none.

    Raises UserError if no task counts right and wrong.
    """
    metrics: dict[str, str] = {}
    left_out = {task: f"failed: {cause}" for task, cause in model.data["errors"].items()}
    for task in model.data["results"]:
        found = _binary_metrics(model, task)
        if wanted is not None and wanted not in found:
            left_out[task] = f"{wanted} does not count its items as right or wrong"
        elif not found:
            kept = bool(model.items.get(task))
            left_out[task] = "no metric counts its items as right or wrong" if kept else "the run kept no items of it"
        else:
            metrics[task] = wanted or found[0]
    if not metrics:
        causes = "; ".join(f"{task}: {cause}" for task, cause in left_out.items())
        raise UserError(f"{model.name} has no items that are right or wrong: {causes or 'no task'}")
    answers = []
    for asked, item in _whole_items(model, list(metrics)):
        metric = metrics[item.task]
        higher = higher_is_better(model.data["tasks"].get(item.task, {}), metric)
        answers.append(Answered(item, asked, metric, item.metrics[metric] != float(higher)))
    return answers, left_out


def _binary_metrics(model: Measured, task: str) -> list[str]:
    """The task's metrics that are 0 or 1 of every item, the one that stands for the task first."""
    results, items = model.data["results"][task], [item for _, item in model.items.get(task, {}).values()]
    found = [name for name in results if items and all(item.metrics.get(name) in (0, 1) for item in items)]
    shown = shown_metric(results, model.data["tasks"].get(task, {}))
    return sorted(found, key=lambda name: name != shown)


def _whole_items(model: Measured, tasks: Sequence[str]) -> list[tuple[str, Item]]:
    """What was asked, and the item with its texts; without where a run keeps none (answers to a corpus's questions)."""
    name = model.data["model"]
    whole = {
        (item.task, item.doc_id): item
        for run in model.runs
        if (run / ITEMS_FILE).is_file()
        for item in read_items(run)
        if item.model == name and item.task in tasks
    }
    slim = ((digest, item) for task in tasks for digest, item in model.items[task].values())
    return [
        (item.prompt_hash or digest, whole.get((item.task, item.doc_id)) or replace(item, doc={}))
        for digest, item in slim
    ]
