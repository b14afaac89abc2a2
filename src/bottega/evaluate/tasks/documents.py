"""The documents of a task: files in a folder, in place of the hub. Imports no torch.

A split is `DATA/<dataset_path>/<dataset_name>/<split>` with one of the suffixes below (without a name:
`DATA/<dataset_path>/<split>`). A task may also name files itself, as lm-evaluation-harness's local tasks do:
`dataset_path: json` with `dataset_kwargs: {data_files: {test: FILE}}`.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.evaluate.tasks.load import DEFINITIONS
from bottega.evaluate.tasks.schema import TaskConfig

Doc = dict[str, Any]


class Documents(list[Doc]):
    """A split as a task's `process_docs` takes it: a list with what such functions call of `datasets.Dataset`."""

    def __getitem__(self, which: Any) -> Any:
        """A row by its number, a column by its name."""
        return [doc[which] for doc in self] if isinstance(which, str) else super().__getitem__(which)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self[0]) if self else []

    @property
    def features(self) -> dict[str, None]:
        """The columns; their types are not kept."""
        return dict.fromkeys(self.column_names)

    def map(
        self,
        function: Callable[..., Doc],
        with_indices: bool = False,
        remove_columns: Collection[str] = (),
        fn_kwargs: dict[str, Any] | None = None,
    ) -> Documents:
        """Each row with the columns that `function` gives it."""
        options, gone = fn_kwargs or {}, {remove_columns} if isinstance(remove_columns, str) else set(remove_columns)
        found = Documents()
        for place, doc in enumerate(self):
            new = function(dict(doc), *([place] if with_indices else []), **options)
            found.append({name: value for name, value in doc.items() if name not in gone} | (new or {}))
        return found

    def filter(self, function: Callable[[Doc], Any]) -> Documents:
        """The rows for which `function` is true."""
        return Documents(doc for doc in self if function(doc))

    def select(self, places: Iterable[int]) -> Documents:
        """The rows of these numbers."""
        return Documents(self[place] for place in places)

    def remove_columns(self, names: str | Collection[str]) -> Documents:
        """The rows without these columns."""
        return self.map(lambda _: {}, remove_columns=names)


SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet")
SHIPPED = "bottega/"  # dataset paths that begin so are documents that come with Bottega
LOADERS = frozenset({"json", "csv", "parquet", "text"})
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


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
            rows = list(_rows(file))
        except (OSError, EOFError, ValueError, RecursionError, csv.Error) as error:  # gzip, JSON, Unicode, Arrow
            raise UserError(f"task {task.task}: {file} cannot be read: {error}") from None
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
                raise UserError(f"task {task.task}: row {number} of {file} is no object")
            try:
                json.dumps(row, ensure_ascii=False, default=str).encode("utf-8")
            except (ValueError, RecursionError):  # half a surrogate pair
                raise UserError(f"task {task.task}: row {number} of {file} holds text that is no Unicode") from None
        docs += rows
    if not docs:
        raise UserError(f"task {task.task}: the split {split!r} holds no documents")
    empty = dict.fromkeys(name for doc in docs for name in doc)
    return [doc if len(doc) == len(empty) else {**empty, **doc} for doc in docs]


def _rows(file: Path) -> Iterator[Doc]:
    name = file.name
    if name.endswith(".parquet"):
        import pyarrow.parquet as parquet

        yield from parquet.read_table(file).to_pylist()
    elif name.endswith((".jsonl", ".jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") if name.endswith(".gz") else file.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    elif name.endswith(".json"):
        yield from _json_rows(file.read_text("utf-8"))
    elif name.endswith((".csv", ".tsv")):
        with file.open(encoding="utf-8", newline="") as lines:
            yield from _typed(list(csv.DictReader(lines, delimiter="\t" if name.endswith(".tsv") else ",")))
    else:
        yield from ({"text": line.rstrip("\n")} for line in file.open(encoding="utf-8"))


def _json_rows(text: str) -> list[Doc]:
    """A list, an object with a list as its `data`, one object, or one to a line, as the hub's `.json` files are."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    rows = content.get("data", [content]) if isinstance(content, dict) else content
    return rows if isinstance(rows, list) else [rows]


def _typed(rows: list[Doc]) -> list[Doc]:
    """The rows with whole numbers in the columns that hold nothing else, as the hub's loader has them."""
    for name in rows[0] if rows else ():
        if all(isinstance(row[name], str) and WHOLE_NUMBER.fullmatch(row[name]) for row in rows):
            for row in rows:
                row[name] = int(row[name])
    return rows


def _named_file(task: TaskConfig, split: str) -> Path:
    given = dict(task.dataset_kwargs or {})
    files = given.pop("data_files", None)
    if given:
        raise UserError(f"task {task.task}: dataset_kwargs.{next(iter(given))} is not understood")
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
