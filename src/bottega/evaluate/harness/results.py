"""From answers to figures: each item's own values, then every task's, with its error. Imports no torch.

Source: `process_results` and the aggregation of lm-evaluation-harness 0.4.13: a metric is computed behind each filter
pipeline, and is called `metric,pipeline` where that has a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from bottega.core.errors import BottegaError, UserError, did_you_mean
from bottega.evaluate.harness.requests import Asked
from bottega.evaluate.harness.store import Answer
from bottega.evaluate.items import Item
from bottega.evaluate.metrics import aggregate
from bottega.evaluate.metrics.choice import CHOICE_METRICS, choice_metrics
from bottega.evaluate.metrics.matching import TEXT_METRICS, score_text
from bottega.evaluate.statistics import Estimate
from bottega.evaluate.tasks import filters
from bottega.evaluate.tasks.schema import Group, Metric, TaskConfig

KNOWN_METRICS: dict[str, Collection[str]] = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": CHOICE_METRICS,
    "generate_until": TEXT_METRICS,
}
LONGEST_COLUMN = 2000  # characters of a document's column that an item keeps


@dataclass
class TaskResult:
    """What came of a task: the estimate of each metric, and every item."""

    task: TaskConfig
    estimates: dict[str, Estimate]
    items: list[Item]
    num_fewshot: int
    is_chat: bool
    seconds: float = 0.0
    by_size: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def main_metric(self) -> str:
        """The first metric of the task."""
        return next(iter(self.estimates))

    def figures(self) -> dict[str, Any]:
        """The estimates as plain data."""
        return {name: figure(estimate) for name, estimate in self.estimates.items()}

    def facts(self) -> dict[str, Any]:
        """What there is to say about the task beside its figures."""
        chances = [1 / len(item.choices) for item in self.items if item.choices]
        return {
            "alias": self.task.task_alias or self.task.task,
            "version": self.task.version,
            "num_fewshot": self.num_fewshot,
            "items": len(self.items),
            "output_type": self.task.output_type,
            "higher_is_better": {name: _higher(self.task, name) for name in self.estimates},
            "main_metric": self.main_metric,
            "chance": sum(chances) / len(chances) if chances and self.task.process_results is None else None,
            "seconds": self.seconds,
            "prompt": "chat" if self.is_chat else "plain",
        }


def figure(estimate: Estimate) -> dict[str, Any]:
    """`{"value", "stderr", "ci95"}`."""
    has_interval = estimate.low is not None and estimate.high is not None
    interval = [estimate.low, estimate.high] if has_interval else None
    return {"value": estimate.value, "stderr": estimate.error, "ci95": interval}


def task_result(
    model: str, task: TaskConfig, asked: Sequence[Asked], answers: Mapping[int, list[Answer]], **facts: Any
) -> TaskResult:
    """The figures of a task from the answers of each document (by its place in `asked`).

    Raises UserError or BottegaError where an item cannot be counted: then there is no figure at all.
    """
    values: dict[str, list[Any]] = {}
    items = []
    for place, each in enumerate(asked):
        try:
            item, own = _item(model, task, each, answers[place])
        except BottegaError as error:
            where = f"task {task.task}, document {each.prompt.doc_id}"
            raise type(error)(f"{where}: {error.message}", hint=error.hint) from None
        items.append(item)
        for name, value in own.items():
            values.setdefault(name, []).append(value)
    estimates = {name: _estimate(task, name, found) for name, found in values.items()}
    if not estimates:
        raise UserError(f"task {task.task} measures nothing: no metric of its list came out")
    return TaskResult(task, estimates, items, **facts)


def require_metrics(task: TaskConfig) -> None:
    """Raise UserError for a metric or aggregation that is not there; a task with code of its own names its own."""
    known = KNOWN_METRICS[task.output_type]
    for metric in task.metrics:
        own = callable(metric.metric) or task.process_results is not None
        if not own and metric.name not in known:
            raise UserError(
                f"task {task.task}: {task.output_type} has no metric {metric.name!r}",
                hint=did_you_mean(metric.name, known),
            )
        if isinstance(metric.aggregation, str) and metric.aggregation not in aggregate.AGGREGATIONS:
            raise UserError(
                f"task {task.task}: there is no aggregation {metric.aggregation!r}",
                hint=did_you_mean(metric.aggregation, aggregate.AGGREGATIONS),
            )


def group_figures(group: Group, results: Mapping[str, TaskResult], tasks: Sequence[str]) -> dict[str, Any]:
    """A group's averages over its tasks; {} where one of them has no figure, as an average over the rest is another."""
    if any(name not in results for name in tasks):
        return {}
    found = {}
    for metric, pipelines, by_size in group.metrics:
        for pipeline in pipelines:
            key = metric if pipeline == "none" else f"{metric},{pipeline}"
            estimates = [results[name].estimates.get(key) for name in tasks]
            if all(estimate is not None for estimate in estimates):
                found[key] = figure(aggregate.pooled([each for each in estimates if each], by_size=by_size))
    return found


