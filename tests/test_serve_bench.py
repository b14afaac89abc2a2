"""The load tool against a real server whose delays, refusals and faults are built in, so that every figure is known."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bottega import verbs
from bottega.core.errors import BottegaError, UserError
from bottega.serve.bench.client import DONE, Outcome
from bottega.serve.bench.config import BenchServe
from bottega.serve.bench.load import arrivals
from bottega.serve.bench.summary import concurrency_steps, decoding, goodput, hardware
from bottega.serve.listen import open_socket

FIRST, EACH = 0.08, 0.02  # seconds to the first token, and from one to the next
SPECIAL, TEMPLATE = 2, 7
FACTS = {"parameters": 1_000_000, "weight_bytes": 2_000_000, "has_chat_template": False}


def tokens_of(text: str) -> int:
    """This server's tokenizer: a token for every three letters of a word."""
    return sum(-(-len(word) // 3) for word in text.split())


class Peer:
    """A server of OpenAI's API; the first part of the path says how it behaves."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.cancelled = self.running = 0
        self.turns: Counter[str] = Counter()
        self.lock = asyncio.Lock()
        routes = [
            Route("/{mode}/v1/models", self.models),
            Route("/{mode}/v1/chat/completions", self.answer, methods=["POST"]),
            Route("/{mode}/v1/completions", self.answer, methods=["POST"]),
            Route("/{mode}/tokenize", self.tokenize, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def models(self, request: Request) -> Response:
        mode = request.path_params["mode"]
        if mode == "secret" and request.headers.get("authorization") != "Bearer sesame":
            return JSONResponse({"error": {"message": "no such key"}}, 401)
        if mode == "unlisted":
            return Response(status_code=404)
        card: dict[str, Any] = {"id": "panel", "object": "model"}
        return JSONResponse({"data": [card | ({"bottega": FACTS} if mode == "facts" else {}), {"id": "fresco"}]})

    async def tokenize(self, request: Request) -> Response:
        if request.path_params["mode"] != "counting":
            return Response(status_code=404)
        body = await request.json()
        return JSONResponse({"count": self.count(body)})

    def count(self, body: dict[str, Any]) -> int:
        if "messages" in body:
            return tokens_of(body["messages"][0]["content"]) + TEMPLATE
        return tokens_of(body["prompt"]) + SPECIAL

    async def answer(self, request: Request) -> Response:
        mode, body = request.path_params["mode"], await request.json()
        self.bodies.append((mode, body))
        self.turns[mode] += 1
        if mode == "strict" and "stream_options" in body:
            return JSONResponse({"error": {"message": "unknown field 'stream_options'"}}, 400)
        if mode == "limited" and self.turns[mode] > 2:
            error = {"message": "the queue is full", "type": "rate_limit_error"}
            return JSONResponse({"error": error}, 429, headers={"Retry-After": "7"})
        if mode == "faulty" and self.turns[mode] % 5 == 1:
            return JSONResponse({"error": {"message": "the oven is cold"}}, 500)
        if mode == "faulty" and self.turns[mode] % 5 == 2:
            return JSONResponse({"choices": [{"text": "whole"}]})
        return StreamingResponse(self.events(mode, body, self.turns[mode]), media_type="text/event-stream")

    async def events(self, mode: str, body: dict[str, Any], turn: int) -> AsyncIterator[bytes]:
        self.running += 1
        sent_all = False
        try:
            if mode == "one_at_a_time":
                async with self.lock:
                    await asyncio.sleep(0.05)
            is_chat = "messages" in body
            if is_chat:
                yield event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            await asyncio.sleep(0.6 if mode == "alternating" and turn % 2 else FIRST)
            for index in range(body["max_tokens"]):
                if index:
                    await asyncio.sleep(EACH)
                if mode == "faulty" and turn % 5 == 3 and index == 2:
                    return
                if mode == "faulty" and turn % 5 == 4:
                    yield event({"error": {"message": "out of gold leaf"}})
                    return
                yield event({"choices": [{"delta": {"content": "gold "}} if is_chat else {"text": "gold "}]})
            yield event({"choices": [{"delta": {}, "text": "", "finish_reason": "length"}]})
            if mode != "uncounted" and "stream_options" in body:
                counts = {"prompt_tokens": self.count(body), "completion_tokens": body["max_tokens"]}
                yield event({"choices": [], "usage": counts})
            sent_all = True  # a client that has read the end may close before this generator is asked for more
            yield b"data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.cancelled += not sent_all
            raise
        finally:
            self.running -= 1


def event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


class Served:
    """The peer on a port of its own, in a thread."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.socket = open_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self.peer.app, log_level="warning", access_log=False))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def bench(self, mode: str, **settings: Any) -> dict[str, Any]:
        return verbs.bench_serve(url=f"{self.url}/{mode}", **settings)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served()
    served.thread.start()
    while not served.server.started:
        time.sleep(0.01)
    yield served
    served.server.should_exit = True
    served.thread.join(10)


def test_latencies_are_those_built_in(served: Served) -> None:
    data = served.bench("plain", rate=20, requests=20, output_tokens=11, input_tokens=10)
    ttft, tpot, whole = data["ttft_ms"], data["tpot_ms"], data["e2el_ms"]
    assert ttft["min"] >= 1000 * FIRST and ttft["p50"] < 1000 * FIRST + 120
    assert tpot["min"] >= 0.8 * 1000 * EACH and tpot["p50"] < 1000 * EACH + 25
    assert whole["min"] >= 1000 * (FIRST + 10 * EACH) - 2
    assert whole["p50"] == pytest.approx(ttft["p50"] + 10 * tpot["p50"], rel=0.1)
    assert data["itl_ms"]["count"] == 20 * 10
    assert data["lag_ms"]["count"] > 20 and data["lag_ms"]["p50"] < 20 and data["send_ms"]["p50"] < 20
    assert data["requests"]["complete"] == 20 and data["requests"]["failed"] == 0
    assert data["output_tokens"] == 220 and data["tokens_counted_by"] == "server"
    # The prompt is 10 words at an estimated token each: the server's count is another, and it is the one reported.
    sent = [body for mode, body in served.peer.bodies if mode == "plain"][-20:]
    assert {len(body["messages"][0]["content"].split()) for body in sent} == {10}
    assert data["input_tokens"] == sum(served.peer.count(body) for body in sent)
    assert "estimated" in data["prompts"]


def test_waiting_for_a_free_client_counts(served: Served) -> None:
    """Coordinated omission: ten arrivals at once, one client; the last has waited for the nine before it."""
    data = served.bench("plain", rate="inf", concurrency=1, requests=10, output_tokens=1)
    one = 1000 * FIRST
    assert data["e2el_ms"]["max"] >= 10 * one
    assert data["e2el_ms"]["p50"] == pytest.approx(5.5 * data["e2el_ms"]["max"] / 10, rel=0.15)
    assert data["peak_concurrency"] == 1 and data["tpot_ms"] is None
    assert data["send_ms"]["max"] >= 9 * one and not any("load tool itself" in note for note in data["notes"])
    closed = served.bench("plain", concurrency=1, requests=10, output_tokens=1)
    assert one <= closed["e2el_ms"]["p50"] < 2 * one


def test_waiting_in_the_server_counts(served: Served) -> None:
    data = served.bench("one_at_a_time", rate="inf", requests=8, output_tokens=1)
    assert data["ttft_ms"]["max"] >= 8 * 50 + 1000 * FIRST - 2
    assert data["peak_concurrency"] == 8


def test_closed_loop_keeps_its_clients_busy(served: Served) -> None:
    data = served.bench("plain", concurrency=4, duration=1.0, output_tokens=3, warmup=0)
    assert data["peak_concurrency"] == 4 and data["mean_concurrency"] > 3
    longest = 1.0 / (FIRST + 2 * EACH) + 1
    assert 4 <= data["requests"]["complete"] <= 4 * longest


def test_goodput_counts_what_meets_every_goal(served: Served) -> None:
    served.peer.turns["alternating"] = 0
    settings: dict[str, Any] = {"concurrency": 4, "requests": 12, "output_tokens": 4, "warmup": 0}
    good = served.bench("alternating", goodput="ttft:350,tpot:200", **settings)["goodput"]
    assert good["good"] == 6 and good["share"] == 0.5 and good["met"] == {"ttft": 6, "tpot": 12}
    assert served.bench("alternating", goodput="tpot:5", **settings)["goodput"]["good"] == 0


def test_refusals_are_counted_apart(served: Served) -> None:
    data = served.bench("limited", rate="inf", requests=10, output_tokens=5, warmup=0, goodput="e2el:9999")
    requests = data["requests"]
    assert requests["complete"] == 2 and requests["rate_limited"] == 8 == requests["failed"]
    assert requests["retry_after_s"]["mean"] == 7 and requests["without_retry_after"] == 0
    assert "the queue is full" in requests["examples"]["rate_limited"]
    assert data["e2el_ms"]["count"] == 2 and data["goodput"]["share"] == 0.2


def test_faults_are_told_by_kind(served: Served) -> None:
    served.peer.turns["faulty"] = 0
    data = served.bench("faulty", concurrency=1, requests=10, output_tokens=5, warmup=0)
    errors, said = data["requests"]["errors"], data["requests"]["examples"]
    assert errors == {"http_500": 2, "no_stream": 2, "cut_off": 2, "stream_error": 2}
    assert "the oven is cold" in said["http_500"] and said["stream_error"] == "out of gold leaf"
    assert data["requests"]["complete"] == 2


def test_slow_answers_are_given_up(served: Served) -> None:
    data = served.bench("plain", concurrency=2, requests=2, output_tokens=50, timeout=0.3, warmup=0)
    assert data["requests"]["errors"] == {"timeout": 2} and data["seconds"] < 0.9


def test_clients_that_hang_up_leave_midway(served: Served) -> None:
    served.peer.cancelled = 0
    data = served.bench("plain", rate=40, requests=40, output_tokens=20, disconnect=0.5)
    hung_up = data["requests"]["hung_up"]
    assert 10 <= hung_up <= 30 and data["requests"]["complete"] == 40 - hung_up and not data["requests"]["failed"]
    assert data["e2el_ms"]["count"] == 40 - hung_up
    deadline = time.monotonic() + 5
    while served.peer.running and time.monotonic() < deadline:
        time.sleep(0.02)
    # Who leaves at one of the last pieces may leave a server that has sent everything.
    assert 0.7 * hung_up <= served.peer.cancelled <= hung_up and served.peer.running == 0


def test_prompts_have_the_tokens_asked_for(served: Served) -> None:
    for endpoint, extra in (("completions", SPECIAL), ("chat", TEMPLATE)):
        served.peer.bodies.clear()
        settings = {"endpoint": endpoint, "input_tokens": 60, "shared_prefix": 40, "output_tokens": 1}
        data = served.bench("counting", rate="inf", requests=6, warmup=0, **settings)
        assert data["input_tokens"] == 6 * 60 and "counted" in data["prompts"]
        bodies = [body for _, body in served.peer.bodies]
        texts = [body["prompt"] if "prompt" in body else body["messages"][0]["content"] for body in bodies]
        shared = [words[0] for words in zip(*(text.split() for text in texts), strict=False) if len(set(words)) == 1]
        assert 40 - extra <= tokens_of(" ".join(shared)) < 60 and len(set(texts)) == 6
    first = [body for _, body in served.peer.bodies]
    served.peer.bodies.clear()
    served.bench("counting", rate="inf", requests=6, warmup=0, **settings)
    again = [body for _, body in served.peer.bodies]
    assert sorted(map(json.dumps, first)) == sorted(map(json.dumps, again))


def test_lengths_vary_by_the_spread(served: Served) -> None:
    served.peer.bodies.clear()
    served.bench("counting", rate="inf", requests=12, warmup=0, input_tokens=40, output_tokens=4, spread=0.5)
    bodies = [body for _, body in served.peer.bodies]
    lengths, limits = {served.peer.count(body) for body in bodies}, {body["max_tokens"] for body in bodies}
    assert len(lengths) > 3 and min(lengths) >= 20 and max(lengths) <= 60 and limits <= {2, 3, 4, 5, 6}


def test_a_file_of_prompts(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "How is gesso made?", "output_tokens": 2}\n\n{"messages": [{"role": "user"}]}\n')
    served.peer.bodies.clear()
    served.bench("plain", concurrency=1, requests=3, warmup=0, dataset=path, output_tokens=1, extra='{"seed": 4}')
    bodies = [body for _, body in served.peer.bodies]
    assert [body["max_tokens"] for body in bodies] == [2, 1, 2] and {body["seed"] for body in bodies} == {4}
    assert bodies[0]["messages"] == bodies[2]["messages"] == [{"role": "user", "content": "How is gesso made?"}]
    with pytest.raises(UserError, match="line 3 is a conversation"):
        served.bench("plain", concurrency=1, dataset=path, endpoint="completions")
    for row, said in (
        ("{", "is not JSON"),
        ("{}", "exactly one of"),
        ('{"prompt": 3}', "is a text"),
        ("", "no prompt"),
    ):
        path.write_text(row)
        with pytest.raises(UserError, match=said):
            served.bench("plain", concurrency=1, dataset=path)


def test_pieces_are_counted_where_the_server_counts_no_tokens(served: Served) -> None:
    data = served.bench("uncounted", concurrency=1, requests=2, output_tokens=5)
    assert data["output_tokens"] == 10 and data["tokens_counted_by"] == "pieces" and data["input_tokens"] is None
    assert any("pieces of text" in note for note in data["notes"])
    without = """{"stream_options": null}"""
    assert (
        served.bench("strict", concurrency=1, requests=1, output_tokens=2, extra=without)["tokens_counted_by"]
        == "pieces"
    )


def test_hardware_beside_what_was_measured(served: Served) -> None:
    data = served.bench("facts", concurrency=3, requests=3, output_tokens=21, warmup=0)
    found = data["hardware"]
    assert data["endpoint"] == "completions"  # the server says that its model has no chat template
    # Three answers decode side by side: one reading of the weights for three tokens.
    assert found["tokens_per_step"] == pytest.approx(3, rel=0.1)
    assert found["bytes_per_second"] == pytest.approx(1000 * FACTS["weight_bytes"] / data["tpot_ms"]["mean"], rel=0.15)
    assert found["bytes_per_second"] < FACTS["weight_bytes"] / EACH * 1.02
    assert found["measured_bytes_per_second"] > found["bytes_per_second"]
    tokens = data["input_tokens"] + data["output_tokens"]
    assert found["flops_per_second"] == pytest.approx(2e6 * tokens / data["seconds"], rel=0.15)
    assert found["flops_per_second"] < 2e6 * tokens / (FIRST + 20 * EACH)
    assert served.bench("plain", concurrency=1, requests=1, output_tokens=2)["hardware"] is None


def test_the_report_and_the_record(served: Served, tmp_path: Path) -> None:
    out = tmp_path / "load"
    data = served.bench(
        "secret", rate="inf", requests=5, output_tokens=5, out=out, api_key="sesame", goodput="ttft:900"
    )
    results = json.loads((out / "results.json").read_text())
    assert len(results["outcomes"]) == 5 and results["ttft_ms"] == data["ttft_ms"]
    assert all(row["status"] == "ok" and len(row["itl_ms"]) == 4 for row in results["outcomes"])
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 4 and "Goodput" in page
    record = json.loads((out / "record.json").read_text())
    assert record["verb"] == "bench serve" and record["config"]["rate"] == "inf"
    assert not any("sesame" in path.read_text() for path in out.iterdir())
    with pytest.raises(UserError, match="exists already"):
        served.bench("plain", rate=1, out=out)


def test_what_cannot_be_measured_is_said(served: Served) -> None:
    nobody = open_socket("127.0.0.1", 0)  # bound, and nobody listens
    with pytest.raises(UserError, match="no server answers"):
        verbs.bench_serve(url=f"http://127.0.0.1:{nobody.getsockname()[1]}", rate=1)
    nobody.close()
    with pytest.raises(UserError, match=r"refuses us: HTTP 401: no such key\nGive its key"):
        served.bench("secret", rate=1)
    with pytest.raises(UserError, match=r"model 'panle' is not served.*\nDid you mean 'panel'"):
        served.bench("plain", rate=1, model="panle")
    with pytest.raises(UserError, match="Name the model with --model"):
        served.bench("unlisted", rate=1)
    assert served.bench("unlisted", concurrency=1, requests=1, output_tokens=1, model="any")["model"] == "any"
    with pytest.raises(UserError, match=r"the first request fails.*stream_options(.|\n)*Leave that field out"):
        served.bench("strict", rate=1)
    served.peer.turns["faulty"] = 0
    with pytest.raises(BottegaError, match="the oven is cold"):
        served.bench("faulty", rate=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no load is given"),
        ({"rate": 1, "goodput": "ttft=5"}, "is no goal"),
        ({"rate": 1, "goodput": "ttf:5"}, "Did you mean 'ttft'"),
        ({"rate": 1, "goodput": "ttft:5,ttft:6"}, "given twice"),
        ({"rate": 1, "goodput": "ttft:fast"}, "no number"),
        ({"rate": 1, "goodput": "ttft:-1"}, "above 0"),
        ({"rate": 0}, "rate"),
        ({"rate": "inf", "burstiness": 2}, "burstiness"),
        ({"rate": "inf", "duration": 3}, "say how many"),
        ({"rate": 1, "dataset": "a.jsonl", "input_tokens": 4}, "leave them out"),
        ({"rate": 1, "shared_prefix": 500}, "longer than the shortest"),
        ({"rate": 1, "extra": '{"stream": false}'}, "set by the load tool"),
        ({"rate": 1, "url": "localhost:8000"}, "http or https"),
        ({"rate": 1, "url": "http://localhost:80000"}, "out of range"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        BenchServe.parse({"url": "http://127.0.0.1:1", **settings})


def test_the_url_may_name_an_endpoint() -> None:
    for path in ("", "/", "/v1", "/v1/", "/v1/chat/completions", "/v1/models"):
        assert BenchServe(url=f"https://host/openai{path}", rate=1).url == "https://host/openai"


def test_arrivals_have_the_rate_and_the_burstiness() -> None:
    for burstiness in (0.25, 1.0, 4.0):
        config = BenchServe(url="http://a", rate=50, requests=40_000, burstiness=burstiness, seed=3)
        gaps = np.diff(arrivals(config))
        assert len(gaps) == 39_999 and gaps.mean() == pytest.approx(1 / 50, rel=0.04)
        assert gaps.std() / gaps.mean() == pytest.approx(
            burstiness**-0.5, rel=0.05
        )  # a gamma's coefficient of variation
    for_a_time = arrivals(BenchServe(url="http://a", rate=1000, duration=10))
    assert for_a_time[-1] < 10 and len(for_a_time) == pytest.approx(10_000, rel=0.05)
    assert len(arrivals(BenchServe(url="http://a", rate=10, duration=100, requests=7))) == 7


def answer(start: float, tokens: int, each: float) -> Outcome:
    chunks = [start + 1 + index * each for index in range(tokens)]
    return Outcome(0, start, start, chunks, chunks[-1], DONE, usage_tokens=tokens, input_tokens=100)


def test_decoding_steps_from_overlap() -> None:
    alone, later = answer(0, 11, 0.1), answer(10, 11, 0.1)
    assert decoding([alone, later]) == pytest.approx((20, 2))
    assert decoding([alone, answer(0, 11, 0.1)]) == pytest.approx((10, 1))
    assert decoding([alone, answer(0.5, 11, 0.1)]) == pytest.approx((15, 1.5))
    found = hardware([alone, later], 1e6, 4e6, None)
    assert found is not None and found["bytes_per_second"] == pytest.approx(20 * 4e6 / 2)
    assert found["flops_per_second"] == pytest.approx(2e6 * 222 / 4)  # two seconds under way each
    assert concurrency_steps([(0, 2), (1, 3)]) == [(0, 1), (1, 2), (2, 1), (3, 0)]


def test_goodput_of_known_outcomes() -> None:
    slow = answer(0, 11, 0.5)
    late = Outcome(2, 0.0, 0.0, status="timeout")
    left = Outcome(3, 0.0, 0.0, status="hung_up")
    good = goodput([answer(0, 11, 0.1), slow, late, left], {"ttft": 1000.0, "tpot": 100.001}, 10)
    assert good["good"] == 1 and good["share"] == pytest.approx(1 / 3) and good["requests_per_second"] == 0.1
    assert good["met"] == {"ttft": 2, "tpot": 1}


def test_interrupt_shows_the_results_so_far(served: Served) -> None:
    words = ["bench", "serve", "--url", f"{served.url}/plain", "--rate", "20", "--requests", "100000", "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-m", "bottega", *words, "--output-tokens", "3"], **pipes)
    assert process.stderr is not None
    assert "100000 requests" in process.stderr.readline()
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    data = json.loads(output)
    assert data["stopped_early"] and 5 <= data["requests"]["complete"] < 60 and not data["requests"]["failed"]
