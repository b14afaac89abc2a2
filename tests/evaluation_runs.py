"""Evaluation folders as `bottega eval --out` writes them, with drawn answers, for tests of what reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bottega.evaluate.items import Item, items_text
from bottega.evaluate.statistics import wilson

CHOICES = 4


def write_run(
    folder: Path,
    models: Mapping[str, Mapping[str, float]],
    *,
    items: int = 200,
    seed: int = 0,
    suite: str | None = None,
    errors: Mapping[str, Mapping[str, str]] | None = None,
    groups: Mapping[str, list[str]] | None = None,
    num_fewshot: int = 0,
    metric: str = "acc",
    **more: Any,
) -> Path:
    """A run of `models`: name → task → chance of being right. Documents are the same in all runs of one seed."""
    entries, rows = [], []
    for number, (model, tasks) in enumerate(models.items()):
        results, facts = {}, {}
        for task, strength in tasks.items():
            drawn = _items(model, task, strength, items, metric, seed)
            rows += drawn
            results[task] = {metric: _figure([item.metrics[metric] for item in drawn])}
            facts[task] = {
                "alias": task, "version": 1, "num_fewshot": num_fewshot, "items": items, "main_metric": metric,
                "output_type": "multiple_choice", "higher_is_better": {metric: True}, "chance": 1 / CHOICES,
                "seconds": 1.5, "prompt": "plain",
            }  # fmt: skip
        pooled = {
            group: {metric: _figure([row.metrics[metric] for row in rows if row.model == model and row.task in inside])}
            for group, inside in (groups or {}).items()
            if all(task in results for task in inside)
        }
        cost = {
            "seconds": 12.5 + number, "tokens": 50_000, "cached_tokens": 150_000, "generated_tokens": 0,
            "reused_items": 0, "peak_memory": 2**30 + number,
        }  # fmt: skip
        entries.append(
            {
                "model": model, "folder": model, "model_hash": f"{number:064x}", "dtype": "float32",
                "parameters": 110_000_000, "limit": None, "results": results, "tasks": facts, "groups": pooled,
                "group_tasks": dict(groups or {}), "errors": dict((errors or {}).get(model, {})), "cost": cost, **more,
            }
        )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"suite": suite, "models": entries}))
    (folder / "items.jsonl").write_text(items_text(rows))
    return folder


def write_perplexities(
    folder: Path, models: Mapping[str, list[float]], texts: list[str], *, metric: str, task: str = "wiki"
) -> Path:
    """A run of one task whose documents are `texts`: model → ln p of each; the units are bytes, or documents."""
    units = len(texts) if metric == "perplexity" else sum(len(text.encode()) for text in texts)
    entries, rows = [], []
    for number, (model, likelihoods) in enumerate(models.items()):
        rate = -sum(likelihoods) / units
        value = rate / math.log(2) if metric == "bits_per_byte" else math.exp(rate)
        entries.append(
            {
                "model": model, "model_hash": f"{number:064x}", "dtype": "float32", "parameters": 1000, "limit": None,
                "results": {task: {metric: {"value": value, "stderr": 1.0, "ci95": [value - 1.96, value + 1.96]}}},
                "tasks": {task: {"alias": task, "version": 1, "num_fewshot": 0, "items": len(texts), "chance": None,
                                 "main_metric": metric, "higher_is_better": {metric: False}}},
                "groups": {}, "group_tasks": {}, "errors": {}, "cost": {},
            }
        )  # fmt: skip
        rows += [
            Item(model=model, task=task, doc_id=place, doc={}, prompt="", prompt_hash=f"{place:x}", target=text,
                 loglikelihoods=[value], greedy=[False])
            for place, (text, value) in enumerate(zip(texts, likelihoods, strict=True))
        ]  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"suite": None, "models": entries}))
    (folder / "items.jsonl").write_text(items_text(rows))
    return folder


def _items(model: str, task: str, strength: float, count: int, metric: str, seed: int) -> list[Item]:
    """Items on which a stronger model is right wherever a weaker one is, but for some noise."""
    hard = np.random.default_rng([seed, *task.encode()]).random(count)
    own = np.random.default_rng([seed, *task.encode(), *model.encode()])
    found = []
    for number in range(count):
        is_right = bool(hard[number] < strength) != (own.random() < 0.05)
        gold = number % CHOICES
        scores = own.normal(-3.0, 0.5, CHOICES)
        scores[gold if is_right else (gold + 1) % CHOICES] = scores.max() + own.exponential(1.0)
        found.append(
            Item(
                model=model, task=task, doc_id=number, doc={"question": f"{task} {number}"}, prompt=f"Q: {number}",
                prompt_hash=f"{number:016x}", gold=gold, target="abcd"[gold], choices=list("abcd"),
                loglikelihoods=scores.tolist(), greedy=[False] * CHOICES, metrics={metric: float(is_right)},
            )
        )  # fmt: skip
    return found


def _figure(values: list[float]) -> dict[str, Any]:
    estimate = wilson(round(sum(values)), len(values))
    return {"value": estimate.value, "stderr": estimate.error, "ci95": [estimate.low, estimate.high]}
