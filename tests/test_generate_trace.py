"""The trace of a step says what was cut by what, and why the drawn token was drawn."""

from __future__ import annotations

import json

import pytest
import torch

from bottega.generate.draws import XTC
from bottega.generate.sampling import NOTHING, Row, SamplerState, Sampling, choose, distribution


def traced(logits: torch.Tensor, row: Row):
    choice = choose(logits, [row])[0]
    assert choice.trace is not None
    return choice, choice.trace


def test_each_cut_names_the_sampler_that_made_it() -> None:
    logits = torch.tensor([[5.0, 4.9, 4.5, 4.0, 3.0, 1.0, 0.5, 0.0, -1.0, -9.0]])
    given = Sampling(
        trace=True, temperature=0.9, top_k=6, top_p=0.95, min_p=0.3, banned_words=((0,), (1, 2)), logit_bias=((9, 1.0),)
    )
    choice, trace = traced(logits, Row(given, 4, [1, 1], 1))
    cut = {candidate.token: candidate.cut_by for candidate in trace.candidates}
    # Without 0 and 2 are left 1 3 4 5 6 7 8 9; six of them; of those the nucleus; of that what is near the best.
    assert cut == {0: "banned_words", 2: "banned_words", 1: None, 3: None} | {
        4: "min_p",
        **dict.fromkeys((5, 6, 7), "top_p"),
        **dict.fromkeys((8, 9), "top_k"),
    }
    assert trace.steps == ["banned_words", "logit_bias", "temperature", "top_k", "top_p", "min_p"]
    assert [candidate.token for candidate in trace.candidates] == list(range(10)), "by the model's own probability"
    raw = logits[0].double().softmax(-1)
    assert [candidate.raw_probability for candidate in trace.candidates] == pytest.approx(raw.tolist())
    assert trace.entropy == pytest.approx(float(torch.distributions.Categorical(probs=raw).entropy()))
    final = {candidate.token: candidate.probability for candidate in trace.candidates if candidate.probability}
    tokens, probabilities = distribution(logits, [Row(given, 4, [1, 1], 1)])
    assert final == pytest.approx(dict(zip(tokens[0].tolist(), probabilities[0].tolist(), strict=True)))
    assert json.loads(json.dumps(trace.as_data()))["token"] == choice.token


def test_the_share_of_the_drawn_token_holds_the_uniform_number() -> None:
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(1))
    for values in ({}, {"top_k": 20}, {"temperature": 1.5, "top_p": 0.7}, {"typical_p": 0.6}):
        for index in range(20):
            choice, trace = traced(logits, Row(Sampling(trace=True, **values), 9, [0] * (3 + index), 3))
            assert trace.uniform is not None and trace.share is not None
            low, high = trace.share
            assert low <= trace.uniform < high
            drawn = next(candidate for candidate in trace.candidates if candidate.token == choice.token)
            assert drawn.probability == pytest.approx(high - low, abs=1e-6) and drawn.cut_by is None
            assert len(trace.candidates) == 50, "the drawn token is among them, however unlikely"


def test_greedy_mirostat_and_xtc_say_what_decided() -> None:
    logits = torch.tensor([[3.0, 2.9, 0.0, -1.0]])
    _, greedy = traced(logits, Row(Sampling(trace=True, temperature=0.0), 0, [0], 1))
    assert (greedy.uniform, greedy.share, greedy.token) == (None, None, 0)
    assert [candidate.probability for candidate in greedy.candidates] == [1, 0, 0, 0]
    row = Row(Sampling(trace=True, mirostat=2), 0, [0], 1, SamplerState(1.5))
    _, surprised = traced(logits, row)
    assert surprised.mu == 1.5 and row.state.mu != 1.5
    assert [candidate.cut_by for candidate in surprised.candidates] == [None, None, "mirostat_2", "mirostat_2"]
    row = Row(Sampling(trace=True, xtc_probability=1.0), 0, [0], 1)
    _, excluded = traced(logits, row)
    assert excluded.xtc_uniform == row.uniform(XTC)
    assert [candidate.cut_by for candidate in excluded.candidates] == ["xtc", None, None, None]


def test_tracing_changes_no_choice_and_a_row_that_says_nothing_has_none() -> None:
    logits = torch.randn(6, 400, generator=torch.Generator().manual_seed(2))
    values = {"temperature": 1.4, "top_p": 0.8, "presence_penalty": 1.0}
    plain = [choice.token for choice in choose(logits, [Row(Sampling(**values), n, [5], 1) for n in range(6)])]
    rows = [Row(Sampling(trace=n % 2 == 0, **values), n, [5], 1) for n in range(6)]
    assert [choice.token for choice in choose(logits, rows)] == plain
    rows[0].mask = torch.zeros(13, dtype=torch.int32)
    silent = choose(logits, rows)[0]
    assert silent.token == NOTHING and silent.trace is None
