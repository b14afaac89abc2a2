"""Whether the items of tasks stand in training text, and what scores are with and without those. Imports no torch.

Sources: T. Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C: n-grams of 13 words, a shorter
text (of 8 words or more) as a whole, *clean* is an item of which nothing is found; A. Chowdhery et al., "PaLM" (2022),
sec. 8: *dirty* is an item of whose n-grams 70 % are found (there of 8 words). What lies between is *suspect*.

Of an item those texts of the document are looked for that stand in the prompt (not the examples before it, nor the
words around it), each by itself, and the right answer; where no text of the document stands in it, the whole prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.data.sources import Skipped, is_rows, read_documents, source_files
from bottega.data.spec import CONVERSATIONS_FILE, CORPUS_FILE, TRAIN_FILE
from bottega.evaluate.analysis.overlap import Overlap, Passage
from bottega.evaluate.analysis.pairing import item_metrics
from bottega.evaluate.analysis.significance import mean_of, means_difference
from bottega.evaluate.analysis.words import question_parts, words
from bottega.evaluate.items import read_items
from bottega.evaluate.report.read import Measured, read_runs
from bottega.evaluate.statistics import Estimate, wilson
from bottega.evaluate.tasks.load import load_tasks
from bottega.evaluate.tasks.prompts import Asking, Prompt, Prompts

VERDICTS = ("clean", "suspect", "dirty", "too short")
LONGEST_TEXT = 200  # characters of an item in a list of examples
Key = tuple[str, int]


@dataclass(frozen=True)
class Sought:
    """An item's texts (lists of words), and whether they are the document's own, not the whole prompt's."""

    task: str
    doc_id: int
    parts: list[list[str]]
    own: bool


def sought_of_run(run: Path) -> list[Sought]:
    """The items of a run; each once, however many models it has."""
    found: dict[Key, Sought] = {}
    for item in read_items(run):
        if (item.task, item.doc_id) not in found:
            found[item.task, item.doc_id] = _sought(item.task, item.doc_id, item.doc, item.prompt, [item.target])
    if not found:
        raise UserError(f"{run} has no items")
    return list(found.values())


def sought_of_tasks(names: Sequence[str], data: Path | None) -> list[Sought]:
    """The items of tasks, asked without examples; raises UserError for a task whose documents are not there."""
    return [
        _sought(name, prompt.doc_id, prompt.doc, prompt.contexts[0], _targets(prompt))
        for name, task in load_tasks(names).tasks.items()
        for prompt in Prompts(task, data, Asking(num_fewshot=0)).build()
    ]


def passages(paths: Sequence[Path], skipped: Skipped) -> Iterator[Passage]:
    """The training text, in pieces. Of a corpus folder, what is trained on: `train.jsonl`, `conversations.jsonl`.

    A row's place is `file#row`, rows counted from 0; of other text it is `file:line`. Raises UserError for a path
    without any text.
    """
    for path in paths:
        count = 0
        for file in _files(path):
            before, line = "", 1
            for document in read_documents(file, skipped):
                place = str(file / document.source if file.is_dir() else file)
                number = document.id.removeprefix(document.source)
                if is_rows(document.source):
                    yield Passage(f"{place}{number}", document.text)
                else:
                    line = line if place == before else 1
                    yield Passage(place, document.text, line, continues=place == before)
                    line += document.text.count("\n")
                before = place
                count += 1
        if not count:
            why = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in skipped.examples.items())
            raise UserError(f"{path} has no text to look in" + (f" ({why})" if why else ""))


def size_of(path: Path) -> int | None:
    """Bytes of the training text at `path`; None if there is nothing."""
    if not path.exists():
        return None
    files = [each for file in _files(path) for each in (source_files(file, Skipped()) if file.is_dir() else [file])]
    return sum(file.stat().st_size for file in files)


def item_rows(sought: Sequence[Sought], overlap: Overlap, dirty: float) -> list[dict[str, Any]]:
    """Each item: `{"task", "doc_id", "verdict", "share", "found", "ngrams", "place", "text"}`."""
    rows = []
    for each, found, total, place in zip(sought, overlap.found(), overlap.totals, overlap.places, strict=True):
        share = float(found / total) if total else None
        text = " … ".join(" ".join(part) for part in each.parts)
        rows.append(
            {
                "task": each.task,
                "doc_id": each.doc_id,
                "verdict": _verdict(share, dirty),
                "share": share,
                "found": int(found),
                "ngrams": int(total),
                "place": place,
                "text": text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…",
            }
        )
    return rows


