"""The model behind the server: one answer at a time in one thread, the others wait in a bounded queue.

A request is a `Job`. The worker thread runs the generator and hands each piece over to the
event loop of the request; a job that is cancelled (its client has gone) stops at the next
token, or leaves the queue at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from bottega.serve.failures import ApiError

if TYPE_CHECKING:
    from bottega.generate.generator import Generator, Piece
    from bottega.generate.sampling import Sampling


class Job:
    """One answer to generate; made on the event loop that will read its pieces."""

    def __init__(self, prompt_ids: list[int], sampling: Sampling) -> None:
        self.prompt_ids = prompt_ids
        self.sampling = sampling
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()

    def hand_over(self, item: Piece | Exception | None) -> None:
        """Called by the worker: a piece, a failure, or None at the end."""
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, item)
        except RuntimeError:  # the loop is closed: the server is going down
            self.cancelled.set()

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces as they come; raises what the generator raised."""
        while (item := await self._pieces.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


def _going_down() -> ApiError:
    return ApiError(503, "The server is going down.", kind="server_error", code="going_down")


class Engine:
    """A generator, its worker thread and its queue of at most `max_queue` waiting jobs."""

    def __init__(self, generator: Generator, *, max_queue: int) -> None:
        self.generator = generator
        self.max_queue = max_queue
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> int:
        """1 while an answer is being generated."""
        return int(self._running is not None)

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the worker thread."""
        self._thread = threading.Thread(target=self._work, name="generate", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the worker thread; answers under way and in the queue end with status 503."""
        with self._changed:
            self._stopping = True
            if self._running is not None:
                self._running.cancelled.set()
            for job in self._waiting:
                job.hand_over(_going_down())
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def submit(self, prompt_ids: list[int], sampling: Sampling) -> Job:
        """Queue an answer; raises ApiError 429 when the queue is full, 503 after `stop`. Call on the event loop."""
        job = Job(prompt_ids, sampling)
        with self._changed:
            if self._stopping:
                raise _going_down()
            if self.running + len(self._waiting) > self.max_queue:
                raise ApiError(
                    429,
                    f"One answer is being generated and {len(self._waiting)} requests wait, the most that may. "
                    "Try again later.",
                    kind="rate_limit_error",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Give the job's slot back; nothing happens if it has ended."""
        job.cancelled.set()
        with self._changed, contextlib.suppress(ValueError):
            self._waiting.remove(job)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            outcome: Exception | None = None
            try:
                self._generate(job)
            except Exception as error:  # the request fails, the server goes on
                outcome = error
            with self._changed:
                self._running = None
                if self._stopping and outcome is None and job.cancelled.is_set():
                    outcome = _going_down()
            job.hand_over(outcome)

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _generate(self, job: Job) -> None:
        stream = self.generator.stream(job.prompt_ids, job.sampling)
        try:
            for piece in stream:
                if job.cancelled.is_set():
                    return
                job.hand_over(piece)
        finally:
            close = getattr(stream, "close", None)  # a Python generator stops its work when closed
            if close is not None:
                close()
