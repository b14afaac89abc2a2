"""Speculation changes nothing but the speed: distributions by chi-square, proposers by what they should say, lengths
by their own estimates and by simulated machines."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.generate.speculate import verify as rules
from bottega.generate.speculate.controller import MARGIN, Controller, CostCurve, Outcome
from bottega.generate.speculate.draft import DraftModel, common_vocabulary
from bottega.generate.speculate.early_exit import early_exit, first_layers
from bottega.generate.speculate.lookup import NgramIndex, PromptLookup
from bottega.generate.speculate.proposer import Draft, Proposer
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.tokenizer.tokenizer import Tokenizer
from conftest import Workshop

VOCABULARY, ANSWERS = 4, 3000
Rule = Callable[[Tensor, Tensor, int, random.Random], list[int]]


# ------------------------------------------------------------------ losslessness by distribution


def chain(seed: int, sharpness: float) -> Tensor:
    """A model: the next token's distribution by the last token, (V, V)."""
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(VOCABULARY, VOCABULARY, generator=generator)).softmax(-1).double()


def one_hot(seed: int) -> Tensor:
    return torch.nn.functional.one_hot(chain(seed, 1.0).argmax(-1), VOCABULARY).double()


def target_rows(target: Tensor, context: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Candidates behind each of the tokens, as `distribution` gives them: most probable first."""
    probabilities, tokens = target[list(context)].sort(-1, descending=True)
    return tokens, probabilities


def by_verify(target: Tensor, draft: Tensor, k: int, draw: random.Random, *, one_hot: bool) -> list[int]:
    """The first two or more tokens behind token 0."""
    answer = [0]
    while len(answer) < 3:
        drafted: list[int] = []
        for _ in range(k):
            row = draft[[answer[-1], *drafted][-1]]
            drafted.append(rules.inverse(row, draw.random()))
        context = [answer[-1], *drafted]
        uniforms = [(draw.random(), draw.random()) for _ in context]
        q = None if one_hot else draft[context[:-1]]
        accepted, token = rules.verify(drafted, q, target_rows(target, context), uniforms)
        answer += [*drafted[:accepted], token]
    return answer[1:]


def by_match(target: Tensor, draft: Tensor, k: int, numbers: Sequence[float]) -> list[int]:
    """The same with the other rule; the number of a place is that place's, whatever was drafted."""
    answer = [0]
    while len(answer) < 3:
        drafted: list[int] = []
        for _ in range(k):
            drafted.append(int(draft[[answer[-1], *drafted][-1]].argmax()))
        tokens, probabilities = target_rows(target, [answer[-1], *drafted])
        places = range(len(answer) - 1, len(answer) + k)
        pairs = zip(tokens, probabilities, places, strict=True)
        sampled = [int(row[rules.inverse(p, numbers[place])]) for row, p, place in pairs]
        accepted, token = rules.match(drafted, sampled)
        answer += [*drafted[:accepted], token]
    return answer[1:]


def p_value(answers: Sequence[Sequence[int]], target: Tensor) -> float:
    """Pearson's test of the first two tokens together against the target's joint distribution."""
    expected = (target[0].unsqueeze(1) * target).flatten() * len(answers)
    counts = torch.zeros(VOCABULARY**2, dtype=torch.float64)
    for answer in answers:
        counts[answer[0] * VOCABULARY + answer[1]] += 1
    rare = expected < 5  # together in one cell, as the test requires
    cells = [(counts[~rare], expected[~rare])]
    if expected[rare].sum() > 0:
        cells.append((counts[rare].sum().view(1), expected[rare].sum().view(1)))
    seen, wanted = (torch.cat(parts) for parts in zip(*cells, strict=True))
    statistic = ((seen - wanted) ** 2 / wanted).sum()
    half = torch.tensor((len(seen) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half, statistic / 2))


def verified(target: Tensor, draft: Tensor, k: int, *, one_hot: bool = False) -> float:
    draw = random.Random(k)
    return p_value([by_verify(target, draft, k, draw, one_hot=one_hot) for _ in range(ANSWERS)], target)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("sharpness", [0.3, 1.5])
def test_speculative_sampling_emits_the_target_distribution(k: int, sharpness: float) -> None:
    assert verified(chain(k, 1.0), chain(k + 10, sharpness), k) > 1e-3


@pytest.mark.parametrize("k", [1, 3])
def test_drafts_without_chance_are_verified_as_one_hot(k: int) -> None:
    assert verified(chain(k, 1.0), one_hot(k + 10), k, one_hot=True) > 1e-3


@pytest.mark.parametrize("mutant", ["draws from p", "takes all", "keeps the draft's excess"])
@pytest.mark.parametrize("k", [1, 3])
def test_biased_rules_fail_the_same_test(monkeypatch: pytest.MonkeyPatch, mutant: str, k: int) -> None:
    if mutant == "draws from p":
        monkeypatch.setattr(rules, "residual", lambda p, q: p)
    elif mutant == "takes all":
        monkeypatch.setattr(rules, "acceptance", lambda p, q: float(p > 0))
    else:
        monkeypatch.setattr(rules, "residual", lambda p, q: (p - q).abs() + 1e-9)
    assert verified(chain(k, 1.0), chain(k + 10, 1.5), k) < 1e-6


@pytest.mark.parametrize("k", [1, 2, 4])
def test_matching_gives_the_very_tokens_of_the_seed_and_accepts_as_often(k: int) -> None:
    target, draft, draw = chain(k, 1.0), one_hot(k + 10), random.Random(k)
    answers, accepted = [], 0
    for _ in range(ANSWERS):
        numbers = [draw.random() for _ in range(3 + k)]
        answers.append(by_match(target, draft, k, numbers)[:2])
        plain = [0]
        for number in numbers[:2]:
            tokens, probabilities = target_rows(target, plain[-1:])
            plain.append(int(tokens[0, rules.inverse(probabilities[0], number)]))
        assert answers[-1] == plain[1:]
        accepted += plain[1] == int(draft[0].argmax())
    assert p_value(answers, target) > 1e-3
    likely = float(target[0, draft[0].argmax()])
    assert abs(accepted / ANSWERS - likely) < 4 * (likely * (1 - likely) / ANSWERS) ** 0.5


def test_a_draft_outside_the_candidates_never_stands_and_equal_models_always_agree() -> None:
    cut = (torch.tensor([[2, 1], [2, 1]]), torch.tensor([[0.7, 0.3], [0.7, 0.3]]))
    assert rules.verify([3], None, cut, [(0.0, 0.0), (0.0, 0.0)]) == (0, 2)
    assert rules.verify([3], None, cut, [(0.0, 0.99), (0.0, 0.0)]) == (0, 1)
    q = torch.tensor([[0.0, 0.3, 0.7, 0.0]])
    assert rules.verify([1], q, cut, [(0.999999, 0.5), (0.0, 0.0)]) == (1, 2)


def test_a_token_of_no_weight_is_never_drawn() -> None:
    assert rules.inverse(torch.tensor([0.5, 0.5, 0.0, 0.0]), 1.0) == 1
    assert rules.inverse(torch.tensor([0.0, 1.0, 0.0]), 0.0) == 1


# ------------------------------------------------------------------ prompt lookup


def lookup_by_search(tokens: list[int], k: int, least: int, most: int) -> list[int]:
    """The definition, by looking at every place."""
    for size in range(min(most, len(tokens)), least - 1, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                period = len(tokens) - end
                return [tokens[end + i % period] for i in range(k)]
    return []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 6), st.integers(1, 2), st.integers(2, 4))
