"""The model behind the server: one thread owns the generator, the event loop talks to it through an inbox.

A request becomes `Jobs`, one `Job` per answer. The worker thread takes in what has come, lets the generator
make one step for everything that runs, and hands the step's pieces over to the event loop in one
call. It never waits for a client: what a client has not read yet lies in its mailbox, whose size is bounded.
Whatever fails, and however the thread ends, every job ends: with its last piece or with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from bottega.core.errors import BottegaError
from bottega.serve.failures import ApiError, going_down, queue_full, server_error, timed_out, too_slow

if TYPE_CHECKING:
    from bottega.generate.constraint import Constraint
    from bottega.generate.generator import Generator, Piece, Ticket
    from bottega.generate.sampling import Sampling

T = TypeVar("T")
# Pieces that a slow client may leave unread; at some 500 bytes each this bounds what one request can hold.
MAX_UNREAD = 20_000


@dataclass(frozen=True)
class Order:
    """One answer to generate."""

    prompt_ids: list[int]
    sampling: Sampling
    adapter: str | None = None
    constraint: Constraint | None = None


class Job:
    """One answer under way. `ticket` is the generator's, once it has taken the order; times are perf_counter's."""

    def __init__(self, index: int, order: Order, jobs: Jobs) -> None:
        self.index, self.order, self.jobs = index, order, jobs
        self.ticket: Ticket | None = None
        self.is_live = True
        self.submitted = time.perf_counter()
        self.first_piece = self.last_piece = 0.0
        self.tokens = 0


Item = tuple[Job, "Piece | Exception | None"]


class Jobs:
    """The answers of one request, and the mailbox into which their pieces fall. Lives on the event loop."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self._list = [Job(index, order, self) for index, order in enumerate(orders)]
        self._unread: list[tuple[Job, Piece | None]] = []
        self._error: Exception | None = None
        self._arrived = asyncio.Event()
        self._not_taken = len(self._list)
        self._taken = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None

    def __getitem__(self, index: int) -> Job:
        return self._list[index]

    def __len__(self) -> int:
        return len(self._list)

    @property
    def live(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self._list if job.is_live]

    async def taken(self) -> None:
        """Wait until the generator has taken all orders; raises what it refused them with."""
        await self._taken.wait()
        if self._error is not None:
            raise self._error

    async def pieces(self) -> AsyncIterator[list[tuple[Job, Piece | None]]]:
        """What has come since the last look, again and again until all have ended; raises the first failure.

        None ends an answer in which nothing is generated.
        """
        while self._unread or self._error or self.live:
            await self._arrived.wait()
            self._arrived.clear()
            if self._error is not None:
                raise self._error
            items, self._unread = self._unread, []
            yield items

    def take(self) -> None:
        """One more order was taken."""
        self._not_taken -= 1
        if self._not_taken == 0:
            self._taken.set()

    def put(self, job: Job, piece: Piece | None) -> None:
        """A piece for the reader."""
        self._unread.append((job, piece))
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """End the reader's wait with an error; what is unread is dropped."""
        self._error = self._error or error
        self._unread = []
        self._arrived.set()
        self._taken.set()

    @property
    def is_too_slow(self) -> bool:
        """Whether more is unread than may be."""
        return len(self._unread) > MAX_UNREAD


