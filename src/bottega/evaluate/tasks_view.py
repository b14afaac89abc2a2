"""What was measured on tasks, as blocks for people; from `evaluation.json` alone. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bottega.core.view import Bar, Bars, Block, Spans, Style, Table, Text, human_bytes, human_count, human_seconds
from bottega.evaluate.figures import higher_is_better, interval_text, is_share, shown_metric, value_text

COLUMNS = ("task", "metric", "value", "95 % interval", "chance", "items")
OF_CHOICES = ("acc", "multiple_choice_grade")  # what answers at random have a share of, too
# Of more tasks, those that belong to a group are drawn as their group.
MOST_BARS = 30
MOST_NAMED = 3  # of a group's failed tasks
DRAWN = "examples drawn"  # how the names of those variants begin that draw other examples


def evaluation_tasks_blocks(data: Mapping[str, Any]) -> list[Block]:
    """A table per model, bars, what the models' comparison says, and last, so that nobody misses it, what failed."""
    models: Sequence[Mapping[str, Any]] = data["models"]
    blocks: list[Block] = []
    for model in models:
        if model["results"]:
            blocks.append(results_table(model, several=len(models) > 1))
        if model.get("groups"):
            blocks.append(groups_table(model, several=len(models) > 1))
        if missing := without_average(model):
            blocks.append(Text("\n".join(missing)))
    if bars := task_bars(models):
        blocks.append(bars)
    blocks += [variants_table(model) for model in models if model.get("variants")]
    if len(models) > 1:
        blocks.append(comparison_text(data))
    blocks += [failures(model) for model in models if model["errors"]]
    return blocks


def results_table(model: Mapping[str, Any], *, several: bool = False) -> Table:
    """A row for each metric of each task."""
    rows = []
    for task, results in model["results"].items():
        facts = model["tasks"].get(task, {})
        for metric, figure in results.items():
            share = is_share(metric, figure, higher_is_better=higher_is_better(facts, metric))
            arrow = "" if higher_is_better(facts, metric) else " (lower is better)"
            chance = facts.get("chance") if metric.startswith(OF_CHOICES) else None
            rows.append(
                (
                    task,
                    metric + arrow,
                    value_text(figure["value"], share=share),
                    interval_text(figure, share=share),
                    "" if chance is None else value_text(chance, share=True),
                    facts.get("items"),
                )
            )
    return Table(f"Tasks: {model['model']}" if several else "Tasks", COLUMNS, rows, _note(model))


def groups_table(model: Mapping[str, Any], *, several: bool = False) -> Table:
    """The averages of groups; a group with a failed task has none."""
    rows = []
    for group, results in model["groups"].items():
        for metric, figure in results.items():
            share = is_share(metric, figure)
            tasks = len(model["group_tasks"].get(group, ()))
            value, interval = value_text(figure["value"], share=share), interval_text(figure, share=share)
            rows.append((group, metric, value, interval, tasks))
    title = f"Groups: {model['model']}" if several else "Groups"
    return Table(title, ("group", "metric", "value", "95 % interval", "tasks"), rows)


def without_average(model: Mapping[str, Any]) -> list[str]:
    """A sentence for each group that has no average because tasks of it failed."""
    lines = []
    for group, members in model.get("group_tasks", {}).items():
        failed = [task for task in members if task in model["errors"]]
        if failed and group not in model.get("groups", {}):
            more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
            lines.append(f"{group}: no average, because {', '.join(failed[:MOST_NAMED])}{more} failed")
    return lines


def task_bars(models: Sequence[Mapping[str, Any]]) -> Bars | None:
    """The metric that stands for each task, a bar for each model, chance marked; None if no task has a share."""
    bars = [
        bar for task in bar_names(models) for model in models if (bar := _bar(model, task, grouped=len(models) > 1))
    ]
    if not bars:
        return None
    title = "Tasks and their 95 % intervals"
    return Bars(title, "share of items", bars, percent=True, reference_label="chance")


