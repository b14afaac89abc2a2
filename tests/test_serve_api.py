"""The API server: a real process with a real (tiny, random) model, asked by OpenAI's own client."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from fastapi import FastAPI

from bottega.checkpoint.config import ModelConfig, tensor_shapes
from bottega.checkpoint.writer import write_model_files, write_tensors
from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling
from bottega.serve.app import create_app
from bottega.serve.command import load_generator, open_models
from bottega.serve.config import Serve
from bottega.serve.models import sources_of
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.tokenizer.training import train, write_folder

TEXT = "The master shows the apprentice how the panel is primed, and the apprentice grinds the colours. "
HELLO = [{"role": "user", "content": "How is the panel primed?"}]
TOOLS = [{"type": "function", "function": {"name": "mix", "parameters": {"type": "object"}}}]
CONTEXT = 6000


def make_model(folder: Path, context: int = CONTEXT, head_dim: int = 16) -> Path:
    """A random model with a trained tokenizer; greedy decoding never ends by itself."""
    folder.mkdir()
    write_folder(train(iter([TEXT * 5, "def colour(x):\n    return x * 2  # größe\n" * 5]), 400), folder)
    tokenizer = Tokenizer.load(folder)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=context,
        eos_token_id=tuple(sorted(tokenizer.stop_ids)),
    )
    source = torch.Generator().manual_seed(5)
    tensors = {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=source) * 0.15
        for name, shape in tensor_shapes(config).items()
    }
    tensors["lm_head.weight"][sorted(tokenizer.special_ids)] = 0  # logit 0: never the largest
    write_tensors(folder, tensors)
    write_model_files(folder, config)
    return folder


def make_app(model: Path, /, **settings: Any) -> FastAPI:
    """The app itself, in this process, for settings that need no server around it."""
    config = Serve.parse({"model": str(model), "threads": 1, **settings})
    sources = sources_of(config)
    return create_app(open_models(config, sources), config, load_generator(config, sources[0]))


@contextmanager
def running_server(model: Path, **settings: Any) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """`python -m bottega.serve` as a child: its port and process."""
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-m", "bottega.serve"], stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdin and child.stdout and child.stderr
    try:
        child.stdin.write(json.dumps({"model": str(model), "port": 0, "threads": 1, **settings}).encode() + b"\n")
        child.stdin.flush()
        line = child.stdout.readline()
        assert line, child.stderr.read().decode()
        yield json.loads(line)["port"], child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with running_server(model, max_batch=1, max_queue=1, drain_seconds=0) as (port, child):
        address = f"http://127.0.0.1:{port}"
        yield address
        # SIGTERM is a normal end, even in the middle of an answer.
        connection = hang_in(address, "/v1/chat/completions", stream=True)
        assert connection.getresponse().status == 200
        child.terminate()
        assert child.wait(10) == 0
        connection.close()
        assert child.stderr and b"Traceback" not in child.stderr.read()


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def expected(model: Path) -> str:
    """What greedy decoding says to HELLO, without the server in between."""
    generator = Generator.load(model, threads=1)
    prompt = generator.prompt_ids(HELLO[0]["content"], chat=True)
    return generator.complete(prompt, Sampling(max_new_tokens=24, temperature=0)).text


def post(url: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = httpx.post(url + path, json=body, timeout=30)
    return answer.status_code, answer.json()


# -------------------------------------------------------------------- OpenAI's client


def test_models_say_what_is_served(client: openai.OpenAI) -> None:
    (card,) = client.models.list().data
    assert card.id == "tiny" and card.object == "model"
    facts = card.model_extra["bottega"]  # type: ignore[index]
    assert facts["context_length"] == CONTEXT and facts["has_chat_template"] is True
    assert client.models.retrieve("tiny").id == "tiny"


def test_chat_equals_the_generator(client: openai.OpenAI, expected: str) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=24)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == expected != ""
    assert answer.choices[0].finish_reason == "length"
    usage = answer.usage
    assert usage and usage.completion_tokens == 24 and usage.total_tokens == usage.prompt_tokens + 24


def test_streamed_chat_equals_the_whole_one(client: openai.OpenAI, expected: str) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=HELLO,  # type: ignore[arg-type]
        temperature=0,
        max_completion_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage and chunks[-1].usage.completion_tokens == 24
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_bytes_of_a_stream(url: str) -> None:
    body = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 3, "stream": True}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    events = answer.text.removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    first, last = json.loads(events[0][6:]), json.loads(events[-2][6:])
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    assert "usage" not in first


def test_logprobs_of_a_chat(client: openai.OpenAI, expected: str) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=HELLO,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=24,
        logprobs=True,
        top_logprobs=3,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.content and len(logprobs.content) == 24
    for token in logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)  # greedy takes the likeliest
    raw = b"".join(bytes(token.bytes or []) for token in logprobs.content)
    assert raw.decode("utf-8", "replace") == expected


def test_completions_whole_streamed_and_as_ids(client: openai.OpenAI, model: Path) -> None:
    settings: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 12}
    whole = client.completions.create(prompt="The panel", logprobs=2, **settings)
    streamed = client.completions.create(prompt=["The panel"], stream=True, **settings)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text != ""
    tokenizer = Tokenizer.load(model)
    ids = [*tokenizer.document_prefix(), *tokenizer.encode("The panel")]
    assert client.completions.create(prompt=ids, **settings).choices[0].text == whole.choices[0].text
    logprobs = whole.choices[0].logprobs
    assert logprobs and logprobs.tokens and logprobs.text_offset and len(logprobs.tokens) == 12
    assert logprobs.text_offset[0] == 0 and logprobs.text_offset[-1] < len(whole.choices[0].text)
    assert client.completions.create(model="tiny", prompt="The").usage.completion_tokens <= 16  # type: ignore[union-attr]


def test_stop_ends_the_answer_before_itself(client: openai.OpenAI, expected: str) -> None:
    stop = expected[len(expected) // 2 :][:3]
    answer = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=24, stop=stop)  # type: ignore[arg-type]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == expected[: expected.index(stop)]


def test_a_seed_repeats_the_answer_and_another_does_not(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str | None:
        answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=seed)  # type: ignore[arg-type]
        return answer.choices[0].message.content

    assert ask(1) == ask(1) != ask(2)


def test_render_shows_the_prompt_the_model_reads(url: str, client: openai.OpenAI) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "A <|im_end|> b"}]
    status, rendered = post(url, "/v1/render", {"messages": messages})
    assert status == 200
    assert rendered["text"].startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert rendered["text"].endswith("<|im_start|>assistant\n")
    assert rendered["token_count"] == len(rendered["tokens"]) and rendered["context_length"] == CONTEXT
    # What the user wrote is text; only the template's own marks are special tokens.
    assert [token["text"] for token in rendered["tokens"] if token["special"]].count("<|im_end|>") == 2
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)  # type: ignore[arg-type]
    assert answer.usage and answer.usage.prompt_tokens == rendered["token_count"]


# -------------------------------------------------------------------- obey or refuse


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"n": 0}, "n"),
        ({"n": 5}, None),  # more at once than the server takes
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"min_p": 0.1, "mirostat": 2}, "mirostat"),
        ({"mirostat": 3}, "mirostat"),
        ({"typical_p": 0.9, "temperature": 0}, "temperature"),
        ({"tfs": 2.0}, "tfs"),
        ({"samplers": ["top_q"]}, "samplers"),
        ({"logit_bias": {"x": 5}}, "logit_bias.x"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": TOOLS * 2}, "tools[1].function.name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"functions": [{}]}, "functions"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"suffix": "x"}, "suffix"),
        ({"store": True}, "store"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": HELLO * 1001}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}, "messages[0].audio"),
        ({"stream": True, "stream_options": {"other": 1}}, "stream_options.other"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(url: str, change: dict[str, Any], param: str | None) -> None:
    status, answer = post(url, "/v1/chat/completions", {"model": "tiny", "messages": HELLO, "max_tokens": 1, **change})
    assert status == 400
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["param"] == param and (param or "5") in error["message"]


def test_a_misspelt_field_gets_the_right_one(url: str) -> None:
    _, answer = post(url, "/v1/chat/completions", {"model": "tiny", "messages": HELLO, "temprature": 1})
    assert "'temperature'" in answer["error"]["message"]


@pytest.mark.parametrize("change", [{"top_logprobs": 2}, {"stream_options": {}}, {"max_completion_tokens": 2}])
def test_fields_that_contradict_each_other_are_refused(url: str, change: dict[str, Any]) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 1, **change}
    status, answer = post(url, "/v1/chat/completions", body)
    assert status == 400 and next(iter(change)) in answer["error"]["message"]


def test_fields_that_change_nothing_are_accepted(url: str) -> None:
    off = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "tools": [], "store": False}
    harmless = {"user": "me", "metadata": {"a": "b"}, "response_format": {"type": "text"}, "top_k": -1, "min_p": 0}
    status, answer = post(
        url, "/v1/chat/completions", {"model": "tiny", "messages": HELLO, "max_tokens": 1, **off, **harmless}
    )
    assert status == 200, answer


def test_text_parts_are_one_text(url: str) -> None:
    def count(content: Any) -> int:
        return post(url, "/v1/render", {"messages": [{"role": "user", "content": content}]})[1]["token_count"]

    assert count([{"type": "text", "text": "the "}, {"type": "text", "text": "panel"}]) == count("the panel")


def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(url: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=[300] * CONTEXT)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "prompt"
    assert str(caught.value).count(str(CONTEXT)) == 2
    status, answer = post(url, "/v1/completions", {"model": "tiny", "prompt": [300] * (CONTEXT - 3), "max_tokens": 50})
    assert status == 200 and answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


def test_unknown_models_paths_and_methods(url: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"
    assert post(url, "/v1/images", {})[1]["error"]["message"] == "There is no /v1/images here."
    assert httpx.get(f"{url}/v1/completions").status_code == 405
    assert httpx.get(f"{url}/docs").status_code == 404  # its page would load scripts from elsewhere


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"[1]", 400),
        (b'{"model": "tiny", "prompt": "\\ud800"}', 400),
        (b'{"model": "tiny", "prompt": "x", "temperature": NaN}', 400),
        (b'{"model": "tiny", "prompt": "x", "max_tokens": 1' + b"0" * 5000 + b"}", 400),
        (b'{"model": "tiny", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"model": "tiny", "prompt": [-1]}', 400),
        (b'{"model": "tiny", "prompt": [100000]}', 400),
        (b'{"model": "tiny", "prompt": []}', 400),
        (b" " * (5 * 2**20), 413),
    ],
)
def test_hostile_bodies_leave_the_server_well(url: str, content: bytes, status: int) -> None:
    answer = httpx.post(f"{url}/v1/completions", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status and "message" in answer.json()["error"]
    assert httpx.get(f"{url}/health").json()["status"] == "ok"


def test_a_body_without_declared_length_is_counted(url: str) -> None:
    chunks = (b" " * 65536 for _ in range(100))
    answer = httpx.post(f"{url}/v1/completions", content=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


# -------------------------------------------------------------------- queue and hang-ups


def load(url: str) -> tuple[int, int]:
    health = httpx.get(f"{url}/health").json()
    return health["running"], health["waiting"]


def wait_for_load(url: str, wanted: tuple[int, int], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while load(url) != wanted:
        assert time.monotonic() < end, f"still {load(url)}"
        time.sleep(0.02)


def hang_in(url: str, path: str, *, stream: bool) -> http.client.HTTPConnection:
    """Ask for a very long answer and leave the connection open."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    body = {"model": "tiny", "messages": HELLO, "temperature": 0, "stream": stream}
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_queue_refuses_and_a_hang_up_frees_its_place(url: str, client: openai.OpenAI, stream: bool) -> None:
    path = "/v1/chat/completions"
    first = hang_in(url, path, stream=stream)
    wait_for_load(url, (1, 0))
    second = hang_in(url, path, stream=stream)
    wait_for_load(url, (1, 1))
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1)  # type: ignore[arg-type]
    assert caught.value.code == "queue_full" and caught.value.response.headers["retry-after"] == "1"
    second.close()
    wait_for_load(url, (1, 0))
    first.close()
    wait_for_load(url, (0, 0))
    assert client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1).usage  # type: ignore[arg-type]


# -------------------------------------------------------------------- start


def start_and_fail(settings: dict[str, Any]) -> tuple[int, str]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", "bottega.serve"], stdin=pipe, stderr=pipe, text=True) as child:
        assert child.stdin and child.stderr
        child.stdin.write(json.dumps(settings) + "\n")
        child.stdin.flush()
        status, said = child.wait(60), child.stderr.read()
    assert "Traceback" not in said
    return status, said


def test_a_port_in_use_and_a_missing_model_are_the_users_errors(model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = start_and_fail({"model": str(model), "port": port})
        assert status == 2 and f"port {port}" in said and "in use" in said and f"--port {port + 1}" in said
    status, said = start_and_fail({"model": str(tmp_path / "nothing"), "port": 0})
    assert status == 2 and "nothing" in said
