"""Token healing: a prompt that ends inside a word goes on as if it had been tokenised together with what follows.

`The link is http:` ends with the token `:`, and `://` is another token: a model that never saw `:` before `//`
goes wrong. So the last tokens are taken back, and the first tokens generated must begin with their bytes
(Lundberg 2023, "The Art of Prompt Design: Prompt Boundaries and Token Healing").
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bottega.core.errors import BottegaError
from bottega.generate.constraint import Constraint
from bottega.generate.structure.vocabulary import Vocabulary, packed, vocabulary_of
from bottega.tokenizer.tokenizer import Tokenizer

MAX_TOKENS = 8  # taken back at most


@dataclass(frozen=True)
class Healed:
    """The prompt to run, the text that was taken off its end, and what the answer must therefore begin with.

    `constraint` is None if nothing had to be healed. The answer repeats `removed`: take it off before showing it.
    """

    prompt_ids: list[int]
    removed: str
    constraint: PrefixConstraint | None


def heal(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> Healed:
    """Take back the last tokens of a prompt, if some longer token begins with their bytes.

    Special tokens and the first token stay, and so does a character that is written with several tokens.
    """
    vocabulary = vocabulary_of(tokenizer)
    ids = list(prompt_ids)
    removed = b""
    best = 0
    for count in range(1, min(MAX_TOKENS, len(ids) - 1) + 1):
        id_ = ids[-count]
        if id_ in vocabulary.special_ids or not 0 <= id_ < vocabulary.size:
            break
        removed = vocabulary.bytes[id_] + removed
        if not any(len(text) > len(removed) for text, _ in vocabulary.starting_with(removed)):
            break
        if _is_text(removed):
            best = count
    if not best:
        return Healed(ids, "", None)
    prefix = b"".join(vocabulary.bytes[id_] for id_ in ids[-best:])
    return Healed(ids[:-best], prefix.decode("utf-8"), PrefixConstraint(vocabulary, prefix))


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(content)


class PrefixConstraint(Constraint):
    """The answer begins with these bytes, and is free after them."""

    def __init__(self, vocabulary: Vocabulary, prefix: bytes) -> None:
        self.vocabulary = vocabulary
        self._left = [prefix]  # what is still to come, before and after each accepted token

    def fill(self, mask: Tensor) -> None:
        """Tokens that begin with what is left, or that it begins with; all, once nothing is left."""
        left = self._left[-1]
        if not left:
            mask.fill_(-1)
            return
        longer = {id_ for _, id_ in self.vocabulary.starting_with(left)}
        words = self.vocabulary.words
        mask[words:] = 0
        mask[:words] = packed(longer | set(self._shorter(left)), words)

    def accept(self, token: int) -> None:
        """Go on by one token."""
        left = self._left[-1]
        if left and not self._fits(token, left):
            raise BottegaError(f"token {token} does not begin with what was taken off the prompt")
        self._left.append(left[len(self.vocabulary.bytes[token]) :] if left else b"")

    def rollback(self, count: int) -> None:
        """Take the last `count` accepted tokens back."""
        del self._left[len(self._left) - count :]

    def copy(self) -> PrefixConstraint:
        """Another one at the same place."""
        made = PrefixConstraint(self.vocabulary, b"")
        made._left = list(self._left)
        return made

    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may follow."""
        other, count = self.copy(), 0
        for token in tokens:
            left = other._left[-1]
            if left and not self._fits(token, left):
                break
            other.accept(token)
            count += 1
        return count

    @property
    def is_accepting(self) -> bool:
        """Whether the bytes have come."""
        return not self._left[-1]

    @property
    def is_finished(self) -> bool:
        """Never: what follows is free."""
        return False

    def _fits(self, token: int, left: bytes) -> bool:
        if not 0 <= token < self.vocabulary.size or token in self.vocabulary.special_ids:
            return False
        text = self.vocabulary.bytes[token]
        return bool(text) and (text.startswith(left) or left.startswith(text))

    def _shorter(self, left: bytes) -> list[int]:
        """Tokens that are a beginning of `left`, not all of it."""
        found, tokens = [], self.vocabulary.sorted
        for size in range(1, len(left)):
            part = left[:size]
            place = bisect_left(tokens, (part, -1))
            while place < len(tokens) and tokens[place][0] == part:
                found.append(tokens[place][1])
                place += 1
        return found
