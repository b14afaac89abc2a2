"""Constrained decoding in the small: a regular expression as an automaton over bytes; `trie` makes masks of it.

The reference for the course and for the tests; production masks come from llguidance, and are equal.

regex → syntax tree → NFA with ε-edges (Thompson 1968) → DFA by the subset construction (Rabin and Scott 1959),
without the states from which no end can be reached.

The subset: characters, `.` (all but a line break), classes, `\\d \\w \\s` (ASCII), groups, `|`, `* + ? {m,n}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bottega.core.errors import UserError

Ranges = list[tuple[int, int]]
"""Code points, ends included."""
Node = tuple[str, Any]
"""("set", Ranges), ("cat", [Node]), ("or", [Node]) or ("repeat", (Node, least, most or None))."""

LAST = 0x10FFFF
_SETS: dict[str, Ranges] = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": [(9, 13), (32, 32)],
}
_CONTROL = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11}


def complement(ranges: Ranges) -> Ranges:
    """All other code points."""
    made, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            made.append((start, low - 1))
        start = max(start, high + 1)
    return [*made, (start, LAST)] if start <= LAST else made


class _Parser:
    """Recursive descent: alternatives, sequences, repetitions, atoms."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.place = pattern, 0

    def parse(self) -> Node:
        node = self.alternatives()
        if self.peek():
            raise self.error("unmatched ')'")
        return node

    def error(self, what: str) -> UserError:
        return UserError(f"regex {self.pattern!r}: {what} at character {self.place}")

    def peek(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def take(self) -> str:
        if not self.peek():
            raise self.error("it ends too early")
        self.place += 1
        return self.pattern[self.place - 1]

    def alternatives(self) -> Node:
        parts = [self.sequence()]
        while self.peek() == "|":
            self.take()
            parts.append(self.sequence())
        return ("or", parts)

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            node = self.atom()
            while self.peek() and self.peek() in "*+?{":
                node = ("repeat", (node, *self.bounds()))
            parts.append(node)
        return ("cat", parts)

    def bounds(self) -> tuple[int, int | None]:
        char = self.take()
        if char != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        inside, end, rest = self.pattern[self.place :].partition("}")
        least, comma, most = inside.partition(",")
        if not end or not least.isdigit() or (most and not most.isdigit()):
            raise self.error("a repetition must be {m}, {m,} or {m,n}")
        self.place = len(self.pattern) - len(rest)
        return int(least), (int(most) if most else None) if comma else int(least)

    def atom(self) -> Node:
        char = self.take()
        if char == "(":
            if self.pattern.startswith("?:", self.place):
                self.place += 2
            node = self.alternatives()
            if self.take() == ")":
                return node
            raise self.error("')' expected")
        if char == "[":
            return ("set", self.character_class())
        if char == ".":
            return ("set", complement([(10, 10)]))
        if char in "*+?{^$":
            raise self.error(f"{char!r} is not supported here")
        return ("set", self.escape() if char == "\\" else [(ord(char), ord(char))])

    def escape(self) -> Ranges:
        char = self.take()
        if char.lower() in _SETS:
            return _SETS[char] if char in _SETS else complement(_SETS[char.lower()])
        if char.isalnum() and char not in _CONTROL:
            raise self.error(f"\\{char} is not supported")
        code = _CONTROL.get(char, ord(char))
        return [(code, code)]

    def character_class(self) -> Ranges:
        negated = self.peek() == "^"
        self.place += negated
        ranges: Ranges = []
        while (char := self.take()) != "]":
            first = self.escape() if char == "\\" else [(ord(char), ord(char))]
            if self.peek() == "-" and self.pattern[self.place + 1 : self.place + 2] not in ("", "]"):
                self.take()
                char = self.take()
                last = self.escape() if char == "\\" else [(ord(char), ord(char))]
                first = [(first[0][0], last[0][1])]
            ranges += first
        return complement(ranges) if negated else ranges


def utf8_ranges(low: int, high: int) -> Iterator[list[tuple[int, int]]]:
    """The code points low to high as sequences of byte ranges: each sequence is one way to write some of them."""
    for first, last in ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, LAST)):
        start, end = max(low, first), min(high, last)  # of one length in UTF-8, and no surrogates
        while start <= end:
            length = len(chr(start).encode())
            # The largest block beginning at `start` whose last bytes run through all of 80 to BF.
            free = next(
                free
                for free in reversed(range(length))
                if start % (1 << 6 * free) == 0 and start + (1 << 6 * free) - 1 <= end
            )
            block = start + (1 << 6 * free) - 1
            yield list(zip(chr(start).encode(), chr(block).encode(), strict=True))
            start = block + 1


