"""Grading: the checks of an exercise run on a learner's code, in the sandbox, and what they say.

The grader is the course's own file, never one that the learner has; the code runs in a process of its own with limits
and without network (`core/sandbox`), so that an endless loop or a `sys.exit` is a verdict like another. Code that fails
exactly as one of the exercise's listed wrong solutions does is told that solution's mistake.

The sandbox keeps code from doing harm, not from deceit: whoever wants to forge a verdict on their own machine can.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_json
from bottega.core.errors import BottegaError
from bottega.core.hashing import digest_data
from bottega.core.sandbox import SandboxResult, run_python
from bottega.core.workspace import workspace_path
from bottega.course.library import Exercise

VERSION = 1
MEMORY, TORCH_MEMORY = 2 << 30, 6 << 30  # address space; torch alone maps more than 2 GiB
LONGEST_OUTPUT = 20_000  # characters of the learner's prints that are kept
_HEAVY = re.compile(r"^\s*(import|from)\s+(torch|bottega|sklearn|pandas|seaborn|matplotlib)\b", re.MULTILINE)
_MAIN = "from bottega.course.grade_entry import main; main()"


@dataclass(frozen=True)
class CheckResult:
    """One check. `says` tells what is checked; the rest is of one that failed, and empty where there is nothing."""

    name: str
    says: str
    passed: bool
    message: str = ""
    call: str = ""
    expected: str = ""
    got: str = ""
    where: str = ""
    """The line of the learner's file at which an exception came."""


@dataclass(frozen=True)
class Verdict:
    """What grading found."""

    passed: bool
    checks: list[CheckResult] = field(default_factory=list)
    error: str = ""
    """Why no check could run: the code is no Python, or fails when it is loaded."""
    seconds: float = 0.0
    output: str = ""
    """What the code printed."""
    mistake: str = ""
    """The mistake of the listed wrong solution that fails in the same way."""
    timed_out: bool = False
    """Whether time was up."""

    @property
    def failed(self) -> CheckResult | None:
        """The first check that did not pass."""
        return next((check for check in self.checks if not check.passed), None)

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def grade(exercise: Exercise, code: str, state: Path | None = None) -> Verdict:
    """Run the checks of `exercise` on `code`.

    Args:
        exercise: what is asked.
        code: the learner's file.
        state: the course's folder of state, where the ways in which wrong solutions fail are kept
            (default: the workspace's course folder).

    Raises:
        BottegaError: if the exercise's own grader is broken.
    """
    verdict = run_checks(exercise, code)
    if verdict.passed or verdict.error or verdict.timed_out:
        return verdict
    mistake = find_mistake(exercise, verdict, state or workspace_path() / "course")
    return Verdict(**{**vars(verdict), "mistake": mistake})


def run_checks(exercise: Exercise, code: str) -> Verdict:
    """The verdict without a look at the wrong solutions."""
    if not code.strip():
        return Verdict(False, error="The file is empty.")
    mark = secrets.token_hex(16)
    heavy = any(_HEAVY.search(source) for source in (code, exercise.grader, exercise.solution))
    result = run_python(
        _MAIN,
        timeout=exercise.data.seconds,
        memory_bytes=TORCH_MEMORY if heavy else MEMORY,
        stdin=mark + "\n",
        files={"task.py": code.encode("utf-8", "replace"), "grader.py": exercise.grader},
        packages=True,
    )
    told, output = _read(result, mark)
    broken = next((each["grader"] for each in told if "grader" in each), None)
    if broken is not None:
        raise BottegaError(f"the grader of {exercise.id} cannot be loaded: {broken.strip()}", hint=_missing(broken))
    declared = next((each["checks"] for each in told if "checks" in each), None)
    if declared == []:
        raise BottegaError(f"the grader of {exercise.id} has no function check_*")
    over = any("over" in each for each in told)
    error = next((each["error"] for each in told if "error" in each), "")
    end = "" if over else _end(result, exercise.data.seconds)
    if declared is None:
        raise BottegaError(f"the grader of {exercise.id} did not start: {end} {result.stderr[-2000:]}".strip())
    checks = [] if error else _checks(declared, told, end)
    if end and not any("start" in each for each in told):
        checks, error = [], f"{end} It came that far while your file was loaded."
    passed = over and not error and bool(checks) and all(check.passed for check in checks)
    timed_out = result.timed_out and not over
    return Verdict(passed, checks, error, round(result.seconds, 3), output, timed_out=timed_out)


