"""The tutor's page, and the pages that it cites: documentation, docstrings, the learner's own runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bottega.core.errors import UserError
from bottega.core.report import DARK, FIGURES, LIGHT
from bottega.course.render import document_html, module_path
from bottega.course.tutor.corpus import documentation_folder, run_passages
from bottega.retrieve.chunks import python_chunks

LONGEST_QUESTION = 500


class SourcePages:
    """Pages over one workspace; `page` makes a response of a template and what it shows."""

    def __init__(self, workspace: Path, page: Callable[[Request, str, dict[str, Any]], Response]) -> None:
        self.workspace, self.page = workspace, page
        self._tutor = asyncio.Semaphore(1)

    async def ask(self, request: Request) -> Response:
        """A question to the tutor."""
        question = request.query_params.get("q", "").strip()[:LONGEST_QUESTION]
        answer = await self._asked(question) if question else None
        return self.page(request, "ask.html", {"question": question, "answer": answer})

    async def _asked(self, question: str) -> dict[str, Any]:
        """The tutor's answer; it works in a process of its own, as its index is larger than this server."""
        place = str(self.workspace)
        words = ["course", "ask", f"question={question}", "--workspace", place, "--json"]
        async with self._tutor:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bottega", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, errors = await process.communicate()
        if process.returncode != 0:
            raise UserError(errors.decode("utf-8", "replace").strip() or "the tutor did not answer")
        return json.loads(out)

    async def documentation(self, request: Request) -> Response:
        """A page of the project's documentation, where it runs from a checkout."""
        folder, name = documentation_folder(), request.path_params["name"].removesuffix(".md")
        found = {path.stem: path for path in folder.glob("*.md")} if folder else {}
        if name not in found:
            raise UserError(f"there is no documentation {name!r} here", hint="It lies in docs/ of a checkout.")
        return self.page(request, "text.html", {"title": name, "body": document_html(found[name].read_text("utf-8"))})

    async def reference(self, request: Request) -> Response:
        """The docstrings of a module, and its source."""
        module = request.path_params["module"]
        path = module_path(module)
        if path is None:
            raise UserError(f"there is no module {module!r} in bottega")
        source = path.read_text("utf-8")
        parts = [(chunk.anchor or "module", chunk.text) for chunk in python_chunks(source, path.name, module)]
        return self.page(request, "reference.html", {"module": module, "parts": parts, "source": source})

    async def own_runs(self, request: Request) -> Response:
        """What the learner's runs recorded."""
        found = run_passages(self.workspace)
        runs = [(each.anchor.partition("#")[2], each.title, each.text) for each in found]
        return self.page(request, "runs.html", {"runs": runs})

    async def figure_style(self, _: Request) -> Response:
        """The style of charts and tables, which is that of the reports."""
        light, dark = ("".join(f"--{name}:{value};" for name, value in c.items()) for c in (LIGHT, DARK))
        style = (
            f":root{{{light}}}@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
            f":root[data-theme=dark]{{{dark}}}"
        )
        # The page has a paper and an ink of its own; blocks take those.
        own = style.replace("--paper:", "--page:").replace("--ink:", "--text:")
        return Response(own + FIGURES, media_type="text/css")
