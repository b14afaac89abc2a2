"""Where a model is wrong, and on what two models disagree: groups, words, positions, examples. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bottega.evaluate.analysis.answers import Answered, Key
from bottega.evaluate.analysis.groups import Group, groups_of, measure_groups, position
from bottega.evaluate.analysis.log_odds import Gram, log_odds, ngrams
from bottega.evaluate.analysis.significance import ALPHA, holm, resampled_mean
from bottega.evaluate.analysis.words import question_parts, words
from bottega.evaluate.statistics import mcnemar, wilson

LONGEST_TEXT = 300  # characters of a text in a list of examples
ALTOGETHER = "all items"


def analyse(name: str, answers: Sequence[Answered], left_out: Mapping[str, str], most: int) -> dict[str, Any]:
    """Everything about one model's mistakes, as plain data (docs/analysis.md)."""
    wrong = np.array([each.wrong for each in answers], dtype=np.bool_)
    share = wilson(int(wrong.sum()), len(wrong))
    grams = _grams(answers)
    return {
        "model": name,
        "items": len(answers),
        "mistakes": int(wrong.sum()),
        "share": {"value": share.value, "ci95": [share.low, share.high]},
        "metrics": {each.item.task: each.metric for each in answers},
        "left_out": dict(left_out),
        "groups": measure_groups(groups_of(answers), wrong),
        "words": [_gram_row(gram) for gram in grams if gram.z > 0][:most],
        "words_compared": len(grams),
        "positions": positions(answers),
        "confident": [_example(each) for each in _confident(answers)[:most]],
    }


def positions(answers: Sequence[Answered]) -> list[dict[str, Any]]:
    """How often each place among the choices is chosen, against how often it is right, of the same items.

    By the number of choices; without tasks whose right answer always stands in the same place, as there the place says
    nothing. p is McNemar's of (chosen, right), by Holm over the places. Rows of `{"choices", "position", "items",
    "chosen", "right", "difference", "ci95", "p_value", "p_adjusted", "shown"}`.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    golds: dict[str, set[int]] = {}
    for each in answers:
        if isinstance(each.item.gold, int):
            golds.setdefault(each.item.task, set()).add(each.item.gold)
    for each in answers:
        chosen, gold = each.chosen, each.item.gold
        if chosen is not None and isinstance(gold, int) and len(golds[each.item.task]) > 1:
            found.setdefault(len(each.item.choices), []).append((chosen, gold))
    rows = []
    for count, pairs in sorted(found.items()):
        for place in range(count):
            chosen, right = [a == place for a, _ in pairs], [b == place for _, b in pairs]
            difference = resampled_mean([np.subtract(chosen, right, dtype=np.float64)])
            share = wilson(sum(chosen), len(pairs))
            rows.append(
                {
                    "choices": count,
                    "position": position(place),
                    "items": len(pairs),
                    "chosen": {"value": share.value, "ci95": [share.low, share.high]},
                    "right": sum(right) / len(pairs),
                    "difference": difference.value,
                    "ci95": [difference.low, difference.high],
                    "p_value": mcnemar(chosen, right).p_value,
                }
            )
    for row, p_value in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row |= {"p_adjusted": p_value, "shown": p_value < ALPHA}
    return rows


def disagreements(first: Sequence[Answered], second: Sequence[Answered], most: int) -> dict[str, Any]:
    """Who is right where, of the items that both were asked alike; the first items that one alone has right.

    By task: `both_right`, `only_first`, `only_second`, `both_wrong`, and McNemar's `p_value`; `not_compared` counts
    the items that only one of them was asked, or in another way, or by another metric.
    """
    other = {each.key: each for each in second}
    pairs = [(each, other[each.key]) for each in first if each.key in other and _judged_alike(each, other[each.key])]
    tasks = list(dict.fromkeys(one.item.task for one, _ in pairs))
    rows = [_outcomes(task, [pair for pair in pairs if pair[0].item.task == task]) for task in tasks]
    if len(tasks) > 1:
        rows.append(_outcomes(ALTOGETHER, pairs))
    split = [(one, two) for one, two in pairs if one.wrong != two.wrong]
    return {
        "tasks": rows,
        "not_compared": len(first) + len(second) - 2 * len(pairs),
        "only_first": [_both(one, two) for one, two in split if two.wrong][:most],
        "only_second": [_both(one, two) for one, two in split if one.wrong][:most],
    }


def export_rows(models: Mapping[str, Sequence[Answered]], data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every item that a model has wrong, for building data: the lines of `errors.jsonl`.

    `{"task", "doc_id", "prompt", "target", "choices", "said": {model: text}, "wrong": [models], "tags": {model: […]}}`;
    tags are the groups (`kind: name`) and words that a model's item lies in.
    """
    tags: dict[str, dict[Key, list[str]]] = {}
    asked: dict[Key, dict[str, Answered]] = {}
    for (name, answers), found in zip(models.items(), data, strict=True):
        typical = [row["words"] for row in found["words"] if row["shown"]]
        tags[name] = _tags(answers, groups_of(answers), typical)
        for each in answers:
            asked.setdefault(each.key, {})[name] = each
    rows = []
    for key, by_model in asked.items():
        wrong = [name for name, each in by_model.items() if each.wrong]
        if not wrong:
            continue
        item = by_model[wrong[0]].item
        rows.append(
            {
                "task": item.task,
                "doc_id": item.doc_id,
                "prompt": item.prompt,
                "target": item.target,
                "choices": item.choices,
                "said": {name: each.said for name, each in by_model.items()},
                "wrong": wrong,
                "tags": {name: tags[name][key] for name in by_model},
            }
        )
    return rows


