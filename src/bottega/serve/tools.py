"""The form of an answer on the wire: from response_format, guided_* and tools to a constraint, and back to calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bottega.serve.protocol.chat import ChatRequest
from bottega.serve.protocol.structured import Structured

if TYPE_CHECKING:
    from bottega.generate.constraint import Constraint
    from bottega.tokenizer.tokenizer import Tokenizer


class ToolReader:
    """Reads tool calls out of one answer."""

    found = False

    def add(self, text: str, *, last: bool) -> list[dict[str, Any]]:
        """Deltas."""
        raise NotImplementedError

    def read(self, text: str) -> dict[str, Any]:
        """Message."""
        raise NotImplementedError


class Form:
    """What an answer must look like."""

    def constraint(self) -> Constraint | None:
        """A constraint for one more answer."""
        return None

    def reader(self) -> ToolReader | None:
        """A reader for one more answer."""
        return None


def form_of(body: Structured, tokenizer: Tokenizer) -> Form:
    """The form that a request asks for."""
    del tokenizer
    assert not body.form() and not (isinstance(body, ChatRequest) and body.calls_tools)
    return Form()
