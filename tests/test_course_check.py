"""The authors' linter: a course that breaks no rule, for every rule a change that breaks it, and our own course."""

import ast
import json
from pathlib import Path

import pytest

from bottega.course import check as check_package
from bottega.course.check import made
from bottega.course.check.made import same_output
from bottega.course.check.passed import Passed, key_of
from bottega.course.check.problem import Problem
from bottega.course.check.prose import formula_problem
from bottega.course.check.quiz import key_is_longest, quiz_problems
from bottega.course.check.run import Checker
from bottega.course.lesson import INSERT
from bottega.course.library import CONTENT, load_course
from bottega.course.recorded import read_recording
from bottega.course.schema import Item
from tiny_course import make_course

Change = dict[str, tuple[str, str] | None]


def check(root: Path, changes: Change | None = None, *, quick: bool = True) -> list[Problem]:
    course = make_course(root, changes)
    checker = Checker(course, Passed(root / "state" / "passed.json"), root=root, quick=quick)
    return checker.check(list(course.chapters.values())).problems


def test_a_sound_course_has_no_problem(tmp_path: Path):
    assert check(tmp_path, quick=False) == []


L, C, Q, E = "lesson.en.md", "chapter.toml", "quiz.toml", "exercise.toml"
READ: list[tuple[str, Change]] = [
    ("place", {C: ('part = "scientist"', 'part = "fundamentals"')}),
    ("prerequisite-exists", {C: ('["later"]', '["latter"]')}),
    ("prerequisite-exists", {C: ('["sums"]', '["summs"]')}),
    ("acyclic", {C: ('zh = "和" }', 'zh = "和" }\nprerequisites = ["means"]')}),
    ("acyclic", {"engineer/later/chapter.toml": ("written = false", 'written = false\nprerequisites = ["tiny"]')}),
    ("leaf-exists", {C: ('leaf = "adding"', 'leaf = "subtracting"')}),
    ("title-zh", {C: (', zh = "均值"', "")}),
    ("complete", {C: ("minutes = 10\n", "")}),
    ("leaf-teaches", {C: ("[[concepts]]", '[[leaves]]\nid = "x"\ntitle = { en = "X", zh = "X" }\n\n[[concepts]]')}),
    ("unique", {"engineer/later/chapter.toml": ('id = "later-leaf"', 'id = "adding"')}),
    ("unique", {C: ('id = "means"', 'id = "sums"')}),
    ("unique", {Q: ('id = "mean-gap"', 'id = "mean-printed"')}),
    ("lesson-exists", {L: None}),
    ("reads", {L: ("{#means leaf=adding}", "")}),
    ("title", {L: ("# Tiny", "Tiny")}),
    ("leaf-exists", {L: ("leaf=adding", "leaf=subtracting")}),
    ("section-full", {L: ("## Means", "## Nothing {#nothing}\n\n## Means")}),
    ("leaf-section", {C: ("[[concepts]]", '[[leaves]]\nid = "x"\ntitle = { en = "X", zh = "X" }\n\n[[concepts]]')}),
    ("insert-form", {L: ("{{lab:lab}}", "{{labs:lab}}")}),
    ("insert-form", {L: ("{{lab:lab}}", "{{lab}}")}),
    ("insert-line", {L: ("{{lab:lab}}", "See {{lab:lab}}")}),
    ("lab-exists", {L: ("{{lab:lab}}", "{{lab:labor}}")}),
    ("exercise-exists", {L: ("{{exercise:mean}}", "{{exercise:means}}")}),
    ("quiz-exists", {L: ("{{quiz:means}}", "{{quiz:mean}}")}),
    ("value-exists", {L: ("lab.sum|d", "lab.total|d")}),
    ("value-exists", {L: ("lab.sum|d", "labor.sum|d")}),
    ("value-exists", {L: ("lab.sum|d", "lab.sum|zz")}),
    ("figure-exists", {L: ("lab.table", "lab.chart")}),
    ("source-exists", {L: ("errors:UserError", "errors:UsersError")}),
    ("source-exists", {L: ("bottega.core.errors", "os.path")}),
    ("lab-used", {L: ("{{lab:lab}}\n", "")}),
    ("exercise-used", {L: ("{{exercise:mean}}\n", "")}),
    ("formula", {L: ("$x^2 + y^2$", "$\\foo{x}$")}),
    ("formula", {L: ("\\frac{1}{n} \\sum_i x_i", "\\frac{1}")}),
    ("formula", {L: ("It costs \\$5.", "It costs $5 and $6.")}),
    ("link", {L: ("(#means)", "(#mean)")}),
    ("link", {L: ("example.org/a", "example.org/b")}),
    ("link", {L: ("(#means)", "(/course/tini)")}),
    ("link", {L: ("(#means)", "(lesson.zh.md)")}),
    ("link", {L: ("(#means)", "(/course/later)")}),  # a chapter without a lesson has no page
    ("image", {L: ("[the means](#means)", "![the means](means.png)")}),
    ("html", {L: ("An opening.", "An <b>opening</b>.")}),
    ("machine-path", {L: ("An opening.", "In /home/ada/course.")}),
    ("parity-sections", {"lesson.zh.md": ("{#means", "{#mean")}),
    ("parity-leaf", {"lesson.zh.md": ("{#means leaf=adding}", "{#means}")}),
    ("parity-inserts", {"lesson.zh.md": ("{{quiz:means}}\n", "")}),
    ("parity-formulas", {"lesson.zh.md": ("$x^2 + y^2$", "$x^2$")}),
    ("parity-links", {"lesson.zh.md": ("(#means)", "(#sums)")}),
    ("parity-numbers", {"lesson.zh.md": ("\\$5", "\\$6")}),
    ("parity-blocks", {"lesson.zh.md": ("```python", "")}),
    ("terminology", {"lesson.zh.md": ("开头", "关注度")}),
    ("terminology", {"terminology.toml": ("[[term]]", "[[term")}),
    ("reads", {Q: ('kind = "single"', 'kind = "sing"')}),
    ("concept-items", {Q: ('concept = "sums"', 'concept = "means"')}),
    ("leaf-items", {Q: None}),
    ("concept-exists", {Q: ('concept = "sums"', 'concept = "summs"')}),
    ("section-exists", {Q: ('section = "sums"', 'section = "summs"')}),
    ("item-section", {Q: ('section = "sums"\n', "")}),
    ("option-why", {Q: ('"That is the sum."', '" "')}),
    ("catch-all", {Q: ('text = "two"', 'text = "none of the above"')}),
    ("catch-all", {Q: ('text = "two"', 'text = "Both A and B"')}),
    ("distinct", {Q: ('text = "two"', 'text = "exactly six"')}),
    ("longest", {Q: ('"three"', '"three, as 6 / 2 is 3"')}),
    ("cloze-gaps", {Q: ("the ___.", "the count.")}),
    ("order-lines", {Q: ('kind = "cloze"', 'kind = "order"')}),
    ("mistake-wrong", {Q: ('"3" = "/ makes', '"3.0\\nEND" = "/ makes')}),
    ("mistake-wrong", {"quiz.py": ("str(a + b + 1)", "str(a + b)")}),
    ("mistake-number", {"quiz.py": ("str(a + b + 1)", '"many"')}),
    ("tolerance", {"quiz.py": ('"answer": a + b', '"answer": (a + b) / 7')}),
    ("tolerance", {"quiz.py": ('"why": "Add."', '"why": "Add.", "tolerance": 100')}),
    ("stem-unique", {Q: ("The ___ divided by the ___.", "the mean of 2  and 4?")}),
    ("generator-exists", {"quiz.py": None}),
    ("generator-runs", {"quiz.py": ("def two", "def three")}),
    ("generator-runs", {"quiz.py": ("a, b =", "a, b = 1 / 0,")}),
    ("generator-runs", {"quiz.py": ('"""Questions."""', "import not_there")}),
    ("generator-valid", {"quiz.py": ('"answer": a + b', '"answer": "many"')}),
    ("generator-differs", {"quiz.py": ("draw.randint(1, 50), draw.randint(1, 50)", "1, draw.randint(1, 3)")}),
    ("generator-seeded", {"quiz.py": ("draw.randint(1, 50), draw", "__import__('random').randint(1, 10**9), draw")}),
    ("exercise-complete", {"grader.py": None}),
    ("concept-exists", {E: ('"means"', '"meens"')}),
    ("section-exists", {E: ('section = "means"\n', "")}),
    ("formula", {E: ("Add first.", "$x_{$")}),
    ("exercise-python", {"task.py": ("def mean(numbers):", "def mean(numbers:")}),
    ("check-says", {"grader.py": ('    """The mean of three numbers."""\n', "")}),
    ("hints-tell", {E: ("By the count.", "`total = sum(numbers)` and `return total / len(numbers)`")}),
    ("wrong-name", {E: ('name = "one-less"', 'name = "whole"')}),
    ("wrong-place", {E: ('replace = "total / len(numbers)"', 'replace = "total"')}),
    ("reads", {E: ('title = { en = "Mean", zh = "均值" }', "")}),
    ("lab-reads", {"lab.py": ("BUDGET = 5", "BUDGET = several")}),
    ("lab-budget", {"lab.py": ("BUDGET = 5", "BUDGET = 50")}),
    ("lab-about", {"lab.py": ("\nTheir sum is shown.\n", "")}),
    ("lab-setting", {"lab.py": ('    """How many."""\n', "")}),
    ("lab-recorded", {"lab.py": ('"""Add."""', '"""Add them."""')}),
    ("lab-recorded", {"recorded/lab.json": None}),
    ("lab-effect", {"recorded/lab.json": ('"holds": true', '"holds": false')}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "changes"), READ, ids=[f"{i}-{rule}" for i, (rule, _) in enumerate(READ)])
