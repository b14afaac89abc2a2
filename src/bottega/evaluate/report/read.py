"""Evaluation folders as models to be held against each other: figures, facts and items. Imports no torch.

Runs of one model (same name, weights, precision and limit) become one row, if no task is measured in both. What
`bottega eval --text/--questions` wrote counts as two tasks more, `text` and `questions`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.hashing import digest_data
from bottega.core.record import read_record
from bottega.evaluate.items import ITEMS_FILE, Item, read_items
from bottega.evaluate.spec import EVALUATION_FILE, PREDICTIONS_FILE, read_evaluation

TEXT, QUESTIONS = "text", "questions"
Items = dict[str, dict[int, tuple[str, Item]]]


@dataclass
class Measured:
    """A model and what was measured of it.

    Attributes:
        name: as the report calls it; no two are the same.
        data: the entry of `evaluation.json`.
        runs: the folders it comes from.
        items: by task and document: what tells the document from another, and the item without its long texts.
    """

    name: str
    data: dict[str, Any]
    runs: list[Path]
    items: Items = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """Every task that was asked, failed ones too."""
        return list(dict.fromkeys([*self.data["results"], *self.data["errors"]]))


def read_runs(folders: Sequence[Path]) -> tuple[list[Measured], str | None]:
    """The models of all runs, and the suite if it is the same everywhere. Raises UserError on a damaged run."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is given twice")
    found: list[Measured] = []
    suites = set()
    for folder in folders:
        data = read_evaluation(folder)
        suites.add(data.get("suite"))
        items = _items(folder)
        for entry in _entries(folder, data):
            own = {task: each for (model, task), each in items.items() if model == entry["model"]}
            _join(found, Measured(entry["model"], entry, [folder], own))
    if not found:
        raise UserError("no run has measured anything", hint="Make one: bottega eval MODEL --tasks … --out FOLDER.")
    _tell_apart(found)
    return found, suites.pop() if len(suites) == 1 else None


def as_measured(data: Mapping[str, Any], items: Sequence[Item]) -> list[Measured]:
    """The models of one run that has just been made."""
    kept = _by_task(items)
    return [
        Measured(
            entry["model"], entry, [], {task: each for (name, task), each in kept.items() if name == entry["model"]}
        )
        for entry in data["models"]
    ]


def _entries(folder: Path, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checked entries of a run, each with every key."""
    entries = data.get("models", [])
    where = folder / EVALUATION_FILE
    if not isinstance(entries, list):
        raise UserError(f"{where}: models is no list")
    checked = [_checked(entry, f"{where}: models[{place}]") for place, entry in enumerate(entries)]
    if "bits_per_byte" in data or "choice" in data:
        checked = checked or [_checked({"model": _name(folder), "results": {}}, str(where))]
        _add_text_and_questions(checked[0], data, str(where))
    return checked


def _checked(entry: Any, where: str) -> dict[str, Any]:
    """The entry with what it leaves out; raises UserError that names what is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
        raise UserError(f"{where} names no model")
    empty = ("results", "tasks", "groups", "group_tasks", "errors", "cost")
    whole = {"model_hash": "", "dtype": "", "parameters": None, "limit": None, **{key: {} for key in empty}, **entry}
    for key in empty:
        if not isinstance(whole[key], dict):
            raise UserError(f"{where}.{key} is no object")
    for key in ("results", "groups"):
        for task, figures in whole[key].items():
            if not isinstance(figures, dict) or not all(map(_is_figure, figures.values())):
                raise UserError(f"{where}.{key}.{task} holds no figures")
    if not all(isinstance(facts, dict) for facts in whole["tasks"].values()):
        raise UserError(f"{where}.tasks is damaged")
    whole["errors"] = {task: str(cause) for task, cause in whole["errors"].items()}
    # A task that measured nothing is no result.
    whole["results"] = {task: figures for task, figures in whole["results"].items() if figures}
    return whole


def _is_figure(figure: Any) -> bool:
    if not isinstance(figure, dict) or not _is_number(figure.get("value")):
        return False
    error, interval = figure.get("stderr"), figure.get("ci95")
    is_pair = isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval))
    return (error is None or _is_number(error)) and (interval is None or is_pair)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(folder: Path) -> str:
    """The model that was measured, by the record of the run."""
    record = read_record(folder)
    given = record.config.get("model") if record is not None else None
    names = [given] if isinstance(given, str) else given or []
    return Path(names[0]).name if names else folder.name


