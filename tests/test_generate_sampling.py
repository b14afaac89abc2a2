"""Each sampler against transformers' own or a plain brute force; draws are reproducible, follow the distribution and
do not depend on the rows beside them."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.generate import samplers as samplers_module
from bottega.generate.draws import TOKEN, XTC, draw
from bottega.generate.sampling import NOTHING, Row, Sampling, choose, distribution, uniform

theirs = pytest.importorskip("transformers").generation.logits_process

WARPERS = {  # in transformers' order
    "temperature": lambda value: theirs.TemperatureLogitsWarper(value),
    "top_h": lambda value: theirs.TopHLogitsWarper(value),
    "top_k": lambda value: theirs.TopKLogitsWarper(value),
    "top_p": lambda value: theirs.TopPLogitsWarper(value),
    "min_p": lambda value: theirs.MinPLogitsWarper(value),
    "typical_p": lambda value: theirs.TypicalLogitsWarper(value),
    "epsilon_cutoff": lambda value: theirs.EpsilonLogitsWarper(value),
    "eta_cutoff": lambda value: theirs.EtaLogitsWarper(value),
}


def rows_of(sampling: Sampling, count: int, tokens: list[int] | None = None, seed: int = 0) -> list[Row]:
    return [Row(sampling, seed + number, list(tokens or [0]), 1) for number in range(count)]


def ours(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """Probabilities (R, V)."""
    tokens, probabilities = distribution(logits, rows)
    assert (probabilities.diff(dim=-1) <= 0).all(), "most probable first"
    dense = torch.zeros(logits.shape, dtype=torch.float32)
    return dense.scatter_add(1, tokens, probabilities)


def oracle(logits: torch.Tensor, values: dict) -> torch.Tensor:
    scores, history = logits, torch.zeros(len(logits), 1, dtype=torch.int64)
    for name, warper in WARPERS.items():
        if name in values:
            scores = warper(values[name])(history, scores)
    return scores.softmax(-1).float()


def logits_of(kind: str, vocabulary: int, rows: int = 4) -> torch.Tensor:
    torch.manual_seed(vocabulary)
    logits = 3 * torch.randn(rows, vocabulary, dtype=torch.float64)
    if kind == "forbidden":
        logits[torch.rand(logits.shape) < 0.5] = -torch.inf
    if kind == "peaked":
        logits[:, 7] += 12
    return logits


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_k": 5000},
        {"top_p": 0.8},
        {"top_p": 0.999},
        {"top_p": 1e-6},
        {"min_p": 0.1},
        {"typical_p": 0.5},
        {"typical_p": 0.95},
        {"epsilon_cutoff": 0.002},
        {"epsilon_cutoff": 0.9},
        {"eta_cutoff": 0.01},
        {"top_h": 0.4},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.05, "temperature": 1.3},
        {"temperature": 1.5, "top_p": 0.95, "typical_p": 0.9, "epsilon_cutoff": 1e-3, "eta_cutoff": 2e-3, "top_h": 0.9},
    ],
)
@pytest.mark.parametrize("vocabulary", [50, 20_000])
@pytest.mark.parametrize("kind", ["plain", "forbidden", "peaked"])
def test_distribution_equals_transformers(values: dict, vocabulary: int, kind: str) -> None:
    logits = logits_of(kind, vocabulary)
    expected = oracle(logits, values)
    found = ours(logits, rows_of(Sampling(**values), 4))
    assert torch.equal(found > 0, expected > 0)
    assert (found - expected).abs().max() < 1e-6


@pytest.mark.parametrize("values", [{"top_k": 5}, {"top_p": 0.6}, {"top_k": 30, "top_p": 0.9}])
def test_of_equal_scores_the_lower_ids_stay(values: dict) -> None:
    logits = torch.randint(0, 4, (6, 3000), generator=torch.Generator().manual_seed(1)).double()
    for found, line in zip(ours(logits, rows_of(Sampling(**values), 6)), logits, strict=True):
        kept = found.nonzero().squeeze(1)
        order = line.sort(descending=True, stable=True).indices
        assert set(kept.tolist()) == set(order[: len(kept)].tolist())
    if "top_p" in values and "top_k" not in values:  # transformers keeps as many, any of the equal ones
        assert torch.equal(
            (ours(logits, rows_of(Sampling(**values), 6)) > 0).sum(-1), (oracle(logits, values) > 0).sum(-1)
        )


def brute(name: str, value: float, line: torch.Tensor) -> set[int]:
    """Tokens that stay, from the paper's words, one token at a time."""
    p = line.softmax(-1).tolist()
    order = sorted((token for token in range(len(p)) if p[token] > 0), key=lambda token: (-p[token], token))
    if name == "top_a":
        return {token for token in order if p[token] >= value * p[order[0]] ** 2}
    if name == "top_n_sigma":
        scores = line.tolist()
        known = [x for x in scores if x > -math.inf]
        mean = sum(known) / len(known)
        best = max(known)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in known) / len(known))
        return {token for token in order if scores[token] >= best - value * deviation}
    assert name == "tail_free"
    falls = [p[a] - p[b] for a, b in pairwise(order)]
    bends = [abs(a - b) for a, b in pairwise(falls)]
    total, reached = sum(bends), 0.0
    for place, bend in enumerate(bends):
        reached += bend
        if reached / total > value:
            return set(order[: place + 1])
    raise AssertionError("the whole is above z")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_a", 0.2),
        ("top_a", 1.0),
        ("top_n_sigma", 1.0),
        ("top_n_sigma", 2.5),
        ("tail_free", 0.5),
        ("tail_free", 0.99),
    ],
)
@pytest.mark.parametrize("vocabulary", [50, 20_000])
@pytest.mark.parametrize("kind", ["plain", "forbidden", "peaked"])
def test_truncation_equals_brute_force(name: str, value: float, vocabulary: int, kind: str) -> None:
    logits = logits_of(kind, vocabulary)
    found = ours(logits, rows_of(Sampling(**{name: value}), 4))
    for line, probabilities in zip(logits, found, strict=True):
        kept = brute(name, value, line)
        assert set(probabilities.nonzero().squeeze(1).tolist()) == kept
        expected = torch.full_like(line, -torch.inf)
        expected[list(kept)] = line[list(kept)]
        assert (probabilities - expected.softmax(-1)).abs().max() < 1e-6