def _item(model: str, task: TaskConfig, asked: Asked, answers: list[Answer]) -> tuple[Item, dict[str, Any]]:
    """An item, and its value of each metric as the aggregation takes it."""
    prompt = asked.prompt
    likelihoods, greedy, responses = _sorted(asked, answers)
    own: dict[str, Any] = {}
    filtered: dict[str, list[str]] = {}
    if task.output_type == "generate_until":
        for pipeline in task.pipelines:
            taken = filters.apply(pipeline, responses, prompt.doc)
            filtered[pipeline.name] = taken if isinstance(taken, list) else [taken]
            suffix = "" if pipeline.name == "none" else f",{pipeline.name}"
            own |= {name + suffix: value for name, value in _generated(task, asked, taken).items()}
    else:
        own = _likely(task, asked, likelihoods, greedy)
    item = Item(
        model=model,
        task=task.task,
        doc_id=prompt.doc_id,
        doc={key: value for key, value in prompt.doc.items() if _is_short(value)},
        prompt=prompt.contexts[0],
        prompt_hash=_prompt_hash(asked),
        target=_target_text(asked),
        gold=prompt.gold,
        choices=prompt.choices,
        loglikelihoods=likelihoods,
        greedy=greedy,
        responses=responses,
        filtered=filtered,
        metrics={name: float(value) for name, value in own.items() if isinstance(value, (bool, int, float))},
    )
    return item, own


def _sorted(asked: Asked, answers: list[Answer]) -> tuple[list[float], list[bool], list[str]]:
    """The sums over each continuation's windows, whether all of it was greedy, and the generated texts."""
    each = iter(answers)
    likelihoods, greedy = [], []
    for scores in asked.scores:
        found = [answer for answer in (next(each) for _ in scores) if not isinstance(answer, str)]
        likelihoods.append(sum(value for value, _ in found))
        greedy.append(all(flag for _, flag in found))
    return likelihoods, greedy, [answer for answer in each if isinstance(answer, str)]


def _likely(task: TaskConfig, asked: Asked, likelihoods: list[float], greedy: list[bool]) -> dict[str, Any]:
    prompt = asked.prompt
    if task.process_results is not None:
        return _processed(task, prompt.doc, _lm_eval_results(task, likelihoods, greedy))
    wanted = {metric.name for metric in task.metrics}
    if task.output_type == "loglikelihood":
        own = {"perplexity": likelihoods[0], "acc": int(greedy[0])}
    elif task.output_type == "loglikelihood_rolling":
        text = prompt.continuations[0]
        words, size = len(re.split(r"\s+", text)), len(text.encode("utf-8"))
        own = {
            "word_perplexity": (likelihoods[0], words),
            "byte_perplexity": (likelihoods[0], size),
            "bits_per_byte": (likelihoods[0], size),
        }
    else:
        count = len(prompt.choices)
        assert prompt.gold is not None
        own = choice_metrics(
            likelihoods[:count],
            greedy[:count],
            prompt.choices,
            prompt.gold,
            unconditional=likelihoods[count:] or None,
            wanted=wanted,
        )
    return {metric.name: own[metric.name] for metric in task.metrics if metric.name in own}


