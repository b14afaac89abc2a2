"""Labs that run for the page: one at a time, each in a process of its own, its events kept in a file.

A page follows a run by reading the file from any line on (`Last-Event-ID`), so that a reload or a lost connection
loses nothing. A run can be stopped; with the server all end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.workspace import process_environment
from bottega.course.lab import Event, event_from
from bottega.course.library import LabFile
from bottega.course.run_lab import lab_command, wall_limit

KEPT = 50  # runs whose events are kept
_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass
class Run:
    """A run: its file of events, and what tells those who follow that there are more."""

    id: str
    lab: LabFile
    path: Path
    params: Mapping[str, Any]
    more: asyncio.Condition = field(default_factory=asyncio.Condition)
    process: asyncio.subprocess.Process | None = None
    ended: bool = False
    stopped: bool = False


class Runs:
    """All runs of this server, and the files of earlier ones."""

    def __init__(self, workspace: Path, done: Callable[[LabFile, bool], None]) -> None:
        """`done` is told of every run that came to its end, and whether all its effects held."""
        self.workspace, self.folder, self.done = workspace, workspace / "course" / "labs", done
        self._runs: dict[str, Run] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, lab: LabFile, params: Mapping[str, Any]) -> str:
        """Begin a run, or let it wait for its turn; returns its id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
        name = secrets.token_hex(8)
        run = self._runs[name] = Run(name, lab, self.folder / f"{name}.jsonl", params)
        run.path.write_text(json.dumps({"event": "run", "lab": lab.id, "params": dict(params)}) + "\n", "utf-8")
        task = asyncio.create_task(self._work(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return name

    async def stop(self, name: str) -> None:
        """Stop a run; nothing if it has ended."""
        run = self._runs.get(name)
        if run is not None and not run.ended:
            run.stopped = True
            if run.process is not None:
                _kill(run.process)

    async def close(self) -> None:
        """Stop all runs."""
        for name in list(self._runs):
            await self.stop(name)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def is_running(self, name: str) -> bool:
        """Whether events may still come."""
        run = self._runs.get(name)
        return run is not None and not run.ended

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The events so far as plain data, the first one naming the lab; raises UserError if there is no such run."""
        path = self.folder / f"{name}.jsonl"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise UserError("there is no such run", hint="Start the lab again.")
        lines = path.read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def events(self, name: str) -> list[Event]:
        """What the lab yielded so far."""
        return [event_from(row) for row in self.rows(name) if row["event"] not in ("run", "end")]

    async def follow(self, name: str, after: int) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """The events behind number `after` as they come, until the end."""
        while True:
            rows = self.rows(name)
            for number, row in enumerate(rows[after:], start=after + 1):
                yield number, row
            after = max(after, len(rows))
            run = self._runs.get(name)
            if run is None or run.ended:
                return
            async with run.more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(run.more.wait(), 1.0)

    async def _work(self, run: Run) -> None:
        outcome = "stopped"
        try:
            async with self._turn:
                if not run.stopped:
                    outcome = await self._run(run)
        finally:
            run.ended = True
            await self._write(run, {"event": "end", "outcome": "stopped" if run.stopped else outcome})
        if outcome == "done" and not run.stopped:
            effects = [row["holds"] for row in self.rows(run.id) if row["event"] == "effect"]
            self.done(run.lab, all(effects))

    async def _run(self, run: Run) -> str:
        command = lab_command(run.lab, run.params)
        pipe = asyncio.subprocess.PIPE
        run.process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True, limit=1 << 24,
            env=process_environment(self.workspace),
        )  # fmt: skip
        process = run.process
        assert process.stdout and process.stderr
        errors = asyncio.create_task(process.stderr.read())
        try:
            async with asyncio.timeout(wall_limit(run.lab)):
                async for line in process.stdout:
                    await self._write(run, json.loads(line))
                status = await process.wait()
        except TimeoutError:
            return "it took too long, and was stopped"
        finally:
            _kill(process)
        said = (await errors).decode("utf-8", "replace").strip().rpartition("\0")[2]
        if status == 0:
            return "done"
        return said.splitlines()[0 if status == 2 else -1] if said else f"it ended with status {status}"

    async def _write(self, run: Run, row: Mapping[str, Any]) -> None:
        with run.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
        async with run.more:
            run.more.notify_all()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
