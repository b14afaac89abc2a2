"""Votes: of two answers to one prompt, which was the better; read, appended, and turned into preference data.

A file of votes has a JSON object a line (or is one JSON array; `.gz` too), in either of two forms:

    ours        {"id", "time", "prompt" or "messages", "model_a", "model_b", "answer_a", "answer_b",
                 "winner": "a" | "b" | "tie" | "both_bad", "judge", "order": "ab" | "ba"}
    FastChat's  {"model_a", "model_b", "winner": "model_a" | "model_b" | "tie" | "tie (bothbad)", "judge", "tstamp",
                 "anony", "conversation_a", "conversation_b", "conv_metadata"}     (LMSYS's published battles)

Only the models and the winner are required. Fields that are not named here are passed over.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bottega.core.append import append_row
from bottega.core.errors import UserError, did_you_mean

Winner = Literal["a", "b", "tie", "both_bad"]
Message = dict[str, str]
WINNERS: dict[str, Winner] = {
    "a": "a",
    "b": "b",
    "tie": "tie",
    "both_bad": "both_bad",
    "model_a": "a",
    "model_b": "b",
    "tie (bothbad)": "both_bad",
}
STYLES = ("length", "headers", "lists", "bold")
# What LMSYS's conv_metadata calls them, for side a.
METADATA = ("sum_assistant_{}_tokens", "header_count_{}", "list_count_{}", "bold_count_{}")
BLOCK = 1 << 16


@dataclass(frozen=True)
class Vote:
    """One comparison. Raises ValueError if a model is missing, meets itself, or a word is none of those allowed.

    Attributes:
        time: seconds since 1970.
        prompt: what was asked, as text; or else `messages`, the conversation up to the answers.
        judge: "person", or the name of the model that judged.
        order: whose answer was shown first (on the left): "ab" or "ba".
        blind: whether the judge did not know the models.
        style_a, style_b: counts by STYLES, where a file tells them without the answers.
    """

    model_a: str
    model_b: str
    winner: Winner
    id: str = ""
    time: float | None = None
    prompt: str = ""
    messages: list[Message] = field(default_factory=list)
    answer_a: str = ""
    answer_b: str = ""
    judge: str = "person"
    order: Literal["ab", "ba"] = "ab"
    blind: bool = True
    style_a: tuple[float, ...] | None = None
    style_b: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.model_a or not self.model_b:
            raise ValueError("model_a and model_b must be named")
        if self.model_a == self.model_b:
            raise ValueError(f"{self.model_a!r} is on both sides")
        if self.winner not in ("a", "b", "tie", "both_bad"):
            raise ValueError(f'the winner must be "a", "b", "tie" or "both_bad", not {self.winner!r}')
        if self.order not in ("ab", "ba"):
            raise ValueError(f'the order must be "ab" or "ba", not {self.order!r}')

    @property
    def score(self) -> float:
        """What model a gets of the point: 1, ½ or 0."""
        return {"a": 1.0, "b": 0.0}.get(self.winner, 0.5)

    def as_row(self) -> dict[str, Any]:
        """Plain data for JSON in our own form; what is empty is left out."""
        names = ("id", "time", "prompt", "messages", "model_a", "model_b", "answer_a", "answer_b", "winner", "judge")
        row = {name: getattr(self, name) for name in names if getattr(self, name) not in ("", None, [])}
        row["order"] = self.order
        return row if self.blind else row | {"blind": False}


def read_votes(paths: Sequence[Path]) -> list[Vote]:
    """The votes of all files in order; raises UserError naming the file and line that is no vote.

    A vote of our form that stands there twice (same id, judge, order and time) is an error too: its file
    was given twice, or copied into another.
    """
    votes: list[Vote] = []
    seen: dict[tuple[Any, ...], str] = {}
    for path in paths:
        for number, row in _rows(path):
            where = f"{path}, line {number}"
            try:
                vote = vote_from_row(row)
            except ValueError as error:
                raise UserError(f"{where} is no vote: {error}") from None
            key = (vote.id, vote.judge, vote.order, vote.time)
            if "id" in row and seen.setdefault(key, where) != where:
                raise UserError(f"{where} repeats the vote {vote.id!r} of {seen[key]}", hint="Give each file once.")
            votes.append(vote)
    return votes


def vote_from_row(row: Any) -> Vote:
    """A vote of plain data, in either form; raises ValueError saying what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    winner = row.get("winner")
    if not isinstance(winner, str) or winner not in WINNERS:
        raise ValueError(f"unknown winner {winner!r}. {did_you_mean(str(winner), WINNERS)}")
    if "conversation_a" in row:
        answers = _conversations(row)
    else:
        answers = {"prompt": _text(row, "prompt"), "messages": _messages(row, "messages")}
        answers |= {name: _text(row, name) for name in ("answer_a", "answer_b")}
    if "conv_metadata" in row:
        answers |= {f"style_{side}": _style(row["conv_metadata"], side) for side in "ab"}
    return Vote(
        model_a=_text(row, "model_a"),
        model_b=_text(row, "model_b"),
        winner=WINNERS[winner],
        id=str(row.get("id", row.get("question_id", ""))),
        time=_time(row.get("time", row.get("tstamp"))),
        judge=_text(row, "judge", "person") or "person",
        order=row.get("order", "ab"),
        blind=row.get("blind", row.get("anony", True)) is not False,
        **answers,
    )


