"""What a chapter is made of: what the schema refuses, how lessons are read, what a course finds."""

from pathlib import Path

import pytest

from bottega.core.errors import UserError
from bottega.course.lesson import Insert, read_lesson
from bottega.course.library import load_course
from bottega.course.schema import ChapterData, ExerciseData, Item, Titles
from tiny_course import make_course

OPTIONS = [{"text": "a", "right": True, "why": "w"}, {"text": "b", "why": "w"}]
GOOD: dict[str, dict] = {
    "single": {"options": OPTIONS},
    "multi": {"options": [*OPTIONS, {"text": "c", "right": True, "why": "w"}]},
    "numeric": {"answer": 2.5, "tolerance": 0.1, "why": "w"},
    "output": {"code": "print(1)", "answer": "1", "why": "w"},
    "order": {"answer": ["a", "b", "c"], "why": "w"},
    "match": {"pairs": [{"left": each, "right": each.upper()} for each in "abc"], "why": "w"},
    "cloze": {"answer": ["a"], "why": "w"},
}


def item(kind: str, **changes) -> Item:
    return Item.parse({"id": "i", "concept": "c", "kind": kind, "stem": "s", **GOOD[kind], **changes})


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_question(kind: str):
    assert item(kind).stem == "s"


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("single", {"stem": ""}, "stem is missing"),
        ("single", {"options": OPTIONS[:1]}, "one of them right"),
        ("single", {"options": [OPTIONS[0]] * 2}, "one of them right"),
        ("single", {"options": [OPTIONS[1]] * 2}, "one of them right"),
        ("single", {"options": [{"text": "a", "right": True}, OPTIONS[1]]}, "why' is required"),
        ("multi", {"options": OPTIONS}, "multi needs options"),
        ("numeric", {"options": OPTIONS}, "options are for"),
        ("numeric", {"answer": "two"}, "the answer is a number"),
        ("numeric", {"why": ""}, "why is missing"),
        ("numeric", {"tolerance": -1}, "greater than or equal"),
        ("output", {"answer": 1.0}, "the answer is a text"),
        ("output", {"code": ""}, "output needs code"),
        ("order", {"answer": "a"}, "the answer is a list"),
        ("cloze", {"answer": "a"}, "the answer is a list"),
        ("match", {"pairs": GOOD["match"]["pairs"][:2]}, "match needs pairs"),
        ("single", {"id": "An Id"}, "pattern"),
        ("single", {"difficulty": 4}, "less than or equal"),
        ("single", {"generator": "os.system"}, "pattern"),
        ("single", {"option": []}, "unknown setting 'option'"),
    ],
)
def test_what_a_question_may_not_be(kind: str, changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        item(kind, **changes)


def test_a_generator_gives_everything_from_the_stem_on():
    made = Item.parse({"id": "i", "concept": "c", "kind": "numeric", "generator": "two"})
    assert made.stem == "" and made.guess == 0.02
    with pytest.raises(UserError, match="the answer is a number"):
        Item.parse({"id": "i", "concept": "c", "kind": "numeric", "generator": "two", "stem": "s"})


def test_what_can_be_guessed():
    assert item("single").guess == 1 / 2 and item("multi").guess == 1 / 9 and item("order").guess == 0.02


def test_an_exercise_has_three_hints_and_three_wrong_solutions():
    hints = [{"text": "h"}] * 3
    wrong = [{"name": f"w{i}", "replace": "a", "by": "b", "mistake": "m"} for i in range(3)]
    data = {"title": {"en": "T"}, "concepts": ["c"], "hints": hints, "wrong": wrong}
    assert ExerciseData.parse(data).seconds == 20
    for name in ("hints", "wrong"):
        with pytest.raises(UserError, match="at least 3"):
            ExerciseData.parse({**data, name: data[name][:2]})


def test_titles_fall_back_to_english():
    assert Titles(en="T").of("zh") == "T" and Titles(en="T", zh="标题").of("zh") == "标题"


@pytest.mark.parametrize("changes", [{"part": "third"}, {"number": 0}, {"id": "A B"}, {"title": {"en": ""}}, {"x": 1}])
def test_what_a_chapter_may_not_be(changes: dict):
    data = {"id": "tiny", "part": "scientist", "number": 1, "title": {"en": "T"}, "leaves": []}
    assert ChapterData.parse(data).written
    with pytest.raises(UserError):
        ChapterData.parse({**data, **changes})


def lesson(folder: Path, text: str):
    path = folder / "lesson.en.md"
    path.write_text(text)
    return read_lesson(path)


def test_a_lesson_is_read_in_sections(tmp_path: Path):
    read = lesson(
        tmp_path,
        "# Title\n\nOpening.\n\n## One {#one leaf=a}\n\nText {{value:lab.x|.2f}}.\n\n"
        "~~~\n## no heading\n```\n# neither\n~~~\n\n## Two *more* {#two}\n\n{{view:tokens text=abc size=3}}\n",
    )
    assert (read.title, read.opening) == ("Title", "Opening.")
    assert [(each.id, each.title, each.leaf, each.line) for each in read.sections] == [
        ("one", "One", "a", 5), ("two", "Two *more*", None, 15),
    ]  # fmt: skip
    assert "## no heading" in read.sections[0].text
    assert [(each.kind, each.name, each.format) for each in read.sections[0].inserts] == [("value", "lab.x", ".2f")]
    [view] = read.sections[1].inserts
    assert view == Insert("view", "tokens text=abc size=3")
    assert (view.name, view.settings) == ("tokens", {"text": "abc", "size": "3"})
    assert read.section("two") is read.sections[1] and read.section("three") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("# T\n\n## One\n", ":3: a section's heading"), ("## A {#a}\n## B {#a}\n", ":2: two sections are called 'a'")],
)
def test_a_lesson_that_cannot_be_read_names_the_line(tmp_path: Path, text: str, message: str):
    with pytest.raises(UserError, match=message):
        lesson(tmp_path, text)


