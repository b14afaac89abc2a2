"""The chat client against real servers: a scripted one on this machine, and our own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from bottega.clients.chat import ChatClient, Reply, find_model
from bottega.clients.endpoint import Endpoint, EndpointError, base_url, find_key
from bottega.core.errors import UserError
from chat_server import Refuse, chat_server
from test_serve_api import make_model, running_server

KEY = "secret-key-123"


def conversation(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def echo(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"].upper()


def in_turn(*steps: Exception | str) -> Callable[[dict[str, Any]], str]:
    """Raise or say these, one after the other."""
    left = iter(steps)

    def answer(body: dict[str, Any]) -> str:
        step = next(left)
        if isinstance(step, Exception):
            raise step
        return step

    return answer


def endpoint(url: str, **settings: Any) -> Endpoint:
    return Endpoint(url, "judge", **{"backoff": 0.01, "timeout": 5.0, **settings})


def ask(url: str, **settings: Any) -> Reply:
    with ChatClient(endpoint(url, **settings)) as client:
        return client.ask(conversation("hello"), max_tokens=16)


def test_a_request_and_its_answer() -> None:
    with chat_server(echo) as server:
        reply = ask(server.url, api_key=KEY, extra={"seed": 3, "temperature": None})
        bare = ask(server.url)
    assert reply == bare == Reply("HELLO", "stop", 7, 3)
    headers, body = server.requests[0]
    assert headers["authorization"] == f"Bearer {KEY}" and "authorization" not in server.requests[1][0]
    assert body == {"model": "judge", "messages": conversation("hello"), "max_tokens": 16, "seed": 3}
    assert server.requests[1][1]["temperature"] == 0


def test_our_own_server_is_asked(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny")
    with running_server(model) as (port, _):
        url = base_url(f"http://127.0.0.1:{port}")
        name = find_model(endpoint(url))
        with ChatClient(Endpoint(url, name)) as client:
            replies = dict(client.ask_all([conversation("a"), conversation("b\ud800")], max_tokens=5, concurrency=2))
    first, second = replies[0], replies[1]
    assert isinstance(first, Reply) and first.completion_tokens == 5 and first.finish_reason == "length" and first.text
    assert isinstance(second, Reply | EndpointError)  # half of a character pair is sent, and is the server's to judge


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with chat_server(in_turn(Refuse(status), Refuse(status), "at last")) as server:
        assert ask(server.url).text == "at last" and len(server.requests) == 3


def test_retry_after_is_obeyed() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    for wait, least in (("0.4", 0.4), ("0", 0.0), (later, 0.5)):
        with chat_server(in_turn(Refuse(429, Retry_After=wait), "yes")) as server:
            started = time.monotonic()
            # Without the header, the wait would be half a minute.
            assert ask(server.url, backoff=30.0).text == "yes"
            assert least <= time.monotonic() - started < 5
    with chat_server(in_turn(Refuse(429, Retry_After="3600"))) as server:
        with pytest.raises(EndpointError, match="3600 seconds of patience") as caught:
            ask(server.url)
        assert caught.value.stops and len(server.requests) == 1


def test_one_refusal_holds_all_threads_back() -> None:
    times: list[float] = []

    def answer(body: dict[str, Any]) -> str:
        times.append(time.monotonic())
        if len(times) == 1:
            raise Refuse(429, Retry_After="0.5")
        time.sleep(0.05)
        return "x"

    with chat_server(answer) as server, ChatClient(endpoint(server.url)) as client:
        many = list(client.ask_all([conversation(str(n)) for n in range(24)], max_tokens=1, concurrency=3))
    assert sorted(place for place, _ in many) == list(range(24)) and server.most <= 3
    early = [at for at in times[1:] if at - times[0] < 0.45]
    assert len(early) <= 4  # those that were on their way


@pytest.mark.parametrize(
    ("refusal", "said", "stops", "attempts"),
    [
        (Refuse(400), "HTTP 400: refused with 400", False, 1),
        (Refuse(401, {"error": {"message": f"wrong key {KEY}"}}), r"HTTP 401: wrong key \(key\)", True, 1),
        (Refuse(404, b"<h1>no</h1>"), "HTTP 404: <h1>no</h1>", True, 1),
        (Refuse(302, b"", Location="http://127.0.0.1:9/"), "HTTP 302", True, 1),
        (Refuse(429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "HTTP 429: pay", True, 1),
        (Refuse(429), "HTTP 429", True, 3),
        (Refuse(500), "HTTP 500", False, 3),
        (Refuse(200, {"error": {"message": "behind", "code": 503}}), "HTTP 503: behind", True, 3),
        (Refuse(200, b"no JSON"), "no choices", False, 1),
        (Refuse(200, {"choices": []}), "no choices", False, 1),
        (Refuse(200, []), "no choices", False, 1),
    ],
)
def test_refusals_say_what_was_refused(refusal: Refuse, said: str, stops: bool, attempts: int) -> None:
    with chat_server(in_turn(*[refusal] * 3)) as server, pytest.raises(EndpointError, match=said) as caught:
        ask(server.url, api_key=KEY, retries=2)
    assert caught.value.stops == stops and len(server.requests) == attempts
    assert KEY not in f"{caught.value} {caught.value.__cause__}" and KEY not in repr(endpoint("http://x", api_key=KEY))


def test_odd_contents() -> None:
    for content, text in ((None, ""), ([{"type": "text", "text": "in "}, {"text": "parts"}], "in parts")):
        body = {"choices": [{"message": {"content": content}}], "usage": None}
        with chat_server(in_turn(Refuse(200, body))) as server:
            assert ask(server.url) == Reply(text)


def test_one_item_s_error_is_its_own_and_the_endpoint_s_is_all_s() -> None:
    def answer(body: dict[str, Any]) -> str:
        if body["messages"][0]["content"] == "3":
            raise Refuse(400)
        return "fine"

    with chat_server(answer) as server, ChatClient(endpoint(server.url)) as client:
        replies = dict(client.ask_all([conversation(str(n)) for n in range(6)], max_tokens=1, concurrency=2))
    assert isinstance(replies[3], EndpointError) and sum(isinstance(each, Reply) for each in replies.values()) == 5
    with chat_server(in_turn(*[Refuse(401)] * 50)) as server, ChatClient(endpoint(server.url)) as client:
        with pytest.raises(EndpointError, match="401"):
            list(client.ask_all([conversation(str(n)) for n in range(50)], max_tokens=1, concurrency=2))
        time.sleep(0.1)
        assert len(server.requests) < 10


def test_nobody_there_and_too_slow() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        for call in (lambda: ask(url, backoff=30.0), lambda: find_model(endpoint(url))):
            with pytest.raises(EndpointError, match="nobody answers") as caught:
                call()
            assert caught.value.stops
    done = threading.Event()

    def answer(body: dict[str, Any]) -> str:
        done.wait(5)
        return "late"

    with chat_server(answer) as server:
        with pytest.raises(EndpointError, match="no answer in") as caught:
            ask(server.url, timeout=0.1, retries=1)
        assert not caught.value.stops and len(server.requests) == 2
        done.set()


def test_the_models_of_an_endpoint() -> None:
    with chat_server(echo) as server:
        assert find_model(endpoint(server.url)) == "judge"
    for models, said in (((), "lists no model"), (("a", "b"), "has 2 models")):
        with chat_server(echo, models=models) as server, pytest.raises(UserError, match=said):
            find_model(endpoint(server.url))


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("https://h/v1/", "https://h/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
        ("https://h/api/v1", "https://h/api/v1"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai"),
        ("http://[::1]:8/v1/models", "http://[::1]:8/v1"),
    ],
)
def test_base_url(url: str, base: str) -> None:
    assert base_url(url) == base


@pytest.mark.parametrize(
    "url", ["h:1", "ftp://h", "http://", "http://h:0", "http://h:99999", "http://h?x", "http://a:b@h"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError):
        base_url(url)


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", " k \n")
    monkeypatch.delenv("DEFAULT", raising=False)
    assert find_key("given", "MINE", "DEFAULT") == "given" and find_key(None, "MINE", "DEFAULT") == "k"
    assert find_key(None, None, "DEFAULT") is None and find_key(None, None, "MINE") == "k"
    with pytest.raises(UserError, match="DEFAULT is not set"):
        find_key(None, "DEFAULT", "MINE")
    with pytest.raises(UserError, match="no key has") as caught:
        Endpoint("http://h", "m", "a\nb")
    assert "a\nb" not in str(caught.value)
    assert Endpoint("http://127.0.0.2", "m").is_local and Endpoint("http://localhost:1", "m").is_local
    assert not Endpoint("http://example.org", "m").is_local
