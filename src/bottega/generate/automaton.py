"""Texts and a regular expression as one nondeterministic automaton (Thompson 1968, doi:10.1145/363347.363387).

Running it takes time linear in the text, whatever the pattern: no backtracking, so that no user's pattern can hang the
server. The syntax is Python's; what an automaton cannot do (back references, look-around), and what needs the text
behind (`$`, `\\b`), is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from re import _parser  # pyright: ignore[reportAttributeAccessIssue]  # Python's own reading of its syntax
from typing import Any, Literal, get_args

from bottega.core.errors import UserError

# A character costs a step of every state that lives: this bounds it.
MOST_STATES = 500

Matcher = Callable[[str], bool]
Place = Literal["beginning", "line", "inside"]
"""Where a character stands: at the beginning of the text, of another line, or elsewhere."""

CATEGORIES: dict[str, Matcher] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda character: character.isalnum() or character == "_",
}
_UNSUPPORTED = {
    "ASSERT": "look-around",
    "ASSERT_NOT": "look-around",
    "GROUPREF": "a back reference",
    "GROUPREF_EXISTS": "a back reference",
    "AT_END": "$",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
}
ANYWHERE: frozenset[Place] = frozenset(get_args(Place))


class Automaton:
    """States that read characters.

    `reading[s]` is what state s takes and where that leads; a match of a text or of the pattern ends in `accepting`.
    Raises UserError if the pattern is none, is refused, or matches nothing at all (the empty text).
    """

    def __init__(self, texts: Sequence[str] = (), pattern: str | None = None) -> None:
        self.reading: dict[int, tuple[Matcher, int]] = {}
        self._free: list[list[tuple[int, frozenset[Place]]]] = []
        self.accepting = self._state()
        self.beginning = self._state()
        for text in texts:
            self._join(self.beginning, self._literal(text))
        if pattern is not None:
            self._join(self.beginning, self._pattern(pattern))

    def spread(self, state: int, place: Place, begun: int, into: dict[int, int]) -> None:
        """Enter `state` and what it leads to without a character `into` states → where their match began.

        What is there already stays: enter matches in the order in which they began.
        """
        todo = [state]
        while todo:
            state = todo.pop()
            if state not in into:
                into[state] = begun
                todo += [target for target, places in self._free[state] if place in places]

    def _state(self) -> int:
        self._free.append([])
        return len(self._free) - 1

    def _join(self, source: int, target: int, places: frozenset[Place] = ANYWHERE) -> None:
        self._free[source].append((target, places))

    def _read(self, matcher: Matcher, target: int) -> int:
        state = self._state()
        self.reading[state] = (matcher, target)
        return state

    def _literal(self, text: str) -> int:
        target = self.accepting
        for character in reversed(text):
            target = self._read(character.__eq__, target)
        return target

    def _pattern(self, pattern: str) -> int:
        try:
            tree = _parser.parse(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(f"stop_regex {pattern!r} is no regular expression: {error}") from None
        first = self._sequence(tree, self.accepting, tree.state.flags, len(self._free) + MOST_STATES)
        reached: dict[int, int] = {}
        self.spread(first, "beginning", 0, reached)  # where every kind of ^ holds
        if self.accepting in reached:
            raise UserError(f"stop_regex {pattern!r} matches the empty text", hint="It would stop at once.")
        return first

    def _sequence(self, nodes: Iterable[Any], target: int, flags: int, most: int) -> int:
        """The state from which `nodes` lead to `target`; built from the last to the first."""
        for kind, value in reversed(list(nodes)):
            target = self._node(str(kind), value, target, flags, most)
            if len(self._free) > most:
                raise UserError("stop_regex is too large", hint=f"It may have {MOST_STATES} states; repeat less.")
        return target

    def _node(self, kind: str, value: Any, target: int, flags: int, most: int) -> int:
        match kind:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                return self._read(_matcher(kind, value, flags), target)
            case "SUBPATTERN":
                _, added, removed, inner = value
                return self._sequence(inner, target, (flags | added) & ~removed, most)
            case "BRANCH":
                state = self._state()
                for inner in value[1]:
                    self._join(state, self._sequence(inner, target, flags, most))
                return state
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, greatest, inner = value
                return self._repeat(least, greatest, inner, target, flags, most)
            case "AT" if str(value) in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
                is_line = flags & re.MULTILINE and str(value) == "AT_BEGINNING"
                state = self._state()
                self._join(state, target, frozenset({"beginning", "line"}) if is_line else frozenset({"beginning"}))
                return state
        construct = str(value) if kind == "AT" else kind
        named = _UNSUPPORTED.get(construct, construct.lower().replace("_", " "))
        raise UserError(
            f"stop_regex uses {named}, which is not supported",
            hint="Characters, classes, groups, |, *, +, ?, {m,n} and ^ are; what follows a text is not known yet.",
        )

    def _repeat(self, least: int, greatest: Any, inner: Any, target: int, flags: int, most: int) -> int:
        if str(greatest) == "MAXREPEAT":
            state = self._state()
            self._join(state, target)
            self._join(state, self._sequence(inner, state, flags, most))
        else:
            state, rest = target, int(greatest) - least
            if rest > MOST_STATES or least > MOST_STATES:
                raise UserError(f"stop_regex repeats {greatest} times", hint=f"At most {MOST_STATES} are supported.")
            for _ in range(rest):
                optional = self._state()
                self._join(optional, target)
                self._join(optional, self._sequence(inner, state, flags, most))
                state = optional
        for _ in range(min(least, MOST_STATES + 1)):
            state = self._sequence(inner, state, flags, most)
        return state


def _matcher(kind: str, value: Any, flags: int) -> Matcher:
    """Whether a character matches a node that takes one."""
    if kind == "ANY":
        return (lambda _: True) if flags & re.DOTALL else "\n".__ne__
    items = value if kind == "IN" else [("LITERAL", value)]
    tests = [_item(str(name), argument, flags) for name, argument in items if str(name) != "NEGATE"]
    negated = kind == "NOT_LITERAL" or any(str(name) == "NEGATE" for name, _ in items)
    folds = bool(flags & re.IGNORECASE)

    def matches(character: str) -> bool:
        variants = {character, character.lower(), character.upper()} if folds else (character,)
        return any(test(variant) for variant in variants for test in tests if len(variant) == 1) != negated

    return matches


def _item(name: str, argument: Any, flags: int) -> Matcher:
    if name == "LITERAL":
        return chr(argument).__eq__
    if name == "RANGE":
        low, high = argument
        return lambda character: low <= ord(character) <= high
    category = CATEGORIES[str(argument).replace("_NOT_", "_")]
    ascii_only, wanted = bool(flags & re.ASCII), "_NOT_" not in str(argument)
    return lambda character: (category(character) and (character.isascii() or not ascii_only)) == wanted
