"""From a request to token ids and sampling settings, with the refusals that need the tokenizer or the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bottega.core.errors import UserError
from bottega.serve.failures import ApiError
from bottega.serve.protocol.chat import ChatMessage, ChatRequest
from bottega.serve.protocol.decoding import Decoding
from bottega.serve.protocol.structured import Structured
from bottega.serve.protocol.tokens import PromptSource, Rendered, RenderedToken

if TYPE_CHECKING:
    from bottega.generate.constraint import Constraint
    from bottega.generate.generator import Generator
    from bottega.generate.sampling import Sampling
    from bottega.tokenizer.chat import ChatTokens

# Settings of the engine that clients send under another name.
WIRE_NAMES = {
    "min_new_tokens": "min_tokens",
    "tail_free": "tfs",
    "penalty_range": "repetition_penalty_range",
    "dry_breakers": "dry_sequence_breakers",
    "allowed_tokens": "allowed_token_ids",
    "banned_words": "bad_words",
    "include_stop_str": "include_stop_str_in_output",
}
SAME_NAMES = (
    *("temperature", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_n_sigma", "top_a", "top_h"),
    *("xtc_probability", "xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta", "dynatemp_range"),
    *("dynatemp_exponent", "repetition_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier"),
    *("dry_base", "dry_allowed_length", "dry_range", "no_repeat_ngram_size", "samplers", "seed", "stop"),
    *("ignore_eos", "stop_token_ids", "stop_regex"),
)


class Prompts:
    """Prompts for one generator's model."""

    def __init__(self, generator: Generator) -> None:
        self.tokenizer = generator.tokenizer
        self.vocab_size = generator.config.vocab_size
        self.context_length = generator.context_length

    def chat(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Token ids of a conversation, ending where the model's answer begins."""
        return self.require_room(self._encode_chat(messages, tools).ids, "messages")

    def plain(self, prompt: str | list[int], param: str = "prompt", *, room: int = 1) -> list[int]:
        """Token ids of a text to continue, or the given ids; `room` tokens must fit behind them."""
        ids = self.encode_document(prompt) if isinstance(prompt, str) else self.known_ids(prompt, param)
        return self.require_room(ids, param, room=room)

    def rendered(self, source: PromptSource) -> Rendered:
        """The prompt as the model reads it; one that is too long is shown too."""
        ids, text = self.ids_of(source)
        return Rendered(
            text=text,
            token_count=len(ids),
            context_length=self.context_length,
            tokens=[
                RenderedToken(id=id_, text=self.tokenizer.token_text(id_), special=id_ in self.tokenizer.special_ids)
                for id_ in ids
            ],
        )

    def ids_of(self, source: PromptSource) -> tuple[list[int], str]:
        """The prompt as ids and as text."""
        if source.messages is not None:
            chat = self._encode_chat(
                source.messages, [tool.model_dump(exclude_none=True) for tool in source.tools or []]
            )
            return chat.ids, chat.text
        return self.encode_document(source.prompt or ""), source.prompt or ""

    def sampling(self, request: Decoding, prompt_tokens: int, limit: int | None, **settings: Any) -> Sampling:
        """The request's settings; `limit` is cut to what the context has room for.

        `settings` are further ones of `Sampling`. Raises ApiError 400 that names the field.
        """
        from bottega.generate.sampling import Sampling

        room = self.context_length - prompt_tokens
        values: dict[str, Any] = {name: getattr(request, name) for name in SAME_NAMES}
        values |= {name: getattr(request, wire) for name, wire in WIRE_NAMES.items()}
        values["top_k"] = max(request.top_k or 0, 0)
        values["logit_bias"] = [(int(token), bias) for token, bias in (request.logit_bias or {}).items()]
        try:
            values["dry_breakers"], values["banned_words"] = self._words(request)
            given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            given = {name: value for name, value in given.items() if value is not None}
            limit = room if limit is None else min(limit, room)
            return Sampling(**{"temperature": 1.0, **given, **settings, "max_new_tokens": limit})
        except UserError as error:
            raise refusal(error) from None

    def constraint(self, request: Structured) -> Constraint | None:
        """What the answer's tokens must obey; None: nothing. Raises ApiError 400 that names the field."""
        form = {name: value for name, value in request.form().items() if value is not None}
        if not form:
            return None
        from bottega.generate.structure.request import constraint_from_request

        try:
            return constraint_from_request(self.tokenizer, **form)
        except UserError as error:
            raise refusal(error) from None

    def encode_document(self, text: str) -> list[int]:
        """Ids of a text with what stands before a document."""
        return [*self.tokenizer.document_prefix(), *self.tokenizer.encode(text)]

    def known_ids(self, ids: list[int], param: str) -> list[int]:
        """`ids`; raises ApiError 400 if one is outside the vocabulary."""
        wrong = next((id_ for id_ in ids if not 0 <= id_ < self.vocab_size), None)
        if wrong is not None:
            message = f"Token id {wrong} is outside the vocabulary of {self.vocab_size}."
            raise ApiError(400, message, param=param, code="invalid_value")
        return ids

    def require_room(self, ids: list[int], param: str, *, room: int = 1) -> list[int]:
        """`ids`; raises ApiError 400 with the numbers if the context has no room for them and `room` tokens more."""
        if not ids:
            raise ApiError(400, "The prompt has no tokens.", param=param, code="invalid_value")
        if len(ids) + room > self.context_length:
            including = " including the answer" if room else ""
            raise ApiError(
                400,
                f"The prompt has {len(ids)} tokens, and the model's context holds {self.context_length}{including}. "
                "Nothing is cut off silently: send less.",
                param=param,
                code="context_length_exceeded",
            )
        return ids

    def _words(self, request: Decoding) -> tuple[Any, Any]:
        """The breakers of DRY and the banned words as token ids."""
        from bottega.generate.words import DRY_BREAKERS, banned_words, dry_breakers

        breakers, banned = request.dry_sequence_breakers, request.bad_words
        if request.dry_multiplier and breakers is None:
            breakers = DRY_BREAKERS
        return (
            dry_breakers(self.tokenizer, breakers) if breakers else None,
            banned_words(self.tokenizer, banned) if banned else None,
        )

    def _encode_chat(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> ChatTokens:
        from bottega.tokenizer.chat import encode_chat

        if self.tokenizer.chat_template is None:
            message = "This model has no chat template; use /v1/completions, which continues a text."
            raise ApiError(400, message, param="messages", code="no_chat_template")
        try:
            plain = [message.as_message() for message in messages]
            return encode_chat(self.tokenizer, plain, add_generation_prompt=True, tools=tools or None)
        except UserError as error:  # the template refuses (an order of roles, for example)
            raise ApiError(400, str(error), param="messages", code="invalid_value") from None


def refusal(error: UserError) -> ApiError:
    """A refusal of the engine's, by the name that the client sent."""
    text = str(error)
    for name, wire in WIRE_NAMES.items():
        text = text.replace(name, wire)
    first = text.partition(" ")[0].rstrip(":")
    known = first.partition("[")[0].partition(".")[0] in ChatRequest.model_fields
    return ApiError(400, text, param=first if known else None, code="invalid_value")
