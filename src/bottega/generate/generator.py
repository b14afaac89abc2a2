"""A model ready to answer: its decoder, its tokenizer, and the engine that runs requests together.

`submit` and `step` are the whole of it: requests go in, pieces of text come out. `stream`, `complete` and
`complete_many` are what a caller with one thing to ask needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import BottegaError, UserError
from bottega.core.machine import facts, inference_dtype, inference_threads, resolve_device
from bottega.core.schema import OnModel
from bottega.generate.answer import Answer, Completion, FinishReason, Piece, Ticket
from bottega.generate.config import OnEngine
from bottega.generate.constraint import Constraint
from bottega.generate.engine import Engine
from bottega.generate.runner import Runner
from bottega.generate.sampling import Choice
from bottega.generate.settings import Sampling
from bottega.generate.speculation import make_speculator
from bottega.model.adapters import attach
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.model.kernels import library
from bottega.model.load import DTYPES, load_decoder
from bottega.model.paged import BLOCK, CacheFormat, PagedCache, cache_bytes
from bottega.model.precision import SAMPLE, cost_line, divergence, log_probabilities
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.tokenizer import Tokenizer

__all__ = ["Completion", "FinishReason", "Generator", "Piece", "Ticket"]

DEFAULT_BATCH = 8
CACHE_SHARE = 4  # the cache may take a quarter of the memory that is free
EMBED_TOKENS = 2048  # that pass through the model at once


class Generator:
    """A decoder and its tokenizer, ready to answer. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        precision_note: str = "",
        *,
        adapters: Mapping[str, Adapter] | None = None,
        settings: OnEngine | None = None,
        max_batch: int = DEFAULT_BATCH,
    ) -> None:
        """Of a decoder that is prepared for inference; `settings` are those of its engine."""
        self.decoder, self.tokenizer, self.precision_note = decoder, tokenizer, precision_note
        rows = attach(decoder, adapters) if adapters else None
        blocks, format_ = _cache_size(decoder, settings, max_batch)
        runner = Runner(decoder, PagedCache(decoder.config, blocks, format_, decoder.device), rows)
        speculator = make_speculator(settings, decoder, tokenizer) if settings is not None else None
        self.adapters = rows.names if rows else []
        self.engine = Engine(runner, max_batch=max_batch, speculator=speculator)
        self._tickets: dict[int, Ticket] = {}

    @classmethod
    def of(cls, config: OnModel, *, adapters: Mapping[str, str] | None = None, max_batch: int = DEFAULT_BATCH) -> Self:
        """What a verb's settings ask for; `adapters` by name are for requests to choose among."""
        return cls.load(
            config.model,
            adapters=config.adapter,
            device=config.device,
            dtype=config.dtype,
            threads=config.threads,
            named_adapters=adapters,
            settings=config if isinstance(config, OnEngine) else None,
            max_batch=max_batch,
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
        named_adapters: Mapping[str, str] | None = None,
        settings: OnEngine | None = None,
        max_batch: int = DEFAULT_BATCH,
    ) -> Self:
        """Read a model folder, with PEFT adapters on it; its weights are packed for the machine.

        Raises UserError if it is no model, an adapter does not fit it, or a setting cannot be obeyed here.
        """
        torch.set_num_threads(inference_threads(threads))
        folder = ModelFolder.open(model, adapters)
        place = resolve_device(device)
        tokenizer = Tokenizer.load(folder.path)
        name = _precision(folder.config.dtype, place) if dtype == "auto" else dtype
        decoder = load_decoder(folder, device=place, dtype=DTYPES[name])
        decoder = prepare_for_inference(decoder, settings.weights if settings is not None else None)
        narrow = dtype == "auto" and place == "cpu" and decoder.dtype == torch.bfloat16
        note = _precision_note(folder, tokenizer) if narrow else ""
        opened = {label: Adapter.open(path) for label, path in (named_adapters or {}).items()}
        return cls(decoder, tokenizer, note, adapters=opened, settings=settings, max_batch=max_batch)

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.decoder.config

    @property
    def context_length(self) -> int:
        """Most tokens, prompt and answer together."""
        return self.engine.capacity

    @property
    def has_work(self) -> bool:
        """Whether a request is under way."""
        return self.engine.has_work

    def prompt_ids(self, prompt: str, *, chat: bool, system: str | None = None) -> list[int]:
        """Token ids of a text to continue, or of a question to answer."""
        if not chat:
            return [*self.tokenizer.document_prefix(), *self.tokenizer.encode(prompt)]
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        return encode_chat(self.tokenizer, messages, add_generation_prompt=True).ids

    def submit(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        *,
        priority: int = 0,
        adapter: str | None = None,
        constraint: Constraint | None = None,
    ) -> Ticket:
        """A request, to be run by `step`. Of those that wait, the one of the highest priority goes first.

        Raises UserError if the prompt does not fit the context, or the adapter is not there.
        """
        sampling = sampling.for_model(self.config.vocab_size, self.tokenizer.stop_ids)
        # The answer first: a stop pattern that is refused must leave nothing in the engine.
        limit = self.engine.room(len(prompt_ids), sampling)
        answer = Answer(self.tokenizer, sampling, prompt_ids[-1] if prompt_ids else 0, limit)
        request = self.engine.add(prompt_ids, sampling, priority=priority, adapter=adapter, constraint=constraint)
        ticket = Ticket(request, answer)
        if self.engine.speculator is not None:
            ticket.speculation = self.engine.speculator.record(request)
        self._tickets[request.number] = ticket
        return ticket

    def step(self) -> list[tuple[Ticket, Piece | None]]:
        """One step for everything that runs: the pieces that came. None: the ticket ended without one (`error`, or no
        tokens were wanted)."""
        events: list[tuple[Ticket, Piece | None]] = []
        for request, choices in self.engine.step():
            ticket = self._tickets[request.number]
            if not choices:
                ticket.finish_reason = "length"
                events.append((ticket, None))
            for choice in choices:
                if choice.token < 0:
                    ticket.error = BottegaError(
                        "no token may follow: the model's output is not finite, or the request forbids every token"
                    )
                    events.append((ticket, None))
                    break
                piece = self._said(ticket, choice)
                events.append((ticket, piece))
                if piece.finish_reason:
                    break
            if request.error is not None and not ticket.has_ended:
                ticket.error = request.error
                events.append((ticket, None))
            if ticket.has_ended:
                self._end(ticket)
        return events

    def cancel(self, ticket: Ticket) -> None:
        """Stop working on it; nothing happens if it has ended."""
        self._end(ticket)

    def close(self) -> None:
        """Cancel everything and end the engine's threads."""
        for ticket in list(self._tickets.values()):
            self._end(ticket)
        self.engine.close()

    def statistics(self) -> dict[str, int]:
        """Counters and gauges of the engine."""
        engine = self.engine
        return {
            "running": len(engine.scheduler.running),
            "waiting": len(engine.scheduler.waiting),
            "blocks_total": engine.pool.count,
            "blocks_used": engine.pool.count - engine.pool.free,
            "prompt_tokens": engine.counts.prompt_tokens,
            "cached_tokens": engine.counts.cached_tokens,
            "generated_tokens": engine.counts.generated_tokens,
            "steps": engine.counts.steps,
            "preemptions": engine.scheduler.preemptions,
            "proposed": engine.speculator.proposed if engine.speculator else 0,
            "accepted": engine.speculator.accepted if engine.speculator else 0,
        }

    def stream(
        self, prompt_ids: Sequence[int], sampling: Sampling, constraint: Constraint | None = None
    ) -> Iterator[Piece]:
        """The continuation, a piece per token; closing the iterator stops the work.

        Raises UserError, before any work, if the prompt leaves no room in the context.
        """
        yield from self.follow(self.submit(prompt_ids, sampling, constraint=constraint))

    def follow(self, ticket: Ticket) -> Iterator[Piece]:
        """The pieces of a request that was submitted; closing the iterator cancels it."""
        try:
            while ticket.request.status != "ended":  # it may be cancelled between two pieces
                yield from [piece for owner, piece in self.step() if owner is ticket and piece is not None]
            if ticket.error is not None:
                raise ticket.error
        finally:
            self.cancel(ticket)

    def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, constraint: Constraint | None = None
    ) -> Completion:
        """The whole continuation."""
        return self._run([self.submit(prompt_ids, sampling, constraint=constraint)])[0]

    def complete_many(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Completion]:
        """Continuations of several prompts, run together; each is what it would be alone."""
        tickets: list[Ticket] = []
        try:
            for prompt in prompts:
                tickets.append(self.submit(prompt, sampling))
        except UserError:
            for ticket in tickets:
                self.cancel(ticket)
            raise
        return self._run(tickets)

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """One vector a prompt, (B, H) float32: the mean of the last hidden states, of length 1."""
        rows: list[Tensor] = []
        pack: list[Sequence[int]] = []
        for prompt in prompts:
            if not 0 < len(prompt) <= self.config.context_length:
                raise UserError(f"{len(prompt)} tokens cannot be embedded: 1 to {self.config.context_length} can")
            if pack and sum(map(len, pack)) + len(prompt) > EMBED_TOKENS:
                rows += self._embed(pack)
                pack = []
            pack.append(prompt)
        return torch.stack(rows + self._embed(pack))

    def _embed(self, pack: Sequence[Sequence[int]]) -> list[Tensor]:
        if self.engine.runner.adapters is not None:
            self.engine.runner.adapters.begin([])  # the last step's rows are not these
        ids = torch.tensor([[id_ for prompt in pack for id_ in prompt]], device=self.decoder.device)
        hidden = self.decoder.hidden(ids, segments=[len(prompt) for prompt in pack])[0].float().cpu()
        means = [part.mean(0) for part in hidden.split([len(prompt) for prompt in pack])]
        return [mean / mean.norm().clamp_min(1e-12) for mean in means]

    def _run(self, tickets: Sequence[Ticket]) -> list[Completion]:
        """Step until all of them have ended; what others get meanwhile is theirs to lose."""
        pieces: dict[Ticket, list[Piece]] = {ticket: [] for ticket in tickets}
        try:
            while not all(ticket.has_ended for ticket in tickets):
                for ticket, piece in self.step():
                    if piece is not None and ticket in pieces:
                        pieces[ticket].append(piece)
        finally:
            for ticket in tickets:
                self.cancel(ticket)
        return [_completion(ticket, pieces[ticket]) for ticket in tickets]

    def _said(self, ticket: Ticket, choice: Choice) -> Piece:
        piece = ticket.answer.add(choice)
        ticket.finish_reason = piece.finish_reason
        return piece

    def _end(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.request.number, None)
        self.engine.end(ticket.request)