def test_a_distribution_without_a_tail_is_kept_whole() -> None:
    assert (ours(torch.zeros(1, 40), rows_of(Sampling(tail_free=0.5), 1)) > 0).all()


def test_dynamic_temperature_follows_the_entropy() -> None:
    logits = logits_of("forbidden", 60)
    given = Sampling(temperature=1.0, dynatemp_range=0.7, dynatemp_exponent=2.0)
    found = ours(logits, rows_of(given, 4))
    for line, probabilities in zip(logits, found, strict=True):
        left = line[line > -torch.inf]
        entropy = float(torch.distributions.Categorical(logits=left).entropy())
        wanted = 0.3 + (1.7 - 0.3) * (entropy / math.log(len(left))) ** 2
        assert (probabilities - (line / wanted).softmax(-1)).abs().max() < 1e-6
    alone = torch.full((1, 9), -torch.inf)
    alone[0, 4] = 1.0
    assert ours(alone, rows_of(given, 1))[0, 4] == 1


def test_xtc_cuts_all_likely_tokens_but_the_least_likely_of_them() -> None:
    logits = torch.tensor([[0.4, 0.05, 0.25, 0.2, 0.1]]).log()
    rows = [Row(Sampling(xtc_probability=0.5, xtc_threshold=0.15), seed, [0], 1) for seed in range(2000)]
    kept = ours(logits.expand(2000, 5), rows) > 0
    cut = torch.tensor([row.uniform(XTC) < 0.5 for row in rows])
    assert torch.equal(kept[cut], torch.tensor([False, True, False, True, True]).expand(int(cut.sum()), 5))
    assert kept[~cut].all()
    assert abs(float(cut.float().mean()) - 0.5) < 0.05
    lonely = Row(Sampling(xtc_probability=1.0, xtc_threshold=0.3), 0, [0], 1)
    assert (ours(logits, [lonely]) > 0).all(), "one likely token alone is not cut"


