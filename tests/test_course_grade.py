"""Grading: what is said of right, wrong, broken, endless and greedy code."""

import json
from pathlib import Path

import pytest

from bottega.core.errors import BottegaError
from bottega.course import grade as grading_module
from bottega.course.grade import Verdict, grade, wrong_signatures
from bottega.course.grading import Wrong, close, equal, expect, raises, show
from bottega.course.library import Exercise
from bottega.course.schema import ExerciseData

TASK = '''"""Mean and softmax."""


def mean(numbers):
    """The mean; raises ValueError where there are no numbers."""
    raise NotImplementedError


def softmax(x):
    """exp(x) over its sum."""
    raise NotImplementedError
'''
SOLUTION = """import numpy as np


def mean(numbers):
    if not numbers:
        raise ValueError("no numbers")
    return sum(numbers) / len(numbers)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()
"""
GRADER = '''
import numpy as np

from bottega.course.grading import close, equal, expect, raises


def check_mean(task):
    """The mean of some lists.

    With a seed.
    """
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        numbers = rng.integers(0, 10, count).tolist()
        close(task.mean(numbers), float(np.mean(numbers)), 1e-9, call=f"mean({numbers})")


def check_empty(task):
    """No numbers are an error."""
    raises(ValueError, task.mean, [], call="mean([])")


def check_softmax(task):
    """Softmax of large numbers too."""
    x = np.array([1000.0, 0.0])
    close(task.softmax(x), np.array([1.0, 0.0]), 1e-9, call="softmax([1000, 0])", why="it overflows")
'''
DATA = {
    "title": {"en": "Mean"},
    "concepts": ["means"],
    "seconds": 20,
    "hints": [{"text": "a"}, {"text": "b"}, {"text": "c"}],
    "wrong": [
        {"name": "one-less", "replace": "len(numbers)", "by": "(len(numbers) - 1 or 1)", "mistake": "That is n - 1."},
        {"name": "no-error", "replace": 'raise ValueError("no numbers")', "by": "return 0.0", "mistake": "No error."},
        {"name": "overflow", "replace": " - x.max()", "by": "", "mistake": "exp(1000) is infinite."},
    ],
}


@pytest.fixture
def exercise(tmp_path: Path) -> Exercise:
    return make_exercise(tmp_path)


def make_exercise(folder: Path, grader: str = GRADER, **changes) -> Exercise:
    for name, text in (("task", TASK), ("solution", SOLUTION), ("grader", grader)):
        (folder / f"{name}.py").write_text(text)
    return Exercise("tiny", "mean", folder, ExerciseData.parse({**DATA, **changes}))


def run(exercise: Exercise, code: str) -> Verdict:
    return grade(exercise, code, state=exercise.folder / "state")


def test_a_solution_passes_and_every_check_says_what_it_checks(exercise: Exercise):
    verdict = run(exercise, SOLUTION)
    assert verdict.passed and verdict.error == "" and verdict.mistake == "" and verdict.failed is None
    assert [check.says for check in verdict.checks] == [
        "The mean of some lists.", "No numbers are an error.", "Softmax of large numbers too.",
    ]  # fmt: skip
    assert json.loads(json.dumps(verdict.as_data()))["checks"][0]["name"] == "check_mean"


def test_a_stub_fails(exercise: Exercise):
    verdict = run(exercise, TASK)
    assert not verdict.passed and not any(check.passed for check in verdict.checks)
    assert {check.message for check in verdict.checks} == {"Not written yet: it still raises NotImplementedError."}


def test_what_fails_as_a_wrong_solution_is_told_its_mistake(exercise: Exercise):
    code = SOLUTION.replace("sum(numbers) / len(numbers)", "sum(numbers) / max(len(numbers) - 1, 1)")
    verdict = run(exercise, code)
    failed = verdict.failed
    assert failed is not None and failed.call.startswith("mean([") and failed.expected and failed.got
    assert verdict.mistake == "That is n - 1."
    verdict = run(exercise, SOLUTION.replace("x - x.max()", "1.0 * x"))
    assert verdict.mistake == "exp(1000) is infinite." and "RuntimeWarning" in verdict.output
    assert verdict.failed is not None and verdict.failed.got.startswith("[nan")
    other = run(exercise, SOLUTION.replace("/ len(numbers)", "/ 7"))
    assert not other.passed and other.mistake == ""


