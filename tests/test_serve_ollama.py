"""Ollama's API: a real server, Ollama's own Python client, lines of JSON, and refusals by name."""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from test_serve_api import CONTEXT, HELLO, TEXT, make_model, post, running_server
from test_serve_tools import COLOUR, TEMPLATE

GREEDY = {"temperature": 0, "repeat_penalty": 1.0, "num_predict": 12}
ASK: dict[str, Any] = {"model": "tiny", "messages": HELLO, "options": GREEDY}
TOOLS: Any = [{"type": "function", "function": {"name": "mix", "description": "Mix.", "parameters": COLOUR}}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_model(tmp_path_factory.mktemp("ollama") / "tiny")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    return model


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with running_server(model) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(url: str) -> ollama.Client:
    return ollama.Client(host=url, timeout=60)


def openai_text(url: str, **settings: Any) -> str:
    body = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 12, **settings}
    return post(url, "/v1/chat/completions", body)[1]["choices"][0]["message"]["content"]


def test_chat_is_the_other_api_s_chat_with_measured_times(client: ollama.Client, url: str) -> None:
    begun = time.perf_counter()
    answer = client.chat(model="tiny", messages=HELLO, options=GREEDY)
    wall = (time.perf_counter() - begun) * 1e9
    assert answer.message.content == openai_text(url) != "" and answer.message.role == "assistant"
    assert answer.done is True and answer.done_reason == "length" and answer.eval_count == 12
    rendered = post(url, "/v1/render", {"messages": HELLO})[1]
    assert answer.prompt_eval_count == rendered["token_count"]
    parts = (answer.load_duration, answer.prompt_eval_duration, answer.eval_duration)
    assert all(part is not None and part >= 0 for part in parts)
    assert answer.total_duration and sum(part or 0 for part in parts) <= answer.total_duration < wall
    assert answer.eval_duration and answer.eval_duration > 0


def test_streams_are_lines_and_add_up(client: ollama.Client, url: str) -> None:
    chunks = list(client.chat(model="tiny:latest", messages=HELLO, options=GREEDY, stream=True))
    assert "".join(chunk.message.content or "" for chunk in chunks) == openai_text(url)
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True] and len(chunks) > 4
    assert chunks[-1].eval_count == 12 and chunks[0].eval_count is None
    answer = httpx.post(f"{url}/api/chat", json=ASK, timeout=30)  # streaming is Ollama's default
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["done"] for line in answer.text.splitlines()] == [chunk.done for chunk in chunks]


def test_generate_asks_through_the_template_unless_raw(client: ollama.Client, url: str) -> None:
    asked = client.generate(model="tiny", prompt=HELLO[0]["content"], options=GREEDY)
    assert asked.response == openai_text(url)
    system = {"role": "system", "content": "Be brief."}
    briefly = client.generate(model="tiny", prompt=HELLO[0]["content"], system="Be brief.", options=GREEDY)
    assert briefly.response == openai_text(url, messages=[system, *HELLO])
    raw = client.generate(model="tiny", prompt=TEXT, raw=True, options=GREEDY)
    body = {"model": "tiny", "prompt": TEXT, "temperature": 0, "max_tokens": 12}
    assert raw.response == post(url, "/v1/completions", body)[1]["choices"][0]["text"]
    chunks = list(client.generate(model="tiny", prompt=TEXT, raw=True, options=GREEDY, stream=True))
    assert "".join(chunk.response or "" for chunk in chunks) == raw.response


def test_options_are_obeyed(client: ollama.Client, url: str) -> None:
    def say(**options: Any) -> str:
        answer = client.chat(model="tiny", messages=HELLO, options={"num_predict": 12, **options})
        return answer.message.content or ""

    assert say(seed=7) == say(seed=7) != say(seed=8)
    # Ollama's defaults, under OpenAI's names.
    defaults = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.1}
    assert say(seed=7) == openai_text(url, **defaults, repetition_penalty_range=64, seed=7)
    assert say(
        seed=7, temperature=1.5, top_k=0, top_p=1.0, min_p=0.2, repeat_last_n=-1, presence_penalty=1
    ) == openai_text(url, temperature=1.5, min_p=0.2, repetition_penalty=1.1, presence_penalty=1, seed=7)
    assert say(temperature=0, repeat_penalty=2.0, repeat_last_n=0) == openai_text(url)
    assert say(seed=7, mirostat=2, mirostat_tau=3.0, repeat_penalty=1.0) == openai_text(
        url, temperature=0.8, mirostat=2, mirostat_tau=3.0, seed=7
    )
    text = openai_text(url)
    assert say(**GREEDY, stop=[text[4:7]]) == text[: text.index(text[4:7])]
    # Whatever leaves things as they are is taken.
    assert say(**GREEDY, num_ctx=CONTEXT, num_thread=0, num_gpu=-1, num_keep=5, num_batch=64, use_mmap=True) == text


