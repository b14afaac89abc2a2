"""What an evaluation folder is, for the steps that read one. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from bottega.core.errors import UserError

EVALUATION_FILE, PREDICTIONS_FILE = "evaluation.json", "predictions.jsonl"
PARTS = ("text", "comparison", "baselines", "choice", "tasks")


@dataclass(frozen=True)
class EvaluationSpec:
    """A folder with `evaluation.json` (and `predictions.jsonl` if questions were asked); `parts` of PARTS it has."""

    parts: tuple[str, ...]
    kind: ClassVar[str] = "evaluation"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the folder; raises UserError if it is no evaluation."""
        return cls(parts_of(read_evaluation(path)))


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The figures of an evaluation folder; raises UserError if it is none."""
    path = folder / EVALUATION_FILE
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} has no {EVALUATION_FILE}", hint="Make one: bottega eval MODEL … --out.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a JSON object")
    return data


def parts_of(data: dict[str, Any]) -> tuple[str, ...]:
    """Which of PARTS the figures have."""
    keys = ("bits_per_byte", "reference", "baselines", "choice", "models")
    return tuple(part for part, key in zip(PARTS, keys, strict=True) if key in data)
