"""A grammar that tokens must follow: llguidance's matcher behind the engine's interface.

llguidance (github.com/guidance-ai/llguidance) runs an Earley parser over a lexer of regular-expression
derivatives, and walks the vocabulary's trie with both; nothing is precomputed per grammar, so that
compiling takes a millisecond. What a user may give is bounded here, because the library recurses
over rules: a chain of thousands would overflow the stack and end the process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from llguidance import LLMatcher, LLParserLimits
from llguidance.gbnf_to_lark import gbnf_to_lark
from torch import Tensor

from bottega.core.errors import BottegaError, UserError
from bottega.generate.constraint import Constraint, Validity
from bottega.generate.structure.vocabulary import Vocabulary, vocabulary_of
from bottega.tokenizer.tokenizer import Tokenizer

MAX_CHARACTERS = 65_536  # of a regex, a grammar, or all choices together
# Rules and groups of a grammar: each may be one more level of recursion, and an 8 MiB stack holds over 1,500.
MAX_RULES = 500
MAX_INTERSECTIONS = 8  # each can double the work of compiling
MAX_LEXER_STATES = 50_000  # 1 to 2 kB each

Judge = Callable[[str], Validity]


class GrammarConstraint(Constraint):
    """Tokens must follow a compiled grammar, and may stop only where it may end."""

    def __init__(
        self, vocabulary: Vocabulary, matcher: LLMatcher, judge: Judge | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        self.vocabulary, self.notes = vocabulary, notes
        self._matcher, self._judge = matcher, judge
        self._beyond = 0  # stop tokens accepted after the end, which the matcher does not count

    def fill(self, mask: Tensor) -> None:
        """Write the mask; where the grammar cannot go on, `error` is set and only stop tokens are left."""
        words = self.vocabulary.words
        mask[words:] = 0
        if not self.error:
            self._matcher.unsafe_compute_mask_ptr(mask.data_ptr(), 4 * words)
            self._notice_error()
        if self.error:
            mask[:words] = self.vocabulary.stops

    def accept(self, token: int) -> None:
        """Go on by one token; stop tokens after the end change nothing."""
        if token in self.vocabulary.stop_ids and self.is_finished:
            self._beyond += 1
            return
        if not self._matcher.consume_token(token):
            reason = _first_line(self._matcher.get_error())
            if (
                self.vocabulary.unwritable
            ):  # a text that is certain cannot be written in tokens, and masks are wrong there
                self.error = f"the grammar cannot go on: {self._lacking()}"
                return
            if "satisfy the grammar" in reason:
                raise BottegaError(f"token {token} does not follow the grammar: {reason}")
            self.error = f"the grammar cannot go on: {reason}"  # a limit of the parser

    def rollback(self, count: int) -> None:
        """Take the last `count` accepted tokens back."""
        beyond = min(count, self._beyond)
        self._beyond -= beyond
        if count > beyond and not self._matcher.rollback(count - beyond):
            raise BottegaError(f"{count} tokens cannot be taken back: {_first_line(self._matcher.get_error())}")

    def copy(self) -> GrammarConstraint:
        """Another one at the same place."""
        other = GrammarConstraint(self.vocabulary, self._matcher.deep_copy(), self._judge, self.notes)
        other.error, other._beyond = self.error, self._beyond
        return other

    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens the grammar takes."""
        return 0 if self.error else self._matcher.validate_tokens(list(tokens))

    @property
    def is_accepting(self) -> bool:
        """Whether the grammar may end here."""
        return not self.error and self._matcher.is_accepting()

    @property
    def is_finished(self) -> bool:
        """Whether nothing can follow."""
        return bool(self.error) or self._matcher.is_stopped()

    def forced(self) -> list[int]:
        """The tokens of the text that the grammar leaves no choice about."""
        return [] if self.is_finished else self._matcher.compute_ff_tokens()

    def judge(self, text: str) -> Validity:
        """Whether the grammar ended, and the text is valid beyond it."""
        ended = super().judge(text)
        return self._judge(text) if ended.valid and self._judge is not None else ended

    def _notice_error(self) -> None:
        if self._matcher.is_error():
            reason = _first_line(self._matcher.get_error())
            dead_end = reason.startswith("NoExtension")
            self.error = "nothing can follow by the grammar" if dead_end else f"the grammar cannot go on: {reason}"
            if dead_end and self.vocabulary.unwritable:
                self.error += f"; {self._lacking()}"

    def _lacking(self) -> str:
        return f"the model's tokenizer cannot write {' '.join(self.vocabulary.unwritable)}"


