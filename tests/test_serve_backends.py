"""Another engine behind the server. One core of tests for all engines: `BOTTEGA_ENGINES=native,vllm,llama.cpp`.

The front itself is tested before a real program: this server's own native engine, started as the others are.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from bottega.core.errors import BottegaError, UserError
from bottega.serve.backends.app import Front, create_front
from bottega.serve.backends.child import Child, free_port
from bottega.serve.backends.programs import COMMON, Program, program_of
from bottega.serve.config import Serve
from test_serve_api import HELLO, make_model, post, running_server

ENGINES = os.environ.get("BOTTEGA_ENGINES", "native").split(",")
KEY = "a key of its own"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("backends") / "tiny", context=512, head_dim=64)  # vLLM has no smaller


# -------------------------------------------------------------------- what every engine must do


@pytest.fixture(scope="module", params=ENGINES)
def url(request: pytest.FixtureRequest, model: Path) -> Iterator[str]:
    """A server of each engine. llama.cpp needs a GGUF file: BOTTEGA_GGUF names one with a chat template."""
    path = Path(os.environ["BOTTEGA_GGUF"]) if request.param == "llama.cpp" else model
    with running_server(Path(f"tiny={path}"), engine=request.param) as (port, child):
        yield f"http://127.0.0.1:{port}"
        child.terminate()
        assert child.wait(20) == 0


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


def test_core_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    settings: Any = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**settings)
    assert whole.choices[0].message.content and whole.usage and 0 < whole.usage.completion_tokens <= 12
    chunks = list(client.chat.completions.create(**settings, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert client.models.list().data[0].id == "tiny"


def test_core_completions_and_seeds(client: openai.OpenAI) -> None:
    def say(**settings: Any) -> str:
        return client.completions.create(model="tiny", prompt="The panel", max_tokens=12, **settings).choices[0].text

    assert say(temperature=0) == say(temperature=0)
    assert say(temperature=1.0, seed=3) == say(temperature=1.0, seed=3)
    text = say(temperature=0)
    assert say(temperature=0, stop=[text[3:6]]) == text[: text.index(text[3:6])]


@pytest.mark.parametrize(
    ("change", "param"),
    [({"temprature": 1}, "temprature"), ({"temperature": 9}, "temperature"), ({"model": "other"}, "model"),
     ({"max_tokens": 0}, "max_tokens"), ({"suffix": "x"}, "suffix"), ({"prompt": 5}, "prompt")],
)  # fmt: skip
def test_core_refusals_by_name(url: str, change: dict[str, Any], param: str) -> None:
    status, answer = post(url, "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 2, **change})
    assert status in (400, 404) and answer["error"]["param"] == param


def test_core_a_prompt_that_is_too_long_is_refused(url: str) -> None:
    status, answer = post(url, "/v1/completions", {"model": "tiny", "prompt": "word " * 20000, "max_tokens": 2})
    assert status == 400 and "error" in answer


# -------------------------------------------------------------------- the front, before a real program


def program(model: Path, port: int, folder: Path) -> Program:
    (folder / "key").write_text(KEY)
    words = [sys.executable, "-m", "bottega", "serve", str(model), "--port", str(port), "--threads", "1"]
    words += ["--api-key-file", str(folder / "key")]
    return Program("Program", words, {"PROGRAM_IS": "told"}, COMMON - {"top_k"}, reasons={"tools": "it has no tools"})


@pytest.fixture(scope="module")
def front(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = Serve.parse({"model": str(model), "max_batch": 1, "max_queue": 1, "drain_seconds": 0})
    port = free_port()
    child = Child(program(model, port, tmp_path_factory.mktemp("key")), port, KEY)
    child.wait_until_ready()
    own = free_port()
    server = uvicorn.Server(
        uvicorn.Config(create_front(Front(child, config, "tiny"), config), port=own, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{own}"
    # A program that has ended is said to have, and does not take the server with it.
    child.end()
    url = f"http://127.0.0.1:{own}"
    status, answer = post(url, "/v1/completions", {"model": "tiny", "prompt": "x"})
    assert status == 502 and answer["error"]["code"] == "engine_lost"
    assert httpx.get(f"{url}/ready").status_code == 503
    server.should_exit = True
    thread.join()


def test_answers_pass_through(front: str) -> None:
    client = openai.OpenAI(base_url=f"{front}/v1", api_key="none", max_retries=0, timeout=60)
    settings: Any = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**settings, user="ada").choices[0].message.content
    chunks = list(client.chat.completions.create(**settings, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole != ""


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [({"top_k": 3}, "top_k", "does not have it"), ({"tools": [], "n": 2}, "tools", "it has no tools"),
     ({"n": 2}, "n", "does not have it"), ({"temperature": 9}, "temperature", "less than or equal"),
     ({"model": "x"}, "model", "not served here")],
)  # fmt: skip
def test_what_the_program_lacks_is_refused_with_the_reason(
    front: str, change: dict[str, Any], param: str, said: str
) -> None:
    status, answer = post(front, "/v1/chat/completions", {"model": "tiny", "messages": HELLO, **change})
    assert status in (400, 404) and answer["error"]["param"] == param and said in answer["error"]["message"]


def test_refusals_of_the_program_and_missing_routes(front: str) -> None:
    body = {"model": "tiny", "prompt": "word " * 900, "max_tokens": 2}
    status, answer = post(front, "/v1/completions", body)
    assert status == 400 and answer["error"]["message"].startswith("Program: The prompt has")
    for path in ("/v1/score", "/api/chat", "/v1/responses", "/tokenize"):
        status, answer = post(front, path, {})
        assert status == 501 and "Program" in json.dumps(answer)


def test_the_queue_is_bounded_and_places_come_back(front: str) -> None:
    body = {"model": "tiny", "prompt": "x", "temperature": 0, "max_tokens": 100}

    async def ask(stream: bool) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=30) as client:
            asked = [client.post(f"{front}/v1/completions", json={**body, "stream": stream}) for _ in range(8)]
            return await asyncio.gather(*asked)

    for stream in (False, True):
        answers = asyncio.run(ask(stream))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
    # A client that hangs up gives its place back.
    with httpx.Client(timeout=30) as client:
        for _ in range(4):
            with client.stream(
                "POST", f"{front}/v1/completions", json={**body, "max_tokens": 400, "stream": True}
            ) as one:
                next(one.iter_lines())
        deadline = time.monotonic() + 10
        while client.post(f"{front}/v1/completions", json={**body, "max_tokens": 1}).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_program_ends_with_its_parent(model: Path, tmp_path: Path) -> None:
    """However it ends: here by SIGKILL."""
    port = free_port()
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_serve_backends import KEY, Child, program\n"
        "child = Child(program(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])), int(sys.argv[3]), KEY)\n"
        "child.wait_until_ready(); print('ready', flush=True); sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script, str(Path(__file__).parent), str(model), str(port), str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout and parent.stdout.readline() == b"ready\n"
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401  # its own key, which it wants
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    with pytest.raises(httpx.ConnectError):
        while time.monotonic() < deadline:
            httpx.get(f"http://127.0.0.1:{port}/live", timeout=2)
            time.sleep(0.05)


def test_a_program_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    child = Child(Program("Program", [sys.executable, "-c", "raise SystemExit(3)"], {}, COMMON), free_port(), KEY)
    with pytest.raises(BottegaError, match="ended while it started"):
        child.wait_until_ready()
    sleeper = Child(Program("Program", ["sleep", "60"], {}, COMMON), free_port(), KEY)
    with pytest.raises(BottegaError, match="did not answer within"):
        sleeper.wait_until_ready(0.5)


# -------------------------------------------------------------------- how the programs are found and told


def settings_for(path: Path, **settings: Any) -> Serve:
    return Serve.parse({"model": str(path), **settings})


def test_what_is_not_installed_is_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="vLLM is not installed"):
        program_of(settings_for(model, engine="vllm"), model, "m", 1, KEY)
    with pytest.raises(UserError, match=r"llama\.cpp is not installed"):
        program_of(settings_for(model, engine="llama.cpp"), tmp_path / "m.gguf", "m", 1, KEY)


def test_what_a_program_cannot_obey_is_refused(model: Path) -> None:
    for change in ({"speculate": "lookup"}, {"weights": "int8"}, {"adapter": "x"}, {"device": "cpu"}):
        with pytest.raises(UserError, match=next(iter(change))):
            program_of(settings_for(model, engine="vllm", **change), model, "m", 1, KEY)
    with pytest.raises(UserError, match="reads GGUF"):
        program_of(settings_for(model, engine="llama.cpp"), model, "m", 1, KEY)
    with pytest.raises(UserError, match="one model"):
        program_of(settings_for(model, engine="vllm", model=["a=x", "b=y"]), model, "m", 1, KEY)


def test_commands_keep_the_key_to_the_environment(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vllm", "python", "llama-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for engine, path in (("vllm", model), ("llama.cpp", tmp_path / "m.gguf")):
        made = program_of(settings_for(model, engine=engine, max_batch=3, threads=2), path, "m", 7001, KEY)
        assert KEY in made.environment.values() and KEY not in " ".join(made.command)
        words = list(made.command)
        assert words[words.index("--port") + 1] == "7001" and words[words.index("--host") + 1] == "127.0.0.1"
        assert "3" in words and made.fields >= {"temperature", "stop"}
