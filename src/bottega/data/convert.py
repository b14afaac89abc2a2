"""Rows of instruction data as conversations: what `formats` reads, for those who need the messages alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Completion, Conversation, Message, Rejected

__all__ = ["Converted", "Message", "text_of", "to_messages"]


@dataclass(frozen=True)
class Converted:
    """A conversation and the name of the format that it was told from."""

    format: str
    messages: list[Message]


def to_messages(row: Any) -> Converted | None:
    """The conversation in `row`, or None if it holds none that one could learn from."""
    try:
        found, examples = examples_of(row, "chat")
    except Rejected:
        return None
    example = examples[0]
    if isinstance(example, Completion):
        question = {"role": "user", "content": example.prompt}
        return Converted(found.name, [question, {"role": "assistant", "content": example.completion}])
    return Converted(found.name, example.messages) if isinstance(example, Conversation) else None


def text_of(messages: list[Message]) -> str:
    """All that is said in a conversation, calls of tools as JSON."""
    calls = [call["function"] for message in messages for call in message.get("tool_calls", ())]
    said = [message["content"] for message in messages if message["content"] or not message.get("tool_calls")]
    return "\n\n".join([*said, *(json.dumps(call, ensure_ascii=False) for call in calls)])
