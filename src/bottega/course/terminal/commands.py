"""`bottega course list|start|watch|hint|quiz|review|export|import|anki|certificate|verify`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from bottega.core.errors import UserError, did_you_mean
from bottega.core.plan import Plan, Specs
from bottega.core.schema import Config
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text
from bottega.core.workspace import workspace_path
from bottega.course.grade import Verdict
from bottega.course.learner.certificate import verify, write_certificate
from bottega.course.learner.exchange import anki_cards, export_events, import_events, read_text
from bottega.course.learner.learner import Learner, Outcome, Setting
from bottega.course.learner.questions import Given, Question
from bottega.course.roadmap import SIGNS, WORDS
from bottega.course.terminal.settings import (
    AskHint,
    Certify,
    InCourse,
    Move,
    Quiz,
    Start,
    Verify,
    Watch,
)


def plan_course(config: Config, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """These commands take no time to plan."""
    return Plan("course", config, work=["go on with the course"])


def _learner(config: Config) -> Learner:
    assert isinstance(config, InCourse)
    return Learner.open(folder=workspace_path(config.workspace) / "course")


def run_list(plan: Plan, context: Context) -> Result:  # noqa: ARG001 (a verb's run has this form)
    """Every chapter and leaf with where the learner stands."""
    learner = _learner(plan.config)
    overview = learner.overview()
    rows, data = [], []
    for chapter in learner.course.chapters.values():
        standing = overview.chapters[chapter.id]
        word = f"{SIGNS[standing.status]} {WORDS[standing.status]}" if chapter.written else "not written yet"
        about = chapter.data
        rows.append((about.part, about.number, about.title.en, word, f"{standing.proficiency:.0%}"))
        data.append({
            "id": chapter.id, "part": chapter.data.part, "written": chapter.written, "status": standing.status,
            "known": standing.known, "labs": list(chapter.labs), "exercises": list(chapter.exercises),
            "leaves": [leaf.id for leaf in chapter.data.leaves],
        })  # fmt: skip
    note = f"{overview.mastered} of {len(overview.path)} concepts on your way; {overview.due} to review."
    table = Table("The course", ["part", "", "chapter", "state", "known"], rows, note=note)
    return Result({"chapters": data, "due": overview.due, "goal": overview.goal.id}, [table])


def run_start(plan: Plan, context: Context) -> Result:  # noqa: ARG001
    """What to do now, or the file of an exercise."""
    config = plan.config
    assert isinstance(config, Start)
    learner = _learner(config)
    if config.exercise:
        path = learner.file_of(config.exercise)
        words = f"Write it in {path}, then: bottega course watch {config.exercise}"
        return Result({"exercise": config.exercise, "file": str(path)}, [Text(words)])
    tasks = learner.session()
    rows = [(task.kind, f"{task.chapter}/{task.name}".strip("/"), task.why) for task in tasks]
    note = "bottega learn opens lessons and labs as pages; bottega course quiz and review ask here."
    data = {"tasks": [vars(task) for task in tasks]}
    return Result(data, [Table("Now", ["", "what", "why"], rows, note=note)])


def run_watch(plan: Plan, context: Context) -> Result:
    """Check the file now, and whenever it is saved."""
    config = plan.config
    assert isinstance(config, Watch)
    learner = _learner(config)
    path = learner.file_of(config.exercise)
    if not config.once:
        context.reporter.say(f"Watching {path} (Ctrl-C stops)")
    seen = None
    while True:
        stamp = path.stat().st_mtime_ns
        if stamp != seen:
            seen = stamp
            verdict = learner.grade(config.exercise, path.read_text("utf-8", "replace"))
            if config.once or verdict.passed:
                return Result(verdict.as_data(), verdict_blocks(verdict), exit_status=int(not verdict.passed))
            for line in verdict_lines(verdict):
                context.reporter.say(line)
        time.sleep(config.poll)


def verdict_lines(verdict: Verdict) -> list[str]:
    """A verdict in lines: the checks, and the smallest counter-example of those that fail."""
    lines = [verdict.error] if verdict.error else []
    for check in verdict.checks:
        lines.append(f"{'✓' if check.passed else '✗'} {check.says}")
        if not check.passed:
            told = {"": check.message, "called": check.call, "expected": check.expected, "got": check.got}
            lines += [f"    {name + ': ' if name else ''}{text}" for name, text in told.items() if text]
    return [*lines, *([verdict.mistake] if verdict.mistake else [])]


def verdict_blocks(verdict: Verdict) -> list[Block]:
    """A verdict for the end of a command."""
    return [Text("\n".join([*verdict_lines(verdict), "All checks pass." if verdict.passed else "Not yet."]))]


def run_hint(plan: Plan, context: Context) -> Result:  # noqa: ARG001
    """The next hint."""
    assert isinstance(plan.config, AskHint)
    hint = _learner(plan.config).hint(plan.config.exercise)
    wait = f"Try on your own for {hint.wait} seconds more." if hint.wait else "There are no more hints."
    return Result(vars(hint), [Text(hint.text or wait)])


def run_quiz(plan: Plan, context: Context) -> Result:
    """Questions on what was named, or on what comes next."""
    config = plan.config
    assert isinstance(config, Quiz)
    learner = _learner(config)
    if not config.about:
        following = (learner.next_item() for _ in range(config.count))
        return _asked(learner, (found[0].concept for found in following if found), "quiz", context)
    concepts = _concepts(learner, config.about)
    return _asked(learner, (learner.weakest(concepts) for _ in range(config.count)), "quiz", context)


def run_review(plan: Plan, context: Context) -> Result:
    """Questions on what is due."""
    learner = _learner(plan.config)
    due = learner.due()
    if not due:
        return Result({"asked": 0, "right": 0}, [Text("No review is due.")])
    return _asked(learner, due, "review", context)


def _concepts(learner: Learner, about: str) -> list[str]:
    course = learner.course
    if about in course.chapters:
        found = [concept.id for concept in course.chapter(about).data.concepts]
    else:
        found = [about] if about in course.concepts else []
    found = [concept for concept in found if learner.items_of(concept)]
    if not found:
        names = [*course.chapters, *course.concepts]
        raise UserError(f"there are no questions on {about!r}", hint=did_you_mean(about, names))
    return found


def _asked(learner: Learner, concepts: Iterable[str], setting: Setting, context: Context) -> Result:
    """Ask one question after another; what was answered counts, wherever it ends."""
    say, asked, right = context.reporter.say, 0, 0
    for concept in concepts:
        question = learner.question(learner.items_of(concept)[0].id)
        for line in _shown(question):
            say(line)
        while True:
            try:
                outcome = learner.answer(question.item, question.seed, _given(question, _input("> ")), setting)
                break
            except UserError as error:
                say(error.message)
            except EOFError:
                return Result({"asked": asked, "right": right}, [Text(f"{right} of {asked} right.")])
        asked, right = asked + 1, right + outcome.mark.right
        for line in _told(outcome):
            say(line)
    return Result({"asked": asked, "right": right}, [Text(f"{right} of {asked} right.")])


def _input(prompt: str) -> str:
    if sys.stdin.isatty():
        return input(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


_ASKS: dict[str, str] = {
    "single": "The number of the answer:", "multi": "The numbers of all that hold, with spaces:",
    "order": "The numbers in the right order, with spaces:", "match": "For each line the number that belongs to it:",
    "cloze": "What belongs into the gap (several with ;):", "numeric": "A number:", "output": "What it prints:",
}  # fmt: skip


def _shown(question: Question) -> list[str]:
    lines = ["", question.stem, *([question.code] if question.code else []), *question.lefts]
    lines += [f"  {i + 1}  {text}" for i, text in enumerate((*question.options, *question.lines, *question.rights))]
    return [*lines, _ASKS[question.kind]]


def _given(question: Question, text: str) -> Given:
    """A typed answer as the learner takes it: places from 1 on."""
    if question.kind in ("numeric", "output"):
        return text
    if question.kind == "cloze":
        return [part.strip() for part in text.split(";")]
    try:
        places = [int(part) - 1 for part in text.replace(",", " ").split()]
    except ValueError:
        raise UserError("Answer with numbers.") from None
    if question.kind == "single":
        if len(places) != 1:
            raise UserError("Answer with one number.")
        return places[0]
    return places


def _told(outcome: Outcome) -> list[str]:
    mark = outcome.mark
    lines = ["✓ Right." if mark.right else f"✗ Not right. {mark.answer}", mark.why]
    told = [option for option in mark.options if option[1] or option[2]]
    lines += [f"  {'✓' if right else '✗'} {text}: {why}" for text, _, right, why in told]
    lines.append(f"  known: {outcome.before:.0%} → {outcome.after:.0%}")
    return [line for line in lines if line]


def _moved(work: Callable[[Learner, Any], int], words: str) -> Callable[[Plan, Context], Result]:
    def run(plan: Plan, context: Context) -> Result:  # noqa: ARG001
        assert isinstance(plan.config, Move)
        count = work(_learner(plan.config), plan.config.file)
        return Result({"count": count, "file": str(plan.config.file)}, [Text(words.format(count, plan.config.file))])

    return run


run_export = _moved(export_events, "{} events are in {}.")
run_import = _moved(import_events, "{} events of {} were new.")
run_anki = _moved(anki_cards, "{} cards are in {}; in Anki: File, Import.")


def run_certificate(plan: Plan, context: Context) -> Result:  # noqa: ARG001
    """Write a certificate."""
    config = plan.config
    assert isinstance(config, Certify)
    data = write_certificate(_learner(config), config.file, config.name)
    rows = [(chapter, f"{share:.0%}") for chapter, share in data["chapters"].items()]
    return Result(data, [Table(f"Mastered, in {config.file}", ["chapter", "of its concepts"], rows)])


def run_verify(plan: Plan, context: Context) -> Result:  # noqa: ARG001
    """Do the work of a certificate again."""
    config = plan.config
    assert isinstance(config, Verify)
    learner = _learner(config)
    problems = verify(learner, read_text(config.file), str(config.file))
    view: list[Block] = [Text("\n".join(problems) if problems else "It holds: every score and every exercise.")]
    return Result({"problems": problems}, view, exit_status=int(bool(problems)))
