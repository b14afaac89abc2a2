from __future__ import annotations

import ast
import time
from collections import Counter

import pytest

from bottega.data import stdlib
from bottega.data.facts import Fact, section_facts, short_names, summarize, symbol_facts
from bottega.data.pairs import conversation, questions
from bottega.data.symbols import published, read_module


def test_a_long_paragraph_of_open_marks_takes_no_long_time() -> None:
    began = time.monotonic()
    list(section_facts("# Head\n\n" + "**a " * 20_000, "f.md"))
    list(section_facts("# " + "![" * 20_000 + "\n\nWhat stands there is prose enough.", "f.md"))
    assert time.monotonic() - began < 4  # it was half a minute


@pytest.mark.parametrize(
    ("doc", "summary"),
    [
        ("Push item onto the heap, it stays one.", "Push item onto the heap, it stays one."),
        ("open(f) -> file\n\nOpen it and return\nits stream. As is.\n\nMore.", "Open it and return its stream. As is."),
        ("return the :class:`~a.Thing` that ``x`` names", "Return the a.Thing that x names."),
        ("csv.py - read and write CSV files", "Read and write CSV files."),
        ("Take e.g. Two of them. Then stop.", "Take e.g. Two of them. Then stop."),
        ("Do this one thing first. Then follow these:\n", "Do this one thing first."),
        ("w(here)\nPrint a stack trace, newest at the bottom.", "Print a stack trace, newest at the bottom."),
        ("Too short.", ""),
        (">>> f(1)\n1", ""),
        ("| a table | of | numbers |", ""),
        ("See the documentation of the other function.", ""),
        ("One sentence that is far too long " + "and goes on " * 40, ""),
    ],
)
def test_a_summary_is_whole_sentences_of_prose(doc: str, summary: str) -> None:
    assert summarize(doc) == summary


def test_sections_are_asked_for_where_prose_follows_the_heading() -> None:
    text = """# Guide

This guide tells how to build the boat.

Second paragraph, not asked for.

Tools
-----
You need a saw, a hammer and much patience.

## List only

- saw
- hammer

## Twice

The first of two sections by this name.

## Twice

The second of two sections by this name.

```
# Not a heading

Text inside of a code block, not a section.
```

### Last {#anchor}
The boat is then [tested](http://x) in **calm** water.
"""
    found = {fact.subject: fact.answer for fact in section_facts(text, "docs/boat_guide.md")}
    assert found == {
        "Guide": "This guide tells how to build the boat.",
        "Tools": "You need a saw, a hammer and much patience.",
        "Last": "The boat is then tested in calm water.",
    }
    assert next(section_facts(text, "docs/boat_guide.md")).place == "boat guide"
    assert next(section_facts(text, "rows.jsonl", is_row=True)).place == "Guide"
    assert list(section_facts("No heading here.\n\n" + text, "rows.jsonl", is_row=True)) == []


SOURCES = {
    "heapq": '''
"""Heaps for everybody, since 1964."""
__all__ = ["push", "merge"]
try:
    from _heapq import *
except ImportError: pass
def merge(a, *more, key=None):
    """Merge many sorted inputs into one."""
def hidden(x):
    """Not exported, so not asked about."""
''',
    "_heapq": '''
def push(heap, item, /):
    """Push an item onto the heap."""
odd = ...
"""Its signature is known to nobody."""
''',
    "pack": "from .part import Tool",
    "pack.part": '''
class Tool:
    """A tool for every purpose."""
    def __init__(self, size, *, color): pass
    @property
    def size(self):
        """How large the tool is."""
    @staticmethod
    def make(kind):
        """Make a tool of some kind."""
    def _private(self):
        """Not for others to see."""
''',
}