def bar_names(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of tasks; where they are many, those of a group that has an average give way to the group."""
    tasks = unique(task for model in models for task in model["results"])
    if len(tasks) <= MOST_BARS:
        return tasks
    groups = unique(group for model in models for group in model.get("groups", {}))
    inside = {task for model in models for group in groups for task in model["group_tasks"].get(group, ())}
    return [*groups, *(task for task in tasks if task not in inside)]


def variants_table(model: Mapping[str, Any]) -> Table:
    """What becomes of each task's figure if it is asked in another way."""
    only_drawn = all(each["variant"].startswith(DRAWN) for each in model["variants"])
    rows = []
    for task, results in model["results"].items():
        facts = model["tasks"].get(task, {})
        metric = shown_metric(results, facts)
        figures = [results[metric]]
        figures += [found for each in model["variants"] if (found := each["results"].get(task, {}).get(metric))]
        share = all(is_share(metric, each) for each in figures)
        values = [each["value"] for each in figures]
        ends = min(values), max(values)
        varied = not (only_drawn and facts.get("num_fewshot") == 0)
        failed = sum(task in each.get("errors", ()) for each in model["variants"])
        remarks = [f"{failed} failed"] * bool(failed) + ["not varied"] * (not varied)
        rows.append(
            (
                task,
                metric,
                value_text(figures[0]["value"], share=share),
                interval_text(figures[0], share=share),
                *((value_text(end, share=share) for end in ends) if varied else ("", "")),
                "; ".join(remarks),
            )
        )
    names = ", ".join(each["variant"] for each in model["variants"])
    columns = ("task", "metric", "as asked first", "95 % interval", "lowest", "highest", "")
    note = f"Asked again: {names}."
    if only_drawn:
        note += " Through a chat template it was not asked: the model has none."
    if any("not varied" in row[-1] for row in rows):
        note += " Not varied: no examples are drawn."
    note += " Where lowest and highest lie outside the interval, the form is what is measured."
    return Table(f"How far the way of asking moves the figures: {model['model']}", columns, rows, note)


def comparison_text(data: Mapping[str, Any]) -> Text:
    """Which models differ, by the paired comparison of the run (`comparisons`), or where to get it."""
    lines = [str(each["text"]) for each in data.get("comparisons", ())]
    return Text("\n".join(lines) or "Which differences are shown, item by item: bottega report RUN.")


def failures(model: Mapping[str, Any]) -> Spans:
    """The tasks that failed, each with its cause."""
    count = len(model["errors"])
    title = f"FAILED: {count} {'task' if count == 1 else 'tasks'} of {model['model']}"
    spans: list[tuple[str, Style]] = []
    for task, cause in model["errors"].items():
        spans.append((f"{task} failed: {_without_name(cause, task)}", "bad"))
        spans.append(("\n", "plain"))
    spans.pop()
    return Spans(f"{title}. No figure and no average takes them in.", spans)


def _without_name(cause: str, task: str) -> str:
    """The cause without the task's name before it, which stands there already."""
    return re.sub(rf"^task {re.escape(task)}(?:[:,] | )", "", cause)


def cost_line(cost: Mapping[str, Any]) -> str:
    """Time, tokens and memory of one model's run."""
    parts = [f"{human_seconds(cost['seconds'])}, {human_count(cost['tokens'])} tokens computed"]
    if cost.get("cached_tokens"):
        parts.append(f"{human_count(cost['cached_tokens'])} taken from the cache")
    if cost.get("reused_items"):
        parts.append(f"{cost['reused_items']:,} answers known before")
    if cost.get("peak_memory"):
        parts.append(f"peak memory {human_bytes(cost['peak_memory'])}")
    return ", ".join(parts)


def unique(names: Iterable[str]) -> list[str]:
    """Each name once, in order."""
    return list(dict.fromkeys(names))


def _bar(model: Mapping[str, Any], task: str, *, grouped: bool) -> Bar | None:
    results = model["results"].get(task) or model.get("groups", {}).get(task)
    if not results:
        return None
    facts = model["tasks"].get(task, {})
    metric = shown_metric(results, facts)
    figure = results[metric]
    if not is_share(metric, figure, higher_is_better=higher_is_better(facts, metric)):
        return None
    low, high = figure.get("ci95") or (None, None)
    name, group = (model["model"], f"{task}, {metric}") if grouped else (f"{task}, {metric}", "")
    return Bar(
        name,
        figure["value"],
        low,
        high,
        group=group,
        reference=facts.get("chance") if metric.startswith(OF_CHOICES) else None,
    )


def _note(model: Mapping[str, Any]) -> str:
    facts = model["tasks"].values()
    shots: dict[Any, list[str]] = {}
    for task, each in model["tasks"].items():
        shots.setdefault(each.get("num_fewshot"), []).append(task)
    parts = []
    if model.get("limit"):
        parts.append(f"Only the first {model['limit']} documents of each task: these are not the tasks' scores.")
    if len(shots) == 1:
        parts.append(f"Examples before each question: {next(iter(shots))}.")
    elif shots:
        parts.append(
            "Examples before each question: " + "; ".join(f"{n} ({', '.join(t)})" for n, t in shots.items()) + "."
        )
    prompts = unique(str(each.get("prompt", "plain")) for each in facts)
    asked = {"chat": "through the chat template", "plain": "as plain text"}
    parts += [f"Asked {asked.get(each, each)}." for each in prompts]
    if model.get("cost"):
        parts.append(f"It took {cost_line(model['cost'])}.")
    return " ".join(parts)
