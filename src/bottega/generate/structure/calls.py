"""Tool calls out of an answer's text, while it is being written and afterwards, with or without a grammar.

What cannot be a call stays text, nothing is lost: a marker without a call behind it, JSON without a
name, an answer that was cut off before the name was there.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bottega.generate.structure.formats import ARGUMENTS_MARK, ToolFormat
from bottega.generate.structure.scanner import ObjectScanner
from bottega.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextDelta:
    """More of the text that is no call."""

    text: str


@dataclass(frozen=True)
class CallDelta:
    """More of one call; its first delta, and only that, has `id` and `name`."""

    index: int
    id: str | None
    name: str | None
    arguments: str

    def as_openai(self) -> dict[str, Any]:
        """The entry of `delta.tool_calls` in a streamed chunk."""
        if self.id is None:
            return {"index": self.index, "function": {"arguments": self.arguments}}
        function = {"name": self.name, "arguments": self.arguments}
        return {"index": self.index, "id": self.id, "type": "function", "function": function}


@dataclass(frozen=True)
class ToolCall:
    """A whole call; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str

    def as_openai(self) -> dict[str, Any]:
        """The entry of `message.tool_calls`."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


Delta = TextDelta | CallDelta


def parse_tool_calls(text: str, format: ToolFormat) -> tuple[str, list[ToolCall]]:
    """The text that is no call, and the calls, of a whole answer (its markers written out as text)."""
    parser = ToolCallParser(format)
    return collect([*parser.add(text), *parser.finish()])


def collect(deltas: list[Delta]) -> tuple[str, list[ToolCall]]:
    """What a stream of deltas adds up to."""
    calls: list[ToolCall] = []
    content = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    for delta in deltas:
        if isinstance(delta, CallDelta):
            if delta.id is not None:
                calls.append(ToolCall(delta.id, delta.name or "", delta.arguments))
            else:
                last = calls[delta.index]
                calls[delta.index] = ToolCall(last.id, last.name, last.arguments + delta.arguments)
    return content, calls


class ToolCallParser:
    """Feed it an answer piece by piece.

    With a `tokenizer`, pass each piece's token too: markers that are special tokens have no text of their own.
    `text` is all that came in, such markers written out: what `Constraint.judge` wants to see.
    """

    def __init__(self, format: ToolFormat, tokenizer: Tokenizer | None = None) -> None:
        self.text = ""
        self._format = format
        self._marks: dict[int, str] = {}
        for mark in (format.begin, format.end, ARGUMENTS_MARK):
            id_ = tokenizer.id_of(mark) if tokenizer is not None and mark else None
            if tokenizer is not None and id_ in tokenizer.special_ids:
                self._marks[id_] = mark
        self._pending = ""  # not looked at yet
        self._attempt = ""  # looked at since a call seemed to begin: text again if there is none
        self._count = 0
        self._in_list = False
        self._scanner = ObjectScanner()
        self._call: _Call | None = None
        self._deltas: list[Delta] = []
        self._step: Callable[[], bool] = self._text if format.marked else self._opening

    def add(self, text: str, token_id: int | None = None) -> list[Delta]:
        """What has become certain with this piece."""
        text += self._marks.get(token_id, "") if token_id is not None else ""
        self.text += text
        self._pending += text
        while self._step():
            pass
        return self._given()

    def finish(self) -> list[Delta]:
        """What is left once nothing follows."""
        in_call = self._step == self._behind or (self._call is not None and self._call.named)
        rest = "" if in_call else self._attempt + self._pending
        self._attempt = self._pending = ""
        self._say(rest if self._count == 0 else rest.rstrip())
        return self._given()

    # Each step looks at what is pending and returns whether there may be more to do with it.

    def _text(self) -> bool:
        """Text, up to the marker of a call."""
        before, mark, behind = self._pending.partition(self._format.begin)
        if not mark:
            before = before[: len(before) - _open_end(before, self._format.begin)]
        # White space before a marker belongs to the call, if it is one.
        shown = before.rstrip()
        self._say(shown)
        if not mark:
            self._pending = self._pending[len(shown) :]
            return False
        self._attempt, self._pending = before[len(shown) :] + mark, behind
        self._step = self._name if self._format.arguments is None else self._object
        return True

    def _opening(self) -> bool:
        """The first character of an answer that is wholly calls or wholly text."""
        start = self._pending.lstrip()
        begin = self._format.begin
        if not start or (begin and begin.startswith(start) and start != begin):
            return False
        if begin and start.startswith(begin):
            self._take(len(self._pending) - len(start) + len(begin))
            self._step = self._object
        elif start[0] in "{[":
            self._step = self._object
        else:
            self._step = self._rest
        return True

    def _rest(self) -> bool:
        """Text to the end."""
        self._say(self._pending)
        self._pending = ""
        return False

    def _object(self) -> bool:
        """The `{` of a call, perhaps behind `[` or a comma."""
        self._skip_space()
        if not self._pending:
            return False
        first = self._pending[0]
        if first == "{":
            self._scanner, self._call = ObjectScanner(), _Call(self._format)
            self._step = self._arguments
            return True
        if first == "[" and not self._in_list and self._format.name != "hermes":
            self._in_list = True
            self._take(1)
            return True
        return self._fail()

    def _name(self) -> bool:
        """`name[ARGS]` before the arguments."""
        self._skip_space()
        name, mark, _ = self._pending.partition(ARGUMENTS_MARK)
        brace = self._pending.find("{")
        if not mark and brace < 0:
            return self._fail() if any(char in self._pending for char in "\n<}") else False
        size = len(name) + len(mark) if mark and (brace < 0 or len(name) < brace) else brace
        written = self._pending[: min(size, len(name))].strip()
        if not written or not all(char in _NAME_LETTERS for char in written):
            return self._fail()
        self._take(size)
        self._scanner, self._call = ObjectScanner(), _Call(self._format, written)
        self._step = self._arguments
        return True

    def _arguments(self) -> bool:
        """A call's object, as it comes."""
        call = self._call
        assert call is not None
        if not self._scanner.text:
            self._skip_space()
            if not self._pending:
                return False
            if self._pending[0] != "{":
                return self._fail()
        self._take(self._scanner.add(self._pending))
        if fresh := call.progress(self._scanner, self._count, self._new_id):
            self._deltas.append(fresh)
        if not self._scanner.done:
            return False
        if not call.named:
            return self._fail()
        self._call, self._attempt = None, ""
        self._count += 1
        self._step = self._behind
        return True

    def _behind(self) -> bool:
        """What may stand behind a call."""
        self._skip_space()
        self._attempt = ""
        end = self._format.end
        if not self._pending or (end.startswith(self._pending) and self._pending != end):
            return False
        if end and self._pending.startswith(end):
            self._pending = self._pending[len(end) :]
            self._step = self._text
        elif self._pending[0] in ",;":
            self._pending = self._pending[1:]
            self._step = self._object
        elif self._pending[0] == "]" and self._in_list:
            self._pending, self._in_list = self._pending[1:], False
        else:
            self._step = self._text if self._format.marked else self._rest
        return True

    def _fail(self) -> bool:
        """It is no call: what was read of it is text."""
        self._call, self._in_list = None, False
        self._step = self._flush
        return True

    def _flush(self) -> bool:
        self._say(self._attempt)
        self._attempt = ""
        self._step = self._text if self._format.marked else self._rest
        return True

    def _take(self, count: int) -> None:
        self._attempt += self._pending[:count]
        self._pending = self._pending[count:]

    def _skip_space(self) -> None:
        self._take(len(self._pending) - len(self._pending.lstrip()))

    def _say(self, text: str) -> None:
        if text:
            self._deltas.append(TextDelta(text))

    def _given(self) -> list[Delta]:
        given, self._deltas = self._deltas, []
        return given

    def _new_id(self) -> str:
        letters = string.ascii_letters + string.digits
        random = "".join(secrets.choice(letters) for _ in range(9 if self._format.short_ids else 24))
        return random if self._format.short_ids else f"call_{random}"