def contamination_data(sought: Sequence[Sought], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by task (and over all, if there are several), the share that is dirty of those that could be judged."""
    tasks = list(dict.fromkeys(each.task for each in sought))
    found = [_counts(task, [row for row in rows if row["task"] == task]) for task in tasks]
    for row in found:
        row["by_prompt"] = sum(not each.own for each in sought if each.task == row["task"])
    if len(tasks) > 1:
        found.append(_counts("all items", rows) | {"by_prompt": sum(row["by_prompt"] for row in found)})
    return {"tasks": found}


def scores(
    run: Path, rows: Sequence[Mapping[str, Any]], wanted: str | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Each model's score on the clean, suspect and dirty items of each task, and which tasks have none, and why.

    `{"model", "task", "metric", "clean", "suspect", "dirty", "too short", "difference", "ci95"}`; a score is
    `{"value", "ci95", "items"}`, the difference dirty − clean (null where one of them has no items).
    """
    verdicts = {(row["task"], row["doc_id"]): row["verdict"] for row in rows}
    found, left_out = [], {}
    for model in read_runs([run])[0]:
        for task in model.data["results"]:
            metrics = item_metrics(model, task)
            if not metrics or (wanted is not None and wanted not in metrics):
                left_out[f"{task}, {model.name}"] = f"{wanted or 'its metric'} is no mean over its items"
            else:
                found.append(_score_row(model, task, wanted or metrics[0], verdicts))
    if wanted is not None and not found:
        raise UserError(f"metric: {wanted!r} is no mean over the items of any task of {run}")
    return found, left_out


def _score_row(model: Measured, task: str, metric: str, verdicts: Mapping[Key, str]) -> dict[str, Any]:
    values: dict[str, list[float]] = {verdict: [] for verdict in VERDICTS}
    for doc_id, (_, item) in model.items[task].items():
        if (task, doc_id) in verdicts:
            values[verdicts[task, doc_id]].append(item.metrics[metric])
    row: dict[str, Any] = {"model": model.name, "task": task, "metric": metric, "difference": None, "ci95": None}
    for verdict, own in values.items():
        row[verdict] = {**_figure(mean_of(own)), "items": len(own)} if own else None
    if values["clean"] and values["dirty"]:
        figure = _figure(means_difference(values["dirty"], values["clean"]))
        row |= {"difference": figure["value"], "ci95": figure["ci95"]}
    return row


def _counts(task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = Counter(row["verdict"] for row in rows)
    judged = len(rows) - counts["too short"]
    return {
        "task": task,
        "items": len(rows),
        **{verdict: counts[verdict] for verdict in VERDICTS},
        "share_dirty": _figure(wilson(counts["dirty"], judged)) if judged else None,
    }


def _figure(estimate: Estimate) -> dict[str, Any]:
    interval = None if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]
    return {"value": estimate.value, "ci95": interval}


def _verdict(share: float | None, dirty: float) -> str:
    if share is None:
        return "too short"
    return "dirty" if share >= dirty else "suspect" if share > 0 else "clean"


def _sought(task: str, doc_id: int, doc: Mapping[str, Any], prompt: str, targets: Sequence[str]) -> Sought:
    own = question_parts(doc, prompt)
    parts = own or [words(prompt)]
    for target in map(words, targets):
        if not any(f" {' '.join(target)} " in f" {' '.join(part)} " for part in parts):
            parts.append(target)
    return Sought(task, doc_id, [part for part in parts if part], bool(own))


def _targets(prompt: Prompt) -> list[str]:
    """The right answers as texts."""
    if prompt.choices and prompt.gold is not None:
        return [prompt.choices[gold] for gold in ([prompt.gold] if isinstance(prompt.gold, int) else prompt.gold)]
    return [str(each) for each in (prompt.target if isinstance(prompt.target, list) else [prompt.target])]


def _files(path: Path) -> list[Path]:
    """The path itself, or the files of a corpus folder that are trained on."""
    if not (path / CORPUS_FILE).is_file():
        return [path]
    files = [path / name for name in (TRAIN_FILE, CONVERSATIONS_FILE)]
    return [file for file in files if file.is_file() and file.stat().st_size]