def test_lookup_equals_a_search_of_the_text(tokens: list[int], k: int, least: int, most: int) -> None:
    proposer = PromptLookup(least=least, most=most)
    for end in range(1, len(tokens) + 1):
        assert proposer.propose("one", tokens[:end], k) == lookup_by_search(tokens[:end], k, least, most)


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.generate.speculate.lookup.hash", lambda gram: len(gram), raising=False)
    index = NgramIndex(1, 2)
    index.extend([1, 2, 3, 4])
    assert index.find([3]) == 3
    assert index.find([1]) is None


def test_a_shared_index_knows_earlier_answers_and_forgets_the_oldest() -> None:
    proposer = PromptLookup(least=2, most=3, shared_tokens=50)
    proposer.propose("first", [5, 6, 7, 8, 9], 3)
    assert proposer.propose("second", [1, 5, 6], 3) == []
    proposer.forget("first")
    assert proposer.propose("second", [1, 5, 6], 3) == [7, 8, 9]
    assert proposer.propose("second", [1, 5, 6, 8, 9], 3) == []  # nothing continues across the end of a text
    for text in range(100):
        proposer.propose(text, [100 + text, 200 + text, 300 + text], 1)
        proposer.forget(text)
    assert len(proposer._shared.tokens) <= 100
    assert proposer.propose("third", [1, 5, 6], 3) == []
    assert proposer.propose("third", [1, 199, 299], 3) == [399]
    alone = PromptLookup(least=2)
    alone.propose("first", [5, 6, 7, 8, 9], 3)
    alone.forget("first")
    assert alone.propose("second", [1, 5, 6], 3) == []