def test_a_smaller_context_ends_the_answer(client: ollama.Client, url: str) -> None:
    tokens = post(url, "/v1/render", {"messages": HELLO})[1]["token_count"]
    answer = client.chat(model="tiny", messages=HELLO, options={**GREEDY, "num_predict": -1, "num_ctx": tokens + 5})
    assert answer.eval_count == 5 and answer.done_reason == "length"


def test_formats(client: ollama.Client) -> None:
    options = {"num_predict": 400, "seed": 1}
    answer = client.chat(model="tiny", messages=HELLO, format=COLOUR, options=options)
    assert json.loads(answer.message.content or "")["colour"] in ("red", "blue") and answer.done_reason == "stop"
    answer = client.generate(model="tiny", prompt="Mix.", format=COLOUR, options=options)
    assert json.loads(answer.response or "")["colour"] in ("red", "blue")
    answer = client.generate(model="tiny", prompt="Mix.", format="json", options=options)
    assert (answer.response or "").startswith("{")  # a random model closes no string


@pytest.mark.parametrize("stream", [False, True])
def test_calls_come_whole_with_their_arguments_as_an_object(client: ollama.Client, stream: bool) -> None:
    # The answer is a call or a colour: one of the seeds calls.
    calls, parts = [], []
    for seed in range(20):
        settings = {"num_predict": 300, "seed": seed, "temperature": 2.0, "top_k": 0, "top_p": 1.0}
        answer = client.chat(model="tiny", messages=HELLO, tools=TOOLS, format=COLOUR, options=settings, stream=stream)
        parts = list(answer) if stream else [answer]
        calls = [call for part in parts for call in part.message.tool_calls or ()]  # type: ignore[union-attr]
        if calls:
            break
    assert calls[0].function.name == "mix" and calls[0].function.arguments["colour"] in ("red", "blue")
    assert parts[-1].done and "".join(part.message.content or "" for part in parts) == ""  # type: ignore[union-attr]


def test_a_call_that_was_cut_off_is_text(client: ollama.Client) -> None:
    def ask(seed: int, length: int) -> ollama.ChatResponse:
        options = {"seed": seed, "num_predict": length, "temperature": 2.0, "top_k": 0, "top_p": 1.0}
        return client.chat(model="tiny", messages=HELLO, tools=TOOLS, format=COLOUR, options=options)

    seed = next(seed for seed in range(20) if ask(seed, 300).message.tool_calls)
    needed = bisect.bisect_left(range(300), True, lo=1, key=lambda length: bool(ask(seed, length).message.tool_calls))
    cut = ask(seed, needed - 1)
    assert cut.done_reason == "length" and (cut.message.content or "").startswith('{"name": "mix", "arguments": {')


def test_calls_and_results_go_back(url: str) -> None:
    call = {"function": {"name": "mix", "arguments": {"colour": "red"}}}
    messages = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_name": "mix", "content": "mixed"}]  # fmt: skip
    answer = post(url, "/api/chat", {**ASK, "messages": messages, "tools": TOOLS, "stream": False})[1]
    openai_call = {"id": "1", "function": {"name": "mix", "arguments": '{"colour": "red"}'}}
    same = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [openai_call]},
            {"role": "tool", "content": "mixed"}]  # fmt: skip
    rendered = post(url, "/v1/render", {"messages": same, "tools": TOOLS})[1]
    assert answer["prompt_eval_count"] == rendered["token_count"]


def test_logprobs(client: ollama.Client, url: str) -> None:
    answer = client.chat(model="tiny", messages=HELLO, options=GREEDY, logprobs=True, top_logprobs=2)
    body = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    same = post(url, "/v1/chat/completions", body)[1]["choices"][0]["logprobs"]["content"]
    assert answer.logprobs and [token.logprob for token in answer.logprobs] == [token["logprob"] for token in same]
    assert all(len(token.top_logprobs or ()) == 2 for token in answer.logprobs)
    chunks = list(client.chat(model="tiny", messages=HELLO, options=GREEDY, logprobs=True, stream=True))
    assert sum(len(chunk.logprobs or ()) for chunk in chunks) == 12


def test_embeddings_are_those_of_the_other_api(client: ollama.Client, url: str) -> None:
    found = client.embed(model="tiny", input=["a panel", TEXT], truncate=True)
    same = post(url, "/v1/embeddings", {"model": "tiny", "input": ["a panel", TEXT]})[1]
    assert [list(row) for row in found.embeddings] == [entry["embedding"] for entry in same["data"]]
    assert found.prompt_eval_count == same["usage"]["prompt_tokens"] and (found.total_duration or 0) > 0
    assert list(client.embeddings(model="tiny", prompt=TEXT).embedding) == list(found.embeddings[1])


