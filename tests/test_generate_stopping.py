"""Stop strings and patterns: where they cut, whatever pieces the text comes in, and in linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.generate.settings import LONGEST_MATCH, Sampling
from bottega.generate.stopping import StopStrings

PATTERNS = [
    "ab",
    "a+b",
    "(ab|ba)c",
    "[^a]\\n",
    "a.c",
    "(?s)a.c",
    "^b",
    "(?m)^b",
    "a{2,3}b?c",
    "(a*)*c",
    "(?:a|ab)(?:c|bcb)",
    "\\s\\w",
    "(?i)AB",
    "(?i)[^A]B",
    "a*?b",
    "\\Dc",
    "(?a)\\wé",
    "b(?:c|)a",
]


def first_match(stops: list[str], pattern: str | None, text: str) -> tuple[int, int] | None:
    """(end, begin) of the match that ends first, of those the one that begins first: every substring is tried."""
    compiled = None if pattern is None else re.compile(pattern)
    for end in range(1, len(text) + 1):
        for begin in range(end):
            if text[begin:end] in stops or (compiled and compiled.fullmatch(text, begin, end)):
                return end, begin
    return None


@settings(max_examples=400, deadline=None)
@given(
    text=st.text("abcé\n B", max_size=25),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    pattern=st.none() | st.sampled_from(PATTERNS),
    is_shown=st.booleans(),
    data=st.data(),
)
def test_it_cuts_at_the_first_match_wherever_the_pieces_end(
    text: str, stops: list[str], pattern: str | None, is_shown: bool, data: st.DataObject
) -> None:
    finder, shown, rest = StopStrings(tuple(stops), pattern, is_shown=is_shown), "", text
    while rest and not finder.found:
        size = data.draw(st.integers(1, len(rest)))
        shown += finder.add(rest[:size])
        rest = rest[size:]
        assert text.startswith(shown) and len(shown) <= len(text) - len(rest)
    shown += finder.flush()
    match = first_match(stops, pattern, text)
    assert finder.found == (match is not None)
    assert shown == (text if match is None else text[: match[0] if is_shown else match[1]])


def test_only_what_may_become_a_match_is_held_back() -> None:
    finder = StopStrings(("</end>",), r"\n\nQ\d+:")
    assert finder.add("one</e") == "one"
    assert finder.add("n<") == "</en"
    assert finder.add("b\n\nQ1") == "<b"
    assert finder.add("x\n") == "\n\nQ1x"
    assert finder.add("\nQ12") == ""
    assert finder.add(": tail") == "" and finder.found


def test_a_text_that_is_too_short_yet_is_not_cut() -> None:
    finder = StopStrings(("end",))
    assert finder.add("an end. The e", may_stop=False) == "an end. The "
    assert finder.add("nd") == "" and finder.found, "begun before, complete after"


def test_a_pattern_that_never_ends_holds_back_a_bounded_text() -> None:
    finder = StopStrings((), "a.*b")
    given_out = finder.add("a" + "x" * (3 * LONGEST_MATCH))
    assert len(given_out) >= 2 * LONGEST_MATCH
    longest = "x" * LONGEST_MATCH
    exact = StopStrings((longest,))
    assert exact.add("y" + longest) == "y" and exact.found
    with pytest.raises(UserError, match="stop"):
        Sampling(stop=(longest + "x",))


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)*b", "a{0,100}a{0,100}b"])
def test_patterns_that_would_hang_a_backtracking_matcher_take_linear_time(pattern: str) -> None:
    finder = StopStrings((), pattern)
    begin = time.process_time()
    finder.add("a" * 2000)
    assert time.process_time() - begin < 4 and not finder.found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "no regular expression"),
        ("a*", "empty"),
        ("^", "empty"),
        ("(a)\\1", "back reference"),
        ("a(?=b)", "look-around"),
        ("(?<=b)a", "look-around"),
        ("ab$", "uses \\$"),
        ("\\bab", r"uses \\b"),
        ("(?>ab)", "atomic"),
        ("a++b", "possessive"),
        ("a{1000}", "repeats 1000"),
        ("(a{100}){100}", "too large"),
        ("(" * 3000 + "a" + ")" * 3000, "no regular expression"),
    ],
)
def test_patterns_that_cannot_be_obeyed_are_refused(pattern: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        StopStrings((), pattern)


def test_a_requests_settings() -> None:
    finder = StopStrings.of(Sampling(stop=("x",), stop_regex="[0-9]+;", include_stop_str=True))
    assert finder.add("ab12;cd") == "ab12;" and finder.found
    assert StopStrings.of(Sampling()).add("anything") == "anything"