def _read(result: SandboxResult, mark: str) -> tuple[list[dict[str, Any]], str]:
    """What the entry told, and what the learner's code printed."""
    told: list[dict[str, Any]] = []
    pieces = re.split(rf"\x00{mark}(.*)\n", result.stdout)
    for text in pieces[1::2]:
        with contextlib.suppress(ValueError):
            told.append(json.loads(text))
    output = "".join(pieces[0::2]).partition(f"\0{mark}")[0]
    if result.stderr.strip():
        output += ("\n" if output and not output.endswith("\n") else "") + result.stderr
    if len(output) > LONGEST_OUTPUT:
        output = output[:LONGEST_OUTPUT] + f"\n… ({len(output):,} characters)"
    return told, output


def _checks(declared: list[dict[str, str]], told: list[dict[str, Any]], end: str) -> list[CheckResult]:
    results = {each["name"]: each for each in told if "name" in each}
    started = {each["start"] for each in told if "start" in each}
    found = []
    for check in declared:
        name = check["name"]
        if name in results:
            found.append(CheckResult(says=check["says"], **results[name]))
        elif name in started:
            found.append(CheckResult(name, check["says"], False, end))
        else:
            found.append(
                CheckResult(name, check["says"], False, "Not run: the check before it did not come to an end.")
            )
    return found


def _end(result: SandboxResult, seconds: float) -> str:
    """Why it did not come to its end, in words."""
    if result.timed_out:
        return f"Still running after {seconds:g} seconds, and stopped. Is there a loop that never ends?"
    if result.output_cut:
        return "Stopped, as it printed more than a megabyte."
    if result.exit_status is not None and result.exit_status < 0:
        signal = -result.exit_status
        return f"The program was ended by the system (signal {signal}): too much memory, or too deep a recursion."
    return f"The program ended before the check was through (exit status {result.exit_status})."


def _missing(error: str) -> str:
    """What to install where a package of the course is missing."""
    found = re.search(r"No module named '([\w.]+)'", error)
    return f"Install {found[1].partition('.')[0]}: pip install 'bottega[course]'" if found else ""


def find_mistake(exercise: Exercise, verdict: Verdict, state: Path) -> str:
    """The mistake of the one wrong solution that fails as `verdict` does; empty if none does, or several do."""
    signature = signature_of(verdict)
    known = wrong_signatures(exercise, state)
    same = [wrong.mistake for wrong in exercise.data.wrong if known.get(wrong.name) == signature]
    return same[0] if len(same) == 1 else ""


def signature_of(verdict: Verdict) -> list[list[str]]:
    """How code fails: each failing check, with what it says and what came. Where in the file is left out."""
    return [[check.name, check.message, check.call, check.got] for check in verdict.checks if not check.passed]


def wrong_solutions(exercise: Exercise) -> Iterator[tuple[str, str]]:
    """Name and code of every wrong solution; raises BottegaError where the text to replace is not there once."""
    solution = exercise.solution
    for wrong in exercise.data.wrong:
        if solution.count(wrong.replace) != 1:
            count = solution.count(wrong.replace)
            raise BottegaError(
                f"{exercise.id}: the text that {wrong.name} replaces stands {count} times in solution.py"
            )
        yield wrong.name, solution.replace(wrong.replace, wrong.by)


def wrong_signatures(exercise: Exercise, state: Path) -> dict[str, list[list[str]]]:
    """How each wrong solution fails, kept by the hash of what decides it."""
    wrong = [[each.name, each.replace, each.by] for each in exercise.data.wrong]
    key = digest_data([VERSION, exercise.grader, exercise.solution, wrong])
    path = state / "signatures" / f"{exercise.chapter}-{exercise.name}-{key[:16]}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text("utf-8"))
    try:
        code = dict(wrong_solutions(exercise))
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            verdicts = list(pool.map(partial(run_checks, exercise), code.values()))
    except BottegaError:
        return {}
    found = {name: signature_of(verdict) for name, verdict in zip(code, verdicts, strict=True)}
    if any(verdict.timed_out for verdict in verdicts):
        return found  # the machine was busy: another time they may fail in their own ways
    with contextlib.suppress(OSError):  # it can be computed again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return found
