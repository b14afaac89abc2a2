"""A course of two small chapters that breaks no rule: tests change one thing of it, and see which rule is broken."""

from __future__ import annotations

from pathlib import Path

from bottega.core.view import Table
from bottega.course.lab import Effect, Show, Value
from bottega.course.library import Course, LabFile, load_course
from bottega.course.recorded import recording_of, write_recording

CHAPTER = """id = "tiny"
part = "scientist"
number = 1
title = { en = "Tiny", zh = "小" }
prerequisites = ["later"]
minutes = 10
objectives = ["Add"]
out_of_scope = ["Everything else"]

[[leaves]]
id = "adding"
title = { en = "Adding", zh = "加法" }

[[concepts]]
id = "sums"
leaf = "adding"
title = { en = "Sums", zh = "和" }

[[concepts]]
id = "means"
leaf = "adding"
title = { en = "Means", zh = "均值" }
prerequisites = ["sums"]

[[sources]]
title = "Example"
url = "https://example.org/a"
licence = "CC0"
checked = "2026-01-01"
"""
LATER = """id = "later"
part = "engineer"
number = 1
title = { en = "Later", zh = "以后" }
written = false

[[leaves]]
id = "later-leaf"
title = { en = "Later", zh = "以后" }
"""
LESSON = """# Tiny

An opening.

## Sums {#sums leaf=adding}

The sum is {{value:lab.sum|d}}, and $x^2 + y^2$ is a formula. It costs \\$5. See [the means](#means) and
[a source](https://example.org/a).

{{lab:lab}}

{{figure:lab.table}}

```python
x = "{{not an insert}} <b>"
```

## Means {#means leaf=adding}

$$
\\bar x = \\frac{1}{n} \\sum_i x_i
$$

{{exercise:mean}}

{{quiz:means}}

{{source:bottega.core.errors:UserError}}
"""
CHINESE = """# 小

开头。

## 和 {#sums leaf=adding}

和为 {{value:lab.sum|d}}，$x^2 + y^2$ 是公式。价格 \\$5。见[均值](#means)与[来源](https://example.org/a)。

{{lab:lab}}

{{figure:lab.table}}

```python
x = "{{not an insert}} <b>"
```

## 均值 {#means leaf=adding}

$$
\\bar x = \\frac{1}{n} \\sum_i x_i
$$

{{exercise:mean}}

{{quiz:means}}

{{source:bottega.core.errors:UserError}}
"""
QUIZ = '''[[items]]
id = "sum-of-two"
concept = "sums"
kind = "numeric"
section = "sums"
generator = "two"

[[items]]
id = "mean-of-two"
concept = "means"
kind = "single"
section = "means"
stem = "The mean of 2 and 4?"
options = [
    { text = "two", why = "That is the smaller." , misconception = "smallest" },
    { text = "three", right = true, why = "6 / 2." },
    { text = "exactly six", why = "That is the sum." },
]

[[items]]
id = "mean-printed"
concept = "means"
kind = "output"
section = "means"
stem = "What is printed?"
code = """print((2 + 4) / 2)
print("end")"""
answer = """3.0
end"""
why = "/ makes a float."
mistakes = { "3" = "/ makes a float" }

[[items]]
id = "mean-gap"
concept = "means"
kind = "cloze"
section = "means"
stem = "The ___ divided by the ___."
answer = ["sum", "count"]
why = "By definition."
'''
GENERATORS = '''"""Questions."""


def two(draw):
    """a + b."""
    a, b = draw.randint(1, 50), draw.randint(1, 50)
    return {
        "stem": f"What is {a} + {b}?",
        "answer": a + b,
        "why": "Add.",
        "mistakes": {str(a + b + 1): "One too many."},
    }
'''
LAB = '''"""Add numbers.

Their sum is shown.
"""

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.lab import Effect, Show, Value

BUDGET = 5


class Params(Config):
    """What can be changed."""

    count: int = 3
    """How many."""


def run(params):
    """Add."""
    total = sum(range(params.count))
    yield Show("table", Table("Sum", ["sum"], [[total]]))
    yield Value("sum", total, "units", 0)
    yield Effect("it adds", total == 3)
'''
EXERCISE = """title = { en = "Mean", zh = "均值" }
concepts = ["means"]
section = "means"

[[hints]]
text = "Add first."
[[hints]]
text = "Then divide."
[[hints]]
text = "By the count."

[[wrong]]
name = "sum-only"
replace = "total / len(numbers)"
by = "total"
mistake = "Divide."
[[wrong]]
name = "one-less"
replace = "total / len(numbers)"
by = "total / (len(numbers) - 1)"
mistake = "That is n - 1."
[[wrong]]
name = "whole"
replace = "total / len(numbers)"
by = "total // len(numbers)"
mistake = "That is a whole number."
"""
TASK = '''"""The mean."""


def mean(numbers):
    """The mean of numbers."""
    raise NotImplementedError
'''
SOLUTION = '''"""The mean."""


def mean(numbers):
    """The mean of numbers."""
    total = sum(numbers)
    return total / len(numbers)
'''
GRADER = '''"""Checks."""

from bottega.course.grading import close


def check_mean(task):
    """The mean of three numbers."""
    close(task.mean([1, 2, 5]), 8 / 3, 1e-9, call="mean([1, 2, 5])")
'''
TERMS = """[[term]]
en = "attention"
zh = "注意力"
wrong_zh = ["关注度"]
"""
FILES = {
    "scientist/tiny/chapter.toml": CHAPTER,
    "engineer/later/chapter.toml": LATER,
    "scientist/tiny/lesson.en.md": LESSON,
    "scientist/tiny/lesson.zh.md": CHINESE,
    "scientist/tiny/quiz.toml": QUIZ,
    "scientist/tiny/quiz.py": GENERATORS,
    "scientist/tiny/lab.py": LAB,
    "scientist/tiny/exercises/mean/exercise.toml": EXERCISE,
    "scientist/tiny/exercises/mean/task.py": TASK,
    "scientist/tiny/exercises/mean/solution.py": SOLUTION,
    "scientist/tiny/exercises/mean/grader.py": GRADER,
    "terminology.toml": TERMS,
}


def make_course(root: Path, changes: dict[str, tuple[str, str] | None] | None = None) -> Course:
    """Write the course, with one text replaced in some files (None: without the file), and load it."""
    folder = root / "scientist" / "tiny"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    lab = LabFile("tiny", "lab", folder / "lab.py")
    events = [Show("table", Table("Sum", ["sum"], [[3]])), Value("sum", 3, "units", 0), Effect("it adds", True)]
    write_recording(lab, recording_of(lab, events, {"count": 3}, 0.1))
    for name, change in (changes or {}).items():
        path = next(
            path for path in (root / name, folder / name, folder / "exercises" / "mean" / name) if path.exists()
        )
        if change is None:
            path.unlink()
        else:
            text = path.read_text("utf-8")
            assert change[0] in text, f"{change[0]!r} is not in {name}"
            path.write_text(text.replace(change[0], change[1], 1), "utf-8")
    load_course.cache_clear()
    return load_course(root)