def test_mirostat_2_cuts_what_surprises_more_than_mu_and_learns() -> None:
    logits = logits_of("plain", 500, rows=1)
    row = Row(Sampling(mirostat=2, mirostat_tau=2.0, mirostat_eta=0.3), 3, [0], 1)
    surprise = -(logits[0].softmax(-1)).log2()
    for _ in range(30):
        mu = row.mu
        kept = ours(logits, [row])[0] > 0
        assert torch.equal(kept, (surprise <= mu) | (surprise == surprise.min()))
        token = choose(logits, [row])[0].token
        assert row.mu == pytest.approx(mu - 0.3 * (float(surprise[token]) - 2.0), abs=1e-5)
        row.tokens.append(token)


def test_mirostat_1_cuts_after_the_rank_that_zipfs_law_gives() -> None:
    logits = logits_of("peaked", 9000, rows=1)
    row = Row(Sampling(mirostat=1, mirostat_tau=4.0), 3, [0], 1)
    ranked = logits[0].softmax(-1).sort(descending=True).values.tolist()
    over = under = 0.0
    for i in range(99):
        t, b = math.log((i + 2) / (i + 1)), math.log(ranked[i] / ranked[i + 1])
        over, under = over + t * b, under + t * t
    s = over / under
    k = (((s - 1) * 2 ** (2 * 4.0)) / (1 - 9000 ** (1 - s))) ** (1 / s)
    assert int((ours(logits, [row])[0] > 0).sum()) == max(1, int(k))


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_surprise_at_its_target(version: int) -> None:
    logits = -1.2 * torch.arange(1, 5001).double().log().unsqueeze(0)  # Zipf
    row = Row(Sampling(mirostat=version, mirostat_tau=3.0), 11, [0], 1)
    surprises = []
    for _ in range(600):
        token = choose(logits, [row])[0].token
        surprises.append(-math.log2(float(logits[0].softmax(-1)[token])))
        row.tokens.append(token)
    assert sum(surprises[100:]) / 500 == pytest.approx(3.0, abs=0.15)


def test_the_order_of_samplers_is_the_users() -> None:
    logits = logits_of("plain", 200)
    first, second = ("temperature", "top_p"), ("top_p", "temperature")
    values = {"temperature": 2.0, "top_p": 0.7}
    hot = ours(logits, rows_of(Sampling(samplers=first, **values), 4))
    assert torch.equal(hot, ours(logits, rows_of(Sampling(**values), 4))), "temperature first is the default"
    cold = ours(logits, rows_of(Sampling(samplers=second, **values), 4))
    kept = oracle(logits, {"top_p": 0.7}) > 0
    assert torch.equal(cold > 0, kept) and not torch.equal(hot > 0, kept)
    assert torch.equal(cold, ours(logits, rows_of(Sampling(samplers=("llama.cpp",), **values), 4)))
    late = Sampling(samplers=("top_k", "penalties"), top_k=3, repetition_penalty=100.0, temperature=0.0)
    line = torch.tensor([[5.0, 4.0, 3.0, 2.9]])
    assert choose(line, [Row(late, 0, [0, 1, 2], 1)])[0].token == 0, "a greedy choice among the three that top_k left"
    early = Sampling(top_k=3, repetition_penalty=100.0, temperature=0.0)
    assert choose(line, [Row(early, 0, [0, 1, 2], 1)])[0].token == 3