def test_each_rule_finds_what_breaks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, changes: Change):
    if not {Q, "quiz.py"} & set(changes):  # generators take a process
        monkeypatch.setattr(made, "make_items", lambda _: ({}, []))
    found = check(tmp_path, changes)
    assert rule in {problem.rule for problem in found}, found
    assert all(problem.path.is_relative_to(tmp_path) for problem in found)


RUN: list[tuple[str, Change]] = [
    ("stub-fails", {"task.py": ("raise NotImplementedError", "return sum(numbers) / len(numbers)")}),
    ("stub-loads", {"task.py": ('"""The mean."""', "1 / 0")}),
    ("solution-passes", {"grader.py": ("8 / 3", "9 / 3")}),
    (
        "solution-fast",
        {
            E: ('section = "means"', 'section = "means"\nseconds = 2.4'),
            "solution.py": ("total = sum", "__import__('time').sleep(1.2)\n    total = sum"),
        },
    ),
    ("wrong-fails", {"grader.py": ("[1, 2, 5]), 8 / 3", "[1, 2, 3]), 2.0")}),
    ("wrong-runs", {E: ('by = "total"', 'by = "total +"')}),
    ("wrong-differs", {E: ('by = "total // len(numbers)"', 'by = "total // 1"')}),
    ("grader-runs", {"grader.py": ('"""Checks."""', "import not_there")}),
    ("output-right", {Q: ('answer = """3.0', 'answer = """3')}),
    ("output-right", {Q: ("print((2 + 4) / 2)", "print((2 + 4) / 0)")}),
    ("lab-effect", {"lab.py": ("total == 3", "total == 4")}),
    ("lab-effect", {"lab.py": ('    yield Effect("it adds", total == 3)\n', "")}),
    ("lab-runs", {"lab.py": ('"""Add."""', "1 / 0")}),
    ("lab-budget", {"lab.py": ("BUDGET = 5", "BUDGET = 0.001")}),
    ("lab-value", {"lab.py": ('Value("sum", total', 'Value("sum", float("inf")')}),
    ("lab-value", {"recorded/lab.json": ('"value": 3', '"value": 4')}),
    ("lab-recorded", {"lab.py": ('Value("sum", total', 'Value("total", total')}),
    ("lab-recorded", {"lab.py": ('Show("table"', 'Show("tables"')}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "changes"), RUN, ids=[f"{i}-{rule}" for i, (rule, _) in enumerate(RUN)])