def test_what_is_there(client: ollama.Client, url: str, model: Path) -> None:
    (entry,) = client.list().models
    assert entry.model == "tiny:latest" and entry.digest and len(entry.digest) == 64 and entry.modified_at
    weights = (model / "model.safetensors").stat().st_size
    assert entry.size is not None and 0.9 * weights < entry.size <= weights
    shown = client.show("tiny")
    assert shown.details and shown.details.format == "safetensors" and shown.template == TEMPLATE
    assert shown.capabilities == ["completion", "tools"] and shown.modelinfo
    assert shown.modelinfo["llama.context_length"] == CONTEXT
    (running,) = client.ps().models
    assert running.name == "tiny:latest" and running.size_vram == 0 and running.context_length == CONTEXT
    assert httpx.get(f"{url}/api/version").json()["version"]


def test_a_model_is_kept_as_long_as_was_asked(client: ollama.Client, url: str) -> None:
    def is_loaded() -> bool:
        return bool(client.ps().models)

    answer = client.generate(model="tiny", keep_alive="1h30m")
    assert answer.done_reason == "load" and is_loaded()
    (running,) = client.ps().models
    assert running.expires_at and 5300 < running.expires_at.timestamp() - time.time() <= 5400
    # It is not unloaded under an answer, and it is afterwards.
    stream = client.chat(model="tiny", messages=HELLO, options={"num_predict": 200}, keep_alive=0.05, stream=True)
    next(stream)
    time.sleep(0.2)
    assert len(list(stream)) > 20
    wait_until(lambda: not is_loaded())
    assert client.chat(model="tiny", messages=HELLO, options=GREEDY).message.content == openai_text(url)
    assert client.chat(model="tiny", keep_alive=0).done_reason == "unload"
    wait_until(lambda: not is_loaded())
    client.generate(model="tiny", keep_alive=-1)
    (running,) = client.ps().models
    assert running.expires_at and running.expires_at.year == 9999


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("chat", {"options": {"num_ctx": CONTEXT + 1}}, "options.num_ctx"),
        ("chat", {"options": {"num_ctx": 3}}, "options.num_ctx"),
        ("chat", {"options": {"num_thread": 4}}, "options.num_thread"),
        ("chat", {"options": {"num_gpu": 99}}, "options.num_gpu"),
        ("chat", {"options": {"low_vram": True}}, "options.low_vram"),
        ("chat", {"options": {"num_predict": 0}}, "options.num_predict"),
        ("chat", {"options": {"tempature": 1}}, "options.tempature"),
        ("chat", {"options": {"mirostat": 1, "top_k": 5}}, "options.mirostat"),
        ("chat", {"options": {"mirostat": 1, "temperature": 0}}, "options.temperature"),
        ("chat", {"think": True}, "think"),
        ("chat", {"truncate": True}, "truncate"),
        ("chat", {"format": "xml"}, "format"),
        ("chat", {"format": {"type": "texture"}}, "format"),
        ("chat", {"keep_alive": "soon"}, "keep_alive"),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "messages[0].images"),
        ("chat", {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ("chat", {"messages": [{"role": "user", "content": "word " * 9000}]}, "messages"),
        ("chat", {"model": "other"}, "model"),
        ("generate", {"suffix": "x"}, "suffix"),
        ("generate", {"template": "{{ .Prompt }}"}, "template"),
        ("generate", {"context": [1, 2]}, "context"),
        ("generate", {"images": ["aGk="]}, "images"),
        ("generate", {"raw": True, "system": "x"}, "system"),
        ("embed", {"dimensions": 3}, "dimensions"),
        ("embed", {"input": ["word " * 9000], "truncate": True}, "input"),
    ],
)
def test_refusals_name_the_field_in_ollama_s_shape(url: str, path: str, change: dict[str, Any], param: str) -> None:
    bodies = {"chat": ASK, "generate": {"model": "tiny", "prompt": "x"}, "embed": {"model": "tiny", "input": "x"}}
    status, answer = post(url, f"/api/{path}", {**bodies[path], **change})
    assert status in (400, 404) and isinstance(answer["error"], str), answer
    assert (answer["param"] or "").startswith(param), answer


def test_the_client_understands_refusals(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="not served here") as caught:
        client.chat(model="other", messages=HELLO)
    assert caught.value.status_code == 404


def test_keys_and_failing_streams(model: Path) -> None:
    with running_server(model, api_key=["secret"], timeout=0.3) as (port, _):
        host = f"http://127.0.0.1:{port}"
        with pytest.raises(ollama.ResponseError, match="needs its API key"):
            ollama.Client(host=host).list()
        client = ollama.Client(host=host, headers={"Authorization": "Bearer secret"}, timeout=60)
        with pytest.raises(ollama.ResponseError, match="not finished within"):
            list(client.chat(model="tiny", messages=HELLO, stream=True))
