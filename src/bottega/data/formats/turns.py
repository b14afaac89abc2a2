"""Turns of a conversation, in the words of each format, as messages.

Roles, parts of content, calls of tools and weights are brought into one form (that of OpenAI's API,
with the arguments of a call as an object, as chat templates expect them). Text is taken as it is;
nothing is added, left out or corrected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bottega.data.formats.kinds import Conversation, Message, Rejected, Tools

MAX_TURNS = 1024
"""Messages of the longest conversation: the mask of each turn takes a rendering of all before it."""
ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
_CALLS = ("function_call", "tool_call")
_WEIGHTS = ("weight", "train", "training", "loss_weight")
_REASONING = ("reasoning_content", "thinking", "reasoning")


def conversation(turns: Any, row: Mapping[str, Any]) -> Conversation:
    """The conversation of a list of turns; `row` may say `system` and `tools`. Raises Rejected."""
    if not isinstance(turns, list) or not turns:
        raise Rejected("no list of messages")
    if len(turns) > MAX_TURNS:
        raise Rejected(f"more than {MAX_TURNS} messages")
    messages = [message_of(turn) for turn in turns]
    weights = [_weight(turn) for turn in turns]
    if any(weight and message["role"] != "assistant" for weight, message in zip(weights, messages, strict=True)):
        raise Rejected("a weight other than 0 on a message that is not the assistant's (train_on: all trains on those)")
    if messages[0]["role"] not in ("system", "developer"):
        prefix = system_of(row)
        messages, weights = [*prefix, *messages], [*(None for _ in prefix), *weights]
    return Conversation(messages, tools_of(row), weights if any(weight is not None for weight in weights) else [])


def messages_of(turns: Any, row: Mapping[str, Any] | None = None) -> list[Message]:
    """The messages of a turn or of a list of them. Raises Rejected."""
    return conversation([turns] if isinstance(turns, Mapping) else turns, row or {}).messages


def system_of(row: Mapping[str, Any]) -> list[Message]:
    """The system message that a row gives beside its turns, if any."""
    system = row.get("system")
    if system is None:
        system = row.get("system_prompt")
    if system is None or system == "":
        return []
    return [{"role": "system", "content": text_of(system, "a system prompt that is no text")}]


def message_of(turn: Any) -> Message:
    """One message. Raises Rejected."""
    if not isinstance(turn, Mapping):
        raise Rejected("a message that is no object")
    name = str(turn.get("role", turn.get("from"))).lower()
    role = ROLES.get(name)
    if role is None:
        raise Rejected("a message of an unknown role")
    message: Message = {"role": role}
    message |= _content(turn.get("content", turn.get("value")))
    if name in _CALLS:
        message["tool_calls"] = _written_calls(message["content"])
        message["content"] = ""
    calls = [*message.pop("tool_calls", []), *_calls(turn.get("tool_calls") or [])]
    if message["content"] is None and not calls:
        raise Rejected("a message without content")
    if calls and role != "assistant":
        raise Rejected("a call of a tool by another than the assistant")
    if calls:
        message |= {"content": message["content"] or "", "tool_calls": calls}
    reasoning = next((turn[key] for key in _REASONING if isinstance(turn.get(key), str)), None)
    if reasoning is not None:
        message["reasoning_content"] = clean(reasoning)
    if role == "tool":
        message |= {key: clean(turn[key]) for key in ("name", "tool_call_id") if isinstance(turn.get(key), str)}
    return message


def has_answer(message: Message) -> bool:
    """Whether it is the assistant's and says or calls something."""
    return message["role"] == "assistant" and bool(message["content"].strip() or message.get("tool_calls"))


def tools_of(row: Mapping[str, Any]) -> Tools | None:
    """The tools of a row, each as {"type": "function", "function": {…}}. Raises Rejected."""
    tools = from_json(row.get("tools"))
    if tools is None or tools in ("", []):
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise Rejected("tools that are no list of objects")
    found = [tool if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools]
    if not all(isinstance(tool["function"], Mapping) and tool["function"].get("name") for tool in found):
        raise Rejected("a tool without a name")
    return clean(found)


def text_of(value: Any, otherwise: str) -> str:
    """A text; raises Rejected with the reason `otherwise`."""
    if not isinstance(value, str):
        raise Rejected(otherwise)
    return clean(value)


def from_json(value: Any) -> Any:
    """A value that is written as JSON in a text (tools and arguments often are), else the value itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def clean(value: Any) -> Any:
    """A copy without halves of surrogate pairs, which are valid JSON, but no text that can be encoded."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [clean(item) for item in value]
    return value


def _content(content: Any) -> Message:
    """content, and what parts say beside it; an image cannot be left out, so it is refused."""
    if content is None or isinstance(content, str):
        return {"content": None if content is None else clean(content)}
    if not isinstance(content, list):
        raise Rejected("content that is no text")
    found: Message = {}
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        value = part.get("text", part.get("value")) if isinstance(part, Mapping) else None
        if not isinstance(value, str):
            raise Rejected("content that is no text (images and the like)")
        if kind == "text":
            texts.append(clean(value))
        elif kind == "reasoning":
            found["reasoning_content"] = found.get("reasoning_content", "") + clean(value)
        elif kind == "tool_call":
            found["tool_calls"] = found.get("tool_calls", []) + _written_calls(value)
        else:
            raise Rejected("content that is no text (images and the like)")
    return {"content": "".join(texts)} | found


def _written_calls(text: str | None) -> list[dict[str, Any]]:
    """Calls that are written as JSON in the text of a turn: one, or a list of them."""
    try:
        value = json.loads(text or "")
    except ValueError:
        raise Rejected("a call of a tool that is no JSON") from None
    return _calls(value if isinstance(value, list) else [value])


def _calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise Rejected("tool_calls that are no list")
    return [_call(call) for call in calls]


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Rejected("a call of a tool without a name")
    arguments = from_json(function.get("arguments") or {})
    if not isinstance(arguments, Mapping):
        raise Rejected("arguments of a call that are no object")
    made = {"type": "function", "function": {"name": clean(function["name"]), "arguments": clean(arguments)}}
    return {"id": clean(call["id"]), **made} if isinstance(call.get("id"), str) else made


def _weight(turn: Mapping[str, Any]) -> bool | None:
    """Whether a message is trained, where it says so; only 0 and 1 are possible."""
    if turn.get("training_detail") is not None:
        raise Rejected("training_detail: parts of a message cannot be left out of training")
    for key in _WEIGHTS:
        if turn.get(key) is not None:
            if turn[key] not in (0, 1):
                raise Rejected("a weight other than 0 and 1")
            return bool(turn[key])
    return None
