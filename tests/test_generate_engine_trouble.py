"""What goes wrong in the engine stays where it went wrong: a step that fails, a constraint that breaks, names alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.checkpoint.adapter import Adapter
from bottega.core.errors import BottegaError
from bottega.generate import scheduler
from bottega.generate.constraint import Constraint
from bottega.generate.speculation import Speculator
from bottega.model.adapters import attach
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from test_generate_engine import GREEDY, Always, Guesses, Told, alone, decoder_of, engine_of, run, write_adapter


def test_adapters_whose_long_names_begin_alike_share_no_blocks(tmp_path: Path) -> None:
    names = [f"{'customer-support-' * 5}{end}" for end in ("first", "second")]
    decoder = prepare_for_inference(decoder_of())
    opened = {}
    for seed, name in enumerate(names):
        (tmp_path / str(seed)).mkdir()
        opened[name] = Adapter.open(write_adapter(tmp_path / str(seed), seed))
    rows = attach(decoder, opened)
    engine, prompt = engine_of(decoder, adapters=rows), list(range(3, 43))
    run(engine, [engine.add(prompt, GREEDY, adapter=names[0])])
    second = engine.add(prompt, GREEDY, adapter=names[1])
    (told,) = run(engine, [second])
    fresh = engine_of(decoder, adapters=rows)
    assert second.cached == 0
    assert [told] == run(fresh, [fresh.add(prompt, GREEDY, adapter=names[1])])


@pytest.mark.parametrize("fails_at", range(6))
def test_a_step_that_fails_can_be_taken_again(fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = prepare_for_inference(decoder_of())
    prompts = [torch.randint(3, 61, (length,)).tolist() for length in (20, 33, 5)]
    sampling = dataclasses.replace(GREEDY, prompt_logprobs=1)
    expected = [alone(decoder, prompt, sampling) for prompt in prompts]
    speculator = Speculator(Guesses({tuple(p): p + told.tokens for p, told in zip(prompts, expected, strict=True)}, 1))
    speculator.controller = Always(3)
    engine = engine_of(decoder, step_tokens=16, speculator=speculator)
    requests = [engine.add(prompt, sampling) for prompt in prompts]
    whole, calls = Decoder.logits, iter(range(100))

    def logits(self: Decoder, hidden: Tensor) -> Tensor:
        if next(calls) == fails_at:
            raise MemoryError
        return whole(self, hidden)

    monkeypatch.setattr(Decoder, "logits", logits)
    told = {request: Told() for request in requests}
    failures = 0
    while engine.has_work:
        try:
            produced = engine.step()
        except MemoryError:
            failures += 1
            produced = []
        for request, choices in produced:
            told[request].add(choices)
            if len(request.tokens) >= request.limit:
                engine.end(request)
        engine.check_integrity()
    assert failures == 1 and list(told.values()) == expected
    for prompt, request in zip(prompts, requests, strict=True):
        assert request.prompt_scores is not None and len(request.prompt_scores) == len(prompt)


class Refuses(Constraint):
    """Allows everything, and then refuses what was chosen."""

    is_accepting = is_finished = False  # pyright: ignore[reportAssignmentType]

    def fill(self, mask: Tensor) -> None:
        mask.fill_(-1)

    def accept(self, token: int) -> None:
        raise BottegaError("no")

    def rollback(self, count: int) -> None: ...

    def copy(self) -> Constraint:
        return self

    def allowed(self, tokens: Any) -> int:
        return 0


def test_a_constraint_that_breaks_ends_its_own_request_alone() -> None:
    decoder = prepare_for_inference(decoder_of())
    engine = engine_of(decoder)
    good, bad, other = (engine.add([5, 6, n], GREEDY, constraint=Refuses() if n == 8 else None) for n in (7, 8, 9))
    told = {request: Told() for request in (good, bad, other)}
    while engine.has_work:
        for request, choices in engine.step():
            told[request].add(choices)
            if request.error is not None or len(request.tokens) >= request.limit:
                engine.end(request)
    assert str(bad.error) == "no" and len(told[bad].tokens) == 1
    assert [told[good], told[other]] == [alone(decoder, [5, 6, n]) for n in (7, 9)]


def test_a_request_that_waits_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    whole = scheduler.block_hashes

    def counted(root: bytes, tokens: Any, known: Any = ()) -> list[bytes]:
        hashed.append(len(tokens) // 16 - len(known))
        return whole(root, tokens, known)

    monkeypatch.setattr(scheduler, "block_hashes", counted)
    engine = engine_of(prepare_for_inference(decoder_of()), blocks=12)
    first = engine.add(list(range(3, 53)), GREEDY)
    second = engine.add([2] * 150, GREEDY)
    told = run(engine, [first, second])
    assert [len(each.tokens) for each in told] == [12, 12]
    assert sum(hashed) <= (62 + 162) // 16
