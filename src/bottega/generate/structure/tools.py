"""Tool calls as a grammar: text or calls, each with the arguments that its tool's schema allows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llguidance import LLMatcher

from bottega.core.errors import UserError
from bottega.generate.constraint import Validity
from bottega.generate.structure.calls import parse_tool_calls
from bottega.generate.structure.formats import ARGUMENTS_MARK, ToolFormat
from bottega.generate.structure.grammar import GrammarConstraint, compile_grammar
from bottega.generate.structure.schema import Checked, check_text, prepare
from bottega.tokenizer.tokenizer import Tokenizer

MAX_TOOLS = 128
MAX_SCHEMAS = 262_144  # characters of all parameters together
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """A function that may be called: its name, and the schema of its arguments."""

    name: str
    parameters: Checked


@dataclass(frozen=True)
class ToolChoice:
    """Whether to call (`required`: at least once), and which tools."""

    mode: Literal["none", "auto", "required"]
    names: tuple[str, ...] | None = None
    """None: any."""


def read_tools(tools: Any) -> list[Tool]:
    """The tools of a request, `[{"type": "function", "function": {"name", "parameters", "strict"}}, …]`.

    Raises UserError naming the field that is wrong. As with schemas, `strict: false` leaves to the check of
    the answer what the grammar cannot hold.
    """
    if not isinstance(tools, list) or not 0 < len(tools) <= MAX_TOOLS:
        raise UserError(f"tools must be a list of 1 to {MAX_TOOLS} tools")
    read: list[Tool] = []
    for index, tool in enumerate(tools):
        field = f"tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise UserError(f'{field} must be {{"type": "function", "function": {{…}}}}')
        function = tool["function"]
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f"{field}.function.name must be 1 to 64 letters, digits, '_', '-' or '.'")
        if any(name == other.name for other in read):
            raise UserError(f"{field}.function.name: there are two tools called {name!r}")
        parameters = function.get("parameters")
        schema = {"type": "object"} if parameters is None else parameters
        if isinstance(schema, dict) and "type" not in schema:
            schema = {"type": "object", **schema}
        strict = function.get("strict") is not False
        read.append(Tool(name, prepare(schema, strict=strict, field=f"{field}.function.parameters")))
    if sum(len(json.dumps(tool.parameters.schema)) for tool in read) > MAX_SCHEMAS:
        raise UserError(f"tools: their parameters have more than {MAX_SCHEMAS} characters together")
    return read


def read_choice(choice: Any, names: Sequence[str]) -> ToolChoice:
    """OpenAI's `tool_choice`: "none", "auto", "required", one function by name, or a list of allowed tools."""
    if choice is None:
        return ToolChoice("auto")
    if choice in ("none", "auto", "required"):
        return ToolChoice(choice)
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools") if choice.get("type") == "allowed_tools" else None
        if isinstance(allowed, dict) and allowed.get("mode") in ("auto", "required"):
            wanted = [_function_name(tool) for tool in allowed.get("tools") or ()]
            return ToolChoice(allowed["mode"], _known(wanted, names))
        if choice.get("type") == "function":
            return ToolChoice("required", _known([_function_name(choice)], names))
    raise UserError(
        f"tool_choice is {choice!r}",
        hint='It must be "none", "auto", "required", {"type": "function", "function": {"name": …}}, or allowed_tools.',
    )


def tools(
    tokenizer: Tokenizer,
    tools: Sequence[Tool],
    choice: ToolChoice,
    format: ToolFormat,
    *,
    parallel: bool = True,
    answer: Checked | None = None,
) -> GrammarConstraint:
    """Text, or calls with text before them (auto); or calls only (required).

    With `answer`, text that is no call must be JSON of that schema, and none stands before calls.
    Raises UserError if a schema is not supported, or the format cannot tell such an answer from a call.
    """
    offered = [tool for tool in tools if choice.names is None or tool.name in choice.names]
    if not offered:
        raise UserError("tool_choice allows none of the tools")
    if answer is not None and not format.marked:
        raise UserError(
            f"response_format and tools cannot be combined for a model that writes calls as {format.name}",
            hint="A call and an answer in JSON could not be told apart; send one of them.",
        )
    several = parallel and format.parallel and not (choice.mode == "required" and choice.names and len(offered) == 1)
    begin = _Lark(tokenizer).mark(format.begin)
    rules = _call_rules(tokenizer, format, offered, begin, several)
    if choice.mode == "required":
        rules.append("start: calls")
    elif answer is not None:
        rules.append(f"start: calls | answer\nanswer: {answer.as_lark()}")
    else:
        rules += _text_rules(format, begin)
    notes = tuple(f"{tool.name}: {note}" for tool in offered for note in tool.parameters.notes)

    def judge(text: str) -> Validity:
        return _judge(text, format, {tool.name: tool for tool in offered}, answer)

    return compile_grammar(tokenizer, LLMatcher.grammar_from_lark("\n".join(rules)), "tools", judge=judge, notes=notes)