def test_a_course_finds_by_name_and_says_the_nearest(tmp_path: Path):
    course = make_course(tmp_path)
    assert list(course.chapters) == ["tiny", "later"] and [each.id for each in course.written()] == ["tiny"]
    assert course.lab("tiny/lab").name == "lab" and course.exercise("tiny/mean").data.minutes == 10
    assert course.leaves["adding"][0].id == "tiny" and list(course.concepts) == ["sums", "means"]
    assert len(course.items) == 4
    for find, name, nearest in (
        (course.chapter, "tyni", "tiny"), (course.lab, "tiny/lob", "tiny/lab"),
        (course.exercise, "tiny/man", "tiny/mean"),
    ):  # fmt: skip
        with pytest.raises(UserError, match="there is no") as caught:
            find(name)
        assert nearest in caught.value.hint
    with pytest.raises(UserError, match="not written yet"):
        course.chapter("later").lesson()


def test_a_lesson_is_in_english_where_it_is_not_in_chinese(tmp_path: Path):
    chapter = make_course(tmp_path).chapter("tiny")
    assert chapter.languages() == ("en", "zh") and chapter.lesson("zh").title == "小"
    chapter = make_course(tmp_path / "other", {"lesson.zh.md": None}).chapter("tiny")
    assert chapter.languages() == ("en",) and chapter.lesson("zh").title == "Tiny"


def test_two_chapters_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="two chapters are called 'tiny'"):
        make_course(tmp_path, {"engineer/later/chapter.toml": ('id = "later"', 'id = "tiny"')})


def test_broken_toml_names_the_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"chapter\.toml: "):
        make_course(tmp_path, {"chapter.toml": ("part =", "part")})


def test_every_leaf_of_the_course_is_on_a_roadmap():
    """The numbers of the course's items that are topics: 24 to 96, each on one leaf."""
    load_course.cache_clear()
    course = load_course()
    claimed = [number for _, leaf in course.leaves.values() for number in leaf.features]
    assert sorted(claimed) == sorted(set(claimed)) and set(range(24, 97)) <= set(claimed)
    parts = [(chapter.data.part, chapter.data.number) for chapter in course.chapters.values()]
    assert parts == [(part, number) for part, count in (("fundamentals", 4), ("scientist", 8), ("engineer", 7))
                     for number in range(1, count + 1)]  # fmt: skip


def test_the_course_reads_no_torch():
    import subprocess
    import sys

    modules = (
        "library, lesson, schema, lab, grade, grading, recorded, run_lab, lab_facts, lab_verb, check.run, check.verb"
    )
    imports = "; ".join(f"import bottega.course.{name.strip()}" for name in modules.split(","))
    code = f"import sys; {imports}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr
