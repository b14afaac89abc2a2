"""What a trained model and its start are compared on: the general text, and the tasks. Imports no torch.

General text is, unless the user names one, this Python's own documentation: half of it prose, half of it source. Where
the model learned from that very text, the part that was held out when its corpus was made is taken; where there is no
such part any more, it is said that the text is not new to the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from bottega.checkpoint.hub import locate
from bottega.core.errors import BottegaError
from bottega.core.plan import Check, Specs
from bottega.core.record import Record, has_record, read_record
from bottega.core.view import human_count
from bottega.data.spec import HELDOUT_FILE
from bottega.data.stdlib import source_files
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness.prepare import select
from bottega.evaluate.tasks.suites import suite_names
from bottega.evaluate.texts import read_texts, text_file
from bottega.train.config import Train

PIECE = 1200  # characters of a document that are taken: many short ones tell more than few long ones
DEEPEST = 12  # generations of records that are looked through
PYTHON = "documentation and sources of this Python's standard library"


def general_text(config: Train) -> tuple[str, Iterator[str]]:
    """What the text is, in words, and its documents in an order that does not change."""
    if config.compare_text is not None:
        file = text_file(config.compare_text)
        return file.name, (piece for text in read_texts(file) for piece in _pieces(text))
    learned = [
        folder
        for folder, record in _ancestors(config)
        if record.verb == "data collect" and record.config.get("source") == "python"
    ]
    if not learned:
        return PYTHON, _python()
    for folder in learned:
        if (folder / HELDOUT_FILE).is_file():
            texts = read_texts(folder / HELDOUT_FILE)
            return f"held-out part of {folder.name} ({PYTHON})", (text[:PIECE] for text in texts)
    return f"{PYTHON}, which the model has learned from", _python()


def task_settings(config: Train, **more: Any) -> EvaluateModel:
    """The settings of `bottega eval` for `config.tasks`, which may name a suite among them."""
    suites = [name for name in config.tasks if name in suite_names()]
    settings = {
        "model": (str(config.model),),
        "tasks": tuple(name for name in config.tasks if name not in suites),
        "suite": suites[0] if suites else None,
        "device": config.device,
        "threads": config.threads,
    }
    return EvaluateModel.parse({**settings, **more}, where="tasks")


def comparison_checks(config: Train, specs: Specs, tokens: int) -> list[Check]:
    """Whether what is to be compared afterwards can be: it would be late to learn it then."""
    on = [f"up to {human_count(tokens)} tokens of general text"]
    on += ["as many of the held-out data"] if config.heldout and config.form != "prompts" else []
    on += [", ".join(config.tasks)] if config.tasks else []
    checks = [Check("comparison", True, f"with the start, on {', '.join(on)}")]
    if config.compare_text is not None:
        found = specs.is_predicted(config.compare_text) or config.compare_text.exists()
        checks.append(Check("text to compare on", found, str(config.compare_text) if found else "is not there"))
    several = [name for name in config.tasks if name in suite_names()][1:]
    if several:
        checks.append(Check("tasks", False, f"one suite at a time: {several[0]} is the second"))
    elif config.tasks:
        try:
            tasks = select(task_settings(config)).tasks
            checks.append(Check("tasks", bool(tasks), ", ".join(list(tasks)[:8]) + (" …" if len(tasks) > 8 else "")))
        except BottegaError as error:
            checks.append(Check("tasks", False, error.message))
    return checks


def _python() -> Iterator[str]:
    """Topics and source files in turn, in an order drawn once and for all."""
    from pydoc_data.topics import topics

    prose = (topics[name].strip() for name in sorted(topics, key=_rank))
    files = source_files()
    sources = (files[name].read_text("utf-8", errors="replace") for name in sorted(files, key=_rank))
    both = chain.from_iterable(zip_longest(prose, sources))
    return (text[:PIECE] for text in both if text and text.strip())


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _pieces(text: str) -> Iterator[str]:
    """A long text in pieces, so that there is an interval for what is measured on it."""
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def _ancestors(config: Train) -> list[tuple[Path, Record]]:
    """What was trained on and started from, and what those were made of, as far as it lies here, with its records."""
    assert config.model is not None
    found: list[tuple[Path, Record]] = []
    level, seen = [config.data, locate(config.model)], set[Path]()
    for _ in range(DEEPEST):
        folders = {path if path.is_dir() else path.parent for path in level} - seen
        seen |= folders
        records = [(folder, record) for folder in sorted(folders) if (record := _record(folder)) is not None]
        found += records
        level = [Path(entry["path"]) for _, record in records for entry in record.inputs.values()]
    return found


def _record(folder: Path) -> Record | None:
    try:
        return read_record(folder) if has_record(folder) else None
    except BottegaError:
        return None