def test_how_wrong_solutions_fail_is_computed_once(exercise: Exercise, monkeypatch: pytest.MonkeyPatch):
    state = exercise.folder / "state"
    first = wrong_signatures(exercise, state)
    assert set(first) == {"one-less", "no-error", "overflow"} and all(first.values())
    monkeypatch.setattr(grading_module, "run_python", lambda *_, **__: pytest.fail("run again"))
    assert wrong_signatures(exercise, state) == first


def test_commenting_the_function_out_fails(exercise: Exercise):
    verdict = run(exercise, "import numpy\n" + "\n".join(f"# {line}" for line in SOLUTION.splitlines()))
    assert not verdict.passed
    assert verdict.checks[0].message == "mean is missing: your file has nothing of this name."


@pytest.mark.parametrize("code", ["", "  \n"])
def test_an_empty_file_fails(exercise: Exercise, code: str):
    assert run(exercise, code) == Verdict(False, error="The file is empty.")


def test_a_syntax_error_shows_the_line(exercise: Exercise):
    verdict = run(exercise, "def mean(numbers):\n    return sum(numbers\n\n\nx = 1\n")
    assert not verdict.passed and verdict.checks == []
    assert verdict.error.startswith("line 2: ") and "    return sum(numbers\n" in verdict.error


def test_an_error_of_loading_shows_the_line(exercise: Exercise):
    verdict = run(exercise, SOLUTION + "\nprint('before')\nmean(3, 4)\n")
    assert verdict.error.startswith("TypeError: ") and verdict.error.endswith("line 15: mean(3, 4)")
    assert verdict.output == "before\n"


def test_an_exception_says_where_it_came_from(exercise: Exercise):
    verdict = run(exercise, SOLUTION.replace("return sum(numbers) / len(numbers)", "return numbers['a']"))
    failed = verdict.failed
    assert failed is not None and failed.message.startswith("TypeError: list indices")
    assert failed.where == "line 7: return numbers['a']" and "mean(numbers)" in failed.call


def test_an_endless_loop_is_a_verdict(tmp_path: Path):
    exercise = make_exercise(tmp_path, seconds=1)
    verdict = run(exercise, SOLUTION.replace("    e = np", "    while True: pass\n    e = np"))
    assert [check.passed for check in verdict.checks] == [True, True, False] and verdict.timed_out
    assert "Still running after 1 seconds" in verdict.checks[2].message and verdict.seconds < 4
    verdict = run(exercise, "while True: pass")
    assert "Still running" in verdict.error and verdict.checks == []


def test_too_much_memory_is_a_verdict(exercise: Exercise):
    for greedy in ("bytearray(1 << 33)", "np.ones(1 << 32)"):
        verdict = run(exercise, SOLUTION.replace("    e = np", f"    waste = {greedy}\n    e = np"))
        assert verdict.checks[2].message == "Your code needs more memory than it may have."


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "exit_ = __import__('os')._exit(0)", "raise SystemExit"])
def test_leaving_early_is_no_pass(exercise: Exercise, leave: str):
    verdict = run(exercise, SOLUTION.replace("    e = np", f"    {leave}\n    e = np"))
    assert not verdict.passed and [check.passed for check in verdict.checks] == [True, True, False]
    assert not run(exercise, SOLUTION + "\n" + leave).passed


def test_prints_are_kept(exercise: Exercise):
    code = SOLUTION.replace("    e = np", "    print('x is', x, end='')\n    e = np")
    verdict = run(exercise, "import sys\nprint('loaded')\nprint('other', file=sys.stderr)\n" + code)
    assert verdict.passed and verdict.output == "loaded\nx is [1000.    0.]\nother\n"
    endless = run(exercise, "while True: print('x' * 1000)")
    assert not endless.passed and "more than a megabyte" in endless.error and len(endless.output) < 30_000


def test_what_the_learner_writes_over_the_grading_changes_nothing(exercise: Exercise):
    cheat = "import bottega.course.grading as g\ng.close = g.raises = lambda *a, **k: None\nopen('grader.py', 'w')\n"
    verdict = run(exercise, cheat + "def mean(numbers): return 5.0\ndef softmax(x): return x")
    assert [check.passed for check in verdict.checks] == [False, False, False]


