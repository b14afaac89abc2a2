"""/v1/chat/completions: messages, tool calls, and OpenAI's newer format of log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bottega.generate.structure.calls import CallDelta, Delta, TextDelta, ToolCallParser, collect
from bottega.serve.answers import Choice, Envelope, is_shown
from bottega.serve.framing import Data

if TYPE_CHECKING:
    from bottega.generate.generator import Piece, Ticket
    from bottega.tokenizer.tokenizer import Tokenizer

CHAT = Envelope("chatcmpl", "chat.completion", "chat.completion.chunk")
LEAST_LOGPROB = -9999.0  # JSON has no infinity


class ChatChoice(Choice):
    """One message; `calls` reads the tool calls out of its text where the request offers tools."""

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, calls: ToolCallParser | None = None) -> None:
        self.tokenizer = tokenizer
        self.logprobs = logprobs
        self.calls = calls
        self.has_called = False

    @property
    def finish_reason(self) -> str | None:
        """`tool_calls` where the message made some."""
        return "tool_calls" if self.has_called else None

    def opening(self) -> Data:
        """The role."""
        return {"delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None}

    def news(self, piece: Piece | None, ticket: Ticket) -> Iterator[Data]:
        """`delta` and `logprobs`."""
        del ticket
        if piece is None:
            return
        logprobs = self.scores([piece])
        deltas = [_delta(part) for part in self.parts(piece)]
        if not deltas and logprobs and logprobs["content"]:
            deltas = [{"content": ""}]
        for delta in deltas:
            yield {"delta": delta, "logprobs": logprobs}
            logprobs = None if logprobs is None else {"content": [], "refusal": None}

    def closing(self) -> Data:
        """An empty delta."""
        return {"delta": {}, "logprobs": None}

    def whole(self, pieces: Sequence[Piece], ticket: Ticket) -> Data:
        """`message` and `logprobs`."""
        del ticket
        content, calls = collect([part for piece in pieces for part in self.parts(piece)])
        message: Data = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message |= {"content": content or None, "tool_calls": [call.as_openai() for call in calls]}
        return {"message": message, "logprobs": self.scores(pieces)}

    def parts(self, piece: Piece) -> list[Delta]:
        """What the piece adds to the text and the calls."""
        if self.calls is None:
            self.text += piece.text
            return [TextDelta(piece.text)] if piece.text else []
        found = self.calls.add(piece.text, piece.token_id)
        if piece.finish_reason is not None:
            found += self.calls.finish()
        self.text = self.calls.text
        self.has_called |= any(isinstance(part, CallDelta) for part in found)
        return found

    def scores(self, pieces: Sequence[Piece]) -> Data | None:
        """Log-probabilities of the shown tokens, if they are wanted."""
        if not self.logprobs:
            return None
        content = [self._token(piece) for piece in pieces if is_shown(piece, self.tokenizer)]
        return {"content": content, "refusal": None}

    def _token(self, piece: Piece) -> Data:
        raw = list(self.tokenizer.token_bytes(piece.token_id))
        top = [_scored(token, logprob, _bytes_of(token)) for token, logprob in piece.top]
        return {**_scored(piece.token_text, piece.logprob or 0.0, raw), "top_logprobs": top}


def _delta(part: Delta) -> Data:
    return {"content": part.text} if isinstance(part, TextDelta) else {"tool_calls": [part.as_openai()]}


def _scored(token: str, logprob: float, raw: list[int] | None) -> Data:
    return {"token": token, "logprob": max(logprob, LEAST_LOGPROB), "bytes": raw}


def _bytes_of(token: str) -> list[int] | None:
    """UTF-8 of a token's text; None for one that is no whole character, whose text shows bytes as \\xNN."""
    return None if "\\x" in token else list(token.encode("utf-8"))