# ------------------------------------------------------------------ drafting with a decoder


def make_decoder(seed: int, layers: int = 3, vocabulary: int = 50, context: int = 64) -> Decoder:
    config = ModelConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=context, initializer_range=0.3,
    )  # fmt: skip
    return Decoder(config).initialise(torch.Generator().manual_seed(seed)).eval()


@torch.inference_mode()
def continuation(decoder: Decoder, tokens: list[int], k: int) -> list[int]:
    """Greedy, without a cache."""
    answer = list(tokens)
    for _ in range(k):
        answer.append(int(decoder(torch.tensor([answer]))[0, -1].argmax()))
    return answer[len(tokens) :]


def schedule(seed: int, requests: int, steps: int) -> Iterator[tuple[list[Draft], list[int]]]:
    """Requests that come and go, with texts that grow, and how many drafts of each to believe next."""
    draw = random.Random(seed)
    texts = {name: [draw.randrange(50) for _ in range(draw.randint(1, 12))] for name in range(requests)}
    for _ in range(steps):
        names = draw.sample(sorted(texts), draw.randint(1, requests))
        yield [Draft(name, texts[name], draw.randint(0, 4)) for name in names], [draw.randint(0, 4) for _ in names]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("prepared", [False, True])
def test_a_draft_model_says_what_its_decoder_would(seed: int, prepared: bool) -> None:
    decoder, draw = make_decoder(seed), random.Random(seed)
    proposer = DraftModel(prepare_for_inference(make_decoder(seed)) if prepared else decoder)
    for drafts, believed in schedule(seed, requests=4, steps=12):
        proposals = proposer.propose_many(drafts)
        longest = max((len(draft.tokens) for draft in drafts if draft.length and len(draft.tokens) <= 64), default=0)
        for draft, proposal, count in zip(drafts, proposals, believed, strict=True):
            fits = len(draft.tokens) <= 64
            assert len(proposal) == (min(draft.length, 64 - longest + 1) if fits else 0)
            assert proposal == continuation(decoder, draft.tokens, len(proposal))
            # Some drafts stand, then comes another token: the caches must forget the rest.
            draft.tokens.extend([*proposal[:count], draw.randrange(50)])


def test_a_cache_grows_and_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.generate.speculate.draft.LEAST_CAPACITY", 4)
    decoder = make_decoder(0)
    proposer = DraftModel(decoder)
    tokens = [1, 2, 3]
    while len(tokens) < 40:
        proposal = proposer.propose("one", tokens, 3)
        assert proposal == continuation(decoder, tokens, 3)
        tokens += proposal
    proposer.forget("one")
    proposer.forget("unknown")
    assert not proposer._memories


