"""Forms: what a page sent, as plain text by name, and as an answer to a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request

from bottega.core.errors import UserError
from bottega.course.lab_facts import Setting
from bottega.course.learner.questions import Given, Question

MOST_FIELDS = 200
READERS: dict[str, Callable[[str], Any]] = {"int": int, "float": float}


class Form:
    """The fields of a form, urlencoded or, where it sends files, multipart."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self.fields = fields

    @classmethod
    async def of(cls, request: Request) -> Form:
        """Read the body, whose size the guard limits; raises UserError if it is no form."""
        body = await request.body()
        kind = request.headers.get("content-type", "")
        try:
            if kind.startswith("multipart/form-data"):
                return cls(_parts(kind, body))
            return cls(parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS))
        except (UnicodeDecodeError, ValueError):
            raise UserError("that is no form of this page, or no text") from None

    def text(self, name: str, default: str = "") -> str:
        """A field, the first of its name."""
        return self.fields.get(name, [default])[0]

    def whole(self, name: str) -> int:
        """A field that is a number."""
        value = self.text(name)
        if not value.lstrip("-").isdigit():
            raise UserError(f"{name} is not a number")
        return int(value)

    def settings(self, settings: Sequence[Setting]) -> dict[str, Any]:
        """The settings of a lab or a view; raises UserError for a number that is none."""
        found: dict[str, Any] = {}
        for setting in settings:
            text = self.text(setting.name, str(setting.default))
            try:
                found[setting.name] = text == "on" if setting.kind == "bool" else READERS.get(setting.kind, str)(text)
            except ValueError:
                raise UserError(f"{setting.name} is {text!r}, which is not a number") from None
        return found

    def given(self, question: Question) -> Given:
        """The answer to a question; raises UserError where a part of it is missing."""
        if question.kind == "single":
            return self._places("given", "Choose an answer.")[0]
        if question.kind == "multi":
            return self._places("given", "Choose at least one answer.")
        if question.kind == "order":
            return self._in_order(len(question.lines))
        if question.kind == "match":
            return [self._place(f"given-{i}") for i in range(len(question.lefts))]
        if question.kind == "cloze":
            return [self.text(f"given-{i}") for i in range(question.blanks)]
        return self.text("given")

    def _places(self, name: str, missing: str) -> list[int]:
        found = [int(value) for value in self.fields.get(name, []) if value.isdigit()]
        if not found:
            raise UserError(missing)
        return found

    def _place(self, name: str) -> int:
        value = self.text(name)
        if not value.isdigit():
            raise UserError("Choose something for every line.")
        return int(value)

    def _in_order(self, count: int) -> list[int]:
        """The lines by the numbers that they were given."""
        numbers = [self._place(f"given-{i}") for i in range(count)]
        if sorted(numbers) != list(range(1, count + 1)):
            raise UserError(f"Number the lines from 1 to {count}, each number once.")
        return sorted(range(count), key=lambda i: numbers[i])


def _parts(kind: str, body: bytes) -> dict[str, list[str]]:
    """The fields of a multipart body; files are text, by the name of their field."""
    message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    fields: dict[str, list[str]] = {}
    for part in message.get_payload() if message.is_multipart() else ():
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)  # type: ignore[union-attr]
        fields.setdefault(str(name), []).append(content.decode("utf-8") if isinstance(content, bytes) else "")
    return fields