def test_each_run_finds_what_breaks_it(tmp_path: Path, rule: str, changes: Change):
    assert rule in {problem.rule for problem in check(tmp_path, changes, quick=False)}


def test_a_problem_names_its_file_and_line(tmp_path: Path):
    found = check(tmp_path, {L: ("{{quiz:means}}", "{{quiz:mean}}"), "lesson.zh.md": None})
    assert [(problem.place(tmp_path), problem.rule, problem.fix) for problem in found] == [
        ("scientist/tiny/lesson.en.md:26", "quiz-exists", "Did you mean 'means'?"),
    ]


def test_what_passed_is_not_run_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from bottega.course.check import exercises, labs

    runs: list[str] = []
    for module, kind in ((exercises, "exercise"), (labs, "lab")):
        run = module.run_problems
        monkeypatch.setattr(module, "run_problems", lambda each, run=run, kind=kind: runs.append(kind) or run(each))
    assert check(tmp_path, quick=False) == [] and runs == ["exercise", "lab"]
    assert check(tmp_path, quick=False) == [] and runs == ["exercise", "lab"]
    check(tmp_path, {"grader.py": ('"""Checks."""', '"""More checks."""')}, quick=False)
    assert runs == ["exercise", "lab", "exercise"]
    check(tmp_path, {"lab.py": ('"""Add."""', '"""Add them."""')}, quick=False)
    assert runs == ["exercise", "lab", "exercise", "lab"]