def _completion(ticket: Ticket, pieces: list[Piece]) -> Completion:
    if ticket.error is not None:
        raise ticket.error
    assert ticket.finish_reason is not None
    return Completion(
        text="".join(piece.text for piece in pieces),
        token_ids=[piece.token_id for piece in pieces],
        finish_reason=ticket.finish_reason,
        prompt_tokens=ticket.request.prompt_length,
        pieces=pieces,
        cached_tokens=ticket.cached_tokens,
        prompt_logprobs=ticket.prompt_logprobs,
        speculation=ticket.speculation,
    )


def _precision(stored: str, place: str) -> str:
    """What to keep the weights in: with the kernels, bfloat16 weights give what they would in float32."""
    if place == "cpu" and stored == "bfloat16" and library.available():
        return "bfloat16"
    return inference_dtype(stored, place)


def _precision_note(folder: ModelFolder, tokenizer: Tokenizer) -> str:
    """What computing in bfloat16 costs this model, where there is room to compute in float32 too."""
    free, needed = facts().memory_available, 6 * folder.config.parameter_count()
    if free is not None and needed > free / 2:
        return "computing in bfloat16; its cost against float32 was not measured: there is no room for both"
    ids = [*tokenizer.document_prefix(), *tokenizer.encode(SAMPLE)][: folder.config.context_length]
    decoder = load_decoder(folder)
    wide = log_probabilities(decoder, ids)
    return cost_line(divergence(wide, log_probabilities(decoder.to(torch.bfloat16), ids)))


def _cache_size(decoder: Decoder, settings: OnEngine | None, max_batch: int) -> tuple[int, CacheFormat]:
    """Blocks of the cache, and what they hold: room for a full batch of full contexts, if memory allows."""
    config = decoder.config
    format_: CacheFormat = str(decoder.dtype).removeprefix("torch.")  # pyright: ignore[reportAssignmentType]
    if settings is not None and settings.cache_dtype != "auto":
        format_ = settings.cache_dtype
    if settings is not None and settings.cache_tokens is not None:
        return max(1, -(-settings.cache_tokens // BLOCK)), format_
    wanted = -(-config.context_length // BLOCK) * max_batch
    on_cuda = decoder.device.type == "cuda"  # Apple's GPU shares the machine's memory
    free = torch.cuda.mem_get_info(decoder.device)[0] if on_cuda else facts().memory_available
    if free is None:
        return wanted, format_
    return max(1, min(wanted, free // CACHE_SHARE // cache_bytes(config, 1, format_))), format_