@dataclass
class Automaton:
    """A DFA over bytes. `edges[state][byte]` is the next state; a missing byte means that no match can follow."""

    edges: list[dict[int, int]] = field(default_factory=list)
    accepting: set[int] = field(default_factory=set)


class _Thompson:
    """The NFA: each syntax node becomes a part with one entry and one exit."""

    def __init__(self) -> None:
        self.bytes: list[list[tuple[int, int, int]]] = []  # per state: (low byte, high byte, target)
        self.free: list[list[int]] = []  # per state: targets of ε-edges

    def state(self) -> int:
        self.bytes.append([])
        self.free.append([])
        return len(self.bytes) - 1

    def build(self, node: Node, start: int) -> int:
        """Add the part for `node` behind `start`; its exit."""
        (kind, content), end = node, self.state()
        if kind == "set":
            for sequence in (sequence for low, high in content for sequence in utf8_ranges(low, high)):
                at = start
                for place, (first, last) in enumerate(sequence):
                    target = end if place == len(sequence) - 1 else self.state()
                    self.bytes[at].append((first, last, target))
                    at = target
        elif kind == "cat":
            at = start
            for part in content:
                at = self.build(part, at)
            self.free[at].append(end)
        elif kind == "or":
            for part in content:
                entry = self.state()
                self.free[start].append(entry)
                self.free[self.build(part, entry)].append(end)
        else:
            part, least, most = content
            at = start
            for _ in range(least):
                at = self.build(part, at)
            if most is None:
                loop = self.state()
                self.free[at].append(loop)
                self.free[self.build(part, loop)].append(loop)
                at = loop
            for _ in range(least, most or least):
                self.free[at].append(end)
                at = self.build(part, at)
            self.free[at].append(end)
        return end

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """All states that ε-edges reach."""
        found, stack = set(states), list(states)
        while stack:
            fresh = [target for target in self.free[stack.pop()] if target not in found]
            found.update(fresh)
            stack += fresh
        return frozenset(found)


def compile_regex(pattern: str) -> Automaton:
    """The automaton of texts that match `pattern` as a whole; its state 0 is the start. Raises UserError."""
    nfa = _Thompson()
    start = nfa.state()
    end = nfa.build(_Parser(pattern).parse(), start)
    first = nfa.closure([start])
    number, order, made = {first: 0}, [first], Automaton()
    for current in order:  # grows while it runs
        targets: dict[int, set[int]] = {}
        for state in current:
            for low, high, target in nfa.bytes[state]:
                for byte in range(low, high + 1):
                    targets.setdefault(byte, set()).add(target)
        row: dict[int, int] = {}
        for byte, reached in targets.items():
            state_set = nfa.closure(reached)
            if state_set not in number:
                number[state_set] = len(order)
                order.append(state_set)
            row[byte] = number[state_set]
        made.edges.append(row)
    made.accepting = {state for states, state in number.items() if end in states}
    return _without_dead_ends(made)


def _without_dead_ends(automaton: Automaton) -> Automaton:
    alive = set(automaton.accepting)
    while fresh := {
        s for s, row in enumerate(automaton.edges) if s not in alive and not alive.isdisjoint(row.values())
    }:
        alive |= fresh
    edges = [{byte: target for byte, target in row.items() if target in alive} for row in automaton.edges]
    return Automaton(edges, automaton.accepting)
