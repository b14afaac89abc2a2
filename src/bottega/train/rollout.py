"""Rollouts: what the model in training answers now, from its own weights, by the project's own engine.

The engine runs the very decoder that is trained (adapters and all), in eval mode and without gradients: no second copy
of the weights is held. Between two rollouts the weights have changed, so nothing of the prefix cache is used again;
within one, the samples of a prompt share its keys and values. On a CPU a long rollout is faster from packed weights
(`model.inference`), the adapter merged into them: they are made for the rollout, and dropped behind it.

The numbers that tokens are drawn by depend on (seed, number of the prompt, number of the sample) alone, not on what
else is in the batch. From packed weights probabilities do not either, to the last bit; from the live ones rounding
does, and a draw at the very border of two tokens may fall otherwise in another batch.

Log-probabilities are of softmax(logits / temperature) over the whole vocabulary, at the temperature that is asked for;
top-k and top-p cut nothing off them. With 1 they are the model's own; with the sampling's own temperature they are
what GRPO's ratio is formed of.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b

import torch
from torch import Tensor, nn

from bottega.core.errors import UserError
from bottega.core.progress import Bar
from bottega.generate.config import OnEngine
from bottega.generate.generator import Generator, Piece, Ticket
from bottega.generate.settings import Sampling
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.model.kernels import library
from bottega.model.load import with_weights
from bottega.model.lora import merged_weights
from bottega.model.quantised import QuantisedLinear
from bottega.tokenizer.tokenizer import Tokenizer

DEFAULT_BATCH = 32
# Packing costs what 200 to 500 tokens gain by it, at any size of the model (benchmarks/rollouts.py).
TOKENS_WORTH_PACKING = 2000
MOST_PACKED = 1 << 30  # numbers of a model that is packed without being asked: 4 GiB


@dataclass(frozen=True)
class Rollout:
    """One answer of the model.

    Attributes:
        prompt_index: of its prompt, in the list that was given.
        sample_index: which of the prompt's answers it is, from 0.
        prompt_ids: the prompt.
        completion_ids: the answer; the stop token that ended it is the last.
        log_probs: of the answer's tokens, in nats, as long as `completion_ids`.
        text: the answer as text, without special tokens.
        finished: whether the model ended it; else it was cut off by the limit.
    """

    prompt_index: int
    sample_index: int
    prompt_ids: list[int]
    completion_ids: list[int]
    log_probs: list[float]
    text: str
    finished: bool

    @property
    def ids(self) -> list[int]:
        """Prompt and answer."""
        return self.prompt_ids + self.completion_ids

    @property
    def mask(self) -> Tensor:
        """Of `ids`, whether each is the answer's, (T,) bool."""
        return torch.tensor([False] * len(self.prompt_ids) + [True] * len(self.completion_ids))


