"""`bottega course ask`: a question to the tutor, in the terminal."""

from __future__ import annotations

from pathlib import Path

from bottega.clients.endpoint import Endpoint
from bottega.core.plan import Check, Plan, Specs
from bottega.core.schema import Config
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text
from bottega.core.workspace import workspace_path
from bottega.course.learner.learner import Learner
from bottega.course.library import load_course
from bottega.course.tutor.tutor import Tutor


class Ask(Config):
    """Ask the tutor. It answers from the course, the documentation and your runs, and cites; no model is needed."""

    question: str
    """What you want to know."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server whose model rewrites the answer; what it adds is dropped."""
    model: str = ""
    """The model's name there (default: the one that is served)."""
    api_key: str = ""
    """Its key."""
    workspace: Path | None = None
    """Where your runs and answers are [default: $BOTTEGA_WORKSPACE or ./workspace]."""


def plan_ask(config: Ask, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Say what is asked of whom."""
    work = ["look for it in lessons, documentation, docstrings and your runs"]
    checks = [Check("question", bool(config.question.strip()), config.question.strip() or "there is none")]
    if config.endpoint:
        work.append(f"let {config.endpoint} rewrite what was found, and keep what is supported")
    return Plan("course ask", config, checks=checks, work=work)


def run_ask(plan: Plan, context: Context) -> Result:  # noqa: ARG001 (a verb's run has this form)
    """Answer."""
    config = plan.config
    assert isinstance(config, Ask)
    workspace = workspace_path(config.workspace)
    endpoint = Endpoint(config.endpoint, config.model, config.api_key) if config.endpoint else None
    learner = Learner.open(folder=workspace / "course")
    answer = Tutor(load_course(), learner, endpoint, workspace).ask(config.question)
    view: list[Block] = [Text(answer.answer)]
    if answer.citations:
        rows = [(i + 1, each.title, each.anchor) for i, each in enumerate(answer.citations)]
        view.append(Table("Sources", ["", "", "page"], rows, note="bottega learn opens the pages."))
    if answer.mistake:
        view.insert(0, Text(answer.mistake))
    if answer.question is not None:
        stem = " ".join(answer.question.stem.split())
        view.append(Text(f"Now you: {stem}\nbottega course quiz {answer.question.concept}"))
    return Result(answer.as_data(), view)