def append_vote(path: Path, vote: Vote) -> None:
    """Add one line to a file of votes, on the disk when this returns; several writers take turns.

    What an earlier writer left of a line when it was cut off is removed: that vote was never acknowledged.
    """
    append_row(path, vote.as_row())


def votes_as_preferences(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """{prompt, chosen, rejected} of each vote that has a winner, a prompt and both answers.

    With `messages` all three are lists of messages (a conversation and its last turn), else texts.
    """
    rows = []
    for vote in votes:
        if vote.winner in ("a", "b") and (vote.messages or vote.prompt) and vote.answer_a and vote.answer_b:
            chosen, rejected = (vote.answer_a, vote.answer_b)[:: 1 if vote.winner == "a" else -1]
            if vote.messages:
                turns = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
                rows.append({"prompt": vote.messages, "chosen": turns[0], "rejected": turns[1]})
            else:
                rows.append({"prompt": vote.prompt, "chosen": chosen, "rejected": rejected})
    return rows


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Line number (or place in the array) → row."""
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(path.open("rb"))
            fcntl.flock(raw, fcntl.LOCK_SH)  # never half a line of append_vote's
            lines = stack.enter_context(gzip.open(raw)) if path.suffix == ".gz" else raw
            head = lines.read(1)
            while head.isspace():
                head = lines.read(1)
            lines.seek(0)
            if head == b"[":
                yield from enumerate(_json(lines.read(), f"{path}"), 1)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _json(line, f"{path}, line {number}")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        cut = "" if content.endswith(b"\n") else " It is the last one and may have been cut off: then remove it."
        raise UserError(f"{where} is not JSON: {error or 'nested too deeply'}.{cut}") from None


def _text(row: dict[str, Any], name: str, default: str = "") -> str:
    value = row.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {value!r:.60}")
    return value


def _messages(row: dict[str, Any], name: str) -> list[Message]:
    found = row.get(name) or []
    if not isinstance(found, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in found
    ):
        raise ValueError(f"{name} must be a list of messages with a role and a content")
    return [{"role": turn["role"], "content": turn["content"]} for turn in found]


def _conversations(row: dict[str, Any]) -> dict[str, Any]:
    """The answers of two whole conversations; a prompt only if they differ in the last turn alone."""
    first, second = _messages(row, "conversation_a"), _messages(row, "conversation_b")
    if first[:-1] == second[:-1] and all(turns[-1:] and turns[-1]["role"] == "assistant" for turns in (first, second)):
        return {"messages": first[:-1], "answer_a": first[-1]["content"], "answer_b": second[-1]["content"]}
    texts = [[turn["content"] for turn in turns if turn["role"] == "assistant"] for turns in (first, second)]
    return {"answer_a": "\n\n".join(texts[0]), "answer_b": "\n\n".join(texts[1])}


def _style(metadata: Any, side: str) -> tuple[float, ...]:
    """Counts by STYLES; LMSYS tells headers and lists by kind."""
    counts = []
    for name in (pattern.format(side) for pattern in METADATA):
        value = metadata.get(name) if isinstance(metadata, dict) else None
        parts: list[Any] = list(value.values()) if isinstance(value, dict) else [value]
        if not all(isinstance(part, int) and part >= 0 for part in parts):
            raise ValueError(f"conv_metadata has no counts {name}")
        counts.append(float(sum(parts)))
    return tuple(counts)


def _time(value: Any) -> float | None:
    """Seconds since 1970 of a number, or of a date in ISO 8601 (UTC where it names no zone)."""
    if value is None:
        return None
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the time must be seconds or a date in ISO 8601, not {value!r:.60}")
    return float(value)
