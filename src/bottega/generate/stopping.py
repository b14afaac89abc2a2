"""Stop strings and a stop pattern: cut a text at the first match, also when tokens split it.

The first match is the one that ends first (of those, the one that begins first), so that where an answer ends does
not depend on how the text is cut into pieces. While streaming, text that may still become part of a match is held
back: the automaton knows where the earliest unfinished one began.
"""

from __future__ import annotations

from copy import copy
from typing import Self

from bottega.generate.automaton import Automaton, Place
from bottega.generate.settings import LONGEST_MATCH, Sampling


class StopStrings:
    """Feed it text as it comes; it returns what may be shown.

    `is_shown` says whether the match itself belongs to the answer. Raises UserError for a pattern that is refused.
    """

    def __init__(self, stops: tuple[str, ...], pattern: str | None = None, *, is_shown: bool = False) -> None:
        self.found = False
        self._is_shown = is_shown
        self._automaton = Automaton(stops, pattern) if stops or pattern is not None else None
        self._begun: dict[int, int] = {}  # of each living state, where its earliest match began
        self._held, self._given = "", 0  # what is held back, and how many characters were given out before it
        self._place: Place = "beginning"

    @classmethod
    def of(cls, sampling: Sampling) -> Self:
        """What a request's settings ask for."""
        return cls(sampling.stop, sampling.stop_regex, is_shown=sampling.include_stop_str)

    def add(self, text: str, *, may_stop: bool = True) -> str:
        """The part of the text so far that is certain; sets `found` when a match is complete.

        A match that is complete before the answer `may_stop` (it is too short yet) is none.
        """
        if self._automaton is None:
            return text
        end = self._given + len(self._held)
        self._held += text
        for character in text:
            end += 1
            begun = self._step(self._automaton, character, end - 1)
            if begun is not None and may_stop:
                self.found = True
                shown = self._held[: (end if self._is_shown else begun) - self._given]
                self._held = ""
                return shown
        return self._give(min(self._begun.values(), default=end))

    def fork(self) -> Self:
        """One that goes on from here by itself."""
        other = copy(self)
        other._begun = dict(self._begun)
        return other

    def flush(self) -> str:
        """What was held back, once nothing follows."""
        return self._give(self._given + len(self._held))

    def _step(self, automaton: Automaton, character: str, position: int) -> int | None:
        """Read one character; where a match that it completes began."""
        automaton.spread(automaton.beginning, self._place, position, self._begun)
        self._place = "line" if character == "\n" else "inside"
        entered: dict[int, int] = {}
        for state, begun in sorted(self._begun.items(), key=lambda item: item[1]):
            if state in automaton.reading and begun > position - LONGEST_MATCH:
                matches, target = automaton.reading[state]
                if matches(character):
                    automaton.spread(target, self._place, begun, entered)
        found = entered.pop(automaton.accepting, None)
        self._begun = {state: begun for state, begun in entered.items() if state in automaton.reading}
        return found

    def _give(self, end: int) -> str:
        shown, self._held = self._held[: end - self._given], self._held[end - self._given :]
        self._given = end
        return shown