def _lm_eval_results(task: TaskConfig, likelihoods: list[float], greedy: list[bool]) -> list[Any]:
    """The `results` that a task's own `process_results` expects."""
    if task.output_type == "loglikelihood_rolling":
        return list(likelihoods)
    return list(zip(likelihoods, greedy, strict=True))


def _generated(task: TaskConfig, asked: Asked, taken: Any) -> dict[str, Any]:
    prompt = asked.prompt
    if task.process_results is not None:
        return _processed(task, prompt.doc, [taken])
    own: dict[str, Any] = {}
    for metric in task.metrics:
        if callable(metric.metric):
            value = _own_metric(metric, prompt.target, taken)
        else:
            several = isinstance(prompt.target, list)
            references = [str(each) for each in (prompt.target if several else [prompt.target])]
            answer = taken[0] if isinstance(taken, list) else taken
            value = score_text(metric.name, str(answer), references, metric.options)
        own |= value if isinstance(value, dict) else {metric.name: value}
    return own


def _own_metric(metric: Metric, target: Any, taken: Any) -> Any:
    """A metric that the task brings as a function."""
    assert callable(metric.metric)
    try:
        return metric.metric(references=[target], predictions=[taken], **metric.options)
    except BottegaError:
        raise
    except Exception as error:  # it is the task's code
        raise UserError(f"metric {metric.name} fails: {type(error).__name__}: {error}") from None


def _processed(task: TaskConfig, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
    assert task.process_results is not None
    try:
        return dict(task.process_results(doc, results))
    except BottegaError:
        raise
    except Exception as error:  # it is the task's code, on a document that may not be what it expects
        raise UserError(f"{task.process_results.__name__} fails: {type(error).__name__}: {error}") from None


def _metric_of(task: TaskConfig, name: str) -> Metric | None:
    """The entry of a figure; where a function gives figures of other names (`pass@1`), that function's."""
    bare = name.split(",")[0]
    own = [metric for metric in task.metrics if callable(metric.metric)] if task.process_results is None else []
    return next((metric for metric in [*task.metrics, *own] if metric.name == bare), own[0] if len(own) == 1 else None)


def _estimate(task: TaskConfig, name: str, values: list[Any]) -> Estimate:
    metric = _metric_of(task, name)
    aggregation = metric.aggregation if metric is not None and metric.aggregation is not None else None
    try:
        if callable(aggregation):
            return Estimate(float(aggregation(values)), None, None, len(values))
        bare = name.split(",")[0]
        return aggregate.estimate(aggregation or aggregate.DEFAULT_AGGREGATION.get(bare, "mean"), values)
    except BottegaError:
        raise
    except Exception as error:  # the values are those of the task's code, or the aggregation is
        raise UserError(f"task {task.task}: {name} has no figure: {type(error).__name__}: {error}") from None


def _higher(task: TaskConfig, name: str) -> bool:
    metric = _metric_of(task, name)
    if metric is not None and metric.higher_is_better is not None:
        return metric.higher_is_better
    return aggregate.HIGHER_IS_BETTER.get(name.split(",")[0], True)


def _target_text(asked: Asked) -> str:
    prompt = asked.prompt
    if isinstance(prompt.gold, int) and prompt.choices:
        return prompt.choices[prompt.gold]
    if isinstance(prompt.gold, list):
        return " | ".join(prompt.choices[each] for each in prompt.gold)
    return prompt.target if isinstance(prompt.target, str) else str(prompt.target)


def _prompt_hash(asked: Asked) -> str:
    """Of what was asked as text: two models were asked the same where it is the same."""
    prompt = asked.prompt
    return blake2b("\0".join([*prompt.contexts, *prompt.continuations]).encode(), digest_size=8).hexdigest()


def _is_short(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float)):
        return True
    if isinstance(value, str):
        return len(value) <= LONGEST_COLUMN
    try:
        return len(json.dumps(value)) <= LONGEST_COLUMN
    except (TypeError, ValueError, RecursionError):  # a date or bytes, say
        return False