class _Lark:
    """Texts as Lark symbols: a marker may be one special token of this tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def mark(self, text: str) -> str:
        id_ = self._tokenizer.id_of(text) if text else None
        special = id_ is not None and id_ in self._tokenizer.special_ids
        return f"<[{id_}]>" if special else json.dumps(text) if text else ""


def _call_rules(
    tokenizer: Tokenizer, format: ToolFormat, offered: Sequence[Tool], begin: str, several: bool
) -> list[str]:
    """`calls` (with the marker before the first) and `after` (without it)."""
    one = " | ".join(f"call_{index}" for index in range(len(offered)))
    rules = [f"call: {one}"]
    for index, tool in enumerate(offered):
        if format.arguments is None:
            mark = _Lark(tokenizer).mark(ARGUMENTS_MARK)
            rules.append(f"call_{index}: {json.dumps(tool.name)} {mark} {tool.parameters.as_lark()}")
        else:
            # As json.dumps writes it, or compactly: the two that templates show.
            head = rf'\{{ ?"name": ?"{re.escape(tool.name)}", ?"{format.arguments}": ?'
            rules.append(f"call_{index}: /{head}/ {tool.parameters.as_lark()} / ?}}/")
    if format.listed:
        more = " (/, ?/ call)*" if several else ""
        rules.append(f'after: / ?\\[/ call{more} "]"')
        rules.append(f"calls: {begin} after")
    elif format.name == "hermes":
        end = _Lark(tokenizer).mark(format.end)
        rules.append(f"one: /\\n?/ call /\\n?/ {end}")
        rules.append("after: one" + (f" (/\\n?/ {begin} one)*" if several else ""))
        rules.append(f"calls: {begin} after")
    elif format.arguments is None:
        rules.append("after: call" + (f" ({begin} call)*" if several else ""))
        rules.append(f"calls: {begin} after")
    else:
        rules.append("after: call")
        # The marker of llama3 is taken only as the special token that it is.
        rules.append(f"calls: {begin}? call" if begin.startswith("<[") else "calls: call")
    return rules


def _text_rules(format: ToolFormat, begin: str) -> list[str]:
    """`start`: free text, or text and then calls. Text never holds the marker that begins a call."""
    if not format.marked:
        opening = r"\[" if format.listed else r"\{"
        return ["start: calls | TEXT?", f"TEXT: /\\s*[^{opening}\\s](?s:.*)/"]
    if begin.startswith("<["):
        return [f"start: TEXT? | TEXT? {begin} after", "TEXT: /(?s:.+)/"]
    return ["start: tail | lead after", "tail: TEXT", "TEXT: /(?s:.*)/", f"lead[lazy]: TEXT {begin}"]


def _judge(text: str, format: ToolFormat, tools: dict[str, Tool], answer: Checked | None) -> Validity:
    content, calls = parse_tool_calls(text, format)
    if not calls:
        return Validity(True) if answer is None else check_text(answer.validator, content)
    for call in calls:
        if call.name not in tools:
            return Validity(False, f"there is no tool called {call.name!r}")
        checked = check_text(tools[call.name].parameters.validator, call.arguments)
        if not checked.valid:
            return Validity(False, f"arguments of {call.name}: {checked.error}")
    return Validity(True)


def _function_name(tool: Any) -> Any:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _known(wanted: list[Any], names: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in names:
            raise UserError(
                f"tool_choice names {name!r}, which is none of the tools", hint=f"Tools: {', '.join(names)}."
            )
    return tuple(wanted)
