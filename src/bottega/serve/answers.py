"""From the generator's pieces to OpenAI's response objects, whole and streamed.

One class per endpoint. `whole` builds the response of an unstreamed request; `first`,
`piece` and `last` give the chunks of a streamed one, in the order in which OpenAI sends
them: the role, the pieces, the finish reason, then (if asked for) the usage.
"""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from bottega.serve.protocol import Usage

if TYPE_CHECKING:
    from bottega.generate.generator import Piece
    from bottega.tokenizer.tokenizer import Tokenizer

Data = dict[str, Any]
FINGERPRINT = f"bottega-{metadata.version('bottega')}"
DONE = b"data: [DONE]\n\n"


def event(data: Data) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class Answer(ABC):
    """What the two endpoints share."""

    prefix = ""
    object = ""
    chunk_object = ""

    def __init__(self, model: str, tokenizer: Tokenizer, prompt_tokens: int, *, logprobs: bool, usage: bool) -> None:
        self.tokenizer = tokenizer
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.logprobs = logprobs
        self.usage_chunk = usage
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def usage(self) -> Data:
        """Token counts so far."""
        total = self.prompt_tokens + self.completion_tokens
        counts = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens, total_tokens=total)
        return counts.model_dump()

    def whole(self, pieces: Sequence[Piece]) -> Data:
        """The response of an unstreamed request."""
        self.completion_tokens = len(pieces)
        text = "".join(piece.text for piece in pieces)
        choice = {"index": 0, **self.body(text, pieces), "finish_reason": pieces[-1].finish_reason}
        return {**self._head(self.object), "choices": [choice], "usage": self.usage()}

    def first(self) -> Iterator[Data]:
        """Chunks before the first piece."""
        yield from ()

    def piece(self, piece: Piece) -> Iterator[Data]:
        """Chunks for one piece; nothing is sent for a piece without news."""
        self.completion_tokens += 1
        if piece.text or (self.logprobs and self.is_shown(piece)):
            yield self.chunk(self.delta(piece), None)
        if piece.finish_reason is not None:
            yield self.chunk(self.nothing(), piece.finish_reason)

    def last(self) -> Iterator[Data]:
        """Chunks after the finish reason."""
        if self.usage_chunk:
            yield {**self._head(self.chunk_object), "choices": [], "usage": self.usage()}

    def is_shown(self, piece: Piece) -> bool:
        """Whether the piece's token belongs to the text; a stop token, or the end of a stop string, does not."""
        stopped = piece.finish_reason == "stop"
        return not (stopped and (piece.token_id in self.tokenizer.stop_ids or not piece.text))

    def chunk(self, content: Data, finish_reason: str | None) -> Data:
        """One chunk with one choice."""
        data = self._head(self.chunk_object)
        data["choices"] = [{"index": 0, **content, "finish_reason": finish_reason}]
        if self.usage_chunk:
            data["usage"] = None
        return data

    @abstractmethod
    def body(self, text: str, pieces: Sequence[Piece]) -> Data:
        """The content of a whole answer's choice."""

    @abstractmethod
    def delta(self, piece: Piece) -> Data:
        """The content of a chunk's choice."""

    @abstractmethod
    def nothing(self) -> Data:
        """The content of the choice that carries the finish reason."""

    def _head(self, object_name: str) -> Data:
        return {"id": self.head["id"], "object": object_name, **self.head, "system_fingerprint": FINGERPRINT}


class ChatAnswer(Answer):
    """/v1/chat/completions."""

    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first(self) -> Iterator[Data]:
        """The role."""
        yield self.chunk({"delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None}, None)

    def body(self, text: str, pieces: Sequence[Piece]) -> Data:
        """`message` and `logprobs`."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": self._logprobs(pieces)}

    def delta(self, piece: Piece) -> Data:
        """`delta` and `logprobs`."""
        return {"delta": {"content": piece.text}, "logprobs": self._logprobs([piece])}

    def nothing(self) -> Data:
        """An empty delta."""
        return {"delta": {}, "logprobs": None}

    def _logprobs(self, pieces: Sequence[Piece]) -> Data | None:
        if not self.logprobs:
            return None
        content = [self._token(piece) for piece in pieces if self.is_shown(piece)]
        return {"content": content, "refusal": None}

    def _token(self, piece: Piece) -> Data:
        raw = list(self.tokenizer.token_bytes(piece.token_id))
        top = [_scored(token, logprob, _bytes_of(token)) for token, logprob in piece.top]
        return {**_scored(piece.token_text, piece.logprob, raw), "top_logprobs": top}


class CompletionAnswer(Answer):
    """/v1/completions (OpenAI's older format of log-probabilities)."""

    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, tokenizer: Tokenizer, prompt_tokens: int, *, logprobs: bool, usage: bool) -> None:
        super().__init__(model, tokenizer, prompt_tokens, logprobs=logprobs, usage=usage)
        self._offset = 0

    def body(self, text: str, pieces: Sequence[Piece]) -> Data:
        """`text` and `logprobs`."""
        return {"text": text, "logprobs": self._logprobs(pieces)}

    def delta(self, piece: Piece) -> Data:
        """`text` and `logprobs`."""
        return self.body(piece.text, [piece])

    def nothing(self) -> Data:
        """An empty text."""
        return {"text": "", "logprobs": None}

    def _logprobs(self, pieces: Sequence[Piece]) -> Data | None:
        if not self.logprobs:
            return None
        shown = [piece for piece in pieces if self.is_shown(piece)]
        offsets: list[int] = []
        for piece in shown:
            offsets.append(self._offset)
            self._offset += len(piece.text)
        return {
            "tokens": [piece.token_text for piece in shown],
            "token_logprobs": [piece.logprob for piece in shown],
            "top_logprobs": [dict(piece.top) for piece in shown],
            "text_offset": offsets,
        }


def _scored(token: str, logprob: float, raw: list[int] | None) -> Data:
    return {"token": token, "logprob": max(logprob, -9999.0), "bytes": raw}


def _bytes_of(token: str) -> list[int] | None:
    """UTF-8 of a token's text; None for one that is no whole character, whose text shows bytes as \\xNN."""
    return None if "\\x" in token else list(token.encode("utf-8"))
