"""Distributions equal those of transformers' own processors; draws are reproducible and follow them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.generate import sampling as sampling_module
from bottega.generate.sampling import Sampling, candidates, choose, penalise, random_stream
from bottega.generate.stopping import StopStrings

transformers = pytest.importorskip("transformers")


def oracle(logits: torch.Tensor, history: torch.Tensor, given: Sampling) -> torch.Tensor:
    """Probabilities (B, V) by transformers, in the order in which it applies its processors."""
    from transformers.generation import logits_process as theirs

    scores = logits
    if given.repetition_penalty != 1.0:
        scores = theirs.RepetitionPenaltyLogitsProcessor(given.repetition_penalty)(history, scores)
    if given.temperature != 1.0:
        scores = theirs.TemperatureLogitsWarper(given.temperature)(history, scores)
    if given.top_k:
        scores = theirs.TopKLogitsWarper(given.top_k)(history, scores)
    if given.top_p < 1:
        scores = theirs.TopPLogitsWarper(given.top_p)(history, scores)
    if given.min_p > 0:
        scores = theirs.MinPLogitsWarper(given.min_p)(history, scores)
    return scores.softmax(-1)


def ours(logits: torch.Tensor, history: torch.Tensor, given: Sampling) -> torch.Tensor:
    scores = penalise(logits, history, given.repetition_penalty)
    tokens, probabilities = candidates(scores / given.temperature, given)
    return torch.zeros_like(logits).scatter(1, tokens, probabilities)


@pytest.mark.parametrize(
    "given_settings",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_k": 5000},
        {"top_p": 0.8},
        {"top_p": 1e-6},
        {"min_p": 0.1},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.05, "temperature": 1.3, "repetition_penalty": 1.2},
    ],
)
@pytest.mark.parametrize("vocabulary", [50, 3000])
def test_distribution_equals_transformers(given_settings: dict, vocabulary: int) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, vocabulary, dtype=torch.float64)
    history = torch.randint(vocabulary, (4, 9))
    given = Sampling(**given_settings)
    assert (ours(logits, history, given) - oracle(logits, history, given)).abs().max() < 1e-12


@pytest.mark.parametrize("spread", [0.001, 3.0])
def test_the_short_cut_of_top_p_changes_nothing(monkeypatch: pytest.MonkeyPatch, spread: float) -> None:
    logits = spread * torch.randn(3, 400, dtype=torch.float64)
    whole = ours(logits, torch.zeros(3, 1, dtype=torch.int64), Sampling(top_p=0.7))
    monkeypatch.setattr(sampling_module, "FIRST_CANDIDATES", 32)
    assert torch.equal(ours(logits, torch.zeros(3, 1, dtype=torch.int64), Sampling(top_p=0.7)) > 0, whole > 0)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    given, stream = Sampling(seed=5), random_stream(5)
    history = torch.zeros(1, 1, dtype=torch.int64)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[choose(logits, history, given, [stream])] += 1
    expected = logits.softmax(-1)[0] * 4000
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi square, 3 degrees of freedom, p = 0.001


def test_rows_with_equal_seeds_draw_equal_and_greedy_draws_nothing() -> None:
    logits, history = torch.randn(2, 30).expand(2, 30), torch.zeros(2, 1, dtype=torch.int64)
    draws = [choose(logits, history, Sampling(), [random_stream(1), random_stream(1)]) for _ in range(3)]
    assert all(torch.equal(draws[0], draw) for draw in draws)
    stream = random_stream(9)
    before = stream.get_state().clone()
    for temperature in (0.0, 1e-38, 1e-320, 9e-6):  # logits divided by so little are beyond float32
        assert torch.equal(
            choose(logits, history, Sampling(temperature=temperature), [stream, stream]), logits.argmax(-1)
        )
    assert torch.equal(stream.get_state(), before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 1.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-40},  # would divide scores out of float32's range
        {"repetition_penalty": float("inf")},
        {"max_new_tokens": 0},
        {"stop": ("",)},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)


@settings(max_examples=200)
@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_stop_strings_cut_at_the_first_wherever_the_pieces_end(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    finder, shown, rest = StopStrings(tuple(stops)), "", text
    while rest and not finder.found:
        size = data.draw(st.integers(1, len(rest)))
        shown += finder.add(rest[:size])
        rest = rest[size:]
        read = text[: len(text) - len(rest)]
        assert text.startswith(shown) and len(shown) <= len(read)
    shown += finder.flush()
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if not ends:
        assert shown == text and not finder.found
    else:
        assert finder.found
        assert not any(stop in shown for stop in stops)
        assert text.startswith(shown)
