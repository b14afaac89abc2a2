"""Rollouts: what the live decoder answers, its log-probabilities, and that nothing of older weights is used."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import BottegaError, UserError
from bottega.generate.engine import Engine
from bottega.generate.settings import Sampling
from bottega.model.adapter_config import AdapterSettings
from bottega.model.decoder import Decoder
from bottega.model.kernels import library
from bottega.model.lora import adapter_parameters, add_adapter
from bottega.model.quantised import quantise_base
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train import rollout
from bottega.train.rollout import Rollout, Rollouts, draw_seed, evaluating, in_windows, packed_copy
from conftest import Workshop

SAMPLING = Sampling(max_new_tokens=24)
PROMPTS = [list(range(5, 45)), [7, 8, 9], list(range(60, 79)), [*range(5, 45), 3]]


def new_decoder(seed: int = 1) -> Decoder:
    config = ModelConfig(
        vocab_size=384, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    return Decoder(config).initialise(torch.Generator().manual_seed(seed)).train()


@pytest.fixture(scope="module")
def tokenizer(workshop: Workshop) -> Tokenizer:
    return Tokenizer.load(workshop.tokenizer)


def expected_log_probs(decoder: Decoder, rollout: Rollout, temperature: float) -> Tensor:
    """By the formula, from one pass over prompt and answer."""
    ids = torch.tensor([rollout.ids])
    with torch.no_grad():
        scores = (decoder(ids)[0, :-1] / temperature).log_softmax(-1)
    picked = scores.gather(1, ids[0, 1:].unsqueeze(1)).squeeze(1)
    return picked[len(rollout.prompt_ids) - 1 :]


def with_adapter(decoder: Decoder) -> Decoder:
    """With a LoRA adapter that changes what it says."""
    add_adapter(decoder, AdapterSettings(r=4, dropout=0.5), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in adapter_parameters(decoder).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
    return decoder


def answers(rollouts: Sequence[Rollout]) -> list[list[int]]:
    return [each.completion_ids for each in rollouts]


@pytest.mark.parametrize(
    ("sampling", "temperature"),
    [
        (Sampling(max_new_tokens=24), 1.0),
        (Sampling(max_new_tokens=24, temperature=0.7, top_p=0.9), 1.0),
        (Sampling(max_new_tokens=24, temperature=0.7, top_p=0.9, top_k=40), 0.7),
        (Sampling(max_new_tokens=24, temperature=0.0), 1.3),
    ],
)
def test_log_probs_are_those_of_the_training_forward(
    tokenizer: Tokenizer, sampling: Sampling, temperature: float
) -> None:
    decoder = new_decoder()
    found = Rollouts(decoder, tokenizer, max_batch=3).sample(PROMPTS, 3, sampling, 5, log_prob_temperature=temperature)
    assert [(each.prompt_index, each.sample_index) for each in found] == [(p, s) for p in range(4) for s in range(3)]
    for each in found:
        assert each.prompt_ids == PROMPTS[each.prompt_index]
        assert len(each.log_probs) == len(each.completion_ids) > 0
        wanted = expected_log_probs(decoder, each, temperature)
        torch.testing.assert_close(torch.tensor(each.log_probs), wanted, rtol=0, atol=1e-4)


def test_draws_depend_on_seed_prompt_and_sample_alone(tokenizer: Tokenizer) -> None:
    decoder = new_decoder()
    whole = answers(Rollouts(decoder, tokenizer, max_batch=16).sample(PROMPTS, 4, SAMPLING, 11))
    assert len({tuple(each) for each in whole}) == 16, "samples repeat each other"
    alone = Rollouts(decoder, tokenizer, max_batch=1).sample(PROMPTS, 4, SAMPLING, 11)
    assert answers(alone) == whole
    part = Rollouts(decoder, tokenizer, max_batch=5).sample(PROMPTS[2:], 4, SAMPLING, 11, numbers=[2, 3])
    assert answers(part) == whole[8:]
    fewer = Rollouts(decoder, tokenizer, max_batch=5).sample(PROMPTS, 2, SAMPLING, 11)
    assert answers(fewer) == [whole[4 * prompt + sample] for prompt in range(4) for sample in range(2)]
    assert answers(Rollouts(decoder, tokenizer).sample(PROMPTS, 4, SAMPLING, 12)) != whole
    assert answers(Rollouts(decoder, tokenizer, cache_tokens=64).sample(PROMPTS[:2], 4, SAMPLING, 11)) == whole[:8]


def test_changed_weights_are_seen_at_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without `forget_prefixes` they would not be: the test can fail."""

    def after_change() -> tuple[list[list[int]], list[float]]:
        decoder = new_decoder()
        rollouts = Rollouts(decoder, tokenizer)
        rollouts.sample(PROMPTS, 2, SAMPLING, 1)
        decoder.load_state_dict(new_decoder(2).state_dict())
        found = rollouts.sample(PROMPTS, 2, SAMPLING, 1)
        return answers(found), [value for each in found for value in each.log_probs]

    fresh = Rollouts(new_decoder(2), tokenizer).sample(PROMPTS, 2, SAMPLING, 1)
    tokens, log_probs = after_change()
    assert tokens == answers(fresh)
    assert log_probs == pytest.approx([value for each in fresh for value in each.log_probs], abs=1e-5)
    monkeypatch.setattr(Engine, "forget_prefixes", lambda self: None)
    assert after_change()[0] != answers(fresh)