def test_drafting_stops_where_the_draft_is_unsure() -> None:
    decoder, tokens = make_decoder(1), [3, 1, 4, 1, 5]
    full = continuation(decoder, tokens, 8)
    with torch.inference_mode():
        likely = decoder(torch.tensor([tokens + full]))[0].softmax(-1)
    sure = [float(likely[len(tokens) - 1 + i, token]) for i, token in enumerate(full)]
    for threshold in (min(sure) - 1e-4, *(value + 1e-4 for value in sorted(sure)[:4])):
        expected = full[: next((i for i, value in enumerate(sure) if value < threshold), 8)]
        assert DraftModel(decoder, threshold=threshold).propose("one", tokens, 8) == expected
    with pytest.raises(UserError, match="threshold"):
        DraftModel(decoder, threshold=1.0)


def test_vocabularies_must_be_the_same(workshop: Workshop, tmp_path: Path) -> None:
    small, large = make_decoder(0, vocabulary=384).config, make_decoder(0, vocabulary=400).config
    assert common_vocabulary(small, small) == 384
    with pytest.raises(UserError, match="384 tokens, the model 400"):
        common_vocabulary(small, large)
    # With tokenizers their tokens decide, and rows of no token are not proposed.
    ours = Tokenizer.load(workshop.tokenizer)
    assert common_vocabulary(small, large, (ours, ours)) == ours.vocab_size
    data = json.loads((workshop.tokenizer / "tokenizer.json").read_text())
    last = max(data["model"]["vocab"], key=data["model"]["vocab"].__getitem__)
    for name, change in (("other", {last + "~": data["model"]["vocab"][last]}), ("shorter", {})):
        vocabulary = {token: id_ for token, id_ in data["model"]["vocab"].items() if token != last}
        merges = data["model"]["merges"][:-1]
        folder = tmp_path / name
        shutil.copytree(workshop.tokenizer, folder)
        changed = {**data, "model": {**data["model"], "vocab": {**vocabulary, **change}, "merges": merges}}
        (folder / "tokenizer.json").write_text(json.dumps(changed))
        size = ours.vocab_size
        refusal = f"token {size - 1} is" if change else f"tokenizer has {size - 1} tokens, the model's {size}"
        with pytest.raises(UserError, match=refusal):
            common_vocabulary(small, large, (Tokenizer.load(folder), ours))
    decoder = make_decoder(0)
    few = DraftModel(decoder, vocabulary=5).propose("one", [1, 2], 8)
    assert max(few) < 5 <= max(continuation(decoder, [1, 2], 8))


def test_early_exit_drafts_with_the_first_layers_and_leaves_the_model_alone() -> None:
    decoder = make_decoder(2, layers=4)
    before = decoder(torch.tensor([[1, 2, 3]]))
    shallow = make_decoder(2, layers=4)
    del shallow.model.layers[2:]
    proposer = early_exit(decoder, 2)
    assert proposer.propose("one", [1, 2, 3], 5) == continuation(shallow, [1, 2, 3], 5)
    assert len(proposer._memories["one"].cache.keys) == 2
    assert len(decoder.model.layers) == decoder.config.num_hidden_layers == 4
    assert torch.equal(decoder(torch.tensor([[1, 2, 3]])), before)
    assert all(parameter in set(decoder.parameters()) for parameter in first_layers(decoder, 2).parameters())
    for layers in (0, 4):
        with pytest.raises(UserError, match="1 to 3"):
            early_exit(decoder, layers)