def test_input_and_recursion_are_told(exercise: Exercise):
    verdict = run(exercise, SOLUTION.replace("return sum(numbers) / len(numbers)", "return input()"))
    assert "asks for input" in verdict.checks[0].message
    verdict = run(exercise, SOLUTION.replace("return sum(numbers) / len(numbers)", "return mean(numbers)"))
    assert "calls itself without end" in verdict.checks[0].message


@pytest.mark.parametrize("grader", ["x = 1", "import not_there", "def check_x(task): pass\nx ="])
def test_a_broken_grader_is_no_verdict(tmp_path: Path, grader: str):
    with pytest.raises(BottegaError, match="the grader of tiny/mean"):
        run(make_exercise(tmp_path, grader=grader), SOLUTION)


def test_it_is_fast(exercise: Exercise):
    assert min(run(exercise, SOLUTION).seconds for _ in range(3)) < 1.5  # 0.2 s on an idle machine


def wrong(function, *arguments, **settings) -> Wrong:
    with pytest.raises(Wrong) as caught:
        function(*arguments, **settings)
    return caught.value


def test_equal():
    import numpy as np
    import torch

    for same in (1, "a", [1, (2, {"x": None})], np.arange(3), float("nan"), np.array([np.nan, 1]), torch.ones(2, 2)):
        equal(same, same)
    equal(np.float64(2), 2)
    equal(torch.tensor([1, 2]), np.array([1, 2]))
    for got, expected in (
        (1, 2), ("a", "b"), ([1], (1,)), ([1, 2], [1]), ({"a": 1}, {"b": 1}), (True, 1), (None, 1), (1, None),
        (np.ones(2), np.ones(3)), (np.ones(2), np.array([1, 2])), ([1.0], np.ones(1)), (None, np.ones(1)),
        (float("nan"), 1.0), (np.array([np.nan]), np.ones(1)),
    ):  # fmt: skip
        wrong(equal, got, expected)
    found = wrong(equal, [1, [2, 3]], [1, [2, 4]], call="f()", why="it is off")
    assert (found.message, found.call, found.expected, found.got) == (
        "it is off (3 at [1][1], not 4)", "f()", "[1, [2, 4]]", "[1, [2, 3]]",
    )  # fmt: skip
    assert "nothing is returned" in wrong(equal, None, 3).message


def test_close():
    import numpy as np
    import torch

    close(1.0 + 1e-7, 1.0)
    close(1e6 + 0.5, 1e6, 1e-6)
    close(float("inf"), float("inf"))
    close(torch.tensor([1.0]), [1.0 + 1e-8][0] * np.ones(1))
    close((1.0, 2.0), [1.0, 2.0])
    close(torch.ones(2, dtype=torch.bfloat16), np.ones(2))
    for got, expected in (
        (1.1, 1.0), (float("nan"), 1.0), (1.0, float("inf")), (np.array([1.0, np.inf]), np.array([1.0, 5.0])),
        (np.ones((2, 1)), np.ones(2)), ("1", 1.0), (np.array([5.0]), np.array([np.inf])),
    ):  # fmt: skip
        wrong(close, got, expected)
    found = wrong(close, np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert found.message == "1 of 4 entries differ, the first at [1, 1]: 5, not 4"


def test_expect_and_raises():
    expect(True, "never said")
    assert wrong(expect, [], "it is empty", call="f()", got=[]).got == "[]"
    raises(ValueError, int, "x")
    assert wrong(raises, ValueError, int, "3").message == "it raises no ValueError"
    assert "it raises TypeError, not ValueError" in wrong(raises, ValueError, int, []).message


def test_what_is_shown_is_short():
    import numpy as np

    assert show(1 / 3) == "0.3333333" and show((1.0,)) == "(1,)" and show({"a": [0.1]}) == "{'a': [0.1]}"
    assert len(show("x" * 10_000)) < 450 and len(show(np.zeros((100, 100)))) < 450
    assert show(np.array([[1.0, 0.5]])) == "[[1. , 0.5]] (shape (1, 2))"
