"""The Responses API: a real server, OpenAI's own client, events in order, refusals by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from test_serve_api import HELLO, make_model, post, running_server
from test_serve_tools import COLOUR, TEMPLATE

MIX: Any = {"type": "function", "name": "mix", "description": "Mix a colour.", "parameters": COLOUR, "strict": True}
ASK: dict[str, Any] = {"model": "tiny", "input": HELLO[0]["content"], "max_output_tokens": 400, "temperature": 0}
SHORT = ASK | {"max_output_tokens": 12}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = make_model(tmp_path_factory.mktemp("responses") / "tiny")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    with running_server(model) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


def test_a_response_is_the_chat_s_answer(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=12)  # type: ignore[arg-type]
    answer = client.responses.create(**SHORT, metadata={"page": "3"}, user="ada")
    assert answer.output_text == chat.choices[0].message.content != ""
    assert answer.status == "incomplete" and answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage and chat.usage and answer.usage.output_tokens == 12
    assert answer.usage.input_tokens == chat.usage.prompt_tokens
    assert answer.usage.total_tokens == chat.usage.total_tokens
    assert answer.metadata == {"page": "3"} and answer.user == "ada" and answer.temperature == 0
    assert answer.model_extra is not None and answer.model_extra["store"] is False
    (item,) = answer.output
    assert item.type == "message" and item.status == "incomplete" and item.id.startswith("msg_")


def test_text_streams_in_the_order_of_the_api(client: openai.OpenAI) -> None:
    whole = client.responses.create(**SHORT)
    events = list(client.responses.create(**SHORT, stream=True))
    kinds = [event.type for event in events]
    deltas = [kind for kind in kinds if kind == "response.output_text.delta"]
    begin = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    end = ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert len(deltas) > 2 and kinds == begin + deltas + [f"response.{kind}" for kind in end]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.incomplete" and last.response.output_text == whole.output_text
    usage = last.response.usage  # all but what the cache of shared prefixes saved, which is more the second time
    assert usage and whole.usage and usage.total_tokens == whole.usage.total_tokens
    assert usage.output_tokens == whole.usage.output_tokens and events[0].response.output == []  # type: ignore[union-attr]
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {last.response.output[0].id}  # type: ignore[union-attr]


def test_the_client_s_own_accumulation(client: openai.OpenAI) -> None:
    with client.responses.stream(**{**ASK, "text": {"format": _schema()}}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed" and final.status == "completed"
    assert json.loads(final.output_text)["colour"] in ("red", "blue")
    assert final.model_extra is not None and final.model_extra["structure"] == {"valid": True}


def _schema() -> dict[str, Any]:
    return {"type": "json_schema", "name": "colour", "schema": COLOUR, "strict": True}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "mix"}])
def test_calls_and_their_events(client: openai.OpenAI, choice: Any) -> None:
    settings = {**ASK, "tools": [MIX], "tool_choice": choice, "parallel_tool_calls": False}
    whole = client.responses.create(**settings)
    assert whole.status == "completed" and whole.tools[0].type == "function"
    (call,) = whole.output
    assert call.type == "function_call" and call.name == "mix" and call.call_id and call.status == "completed"
    assert json.loads(call.arguments)["colour"] in ("red", "blue")
    events = list(client.responses.create(**settings, stream=True))
    kinds = [event.type for event in events]
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    begin = ["response.created", "response.in_progress", "response.output_item.added"]
    end = ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    assert kinds == begin + [event.type for event in deltas] + end
    assert "".join(event.delta for event in deltas) == call.arguments
    assert events[2].item.arguments == ""  # type: ignore[union-attr]


def test_a_conversation_goes_on_from_the_items_of_an_answer(client: openai.OpenAI, url: str) -> None:
    question = {"role": "user", "content": [{"type": "input_text", "text": "Mix."}]}
    settings = {**ASK, "tools": [MIX], "tool_choice": "required", "parallel_tool_calls": False}
    first = client.responses.create(**{**settings, "input": [question]})
    (call,) = first.output
    assert call.type == "function_call"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "mixed"}
    items = [question, call.model_dump(exclude_none=True), result]
    second = client.responses.create(**{**SHORT, "input": items, "instructions": "Be brief.", "tools": [MIX]})  # type: ignore[arg-type]
    said = second.output[0].model_dump(exclude_none=True)
    third = client.responses.create(**{**SHORT, "input": [*items, said, question], "tools": [MIX]})  # type: ignore[arg-type]
    assert third.usage and second.usage and third.usage.input_tokens > second.usage.input_tokens
    # What the model reads is the same chat.
    function = {"name": "mix", "arguments": call.arguments}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Mix."},
        {"role": "assistant", "content": "", "tool_calls": [{"id": call.call_id, "function": function}]},
        {"role": "tool", "tool_call_id": call.call_id, "content": "mixed"},
    ]
    tool = {"type": "function", "function": {key: value for key, value in MIX.items() if key != "type"}}
    rendered = post(url, "/v1/render", {"messages": messages, "tools": [tool]})[1]
    assert second.usage.input_tokens == rendered["token_count"]


def test_logprobs_are_those_of_the_chat(client: openai.OpenAI) -> None:
    settings = {**SHORT, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    chat = (
        client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            temperature=0,
            max_tokens=12,
            logprobs=True,
            top_logprobs=2,  # type: ignore[arg-type]
        )
        .choices[0]
        .logprobs
    )
    part = client.responses.create(**settings).output[0].content[0]  # type: ignore[union-attr]
    assert chat and [token.logprob for token in part.logprobs] == [token.logprob for token in chat.content or ()]
    assert all(len(token.top_logprobs) == 2 for token in part.logprobs)
    events = list(client.responses.create(**settings, stream=True))
    done = next(event for event in events if event.type == "response.output_text.done")
    assert len(done.logprobs) == 12


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{**MIX, "parameters": {"type": "texture"}}]}, "tools[0].parameters"),
        ({"tools": [MIX], "tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "texture"}}}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "["}]}, "input[0].arguments"),
        ({"input": []}, "input"),
        ({"input": "word " * 9000}, "input"),
        ({"temperature": 9}, "temperature"),
        ({"model": "other"}, "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_there_is_refused_by_name(url: str, change: dict[str, Any], param: str, stream: bool) -> None:
    answer = httpx.post(f"{url}/v1/responses", json={**SHORT, **change, "stream": stream}, timeout=30)
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert (error["param"] or "").startswith(param), error
    assert "messages" not in error["message"] and "response_format" not in error["message"]


def test_a_failure_on_the_way_is_an_event(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = make_model(tmp_path_factory.mktemp("slow") / "tiny")
    with running_server(model, timeout=0.3) as (port, _):
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
        events = list(client.responses.create(model="tiny", input="Prime.", temperature=0, stream=True))
    assert events[-1].type == "error" and events[-1].code == "timeout"
    assert events[-1].sequence_number == len(events) - 1
