"""Rules of exercises: the stub fails, the solution passes, every wrong solution is rejected for what it does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from bottega.core.errors import BottegaError, did_you_mean
from bottega.course.check.lesson import text_problems
from bottega.course.check.problem import Problem, line_of
from bottega.course.grade import Verdict, run_checks, signature_of
from bottega.course.library import Chapter, Course, Exercise
from bottega.course.schema import Wrong

FILES = ("task.py", "solution.py", "grader.py")
MOST_IN_HINTS = 0.6  # share of the solution's own lines that hints may tell


def exercise_problems(exercise: Exercise, chapter: Chapter, course: Course) -> Iterator[Problem]:
    """What can be seen of an exercise without running it."""
    path = exercise.folder / "exercise.toml"
    missing = [name for name in FILES if not (exercise.folder / name).is_file()]
    for name in missing:
        yield Problem(exercise.folder / name, 0, "exercise-complete", f"{exercise.id} has no {name}")
    concepts = [concept.id for concept in chapter.data.concepts]
    for name in exercise.data.concepts:
        if name not in course.concepts:
            message = f"{exercise.id}: there is no concept {name!r}"
            yield Problem(path, line_of(path, f'"{name}"'), "concept-exists", message, did_you_mean(name, concepts))
    sections = [section.id for section in chapter.lesson().sections]
    if exercise.data.section is None or (sections and exercise.data.section not in sections):
        message = f"{exercise.id}: there is no section {exercise.data.section!r}"
        hint = did_you_mean(exercise.data.section or "", sections)
        yield Problem(path, line_of(path, "section ="), "section-exists", message, hint)
    for hint in exercise.data.hints:
        line = line_of(path, hint.text.strip().splitlines()[0]) if hint.text.strip() else 0
        yield from text_problems(hint.text, path, line, chapter, course)
    if not missing:
        yield from _sources(exercise, path)


def _sources(exercise: Exercise, path: Path) -> Iterator[Problem]:
    for name in FILES:
        try:
            ast.parse((exercise.folder / name).read_text("utf-8"))
        except SyntaxError as error:
            yield Problem(exercise.folder / name, error.lineno or 0, "exercise-python", error.msg)
            return
    for check in ast.parse(exercise.grader).body:
        if isinstance(check, ast.FunctionDef) and check.name.startswith("check_") and not ast.get_docstring(check):
            message = f"{check.name} does not say what is checked"
            yield Problem(exercise.folder / "grader.py", check.lineno, "check-says", message, "Give it a docstring.")
    told = told_by_hints(exercise)
    if told > MOST_IN_HINTS:
        yield Problem(path, line_of(path, "hints"), "hints-tell", f"the hints tell {told:.0%} of the solution's lines")
    seen = set[str]()
    for wrong in exercise.data.wrong:
        line = line_of(path, f'name = "{wrong.name}"')
        if wrong.name in seen:
            yield Problem(path, line, "wrong-name", f"two wrong solutions are called {wrong.name!r}")
        seen.add(wrong.name)
        count = exercise.solution.count(wrong.replace)
        if count != 1:
            yield Problem(path, line, "wrong-place", f"what {wrong.name} replaces stands {count} times in solution.py")


def told_by_hints(exercise: Exercise) -> float:
    """The share of the solution's own lines of code that stand in its hints, space apart."""
    hints = _squeezed(" ".join(hint.text for hint in exercise.data.hints))
    given = {_squeezed(line) for line in exercise.task.splitlines()}
    own = {_squeezed(line) for line in _code_lines(exercise.solution)} - given
    own = {line for line in own if len(line) > 8}
    return sum(line in hints for line in own) / len(own) if own else 0.0


def _code_lines(source: str) -> list[str]:
    """Lines of the program without comments and docstrings."""
    return ast.unparse(_without_docstrings(ast.parse(source))).splitlines()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text).replace('"', "'")


def run_problems(exercise: Exercise) -> Iterator[Problem]:
    """Run stub, solution and wrong solutions."""
    try:
        yield from _stub(exercise, run_checks(exercise, exercise.task))
        yield from _solution(exercise, run_checks(exercise, exercise.solution))
        signatures: dict[str, str] = {}
        for wrong in exercise.data.wrong:
            if exercise.solution.count(wrong.replace) == 1:
                code = exercise.solution.replace(wrong.replace, wrong.by)
                yield from _wrong(exercise, wrong, run_checks(exercise, code), signatures)
    except BottegaError as error:
        yield Problem(exercise.folder / "grader.py", 0, "grader-runs", error.message, error.hint)


def _stub(exercise: Exercise, verdict: Verdict) -> Iterator[Problem]:
    path = exercise.folder / "task.py"
    if verdict.passed:
        yield Problem(path, 0, "stub-fails", f"{exercise.id} passes before anything is written")
    elif verdict.error:
        yield Problem(path, 0, "stub-loads", f"{exercise.id}: the stub cannot be loaded: {verdict.error}")


def _solution(exercise: Exercise, verdict: Verdict) -> Iterator[Problem]:
    path = exercise.folder / "solution.py"
    if not verdict.passed:
        failed = verdict.failed
        reason = verdict.error or (f"{failed.name}: {failed.message} {failed.call} {failed.where}" if failed else "")
        yield Problem(path, 0, "solution-passes", f"{exercise.id}: the solution fails: {reason.strip()}")
    elif verdict.seconds > exercise.data.seconds / 2:
        message = f"{exercise.id}: the solution takes {verdict.seconds:.1f} of {exercise.data.seconds:g} s"
        yield Problem(path, 0, "solution-fast", message, "Slower machines need room: fewer cases, or more seconds.")


def _wrong(exercise: Exercise, wrong: Wrong, verdict: Verdict, signatures: dict[str, str]) -> Iterator[Problem]:
    path = exercise.folder / "exercise.toml"
    line = line_of(path, f'name = "{wrong.name}"')
    if verdict.passed:
        yield Problem(path, line, "wrong-fails", f"{exercise.id}: the grader passes {wrong.name}", "Add a check.")
    elif verdict.error or verdict.timed_out:
        reason = verdict.error or "time was up"
        message = f"{exercise.id}: {wrong.name} is not judged for what it does: {reason}"
        yield Problem(path, line, "wrong-runs", message)
    else:
        signature = repr(signature_of(verdict))
        if signature in signatures:
            message = f"{exercise.id}: {wrong.name} fails exactly as {signatures[signature]}"
            yield Problem(
                path, line, "wrong-differs", message, "A case that tells them apart, so that learners are told."
            )
        signatures.setdefault(signature, wrong.name)
