"""What forbids, favours and penalises, against transformers' processors and plain brute force; words as tokens."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.generate import words
from bottega.generate.candidates import Candidates, best
from bottega.generate.config import Generate
from bottega.generate.penalties import dry, penalties, repeats
from bottega.generate.processors import process
from bottega.generate.sampling import Row, Sampling, choose
from bottega.generate.verb import sampling_of
from bottega.tokenizer.tokenizer import Tokenizer
from conftest import Workshop

theirs = pytest.importorskip("transformers").generation.logits_process

VOCABULARY = 40
TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def row(tokens: list[int], prompt_length: int | None = None, **values: object) -> Row:
    return Row(Sampling(**values), 0, tokens, len(tokens) if prompt_length is None else prompt_length)  # pyright: ignore[reportArgumentType]


def scores_of(seed: int) -> torch.Tensor:
    scores = 3 * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    scores[0, 5:9] = scores[0, 5]  # ties
    scores[0, 9] = -torch.inf
    return scores


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 99))
def test_processors_equal_transformers(tokens: list[int], seed: int) -> None:
    scores, history = scores_of(seed), torch.tensor([tokens])
    banned = ((1,), (2, 3), (0, 1, 2), (0, 30))
    pairs = [
        (
            {"no_repeat_ngram_size": size},
            theirs.NoRepeatNGramLogitsProcessor(size)(history, scores) if len(tokens) >= size else scores,
        )
        for size in (1, 2, 3)
    ]
    pairs += [
        (
            {"banned_words": banned},
            theirs.NoBadWordsLogitsProcessor([list(word) for word in banned], eos_token_id=39)(history, scores),
        ),
        (
            {"logit_bias": ((1, 4.0), (30, -2.5))},
            theirs.SequenceBiasLogitsProcessor({(1,): 4.0, (30,): -2.5})(history, scores),
        ),
        (
            {"allowed_tokens": (3, 5, 9)},
            theirs.SuppressTokensLogitsProcessor([t for t in range(VOCABULARY) if t not in (3, 5, 9)])(history, scores),
        ),
    ]
    for values, expected in pairs:
        assert torch.equal(process(scores, [row(tokens, **values)]), expected), values
    for given_tokens in range(4):
        begin = max(0, len(tokens) - given_tokens)
        expected = theirs.MinNewTokensLengthLogitsProcessor(begin, 2, [7, 8])(history, scores)
        short = row(tokens, begin, min_new_tokens=2, stop_token_ids=(7, 8))
        assert torch.equal(process(scores, [short]), expected)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 99), st.sampled_from([0.7, 1.3]))
def test_repetition_penalty_equals_transformers(tokens: list[int], seed: int, penalty: float) -> None:
    scores = scores_of(seed)
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([tokens]), scores)
    found = penalties(Candidates.whole([0], scores), [row(tokens, repetition_penalty=penalty)])
    assert torch.equal(found.scores, expected)


def test_presence_and_frequency_count_the_answer_and_the_range_cuts_all_three() -> None:
    scores = torch.ones(1, 8)
    values = {"presence_penalty": 0.5, "frequency_penalty": 0.25}
    asked = row([1, 1, 2, 3, 3, 3, 4], 3, **values)
    found = penalties(Candidates.whole([0], scores), [asked]).scores[0]
    assert found.tolist() == [1, 1, 1, 1 - 0.5 - 3 * 0.25, 1 - 0.75, 1, 1, 1]
    recent = row([1, 1, 2, 3, 3, 3, 4], 3, penalty_range=2, repetition_penalty=2.0, **values)
    found = penalties(Candidates.whole([0], scores), [recent]).scores[0]
    assert found.tolist() == [1, 1, 1, 0.5 - 0.75, 0.5 - 0.75, 1, 1, 1]


def test_penalties_find_their_tokens_among_sorted_candidates() -> None:
    scores = scores_of(1)
    asked = row([3, 4, 3, 4, 3], 1, repetition_penalty=1.5, presence_penalty=0.3, dry_multiplier=0.8)
    whole = dry(penalties(Candidates.whole([0], scores), [asked]), [asked]).scores
    head = Candidates.whole([0], scores).head(15)
    part = dry(penalties(head, [asked]), [asked])
    assert torch.equal(part.scores, whole.gather(1, part.tokens))


def slow_repeats(text: list[int], allowed: int, breakers: frozenset[tuple[int, ...]]) -> dict[int, int]:
    """From the words of the rule: every place, every length."""
    longest: dict[int, int] = {}
    for place in range(1, len(text)):
        for length in range(allowed, place + 1):
            end = text[len(text) - length :]
            if text[place - length : place] != end:
                continue
            crossed = any(
                tuple(text[a:b]) in breakers
                for a in range(len(text))
                for b in range(max(a + 1, len(text) - length + 1), len(text) + 1)
            )
            if not crossed:
                longest[text[place]] = max(longest.get(text[place], 0), length)
    return longest


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=25),
    st.integers(1, 3),
    st.frozensets(st.sampled_from([(0,), (1, 2), (3, 3, 1)])),
)
def test_repeats_are_those_of_the_rule(text: list[int], allowed: int, breakers: frozenset[tuple[int, ...]]) -> None:
    assert repeats(text, allowed, breakers) == slow_repeats(text, allowed, breakers)


def test_dry_punishes_by_the_length_of_the_repeat() -> None:
    text = [5, 6, 7, 8, 1, 2, 5, 6, 7]  # 8 would make 5 6 7 a repeat of 4
    values = {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2}
    punished = dry(Candidates.whole([0], torch.zeros(1, 10)), [row(text, **values)]).scores[0]
    assert punished[8] == pytest.approx(-0.8 * 1.75 ** (3 - 2)) and punished.count_nonzero() == 1
    for off in ({"dry_breakers": frozenset({(7,)})}, {"dry_breakers": frozenset({(8,)})}, {"dry_range": 5}):
        assert not dry(Candidates.whole([0], torch.zeros(1, 10)), [row(text, **values, **off)]).scores.any()
    endless = dry(Candidates.whole([0], torch.zeros(1, 10)), [row([4] * 3000, **{**values, "dry_base": 100.0})]).scores
    assert endless.isfinite().all() and endless[0, 4] < -1e29


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**31))
def test_a_grammars_mask_forbids_what_has_no_bit(vocabulary: int, known: int, seed: int) -> None:
    allowed = np.random.default_rng(seed).random(known) < 0.5
    bits = np.zeros(-(-known // 32) * 32, dtype=np.uint8)
    bits[:known] = allowed
    asked = row([0])
    asked.mask = torch.from_numpy(np.packbits(bits, bitorder="little").view(np.int32).copy())
    found = process(torch.zeros(1, vocabulary), [asked])[0]
    expected = [token < known and bool(allowed[token]) for token in range(vocabulary)]
    assert (found == 0).tolist() == expected and (found[~(found == 0)] == -torch.inf).all()


def test_the_models_logits_are_not_changed() -> None:
    logits = torch.randn(3, VOCABULARY)
    before = logits.clone()
    choose(logits, [row([1, 2], logit_bias=((3, 9.0),)), row([1], repetition_penalty=2.0), row([1], top_k=3)])
    assert torch.equal(logits, before)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 200), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_the_best_are_those_of_a_stable_sort(length: int, size: int, seed: int, gone: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    line = torch.randn(length, generator=generator).bfloat16().float()  # with ties
    line[torch.rand(length, generator=generator) < gone] = -torch.inf
    size = min(size, length)
    assert torch.equal(best(line, size), line.sort(descending=True, stable=True).indices[:size])


def test_words_become_tokens(workshop: Workshop) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    for word in ("river", "The", "\n"):
        for sequence in words.banned_words(tokenizer, [word]):
            assert tokenizer.decode(sequence) in (word, " " + word)
        assert len(words.banned_words(tokenizer, [word])) == 2
    allowed = words.allowed_words(tokenizer, ["stone"])
    assert set(tokenizer.encode("stone")) | tokenizer.stop_ids <= set(allowed)
    breakers = words.dry_breakers(tokenizer, ["\n", ". The"])
    assert {(id_,) for id_ in range(tokenizer.vocab_size) if b"\n" in tokenizer.token_bytes(id_)} <= breakers
    assert tuple(tokenizer.encode_inside(". The")) in breakers
    assert words.token_of(tokenizer, "17") == 17
    stop = min(tokenizer.stop_ids)
    assert words.token_of(tokenizer, tokenizer.token_text(stop)) == stop
    assert words.biases(tokenizer, ["17=-2.5"]) == ((17, -2.5),)
    for wrong in ("17", "=3", "17=much", "a river that is long=1"):
        with pytest.raises(UserError):
            words.biases(tokenizer, [wrong])
    for call in (words.banned_words, words.dry_breakers, words.allowed_words):
        with pytest.raises(UserError, match="empty"):
            call(tokenizer, [""])


def test_every_setting_is_a_flag_and_reaches_the_sampler(workshop: Workshop) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    config = Generate(
        model="m",
        prompt="p",
        temperature=0.8,
        samplers="top_k; typical_p,temperature;dry",
        top_k=7,
        typical_p=0.9,
        dry_multiplier=0.5,
        dry_breaker=("\n",),
        logit_bias=("3=1.5",),
        banned_word=("river",),
        allowed_word=("stone",),
        stop_token=("5",),
        stop_regex="[0-9]+",
        min_new_tokens=2,
    )
    sampling = sampling_of(config, tokenizer)
    assert sampling.samplers == ("top_k", "typical_p", "temperature", "dry")
    assert (sampling.top_k, sampling.logit_bias, sampling.stop_token_ids) == (7, ((3, 1.5),), (5,))
    assert sampling.banned_words == words.banned_words(tokenizer, ["river"])
    assert sampling.dry_breakers == words.dry_breakers(tokenizer, ["\n"]) and sampling.stop_regex == "[0-9]+"
    told = {"logprobs", "top_logprobs", "prompt_logprobs", "prompt_logprobs_from", "prompt_logprob_ids", "trace"}
    told |= {"logprobs_temperature"}
    as_text = {"allowed_tokens": "allowed_word", "banned_words": "banned_word", "dry_breakers": "dry_breaker"}
    as_text["stop_token_ids"] = "stop_token"
    for field in fields(Sampling):
        assert field.name in told or as_text.get(field.name, field.name) in Generate.model_fields, field.name
    for wrong, named in (({"mirostat": 2, "top_k": 3}, "mirostat"), ({"stop_regex": "(a"}, "stop_regex")):
        with pytest.raises(UserError, match=named):
            Generate(model="m", prompt="p", **wrong)
