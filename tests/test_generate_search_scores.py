"""What changes scores or chooses among samples, against slow implementations written from the papers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.core.errors import UserError
from bottega.generate.search.contrastive import HiddenRows, contrastive_search
from bottega.generate.search.dola import DolaRows
from bottega.generate.search.guidance import GuidedRows
from bottega.generate.search.hypothesis import Hypothesis, Reader
from bottega.generate.search.rows import Rows
from bottega.generate.search.settings import premature_layers
from bottega.generate.search.vote import answer_in, sample, vote
from bottega.generate.settings import Sampling
from bottega.model.decoder import Decoder
from search_models import PROMPT, oracle_model, ours

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Decoder]:
    """Sixty tokens, by transformers and by us."""
    oracle = oracle_model(60, 0.25, seed=1)
    return oracle, ours(oracle, tmp_path_factory.mktemp("models") / "pair")


@pytest.mark.parametrize(("alpha", "top_k"), [(0.6, 4), (0.3, 8), (1.0, 3)])
def test_contrastive_search_equals_the_papers_formula(pair: tuple[Any, Decoder], alpha: float, top_k: int) -> None:
    decoder = pair[1]
    sampling = Sampling(max_new_tokens=16, top_k=top_k)
    rows = HiddenRows(decoder, PROMPT, width=top_k, max_new_tokens=16)
    found = contrastive_search(rows, sampling, alpha, Reader(Sampling()))
    tokens, values = list(PROMPT), []
    with torch.inference_mode():
        for _ in range(16):
            probabilities = decoder(torch.tensor([tokens]))[0, -1].softmax(-1)
            ranked = []
            for token in probabilities.topk(top_k).indices.tolist():
                hidden = decoder.hidden(torch.tensor([[*tokens, token]]))[0]
                likeness = max(float(torch.cosine_similarity(hidden[-1], other, dim=0)) for other in hidden[:-1])
                ranked.append(((1 - alpha) * float(probabilities[token]) - alpha * likeness, token))
            value, token = max(ranked)
            tokens.append(token)
            values.append(value)
    assert found.tokens == tokens[len(PROMPT) :]
    assert found.score == pytest.approx(sum(values) / 16, abs=1e-5)


@pytest.mark.parametrize("layers", ["low", "high", (0, 1, 3)])
@torch.inference_mode()
def test_dola_equals_the_papers_formula(pair: tuple[Any, Decoder], layers: Any) -> None:
    oracle, decoder = pair
    rows = DolaRows(decoder, PROMPT, layers=layers, width=1, max_new_tokens=12)
    assert rows.layers == {"low": [0], "high": [2]}.get(layers, [0, 1, 3])
    tokens, chosen = list(PROMPT), set()
    scores = rows.begin()[0]
    for _ in range(12):
        states = oracle(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        # transformers' last hidden state has seen the last norm, the earlier ones have not.
        last = oracle.lm_head(states[-1])[0, -1].double().softmax(-1)
        early = {layer: oracle.lm_head(states[layer])[0, -1].double().softmax(-1) for layer in rows.layers}
        premature = max(rows.layers, key=lambda layer: divergence(last, early[layer]))
        chosen.add(premature)
        expected = torch.where(last >= 0.1 * last.max(), last.log() - early[premature].log(), -math.inf)
        torch.testing.assert_close(scores.double(), expected, atol=1e-4, rtol=0)
        tokens.append(int(expected.argmax()))
        scores = rows.step(tokens[-1:], [0])[0]
    assert len(chosen) > 1 or len(rows.layers) == 1  # or nothing of the choice would have been tested


def divergence(p: Tensor, q: Tensor) -> float:
    """Jensen–Shannon."""
    middle = (p + q) / 2
    return float(((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2)


@pytest.mark.parametrize(
    ("layers", "tied", "kind", "expected"),
    [
        (32, False, "low", list(range(0, 16, 2))),
        (32, True, "low", list(range(2, 16, 2))),
        (32, False, "high", list(range(16, 32, 2))),
        (80, False, "high", list(range(60, 80, 2))),
        (80, False, "low", list(range(0, 20, 2))),
        (2, True, "low", [1]),
        (1, False, "high", [0]),
        (12, False, (5, 1, 5), [1, 5]),
    ],
)
def test_buckets_of_layers(layers: int, tied: bool, kind: Any, expected: list[int]) -> None:
    assert premature_layers(layers, kind, tied=tied) == expected


def test_layers_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(UserError, match=r"dola_layers names 12, .* 0 to 11"):
        premature_layers(12, (3, 12), tied=False)


@pytest.mark.parametrize("negative", [None, [5, 9, 2, 6, 5, 3], [7]])
@torch.inference_mode()
def test_guidance_equals_two_models_side_by_side(pair: tuple[Any, Decoder], negative: list[int] | None) -> None:
    decoder = pair[1]
    rows = GuidedRows(decoder, PROMPT, scale=1.7, negative=negative, width=3, max_new_tokens=6)
    unlike = PROMPT[-1:] if negative is None else negative
    answers: list[list[int]] = [[]]
    scores = rows.begin()
    for step in range(5):
        for answer, row in zip(answers, scores, strict=True):
            with_, without = (
                decoder(torch.tensor([[*prompt, *answer]]))[0, -1].log_softmax(-1) for prompt in (PROMPT, unlike)
            )
            torch.testing.assert_close(row, without + 1.7 * (with_ - without), atol=1e-4, rtol=1e-4)
        parents = [0, 0, 0] if step == 0 else [2, 0, 2]
        answers = [[*answers[parent], step + row] for row, parent in enumerate(parents)]
        scores = rows.step([answer[-1] for answer in answers], parents)
    plain = GuidedRows(decoder, PROMPT, scale=1.0, negative=negative, width=1, max_new_tokens=6)
    torch.testing.assert_close(
        plain.begin(), Rows(decoder, PROMPT, width=1, max_new_tokens=6).begin().log_softmax(-1), atol=1e-5, rtol=1e-5
    )


def test_samples_are_those_of_one_at_a_time(pair: tuple[Any, Decoder]) -> None:
    sampling = Sampling(max_new_tokens=12, seed=5, stop_token_ids=(2, 5, 7, 11, 13))

    def drawn(number: int, seed: int) -> list[Hypothesis]:
        rows = Rows(pair[1], PROMPT, width=number, max_new_tokens=12)
        return sample(rows, replace(sampling, seed=seed), number, Reader(sampling))

    together = drawn(6, 5)
    assert [answer.tokens for answer in together] == [drawn(1, 5 + row)[0].tokens for row in range(6)]
    assert len({tuple(answer.tokens) for answer in together}) == 6
    for answer in together:
        with torch.inference_mode():
            logprobs = pair[1](torch.tensor([[*PROMPT, *answer.tokens]]))[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        total = float(logprobs[range(len(answer.tokens)), answer.tokens].sum())
        assert answer.logprob == pytest.approx(total, abs=1e-4)
        assert answer.score == pytest.approx(total / len(answer.tokens), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("It is 3 + 4 = 7.", None, "7"),
        ("So 1,000 it is", None, "1000"),
        ("about 1000.50", None, "1000.5"),
        ("minus: -12.0", None, "-12"),
        ("10-5", None, "5"),
        ("ab1,2", None, "2"),
        ("-0.0", None, "0"),
        (".5", None, "0.5"),
        ("none", None, None),
        ("Answer: B. Answer: C", r"Answer: (\w)", "C"),
        ("yes or no", r"yes|no", "no"),
        ("yes", r"(no)|yes", None),
        ("no match", r"\d", None),
    ],
)
def test_the_answer_in_a_text(text: str, pattern: str | None, expected: str | None) -> None:
    assert answer_in(text, pattern) == expected


def test_votes_are_counted_and_ties_go_to_the_more_probable() -> None:
    result = vote(["it is 4", "4.0", "5", "?", "5", "6"], [-3.0, -2.0, -1.0, 0.0, -4.0, -0.1])
    assert (result.winner, result.counts) == ("5", [("5", 2), ("4", 2), ("6", 1)])
    assert result.answers == ["4", "4", "5", None, "5", "6"]
    assert vote(["a", "b"], [0.0, 0.0]).winner is None