@pytest.mark.parametrize("kind", ["lookup", "draft", "same", "early exit"])
def test_greedy_answers_are_those_without_speculation(kind: str) -> None:
    target = make_decoder(3, layers=4)
    proposers: dict[str, Proposer] = {
        "lookup": PromptLookup(), "draft": DraftModel(make_decoder(4, layers=1)),
        "same": DraftModel(target), "early exit": early_exit(target, 3),
    }  # fmt: skip
    proposer, answer, proposed, accepted = proposers[kind], [7, 8, 9, 7, 8], 0, 0
    expected = continuation(target, answer, 40)
    while len(answer) < 45:
        drafted = proposer.propose(0, answer, 4)
        with torch.inference_mode():
            sampled = target(torch.tensor([answer + drafted]))[0, len(answer) - 1 :].argmax(-1).tolist()
        stands, token = rules.match(drafted, sampled)
        answer += [*drafted[:stands], token]
        proposed, accepted = proposed + len(drafted), accepted + stands
    assert answer[5:45] == expected
    assert accepted == proposed if kind == "same" else accepted <= proposed


# ------------------------------------------------------------------ how many


def known_controller(costs: dict[int, float], rates: Sequence[float], draft_seconds: float, batch: int) -> Controller:
    """A controller that has measured `costs` by rows and whose requests 0, 1, … had such acceptance."""
    controller = Controller(max_length=4)
    for request, rate in enumerate(rates):
        for _ in range(20):
            stood = round(4 * rate)
            controller.observe({request: Outcome(4, stood)}, 1.0, 4 * draft_seconds)
    controller.steps = CostCurve()
    for rows, seconds in {batch: 1.0, **costs}.items():
        for _ in range(3):
            controller.steps.observe(rows, seconds)
    controller._since_plain.clear()
    return controller


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.integers(1, 15), st.floats(0.5, 8.0), max_size=6),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.floats(0, 2.0),
    st.lists(st.integers(0, 6), min_size=3, max_size=3),
)
def test_no_other_lengths_are_better_by_the_controllers_own_estimates(
    costs: dict[int, float], rates: list[float], draft_seconds: float, limits: list[int]
) -> None:
    count = len(rates)
    controller = known_controller(costs, rates, draft_seconds, count)
    plan = controller.plan(dict(zip(range(count), limits, strict=False)))
    assert plan.reason == "estimate"

    def speed(lengths: Sequence[int]) -> float:
        tokens = sum(sum(controller.rate(i) ** j for j in range(k + 1)) for i, k in enumerate(lengths))
        return tokens / float(controller.seconds(count, np.array([sum(lengths)]))[0])

    ours = [plan.lengths[i] for i in range(count)]
    assert all(k <= min(4, limit) for k, limit in zip(ours, limits, strict=False))
    every = itertools.product(*(range(min(4, limit) + 1) for limit in limits[:count]))
    best = max(map(speed, every))
    plain = speed([0] * count)
    if any(ours):
        assert speed(ours) == pytest.approx(best)
        assert speed(ours) > MARGIN * plain
        assert plan.gain == pytest.approx(speed(ours) / plain)
    else:
        assert best <= MARGIN * plain * (1 + 1e-9)
        assert plan.gain == 1


class Machine:
    """A simulated engine: steps cost what `cost` says, drafts stand with the rates given."""

    def __init__(self, cost: Callable[[int], float], draft_seconds: float = 0.0, seed: int = 0) -> None:
        self.cost, self.draft_seconds, self.draw = cost, draft_seconds, random.Random(seed)
        self.controller = Controller(max_length=8)

    def run(self, rates: dict[Hashable, float], steps: int) -> tuple[dict[Hashable, float], float]:
        """Mean lengths by request, and tokens per second over those of plain steps."""
        drafts, tokens, seconds = dict.fromkeys(rates, 0), 0, 0.0
        for _ in range(steps):
            plan = self.controller.plan(dict.fromkeys(rates, 8))
            outcomes = {}
            for request, k in plan.lengths.items():
                stood = next((j for j in range(k) if self.draw.random() >= rates[request]), k)
                outcomes[request] = Outcome(k, stood)
                drafts[request] += k
                tokens += stood + 1
            rows = len(rates) + sum(plan.lengths.values())
            step = self.cost(rows) * self.draw.uniform(0.95, 1.05)
            drafting = self.draft_seconds * (rows - len(rates))
            self.controller.observe(outcomes, step, drafting)
            seconds += step + drafting
        return {request: total / steps for request, total in drafts.items()}, tokens / seconds / (
            len(rates) / self.cost(len(rates))
        )


