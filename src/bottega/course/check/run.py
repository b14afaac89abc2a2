"""All checks in order: over the course, then of each chapter what can be read, what is made, and what is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottega.core.errors import UserError
from bottega.core.progress import Quiet, Reporter
from bottega.course.check import exercises, graph, labs, lesson, made, parity, quiz, reading
from bottega.course.check.passed import Passed, key_of
from bottega.course.check.problem import Problem
from bottega.course.library import CONTENT, Chapter, Course, LabFile
from bottega.course.recorded import recording_path
from bottega.course.schema import Item


@dataclass
class Findings:
    """What was found, and what was looked at."""

    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass
class Checker:
    """A check of chapters. `quick` leaves out what takes longer than reading: programs, exercises, labs."""

    course: Course
    passed: Passed
    root: Path = CONTENT
    quick: bool = False
    reporter: Reporter = field(default_factory=Quiet)
    findings: Findings = field(default_factory=Findings)

    def check(self, chapters: Sequence[Chapter], *, even_unwritten: bool = False) -> Findings:
        """Check the course's graph and these chapters; unwritten ones in full only if `even_unwritten`."""
        self._add(graph.course_problems(self.course))
        terms = self._terms()
        for chapter in chapters:
            self.findings.counts["chapters"] += 1
            self._add(graph.chapter_problems(chapter, self.course))
            if chapter.written or even_unwritten:
                self._chapter(chapter, terms)
        return self.findings

    def record(self, chosen: Sequence[LabFile]) -> Findings:
        """Run labs and record what they show."""
        with self.reporter.bar("labs", len(chosen), "labs") as bar:
            for lab in chosen:
                self._add(labs.run_problems(lab, record=True))
                self.findings.counts["labs recorded"] += not self._problems_of(lab.path)
                bar.advance(1, lab.id)
        return self.findings

    def _problems_of(self, path: Path) -> list[Problem]:
        return [problem for problem in self.findings.problems if problem.path == path]

    def _terms(self) -> tuple[parity.Term, ...]:
        try:
            return parity.read_terms(self.root)
        except UserError as error:
            self._add(iter([Problem(self.root / "terminology.toml", 0, "terminology", error.message, error.hint)]))
            return ()

    def _chapter(self, chapter: Chapter, terms: tuple[parity.Term, ...]) -> None:
        counts = self.findings.counts
        counts["written"] += chapter.written
        self._add(graph.written_problems(chapter))
        closed = list(reading.unreadable(chapter))
        self._add(iter(closed))
        if closed:
            return
        self._add(lesson.lesson_problems(chapter, self.course))
        self._add(parity.parity_problems(chapter, terms))
        drawn = self._made(chapter)
        self._add(quiz.quiz_problems(chapter, self.course, drawn))
        counts["sections"] += len(chapter.lesson().sections)
        for exercise in chapter.exercises.values():
            counts["exercises"] += 1
            self._add(exercises.exercise_problems(exercise, chapter, self.course))
            if not self.quick:
                files = [*exercise.folder.glob("*.py"), exercise.folder / "exercise.toml"]
                self._once("exercise", exercise.id, files, lambda each=exercise: exercises.run_problems(each))
        for lab in chapter.labs.values():
            counts["labs"] += 1
            self._add(labs.lab_problems(lab))
            if not self.quick:
                files = [lab.path, recording_path(lab)]
                self._once("lab", lab.id, files, lambda each=lab: labs.run_problems(each), library=True)

    def _made(self, chapter: Chapter) -> dict[str, list[Item]]:
        self.findings.counts["items"] += len(chapter.items)
        self.findings.counts["generators"] += sum(bool(item.generator) for item in chapter.items)
        drawn, problems = made.make_items(chapter)
        self._add(iter(problems))
        if not self.quick:
            files = [chapter.folder / "quiz.toml", chapter.folder / "quiz.py"]
            self._once("output", chapter.id, files, lambda: made.output_problems(chapter, drawn))
        return drawn

    def _once(
        self,
        what: str,
        name: str,
        files: Sequence[Path],
        find: Callable[[], Iterator[Problem]],
        *,
        library: bool | None = None,
    ) -> None:
        """Run a check that passed for no such files before."""
        key = key_of(f"{what} {name}", files, library=library)
        if self.passed.holds(key):
            self.findings.counts["passed before"] += 1
            return
        self.reporter.say(f"{what}: {name}")
        found = list(find())
        self._add(iter(found))
        if not found:
            self.passed.add(key)

    def _add(self, problems: Iterator[Problem]) -> None:
        self.findings.problems += problems