def test_top_k_1_is_greedy_and_top_p_1_is_softmax() -> None:
    logits = torch.randint(-3, 9, (40, 300), generator=torch.Generator().manual_seed(2)).float()  # with ties
    best = [choice.token for choice in choose(logits, rows_of(Sampling(temperature=0.0), 40))]
    assert best == logits.numpy().argmax(-1).tolist()
    for values in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 9e-6}, {"temperature": 1e-38}):
        assert [choice.token for choice in choose(logits, rows_of(Sampling(**values), 40))] == best
    assert torch.equal(ours(logits, rows_of(Sampling(top_p=1.0), 40)), logits.softmax(-1))


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0, 1.5]]).expand(8000, 6)
    for values in ({}, {"top_k": 4}, {"top_p": 0.8, "temperature": 1.4}):
        rows = rows_of(Sampling(**values), 8000)
        counts = torch.bincount(torch.tensor([choice.token for choice in choose(logits, rows)]), minlength=6).double()
        expected = ours(logits[:1], rows[:1])[0].double() * 8000
        assert not counts[expected == 0].any()
        left = expected > 5
        assert (((counts - expected) ** 2 / expected)[left]).sum() < 20.5  # chi square, at most 5 degrees, p = 0.001


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 1500), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 0.999]))
def test_a_draw_inverts_the_cumulative_distribution(width: int, seed: int, gone: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(3, width, generator=generator).masked_fill(
        torch.rand(3, width, generator=generator) < gone, 0.0
    )
    probabilities[:, width // 2] = 0.5
    for numbers in (
        torch.rand(3, generator=generator).double(),
        torch.zeros(3).double(),
        torch.full((3,), 1 - 2.0**-53),
    ):
        places, low, high = draw(probabilities, numbers.double())
        cumulative = (probabilities.double() / probabilities.double().sum(-1, keepdim=True)).cumsum(-1)
        for row, place in enumerate(places.tolist()):
            assert probabilities[row, place] > 0
            assert float(high[row]) == pytest.approx(float(cumulative[row, place]), abs=1e-6)
            assert float(low[row]) - 1e-6 <= float(numbers[row]) <= float(high[row]) + 1e-6
            assert float(high[row] - low[row]) == pytest.approx(
                float(probabilities[row, place] / probabilities[row].sum()), abs=1e-6
            )


def test_uniform_numbers_are_uniform_and_independent() -> None:
    numbers = torch.tensor([[uniform(seed, index) for index in range(200)] for seed in range(200)]).double()
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, bins=50, min=0, max=1)
    assert ((counts - 800) ** 2 / 800).sum() < 85.4  # chi square, 49 degrees, p = 0.001
    for a, b in ((numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1])):  # next token, next seed
        assert abs(float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])) < 0.02
    assert uniform(1, 2, TOKEN) != uniform(1, 2, XTC)
    assert uniform(2**63 - 1, 5) == uniform(2**63 - 1, 5)


def test_a_seed_and_a_place_decide_a_draw() -> None:
    logits = torch.randn(1, 500, generator=torch.Generator().manual_seed(3))
    given = Sampling(temperature=3.0)
    draws = [choose(logits, [Row(given, 5, [1] * (3 + index), 3)])[0].token for index in range(50)]
    assert draws == [choose(logits, [Row(given, 5, [1] * (9 + index), 9)])[0].token for index in range(50)]
    assert draws != [choose(logits, [Row(given, 6, [1] * (3 + index), 3)])[0].token for index in range(50)]
    assert len(set(draws)) > 25


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.5, 1.0, 1.7]),
        "dynatemp_range": st.just(0.4),
        "top_k": st.sampled_from([1, 7, 80, 700]),
        "top_p": st.sampled_from([0.3, 0.9, 0.9999]),
        "min_p": st.just(0.02),
        "typical_p": st.sampled_from([0.4, 0.97]),
        "epsilon_cutoff": st.just(1e-3),
        "eta_cutoff": st.just(1e-3),
        "top_n_sigma": st.just(1.5),
        "tail_free": st.sampled_from([0.5, 0.999]),
        "top_a": st.just(0.3),
        "top_h": st.just(0.5),
        "xtc_probability": st.just(0.5),
        "repetition_penalty": st.just(1.3),
        "presence_penalty": st.just(0.4),
        "dry_multiplier": st.just(0.8),
        "logit_bias": st.just(((3, 2.0), (90, -5.0))),
        "samplers": st.just(("llama.cpp",)),
        "logprobs": st.just(True),
        "trace": st.booleans(),
    },
) | st.sampled_from(
    [{"temperature": 0.0}, {"mirostat": 1}, {"mirostat": 2}, {"temperature": 0.0, "dry_multiplier": 1.0}]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SETTINGS, min_size=2, max_size=6), st.integers(0, 2**31), st.sampled_from([300, 1000, 5003]))
