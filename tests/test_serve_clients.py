"""Programs that people really use, against a real server: OpenAI's client (both kinds), LangChain, Ollama's, curl."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import ollama
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from test_serve_api import HELLO, make_model, running_server
from test_serve_tools import TEMPLATE

KEY = "secret"
GREEDY: dict[str, Any] = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 16}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = make_model(tmp_path_factory.mktemp("clients") / "tiny")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    with running_server(model, api_key=[KEY]) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def text(url: str) -> str:
    """What the model says to HELLO."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    return client.chat.completions.create(**GREEDY).choices[0].message.content or ""


def test_openai_s_asynchronous_client(url: str, text: str) -> None:
    async def talk() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:

            async def streamed() -> str:
                chunks = await client.chat.completions.create(**GREEDY, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

            async def answered() -> str:
                answer = await client.responses.create(
                    model="tiny", input=HELLO[0]["content"], temperature=0, max_output_tokens=16
                )
                return answer.output_text

            return list(await asyncio.gather(streamed(), answered(), streamed(), answered()))

    assert asyncio.run(talk()) == [text] * 4 and text


def test_the_client_s_parsed_answers(url: str) -> None:
    class Colour(BaseModel):
        colour: bool

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    settings = {**GREEDY, "max_tokens": 300, "temperature": 1, "seed": 5}
    answer = client.chat.completions.parse(**settings, response_format=Colour)
    assert isinstance(answer.choices[0].message.parsed, Colour)
    response = client.responses.parse(model="tiny", input="Mix.", text_format=Colour, max_output_tokens=300)
    assert isinstance(response.output_parsed, Colour)


def langchain(url: str, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="tiny", base_url=f"{url}/v1", api_key=SecretStr(KEY), max_retries=0, temperature=0, **settings
    )


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_asks_streams_and_counts(url: str, text: str, responses: bool) -> None:
    model = langchain(url, max_completion_tokens=16, use_responses_api=responses)
    answer = model.invoke([HumanMessage(HELLO[0]["content"])])
    assert answer.text == text and answer.usage_metadata and answer.usage_metadata["output_tokens"] == 16
    assert "".join(chunk.text for chunk in model.stream([HumanMessage(HELLO[0]["content"])])) == text
    assert model.invoke([SystemMessage("Be brief."), HumanMessage("Prime.")]).text


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_calls_tools_and_gives_their_results_back(url: str, responses: bool) -> None:
    @tool
    def mix(strong: bool) -> str:
        """Mix a colour."""
        return "mixed"

    model = langchain(url, max_completion_tokens=300, use_responses_api=responses)
    ask = HumanMessage("Mix.")
    called = model.bind_tools([mix], tool_choice="mix").invoke([ask])
    assert isinstance(called, AIMessage) and called.tool_calls[0]["name"] == "mix"
    assert isinstance(called.tool_calls[0]["args"]["strong"], bool)
    result = ToolMessage(mix.invoke(called.tool_calls[0]["args"]), tool_call_id=called.tool_calls[0]["id"])
    follow = langchain(url, max_completion_tokens=5, use_responses_api=responses).bind_tools([mix])
    assert follow.invoke([ask, called, result]).usage_metadata


def test_langchain_reads_structured_answers(url: str) -> None:
    class Colour(BaseModel):
        """A colour."""

        strong: bool

    for method in ("json_schema", "function_calling"):
        structured = langchain(url, max_completion_tokens=300).with_structured_output(Colour, method=method)
        assert isinstance(structured.invoke("Mix."), Colour)


def test_ollama_s_client_with_a_key(url: str, text: str) -> None:
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {KEY}"})
    options = {"temperature": 0, "num_predict": 16, "repeat_penalty": 1.0}
    assert client.chat(model="tiny", messages=HELLO, options=options).message.content == text
    chunks = client.chat(model="tiny", messages=HELLO, options=options, stream=True)
    assert "".join(chunk.message.content or "" for chunk in chunks) == text


def curl(url: str, body: dict[str, Any], *more: str) -> str:
    words = ["curl", "--silent", "--show-error", "--no-buffer", "--max-time", "30", *more]
    words += ["--header", f"Authorization: Bearer {KEY}", "--header", "Content-Type: application/json"]
    return subprocess.run([*words, "--data", json.dumps(body), url], check=True, capture_output=True, text=True).stdout


def test_curl(url: str, text: str) -> None:
    answer = json.loads(curl(f"{url}/v1/chat/completions", GREEDY))
    assert answer["choices"][0]["message"]["content"] == text
    events = curl(f"{url}/v1/chat/completions", {**GREEDY, "stream": True}).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == text
    lines = curl(f"{url}/api/chat", {"model": "tiny", "messages": HELLO, "options": {"num_predict": 3}}).splitlines()
    assert json.loads(lines[-1])["eval_count"] == 3
    refused = curl(f"{url}/v1/chat/completions", {**GREEDY, "temprature": 1}, "--write-out", "\n%{http_code}")
    body, _, status = refused.rpartition("\n")
    assert status == "400" and "temperature" in json.loads(body)["error"]["message"]
