"""The pages of interactive views. They run in a process of their own, which keeps its models while it is used."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bottega.core.errors import UserError
from bottega.core.report import Ids, block_html
from bottega.core.workspace import process_environment
from bottega.course.lab import block_from
from bottega.course.lab_facts import read_facts
from bottega.course.library import Course
from bottega.course.views import VIEWS, view_path
from bottega.web.course.forms import Form

IDLE_SECONDS = 600.0
MOST_SECONDS = 900.0
"""What an answer may take; the first one may have to train the course's model."""
LONGEST_LINE = 1 << 24


class ViewPages:
    """Pages over the course; `page` makes a response of a template and what it shows."""

    def __init__(
        self, course: Course, workspace: Path, page: Callable[[Request, str, dict[str, Any]], Response]
    ) -> None:
        self.course, self.page = course, page
        self.process = ViewProcess(workspace)

    async def view(self, request: Request) -> Response:
        """The settings of a view, and, once they are given, what they show."""
        name = request.path_params["name"]
        facts = read_facts(view_path(name), has_budget=False)
        form = Form({key: request.query_params.getlist(key) for key in request.query_params})
        figures, error, hint = [], "", ""
        if form.fields:
            try:
                answer = await self.process.ask(name, form.settings(facts.settings))
                error, hint = answer.get("error", ""), answer.get("hint", "")
                ids = Ids()
                figures = [block_html(block_from(block), ids) for block in answer.get("blocks", ())]
            except UserError as wrong:
                error, hint = wrong.message, wrong.hint
        given = {setting.name: form.text(setting.name, str(setting.default)) for setting in facts.settings}
        shown = {
            "name": name, "facts": facts, "given": given, "figures": figures, "error": error, "hint": hint,
            "chapter": self.course.chapters.get(VIEWS[name]),
        }  # fmt: skip
        return self.page(request, "view.html", shown)

    async def close(self) -> None:
        """Stop the process."""
        await self.process.stop()


class ViewProcess:
    """The process, started when it is first asked and stopped when it was not asked for a while."""

    def __init__(self, workspace: Path) -> None:
        """`workspace` has the course's models."""
        self.workspace = workspace
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def ask(self, view: str, params: dict[str, Any]) -> dict[str, Any]:
        """What a view shows (`blocks`), or why it does not (`error`, `hint`)."""
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                async with asyncio.timeout(MOST_SECONDS):
                    answer = await self._answer(json.dumps({"view": view, "params": params}))
            except BaseException:
                await self.stop()  # an answer that nobody waits for would be taken for the next one's
                raise
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(IDLE_SECONDS, self._kill)
            return answer

    async def _answer(self, request: str) -> dict[str, Any]:
        if self._process is None or self._process.returncode is not None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bottega.course.views.process", stdin=pipe, stdout=pipe, limit=LONGEST_LINE,
                env=process_environment(self.workspace),
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request.encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            return {"error": f"the view ended with status {process.returncode}", "hint": "The server's log says more."}
        return json.loads(line)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Stop it; nothing if it does not run."""
        if self._idle is not None:
            self._idle.cancel()
        self._kill()
        if self._process is not None:
            await self._process.wait()
            self._process = None