class Engine:
    """A generator and its thread; at most `capacity` jobs (running and waiting) at a time."""

    def __init__(
        self,
        generator: Generator,
        *,
        capacity: int,
        timeout: float | None = None,
        ended: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self.generator = generator
        self.capacity = capacity
        self.live = 0
        self.has_died = False
        self.statistics = generator.statistics()
        self._timeout = timeout
        self._ended = ended
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._running: dict[int, Job] = {}
        self._requests: set[Jobs] = set()
        self._calls: set[asyncio.Future[Any]] = set()
        self._outgoing: list[Item] = []
        self._taken: list[Jobs] = []
        self._refusal: ApiError | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------------------------ on the event loop

    @property
    def running(self) -> int:
        """Jobs that the generator works on."""
        return min(self.statistics["running"], self.live)

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return self.live - self.running

    def start(self) -> None:
        """Start the worker thread; call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="generate", daemon=True)
        self._thread.start()

    def submit(self, orders: Sequence[Order]) -> Jobs:
        """Queue the answers of a request; raises ApiError: 429 when the queue is full, 503 after `close`."""
        if self._refusal is not None:
            raise self._refusal
        if self.live + len(orders) > self.capacity:
            raise queue_full(len(orders), self.running, self.waiting, self.capacity)
        jobs = Jobs(orders)
        self.live += len(orders)
        self._requests.add(jobs)
        for job in jobs.live:
            self._inbox.put(partial(self._begin, job))
        if self._timeout is not None:
            jobs.timer = asyncio.get_running_loop().call_later(self._timeout, self._expire, jobs)
        return jobs

    def cancel(self, jobs: Jobs) -> None:
        """Give the places of a request back; nothing happens to what has ended."""
        for job in jobs.live:
            self._end(job)
            self._inbox.put(partial(self._forget, job))

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the generator's thread, between two steps."""
        if self._refusal is not None:
            raise self._refusal
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.add(future)

        def run() -> None:
            try:
                outcome = work()
            except Exception as error:
                self._tell(partial(_settle, future, error=error))
            else:
                self._tell(partial(_settle, future, outcome))

        self._inbox.put(run)
        try:
            return await future
        finally:
            self._calls.discard(future)

    def close(self, refusal: ApiError | None = None) -> None:
        """Take no more work; what is under way goes on."""
        self._refusal = self._refusal or refusal or going_down()

    async def stop(self) -> None:
        """End the thread; what is still under way ends with status 503."""
        self.close()
        self._fail_all(going_down())
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)

    def _expire(self, jobs: Jobs) -> None:
        if jobs.live and self._timeout is not None:
            jobs.fail(timed_out(self._timeout))
            self.cancel(jobs)

    def _end(self, job: Job) -> None:
        job.is_live = False
        self.live -= 1
        if not job.jobs.live:
            self._requests.discard(job.jobs)
            if job.jobs.timer is not None:
                job.jobs.timer.cancel()
        self._ended(job)

    def _fail_all(self, error: Exception) -> None:
        for jobs in list(self._requests):
            jobs.fail(error)
            self.cancel(jobs)
        for future in self._calls:
            _settle(future, error=error)

    def _deliver(self, taken: Iterable[Jobs], items: Iterable[Item]) -> None:
        now = time.perf_counter()
        for jobs in taken:
            jobs.take()
        for job, item in items:
            if not job.is_live:
                continue
            if isinstance(item, Exception):
                job.jobs.fail(item)
                self.cancel(job.jobs)
                continue
            if item is not None:
                job.tokens += 1
                job.first_piece = job.first_piece or now
                job.last_piece = now
            if item is None or item.finish_reason is not None:
                self._end(job)
            job.jobs.put(job, item)
            if job.jobs.is_too_slow:
                job.jobs.fail(too_slow())
                self.cancel(job.jobs)

    def _crashed(self) -> None:
        self.has_died = True
        self.close(server_error("The model's thread has died; its log says why. Start the server again."))
        self._fail_all(server_error())

    # ------------------------------------------------------------------ on the worker's thread

    def _work(self) -> None:
        try:
            while self._take_in():
                if self.generator.has_work:
                    self._step()
                self.statistics = self.generator.statistics()
                self._hand_over()
            self.generator.close()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            self._tell(self._crashed)

    def _take_in(self) -> bool:
        """Do what has come, waiting for something where nothing runs; False: end."""
        wait = not self.generator.has_work
        # Only what is there now: a flood of requests must not keep those that run from their next token.
        for _ in itertools.repeat(None, max(1, self._inbox.qsize())):
            try:
                task = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            if task is None:
                return False
            task()
            wait = False
        return True

    def _begin(self, job: Job) -> None:
        if not job.is_live:
            return
        order = job.order
        try:
            ticket = self.generator.submit(
                order.prompt_ids, order.sampling, adapter=order.adapter, constraint=order.constraint
            )
        except Exception as error:  # this request cannot be served; the others can
            self._outgoing.append((job, error))
            return
        job.ticket = ticket
        self._running[id(ticket)] = job
        self._taken.append(job.jobs)

    def _forget(self, job: Job) -> None:
        if job.ticket is not None and self._running.pop(id(job.ticket), None) is not None:
            self.generator.cancel(job.ticket)

    def _step(self) -> None:
        try:
            results = self.generator.step()
        except Exception:
            # Whose fault it was cannot be told: all that ran are answered with the failure, the next ones are taken.
            traceback.print_exc(file=sys.stderr)
            for job in list(self._running.values()):
                self._outgoing.append((job, server_error()))
                with contextlib.suppress(Exception):
                    self._forget(job)
            self._running.clear()
            if self.generator.has_work:
                raise
            return
        for ticket, piece in results:
            job = self._running.get(id(ticket))
            if job is None:
                continue
            self._outgoing.append((job, piece if ticket.error is None else _stuck(job.order, ticket.error)))
            if ticket.has_ended:
                del self._running[id(ticket)]

    def _hand_over(self) -> None:
        if self._outgoing or self._taken:
            taken, items, self._taken, self._outgoing = self._taken, self._outgoing, [], []
            self._tell(partial(self._deliver, taken, items))

    def _tell(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has gone down
            self._loop.call_soon_threadsafe(what)


def _stuck(order: Order, error: BottegaError) -> ApiError:
    """Why an answer cannot go on: the request leaves no token, or the model gives none."""
    sampling = order.sampling
    if order.constraint is not None or sampling.allowed_tokens or sampling.banned_words:
        message = "The form and the tokens that the request allows leave nothing to go on with; allow more."
        return ApiError(400, message, code="no_token_allowed")
    return server_error(f"The answer cannot go on: {error.message}.")


def _settle(future: asyncio.Future[Any], outcome: Any = None, error: Exception | None = None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(outcome)
