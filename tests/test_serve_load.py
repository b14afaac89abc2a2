"""Many clients at a time, some of whom hang up: nobody waits for ever, whole answers are right, memory stays flat."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling
from test_serve_api import load, make_model, running_server, wait_for_load

PROMPTS = ["The panel", "The master shows", "The apprentice grinds the colours", "def colour(x):"]
TOKENS = 24
QUEUE = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("load") / "tiny")


@pytest.fixture(scope="module")
def expected(model: Path) -> dict[str, str]:
    generator = Generator.load(model, threads=1)
    sampling = Sampling(max_new_tokens=TOKENS, temperature=0)
    return {text: generator.complete(generator.prompt_ids(text, chat=False), sampling).text for text in PROMPTS}


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[tuple[str, int]]:
    """Its address and process id."""
    with running_server(model, max_batch=8, max_queue=QUEUE) as (port, child):
        yield f"http://127.0.0.1:{port}", child.pid


@dataclass
class Crowd:
    """What became of the clients' requests."""

    url: str
    expected: dict[str, str]
    found: Counter[str] = field(default_factory=Counter)

    async def client(self, number: int, until: float | None) -> None:
        """Ask once, or again and again until a time; every fifth request is hung up on."""
        draw = random.Random(number)
        async with httpx.AsyncClient(timeout=120) as http:
            for request in range(number, 1_000_000_000):
                try:
                    self.found[await self.ask(http, draw, hangs_up=request % 5 == 0)] += 1
                except httpx.HTTPError as error:
                    self.found[type(error).__name__] += 1
                if until is None or time.monotonic() > until:
                    return

    async def ask(self, http: httpx.AsyncClient, draw: random.Random, *, hangs_up: bool) -> str:
        prompt, stream = draw.choice(PROMPTS), draw.random() < 0.5
        body: dict[str, Any] = {"model": "tiny", "prompt": prompt, "temperature": 0, "stream": stream}
        body["max_tokens"] = 4000 if hangs_up else TOKENS
        if hangs_up:
            return await self.hang_up(http, body, draw)
        answer = await http.post(f"{self.url}/v1/completions", json=body)
        if answer.status_code == 429:
            await asyncio.sleep(float(answer.headers["retry-after"]) * draw.random())
            return "refused"
        assert answer.status_code == 200, answer.text
        return "right" if text_of(answer.text, stream=stream) == self.expected[prompt] else "wrong"

    async def hang_up(self, http: httpx.AsyncClient, body: dict[str, Any], draw: random.Random) -> str:
        """Close the connection at some moment: while it waits, or in the middle of the stream."""
        request = http.build_request("POST", f"{self.url}/v1/completions", json=body)

        async def read() -> None:
            answer = await http.send(request, stream=True)
            try:
                async for _ in answer.aiter_raw():
                    pass
            finally:
                await answer.aclose()

        try:
            await asyncio.wait_for(read(), draw.random() * 0.5)
        except TimeoutError:
            return "hung up"
        return "hung up"


def text_of(content: str, *, stream: bool) -> str:
    if not stream:
        return json.loads(content)["choices"][0]["text"]
    events = content.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    return "".join(json.loads(event[6:])["choices"][0]["text"] for event in events[:-1])


def test_thirty_two_clients_and_every_fifth_hangs_up(server: tuple[str, int], expected: dict[str, str]) -> None:
    url, _ = server
    crowd = Crowd(url, expected)

    async def run() -> None:
        await asyncio.gather(*(crowd.client(number, None) for number in range(32)))

    asyncio.run(run())
    assert crowd.found["right"] == 25 and crowd.found["hung up"] == 7, crowd.found
    wait_for_load(url, (0, 0))


def resident_bytes(pid: int) -> int:
    row = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(row.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_clients_for_five_minutes(server: tuple[str, int], expected: dict[str, str]) -> None:
    url, pid = server
    crowd, memory, waiting = Crowd(url, expected), [], []

    async def watch(until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(1)
            memory.append(resident_bytes(pid))
            waiting.append(sum(await asyncio.to_thread(load, url)))

    async def run() -> None:
        until = time.monotonic() + 300
        await asyncio.gather(watch(until), *(crowd.client(number, until) for number in range(200)))

    asyncio.run(run())
    assert set(crowd.found) <= {"right", "hung up", "refused"} and crowd.found["right"] > 1000, crowd.found
    assert max(waiting) <= 8 + QUEUE
    settled = memory[len(memory) // 5 :]  # the first minute warms up
    assert max(settled) < 1.05 * min(settled), (min(settled), max(settled))
    wait_for_load(url, (0, 0))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_streamed_token_costs_the_server_less_than_a_millisecond(server: tuple[str, int], model: Path) -> None:
    url, pid = server
    generator = Generator.load(model, threads=1)
    prompt = generator.prompt_ids(PROMPTS[0], chat=False)
    count = 600
    sampling = Sampling(max_new_tokens=count, temperature=0, ignore_eos=True)
    generator.complete(prompt, sampling)
    before = time.thread_time()
    generator.complete(prompt, sampling)
    alone = time.thread_time() - before
    body = {"model": "tiny", "prompt": PROMPTS[0], "temperature": 0, "max_tokens": count, "ignore_eos": True}
    start = cpu_seconds(pid)
    assert text_of(httpx.post(f"{url}/v1/completions", json={**body, "stream": True}, timeout=60).text, stream=True)
    # Processor time: what other programs do at the same time does not count.
    assert (cpu_seconds(pid) - start - alone) / count < 0.001
