"""The fields by which clients ask for structure, as one constraint.

OpenAI's `response_format`, `tools`, `tool_choice`, `parallel_tool_calls`; vLLM's `guided_*` and
`structured_outputs`. At most one of them gives the answer its form; tools can be combined with a
`response_format`, which then is the form of an answer that is no call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bottega.core.errors import UserError, did_you_mean
from bottega.generate.structure.formats import ToolFormat, format_of
from bottega.generate.structure.grammar import GrammarConstraint, choice, lark, regex
from bottega.generate.structure.schema import Checked, json_object, json_schema, prepare
from bottega.generate.structure.tools import read_choice, read_tools
from bottega.generate.structure.tools import tools as tools_constraint
from bottega.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class _Form:
    """One field's wish: which kind, its value, and the field's name for errors."""

    kind: str
    value: Any
    field: str
    strict: bool = True
    spaces: bool = True


def constraint_from_request(
    tokenizer: Tokenizer,
    *,
    response_format: Any = None,
    tools: Any = None,
    tool_choice: Any = None,
    parallel_tool_calls: bool | None = None,
    guided_json: Any = None,
    guided_regex: str | None = None,
    guided_choice: Any = None,
    guided_grammar: str | None = None,
    structured_outputs: Any = None,
    format: ToolFormat | None = None,
) -> GrammarConstraint | None:
    """What a request's fields ask for, given as plain JSON data; None: free text.

    `format` is how the model writes calls (default: by its chat template). Raises UserError that names
    the field which is wrong, unsupported, or contradicts another one.
    """
    guided = {"json": guided_json, "regex": guided_regex, "choice": guided_choice, "grammar": guided_grammar}
    forms = [_Form(kind, value, f"guided_{kind}") for kind, value in guided.items() if value is not None]
    forms += [form for form in (_of_format(response_format), _of_outputs(structured_outputs)) if form is not None]
    if len(forms) > 1:
        raise UserError(
            f"{' and '.join(form.field for form in forms)} contradict each other", hint="Send only one of them."
        )
    form = forms[0] if forms else None
    if tools is None or tools == []:
        for name, value in (("tool_choice", tool_choice), ("parallel_tool_calls", parallel_tool_calls)):
            if value not in (None, "none", False) and not (name == "parallel_tool_calls" and value is True):
                raise UserError(f"{name} is given without tools", hint="Send tools too, or leave it out.")
        return _build(tokenizer, form)
    offered = read_tools(tools)
    wanted = read_choice(tool_choice, [tool.name for tool in offered])
    if wanted.mode == "none":
        return _build(tokenizer, form)
    answer: Checked | None = None
    if form is not None and wanted.mode == "auto":
        if form.kind not in ("json", "object"):
            raise UserError(f"{form.field} cannot be combined with tools", hint='Set tool_choice to "none".')
        schema = {"type": "object"} if form.kind == "object" else form.value
        answer = prepare(schema, strict=form.strict, spaces=form.spaces, field=form.field)
    parallel = parallel_tool_calls is not False
    written = format or format_of(tokenizer.chat_template)
    return tools_constraint(tokenizer, offered, wanted, written, parallel=parallel, answer=answer)


def _build(tokenizer: Tokenizer, form: _Form | None) -> GrammarConstraint | None:
    if form is None:
        return None
    if form.kind == "json":
        return json_schema(tokenizer, form.value, strict=form.strict, spaces=form.spaces, field=form.field)
    if form.kind == "object":
        return json_object(tokenizer, field=form.field)
    made: dict[str, Callable[..., GrammarConstraint]] = {"regex": regex, "choice": choice, "grammar": lark}
    return made[form.kind](tokenizer, form.value, field=form.field)


def _of_format(value: Any) -> _Form | None:
    """`response_format`: OpenAI's three types, with the schema under `json_schema` or, as in /v1/responses, beside."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise UserError("response_format must be an object with a type")
    kind = value.get("type")
    if kind == "text":
        _only(value, "response_format", "type")
        return None
    if kind == "json_object":
        _only(value, "response_format", "type", "schema")
        schema = value.get("schema")  # llama.cpp's way to give one
        if schema is None:
            return _Form("object", None, "response_format")
        return _Form("json", schema, "response_format.schema")
    if kind != "json_schema":
        raise UserError(
            f"response_format.type is {kind!r}",
            hint="Supported: text, json_object, json_schema.",
        )
    nested = "json_schema" in value
    inner, field = (value["json_schema"], "response_format.json_schema") if nested else (value, "response_format")
    if not isinstance(inner, dict) or inner.get("schema") is None:
        raise UserError(f"{field} has no schema")
    _only(inner, field, *(() if nested else ("type",)), "name", "description", "schema", "strict")
    if nested:
        _only(value, "response_format", "type", "json_schema")
    return _Form("json", inner["schema"], f"{field}.schema", strict=inner.get("strict") is not False)


def _of_outputs(value: Any) -> _Form | None:
    """vLLM's `structured_outputs`: one of json, regex, choice, grammar, json_object."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise UserError("structured_outputs must be an object")
    kinds = ("json", "regex", "choice", "grammar", "json_object")
    _only(value, "structured_outputs", *kinds, "disable_any_whitespace")
    given = [kind for kind in kinds if value.get(kind) not in (None, False)]
    if len(given) != 1:
        raise UserError(f"structured_outputs must have exactly one of {', '.join(kinds)}")
    kind, field = given[0], f"structured_outputs.{given[0]}"
    if kind == "json_object":
        return _Form("object", None, field)
    return _Form(kind, value[kind], field, spaces=not value.get("disable_any_whitespace"))


def _only(value: dict[str, Any], field: str, *known: str) -> None:
    for key in value:
        if key not in known:
            raise UserError(f"{field}.{key} is not supported", hint=did_you_mean(key, known))