def flat(rows: int) -> float:
    return 1 + 0.02 * (rows - 1)


def steep(rows: int) -> float:
    return float(rows)


def test_it_switches_itself_off_where_drafts_fall_or_rows_cost() -> None:
    for machine, rate in ((Machine(flat), 0.0), (Machine(steep), 0.6), (Machine(flat, draft_seconds=1.0), 0.6)):
        machine.run({0: rate}, 100)
        lengths, gain = machine.run({0: rate}, 500)
        assert lengths[0] < 0.1
        assert gain > 0.95


def test_it_switches_on_where_drafts_stand_and_stays_near_the_best_fixed_length() -> None:
    for rate in (0.5, 0.8, 0.95):
        machine = Machine(flat)
        machine.run({0: rate}, 100)
        lengths, gain = machine.run({0: rate}, 500)
        best = max(sum(rate**j for j in range(k + 1)) / flat(1 + k) for k in range(9))
        assert gain > 0.9 * best
        assert lengths[0] > 2
        record = machine.controller.record(0)
        assert record.acceptance is not None and record.gain is not None
        assert record.gain == pytest.approx(gain, rel=0.1)
        assert record.steps == 600


def test_it_notices_that_things_have_changed() -> None:
    machine = Machine(flat)
    machine.run({0: 0.0}, 300)
    machine.run({0: 0.9}, 100)  # until the next trial, and then what it takes to believe it
    lengths, _ = machine.run({0: 0.9}, 200)
    assert lengths[0] > 4
    machine.run({0: 0.0}, 60)
    lengths, _ = machine.run({0: 0.0}, 200)
    assert lengths[0] < 0.3


def test_in_a_batch_only_those_draft_for_whom_it_pays_and_new_ones_are_expected_to_be_alike() -> None:
    machine = Machine(lambda rows: 1 + 0.1 * rows)
    rates: dict[Hashable, float] = {"good": 0.9, "bad": 0.05, "worse": 0.0}
    machine.run(rates, 100)
    lengths, gain = machine.run(rates, 400)
    assert lengths["good"] > 3 and lengths["bad"] < 0.4 and lengths["worse"] < 0.4
    assert gain > 1
    low = Machine(flat)
    low.run({0: 0.0}, 100)
    low.controller.forget(0)
    assert low.controller.rate("new") < 0.2
    assert low.controller.record(0).steps == 0


def test_a_plain_step_is_measured_first_and_again() -> None:
    controller = Controller()
    assert controller.plan({0: 8}).reason == "measure"
    reasons = []
    for _ in range(400):
        plan = controller.plan({0: 8})
        reasons.append(plan.reason)
        controller.observe({0: Outcome(plan.lengths[0], plan.lengths[0])}, 1.0)
    assert reasons[:3] == ["measure"] * 3
    assert 1 <= reasons[3:].count("measure") <= 4


def test_steps_with_prompts_teach_acceptance_only_and_catching_up_is_no_price_of_drafting() -> None:
    controller = Controller()
    record = controller.record(0)
    controller.observe({0: Outcome(0, 0)}, 1.0)
    controller.observe({0: Outcome(4, 3)}, None, 5.0)  # the draft model reads the prompt
    assert (record.proposed, record.accepted, record.steps, record.seconds, record.gain) == (4, 3, 2, 1.0, 1.0)
    assert controller.steps.count(5) == 0
    assert controller.seconds(1, np.array([4]))[0] == 1.0
    controller.observe({0: Outcome(4, 4)}, 1.5, 0.5)
    assert controller.seconds(1, np.array([4]))[0] == 2.0
    assert record.gain == pytest.approx((1 + 5) / (1 + 2))
    assert record.acceptance == 7 / 8
    assert controller.record(1).acceptance is None and controller.record(1).gain is None
