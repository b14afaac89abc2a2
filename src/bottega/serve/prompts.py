"""From a request to token ids and sampling settings, with the refusals that need the tokenizer or the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from bottega.core.errors import UserError
from bottega.serve.failures import ApiError
from bottega.serve.protocol import ChatMessage, Decoding, ModelFacts, Rendered, RenderedToken, RenderRequest

if TYPE_CHECKING:
    from bottega.generate.generator import Generator
    from bottega.generate.sampling import Sampling
    from bottega.tokenizer.chat import ChatTokens

T = TypeVar("T")


class Prompts:
    """Prompts for one generator's model."""

    def __init__(self, generator: Generator) -> None:
        self.tokenizer = generator.tokenizer
        self.config = generator.config
        self.context_length = generator.context_length

    def facts(self) -> ModelFacts:
        """What /v1/models says about the model."""
        return ModelFacts(
            parameters=self.config.parameter_count(),
            context_length=self.context_length,
            vocab_size=self.config.vocab_size,
            num_hidden_layers=self.config.num_hidden_layers,
            hidden_size=self.config.hidden_size,
            model_type=self.config.model_type,
            has_chat_template=self.tokenizer.chat_template is not None,
        )

    def chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of a conversation, ending where the model's answer begins."""
        return self._require_room(self._encode_chat(messages).ids, "messages")

    def plain(self, prompt: str | list[int]) -> list[int]:
        """Token ids of a text to continue, or the given ids."""
        if isinstance(prompt, str):
            ids = self._encode_text(prompt)
        else:
            ids = prompt
            wrong = next((id_ for id_ in ids if not 0 <= id_ < self.config.vocab_size), None)
            if wrong is not None:
                message = f"Token id {wrong} is outside the vocabulary of {self.config.vocab_size}."
                raise ApiError(400, message, param="prompt", code="invalid_value")
        return self._require_room(ids, "prompt")

    def rendered(self, request: RenderRequest) -> Rendered:
        """The prompt as the model reads it; one that is too long is shown too."""
        if request.messages is not None:
            chat = self._encode_chat(request.messages)
            ids, text = chat.ids, chat.text
        else:
            ids, text = self._encode_text(request.prompt or ""), request.prompt or ""
        return Rendered(
            text=text,
            token_count=len(ids),
            context_length=self.context_length,
            tokens=[
                RenderedToken(id=id_, text=self.tokenizer.token_text(id_), special=id_ in self.tokenizer.special_ids)
                for id_ in ids
            ],
        )

    def sampling(self, request: Decoding, prompt_tokens: int, limit: int | None, top_logprobs: int) -> Sampling:
        """The request's settings; `limit` is cut to what the context has room for."""
        from bottega.generate.sampling import Sampling

        room = self.context_length - prompt_tokens
        return Sampling(
            max_new_tokens=room if limit is None else min(limit, room),
            temperature=_or(request.temperature, 1.0),
            top_k=max(_or(request.top_k, 0), 0),
            top_p=_or(request.top_p, 1.0),
            min_p=_or(request.min_p, 0.0),
            repetition_penalty=_or(request.repetition_penalty, 1.0),
            seed=request.seed,
            stop=tuple(request.stop or ()),
            top_logprobs=top_logprobs,
        )

    def _encode_chat(self, messages: Sequence[ChatMessage]) -> ChatTokens:
        from bottega.tokenizer.chat import encode_chat

        if self.tokenizer.chat_template is None:
            message = "This model has no chat template; use /v1/completions, which continues a text."
            raise ApiError(400, message, param="messages", code="no_chat_template")
        try:
            plain = [message.as_message() for message in messages]
            return encode_chat(self.tokenizer, plain, add_generation_prompt=True)
        except UserError as error:  # the template refuses (an order of roles, for example)
            raise ApiError(400, str(error), param="messages", code="invalid_value") from None

    def _encode_text(self, text: str) -> list[int]:
        return [*self.tokenizer.document_prefix(), *self.tokenizer.encode(text)]

    def _require_room(self, ids: list[int], param: str) -> list[int]:
        if not ids:
            raise ApiError(400, "The prompt has no tokens.", param=param, code="invalid_value")
        if len(ids) >= self.context_length:
            raise ApiError(
                400,
                f"The prompt has {len(ids)} tokens, and the model's context holds {self.context_length} "
                "including the answer. Nothing is cut off silently: send less.",
                param=param,
                code="context_length_exceeded",
            )
        return ids


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