def test_samples_share_their_prompt(tokenizer: Tokenizer) -> None:
    rollouts = Rollouts(new_decoder(), tokenizer, max_batch=8)
    rollouts.sample([PROMPTS[0]], 8, SAMPLING, 1)
    computed = rollouts.generator.statistics()
    assert computed["cached_tokens"] == 7 * (len(PROMPTS[0]) - 1)
    rollouts.sample([PROMPTS[0]], 1, SAMPLING, 1)
    assert rollouts.generator.statistics()["cached_tokens"] == computed["cached_tokens"], "keys of the last rollout"


def test_weights_may_not_change_under_a_request(tokenizer: Tokenizer) -> None:
    rollouts = Rollouts(new_decoder(), tokenizer)
    ticket = rollouts.generator.submit(PROMPTS[1], SAMPLING)
    rollouts.generator.step()
    with pytest.raises(BottegaError, match="under way"):
        rollouts.generator.engine.forget_prefixes()
    rollouts.generator.cancel(ticket)
    rollouts.generator.engine.forget_prefixes()


def test_modes_come_back_and_training_goes_on(tokenizer: Tokenizer) -> None:
    decoder = new_decoder()
    decoder.model.embed_tokens = nn.Sequential(decoder.model.embed_tokens, nn.Dropout(0.9))  # pyright: ignore[reportAttributeAccessIssue]
    decoder.model.embed_tokens.weight = decoder.model.embed_tokens[0].weight  # pyright: ignore[reportIndexIssue]
    decoder.model.layers[1].eval()
    before = {name: part.training for name, part in decoder.named_modules()}
    rollouts = Rollouts(decoder, tokenizer)
    found = rollouts.sample(PROMPTS, 1, SAMPLING, 3)
    assert {name: part.training for name, part in decoder.named_modules()} == before
    loss = decoder(torch.tensor([found[0].ids])).logsumexp(-1).sum()
    loss.backward()
    assert all(each.grad is not None for each in decoder.parameters())
    with evaluating(decoder):
        wanted = expected_log_probs(decoder, found[0], 1.0)
    torch.testing.assert_close(torch.tensor(found[0].log_probs), wanted, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="there is room for"):
        rollouts.sample([PROMPTS[0], list(range(128))], 1, SAMPLING, 3)
    assert {name: part.training for name, part in decoder.named_modules()} == before
    assert not rollouts.generator.has_work


@pytest.mark.parametrize("packed", [False, True])
def test_adapters_and_heads(tokenizer: Tokenizer, packed: bool) -> None:
    """The adapter's answers, without dropout; what is trained stays trainable, and a value head is no hindrance."""
    decoder = with_adapter(new_decoder())
    decoder.add_module("value_head", nn.Linear(48, 1))
    before = {name: (value.requires_grad, value.clone()) for name, value in decoder.named_parameters()}
    rollouts = Rollouts(decoder, tokenizer, packed=packed)
    found = rollouts.sample(PROMPTS, 2, SAMPLING, 6)
    with evaluating(decoder):
        for each in found:
            wanted = expected_log_probs(decoder, each, 1.0)
            torch.testing.assert_close(torch.tensor(each.log_probs), wanted, rtol=0, atol=1e-4)
    after = {name: (value.requires_grad, value.clone()) for name, value in decoder.named_parameters()}
    assert before.keys() == after.keys()
    assert all(old[0] == after[name][0] and torch.equal(old[1], after[name][1]) for name, old in before.items())
    assert any(trains for trains, _ in after.values())
    with torch.no_grad():
        for parameter in adapter_parameters(decoder).values():
            parameter.zero_()
    plain = Rollouts(new_decoder(), tokenizer, packed=packed).sample(PROMPTS, 2, SAMPLING, 6)
    assert answers(found) != answers(plain) == answers(rollouts.sample(PROMPTS, 2, SAMPLING, 6))


