"""Speculation inside the engine: who drafts how much before a step, and what is learnt from it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from bottega.checkpoint.folder import ModelFolder
from bottega.generate.config import OnEngine
from bottega.generate.request import Request
from bottega.generate.sampling import Choice
from bottega.generate.scheduler import Work
from bottega.generate.speculate.controller import Controller, Outcome, Speculation
from bottega.generate.speculate.draft import DraftModel, common_vocabulary
from bottega.generate.speculate.early_exit import early_exit
from bottega.generate.speculate.lookup import PromptLookup
from bottega.generate.speculate.proposer import Draft, Proposer
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.model.load import load_decoder
from bottega.model.paged import BLOCK
from bottega.tokenizer.tokenizer import Tokenizer


class Speculator:
    """A proposer, and a controller that says how many drafts pay."""

    def __init__(self, proposer: Proposer, *, max_length: int = 8) -> None:
        self.proposer, self.controller = proposer, Controller(max_length)
        self.proposed = self.accepted = 0
        self._asked: dict[Hashable, Request] = {}

    def draft(self, requests: Sequence[Request], free_blocks: int) -> None:
        """Give drafts to requests of the next step: to none if blocks are short, for a guess must not displace anybody.

        A grammar's mask and mirostat's state go on token by token; their requests have no drafts.
        """
        self._asked = {
            request.number: request
            for request in requests
            if request.constraint is None and not request.sampling.mirostat
        }
        most = self.controller.max_length // BLOCK + 1
        if not self._asked or free_blocks < most * len(requests):
            return
        limits: dict[Hashable, int] = {
            number: request.limit - len(request.tokens) - 1 for number, request in self._asked.items()
        }
        lengths = self.controller.plan(limits).lengths
        wanted = [Draft(number, self._asked[number].tokens, length) for number, length in lengths.items() if length]
        for draft, proposed in zip(wanted, self.proposer.propose_many(wanted), strict=True):
            self._asked[draft.request].drafts = proposed

    def learn(
        self,
        work: Sequence[Work],
        produced: Sequence[tuple[Request, Sequence[Choice]]],
        step_seconds: float,
        draft_seconds: float,
    ) -> None:
        """Tell the controller what stood."""
        outcomes: dict[Hashable, Outcome] = {
            request.number: Outcome(len(request.drafts), len(choices) - 1)
            for request, choices in produced
            if request.number in self._asked and choices
        }
        self.proposed += sum(outcome.proposed for outcome in outcomes.values())
        self.accepted += sum(outcome.accepted for outcome in outcomes.values())
        plain = all(each.request.number in outcomes for each in work)
        self.controller.observe(outcomes, step_seconds if plain else None, draft_seconds)

    def record(self, request: Request) -> Speculation:
        """What drafts did for the request."""
        return self.controller.record(request.number)

    def forget(self, request: Request) -> None:
        """The request has ended."""
        self.proposer.forget(request.number)
        self.controller.forget(request.number)


def make_speculator(settings: OnEngine, decoder: Decoder, tokenizer: Tokenizer) -> Speculator | None:
    """What the settings ask for; raises UserError if the draft model does not fit."""
    match settings.speculate:
        case "lookup":
            return Speculator(PromptLookup(), max_length=settings.max_drafts)
        case "draft":
            assert settings.draft_model is not None
            folder = ModelFolder.open(settings.draft_model)
            pair = Tokenizer.load(folder.path), tokenizer
            size = common_vocabulary(folder.config, decoder.config, pair)
            draft = prepare_for_inference(load_decoder(folder, device=decoder.device, dtype=decoder.dtype))
            return Speculator(DraftModel(draft, vocabulary=size), max_length=settings.max_drafts)
        case "early-exit":
            layers = settings.draft_layers or max(1, decoder.config.num_hidden_layers // 4)
            return Speculator(early_exit(decoder, layers), max_length=settings.max_drafts)
        case _:
            return None
