"""/v1/completions: texts, and OpenAI's older format of log-probabilities, with those of the prompt (`echo`).

`tokens`, `token_logprobs`, `top_logprobs` and `text_offset` have one entry per token; the first token of a
prompt has nothing before it, and null for both probabilities. The chosen token stands among its
`top_logprobs`, with the very number of `token_logprobs`: so a token is the greedy choice if and only if its
number is the largest there, which is how lm-eval's `local-completions` finds out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from bottega.serve.answers import Choice, Envelope, is_shown
from bottega.serve.framing import Data
from bottega.tokenizer.tokenizer import Detokenizer

if TYPE_CHECKING:
    from bottega.generate.generator import Piece, Ticket
    from bottega.tokenizer.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0  # JSON has no infinity
COMPLETION = Envelope("cmpl", "text_completion", "text_completion")


class CompletionChoice(Choice):
    """One continuation; `echo` is the prompt's text where the answer begins with it."""

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, echo: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.logprobs = logprobs
        self.echo = echo
        self._offset = 0

    def news(self, piece: Piece | None, ticket: Ticket) -> Iterator[Data]:
        """`text` and `logprobs`; the prompt comes with the first piece, when its probabilities are known."""
        if self.echo is not None:
            yield self._content(self.echo, self._prompt_logprobs(ticket))
            self._offset, self.echo = len(self.echo), None
        if piece is not None:
            self.text += piece.text
        if piece is not None and (piece.text or (self.logprobs and is_shown(piece, self.tokenizer))):
            yield self._content(piece.text, self._logprobs([piece]))

    def closing(self) -> Data:
        """An empty text."""
        return {"text": "", "logprobs": None}

    def whole(self, pieces: Sequence[Piece], ticket: Ticket) -> Data:
        """`text` and `logprobs`."""
        self.text = "".join(piece.text for piece in pieces)
        if self.echo is None:
            return self._content(self.text, self._logprobs(pieces))
        prompt = self._prompt_logprobs(ticket)
        self._offset = len(self.echo)
        said = self._logprobs(pieces)
        return self._content(self.echo + self.text, {name: [*prompt[name], *said[name]] for name in said})

    def _content(self, text: str, logprobs: Data) -> Data:
        return {"text": text, "logprobs": logprobs if self.logprobs else None}

    def _logprobs(self, pieces: Sequence[Piece]) -> Data:
        rows = []
        for piece in pieces:
            if is_shown(piece, self.tokenizer) and self.logprobs:
                top = _largest([(piece.token_text, piece.logprob or 0.0), *piece.top])
                rows.append((piece.token_text, max(piece.logprob or 0.0, LEAST_LOGPROB), top, self._offset))
            self._offset += len(piece.text)
        return _columns(rows)

    def _prompt_logprobs(self, ticket: Ticket) -> Data:
        """The same of the prompt's tokens."""
        if not self.logprobs:
            return _columns([])
        scores = ticket.prompt_logprobs or [None] * len(ticket.prompt_ids)
        rows, offset, text = [], 0, Detokenizer(self.tokenizer)
        for id_, score in zip(ticket.prompt_ids, scores, strict=True):
            token = self.tokenizer.token_text(id_)
            if score is None:
                rows.append((token, None, None, offset))
            else:
                logprob, likeliest = score
                named = [(self.tokenizer.token_text(other), value) for other, value in likeliest]
                rows.append((token, max(logprob, LEAST_LOGPROB), _largest([(token, logprob), *named]), offset))
            offset += len(text.add(id_))
        return _columns(rows)


def _columns(rows: Sequence[tuple[str, float | None, dict[str, float] | None, int]]) -> Data:
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return {name: [row[column] for row in rows] for column, name in enumerate(names)}


def _largest(scored: Iterable[tuple[str, float]]) -> dict[str, float]:
    """By text; of several tokens with the same text the likeliest."""
    found: dict[str, float] = {}
    for token, logprob in scored:
        found[token] = max(logprob, found.get(token, LEAST_LOGPROB))
    return found
