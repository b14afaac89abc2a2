"""From a prompt to a continuation, token by token, with a cache.

`decode` is the loop: one pass over the prompt, then one over each new token. `Generator` joins it
with a tokenizer: text that streams, stop tokens and strings, log-probabilities.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.core.machine import facts, inference_dtype, resolve_device, resolve_threads
from bottega.core.schema import OnModel
from bottega.generate.sampling import Sampling, choose, random_stream
from bottega.generate.stopping import StopStrings
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.model.load import DTYPES, load_decoder
from bottega.model.precision import SAMPLE, cost_line, divergence, log_probabilities
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.tokenizer import Detokenizer, Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """One generated token. `text` may be empty (half a character, held back for a stop string, a stop token).

    `logprob` and `top` are the model's own log-probabilities in nats, before penalty, temperature
    and truncation. The last piece, and only it, has a `finish_reason`.
    """

    text: str
    token_id: int
    token_text: str
    logprob: float
    top: list[tuple[str, float]]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Completion:
    """A whole answer; `token_ids` include the stop token that ended it, `text` does not."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    pieces: list[Piece]


@torch.inference_mode()
def decode(decoder: Decoder, prompts: Tensor, sampling: Sampling) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue `prompts` (B, T), all rows together, for up to `max_new_tokens` steps.

    Yields the new tokens (B,) int64 and the raw logits (B, V) they were chosen from. Row i draws
    from the seed plus i, so that rows differ and a row does not depend on its neighbours.
    """
    batch, length = prompts.shape
    seeds = [None if sampling.seed is None else sampling.seed + row for row in range(batch)]
    streams = [random_stream(seed) for seed in seeds]
    weight = decoder.model.embed_tokens.weight
    cache = KVCache(decoder.config, batch, length + sampling.max_new_tokens, weight.dtype, weight.device)
    history, tokens = prompts, prompts
    for _ in range(sampling.max_new_tokens):
        logits = decoder.logits(decoder.hidden(tokens, cache=cache)[:, -1])
        chosen = choose(logits, history, sampling, streams)
        yield chosen, logits
        tokens = chosen.unsqueeze(1)
        if sampling.repetition_penalty != 1.0:
            history = torch.cat((history, tokens), dim=1)


class Generator:
    """A decoder and its tokenizer, ready to answer."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, precision_note: str = "") -> None:
        self.decoder, self.tokenizer, self.precision_note = decoder, tokenizer, precision_note

    @classmethod
    def of(cls, config: OnModel) -> Self:
        """What a verb's settings ask for."""
        return cls.load(
            config.model, adapters=config.adapter, device=config.device, dtype=config.dtype, threads=config.threads
        )

    @classmethod
    def load(
        cls,
        model: Path | str,
        *,
        adapters: Sequence[Path | str] = (),
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> Self:
        """Read a model folder, with PEFT adapters on it; its weights are packed for the machine.

        Raises UserError if it is no model, or an adapter does not fit it.
        """
        torch.set_num_threads(resolve_threads(threads))
        folder = ModelFolder.open(model, adapters)
        place = resolve_device(device)
        tokenizer = Tokenizer.load(folder.path)
        name = inference_dtype(folder.config.dtype, place) if dtype == "auto" else dtype
        note = _precision_note(folder, tokenizer) if dtype == "auto" and (place, name) == ("cpu", "bfloat16") else ""
        decoder = load_decoder(folder, device=place, dtype=DTYPES[name])
        return cls(prepare_for_inference(decoder), tokenizer, note)

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.decoder.config

    @property
    def context_length(self) -> int:
        """Most tokens, prompt and answer together."""
        return self.config.context_length

    def prompt_ids(self, prompt: str, *, chat: bool, system: str | None = None) -> list[int]:
        """Token ids of a text to continue, or of a question to answer."""
        if not chat:
            return [*self.tokenizer.document_prefix(), *self.tokenizer.encode(prompt)]
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        return encode_chat(self.tokenizer, messages, add_generation_prompt=True).ids

    def stream(self, prompt_ids: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """The continuation, a piece per token; closing the iterator stops the work.

        Raises UserError, before any work, if the prompt leaves no room in the context.
        """
        sampling = self._fit(len(prompt_ids), sampling)
        device = self.decoder.model.embed_tokens.weight.device
        answer = _Answer(self.tokenizer, sampling, prompt_ids[-1])
        for tokens, logits in decode(self.decoder, torch.tensor([list(prompt_ids)], device=device), sampling):
            piece = answer.add(int(tokens[0]), logits[0].float().log_softmax(-1))
            yield piece
            if piece.finish_reason:
                return

    def complete(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """The whole continuation."""
        return _completion(len(prompt_ids), list(self.stream(prompt_ids, sampling)))

    def complete_many(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Completion]:
        """Continuations of several prompts; those of equal length are decoded together."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            by_length[len(prompt)].append(index)
        done: dict[int, Completion] = {}
        for length, indices in by_length.items():
            group = self._complete_group([prompts[index] for index in indices], self._fit(length, sampling))
            done.update(zip(indices, group, strict=True))
        return [done[index] for index in range(len(prompts))]

    def _complete_group(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Completion]:
        device = self.decoder.model.embed_tokens.weight.device
        answers = [_Answer(self.tokenizer, sampling, prompt[-1]) for prompt in prompts]
        pieces: list[list[Piece]] = [[] for _ in prompts]
        rows = torch.tensor([list(prompt) for prompt in prompts], device=device)
        for tokens, logits in decode(self.decoder, rows, sampling):
            logprobs = logits.float().log_softmax(-1)
            for answer, row, token, scores in zip(answers, pieces, tokens.tolist(), logprobs, strict=True):
                if not answer.finished:
                    row.append(answer.add(token, scores))
            if all(answer.finished for answer in answers):
                break
        return [_completion(len(prompts[0]), row) for row in pieces]

    def _fit(self, prompt_tokens: int, sampling: Sampling) -> Sampling:
        """Shorten the answer to what the context holds; refuse a prompt that fills it."""
        room = self.context_length - prompt_tokens
        if room < 1:
            raise UserError(
                f"the prompt has {prompt_tokens} tokens, the model's context is {self.context_length}",
                hint="Shorten the prompt; nothing is cut off silently.",
            )
        if prompt_tokens < 1:
            raise UserError("the prompt is empty", hint="Give at least one character.")
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))


def _precision_note(folder: ModelFolder, tokenizer: Tokenizer) -> str:
    """What bfloat16 costs this model, where there is room to compute in float32 too."""
    free, needed = facts().memory_available, 6 * folder.config.parameter_count()
    if free is not None and needed > free / 2:
        return "computing in bfloat16; its cost against float32 was not measured: there is no room for both"
    ids = [*tokenizer.document_prefix(), *tokenizer.encode(SAMPLE)][: folder.config.context_length]
    decoder = load_decoder(folder)
    wide = log_probabilities(decoder, ids)
    return cost_line(divergence(wide, log_probabilities(decoder.to(torch.bfloat16), ids)))


class _Answer:
    """What has been said so far in one answer, and whether it is finished."""

    def __init__(self, tokenizer: Tokenizer, sampling: Sampling, previous: int) -> None:
        self.tokenizer, self.sampling = tokenizer, sampling
        self.text = Detokenizer(tokenizer, previous=previous)
        self.stops = StopStrings(sampling.stop)
        self.count = 0
        self.finished = False

    def add(self, token: int, logprobs: Tensor) -> Piece:
        """The next piece; `logprobs` (V,) are those that `token` was chosen from."""
        self.count += 1
        ended = token in self.tokenizer.stop_ids
        shown = "" if ended else self.stops.add(self.text.add(token))
        reason: FinishReason | None = None
        if ended or self.stops.found:
            reason = "stop"
        elif self.count == self.sampling.max_new_tokens:
            reason = "length"
        if reason and not self.stops.found:
            shown += self.stops.add(self.text.flush())
            shown += self.stops.flush()
        self.finished = reason is not None
        top = []
        if self.sampling.top_logprobs:
            values, ids = logprobs.topk(min(self.sampling.top_logprobs, len(logprobs)))
            top = [(self.tokenizer.token_text(i), v) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
        return Piece(shown, token, self.tokenizer.token_text(token), float(logprobs[token]), top, reason)


def _completion(prompt_tokens: int, pieces: list[Piece]) -> Completion:
    reason = pieces[-1].finish_reason
    assert reason is not None
    text = "".join(piece.text for piece in pieces)
    return Completion(text, [piece.token_id for piece in pieces], reason, prompt_tokens, pieces)
