"""The documents of a task: files in a folder, in place of the hub. Imports no torch.

A split is `DATA/<dataset_path>/<dataset_name>/<split>` with one of the suffixes below (without a name:
`DATA/<dataset_path>/<split>`). A task may also name files itself, as lm-evaluation-harness's local tasks do:
`dataset_path: json` with `dataset_kwargs: {data_files: {test: FILE}}`.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.evaluate.tasks.load import DEFINITIONS
from bottega.evaluate.tasks.schema import TaskConfig

Doc = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet")
SHIPPED = "bottega/"  # dataset paths that begin so are documents that come with Bottega
LOADERS = frozenset({"json", "csv", "parquet", "text"})


def split_files(task: TaskConfig, split: str, data: Path | None) -> list[Path]:
    """The files of a split; raises UserError that names the place where they are looked for."""
    if task.dataset_path in LOADERS:
        return [_named_file(task, split)]
    if task.dataset_path.startswith(SHIPPED):
        folder = DEFINITIONS
        parts = [task.dataset_path.removeprefix(SHIPPED), task.dataset_name or ""]
    elif data is None:
        raise UserError(
            f"task {task.task} needs documents of {task.dataset_path}",
            hint=f"Give --data DIR with DIR/{_place(task)}/{split}.jsonl (or .json, .csv, .parquet).",
        )
    else:
        folder, parts = data, [task.dataset_path, task.dataset_name or ""]
    place = folder.joinpath(*parts)
    if not place.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"task {task.task}: {'/'.join(parts)!r} leads out of {folder}")
    if not split.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"task {task.task}: {split!r} is no name of a split")
    # A clone of a data set of the hub has its splits in pieces, those of its only part in `data`.
    only = {None: [place / "data"], "default": [place.parent / "data"]}.get(task.dataset_name, [])
    for where in (place, *only):
        files = [where / (split + suffix) for suffix in SUFFIXES if (where / (split + suffix)).is_file()][:1]
        if files := files or sorted(where.glob(f"{split}-*-of-*.parquet")):
            return files
    there = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    raise UserError(
        f"task {task.task}: there is no split {split!r} in {place}",
        hint=f"Expected {split}.jsonl (or .json, .csv, .parquet); there {_listed(there)}.",
    )


def read_split(task: TaskConfig, split: str, data: Path | None) -> list[Doc]:
    """The documents of a split, as they stand in its files; raises UserError if they cannot be read, or are none."""
    docs: list[Doc] = []
    for file in split_files(task, split, data):
        try:
            docs += _rows(file)
        except (OSError, EOFError, ValueError, RecursionError, csv.Error) as error:  # gzip, JSON, Unicode, Arrow
            raise UserError(f"task {task.task}: {file} cannot be read: {error}") from None
        for number, doc in enumerate(docs, 1):
            if not isinstance(doc, dict):
                raise UserError(f"task {task.task}: row {number} of {file} is no object")
    if not docs:
        raise UserError(f"task {task.task}: the split {split!r} holds no documents")
    return docs


def _rows(file: Path) -> Iterator[Doc]:
    name = file.name
    if name.endswith(".parquet"):
        import pyarrow.parquet as parquet

        yield from parquet.read_table(file).to_pylist()
    elif name.endswith((".jsonl", ".jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") if name.endswith(".gz") else file.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    elif name.endswith(".json"):
        content = json.loads(file.read_text("utf-8"))
        yield from content if isinstance(content, list) else content.get("data", [content])
    elif name.endswith((".csv", ".tsv")):
        with file.open(encoding="utf-8", newline="") as lines:
            yield from csv.DictReader(lines, delimiter="\t" if name.endswith(".tsv") else ",")
    else:
        yield from ({"text": line.rstrip("\n")} for line in file.open(encoding="utf-8"))


def _named_file(task: TaskConfig, split: str) -> Path:
    files = (task.dataset_kwargs or {}).get("data_files")
    named = files.get(split) if isinstance(files, dict) else files if split == "train" else None
    if isinstance(named, list) and len(named) == 1:
        named = named[0]
    if not isinstance(named, str):
        raise UserError(f"task {task.task}: dataset_kwargs.data_files names no file for the split {split!r}")
    if not Path(named).is_file():
        raise UserError(f"task {task.task}: there is no file {named}")
    return Path(named)


def _place(task: TaskConfig) -> str:
    return "/".join(filter(None, [task.dataset_path, task.dataset_name]))


def _listed(names: list[str]) -> str:
    if not names:
        return "is nothing"
    return f"are {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
