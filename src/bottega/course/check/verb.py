"""`bottega course check`: the problems of the course's content as a table; exit status 1 if there is one."""

from __future__ import annotations

from typing import Any

from bottega.core.errors import UserError
from bottega.core.plan import Cost, Plan, Specs
from bottega.core.schema import Config
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text
from bottega.core.workspace import workspace_path
from bottega.course.check.passed import Passed
from bottega.course.check.run import Checker, Findings
from bottega.course.lab_facts import read_facts
from bottega.course.library import CONTENT, Chapter, Course, LabFile, load_course


class CheckCourse(Config):
    """Settings of `bottega course check`."""

    chapter: str = ""
    """A chapter, or CHAPTER/LAB with --record (default: all)."""
    record: bool = False
    """Run the labs and record what they show, for lessons to cite."""
    quick: bool = False
    """Only what is read: no exercise, no program, no lab is run."""
    all: bool = False
    """Also what passed before and has not changed."""


def plan_check(config: CheckCourse, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Say what would be checked."""
    course = load_course()
    chapters, chosen = _chosen(config, course)
    if config.record:
        seconds = sum(read_facts(lab.path).budget for lab in chosen)
        return Plan("course check", config, work=[f"record {lab.id}" for lab in chosen], cost=Cost(seconds=seconds))
    work = [f"check {chapter.id}" for chapter in chapters if chapter.written or config.chapter]
    seconds = 3.0 * len(work) if config.quick else 60.0 * len(work)
    return Plan("course check", config, work=["check the graph of concepts", *work], cost=Cost(seconds=seconds))


def run_check(plan: Plan, context: Context) -> Result:
    """Check, and list the problems."""
    config = plan.config
    assert isinstance(config, CheckCourse)
    course = load_course()
    chapters, chosen = _chosen(config, course)
    passed = Passed(workspace_path() / "course" / "check" / "passed.json", forget=config.all)
    checker = Checker(course, passed, quick=config.quick, reporter=context.reporter)
    if config.record:
        findings = checker.record(chosen)
    else:
        findings = checker.check(chapters, even_unwritten=bool(config.chapter))
    return Result(_data(findings), _view(findings), exit_status=int(bool(findings.problems)))


def _chosen(config: CheckCourse, course: Course) -> tuple[list[Chapter], list[LabFile]]:
    """The chapters and labs that are meant; raises UserError with the nearest name."""
    name, _, lab = config.chapter.partition("/")
    chapters = [course.chapter(name)] if name else list(course.chapters.values())
    if lab and not config.record:
        raise UserError(f"{config.chapter} is a lab", hint=f"Check its chapter: bottega course check {name}")
    labs = [course.lab(config.chapter)] if lab else [each for chapter in chapters for each in chapter.labs.values()]
    return chapters, labs


def _data(findings: Findings) -> dict[str, Any]:
    problems = [
        {
            "file": problem.place(CONTENT).partition(":")[0],
            "line": problem.line,
            "rule": problem.rule,
            "message": problem.message,
            "fix": problem.fix,
        }
        for problem in findings.problems
    ]
    return {"passed": not problems, "problems": problems, "counts": dict(findings.counts)}


def _view(findings: Findings) -> list[Block]:
    counts = ", ".join(f"{count} {what}" for what, count in findings.counts.items() if count)
    if not findings.problems:
        return [Text(f"No problem: {counts}.")]
    rows = [
        (problem.place(CONTENT), problem.rule, f"{problem.message}. {problem.fix}".rstrip(". ") + ".")
        for problem in findings.problems
    ]
    return [Table(f"{len(rows)} problems", ["where", "rule", "what"], rows, note=counts)]