def test_what_failed_is_run_again(tmp_path: Path):
    changes: Change = {"grader.py": ("8 / 3", "9 / 3")}
    first, second = check(tmp_path, changes, quick=False), check(tmp_path, changes, quick=False)
    assert first == second and first


def test_the_library_counts_where_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from bottega.course.check import passed

    plain, other = tmp_path / "a.py", tmp_path / "b.py"
    plain.write_text("from bottega.course.grading import close\n")
    other.write_text("from bottega.model.decoder import Decoder\n")
    before = [key_of("x", [path]) for path in (plain, other)]
    monkeypatch.setattr(passed, "library_digest", lambda: "changed")
    after = [key_of("x", [path]) for path in (plain, other)]
    assert before[0] == after[0] and before[1] != after[1]


def test_a_lab_is_recorded_only_with_its_effect(tmp_path: Path):
    course = make_course(tmp_path, {"recorded/lab.json": None})
    lab = course.lab("tiny/lab")
    checker = Checker(course, Passed(tmp_path / "passed.json"), root=tmp_path)
    assert checker.record([lab]).problems == []
    recording = read_recording(lab)
    assert recording is not None and recording.value("sum").value == 3 and recording.params == {"count": 3}
    course = make_course(tmp_path, {"lab.py": ("total == 3", "total == 4"), "recorded/lab.json": None})
    checker = Checker(course, Passed(tmp_path / "passed.json"), root=tmp_path)
    assert [problem.rule for problem in checker.record([course.lab("tiny/lab")]).problems] == ["lab-effect"]
    assert read_recording(lab) is None


def test_an_unwritten_chapter_is_checked_in_full_only_when_asked(tmp_path: Path):
    course = make_course(tmp_path)
    for asked in (False, True):
        checker = Checker(course, Passed(tmp_path / "passed.json"), root=tmp_path, quick=True)
        found = checker.check([course.chapter("later")], even_unwritten=asked).problems
        assert bool(found) == asked


def item(*options: tuple[str, bool]) -> Item:
    data = [{"text": text, "right": right, "why": "w"} for text, right in options]
    return Item.parse({"id": "i", "concept": "c", "kind": "single", "stem": "s", "options": data})


@pytest.mark.parametrize(
    ("options", "expected"),
    [([("aaa", True), ("b", False)], 1), ([("a", True), ("bb", False)], 0), ([("aa", True), ("bb", False)], 0.5)],
)
def test_the_longest_option(options: list[tuple[str, bool]], expected: float):
    assert key_is_longest(item(*options)) == expected


def test_made_questions_count_for_the_longest_option(tmp_path: Path):
    course = make_course(tmp_path)
    made = {"sum-of-two": [item(("a long answer", True), ("b", False))] * 5}
    rules = {problem.rule for problem in quiz_problems(course.chapter("tiny"), course, made)}
    assert "longest" not in rules  # one of two questions, and chance is 5/12
    made = {"sum-of-two": [item(("a long answer", True), ("b", False), ("c", False), ("d", False))] * 5}
    rules = {problem.rule for problem in quiz_problems(course.chapter("tiny"), course, made)}
    assert "longest" in rules


