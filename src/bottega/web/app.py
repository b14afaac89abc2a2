"""The web app: the course, the chat page, the arena, the report, and /v1 passed through to the model's server.

Pages and API are protected apart: pages by a strict content security policy (nothing from
elsewhere, no inline script), the API by origin and key (`bottega.serve.guard`). Imports no
torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bottega.core.workspace import workspace_path
from bottega.serve.access import Limits, keys_of
from bottega.serve.failures import ApiError
from bottega.serve.guard import Guard, HostRule
from bottega.web.config import Web
from bottega.web.course.pages import CoursePages
from bottega.web.duels import Duels
from bottega.web.feedback import FOLDER, Feedback
from bottega.web.proxy import Proxy
from bottega.web.supervisor import Supervisor

HERE = Path(__file__).parent
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# The report is one self-contained file: its style and drawings stand inside it, and it runs no script.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
PROTECTION = {
    "content-security-policy": PAGE_POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Protection:
    """ASGI middleware: the protective headers on every response that does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, adding headers to the response."""

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in PROTECTION.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, protected)


def create_app(config: Web, supervisor: Supervisor | None, course: CoursePages | None = None) -> Starlette:
    """The app; it starts and stops `supervisor`, if there is one, with itself.

    With a course its first page is the first page, and the chat page stands at /chat.
    """
    pages = _Pages(config, supervisor, has_course=course is not None)
    routes = [*(course.routes() if course is not None else ()), Route("/health", pages.health)]
    proxy = None
    if supervisor is not None:
        proxy = Proxy(supervisor)
        feedback = Feedback(workspace_path(config.workspace), Duels(proxy, together=_fit_together(config)))
        routes += [
            Route("/" if course is None else "/chat", pages.chat),
            Route("/arena", pages.arena),
            Route("/report", pages.report),
            Route("/status", pages.status),
            Route("/v1/{rest:path}", proxy.forward, methods=["GET", "POST"]),
            *feedback.routes(),
        ]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if supervisor is not None:
            await supervisor.start()
        yield
        if course is not None:
            await course.close()
        if proxy is not None and supervisor is not None:
            await proxy.close()
            await supervisor.stop()

    guard = Middleware(
        Guard,
        hosts=HostRule(config.host, config.trusted_hosts),
        api_keys=keys_of(config),
        prefixes=("/v1", "/feedback"),
        origins=config.cors_origin,
        limits=Limits(config.requests_per_minute, config.max_concurrent_per_key),
    )
    return Starlette(
        routes=[*routes, Mount("/static", StaticFiles(directory=HERE / "static"), name="static")],
        middleware=[Middleware(Protection), guard],
        exception_handlers={ApiError: _refused, HTTPException: pages.not_found},
        lifespan=lifespan,
    )


def _fit_together(config: Web) -> bool:
    """Whether two models may be in memory at a time; if not, they answer one after the other."""
    return config.max_loaded is None or config.max_loaded > 1


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, headers=error.headers)


class _Pages:
    """The pages and the state that they ask for."""

    def __init__(self, config: Web, supervisor: Supervisor | None, *, has_course: bool) -> None:
        self.config = config
        self.has_course = has_course
        self.supervisor = supervisor
        self.templates = Jinja2Templates(HERE / "templates")
        self.templates.env.globals["version"] = metadata.version("bottega")

    async def chat(self, request: Request) -> Response:
        """The chat page; the same for every visitor, everything else comes by script."""
        return self.templates.TemplateResponse(request, "chat.html", self._facts())

    async def arena(self, request: Request) -> Response:
        """Where two models are compared blind; it knows as little of them as the chat page."""
        return self.templates.TemplateResponse(request, "arena.html", self._facts())

    def _facts(self) -> dict[str, Any]:
        folder = workspace_path(self.config.workspace) / FOLDER
        has_report = self.config.report is not None
        return {"has_report": has_report, "has_course": self.has_course, "feedback": str(folder)}

    async def report(self, _: Request) -> Response:
        """The report, if one was given."""
        report = self.config.report
        if report is None or not report.is_file():
            raise HTTPException(404, "There is no report yet.")
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return FileResponse(report, media_type="text/html", headers=headers)

    async def status(self, _: Request) -> Response:
        """What the model's server is doing."""
        assert self.supervisor is not None  # there is no such route without one
        return JSONResponse(self.supervisor.state.as_data(), headers={"Cache-Control": "no-store"})

    async def health(self, _: Request) -> Response:
        """That the web app answers."""
        return JSONResponse({"status": "ok"})

    async def not_found(self, request: Request, error: Exception) -> Response:
        """An error as a page, or under /v1 and /feedback in OpenAI's shape."""
        if not isinstance(error, HTTPException):
            raise error
        if request.url.path.startswith(("/v1/", "/feedback/")):
            return await _refused(request, ApiError(error.status_code, str(error.detail), headers=error.headers))
        facts = {"status": error.status_code, "message": error.detail}
        return self.templates.TemplateResponse(
            request, "error.html", facts, status_code=error.status_code, headers=error.headers
        )