class _Call:
    """How much of one call has been given out."""

    def __init__(self, format: ToolFormat, name: str | None = None) -> None:
        self._format, self._name = format, name
        self.named = False
        self._given = 0

    def progress(self, scanner: ObjectScanner, index: int, new_id: Callable[[], str]) -> CallDelta | None:
        """The next delta, if there is one: nothing before the name is known."""
        if self._name is None:
            self._name = scanner.string("name")
            if self._name is None:
                return None
        first = not self.named
        self.named = True
        fresh = self._fresh(scanner)
        if not first and not fresh:
            return None
        return CallDelta(index, new_id() if first else None, self._name if first else None, fresh)

    def _fresh(self, scanner: ObjectScanner) -> str:
        if self._format.arguments is None:
            text, complete = scanner.text, scanner.done
        else:
            keys = (self._format.arguments, "arguments", "parameters")
            text, complete = next((found for key in keys if (found := scanner.value(key))), ("", False))
            if not text and scanner.done:
                text = "{}"  # a call without arguments
            if text.startswith('"'):  # JSON inside a string, as some models write it
                text = _unquoted(text) if complete else ""
        fresh, self._given = text[self._given :], max(self._given, len(text))
        return fresh


_NAME_LETTERS = frozenset(string.ascii_letters + string.digits + "_-.")


def _unquoted(text: str) -> str:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _open_end(text: str, mark: str) -> int:
    """Length of the longest end of `text` with which `mark` begins."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
