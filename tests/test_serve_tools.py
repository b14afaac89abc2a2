"""Tool calls and structured answers as clients send and read them. The model is random: only the grammar helps it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from test_serve_api import HELLO, make_model, post, running_server

TEMPLATE = """{%- if tools %}<|im_start|>system
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
Write <tool_call>{"name": …, "arguments": …}</tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"],
          "additionalProperties": False}  # fmt: skip
MIX: Any = {"type": "function", "function": {"name": "mix", "description": "Mix a colour.", "parameters": COLOUR}}
GRIND: Any = {"type": "function", "function": {"name": "grind"}}
ASK: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 400, "seed": 1}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = make_model(tmp_path_factory.mktemp("tools") / "tiny")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    with running_server(model) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


def test_a_named_tool_is_called_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "mix"}}
    answer = client.chat.completions.create(**ASK, tools=[MIX, GRIND], tool_choice=choice).choices[0]  # type: ignore[arg-type]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None and answer.message.tool_calls
    (call,) = answer.message.tool_calls
    assert call.type == "function" and call.function.name == "mix"
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")
    assert answer.model_extra and answer.model_extra["structure"] == {"valid": True}


def test_streamed_calls_are_the_whole_ones(client: openai.OpenAI) -> None:
    settings = {**ASK, "tools": [MIX], "tool_choice": "required", "parallel_tool_calls": False}
    (whole,) = client.chat.completions.create(**settings).choices[0].message.tool_calls
    chunks = list(client.chat.completions.create(**settings, stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert deltas[0].id and deltas[0].function.name == "mix" and deltas[0].type == "function"
    assert all(delta.index == 0 and delta.id is None and delta.function.name is None for delta in deltas[1:])
    arguments = "".join(delta.function.arguments or "" for delta in deltas)
    assert arguments == whole.function.arguments and len(deltas) > 1
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_results_of_calls_are_read_by_the_model(url: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "mix", "arguments": '{"colour": "red"}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "mixed"},
    ]
    status, rendered = post(url, "/v1/render", {"messages": messages, "tools": [MIX]})
    assert status == 200, rendered
    assert '{"name": "mix", "arguments": {"colour": "red"}}' in rendered["text"]
    assert "<|im_start|>tool\nmixed<|im_end|>" in rendered["text"] and '"Mix a colour."' in rendered["text"]
    body = {**ASK, "messages": messages, "tools": [MIX], "max_tokens": 3}
    answer = post(url, "/v1/chat/completions", body)[1]
    assert answer["usage"]["prompt_tokens"] == rendered["token_count"]
    # With tool_choice none the model does not hear of the tools.
    silent = post(url, "/v1/chat/completions", {**body, "tool_choice": "none"})[1]
    assert silent["usage"]["prompt_tokens"] < rendered["token_count"]
    for arguments in ("{", "[]", "null"):
        wrong = [
            *HELLO,
            {"role": "assistant", "tool_calls": [{**call, "function": {"name": "mix", "arguments": arguments}}]},
        ]
        status, refused = post(url, "/v1/chat/completions", {**body, "messages": wrong})
        assert status == 400 and refused["error"]["param"] == "messages[1].tool_calls[0].function.arguments"


def test_several_answers_each_with_its_own_calls(client: openai.OpenAI) -> None:
    settings = {**ASK, "tools": [MIX, GRIND], "tool_choice": "required", "n": 3, "temperature": 1.5}
    whole = client.chat.completions.create(**settings).choices
    assert [choice.index for choice in whole] == [0, 1, 2]
    assert all(choice.message.tool_calls for choice in whole if choice.finish_reason == "tool_calls")
    ids = [call.id for choice in whole for call in choice.message.tool_calls or ()]
    assert len(ids) == len(set(ids)) >= 2


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_has_the_form_that_was_asked_for(client: openai.OpenAI, stream: bool) -> None:
    def ask(**form: Any) -> str:
        answer = client.chat.completions.create(**ASK, **form, stream=stream)
        if not stream:
            assert answer.choices[0].finish_reason == "stop"
            return answer.choices[0].message.content or ""
        chunks = list(answer)
        assert chunks[-1].choices[0].model_extra["structure"]["valid"] is True
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    schema = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOUR, "strict": True}}
    assert json.loads(ask(response_format=schema))["colour"] in ("red", "blue")
    assert json.loads(ask(extra_body={"guided_json": COLOUR}))["colour"] in ("red", "blue")
    assert ask(extra_body={"guided_choice": ["panel", "colours"]}) in ("panel", "colours")
    assert re.fullmatch(r"[ab]{3}-\d", ask(extra_body={"guided_regex": r"[ab]{3}-\d"}))
    assert ask(extra_body={"guided_grammar": 'start: "a" "b"+ "c"'}).startswith("ab")


def test_completions_take_forms_too(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="Colour:", max_tokens=50, extra_body={"guided_choice": ["red", "blue"]}
    )
    assert answer.choices[0].text in ("red", "blue")


def test_an_answer_that_was_cut_off_is_said_to_be_invalid(url: str) -> None:
    body = {**ASK, "max_tokens": 2, "guided_json": COLOUR, "temperature": 0}
    choice = post(url, "/v1/chat/completions", body)[1]["choices"][0]
    assert choice["finish_reason"] == "length" and choice["structure"]["valid"] is False
    assert choice["structure"]["error"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "texture"}}}},
            "response_format",
        ),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_grammar": "begin: x"}, "guided_grammar"),
        ({"guided_json": 5}, "guided_json"),
        ({"guided_json": {}, "guided_regex": "a"}, "guided_json"),
        ({"tools": [MIX], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [MIX], "guided_regex": "a"}, "guided_regex"),
    ],
)
def test_forms_that_cannot_be_kept_are_refused_by_name(url: str, change: dict[str, Any], param: str) -> None:
    status, answer = post(url, "/v1/chat/completions", {**ASK, **change})
    assert status == 400 and (answer["error"]["param"] or "").startswith(param), answer


def test_a_request_that_leaves_no_token_is_told_so_and_hurts_nobody_else(url: str, client: openai.OpenAI) -> None:
    endless = {"ignore_eos": True}
    other = client.completions.create(model="tiny", prompt="The", max_tokens=200, stream=True, extra_body=endless)
    next(iter(other))
    body = {"model": "tiny", "prompt": "a", "guided_choice": ["red"], "allowed_token_ids": [300, 301]}
    status, answer = post(url, "/v1/completions", body)
    assert status == 400 and answer["error"]["code"] == "no_token_allowed", answer
    assert [chunk.choices[0].finish_reason for chunk in other][-1] == "length"
