"""`samples.jsonl`: what the model said to a few prompts, as a table of before and after. Imports no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bottega.core.view import Table

SAMPLES_FILE = "samples.jsonl"
SHOWN = 200  # characters of a prompt or an answer in the table


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The rows of `samples.jsonl`; a last line cut short by a kill is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def samples_table(path: Path) -> Table | None:
    """Each prompt with its first and its last answer; None if there are none."""
    rows = read_samples(path)
    if not rows:
        return None
    first, last = rows[0]["step"], rows[-1]["step"]
    before = {row["prompt"]: _said(row) for row in rows if row["step"] == first}
    after = {row["prompt"]: _said(row) for row in rows if row["step"] == last}
    shown = [
        (_on_one_line(prompt).strip(" ↵")[-SHOWN:], before.get(prompt, ""), said) for prompt, said in after.items()
    ]
    columns = ("prompt", f"step {first}", f"step {last}")
    return Table("Before and after", columns, shown, "The likeliest answers; … where one was cut off.")


def _said(row: dict[str, Any]) -> str:
    text = _on_one_line(row["text"])
    return (text[:SHOWN] or "(nothing)") + ("" if row["finished"] and len(text) <= SHOWN else " …")


def _on_one_line(text: str) -> str:
    """Line breaks, however many, as a sign."""
    return re.sub(r"\s*\n\s*", " ↵ ", text).strip(" ")