def compile_grammar(
    tokenizer: Tokenizer, grammar: str, field: str, *, judge: Judge | None = None, notes: tuple[str, ...] = ()
) -> GrammarConstraint:
    """A constraint from llguidance's own form of a grammar.

    Raises UserError naming `field` if it is malformed, too large, or no text at all satisfies it.
    """
    vocabulary = vocabulary_of(tokenizer)
    limits = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(vocabulary.guidance, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise refusal(field, matcher.get_error())
    constraint = GrammarConstraint(vocabulary, matcher, judge, notes)
    constraint.fill(vocabulary.stops.clone())
    if constraint.error:
        raise UserError(f"{field}: no text can satisfy it: {constraint.error}")
    return constraint


def regex(tokenizer: Tokenizer, pattern: str, *, field: str = "regex") -> GrammarConstraint:
    """The whole answer matches `pattern` (syntax of Rust's regex crate; no look-around, no backreferences)."""
    check_size(pattern, field)
    return compile_grammar(tokenizer, LLMatcher.grammar_from_regex(pattern), field)


def choice(tokenizer: Tokenizer, texts: Sequence[str], *, field: str = "choice") -> GrammarConstraint:
    """The answer is one of `texts`, exactly."""
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{field} must be a list of at least one text")
    check_size("".join(texts), field)
    # One terminal: alternatives in the lexer are states of an automaton, in the parser one item each.
    return compile_grammar(tokenizer, "start: ONE\nONE: " + " | ".join(json.dumps(text) for text in texts), field)


def lark(tokenizer: Tokenizer, grammar: str, *, field: str = "grammar") -> GrammarConstraint:
    """The answer follows a grammar: Lark's notation in llguidance's variant, or llama.cpp's GBNF (`root ::= …`)."""
    check_size(grammar, field)
    if "::=" in grammar:
        try:
            grammar = gbnf_to_lark(grammar)
        except Exception as error:  # a foreign parser, and it raises plain Exception
            raise UserError(f"{field} is no GBNF grammar: {error}") from None
    outline = re.sub(r'"(\\.|[^"\\\n])*"|/(\\.|[^/\\\n])+/', "x", grammar)
    if len(re.findall(r"[(:\[]", outline)) > MAX_RULES:
        raise UserError(f"{field} has more than {MAX_RULES} rules and groups", hint="Make it smaller.")
    if outline.count("&") > MAX_INTERSECTIONS:
        raise UserError(f"{field} has more than {MAX_INTERSECTIONS} times '&'", hint="Write the terminals out.")
    return compile_grammar(tokenizer, LLMatcher.grammar_from_lark(grammar), field)


def check_size(text: str, field: str) -> None:
    """Raise UserError if the text is too long, or no Unicode text."""
    if not isinstance(text, str):
        raise UserError(f"{field} must be text, not {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{field} has {len(text)} characters", hint=f"At most {MAX_CHARACTERS} are accepted.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{field} contains a lone surrogate, which is not Unicode text") from None


def refusal(field: str, reason: str) -> UserError:
    """The library's reason why it does not take a grammar, in our words."""
    if keys := re.search(r"Unimplemented keys: (\[.*\])", reason):
        names = json.loads(keys[1])
        noun = "keywords" if len(names) > 1 else "keyword"
        named = ", ".join(map(repr, names))
        return UserError(f"{field}: no grammar can be made of the {noun} {named}", hint=LENIENT_HINT)
    if reason.startswith("oneOf"):
        what = "no grammar can be made of the keyword 'oneOf' where its alternatives may overlap"
        return UserError(f"{field}: {what}", hint=f"Use anyOf. {LENIENT_HINT}")
    if reason.startswith(("Unknown format", "min/maxProperties")):
        return UserError(f"{field}: {reason.splitlines()[0]}", hint=LENIENT_HINT)
    if reason.startswith("Unable to determine"):
        return UserError(f"{field}: the patterns that a text must match together are too complex")
    lines = [line.strip() for line in reason.splitlines() if line.strip().strip("^")]
    return UserError(f"{field}: {' '.join(lines)[:500]}")


LENIENT_HINT = (
    "Leave it out, or set strict to false: it is then not enforced while the answer is written, "
    "but the answer is checked against the whole schema and the result reported."
)


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0][:300]
