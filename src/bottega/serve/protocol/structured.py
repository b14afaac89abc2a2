"""Fields that give an answer its form: response_format, guided_* (vLLM's names), tools."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bottega.serve.protocol.wire import Wire

MAX_TOOLS = 128
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class JsonSchemaFormat(Wire):
    """The schema of a `json_schema` format."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(alias="schema")
    strict: bool | None = None
    """Accepted either way: a schema is always enforced."""


class ResponseFormat(Wire):
    """What an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _schema_belongs_to_its_type(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' belongs to the type 'json_schema', and is required there")
        return self


class Structured(Wire):
    """The form of an answer; at most one of these."""

    response_format: ResponseFormat | None = None
    guided_json: dict[str, Any] | bool | str | None = None
    """A JSON Schema, as an object or as its text."""
    guided_regex: str | None = None
    guided_choice: list[str] | None = Field(default=None, min_length=1)
    guided_grammar: str | None = None
    """A grammar in Lark's or EBNF notation."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if len(forms := self.form()) > 1:
            raise ValueError(f"{', '.join(map(repr, forms))} contradict each other; send one of them")
        return self

    def form(self) -> dict[str, Any]:
        """The one field that was sent, as plain data; empty if the answer is free text."""
        forms = self.model_dump(include=set(Structured.model_fields), exclude_none=True, by_alias=True)
        if forms.get("response_format") == {"type": "text"}:
            del forms["response_format"]
        return forms


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


class NamedFunction(Wire):
    """The name of a function."""

    name: str


class NamedTool(Wire):
    """A `tool_choice` that names one function."""

    type: Literal["function"]
    function: NamedFunction