@pytest.mark.skipif(not library.available(), reason="without the kernels nothing is packed")
def test_packed_answers_are_the_same(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit in any batch; and they are packed by themselves where that is worth it."""
    decoder = new_decoder()
    live = Rollouts(decoder, tokenizer, packed=False).sample(PROMPTS, 4, SAMPLING, 11)
    makes = [Rollouts(decoder, tokenizer, packed=True, max_batch=size) for size in (1, 9)]
    found = [each.sample(PROMPTS, 4, SAMPLING, 11) for each in makes]
    assert found[0] == found[1] and answers(found[0]) == answers(live)
    packs = Rollouts(decoder, tokenizer)
    made: list[int] = []
    monkeypatch.setattr(rollout, "packed_copy", lambda each: made.append(1) or packed_copy(each))
    packs.sample(PROMPTS, 1, SAMPLING, 1)
    assert not made, "a short one"
    packs.sample(PROMPTS, rollout.TOKENS_WORTH_PACKING // (4 * 24) + 1, SAMPLING, 1)
    assert made
    made.clear()
    quantised = new_decoder()
    quantise_base(quantised, "int8")
    found = Rollouts(with_adapter(quantised), tokenizer).sample(PROMPTS, 24, SAMPLING, 1)[:3]
    assert not made, "a base that is quantised to save memory"
    with evaluating(quantised):
        for each in found:
            wanted = expected_log_probs(quantised, each, 1.0)
            torch.testing.assert_close(torch.tensor(each.log_probs), wanted, rtol=0, atol=1e-4)
    monkeypatch.setattr(rollout, "MOST_PACKED", decoder.config.parameter_count() - 1)
    Rollouts(decoder, tokenizer).sample(PROMPTS, 40, Sampling(max_new_tokens=16), 1)
    assert not made, "a large one"
    monkeypatch.setattr(rollout, "MOST_PACKED", 1 << 30)
    Rollouts(decoder.bfloat16(), tokenizer).sample(PROMPTS, 40, Sampling(max_new_tokens=16), 1)
    assert not made, "other numbers than those that are trained"


def test_stop_token_is_part_of_the_answer(tokenizer: Tokenizer) -> None:
    stops = tokenizer.stop_ids
    decoder = new_decoder()
    biased = Sampling(max_new_tokens=20, logit_bias=tuple((stop, 1.5) for stop in stops))
    found = Rollouts(decoder, tokenizer).sample(PROMPTS, 8, biased, 4)
    ended = [each for each in found if each.finished]
    cut = [each for each in found if not each.finished]
    assert ended and cut
    assert all(each.completion_ids[-1] in stops and not stops & set(each.completion_ids[:-1]) for each in ended)
    assert all(len(each.completion_ids) == 20 and not stops & set(each.completion_ids) for each in cut)
    assert all(each.text == tokenizer.decode(each.completion_ids[:-1]) for each in ended)
    assert ended[0].mask.tolist() == [False] * len(ended[0].prompt_ids) + [True] * len(ended[0].completion_ids)


@pytest.mark.parametrize(("prompts", "n", "batch"), [(5, 3, 4), (1, 9, 2), (7, 1, 3), (4, 4, 64), (0, 2, 2)])
def test_every_answer_is_begun_once(prompts: int, n: int, batch: int) -> None:
    order = list(in_windows(prompts, n, batch))
    assert sorted(order) == [(place, sample) for place in range(prompts) for sample in range(n)]
    assert all(order.index((place, 0)) < order.index((place, s)) for place in range(prompts) for s in range(1, n))


def test_seeds_of_answers_differ() -> None:
    seeds = {draw_seed(seed, prompt, sample) for seed in range(4) for prompt in range(20) for sample in range(20)}
    assert len(seeds) == 1600 and all(0 <= each < 2**63 for each in seeds)
    assert 0 <= draw_seed(2**63 * 2**20, 1, 1) < 2**63  # of the largest seed, at a late step