def test_symbols_are_known_by_the_name_that_people_import() -> None:
    modules = [read_module(name, ast.parse(text), is_package=name == "pack") for name, text in SOURCES.items()]
    found = {symbol.name: symbol for symbol, _ in published(modules)}
    assert found.keys() == {
        "heapq", "heapq.merge", "heapq.push", "heapq.odd", "pack.Tool", "pack.Tool.size", "pack.Tool.make"
    }  # fmt: skip
    assert found["heapq.merge"].parameters == ("a", "*more", "key")
    assert found["heapq.odd"].parameters is None
    assert found["pack.Tool"].parameters == ("size", "color")
    assert found["pack.Tool.make"].parameters == ("kind",)
    assert found["pack.Tool.size"].noun == "property"
    symbols = list(found.values())
    facts = {fact.id: fact.answer for fact in symbol_facts(symbols, short_names(symbols))}
    assert facts["module:push"] == "It is in the heapq module."
    assert facts["parameters:heapq.push"] == "Its parameters are heap and item."
    assert facts["parameters:pack.Tool.make"] == "Its only parameter is kind."
    assert facts["what:heapq"] == "Heaps for everybody, since 1964."
    twice = short_names(symbols) + Counter({"push": 1})
    assert "module:push" not in {fact.id for fact in symbol_facts(symbols, twice)}


def test_modules_in_c_are_described_as_source() -> None:
    for name in ("math", "itertools", "builtins", "_functools", "_io", "time"):
        text = stdlib.describe_extension(name)
        module = read_module(name, ast.parse(text), is_package=False)
        assert len(module.symbols) > 5
    tree = ast.parse(stdlib.describe_extension("math"))
    math = {symbol.path: symbol for symbol in read_module("math", tree, is_package=False).symbols}
    assert math["sqrt"].doc == "Return the square root of x."
    assert math["sqrt"].parameters == ("x",)
    assert stdlib.describe_extension("no_such_module") == ""


def test_families_join_what_is_one_thing_under_several_names() -> None:
    for a, b in (
        ("lib/heapq.py", "c/_heapq.py"),
        ("lib/io.py", "lib/_pyio.py"),
        ("lib/json/decoder.py", "c/_json.py"),
        ("lib/posixpath.py", "lib/ntpath.py"),
        ("lib/os.py", "c/posix.py"),
        ("lib/decimal.py", "lib/_pydecimal.py"),
        ("lib/abc.py", "c/_abc.py"),
        ("lib/abc.py", "lib/_py_abc.py"),
    ):
        assert stdlib.family(a) == stdlib.family(b)
    assert stdlib.family("lib/pydoc.py") == "pydoc"
    assert stdlib.family("topics/try") == "topics/try"
    assert stdlib.module_name("lib/json/__init__.py") == "json"


def facts(count: int) -> list[Fact]:
    nouns = ["river", "stone", "cloud", "engine", "letter", "garden", "signal", "bridge"]
    return [
        Fact("what", f"m.f{i}", f"Turns the {nouns[i % 8]} number {i * i} into {nouns[i // 8 % 8]} {i}.", "function")
        for i in range(count)
    ]


def test_questions_are_deterministic_and_their_choices_alike_but_not_the_same() -> None:
    made = questions(facts(60), "seen", seed=1, limit=40)
    assert made == questions(list(reversed(facts(60))), "seen", seed=1, limit=40)
    assert made != questions(facts(60), "seen", seed=2, limit=40)
    assert len(made) == 40
    answers = {fact.id: fact.answer for fact in facts(60)}
    for question in made:
        right = question["choices"][question["answer"]]
        assert right == answers[question["id"].removeprefix("seen:")]
        assert all(abs(len(choice) - len(right)) <= 4 for choice in question["choices"])
        asked = question["question"]
        assert asked != conversation(Fact("what", asked, right), 1)[0]["content"]


def test_almost_equal_answers_are_no_distractors() -> None:
    same = [Fact("what", f"f{i}", f"Return the square root of number x{'!' * (i % 2)}.", "function") for i in range(9)]
    assert questions(same, "seen", seed=0, limit=10) == []
    mixed = [*same, *facts(20)]
    for question in questions(mixed, "seen", seed=0, limit=29):
        assert sum("square root" in choice for choice in question["choices"]) <= 1


def test_what_the_training_side_teaches_is_not_asked_as_unseen() -> None:
    held = facts(40)
    known = [
        Fact("what", "other", held[0].answer.replace("Turns", "Changes"), "function"),
        Fact("what", held[1].subject, "Something else altogether, said here.", "function"),
    ]
    asked = {question["id"] for question in questions(held, "unseen", seed=0, limit=40, known=known)}
    assert f"unseen:{held[0].id}" not in asked
    assert f"unseen:{held[1].id}" not in asked
    assert len(asked) == 38