def _tags(answers: Sequence[Answered], groups: Sequence[Group], typical: Sequence[str]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {each.key: [] for each in answers}
    for group in groups:
        for place in np.flatnonzero(group.members).tolist():
            found[answers[place].key].append(f"{group.kind}: {group.name}")
    for each in answers if typical else ():
        own = ngrams(_question(each))
        found[each.key] += [f"words: {gram}" for gram in typical if gram in own]
    return found


def _grams(answers: Sequence[Answered]) -> list[Gram]:
    strata: dict[str, tuple[list[set[str]], list[set[str]]]] = {}
    for each in answers:
        strata.setdefault(each.item.task, ([], []))[0 if each.wrong else 1].append(ngrams(_question(each)))
    return log_odds(strata.values())


def _question(answer: Answered) -> list[list[str]]:
    """The words of the question, without the examples before it where the document tells them apart."""
    item = answer.item
    return question_parts(item.doc, item.prompt) or [words(item.prompt)]


def _gram_row(gram: Gram) -> dict[str, Any]:
    return {**vars(gram), "shown": gram.shown}


def _confident(answers: Sequence[Answered]) -> list[Answered]:
    """The mistakes among choices, the surest first."""
    mistakes = [each for each in answers if each.wrong and each.confidence is not None]
    return sorted(mistakes, key=lambda each: -(each.confidence or 0.0))


def _judged_alike(one: Answered, other: Answered) -> bool:
    return (one.metric, one.item.gold, one.item.target) == (other.metric, other.item.gold, other.item.target)


def _outcomes(task: str, pairs: Sequence[tuple[Answered, Answered]]) -> dict[str, Any]:
    paired = mcnemar([not one.wrong for one, _ in pairs], [not two.wrong for _, two in pairs])
    both = sum(one.wrong and two.wrong for one, two in pairs)
    right = len(pairs) - both - paired.only_first - paired.only_second
    return {"task": task, "items": len(pairs), "both_right": right, "both_wrong": both, **vars(paired)}


def _example(answer: Answered) -> dict[str, Any]:
    item = answer.item
    return {
        "task": item.task,
        "doc_id": item.doc_id,
        "confidence": answer.confidence,
        "prompt": item.prompt if len(item.prompt) <= LONGEST_TEXT else f"…{item.prompt[1 - LONGEST_TEXT :]}",
        "said": _short(answer.said),
        "target": _short(item.target),
    }


def _both(one: Answered, other: Answered) -> dict[str, Any]:
    found = _example(one)
    return {key: found[key] for key in ("task", "doc_id", "prompt", "target")} | {
        "said": [found["said"], _short(other.said)]
    }


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
