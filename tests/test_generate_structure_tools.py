"""Tool calls: their grammars, the parser, the formats that templates teach, and the fields of requests."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.generate.structure.calls import CallDelta, TextDelta, ToolCallParser, collect, parse_tool_calls
from bottega.generate.structure.formats import FORMATS, FormatName, format_of
from bottega.generate.structure.request import constraint_from_request
from bottega.tokenizer.tokenizer import Tokenizer
from structure_schemas import schema as random_schema
from structure_walks import follow, takes, tiny, walk

MARKS = ("[TOOL_CALLS]", "[ARGS]", "<|python_tag|>")
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/days"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"days": {"type": "integer"}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
ROME = '{"city": "Rome"}'
CALLS: dict[FormatName, tuple[str, str, str]] = {  # one call, two calls, a call that is wrong
    "hermes": (
        f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>',
        f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"city": 3}}\n</tool_call>',
    ),
    "llama3": (f'{{"name": "weather", "parameters": {ROME}}}', "", '{"name": "weather", "parameters": {}}'),
    "mistral": (
        f'[TOOL_CALLS][{{"name": "weather", "arguments": {ROME}}}]',
        f'[TOOL_CALLS][{{"name": "weather", "arguments": {ROME}}}, {{"name": "now", "arguments": {{}}}}]',
        '[TOOL_CALLS][{"name": "weather", "arguments": {"town": "Rome"}}]',
    ),
    "mistral_args": (
        f"[TOOL_CALLS]weather[ARGS]{ROME}",
        f"[TOOL_CALLS]weather[ARGS]{ROME}[TOOL_CALLS]now[ARGS]{{}}",
        "[TOOL_CALLS]weather[ARGS]{}",
    ),
    "json": (
        f'[{{"name": "weather", "arguments": {ROME}}}]',
        f'[{{"name": "weather", "arguments": {ROME}}}, {{"name": "now", "arguments": {{}}}}]',
        '[{"name": "other", "arguments": {}}]',
    ),
}
NAMES = list(CALLS)


@pytest.fixture(scope="module", params=["markers are text", "markers are tokens"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    special = MARKS if request.param == "markers are tokens" else ()
    return tiny(tmp_path_factory.mktemp("tiny"), 7, special=special)


def read(constraint: Any, tokenizer: Tokenizer, text: str) -> bool:
    """`takes`, with markers that are special tokens read as such."""
    constraint = constraint.copy()
    ids = tokenizer.encode_markup(text)
    for id_ in ids:
        if constraint.allowed([id_]) == 0:
            return False
        constraint.accept(id_)
    return constraint.is_accepting and constraint.judge(text).valid


@pytest.mark.parametrize("name", NAMES)
def test_calls_and_text_by_tool_choice(name: FormatName, tokenizer: Tokenizer) -> None:
    one, two, wrong = CALLS[name]
    made = {
        choice if isinstance(choice, str) else "named": constraint_from_request(
            tokenizer, tools=TOOLS, tool_choice=choice, format=FORMATS[name]
        )
        for choice in ("auto", "required", {"type": "function", "function": {"name": "now"}})
    }
    for choice in ("auto", "required"):
        assert read(made[choice], tokenizer, one), choice
        assert not two or read(made[choice], tokenizer, two)
        assert not read(made[choice], tokenizer, wrong) and not read(made[choice], tokenizer, one[:-3])
    assert not read(made["named"], tokenizer, one)
    assert read(made["named"], tokenizer, one.replace("weather", "now").replace(ROME, "{}"))
    assert read(made["auto"], tokenizer, "It is 5 < 6, é.") and not read(made["required"], tokenizer, "It is")
    if FORMATS[name].marked:
        assert read(made["auto"], tokenizer, f"Let me see.\n{one}")
        assert not read(made["auto"], tokenizer, f"Let me see.\n{wrong}")
    if two:
        single = constraint_from_request(tokenizer, tools=TOOLS, parallel_tool_calls=False, format=FORMATS[name])
        assert read(single, tokenizer, one) and not read(single, tokenizer, two)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_grammar_of_calls_ends_is_calls_whose_arguments_validate(name: FormatName, tokenizer: Tokenizer) -> None:
    format, ended = FORMATS[name], 0
    for seed in range(12):
        parts = [random_schema(1000 + 3 * seed + index)[0] for index in range(3)]
        schemas = {f"tool_{index}": part for index, part in enumerate(parts) if part.get("type") == "object"}
        tools = [{"type": "function", "function": {"name": key, "parameters": part}} for key, part in schemas.items()]
        if not tools:
            continue
        constraint = constraint_from_request(tokenizer, tools=tools, tool_choice="required", format=format)
        assert constraint is not None
        text = walk(constraint, tokenizer, random.Random(seed), free=30, most=900)
        if text is None:
            continue
        ended += 1
        content, calls = parse_tool_calls(text, format)
        assert calls and not content
        for call in calls:
            assert jsonschema.Draft202012Validator(schemas[call.name]).is_valid(json.loads(call.arguments)), text
    assert ended >= 6


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_parsed(name: FormatName) -> None:
    format, (one, two, _) = FORMATS[name], CALLS[name]
    content, calls = parse_tool_calls(one, format)
    assert content == "" and [(call.name, call.arguments) for call in calls] == [("weather", ROME)]
    assert len(calls[0].id) == 9 if format.short_ids else calls[0].id.startswith("call_")
    if two:
        content, calls = parse_tool_calls(two, format)
        assert [(call.name, call.arguments) for call in calls] == [("weather", ROME), ("now", "{}")]
        assert len({call.id for call in calls}) == 2
    if format.marked:
        content, calls = parse_tool_calls(f"Let me see.\n{one}", format)
        assert content == "Let me see." and len(calls) == 1


TEXTS = [text for three in CALLS.values() for text in three] + [
    "", "hello", " x <tool_ y < z [TOOL", '{"a": 1} then', "[1, 2]", '[{"a": 1}]', "<tool_call>hello",
    "[TOOL_CALLS]no call {",
    '<tool_call>{"name": "f"}', '<tool_call>{"arguments": {"x": "}"}, "name": "f"}</tool_call> Done',
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Ro', '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "  \n[TOOL_CALLS] [", "<|python_tag|>print(1)",
    '<|python_tag|>{"name": "a", "parameters": {}}; {"name": "b", "parameters": {"c": [1, {"d": "]"}]}}',
]  # fmt: skip


def summary(deltas: list[Any]) -> tuple[str, list[tuple[str, str]]]:
    content, calls = collect(deltas)
    return content, [(call.name, call.arguments) for call in calls]


@settings(max_examples=400, deadline=None)
@given(text=st.sampled_from(TEXTS), name=st.sampled_from(NAMES), cuts=st.lists(st.integers(0, 120), max_size=12))
def test_pieces_say_what_the_whole_says(text: str, name: FormatName, cuts: list[int]) -> None:
    whole = ToolCallParser(FORMATS[name])
    expected = summary([*whole.add(text), *whole.finish()])
    parser, deltas = ToolCallParser(FORMATS[name]), []
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in itertools.pairwise(places):
        deltas += parser.add(text[start:end])
    deltas += parser.finish()
    assert summary(deltas) == expected and parser.text == text
    opened = [delta for delta in deltas if isinstance(delta, CallDelta) and delta.id is not None]
    assert all(delta.name for delta in opened)
    assert [delta.index for delta in opened] == list(range(len(opened)))
    if not expected[1]:  # nothing is lost
        assert expected[0] == text


def test_arguments_come_as_they_are_written() -> None:
    parser, format = ToolCallParser(FORMATS["hermes"]), FORMATS["hermes"]
    pieces = [
        "Hi ",
        "<tool",
        '_call>\n{"na',
        'me": "weather", "argu',
        'ments": {"city": "Ro',
        'me"}',
        "}\n</tool_call>",
    ]
    deltas = [parser.add(piece) for piece in pieces]
    assert deltas[0] == [TextDelta("Hi")] and deltas[1] == deltas[2] == []
    first = deltas[3][0]
    assert isinstance(first, CallDelta) and (first.name, first.arguments, first.index) == ("weather", "", 0)
    assert deltas[4:] == [[CallDelta(0, None, None, '{"city": "Ro')], [CallDelta(0, None, None, 'me"}')], []]
    assert parser.finish() == [] and format.marked
    opened = first.as_openai()
    assert opened["type"] == "function" and opened["function"] == {"name": "weather", "arguments": ""}
    assert deltas[5][0].as_openai() == {"index": 0, "function": {"arguments": 'me"}'}}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ('<tool_call>{"arguments": {"x": "}"}, "name": "f"}</tool_call> Done', " Done", [("f", '{"x": "}"}')]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
        ('<tool_call>{"name": "f", "parameters": {"a": 1}}', "", [("f", '{"a": 1}')]),
        ('<tool_call>{"nam', '<tool_call>{"nam', []),
        ('a <tool_call>{"x": {}}</tool_call> b', 'a <tool_call>{"x": {}}</tool_call> b', []),
    ],
)
def test_models_without_a_grammar_are_read_too(text: str, content: str, calls: list[tuple[str, str]]) -> None:
    parsed, found = parse_tool_calls(text, FORMATS["hermes"])
    assert (parsed, [(call.name, call.arguments) for call in found]) == (content, calls)


def test_markers_that_are_special_tokens_are_seen(tmp_path: Path) -> None:
    tokenizer = tiny(tmp_path, 7, special=MARKS)
    parser, deltas = ToolCallParser(FORMATS["mistral"], tokenizer), []
    for id_ in tokenizer.encode_markup(CALLS["mistral"][1]):
        deltas += parser.add(tokenizer.decode([id_]), id_)  # decoding leaves special tokens out
    deltas += parser.finish()
    assert summary(deltas) == ("", [("weather", ROME), ("now", "{}")])
    assert parser.text == CALLS["mistral"][1]


TEMPLATES = {
    "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}{{ messages }}": "hermes",
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools }}{% endif %}[TOOL_CALLS]": "mistral",
    "{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]name[ARGS]": "mistral_args",
    '<|start_header_id|>{{ tools }} Respond in the format {"name": function name, "parameters": …}': "llama3",
    "{% for tool in tools %}{{ tool }}{% endfor %}": "json",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_template_teaches_the_format(template: str) -> None:
    assert format_of(template).name == TEMPLATES[template]


@pytest.mark.parametrize(
    "template", [None, "{{ messages }}", "{{ tools }}<tool_call><function=x>", "{{ tools }}functools["]
)
def test_a_template_without_tools_or_with_foreign_ones_is_refused(template: str | None) -> None:
    with pytest.raises(UserError, match="tools: the model"):
        format_of(template)


# ---------------------------------------------------------------------- fields of requests

INTEGER = {"type": "integer"}


def openai(**inner: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": inner}}


FORMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "json_schema": (openai(name="n", schema=INTEGER), "1", "x"),
    "strict": (openai(name="n", schema=INTEGER, strict=True), "1", "x"),
    "responses": ({"response_format": {"type": "json_schema", "name": "n", "schema": INTEGER}}, "1", "x"),
    "json_object": ({"response_format": {"type": "json_object"}}, '{"a": [1]}', "[1]"),
    "llama.cpp": ({"response_format": {"type": "json_object", "schema": INTEGER}}, "1", "{}"),
    "guided_json": ({"guided_json": INTEGER}, "1", "x"),
    "guided_json text": ({"guided_json": '{"type": "integer"}'}, "1", "x"),
    "guided_json true": ({"guided_json": True}, "null", "x"),
    "guided_regex": ({"guided_regex": "a+"}, "aa", "b"),
    "guided_choice": ({"guided_choice": ["yes", "no"]}, "no", "maybe"),
    "guided_grammar": ({"guided_grammar": 'root ::= "x" | "y"'}, "y", "z"),
    "outputs json": ({"structured_outputs": {"json": INTEGER}}, "1", "x"),
    "outputs regex": ({"structured_outputs": {"regex": "a+"}}, "aa", "b"),
    "outputs choice": ({"structured_outputs": {"choice": ["yes"]}}, "yes", "no"),
    "outputs grammar": ({"structured_outputs": {"grammar": 'start: "x"'}}, "x", "y"),
    "outputs object": ({"structured_outputs": {"json_object": True}}, "{}", "1"),
    "outputs tight": ({"structured_outputs": {"json": True, "disable_any_whitespace": True}}, "[1,2]", "[1, 2]"),
    "tools, none": ({"tools": TOOLS, "tool_choice": "none", "guided_regex": "a"}, "a", "b"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_fields_as_clients_send_them(form: str, tokenizer: Tokenizer) -> None:
    fields, good, bad = FORMS[form]
    constraint = constraint_from_request(tokenizer, **fields)
    assert constraint is not None
    assert takes(constraint, tokenizer, good) and not takes(constraint, tokenizer, bad)


def test_free_text(tokenizer: Tokenizer) -> None:
    for fields in ({}, {"response_format": {"type": "text"}}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}):
        assert constraint_from_request(tokenizer, **fields) is None


def test_tools_and_a_response_format_together(tokenizer: Tokenizer) -> None:
    fields: dict[str, Any] = {
        "tools": TOOLS,
        "response_format": {"type": "json_schema", "json_schema": {"schema": INTEGER}},
    }
    constraint = constraint_from_request(tokenizer, **fields, format=FORMATS["hermes"])
    assert constraint is not None
    assert read(constraint, tokenizer, "12") and read(constraint, tokenizer, CALLS["hermes"][1])
    assert not read(constraint, tokenizer, "hello") and not read(constraint, tokenizer, "12" + CALLS["hermes"][0])
    with pytest.raises(UserError, match="response_format and tools cannot be combined"):
        constraint_from_request(tokenizer, **fields, format=FORMATS["llama3"])


def test_allowed_tools(tokenizer: Tokenizer) -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "name": "now"}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    constraint = constraint_from_request(tokenizer, tools=TOOLS, tool_choice=choice, format=FORMATS["hermes"])
    assert constraint is not None
    assert read(constraint, tokenizer, "hello") and not read(constraint, tokenizer, CALLS["hermes"][0])


def function(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", **fields}}]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"response_format": "json"}, "response_format must be"),
    ({"response_format": {"type": "xml"}}, r"response_format\.type is 'xml'"),
    ({"response_format": {"type": "json_schema"}}, "response_format has no schema"),
    (openai(), r"response_format\.json_schema has no schema"),
    (openai(schema={}, stric=1), r"stric is not(?s:.)*'strict'"),
    (openai(schema={"type": "x"}), r"response_format\.json_schema\.schema"),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_regex and guided_choice contradict"),
    ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex and response_format contradict"),
    ({"guided_choice": []}, "guided_choice must be"),
    ({"guided_choice": "ab"}, "guided_choice must be"),
    ({"guided_grammar": 3}, "guided_grammar must be text"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs must have exactly one"),
    ({"structured_outputs": {"structural_tag": "x"}}, r"structured_outputs\.structural_tag is not supported"),
    ({"tool_choice": "auto"}, "tool_choice is given without tools"),
    ({"tools": {}}, "tools must be a list"),
    ({"tools": [{"type": "retrieval"}]}, r"tools\[0\] must be"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, r"tools\[0\]\.function\.name"),
    ({"tools": function() * 2}, "two tools called 'f'"),
    ({"tools": function(parameters={"properties": 3})}, r"tools\[0\]\.function\.parameters\['properties'\]"),
    ({"tools": function(parameters={"not": {}})}, r"tools\[0\]\.function\.parameters: .*'not'"),
    ({"tools": function(), "tool_choice": "always"}, "tool_choice is 'always'"),
    ({"tools": function(), "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice names 'g'"),
    ({"tools": function(), "guided_regex": "a"}, "guided_regex cannot be combined with tools"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "reason"), WRONG, ids=range(len(WRONG)))
def test_errors_name_the_field(fields: dict[str, Any], reason: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=reason):
        constraint_from_request(tokenizer, **fields, format=FORMATS["hermes"])


def test_strict_false_checks_afterwards(tokenizer: Tokenizer) -> None:
    unique = {"type": "array", "items": INTEGER, "uniqueItems": True}
    constraint = constraint_from_request(tokenizer, **openai(schema=unique, strict=False))
    assert constraint is not None and "'uniqueItems'" in constraint.notes[0]
    follow(constraint, tokenizer, "[1,1]")
    assert not constraint.judge("[1,1]").valid and constraint.judge("[1,2]").valid
    tools = function(parameters={"type": "object", "properties": {"a": unique}}, strict=False)
    calling = constraint_from_request(tokenizer, tools=tools, format=FORMATS["hermes"])
    assert calling is not None and calling.notes[0].startswith("f: ")
    text = '<tool_call>{"name": "f", "arguments": {"a": [1, 1]}}</tool_call>'
    follow(calling, tokenizer, text)
    assert "arguments of f: ['a']" in calling.judge(text).error


def test_a_model_whose_template_knows_no_tools_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="tools: the model's chat template has no place for tools"):
        constraint_from_request(tokenizer, tools=TOOLS)