@pytest.mark.parametrize(
    ("printed", "answer", "expected"),
    [
        ("1\n2\n", "1\n2", True),
        ("1 \n", "1", True),
        ("1\n", "1.0", False),
        (" 1", "1", False),
        ("1\n\n2", "1\n2", False),
    ],
)
def test_outputs_are_compared_line_by_line(printed: str, answer: str, expected: bool):
    assert same_output(printed, answer) is expected


@pytest.mark.parametrize(
    "latex", ["x^2", r"\frac{a}{b}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\mathbb{E}_{x \sim p}"]
)
def test_formulas_that_convert(latex: str):
    assert formula_problem(latex) == ""


@pytest.mark.parametrize(
    "latex", [r"\foo", r"\frac{a}", "{a", r"\left( x", r"\sqrt", "5 and ", "", r"\operatorname*{arg\,max}_x f"]
)
def test_formulas_that_do_not(latex: str):
    assert formula_problem(latex)


def test_the_verb_lists_problems(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from bottega.cli.main import build_app
    from bottega.course.check import verb

    monkeypatch.chdir(tmp_path)
    course = make_course(tmp_path, {L: ("{{quiz:means}}", "{{quiz:mean}}"), "lesson.zh.md": None})
    monkeypatch.setattr(verb, "load_course", lambda: course)

    def call(*words: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as caught:
            build_app(["course", "check"])(["course", "check", *words])
        return caught.value.code, capsys.readouterr().out

    status, output = call("--json", "--quick")
    data = json.loads(output)
    assert status == 1 and not data["passed"] and data["counts"]["exercises"] == 1
    assert [(each["rule"], each["line"]) for each in data["problems"]] == [("quiz-exists", 26)]
    status, output = call("tiny", "--quick")
    assert status == 1 and "quiz-exists" in output
    status, output = call("later", "--plan", "--json")
    assert status == 0 and json.loads(output)["work"] == ["check the graph of concepts", "check later"]
    assert call("tini")[0] == 2 and call("tiny/lab")[0] == 2
    status, output = call("tiny/lab", "--record", "--json")
    assert status == 0 and json.loads(output)["counts"] == {"labs recorded": 1}


@pytest.fixture(scope="module")
def course_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("course")


def test_our_course_keeps_the_rules(course_state: Path):
    load_course.cache_clear()
    course = load_course()
    checker = Checker(course, Passed(course_state / "passed.json"), quick=True)
    found = checker.check(list(course.chapters.values())).problems
    assert [(problem.place(CONTENT), problem.rule, problem.message) for problem in found] == []
    assert len(course.chapters) == 19


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_everything_of_our_course_runs_as_it_says(course_state: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOTTEGA_WORKSPACE", str(course_state))
    load_course.cache_clear()
    course = load_course()
    checker = Checker(course, Passed(course_state / "passed.json"))
    found = checker.check(list(course.chapters.values())).problems
    assert [(problem.place(CONTENT), problem.rule, problem.message) for problem in found] == []


def test_every_number_of_a_lesson_is_recorded():
    """Of what lessons cite nothing is typed by hand: the S1 lesson has its numbers from labs."""
    lesson = load_course().chapter("architecture").lesson()
    cited = [
        match for section in lesson.sections for match in INSERT.finditer(section.text) if match["kind"] == "value"
    ]
    assert len(cited) > 10


def test_every_rule_is_broken_once_and_documented():
    rules: set[str] = set()
    for path in Path(check_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                at = {"Problem": 2, "problem": 0, "_unknown": 2}.get(node.func.id, 9)
                name = node.args[at] if len(node.args) > at else None
                rules |= {name.value} if isinstance(name, ast.Constant) else set()
    broken = {rule for rule, _ in (*READ, *RUN)}
    assert len(rules) > 40 and rules - broken == set()
    documented = (Path(__file__).parents[1] / "docs" / "course.md").read_text("utf-8")
    assert {rule for rule in broken if f"`{rule}`" not in documented} == set()
