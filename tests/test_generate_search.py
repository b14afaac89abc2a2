"""Searches against brute force, transformers, and slow implementations written from the papers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.generate.sampling import Sampling
from bottega.generate.search.beam import Tree, beam_search
from bottega.generate.search.hypothesis import Ending, Hypothesis
from bottega.generate.search.rows import Rows
from bottega.generate.search.settings import Search
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder

transformers = pytest.importorskip("transformers")
PROMPT = [3, 1, 4, 1]


def oracle_model(vocabulary: int, spread: float, seed: int = 0, *, tied: bool = False) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=spread, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def ours(oracle: Any, folder: Path) -> Decoder:
    from bottega.checkpoint.folder import ModelFolder

    oracle.save_pretrained(folder)
    return load_decoder(ModelFolder.open(folder)).eval()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """Five tokens."""
    return ours(oracle_model(5, 0.3), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Decoder]:
    """Sixty tokens, by transformers and by us."""
    oracle = oracle_model(60, 0.25, seed=1)
    return oracle, ours(oracle, tmp_path_factory.mktemp("models") / "pair")


def beams(
    decoder: Decoder, search: Search, *, stop: set[int] = frozenset(), tree: Tree | None = None, **sampling: Any
) -> list[Hypothesis]:
    settings = Sampling(**{"max_new_tokens": 5, **sampling})
    rows = Rows(decoder, PROMPT, width=search.num_beams, max_new_tokens=settings.max_new_tokens)
    return beam_search(rows, settings, search, Ending(frozenset(stop)), tree)


@torch.inference_mode()
def every_answer(
    decoder: Decoder, longest: int, stop: set[int], length_penalty: float
) -> list[tuple[list[int], float]]:
    """All answers that end with a stop token or with the length, and their scores, best first."""
    found = []
    for tokens in itertools.product(range(decoder.config.vocab_size), repeat=longest):
        end = next((place + 1 for place, token in enumerate(tokens) if token in stop), longest)
        if any(tokens[end:]):  # what stands behind the end is one of many: count it once
            continue
        logprobs = decoder(torch.tensor([[*PROMPT, *tokens]]))[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        total = sum(float(logprobs[place, token]) for place, token in enumerate(tokens[:end]))
        found.append((list(tokens[:end]), total / end**length_penalty))
    return sorted(found, key=lambda answer: -answer[1])


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("stop", [set(), {2}, {1, 4}])
def test_a_beam_as_wide_as_the_tree_finds_what_brute_force_finds(
    tiny: Decoder, stop: set[int], length_penalty: float
) -> None:
    expected = every_answer(tiny, 4, stop, length_penalty)
    wide = Search(num_beams=125, num_return_sequences=9, early_stopping="never", length_penalty=length_penalty)
    found = beams(tiny, wide, stop=stop, max_new_tokens=4)
    assert [answer.tokens for answer in found] == [tokens for tokens, _ in expected[:9]]
    assert [answer.score for answer in found] == pytest.approx([score for _, score in expected[:9]], abs=1e-5)
    for answer in found:
        assert answer.score == pytest.approx(answer.logprob / len(answer.tokens) ** length_penalty)
        assert answer.finish_reason == ("stop" if answer.tokens[-1] in stop else "length")


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize(("num_beams", "returned"), [(2, 1), (4, 4), (7, 3)])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 0.6, 3.0, -0.5])
@pytest.mark.parametrize("stop", [[2], [2, 5, 7, 11, 13, 17], list(range(0, 60, 3))])
def test_beams_equal_those_of_transformers(
    pair: tuple[Any, Decoder],
    stop: list[int],
    length_penalty: float,
    num_beams: int,
    returned: int,
    early_stopping: Any,
) -> None:
    oracle, decoder = pair
    prompt = torch.tensor([PROMPT])
    expected = oracle.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, num_beams=num_beams,
        num_return_sequences=returned, length_penalty=length_penalty, early_stopping=early_stopping, eos_token_id=stop,
        pad_token_id=59, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    search = Search(num_beams, returned, length_penalty, early_stopping)
    found = beams(decoder, search, stop=set(stop), max_new_tokens=12)
    for answer, tokens in zip(found, expected.sequences[:, len(PROMPT) :].tolist(), strict=True):
        assert tokens[: len(answer.tokens)] == answer.tokens
        assert set(tokens[len(answer.tokens) :]) <= {59}
    assert [answer.score for answer in found] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_a_single_beam_is_greedy_decoding_and_processors_change_what_is_ranked(tiny: Decoder) -> None:
    for stop in (set(), {2}):
        tokens = list(PROMPT)
        with torch.inference_mode():
            while len(tokens) < len(PROMPT) + 8 and not (set(tokens[len(PROMPT) :]) & stop):
                tokens.append(int(tiny(torch.tensor([tokens]))[0, -1].argmax()))
        assert beams(tiny, Search(), stop=stop, max_new_tokens=8)[0].tokens == tokens[len(PROMPT) :]
