"""Questions that are computed: generators drawn with many seeds, and programs whose output is the answer.

    python -m bottega.course.check.made QUIZ.py '["generator", …]' SEEDS

runs the generators and writes what they made as JSON: quiz.py may import the library, and torch with it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.sandbox import run_python
from bottega.course.check.problem import Problem, line_of
from bottega.course.lab import load_module
from bottega.course.library import Chapter
from bottega.course.schema import Item

SEEDS, LEAST_DIFFERENT = 100, 4
SECONDS = 120
_FIELDS = ("id", "concept", "kind", "difficulty", "section", "generator")


def make_items(chapter: Chapter) -> tuple[dict[str, list[Item]], list[Problem]]:
    """What every generator of a chapter makes for seeds from 0 on, by the id of its item; and what is wrong with it."""
    asked = [item for item in chapter.items if item.generator]
    path = chapter.folder / "quiz.py"
    if not asked:
        return {}, []
    if not path.is_file():
        return {}, [Problem(path, 0, "generator-exists", f"{asked[0].id} has a generator, and there is no quiz.py")]
    command = [sys.executable, "-m", "bottega.course.check.made", str(path.resolve())]
    names = sorted({item.generator for item in asked})
    try:
        done = subprocess.run(
            [*command, json.dumps(names), str(SEEDS)], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {}, [Problem(path, 0, "generator-runs", f"the generators take longer than {SECONDS} s")]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended"])[-1]
        return {}, [Problem(path, 0, "generator-runs", f"quiz.py cannot be run: {last}")]
    return _items(asked, json.loads(done.stdout), path)


def _items(asked: Sequence[Item], drawn: dict[str, Any], path: Path) -> tuple[dict[str, list[Item]], list[Problem]]:
    made: dict[str, list[Item]] = {}
    problems: list[Problem] = []
    for item in asked:
        line = line_of(path, f"def {item.generator}(")
        found = drawn[item.generator]
        if "error" in found:
            problems.append(Problem(path, line, "generator-runs", f"{item.generator}: {found['error']}"))
            continue
        try:
            made[item.id] = [made_item(item, fields) for fields in found["made"]]
        except UserError as error:
            problems.append(Problem(path, line, "generator-valid", error.message, error.hint))
            continue
        different = len({each.model_dump_json() for each in made[item.id]})
        if different < LEAST_DIFFERENT:
            message = f"{item.generator} makes {different} different questions of {SEEDS} seeds"
            problems.append(Problem(path, line, "generator-differs", message, "Draw more from its random."))
        if not found["same"]:
            problems.append(
                Problem(path, line, "generator-seeded", f"{item.generator} makes another for the same seed")
            )
    return made, problems


def made_item(item: Item, fields: dict[str, Any]) -> Item:
    """The question of an item with a generator, as it made it; raises UserError if that is none."""
    own = item.model_dump(include=set(_FIELDS))
    return Item.parse({**own, **fields}, where=f"{item.id} ({item.generator})")


def output_problems(chapter: Chapter, made: dict[str, list[Item]]) -> Iterator[Problem]:
    """Questions on what a program prints: it is run, and must print the answer."""
    path = chapter.folder / "quiz.toml"
    for item in chapter.items:
        if item.kind != "output":
            continue
        for each in made.get(item.id, ())[:3] if item.generator else (item,):
            problem = output_problem(each)
            if problem:
                line = line_of(path, f'id = "{item.id}"')
                yield Problem(path, line, "output-right", f"{item.id}: {problem}", "Take what the program prints.")
                break


def output_problem(item: Item) -> str:
    """How what the program prints differs from the answer; empty if it does not."""
    result = run_python(item.code, timeout=30, memory_bytes=6 << 30, packages=True)
    assert isinstance(item.answer, str)
    if not result.ok:
        last = (result.stderr.strip().splitlines() or ["it was stopped"])[-1]
        return f"the program fails: {last}"
    return (
        ""
        if same_output(result.stdout, item.answer)
        else f"the program prints {result.stdout.strip()!r}, not {item.answer!r}"
    )


def same_output(printed: str, answer: str) -> bool:
    """Whether two outputs are the same, line by line; space at the ends of lines does not count."""
    lines = [[line.rstrip() for line in text.strip("\n").splitlines()] for text in (printed, answer)]
    return lines[0] == lines[1]


def main(arguments: list[str]) -> None:
    """Run generators and print what they made."""
    module = load_module(Path(arguments[0]))
    print(json.dumps({name: draw(getattr(module, name, None), int(arguments[2])) for name in json.loads(arguments[1])}))


def draw(generator: Any, seeds: int) -> dict[str, Any]:
    """What a generator makes for each seed, or the error."""
    if generator is None:
        return {"error": "there is no such function in quiz.py"}
    try:
        made = [json.loads(json.dumps(generator(random.Random(seed)))) for seed in range(seeds)]
        again = json.loads(json.dumps(generator(random.Random(0))))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"made": made, "same": made[0] == again}


if __name__ == "__main__":
    main(sys.argv[1:])
