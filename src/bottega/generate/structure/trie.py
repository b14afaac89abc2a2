"""Token masks from an automaton, by walking the vocabulary's trie: constrained decoding in the small.

A token is allowed in a state if the automaton survives its bytes. Tokens share beginnings, so that one walk through
the trie of all tokens, cut where the automaton dies, answers for all of them (Willard and Louf 2023,
arXiv:2307.09702, over bytes instead of characters).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bottega.core.errors import BottegaError
from bottega.generate.constraint import Constraint
from bottega.generate.structure.automaton import Automaton
from bottega.generate.structure.vocabulary import Vocabulary, packed


class TokenTrie:
    """All tokens of a vocabulary that stand for text, by their bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.children: list[dict[int, int]] = [{}]
        self.tokens: list[list[int]] = [[]]
        for text, id_ in vocabulary.sorted:
            at = 0
            for byte in text:
                if byte not in self.children[at]:
                    self.children[at][byte] = len(self.children)
                    self.children.append({})
                    self.tokens.append([])
                at = self.children[at][byte]
            self.tokens[at].append(id_)

    def allowed(self, automaton: Automaton, state: int) -> set[int]:
        """Tokens whose bytes the automaton survives from `state`; the stop tokens if the text may end there."""
        found = set(self.vocabulary.stop_ids) if state in automaton.accepting else set()
        stack = [(0, state)]
        while stack:
            node, state = stack.pop()
            found.update(self.tokens[node])
            row = automaton.edges[state]
            stack += [(child, row[byte]) for byte, child in self.children[node].items() if byte in row]
        return found


class AutomatonConstraint(Constraint):
    """A constraint by the automaton of this file, for the engine as it is; each state's mask is computed once."""

    def __init__(self, trie: TokenTrie, automaton: Automaton) -> None:
        self.trie, self.automaton = trie, automaton
        self._masks: dict[int, Tensor] = {}
        self._states = [0]  # before and after each accepted token

    def fill(self, mask: Tensor) -> None:
        """Write the mask of the present state."""
        state, words = self._states[-1], self.trie.vocabulary.words
        if state not in self._masks:
            self._masks[state] = packed(self.trie.allowed(self.automaton, state), words)
        mask[:words] = self._masks[state]
        mask[words:] = 0

    def accept(self, token: int) -> None:
        """Go on by the bytes of one token; a stop token changes nothing."""
        after = self._after(self._states[-1], token)
        if after is None:
            raise BottegaError(f"token {token} does not follow the pattern")
        self._states.append(after)

    def rollback(self, count: int) -> None:
        """Take the last `count` accepted tokens back."""
        del self._states[len(self._states) - count :]

    def copy(self) -> AutomatonConstraint:
        """Another one at the same place; they share their masks."""
        made = AutomatonConstraint(self.trie, self.automaton)
        made._masks, made._states = self._masks, list(self._states)
        return made

    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may follow."""
        state: int | None = self._states[-1]
        for count, token in enumerate(tokens):
            state = self._after(state, token)
            if state is None:
                return count
        return len(tokens)

    @property
    def is_accepting(self) -> bool:
        """Whether the text matches as it is."""
        return self._states[-1] in self.automaton.accepting

    @property
    def is_finished(self) -> bool:
        """Whether it matches and nothing can follow."""
        return not self.automaton.edges[self._states[-1]]

    def _after(self, state: int, token: int) -> int | None:
        vocabulary = self.trie.vocabulary
        if token in vocabulary.special_ids:
            return state if token in vocabulary.stop_ids and state in self.automaton.accepting else None
        for byte in vocabulary.bytes[token]:
            if byte not in self.automaton.edges[state]:
                return None
            state = self.automaton.edges[state][byte]
        return state if vocabulary.bytes[token] else None