def test_rows_do_not_influence_each_other(drawn: list[dict], seed: int, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, values in enumerate(drawn):
        try:
            sampling = Sampling(**values)
        except UserError:  # an order that leaves one out
            sampling = Sampling(**{name: value for name, value in values.items() if name != "samplers"})
        tokens = torch.randint(vocabulary, (20,), generator=generator).tolist()
        rows.append(Row(sampling, seed + number, tokens * 2, 20))
    logits = 4 * torch.randn(len(rows), vocabulary, generator=generator)
    logits[0, ::2] = -torch.inf
    logits[-1] = logits[-1].bfloat16().float()  # ties
    tokens, probabilities = distribution(logits, rows)
    for number, row in enumerate(rows):
        alone_tokens, alone = distribution(logits[number : number + 1], [row])
        width = alone.shape[1]
        assert torch.equal(probabilities[number, :width], alone[0]) and not probabilities[number, width:].any()
        assert torch.equal(tokens[number, :width], alone_tokens[0])
    together = choose(logits, [Row(r.sampling, r.seed, r.tokens, r.prompt_length) for r in rows])
    assert together == [choose(logits[n : n + 1], [row])[0] for n, row in enumerate(rows)]


def test_a_large_batch_gives_each_row_the_bits_it_has_alone() -> None:
    torch.manual_seed(4)
    logits = 3 * torch.randn(9, 40_000)
    for values in (
        {},
        {"top_p": 0.9},
        {"typical_p": 0.9},
        {"top_n_sigma": 2.0},
        {"eta_cutoff": 1e-4},
        {"tail_free": 0.99},
    ):
        rows = rows_of(Sampling(**values), 9)
        together = distribution(logits, rows, ordered=False)
        for number, row in enumerate(rows):
            alone = distribution(logits[number : number + 1], [row], ordered=False)
            assert torch.equal(together[1][number, : alone[1].shape[1]], alone[1][0])


def test_a_head_that_is_too_short_is_lengthened_for_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.stack((0.01 * torch.randn(6000).double(), 9 * torch.randn(6000).double()))
    for values in ({"top_p": 0.7}, {"tail_free": 0.9}, {"typical_p": 0.7}, {"mirostat": 1, "mirostat_tau": 6.0}):
        rows = rows_of(Sampling(**values), 2)
        expected = ours(logits, rows)
        monkeypatch.setattr(samplers_module, "FIRST", 64)
        assert torch.equal(ours(logits, rows) > 0, expected > 0)
        monkeypatch.undo()


@pytest.mark.parametrize("values", [{}, {"temperature": 0.0}, {"top_p": 0.5}, {"mirostat": 2}])
def test_a_row_that_may_say_nothing_says_so_and_harms_no_other(values: dict) -> None:
    logits = torch.randn(3, 50)
    logits[1] = torch.nan
    rows = rows_of(Sampling(logprobs=True, **values), 3)
    rows[0].mask = torch.zeros(2, dtype=torch.int32)
    choices = choose(logits, rows)
    assert [choice.token == NOTHING for choice in choices] == [True, True, False]
    assert choices[0].logprob is None and choices[2].logprob is not None
    assert distribution(logits, rows)[1].sum(-1).tolist() == pytest.approx([0, 0, 1])


def test_log_probabilities_are_the_models_own() -> None:
    logits = torch.randn(2, 40).bfloat16()
    given = Sampling(temperature=0.0, top_logprobs=5, repetition_penalty=3.0, logit_bias=((9, -50.0),))
    choices = choose(logits, rows_of(given, 2, tokens=[3, 9]))
    expected = logits.float().log_softmax(-1)
    for choice, line in zip(choices, expected, strict=True):
        assert choice.logprob == pytest.approx(float(line[choice.token]))
        values, ids = line.sort(descending=True, stable=True)
        assert choice.top == list(zip(ids[:5].tolist(), values[:5].tolist(), strict=True))
    assert choose(logits, rows_of(Sampling(), 2))[0].logprob is None


def test_top_p_on_a_large_vocabulary_costs_less_than_2_ms() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 131_072)
    logits[0, torch.randperm(131_072)[:200]] += 8 + 2 * torch.randn(200)  # a language model's: few are likely
    rows = rows_of(Sampling(temperature=0.8, top_p=0.95), 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    took = []
    for _ in range(40):
        begin = time.process_time()  # of this process: the machine may be busy
        choose(logits, rows)
        took.append(time.process_time() - begin)
    torch.set_num_threads(threads)
    assert min(took) < 0.002, f"{1000 * min(took):.2f} ms"


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"min_p": 1.0},
        {"typical_p": 0.0},
        {"epsilon_cutoff": 1.0},
        {"eta_cutoff": -0.1},
        {"tail_free": float("nan")},
        {"top_a": 1.5},
        {"top_h": -1.0},
        {"top_n_sigma": -1.0},
        {"xtc_probability": 1.5},
        {"xtc_threshold": 0.6},
        {"mirostat": 3},
        {"mirostat": 2, "top_p": 0.9},
        {"mirostat_tau": float("nan")},
        {"dynatemp_range": -1.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-40},  # would divide scores out of float32's range
        {"repetition_penalty": float("inf")},
        {"presence_penalty": float("nan")},
        {"frequency_penalty": 1e9},
        {"dry_base": 0.5},
        {"dry_allowed_length": 0},
        {"no_repeat_ngram_size": -1},
        {"logit_bias": ((3, float("nan")),)},
        {"banned_words": ((),)},
        {"banned_words": ((3,), (4,)), "allowed_tokens": (3, 4)},
        {"max_new_tokens": -1},
        {"min_new_tokens": 9, "max_new_tokens": 8},
        {"stop": ("",)},
        {"stop": "\n"},
        {"seed": -1},
        {"samplers": ("top_q",)},
        {"samplers": ("top_k", "top_k")},
        {"samplers": ("top_k",), "top_p": 0.9},
        {"temperature": 0.0, "xtc_probability": 0.5},
        {"temperature": 0.0, "typical_p": 0.5},
        {"temperature": 0.0, "mirostat": 1},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_settings_for_a_model_know_its_stop_tokens_and_its_vocabulary() -> None:
    assert Sampling(stop_token_ids=(9,)).for_model(20, frozenset({2})).stop_token_ids == (2, 9)
    assert Sampling(ignore_eos=True, stop_token_ids=(9,)).for_model(20, frozenset({2})).stop_token_ids == (9,)
    for values in ({"logit_bias": ((20, 1.0),)}, {"banned_words": ((1, 20),)}, {"stop_token_ids": (-1,)}):
        with pytest.raises(UserError, match=next(iter(values))):
            Sampling(**values).for_model(20, frozenset())


@pytest.mark.parametrize("setting", ["top_p", "typical_p", "tail_free", "min_p", "top_a", "top_h", "top_n_sigma"])
def test_settings_too_small_for_float32_leave_a_token(setting: str) -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    rows = rows_of(Sampling(seed=1, **{setting: 2e-52}), 2)
    assert all(0 <= choice.token < 50 for choice in choose(logits, rows))
