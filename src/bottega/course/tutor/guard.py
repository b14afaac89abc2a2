"""What the tutor does not tell: the reference solution of an exercise that is not solved yet.

Its corpus has no solutions, so an answer taken from it cannot hold one; a model that rewrites might still write one by
itself. So questions that ask for a solution get the next hint, and every answer is compared with all open solutions.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Collection, Iterable

from bottega.course.library import Course, Exercise

LEAK = 12  # tokens in a row that an answer and a solution may not share, unless the task itself has them
_ASKS = re.compile(
    r"""\b(
    solutions? | solve | answer\ key | answers?\ to | reference\ (code|implementation|answer)
    | do\ (it|my|the)\ (\w+\ )?for\ me
    | (full|complete|whole|entire|final|finished|working|correct)\ (code|function|program|implementation|answer)
    | (write|give|show|print|send|paste|reveal|output|leak|dump|display|translate|encode|spell|recite|repeat|type|list
       |read|cat|open|fill\ in|complete|finish|implement|continue)\b
      .{0,60}\b(code|function|exercise|task|implementation|body|lines?|grader|file|program|def)
    )\b""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_FILES = re.compile(r"\b(solution|grader|wrong|exercise)\.(py|toml)\b|exercises?/", re.IGNORECASE)


def exercise_meant(course: Course, text: str) -> Exercise | None:
    """The exercise that a question is about, by its name, its title, or the names that its task defines."""
    plain = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
    best: tuple[int, Exercise] | None = None
    for chapter in course.written():
        for exercise in chapter.exercises.values():
            names = {exercise.name.replace("-", " "), *_defined(exercise.task)}
            hits = [name for name in names if re.search(rf"\b{re.escape(name)}\b", plain)]
            if hits and (best is None or len(max(hits, key=len)) > best[0]):
                best = len(max(hits, key=len)), exercise
    return best[1] if best else None


def asks_for_solution(text: str) -> bool:
    """Whether a question wants code or a solution to be written out."""
    return bool(_ASKS.search(text) or _FILES.search(text))


def leaks(course: Course, solved: Collection[str], answer: str) -> bool:
    """Whether an answer holds a part of a solution that is not solved yet."""
    said = _code_tokens(answer)
    for chapter in course.written():
        for exercise in chapter.exercises.values():
            if exercise.id in solved:
                continue
            open_ = _grams(_code_tokens(exercise.solution)) - _grams(_code_tokens(exercise.task))
            if open_ & _grams(said):
                return True
    return False


def _defined(code: str) -> set[str]:
    """Names of the functions and classes of a task, as words."""
    return {name.replace("_", " ").lower() for name in re.findall(r"^\s*(?:def|class)\s+(\w+)", code, re.MULTILINE)}


def _code_tokens(text: str) -> list[str]:
    """Tokens of Python, with every name that is no keyword made equal: another name is no other program."""
    found: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(re.sub(r"```\w*", "", text)).readline):
            if token.type == tokenize.NAME:
                found.append(token.string if keyword.iskeyword(token.string) else "name")
            elif token.type in (tokenize.OP, tokenize.NUMBER):
                found.append(token.string)
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass  # prose is no Python: what was read until then counts
    return found


def _grams(tokens: Iterable[str]) -> set[tuple[str, ...]]:
    """Runs of LEAK tokens that are code: prose has few operators."""
    row = list(tokens)
    runs = (tuple(row[i : i + LEAK]) for i in range(len(row) - LEAK + 1))
    return {run for run in runs if sum(not token.isalpha() for token in run) >= LEAK // 3}
