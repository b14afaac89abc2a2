"""Keeping one `bottega serve` alive as a child process.

The child gets its settings and a key of its own on standard input, takes any free port of
127.0.0.1, and announces it on standard output (see `bottega.serve.__main__`). When it dies it
is started again after a pause that doubles from half a second to thirty; the state says so
for the page. Standard input is the child's leash: it ends with this process, even after
`kill -9`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bottega.web.config import Web

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 60.0
STOP_SECONDS = 6.0
# What the web app itself sees to; the child only talks to it.
OWN_SETTINGS = {"report", "workspace", "trusted_hosts", "api_key_file", "allow_anonymous", "cors_origin"}
OWN_SETTINGS |= {"requests_per_minute", "max_concurrent_per_key"}

Phase = Literal["loading", "ready", "crashed", "failed", "stopped"]


@dataclass(frozen=True)
class State:
    """What the child is doing. `failed`: it refused its settings and will not be started again."""

    phase: Phase
    restarts: int = 0
    retry_at: float | None = None
    detail: str = ""

    def as_data(self) -> dict[str, Any]:
        """For the page; `retry_in` in seconds."""
        retry_in = None if self.retry_at is None else round(max(self.retry_at - time.monotonic(), 0), 1)
        return {"phase": self.phase, "restarts": self.restarts, "retry_in": retry_in, "detail": self.detail}


class Supervisor:
    """Starts, watches, restarts and stops the child. Use on one event loop."""

    def __init__(self, config: Web) -> None:
        self.key = secrets.token_urlsafe(32)
        self.state = State("loading")
        self.base_url = ""
        self.refused = ""
        self._settings = self._child_settings(config)
        self._stop_seconds = config.drain_seconds + STOP_SECONDS
        self._errors: deque[str] = deque(maxlen=20)
        self._task: asyncio.Task[None] | None = None
        self._tell_refusal: Callable[[], None] = lambda: None

    def _child_settings(self, config: Web) -> bytes:
        values = config.model_dump(mode="json", exclude=OWN_SETTINGS)
        values |= {"host": "127.0.0.1", "port": 0, "api_key": self.key}
        return json.dumps(values).encode("utf-8") + b"\n"

    def when_refused(self, tell: Callable[[], None]) -> None:
        """Call `tell` if the child refuses its settings at its first start; `refused` then says why."""
        self._tell_refusal = tell

    async def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._keep_alive())

    async def stop(self) -> None:
        """Let the child go and wait until it has ended."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.state = State("stopped", self.state.restarts)

    async def _keep_alive(self) -> None:
        pause, restarts, was_ready = FIRST_PAUSE, 0, False
        while True:
            self.state = State("loading", restarts, detail=self.state.detail)
            try:
                status, ready_for = await self._one_life(restarts)
            except OSError as error:  # no memory or no process to be had
                self._errors.append(f"it could not be started: {error}")
                status, ready_for = 1, None
            was_ready = was_ready or ready_for is not None
            detail = _reason(status, self._errors)
            if status == 2 and not was_ready:
                self.refused = "\n".join(self._errors) or detail
                self.state = State("failed", restarts, detail=detail)
                self._tell_refusal()
                return
            if (ready_for or 0) > STEADY_SECONDS:
                pause = FIRST_PAUSE
            restarts += 1
            self.state = State("crashed", restarts, time.monotonic() + pause, detail)
            print(f"The model's server died ({detail}); starting it again in {pause:g} s", file=sys.stderr, flush=True)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _one_life(self, restarts: int) -> tuple[int, float | None]:
        """Run one child to its end: exit status, and for how many seconds it was ready (None: never)."""
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bottega.serve", stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        assert child.stdin and child.stdout and child.stderr
        self._errors.clear()
        listening = asyncio.create_task(self._read_errors(child.stderr))
        ready_since: float | None = None
        try:
            with contextlib.suppress(ConnectionError):
                child.stdin.write(self._settings)
                await child.stdin.drain()
            announced = await child.stdout.readline()
            if announced:
                self.base_url = f"http://127.0.0.1:{json.loads(announced)['port']}"
                ready_since = time.monotonic()
                self._errors.clear()  # what it said while it loaded is not why it may die later
                self.state = State("ready", restarts)
            status = await child.wait()
            await listening
        finally:
            listening.cancel()
            await _end(child, self._stop_seconds)
        return status, None if ready_since is None else time.monotonic() - ready_since

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        """Pass the child's standard error on, and keep its last lines for the page."""
        while line := await _read_line(stream):
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._errors.append(text[:500])
                print(f"[serve] {text}", file=sys.stderr, flush=True)


def _reason(status: int, errors: Sequence[str]) -> str:
    """Why the child ended, in one line."""
    if status == -signal.SIGKILL:
        return "it was killed, perhaps for lack of memory"
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return errors[-1] if errors else f"it ended with status {status}"


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # a line longer than the reader's limit: what fits is dropped
        return b"(a very long line)\n"


async def _end(child: asyncio.subprocess.Process, seconds: float) -> None:
    """Close the leash; then ask; then force."""
    if child.returncode is not None:
        return
    assert child.stdin
    child.stdin.close()
    for ask in (child.terminate, child.kill):
        try:
            await asyncio.wait_for(child.wait(), seconds)
            return
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                ask()
    await child.wait()
