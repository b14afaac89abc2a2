"""Inside the sandbox: runs the checks of `grader.py` on the learner's `task.py`, and tells of each as it goes.

What is told goes to standard output between the learner's own prints, as `\\0MARK{json}\\n` with a mark drawn for this
run, so that what came before a time-out is known. Imports the standard library and `grading` only.
"""

from __future__ import annotations

import json
import linecache
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from bottega.course.grading import Wrong

TASK, GRADER = "task.py", "grader.py"


def main() -> None:
    """Load both, run every check, end."""
    mark = sys.stdin.readline().strip()

    def tell(**what: Any) -> None:
        sys.stdout.flush()
        os.write(1, f"\0{mark}{json.dumps(what)}\n".encode("utf-8", "backslashreplace"))

    try:
        checks = load_checks()
    except Exception:
        tell(grader=traceback.format_exc())
        return
    tell(checks=[{"name": name, "says": says} for name, says, _ in checks])
    task, error = load_task()
    if task is None:
        tell(error=error)
    else:
        for name, _, check in checks:
            tell(start=name)
            tell(name=name, **run_check(check, task))
    tell(over=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # whatever threads the learner has left


def load_checks() -> list[tuple[str, str, Callable[[ModuleType], object]]]:
    """Name, first line of the docstring, and function of every check, in the order of the file."""
    grader = load(GRADER, "grader")
    found = [(name, value) for name, value in vars(grader).items() if name.startswith("check_") and callable(value)]
    found.sort(key=lambda each: each[1].__code__.co_firstlineno)
    return [(name, (check.__doc__ or name).strip().splitlines()[0], check) for name, check in found]


def load_task() -> tuple[ModuleType | None, str]:
    """The learner's module, or what is wrong with it."""
    try:
        return load(TASK, "task"), ""
    except SyntaxError as error:
        if error.filename != TASK:
            return None, f"{type(error).__name__}: {error}"
        caret = " " * max((error.offset or 1) - 1, 0) + "^"
        line = (error.text or "").rstrip("\n").replace("\t", " ")
        return None, f"line {error.lineno}: {error.msg}\n    {line}\n    {caret}"
    except BaseException as error:
        where = place(error)
        return None, explain(error) + (f"\n{where}" if where else "")


def load(path: str, name: str) -> ModuleType:
    """Run a file as the module `name`."""
    source = Path(path).read_text("utf-8")
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    code = compile(source, path, "exec")
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # dataclasses look their module up
    exec(code, module.__dict__)
    return module


def run_check(check: Callable[[ModuleType], object], task: ModuleType) -> dict[str, Any]:
    """Whether it passed; if not, why."""
    seed()
    try:
        check(task)
    except Wrong as wrong:
        return {**wrong.__dict__, "passed": False}
    except BaseException as error:
        if isinstance(error, AttributeError) and error.obj is task:
            return {"passed": False, "message": f"{error.name} is missing: your file has nothing of this name."}
        return {"passed": False, "message": explain(error), "where": place(error), "call": called(error)}
    return {"passed": True}


def seed() -> None:
    """The same draws in every run, also for code that draws from a shared generator."""
    random.seed(0)
    for name, path in (("numpy", ("random", "seed")), ("torch", ("manual_seed",))):
        function: Any = sys.modules.get(name)
        for part in path:
            function = getattr(function, part, None)
        if function is not None:
            function(0)


def explain(error: BaseException) -> str:
    """An exception of the learner's code in words."""
    text = str(error)
    if isinstance(error, NotImplementedError):
        return "Not written yet: it still raises NotImplementedError."
    if isinstance(error, SystemExit):
        return "Your code ends the program (exit or sys.exit); a function returns instead."
    if isinstance(error, EOFError) and "reading a line" in text:
        return "Your code asks for input; there is nobody to type it."
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "Your code needs more memory than it may have."
    if isinstance(error, RecursionError):
        return "RecursionError: your function calls itself without end."
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed here."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str:
    """The innermost line of the learner's file that the exception passed."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == TASK]
    return f"line {lines[-1].lineno}: {lines[-1].line}" if lines else ""


def called(error: BaseException) -> str:
    """The line of the grader from which the learner's code was called."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.line or "" for frame in frames if frame.filename == GRADER]
    return lines[-1].strip().replace("task.", "") if lines and any(frame.filename == TASK for frame in frames) else ""


if __name__ == "__main__":
    main()
