"""What may go wrong under the server: failures, a dead thread, late and slow clients, the end in the middle of work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

import bottega.serve.engine as engine_module
from bottega.core.errors import UserError
from bottega.generate.generator import Generator, Piece, Ticket
from bottega.generate.sampling import Sampling
from bottega.serve.engine import Engine, Jobs, Order
from bottega.serve.failures import ApiError
from test_serve_api import HELLO, hang_in, load, make_app, make_model, running_server, wait_for_load

PROMPT = [260, 261, 262]
LONG = Order(PROMPT, Sampling(max_new_tokens=5000, temperature=0, ignore_eos=True))
MIDDLE = Order(PROMPT, Sampling(max_new_tokens=500, temperature=0, ignore_eos=True))  # it outlives a first piece
SHORT = Order(PROMPT, Sampling(max_new_tokens=5, temperature=0))
BODY: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 5, "temperature": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("engine") / "tiny")


@pytest.fixture(scope="module")
def generator(model: Path) -> Generator:
    return Generator.load(model, threads=1)


@contextlib.asynccontextmanager
async def started(generator: Generator, **settings: Any) -> AsyncIterator[Engine]:
    """A running engine that is stopped at the end, and leaves nothing behind in the generator."""
    engine = Engine(generator, **{"capacity": 16, **settings})
    engine.start()
    yield engine
    await engine.stop()
    assert engine.live == 0 and not generator.has_work
    generator.engine.check_integrity()


async def tokens_of(jobs: Jobs) -> list[int]:
    return [piece.token_id async for items in jobs.pieces() for _, piece in items if piece is not None]


def test_answers_run_together_and_each_is_what_it_would_be_alone(generator: Generator) -> None:
    prompts = [PROMPT[:1] * (index + 1) for index in range(6)]
    sampling = Sampling(max_new_tokens=20, temperature=0)
    expected = [generator.complete(prompt, sampling).token_ids for prompt in prompts]

    async def ask() -> list[list[int]]:
        async with started(generator) as engine:
            return await asyncio.gather(*(tokens_of(engine.submit([Order(p, sampling)])) for p in prompts))

    assert asyncio.run(ask()) == expected


def test_a_cancelled_request_leaves_at_once_and_the_others_stay(generator: Generator) -> None:
    async def ask() -> int:
        async with started(generator) as engine:
            first, second = engine.submit([LONG, LONG]), engine.submit([MIDDLE])
            await anext(aiter(first.pieces()))
            assert engine.live == 3
            engine.cancel(first)
            engine.cancel(first)
            assert engine.live == 1
            count = len(await tokens_of(second))
            await engine.call(lambda: None)
            assert engine.statistics["running"] == 0 == engine.running == engine.waiting
            return count

    assert asyncio.run(ask()) == 500


def test_the_queue_is_bounded_and_what_never_fits_is_told_apart(generator: Generator) -> None:
    async def ask() -> None:
        async with started(generator, capacity=3) as engine:
            engine.submit([LONG, LONG])
            with pytest.raises(ApiError) as caught:
                engine.submit([SHORT, SHORT])
            assert caught.value.status == 429 and caught.value.headers == {"Retry-After": "1"}
            with pytest.raises(ApiError, match="at most 3") as caught:
                engine.submit([SHORT] * 4)
            assert caught.value.status == 400
            assert len(await tokens_of(engine.submit([SHORT]))) == 5

    asyncio.run(ask())


def test_what_takes_too_long_is_ended(generator: Generator) -> None:
    async def ask() -> None:
        async with started(generator, timeout=1.0) as engine:
            late, quick = engine.submit([LONG]), engine.submit([SHORT])
            assert len(await tokens_of(quick)) == 5
            with pytest.raises(ApiError, match=r"1 second") as caught:
                await tokens_of(late)
            assert caught.value.status == 504 and engine.live == 0

    asyncio.run(ask())


def test_a_client_that_does_not_read_is_given_up(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_UNREAD", 50)

    async def ask() -> None:
        async with started(generator) as engine:
            jobs = engine.submit([LONG])
            end = time.monotonic() + 20
            while engine.live and time.monotonic() < end:
                await asyncio.sleep(0.01)
            with pytest.raises(ApiError) as caught:
                await tokens_of(jobs)
            assert caught.value.code == "client_too_slow"

    asyncio.run(ask())


def test_an_order_that_the_generator_refuses_hurts_nobody_else(generator: Generator) -> None:
    async def ask() -> None:
        async with started(generator) as engine:
            good, bad = engine.submit([SHORT]), engine.submit([SHORT, Order(PROMPT, Sampling(), adapter="none")])
            with pytest.raises(UserError, match="adapter"):
                await bad.taken()
            assert len(await tokens_of(good)) == 5

    asyncio.run(ask())


class Failing(Generator):
    """The real generator, which fails in the step after the second token of a seeded answer."""

    def step(self) -> list[tuple[Ticket, Piece | None]]:
        for ticket in self._tickets.values():
            if ticket.sampling.seed == 13 and ticket.answer.count == 2:
                raise RuntimeError("out of memory, say")
            if ticket.sampling.seed == 666:
                raise SystemExit("the thread is gone")
        return super().step()


def test_a_failing_step_answers_all_that_ran_and_the_next_are_served(model: Path) -> None:
    async def ask() -> None:
        async with started(Failing.load(model, threads=1)) as engine:
            bad = Order(PROMPT, Sampling(max_new_tokens=9, seed=13))
            running = [engine.submit([LONG]), engine.submit([bad, SHORT])]
            for jobs in running:
                with pytest.raises(ApiError) as caught:
                    await tokens_of(jobs)
                assert caught.value.status == 500 and "memory" not in caught.value.message
            assert len(await tokens_of(engine.submit([SHORT]))) == 5

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_leaves_nobody_waiting(model: Path) -> None:
    generator = Failing.load(model, threads=1)

    async def ask() -> None:
        engine = Engine(generator, capacity=16)
        engine.start()
        ill = Order(PROMPT, Sampling(seed=666))
        waiting = [engine.submit([LONG]), engine.submit([ill])]
        call = asyncio.ensure_future(engine.call(lambda: time.sleep(0.01)))
        for jobs in waiting:
            with pytest.raises(ApiError):
                await tokens_of(jobs)
        with contextlib.suppress(ApiError):
            await call
        assert engine.has_died and engine.live == 0
        with pytest.raises(ApiError, match="died"):
            engine.submit([SHORT])
        with pytest.raises(ApiError, match="died"):
            await engine.call(lambda: 1)
        await engine.stop()

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_failures_over_the_wire(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.generate.generator.Generator", Failing)
    with TestClient(make_app(model), base_url="http://localhost", raise_server_exceptions=False) as inside:
        whole = inside.post("/v1/chat/completions", json={**BODY, "seed": 13})
        assert whole.status_code == 500 and whole.json()["error"]["code"] == "internal_error"
        assert "out of memory" not in whole.text
        streamed = inside.post("/v1/chat/completions", json={**BODY, "seed": 13, "stream": True}).text.strip()
        assert json.loads(streamed.split("data: ")[-1])["error"]["type"] == "server_error"
        assert "[DONE]" not in streamed
        assert inside.post("/v1/chat/completions", json=BODY).json()["usage"]["completion_tokens"] == 5
        assert inside.get("/ready").status_code == 200 == inside.get("/live").status_code
        assert inside.post("/v1/chat/completions", json={**BODY, "seed": 666}).status_code == 500
        assert inside.get("/live").status_code == 503 == inside.get("/health").status_code
        assert inside.post("/v1/chat/completions", json=BODY).status_code == 500


def test_an_engine_that_goes_down_takes_no_more_work_and_ends_what_runs(generator: Generator) -> None:
    async def ask() -> None:
        async with started(generator) as engine:
            running = engine.submit([LONG])
            engine.close()
            with pytest.raises(ApiError, match="going down"):
                engine.submit([SHORT])
            await anext(aiter(running.pieces()))
        with pytest.raises(ApiError, match="going down"):
            await tokens_of(running)

    asyncio.run(ask())
    assert not any(thread.name == "generate" for thread in threading.enumerate())


def test_sigterm_lets_answers_end_and_refuses_new_ones(model: Path) -> None:
    with running_server(model, drain_seconds=20) as (port, child):
        url = f"http://127.0.0.1:{port}"
        body = {**BODY, "max_tokens": 500, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            child.send_signal(signal.SIGTERM)
            refused = None
            while refused is None:  # until the signal has been seen
                other = httpx.post(f"{url}/v1/chat/completions", json=BODY, timeout=30)
                refused = other if other.status_code != 200 else None
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "going_down"
            assert httpx.get(f"{url}/ready").status_code == 503 and httpx.get(f"{url}/live").status_code == 200
            events = [line for line in lines if line]
        assert events[-1] == "data: [DONE]" and len(events) > 400
        assert child.wait(10) == 0


def test_a_drain_has_an_end_and_a_second_signal_hurries_it(model: Path) -> None:
    for seconds, signals in ((0.3, 1), (60, 2)):
        with running_server(model, drain_seconds=seconds) as (port, child):
            url = f"http://127.0.0.1:{port}"
            connection = hang_in(url, "/v1/chat/completions", stream=False)
            wait_for_load(url, (1, 0))
            child.send_signal(signal.SIGINT)
            if signals == 2:
                while httpx.get(f"{url}/ready").status_code == 200:
                    time.sleep(0.02)
                assert load(url) == (1, 0)
                child.send_signal(signal.SIGINT)
            assert child.wait(10) == 0
            connection.close()
            assert child.stderr and b"Traceback" not in child.stderr.read()