class Rollouts:
    """Samples from a decoder in training. Not thread-safe. `close` it when no more are wanted."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        *,
        max_batch: int = DEFAULT_BATCH,
        cache_tokens: int | None = None,
        packed: bool | None = None,
    ) -> None:
        """Of the live decoder.

        Args:
            decoder: the model; what its weights are is read anew by each rollout.
            tokenizer: knows the stop tokens.
            max_batch: answers that are written at once.
            cache_tokens: the room for keys and values (default: see `generate.Generator`).
            packed: whether each rollout packs the weights for itself, which takes their memory once more, and twice
                while it packs (default: where that is faster, the weights are float32, and there are not too many).
        """
        self._settings = OnEngine(model="", cache_tokens=cache_tokens)
        self.packed = packed
        self.generator = Generator(decoder, tokenizer, settings=self._settings, max_batch=max_batch)

    @classmethod
    def of(cls, generator: Generator) -> Rollouts:
        """Of a model that was loaded to generate."""
        rollouts = cls.__new__(cls)
        rollouts.generator, rollouts.packed = generator, False
        return rollouts

    @property
    def context_length(self) -> int:
        """Most tokens, prompt and answer together."""
        return self.generator.context_length

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        seed: int,
        *,
        numbers: Sequence[int] | None = None,
        log_prob_temperature: float = 1.0,
        bar: Bar | None = None,
    ) -> list[Rollout]:
        """`n` answers to each prompt, prompt by prompt; the weights may have changed since the last call.

        Args:
            prompts: token ids of each.
            n: answers to each.
            sampling: how tokens are chosen and where an answer ends; its own seed is not used.
            seed: of all draws; another one for every step.
            numbers: what each prompt's draws are told apart by (default: its place). Give the place in the whole step
                where several processes share its prompts.
            log_prob_temperature: of the log-probabilities, see above.
            bar: advanced by one for each answer that has ended.

        Raises UserError, before anything is sampled, if a prompt leaves no room for an answer.
        """
        numbers = range(len(prompts)) if numbers is None else numbers
        if len(numbers) != len(prompts):
            raise UserError(f"{len(numbers)} numbers are given for {len(prompts)} prompts")
        sampling = replace(sampling, logprobs=True, logprobs_temperature=log_prob_temperature)
        tickets: dict[Ticket, tuple[int, int]] = {}
        with evaluating(self.generator.decoder), self._ready(len(prompts) * n * sampling.max_new_tokens) as generator:
            try:
                for place, sample in in_windows(len(prompts), n, generator.engine.scheduler.max_batch):
                    own = replace(sampling, seed=draw_seed(seed, numbers[place], sample))
                    tickets[generator.submit(prompts[place], own)] = place, sample
                pieces = _run(generator, tickets, bar)
            finally:
                for ticket in tickets:
                    generator.cancel(ticket)
        found = [_rollout(*tickets[ticket], ticket.prompt_ids, said) for ticket, said in pieces.items()]
        return sorted(found, key=lambda each: (each.prompt_index, each.sample_index))

    def close(self) -> None:
        """End the engine's threads."""
        self.generator.close()

    @contextmanager
    def _ready(self, tokens: int) -> Iterator[Generator]:
        """What the weights of now answer with, for a rollout of so many tokens at most."""
        if not self._packs(tokens):
            self.generator.engine.forget_prefixes()
            yield self.generator
            return
        live = self.generator
        batch = live.engine.scheduler.max_batch
        generator = Generator(packed_copy(live.decoder), live.tokenizer, settings=self._settings, max_batch=batch)
        try:
            yield generator
        finally:
            generator.close()

    def _packs(self, tokens: int) -> bool:
        if self.packed is not None:
            return self.packed
        decoder = self.generator.decoder
        can = decoder.device.type == "cpu" and decoder.dtype == torch.float32 and library.available()
        # A quantised base is there to save the memory that this would take.
        small = decoder.config.parameter_count() <= MOST_PACKED and not any(
            isinstance(part, QuantisedLinear) for part in decoder.modules()
        )
        return can and small and tokens >= TOKENS_WORTH_PACKING


def packed_copy(decoder: Decoder) -> Decoder:
    """A decoder ready to generate what `decoder` would now, its active adapter merged; `decoder` stays as it is."""
    with torch.device("meta"):
        empty = Decoder(decoder.config)
    with torch.no_grad():
        weights = merged_weights(decoder)
    own = empty.state_dict().keys()  # heads that were put on it for training are none of its weights
    return prepare_for_inference(with_weights(empty, {name: weights[name] for name in own & weights.keys()}))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of `module` in eval mode (no dropout); behind it, each in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def draw_seed(seed: int, prompt: int, sample: int) -> int:
    """The seed of one answer, in [0, 2^63): a hash, so that neighbours have nothing in common."""
    digest = blake2b(array("Q", (seed % 2**64, prompt, sample)).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def in_windows(prompts: int, n: int, max_batch: int) -> Iterator[tuple[int, int]]:
    """(prompt, sample) of all answers in the order in which they are to be begun.

    A prompt's other answers can only begin when its keys are there. So the first answers of as many prompts as fill
    a batch go first, whose prompts are computed together, and then their other ones.
    """
    width = -(-max_batch // max(1, n))
    for start in range(0, prompts, width):
        window = range(start, min(start + width, prompts))
        yield from ((place, sample) for sample in range(n) for place in window)


def _run(generator: Generator, tickets: dict[Ticket, tuple[int, int]], bar: Bar | None) -> dict[Ticket, list[Piece]]:
    """The pieces of every answer, when all have ended."""
    pieces: dict[Ticket, list[Piece]] = {ticket: [] for ticket in tickets}
    left = len(tickets)
    while left:
        for ticket, piece in generator.step():
            if piece is not None:
                pieces[ticket].append(piece)
            if ticket.error is not None:
                raise ticket.error
            if ticket.has_ended:
                left -= 1
                if bar is not None:
                    bar.advance()
    return pieces


def _rollout(place: int, sample: int, prompt_ids: list[int], pieces: Sequence[Piece]) -> Rollout:
    log_probs = [piece.logprob for piece in pieces if piece.logprob is not None]
    assert len(log_probs) == len(pieces)  # every one was asked for
    return Rollout(
        prompt_index=place,
        sample_index=sample,
        prompt_ids=prompt_ids,
        completion_ids=[piece.token_id for piece in pieces],
        log_probs=log_probs,
        text="".join(piece.text for piece in pieces),
        finished=bool(pieces) and pieces[-1].finish_reason == "stop",
    )
