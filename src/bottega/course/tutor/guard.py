"""What the tutor does not tell: the reference solution of an exercise that is not solved yet.

Its corpus has no solutions, so an answer taken from it cannot hold one, and a model's sentence is kept only if its
words stand in a citation. This is the third wall. A question that asks for code of an exercise gets the next hint, and
every answer is compared with all open solutions: none may share LEAK tokens in a row with one, whatever the names are,
unless these stand in the task, in a lesson or in another solution as well: that is how code is written, no secret.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache

from bottega.course.library import Course, Exercise

LEAK = 12  # tokens in a row that an answer and a solution may not share, unless the task itself has them
LINE = 30  # characters in a row of a line of a solution that a hint through the tutor may not have
CODE_MARKS = frozenset("= == += -= * ** / // % @ + - < > <= >= [ ] ( ) { } : -> |".split())  # noqa: SIM905
LEAST_NAME = 6  # characters of a name of one word by which an exercise can be meant
LEAST_MARKS, LEAST_KINDS = 4, 3  # of a row of tokens that counts as code: prose has few
_CODE = re.compile(
    r"\b(solutions?|solve|code|codes|coded|implementations?|implement|functions?|programs?|program|body|lines?|listing"
    r"|source|sources|files?|grader|pseudo-?code|interpreter|unit tests?|complete|finished|working|write|restore|dump"
    r"|print|type out|fill in|fix|hints?|stuck)\b|def \w|\breturn\b|\.(py|toml)\b|答案|代码|提示|写",
    re.IGNORECASE,
)
_GENERAL = re.compile(
    r"\b(solution|grader|exercise)\.(py|toml)\b|\b(reference|all|every) solutions?\b|answer key", re.I
)
_NAMES = re.compile(r"^\s*(?:def|class)\s+(\w+)", re.MULTILINE)
_TOKEN = re.compile(r"[^\W\d]\w*|\d[\w.]*|\"[^\"\n]*\"|'[^'\n]*'|\*\*|//|->|[-+*/<>=!]=|[^\w\s]")


def exercise_meant(course: Course, text: str) -> Exercise | None:
    """The exercise that a question is about, by its name or those that its task defines; the longest name counts."""
    plain = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
    best: tuple[int, Exercise] | None = None
    for chapter in course.written():
        for exercise in chapter.exercises.values():
            names = {exercise.name.replace("-", " "), *_defined(exercise.task)}
            hits = [len(name) for name in names if re.search(rf"\b{re.escape(name)}\b", plain)]
            if hits and (best is None or max(hits) > best[0]):
                best = max(hits), exercise
    return best[1] if best else None


def asks_for_solution(text: str, exercise: Exercise | None) -> bool:
    """Whether a question wants an exercise's code or help with it, or solutions in general."""
    return bool(_CODE.search(text)) if exercise is not None else bool(_GENERAL.search(text))


def leaks(course: Course, solved: Collection[str], answer: str) -> bool:
    """Whether an answer holds a part of a solution that is not solved yet."""
    said = _rows(_tokens(answer))
    return any(said & rows for exercise, rows in _secrets(course).items() if exercise not in solved)


def has_line_of(solution: str, text: str) -> bool:
    """Whether a text has a line of a solution that does something, or most of one, whatever its white space is."""
    squeezed = re.sub(r"[\s'\"]", "", text)
    lines = [re.sub(r"[\s'\"]", "", line) for line in solution.splitlines() if not line.startswith(("import", "from"))]
    return any(line[i : i + LINE] in squeezed for line in lines for i in range(len(line) - LINE + 1))


def _defined(code: str) -> set[str]:
    """Names of the functions and classes of a task, as words; one short word (fit, flat) may mean anything."""
    names = {name.replace("_", " ").lower() for name in _NAMES.findall(code)}
    return {name for name in names if " " in name or len(name) >= LEAST_NAME}


def _tokens(text: str) -> list[str]:
    """Tokens as Python has them, names and texts made equal: with other names it is the same program."""
    plain = re.sub(r"```\w*|`|\[\d+\](?=\s|$)", " ", text)  # fences, and marks of citations
    found = []
    for token in _TOKEN.findall(plain):
        if token[0] in "\"'":
            found.append("text")
        elif token[0].isalpha() or token[0] == "_":
            found.append(token if keyword.iskeyword(token) else "name")
        else:
            found.append(token)
    return found


def _secrets(course: Course) -> dict[str, set[tuple[str, ...]]]:
    """The rows of each exercise's solution that stand nowhere else."""
    exercises = [exercise for chapter in course.written() for exercise in chapter.exercises.values()]
    lessons = "\n".join(section.text for chapter in course.written() for section in chapter.lesson().sections)
    return _own_rows(tuple((each.id, each.task, each.solution) for each in exercises), lessons)


@cache
def _own_rows(exercises: tuple[tuple[str, str, str], ...], lessons: str) -> dict[str, set[tuple[str, ...]]]:
    solutions = {name: _rows(_tokens(solution)) for name, _, solution in exercises}
    places = Counter(row for rows in solutions.values() for row in rows)
    shared, public = {row for row, count in places.items() if count > 1}, _rows(_tokens(lessons))
    return {name: solutions[name] - _rows(_tokens(task)) - shared - public for name, task, _ in exercises}


def _rows(tokens: Sequence[str]) -> set[tuple[str, ...]]:
    """Rows of LEAK tokens that are code."""
    rows = (tuple(tokens[i : i + LEAK]) for i in range(len(tokens) - LEAK + 1))
    return {row for row in rows if _is_code(row)}


def _is_code(row: Sequence[str]) -> bool:
    """Whether a row has enough marks of code, of several kinds: a chain of bare calls has two."""
    marks = [token for token in row if token in CODE_MARKS]
    return len(marks) >= LEAST_MARKS and len(set(marks)) >= LEAST_KINDS
