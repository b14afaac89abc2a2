"""The routes of the course. Each page is made on the server; a form is answered by a page or sends on to one."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from bottega.core.errors import UserError
from bottega.core.report import Ids, block_html
from bottega.course.graph import load_goals
from bottega.course.lab import Say, Step, Value
from bottega.course.lab_facts import read_facts
from bottega.course.learner.learner import Learner, Setting, Task
from bottega.course.learner.placement import QUESTIONS
from bottega.course.learner.questions import Question
from bottega.course.library import Chapter, Exercise, LabFile
from bottega.course.recorded import figures_of, format_value, read_recording
from bottega.course.render import inline_html, markdown_html, opening_html, section_pieces
from bottega.course.roadmap import SIGNS, WORDS, roadmap_svg
from bottega.course.schema import PARTS, Language
from bottega.course.views import VIEWS, view_path
from bottega.web.course.belongings import BelongingsPages
from bottega.web.course.forms import Form
from bottega.web.course.runs import Runs
from bottega.web.course.sources import SourcePages
from bottega.web.course.views import ViewPages

POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
PART_TITLES = {"fundamentals": "Fundamentals", "scientist": "The scientist", "engineer": "The engineer"}
TASK_WORDS = {
    "placement": "Find out where to begin", "review": "Review", "lesson": "Read", "lab": "Run", "exercise": "Write",
    "quiz": "Answer",
}  # fmt: skip
ANSWER_SETTINGS: dict[str, Setting] = {"review": "review", "challenge": "challenge"}
Handler = Callable[[Request], Awaitable[Response]]


class CoursePages:
    """The pages of one learner; `chat` says whether a model is served beside them."""

    def __init__(self, learner: Learner, templates: Path, *, chat: bool) -> None:
        self.learner, self.course = learner, learner.course
        workspace = learner.folder.parent
        self.runs = Runs(workspace, lambda lab, held: learner.lab_done(lab.id, effects=held))
        self.token = secrets.token_urlsafe(24)
        self.sources = SourcePages(workspace, self._page)
        self.belongings = BelongingsPages(learner, self._page)
        self.views = ViewPages(self.course, workspace, self._page)
        self.templates = Jinja2Templates(templates)
        self.templates.env.filters |= {"inline": inline_html, "markdown": markdown_html}
        self.templates.env.globals |= {
            "signs": SIGNS, "words": WORDS, "parts": PART_TITLES, "chat": chat, "task_words": TASK_WORDS, "url": url_of,
        }  # fmt: skip

    def routes(self) -> list[Route]:
        """All routes, the first page among them."""
        get: dict[str, Handler] = {
            "/": self.home, "/roadmap/{part}": self.roadmap, "/course/{chapter}": self.lesson,
            "/course/{chapter}/lab/{name}": self.lab, "/course/{chapter}/exercise/{name}": self.exercise,
            "/course/{chapter}/quiz": self.quiz, "/labs/{run}": self.run, "/labs/{run}/events": self.run_events,
            "/question/{item}": self.question, "/review": self.review, "/placement": self.placement,
            "/challenge/{concept}": self.challenge, "/progress": self.progress, "/ask": self.sources.ask,
            "/docs/{name}": self.sources.documentation, "/reference/{module}": self.sources.reference,
            "/runs": self.sources.own_runs, "/certificate": self.belongings.certificate,
            "/take/{what}": self.belongings.take, "/view/{name}": self.views.view,
            "/course-figures.css": self.sources.figure_style,
        }  # fmt: skip
        post: dict[str, Handler] = {
            "/goal": self.choose_goal, "/course/{chapter}/lab/{name}": self.start_lab,
            "/labs/{run}/stop": self.stop_lab,
            "/course/{chapter}/exercise/{name}": self.do_exercise, "/question/{item}": self.answer,
            "/placement": self.place, "/certificate": self.belongings.issue, "/verify": self.belongings.verify,
            "/import": self.belongings.bring,
        }  # fmt: skip
        return [
            *(Route(path, self._guarded(handler)) for path, handler in get.items()),
            *(Route(path, self._guarded(handler), methods=["POST"]) for path, handler in post.items()),
        ]

    async def close(self) -> None:
        """Stop what runs beside the server."""
        await self.runs.close()
        await self.views.close()

    def _guarded(self, handler: Handler) -> Handler:
        """A wrong input is a page that says so; a form without this server's token is refused."""

        async def guarded(request: Request) -> Response:
            try:
                if request.method == "POST":
                    await self._require_own(request)
                return await handler(request)
            except UserError as error:
                status = 404 if request.method == "GET" else 400
                facts = {"message": error.message, "hint": error.hint, "status": status}
                return self._page(request, "message.html", facts, status=status)

        return guarded

    async def _require_own(self, request: Request) -> None:
        """A page of another site can send a form here, but it cannot read the token of this start."""
        token = (await Form.of(request)).text("token")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise HTTPException(403, "This form is not from a page of this start. Reload the page and try again.")

    def _page(self, request: Request, name: str, facts: dict[str, Any], status: int = 200) -> Response:
        shown = {"token": self.token, "path": request.url.path, **facts}
        response = self.templates.TemplateResponse(request, f"course/{name}", shown, status_code=status)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-store"
        return response

    def _chapter(self, request: Request) -> Chapter:
        chapter = self.course.chapter(request.path_params["chapter"])
        if not chapter.written:
            title = chapter.data.title.en
            raise UserError(f"The chapter “{title}” is not written yet.", hint="It stands on the roadmap.")
        return chapter

    # First page, roadmaps, progress

    async def home(self, request: Request) -> Response:
        """Go on where you are."""
        overview = self.learner.overview()
        tasks = self.learner.session()
        parts = {part: [c for c in self.course.chapters.values() if c.data.part == part] for part in PARTS}
        facts = {
            "tasks": self._listed(tasks), "overview": overview, "goals": load_goals().values(),
            "chapters": parts, "begun": bool(self.learner.state().last),
        }  # fmt: skip
        return self._page(request, "home.html", facts)

    def _listed(self, tasks: list[Task]) -> list[dict[str, str]]:
        """The first tasks as links; several questions on one concept are one link."""
        found = {task["url"]: task for task in reversed([self._task(each) for each in tasks])}
        return list(reversed(found.values()))[:6]

    def _task(self, task: Task) -> dict[str, str]:
        names = {
            "lesson": lambda c: _section_title(c, task.name), "lab": lambda c: read_facts(c.labs[task.name].path).title,
            "exercise": lambda c: c.exercises[task.name].data.title.en,
        }  # fmt: skip
        chapter = self.course.chapters.get(task.chapter)
        if chapter is None:
            return {"kind": task.kind, "title": "Placement", "why": task.why, "url": "/placement"}
        title = names[task.kind](chapter) if task.kind in names else self.course.concepts[task.concept][1].title.en
        return {"kind": task.kind, "title": title, "why": task.why, "url": url_of(task)}

    async def roadmap(self, request: Request) -> Response:
        """One part of the course, drawn and as a list."""
        part = request.path_params["part"]
        if part not in PARTS:
            raise UserError(f"there is no part {part!r}")
        chapters = [c for c in self.course.chapters.values() if c.data.part == part]
        overview = self.learner.overview()
        svg = roadmap_svg(chapters, overview, _language(request))
        facts = {"part": part, "chapters": chapters, "overview": overview, "svg": svg}
        return self._page(request, "roadmap.html", facts)

    async def progress(self, request: Request) -> Response:
        """Every concept with its number."""
        overview = self.learner.overview()
        state = self.learner.state()
        facts = {"overview": overview, "course": self.course, "state": state, "goals": load_goals().values()}
        return self._page(request, "progress.html", facts)

    async def choose_goal(self, request: Request) -> Response:
        """Remember what the learner wants."""
        self.learner.set_goal((await Form.of(request)).text("goal"))
        return RedirectResponse("/", 303)

    # Lessons, labs, exercises

    async def lesson(self, request: Request) -> Response:
        """A chapter's lesson."""
        chapter = self._chapter(request)
        language = _language(request)
        lesson, ids = chapter.lesson(language), Ids()
        sections = [(section, section_pieces(chapter, section, ids)) for section in lesson.sections]
        opening = opening_html(chapter, lesson.opening)
        facts = {
            "chapter": chapter, "lesson": lesson, "sections": sections, "opening": opening,
            "overview": self.learner.overview(), "state": self.learner.state(), "language": language,
            "labs": {name: read_facts(lab.path) for name, lab in chapter.labs.items()}, "course": self.course,
            "views": {name: read_facts(view_path(name), has_budget=False) for name in VIEWS},
        }  # fmt: skip
        return self._page(request, "lesson.html", facts)

    def _lab(self, request: Request) -> tuple[Chapter, LabFile]:
        chapter = self._chapter(request)
        return chapter, self.course.lab(f"{chapter.id}/{request.path_params['name']}")

    async def lab(self, request: Request) -> Response:
        """A lab's settings, and what its recorded run showed."""
        chapter, lab = self._lab(request)
        recording, ids = read_recording(lab), Ids()
        figures = [block_html(block, ids) for block in (recording.figures.values() if recording else ())]
        facts = {"chapter": chapter, "lab": lab, "facts": read_facts(lab.path), "figures": figures}
        return self._page(request, "lab.html", facts)

    async def start_lab(self, request: Request) -> Response:
        """Start it with the settings given."""
        _, lab = self._lab(request)
        params = (await Form.of(request)).settings(read_facts(lab.path).settings)
        return RedirectResponse(f"/labs/{self.runs.start(lab, params)}", 303)

    async def run(self, request: Request) -> Response:
        """A run: what it showed so far; with JavaScript the page follows it."""
        name = request.path_params["run"]
        first, *rest = self.runs.rows(name)
        lab, ids = self.course.lab(first["lab"]), Ids()
        events = self.runs.events(name)
        end = next((row["outcome"] for row in rest if row["event"] == "end"), "")
        facts = {
            "run": name, "lab": lab, "chapter": self.course.chapter(lab.chapter), "facts": read_facts(lab.path),
            "figures": [block_html(block, ids) for block in figures_of(events).values()], "end": end,
            "says": [event.text for event in events if isinstance(event, Say)],
            "values": [(e.name.replace("_", " "), format_value(e), e.unit) for e in events if isinstance(e, Value)],
            "effects": [event for event in events if type(event).__name__ == "Effect"],
            "step": next((event for event in reversed(events) if isinstance(event, Step)), None),
            "running": self.runs.is_running(name), "last": len(rest) + 1,
        }  # fmt: skip
        return self._page(request, "run.html", facts)

    async def run_events(self, request: Request) -> Response:
        """The events of a run as they come (server-sent events), from `Last-Event-ID` on."""
        name = request.path_params["run"]
        last = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        after = int(last) if last.isdigit() else 0
        self.runs.rows(name)

        async def lines() -> AsyncIterator[str]:
            async for number, row in self.runs.follow(name, after):
                yield f"id: {number}\ndata: {json.dumps(row)}\n\n"

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)

    async def stop_lab(self, request: Request) -> Response:
        """Stop a run."""
        name = request.path_params["run"]
        await self.runs.stop(name)
        return RedirectResponse(f"/labs/{name}", 303)

    def _exercise(self, request: Request) -> tuple[Chapter, Exercise]:
        chapter = self._chapter(request)
        return chapter, self.course.exercise(f"{chapter.id}/{request.path_params['name']}")

    async def exercise(self, request: Request) -> Response:
        """The learner's file of an exercise, to be edited here or elsewhere."""
        chapter, exercise = self._exercise(request)
        path = self.learner.file_of(exercise.id)
        return self._exercise_page(request, chapter, exercise, path.read_text("utf-8", "replace"))

    async def do_exercise(self, request: Request) -> Response:
        """Save the code; run the checks, give a hint, or begin again."""
        chapter, exercise = self._exercise(request)
        form = await Form.of(request)
        path, wanted = self.learner.file_of(exercise.id), form.text("do")
        code = exercise.task if wanted == "reset" else form.text("code").replace("\r\n", "\n")
        path.write_text(code, "utf-8")
        more: dict[str, Any] = {}
        if wanted == "run":
            more["verdict"] = await run_in_threadpool(self.learner.grade, exercise.id, code)
        elif wanted == "hint":
            more["hint"] = self.learner.hint(exercise.id)
        return self._exercise_page(request, chapter, exercise, code, **more)

    def _exercise_page(
        self, request: Request, chapter: Chapter, exercise: Exercise, code: str, **more: Any
    ) -> Response:
        state = self.learner.state()
        facts = {
            "chapter": chapter, "exercise": exercise, "code": code, "file": self.learner.file_of(exercise.id),
            "hints": self.learner.hints_seen(exercise.id), "solution": self.learner.solution(exercise.id),
            "solved": exercise.id in state.solved, "lines": max(code.count("\n") + 2, 14), **more,
        }  # fmt: skip
        return self._page(request, "exercise.html", facts)

    # Questions

    async def quiz(self, request: Request) -> Response:
        """The next question of a chapter, or of one concept in it."""
        chapter = self._chapter(request)
        wanted = request.query_params.get("concept")
        concepts = [wanted] if wanted in self.course.concepts else [c.id for c in chapter.data.concepts]
        item = self.learner.items_of(self.learner.weakest(concepts))[0]
        query = f"?next=/course/{chapter.id}/quiz" + (f"%3Fconcept%3D{wanted}" if wanted else "")
        return RedirectResponse(f"/question/{item.id}{query}", 303)

    async def review(self, request: Request) -> Response:
        """The next review that is due."""
        due = self.learner.due()
        if not due:
            return self._page(request, "done.html", {"next_due": self._next_due()})
        item = self.learner.items_of(due[0])[0]
        return RedirectResponse(f"/question/{item.id}?setting=review&next=/review", 303)

    def _next_due(self) -> datetime | None:
        cards = [known.memory.due() for known in self.learner.state().concepts.values() if known.memory]
        return min(cards, default=None)

    async def challenge(self, request: Request) -> Response:
        """'I know this': its next question, or where the learner stands once three in a row were right."""
        concept = request.path_params["concept"]
        found = self.learner.challenge(concept)
        if found is None:
            return RedirectResponse("/progress", 303)
        return RedirectResponse(f"/question/{found.item}?setting=challenge&next=/challenge/{concept}", 303)

    async def question(self, request: Request) -> Response:
        """A question."""
        found = self.learner.question(request.path_params["item"])
        query = request.query_params
        facts = {"setting": query.get("setting", "quiz"), "next": _local(query.get("next", ""), found.chapter)}
        return self._question_page(request, found, facts)

    def _question_page(self, request: Request, question: Question, facts: dict[str, Any]) -> Response:
        concept = self.course.concepts[question.concept][1]
        stem = question.stem.replace("___", "▁▁▁") if question.kind == "cloze" else question.stem
        shown = {"question": question, "concept": concept, "stem": stem, "error": "", **facts}
        return self._page(request, "question.html", shown)

    async def answer(self, request: Request) -> Response:
        """Mark an answer, and say why."""
        form = await Form.of(request)
        item, seed = request.path_params["item"], form.whole("seed")
        found = self.learner.question(item, seed)
        setting = ANSWER_SETTINGS.get(form.text("setting"), "quiz")
        after = _local(form.text("next"), found.chapter)
        try:
            outcome = self.learner.answer(item, seed, form.given(found), setting, unsure=form.text("unsure") == "on")
        except UserError as error:
            return self._question_page(request, found, {"setting": setting, "next": after, "error": error.message})
        concept = self.course.concepts[found.concept][1]
        facts = {"question": found, "outcome": outcome, "concept": concept, "next": after}
        return self._page(request, "outcome.html", facts)

    async def placement(self, request: Request) -> Response:
        """Its beginning."""
        return self._page(request, "placement.html", {"count": QUESTIONS})

    async def place(self, request: Request) -> Response:
        """Take an answer in, and ask the next one; at the end, say where to begin."""
        form = await Form.of(request)
        answered = _answered(form.text("answered", "[]"))
        error = ""
        if item := form.text("item"):
            found = self.learner.question(item, form.whole("seed"))
            try:
                given = None if form.text("do") == "unknown" else form.given(found)
                right = given is not None and self.learner.answer(item, found.seed, given, "placement").mark.right
                answered.append((item, right))
            except UserError as problem:
                error = problem.message
                facts = {"answered": answered, "error": error, "number": len(answered) + 1, "count": QUESTIONS}
                return self._question_page(request, found, {**facts, "setting": "placement", "next": ""})
        question = self.learner.placement_question(answered)
        if question is None:
            ability = self.learner.finish_placement(answered)
            facts = {"ability": ability, "right": sum(right for _, right in answered), "count": len(answered)}
            return self._page(request, "placed.html", {**facts, "overview": self.learner.overview()})
        facts = {"answered": answered, "number": len(answered) + 1, "count": QUESTIONS}
        return self._question_page(request, question, {**facts, "setting": "placement", "next": ""})


def url_of(task: Task) -> str:
    """Where a task is done."""
    place = f"/course/{task.chapter}"
    return {
        "placement": "/placement", "review": "/review", "lesson": f"{place}#{task.name}",
        "lab": f"{place}/lab/{task.name}", "exercise": f"{place}/exercise/{task.name}",
        "quiz": f"{place}/quiz?concept={task.concept}",
    }[task.kind]  # fmt: skip


def _section_title(chapter: Chapter, name: str) -> str:
    section = chapter.lesson().section(name)
    return section.title if section else chapter.data.title.en


def _language(request: Request) -> Language:
    return "zh" if request.query_params.get("language") == "zh" else "en"


def _local(where: str, chapter: str) -> str:
    """A path of this app to go on to; a link that leads elsewhere is not followed."""
    return where if where.startswith("/") and not where.startswith(("//", "/\\")) else f"/course/{chapter}/quiz"


def _answered(text: str) -> list[tuple[str, bool]]:
    try:
        rows = json.loads(text)
        return [(str(item), bool(right)) for item, right in rows][:QUESTIONS]
    except (ValueError, TypeError):
        raise UserError("the placement was lost on the way", hint="Begin it again.") from None
