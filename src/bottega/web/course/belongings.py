"""What a learner takes along, and what comes back: the certificate, all events, cards for Anki."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from bottega.core.errors import UserError
from bottega.course.learner.certificate import certificate, verify
from bottega.course.learner.exchange import anki_text, export_text, import_text
from bottega.course.learner.learner import Learner
from bottega.web.course.forms import Form

TAKEN: dict[str, tuple[Callable[[Learner], str], str]] = {
    "events": (export_text, "bottega-course.jsonl"),
    "anki": (anki_text, "bottega-anki.csv"),
}
LONGEST_NAME = 100


class BelongingsPages:
    """Pages over one learner; `page` makes a response of a template and what it shows."""

    def __init__(self, learner: Learner, page: Callable[[Request, str, dict[str, Any]], Response]) -> None:
        self.learner, self.page = learner, page

    async def certificate(self, request: Request) -> Response:
        """What a certificate would say now, and a place to have one verified."""
        return self._shown(request)

    def _shown(self, request: Request, **more: Any) -> Response:
        found = certificate(self.learner)
        chapters = [
            (self.learner.course.chapters[name].data.title.en, share) for name, share in found["chapters"].items()
        ]
        exercises = [self.learner.course.exercise(name) for name in found["exercises"]]
        facts = {"chapters": chapters, "exercises": exercises, "answers": len(found["events"]), **more}
        return self.page(request, "certificate.html", facts)

    async def issue(self, request: Request) -> Response:
        """The certificate as a file."""
        name = (await Form.of(request)).text("name").strip()[:LONGEST_NAME]
        return _file(
            json.dumps(certificate(self.learner, name), ensure_ascii=False, indent=1), "bottega-certificate.json"
        )

    async def verify(self, request: Request) -> Response:
        """Do the work of a certificate again."""
        text = _sent(await Form.of(request))
        problems = await run_in_threadpool(verify, self.learner, text)
        data = json.loads(text)
        said = {
            "name": data.get("name", ""),
            "issued": str(data.get("issued", ""))[:10],
            "solved": len(data["exercises"]),
        }
        return self._shown(request, verified=said, problems=problems)

    async def take(self, request: Request) -> Response:
        """Events or cards as a file."""
        what = request.path_params["what"]
        if what not in TAKEN:
            raise UserError(f"there is no {what!r} to take along")
        make, name = TAKEN[what]
        return _file(make(self.learner), name)

    async def bring(self, request: Request) -> Response:
        """Add the events of an export."""
        text = _sent(await Form.of(request))
        return self._shown(request, brought=import_text(self.learner, text))


def _sent(form: Form) -> str:
    text = form.text("file")
    if not text.strip():
        raise UserError("no file was chosen", hint="Choose the file first, then press the button beside it.")
    return text


def _file(text: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(text, media_type="application/octet-stream", headers=headers)
