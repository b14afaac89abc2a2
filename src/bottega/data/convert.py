"""Rows of the usual instruction formats as messages.

messages:   {"messages": [{"role", "content"}, …]}  (content a string, or parts of type text)
sharegpt:   {"conversations": [{"from", "value"}, …]}, optionally {"system"}
alpaca:     {"instruction", "input", "output"}
completion: {"prompt", "completion"}
The format is told from the keys of each row, so files may mix them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, str]
Format = Literal["messages", "sharegpt", "alpaca", "completion"]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
# Alternatives that are in use for the last part of a pair.
_OUTPUTS = ("output", "response")
_COMPLETIONS = ("completion", "response", "answer")


@dataclass(frozen=True)
class Converted:
    """A conversation and the format that it was told from."""

    format: Format
    messages: list[Message]


def to_messages(row: Any) -> Converted | None:
    """The conversation in `row`, or None if it holds none that one could learn from.

    Every message is a text and one at least is the assistant's. Text is taken as it is;
    nothing is added, left out or corrected.
    """
    if not isinstance(row, dict):
        return None
    found = _from_turns(row) or _from_pair(row)
    if found is None or not any(m["role"] == "assistant" and m["content"].strip() for m in found.messages):
        return None
    return found


def _from_turns(row: dict[str, Any]) -> Converted | None:
    formats: tuple[tuple[str, Format], ...] = (("messages", "messages"), ("conversations", "sharegpt"))
    for key, format_ in formats:
        turns = row.get(key)
        if not isinstance(turns, list):
            continue
        messages = [_message(turn) for turn in turns]
        if not messages or None in messages:
            return None
        known = [message for message in messages if message]
        if isinstance(row.get("system"), str) and row["system"] and known[0]["role"] != "system":
            known.insert(0, {"role": "system", "content": row["system"]})
        return Converted(format_, known)
    return None


def _message(turn: Any) -> Message | None:
    if not isinstance(turn, dict):
        return None
    role = _ROLES.get(str(turn.get("role", turn.get("from"))).lower())
    content = _content(turn.get("content", turn.get("value")))
    return {"role": role, "content": content} if role and content is not None else None


def _content(content: Any) -> str | None:
    """A string; from a list of parts only if every part is text (an image cannot be left out)."""
    if isinstance(content, str):
        return _clean(content)
    if not isinstance(content, list):
        return None
    parts = [p.get("text", p.get("value")) for p in content if isinstance(p, dict) and p.get("type") == "text"]
    texts = [part for part in parts if isinstance(part, str)]
    return _clean("".join(texts)) if len(texts) == len(content) else None


def _from_pair(row: dict[str, Any]) -> Converted | None:
    if isinstance(row.get("instruction"), str):
        question, format_, outputs = row["instruction"], "alpaca", _OUTPUTS
        extra = row.get("input") or ""
        if not isinstance(extra, str):
            return None
        question = f"{question}\n\n{extra}" if extra.strip() else question
    elif isinstance(row.get("prompt"), str):
        question, format_, outputs = row["prompt"], "completion", _COMPLETIONS
    else:
        return None
    answer = next((row[key] for key in outputs if isinstance(row.get(key), str)), None)
    if answer is None:
        return None
    messages = [{"role": "user", "content": _clean(question)}, {"role": "assistant", "content": _clean(answer)}]
    if isinstance(row.get("system"), str) and row["system"]:
        messages.insert(0, {"role": "system", "content": _clean(row["system"])})
    return Converted(format_, messages)


def _clean(text: str) -> str:
    """Half of a surrogate pair is valid JSON, but no text that can be encoded."""
    return text.encode("utf-8", "replace").decode("utf-8")
