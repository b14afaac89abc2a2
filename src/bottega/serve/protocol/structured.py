"""Fields that give an answer its form: response_format, guided_* and structured_outputs (vLLM's names), tools.

What they may hold, and together with what, is decided in `bottega.generate.structure.request`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bottega.serve.protocol.wire import Wire

MAX_TOOLS = 128
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class JsonSchemaFormat(Wire):
    """The schema of a `json_schema` format."""

    name: str | None = None
    description: str | None = None
    schema_: Any = Field(alias="schema")
    """The schema: an object, or true for any JSON."""
    strict: bool | None = None
    """False: what a grammar cannot hold is only checked afterwards, instead of being refused."""


class ResponseFormat(Wire):
    """What an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class Structured(Wire):
    """The form of an answer; at most one of these."""

    response_format: ResponseFormat | None = None
    guided_json: Any = None
    """A JSON Schema, as an object or as its text."""
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    """A grammar in Lark's or GBNF notation."""
    structured_outputs: dict[str, Any] | None = None

    def form(self) -> dict[str, Any]:
        """The fields that were sent, as plain data."""
        return self.model_dump(include=set(Structured.model_fields), exclude_none=True, by_alias=True)


class FunctionSpec(Wire):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments."""
    strict: bool | None = None


class Tool(Wire):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionSpec
