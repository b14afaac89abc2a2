"""What became of the answers on the chat page: thumbs, and whether an answer was used.

`WORKSPACE/feedback/thumbs.jsonl` has a line for each thing that a person did with an answer. Rates count answers, not
lines: of each answer the last thumb stands, and the last sign of whether it was used. Wilson's intervals
(`evaluate.statistics`) take the answers as independent.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bottega.core.errors import UserError
from bottega.evaluate.statistics import Estimate, wilson
from bottega.serve.protocol.wire import Wire

MOST_MESSAGES = 1000
Thumb = Literal["up", "down", "none"]
Use = Literal["copied", "edited", "regenerated"]
# "none" takes a thumb back. An answer that was copied, or corrected and kept, was of use; one asked for again was not.
THUMBS: dict[str, bool | None] = {"up": True, "down": False, "none": None}
USES = {"copied": True, "edited": True, "regenerated": False}


class Turn(Wire):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Verdict(Wire):
    """What a person did with one answer."""

    conversation: str = Field(min_length=1, max_length=100)
    index: int = Field(ge=0)
    """The answer's place among the messages of the conversation."""
    model: str = Field(min_length=1, max_length=500)
    messages: list[Turn] = Field(min_length=1, max_length=MOST_MESSAGES)
    """What was asked: the conversation up to the answer."""
    answer: str
    verdict: Thumb | Use
    edited: str | None = None
    """With "edited": the answer as the person kept it."""


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """The rows of the file, in order; a line that was cut off at the end counts as not written.

    Raises UserError naming a line that is no verdict.
    """
    rows = []
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            _ = row["conversation"], row["index"], row["model"], row["answer"], row["verdict"]
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise UserError(
                f"{path}, line {number} is no verdict: {error!r}", hint="Mend or remove the line."
            ) from None
        rows.append(row)
    return rows


def rates(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each model, by name: the share of thumbs that are up and of used answers, each of those that had a sign.

    {"model", "thumbs": Estimate, "accepted": Estimate} as plain data; a share of no answers is null.
    """
    thumbs: dict[str, dict[tuple[Any, ...], bool | None]] = defaultdict(dict)
    uses: dict[str, dict[tuple[Any, ...], bool | None]] = defaultdict(dict)
    for row in rows:
        answer = (row["conversation"], row["index"], row["answer"])
        if row["verdict"] in THUMBS:
            thumbs[row["model"]][answer] = THUMBS[row["verdict"]]
        elif row["verdict"] in USES:
            uses[row["model"]][answer] = USES[row["verdict"]]
    return [
        {"model": model, "thumbs": _share(thumbs[model].values()), "accepted": _share(uses[model].values())}
        for model in sorted({*thumbs, *uses})
    ]


def _share(signs: Iterable[bool | None]) -> dict[str, Any] | None:
    given = [sign for sign in signs if sign is not None]
    found: Estimate = wilson(sum(given), len(given))
    return {**found.as_data(), "successes": sum(given)} if given else None