def _add_text_and_questions(entry: dict[str, Any], data: Mapping[str, Any], where: str) -> None:
    """What was measured on a text and on questions, as two tasks. The version is what they were measured on."""
    try:
        if "bits_per_byte" in data:
            interval = data.get("bits_per_byte_interval")
            entry["results"][TEXT] = {"bits_per_byte": _figure(data["bits_per_byte"], interval)}
            entry["tasks"][TEXT] = {
                "version": f"{data['bytes']} bytes",
                "items": data["documents"],
                "main_metric": "bits_per_byte",
                "higher_is_better": {"bits_per_byte": False},
            }
        if "choice" in data:
            choice = data["choice"]
            entry["results"][QUESTIONS] = {"acc": _figure(choice["accuracy"], choice["accuracy_interval"])}
            entry["tasks"][QUESTIONS] = {
                "version": f"{choice['questions']} questions",
                "items": choice["questions"],
                "main_metric": "acc",
                "chance": choice["chance"],
                "prompt": choice["prompt"],
            }
    except (KeyError, TypeError) as error:
        raise UserError(f"{where} is damaged: {error!r}") from None


def _figure(value: float, interval: Sequence[float | None] | None) -> dict[str, Any]:
    is_whole = interval is not None and None not in interval
    return {"value": value, "stderr": None, "ci95": list(interval) if is_whole and interval else None}


def _items(folder: Path) -> dict[tuple[str, str], dict[int, tuple[str, Item]]]:
    """The items of a run by model and task; {} if it kept none."""
    items = list(map(_slim, read_items(folder))) if (folder / ITEMS_FILE).is_file() else []
    if (folder / PREDICTIONS_FILE).is_file():
        items += _predictions(folder)
    return _by_task(items)


def _slim(item: Item) -> Item:
    """Without the long texts; `doc` becomes the digest by which the same document is known again."""
    digest = digest_data([item.doc, item.target])
    return replace(item, prompt="", doc={"digest": digest}, responses=[], filtered={})


def _by_task(items: Sequence[Item]) -> dict[tuple[str, str], dict[int, tuple[str, Item]]]:
    found: dict[tuple[str, str], dict[int, tuple[str, Item]]] = {}
    for item in items:
        slim = item if set(item.doc) == {"digest"} else _slim(item)
        found.setdefault((item.model, item.task), {})[item.doc_id] = (slim.doc["digest"], slim)
    return found


def _predictions(folder: Path) -> list[Item]:
    """The answers of `bottega eval --questions` as items."""
    model = next((entry["model"] for entry in read_evaluation(folder).get("models", [])), None) or _name(folder)
    items = []
    path = folder / PREDICTIONS_FILE
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            is_right = row["predicted"] == row["answer"]
            items.append(
                Item(
                    model=model,
                    task=QUESTIONS,
                    doc_id=number - 1,
                    doc={"question": row["question"], "choices": row["choices"]},
                    prompt="",
                    prompt_hash="",
                    gold=row["answer"],
                    choices=row["choices"],
                    loglikelihoods=row["log_likelihoods"],
                    metrics={"acc": float(is_right)},
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number} is no prediction: {error!r}") from None
    return items


def _join(found: list[Measured], new: Measured) -> None:
    """Put `new` to the row of the same model, or make one."""
    for old in found:
        same = all(old.data[key] == new.data[key] for key in ("model", "model_hash", "dtype", "limit"))
        # A task that failed in one run and was measured in the other is measured.
        if same and not set(old.data["results"]) & set(new.data["results"]) and not _asked_apart(old.data, new.data):
            for key in ("results", "tasks", "groups", "group_tasks", "errors"):
                old.data[key] = {**old.data[key], **new.data[key]}
            measured = old.data["results"]
            old.data["errors"] = {task: cause for task, cause in old.data["errors"].items() if task not in measured}
            old.data["cost"] = _summed(old.data["cost"], new.data["cost"])
            old.data["variants"] = [*old.data.get("variants", []), *new.data.get("variants", [])]
            old.runs += new.runs
            old.items |= new.items
            return
    found.append(new)


def _asked_apart(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the runs asked in different forms (chat, plain): then they are two measurements."""
    forms = [{facts.get("prompt") for facts in data["tasks"].values()} - {None} for data in (old, new)]
    return bool(forms[0] and forms[1]) and forms[0] != forms[1]


def _summed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    if not old or not new:
        return dict(old or new)
    total = {key: old.get(key, 0) + new.get(key, 0) for key in dict.fromkeys([*old, *new])}
    return total | {"peak_memory": max(old.get("peak_memory", 0), new.get("peak_memory", 0))}


def _tell_apart(found: list[Measured]) -> None:
    """Models of one name are called by their runs, too."""
    for label in (lambda each: each.runs[0].name, lambda each: str(each.runs[0])):
        names = [each.name for each in found]
        for each, name in zip(found, names, strict=True):
            if names.count(name) > 1:
                each.name = f"{each.data['model']} ({label(each)})"


def is_finite(figure: Mapping[str, Any]) -> bool:
    """Whether there is a number to show."""
    return math.isfinite(figure["value"])
