"""The load: when requests arrive, who sends them, and how it ends.

Open loop (`rate`): arrivals do not wait for answers, as users do not know of each other. The
times between them are gamma-distributed with shape `burstiness` and mean 1/rate, as in vLLM's
`bench serve`; shape 1 is a Poisson process. Closed loop (`concurrency` alone): each client
asks again as soon as it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Any

import httpx
import numpy as np

from bottega.core.errors import BottegaError, UserError
from bottega.core.progress import Bar, Reporter
from bottega.serve.bench.client import DONE, HUNG_UP, Outcome, ask, request_body
from bottega.serve.bench.config import BenchServe, parse_extra
from bottega.serve.bench.prompts import Prompts
from bottega.serve.bench.target import Target

# A connection idle for longer may be closed by the server just as we use it again (uvicorn: 5 s).
KEEP_ALIVE_SECONDS = 2.0
LAG_SECONDS = 0.02  # between two looks at how late this process's own event loop is


@dataclass
class Run:
    """What was measured: `started` by the clock, and whether it was ended early (Ctrl-C).

    `lags` says by how many seconds the load tool woke up late, looked at all the time: about as
    late are the times that it takes of what arrives.
    """

    started: float
    outcomes: list[Outcome]
    stopped: bool
    lags: list[float] = field(default_factory=list)


def arrivals(config: BenchServe) -> np.ndarray:
    """Seconds from the start to each arrival of the open loop (N,), ascending, the first at 0."""
    assert config.rate is not None
    if math.isinf(config.rate):
        return np.zeros(int(config.request_limit))
    source = np.random.default_rng(config.seed)
    limit, duration = config.request_limit, config.duration or math.inf
    times, last = [np.zeros(1)], 0.0
    drawn = 1
    while drawn < limit and last < duration:
        size = int(min(limit - drawn, 4096))
        gaps = source.gamma(config.burstiness, 1 / (config.rate * config.burstiness), size)
        times.append(last + np.cumsum(gaps))
        last, drawn = float(times[-1][-1]), drawn + size
    every = np.concatenate(times)
    return every[every < duration]


def run_load(config: BenchServe, target: Target, prompts: Prompts, reporter: Reporter) -> Run:
    """Warm up, then put the server under load. Raises UserError or BottegaError when the warm-up fails."""
    return asyncio.run(_Load(config, target, prompts, reporter).run())


class _Load:
    def __init__(self, config: BenchServe, target: Target, prompts: Prompts, reporter: Reporter) -> None:
        self.config, self.target, self.prompts, self.reporter = config, target, prompts, reporter
        self.extra = parse_extra(config.extra) if config.extra else {}
        if config.ignore_eos:
            self.extra = {"ignore_eos": True, **self.extra}
        self.outcomes: list[Outcome] = []
        self.lags: list[float] = []
        self.failed = self.under_way = 0
        self.started = 0.0

    async def run(self) -> Run:
        limits = httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS)
        settings = self.target.client_settings()
        with _stop_on_interrupt() as stop:
            async with httpx.AsyncClient(timeout=None, limits=limits, **settings) as client:
                if not await _unless(stop, self.warm_up(client)):
                    raise KeyboardInterrupt
                finished = await _unless(stop, self.measure(client))
        return Run(self.started, self.outcomes, not finished, self.lags)

    async def warm_up(self, client: httpx.AsyncClient) -> None:
        # Prompts from the far end, so that no measured one is found in a prefix cache because of this.
        for index in range(self.config.warmup):
            outcome = Outcome(index, perf_counter())
            await self.send(client, outcome, -1 - index, None)
            if outcome.status != DONE:
                hint = "Run with --warmup 0 to measure all the same."
                if "stream_options" in outcome.message:
                    hint = """Leave that field out: --extra '{"stream_options": null}'."""
                error = UserError if outcome.status.startswith("http_4") else BottegaError
                raise error(f"the first request fails ({outcome.status}): {outcome.message}", hint=hint)

    async def measure(self, client: httpx.AsyncClient) -> None:
        times = arrivals(self.config) if self.config.rate is not None else None
        limit = self.config.request_limit if times is None else len(times)
        with self.reporter.bar("requests", None if math.isinf(limit) else limit, "requests") as bar:
            self.started = perf_counter()
            watcher = asyncio.create_task(self.watch_lag())
            try:
                await (self.closed_loop(client, bar) if times is None else self.open_loop(client, times, bar))
            finally:
                watcher.cancel()

    async def watch_lag(self) -> None:
        while True:
            due = perf_counter() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.lags.append(perf_counter() - due)

    async def open_loop(self, client: httpx.AsyncClient, times: np.ndarray, bar: Bar) -> None:
        places = asyncio.Semaphore(self.config.concurrency or len(times))
        async with asyncio.TaskGroup() as group:
            for index, offset in enumerate(times.tolist()):
                scheduled = self.started + offset
                if (delay := scheduled - perf_counter()) > 0:
                    await asyncio.sleep(delay)
                outcome = Outcome(index, scheduled)
                self.outcomes.append(outcome)
                group.create_task(self.one(client, outcome, bar, places))

    async def closed_loop(self, client: httpx.AsyncClient, bar: Bar) -> None:
        numbers, limit = count(), self.config.request_limit
        deadline = self.started + (self.config.duration or math.inf)

        async def ask_again() -> None:
            while perf_counter() < deadline and (index := next(numbers)) < limit:
                outcome = Outcome(index, perf_counter())
                self.outcomes.append(outcome)
                await self.one(client, outcome, bar, asyncio.Semaphore(1))

        async with asyncio.TaskGroup() as group:
            for _ in range(self.config.concurrency or 1):
                group.create_task(ask_again())

    async def one(self, client: httpx.AsyncClient, outcome: Outcome, bar: Bar, places: asyncio.Semaphore) -> None:
        async with places:
            self.under_way += 1
            await self.send(client, outcome, outcome.index, self.hang_up(outcome.index))
        self.under_way -= 1
        self.failed += outcome.status not in (DONE, HUNG_UP)
        bar.advance(1, f"{self.under_way} under way" + (f", {self.failed} failed" if self.failed else ""))

    async def send(self, client: httpx.AsyncClient, outcome: Outcome, number: int, hang_up: int | None) -> None:
        body = request_body(self.target, self.prompts.of(number), self.extra)
        await ask(client, self.target.url, body, outcome, timeout=self.config.timeout, hang_up=hang_up)

    def hang_up(self, index: int) -> int | None:
        """After how many pieces the client leaves; None for one that stays."""
        source = np.random.default_rng([self.config.seed, index, 1])
        if source.random() >= self.config.disconnect:
            return None
        return int(source.integers(1, max(2, self.prompts.of(index).output_tokens)))


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work` unless `stop` is set, which cancels it; whether it came to its end."""
    task, watcher = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        watcher.cancel()
        task.result()
        return True
    task.cancel()
    await asyncio.wait({task})
    return False


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C sets, instead of breaking off."""
    stop = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
