"""Aggregations and their errors against lm-evaluation-harness, scikit-learn, statsmodels, and simulation."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bottega.core.errors import BottegaError, UserError
from bottega.evaluate.metrics.aggregate import (
    AGGREGATIONS,
    DEFAULT_AGGREGATION,
    HIGHER_IS_BETTER,
    estimate,
    pooled,
    resampled,
)
from bottega.evaluate.statistics import (
    Estimate,
    bootstrap,
    mcnemar,
    mean_interval,
    paired_difference,
    ratio_interval,
    wilson,
)

theirs = pytest.importorskip("lm_eval.api.metrics")
registry = pytest.importorskip("lm_eval.api.registry")
sklearn = pytest.importorskip("sklearn.metrics")
statsmodels = pytest.importorskip("statsmodels.stats.api")
contingency = pytest.importorskip("statsmodels.stats.contingency_tables")


def items(aggregation: str, count: int, seed: int = 0) -> list[Any]:
    """Values that `aggregation` takes."""
    source = random.Random(seed)
    if aggregation in ("perplexity", "mean", "median"):
        return [-source.expovariate(1.5) for _ in range(count)]
    if aggregation == "nanmean":
        return [math.nan if source.random() < 0.3 else source.random() for _ in range(count)]
    if aggregation in ("weighted_perplexity", "bits_per_byte"):
        sizes = [source.randint(20, 400) for _ in range(count)]
        return [(-size * (1 + 0.3 * source.gauss(0, 1)), size) for size in sizes]
    if aggregation in ("f1", "matthews_corrcoef"):
        classes = 2 if aggregation == "f1" else 3
        gold = [source.randrange(classes) for _ in range(count)]
        return [(each, each if source.random() < 0.6 else source.randrange(classes)) for each in gold]
    assert aggregation == "brier_score"
    shares = np.random.default_rng(seed).dirichlet(np.ones(4), size=count)
    return [(source.randrange(4), share.tolist()) for share in shares]


BY_BOTH = ("mean", "median", "nanmean", "perplexity", "weighted_perplexity", "bits_per_byte", "brier_score", "f1")
BY_BOTH = (*BY_BOTH, "matthews_corrcoef")


@pytest.mark.parametrize("aggregation", BY_BOTH)
def test_values_are_lm_evaluation_harness_s(aggregation: str) -> None:
    for count in (1, 2, 7, 500):
        values = items(aggregation, count)
        if aggregation == "nanmean":
            values = [0.5, *values]
        expected = registry.get_aggregation(aggregation)(values)
        assert estimate(aggregation, values).value == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert AGGREGATIONS[aggregation](values) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("aggregation", ["median", "nanmean", "perplexity", "f1", "matthews_corrcoef"])
def test_errors_are_those_of_lm_evaluation_harness_s_bootstrap(
    aggregation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = items(aggregation, 150, seed=4)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    replicas = 300 if aggregation in ("f1", "matthews_corrcoef") else 3000
    expected = theirs.bootstrap_stderr(registry.get_aggregation(aggregation), values, replicas)
    # The error of a bootstrap's error: 1/√(2 replicas), four times over.
    assert estimate(aggregation, values).error == pytest.approx(expected, rel=4 / math.sqrt(2 * replicas))


def test_error_of_a_mean_is_its_closed_form_as_there() -> None:
    for values in ([0.0, 1.0, 1.0, 0.0, 1.0], [0.3, 0.9, 0.1], [True, False]):
        assert estimate("mean", values).error == pytest.approx(theirs.mean_stderr(values), rel=1e-12)


PLAIN = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "likelihood")
SUMMED = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "mcc", "f1")


@pytest.mark.parametrize("name", [*PLAIN, *SUMMED, "bleu", "chrf", "chrf++", "ter"])
def test_defaults_are_those_of_lm_evaluation_harness_s_registry(name: str) -> None:
    expected = registry.get_aggregation(DEFAULT_AGGREGATION.get(name, "mean"))
    assert registry.get_metric_aggregation(name) is expected
    assert HIGHER_IS_BETTER[name] is registry.is_higher_better(name)


def test_brier_f1_and_matthews_are_scikit_learn_s() -> None:
    values = items("brier_score", 200)
    labels, shares = [gold for gold, _ in values], [share for _, share in values]
    expected = sklearn.brier_score_loss(labels, np.asarray(shares), labels=range(4), scale_by_half=False)
    assert estimate("brier_score", values).value == pytest.approx(expected, rel=1e-12)
    for seed in range(20):
        pairs = items("f1", 9, seed)
        gold, found = zip(*pairs, strict=True)
        assert estimate("f1", pairs).value == pytest.approx(sklearn.f1_score(gold, found, zero_division=0.0))
        assert estimate("matthews_corrcoef", pairs).value == pytest.approx(sklearn.matthews_corrcoef(gold, found))
    assert estimate("f1", [(0, 0), (0, 0)]).value == 0.0
    assert estimate("matthews_corrcoef", [(1, 1), (1, 0)]).value == 0.0


def test_all_answers_of_a_question_count_as_there() -> None:
    source = random.Random(2)
    values = [
        (source.random() < 0.8, {"idx": {"paragraph": at // 8, "question": at // 4 % 2}, "label": source.randrange(2)})
        for at in range(200)
    ]
    values = [(doc["label"] == 1 if source.random() < 0.8 else right, doc) for right, doc in values]
    found = estimate("acc_all", values)
    assert found.value == pytest.approx(theirs.acc_all(values)) and found.count == 50
    assert found.low is not None and found.low < found.value


def test_intervals_of_proportions_are_statsmodels_s() -> None:
    for right, count in [(0, 5), (3, 7), (50, 50), (812, 1000)]:
        expected = statsmodels.proportion_confint(right, count, method="wilson")
        found = estimate("mean", [1.0] * right + [0.0] * (count - right))
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    values = items("mean", 23)
    found = estimate("mean", values)
    assert (found.low, found.high) == pytest.approx(statsmodels.DescrStatsW(values).tconfint_mean(), rel=1e-9)


def test_mcnemar_is_statsmodels_s_exact_test() -> None:
    for only_first, only_second in [(0, 0), (1, 9), (7, 7), (3, 31), (0, 200), (900, 700)]:
        first = [True] * only_first + [False] * only_second + [True, False]
        second = [False] * only_first + [True] * only_second + [True, False]
        table = [[1, only_first], [only_second, 1]]
        expected = contingency.mcnemar(table, exact=True).pvalue
        assert mcnemar(first, second).p_value == pytest.approx(expected, rel=1e-9)


def test_resamples_in_blocks_and_of_equal_rows_are_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.asarray([[0.0], [0.0], [1.0], [3.0]])

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / 4

    found = resampled(mean, values, seed=0, resamples=20_000)
    expected = bootstrap(values[:, 0], resamples=20_000)
    assert found.std() == pytest.approx(expected.error, rel=0.03)
    assert np.quantile(found, [0.025, 0.975]) == pytest.approx([expected.low, expected.high], abs=0.26)
    monkeypatch.setattr("bottega.evaluate.metrics.aggregate.BLOCK_DRAWS", 3 * 7)
    assert (resampled(mean, values, seed=0, resamples=20_000) == found).all()


def test_bootstrap_of_the_median_is_that_of_resampling() -> None:
    values = items("median", 81)

    def upper_median(sample: np.ndarray, axis: int) -> np.ndarray:
        return np.sort(sample, axis=axis)[..., 40]

    found, expected = estimate("median", values), bootstrap(values, upper_median, seed=1)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=0.08
    )
    assert found.error == pytest.approx(expected.error, rel=0.05)


def test_no_interval_where_the_items_say_nothing_of_one() -> None:
    for aggregation in BY_BOTH:
        single = estimate(aggregation, [0.5] if aggregation == "nanmean" else items(aggregation, 1))
        assert single.low is None and single.error is None
    assert estimate("f1", [(1, 1)] * 9).low is None
    assert estimate("median", [2.0] * 9).high is None
    all_right = estimate("mean", [1.0] * 9)
    assert all_right.low is not None and 0.6 < all_right.low < 0.8 and all_right.high == 1.0
    assert estimate("perplexity", [-1.0, -500.0]).high is None  # beyond what a float holds


@pytest.mark.parametrize(
    ("aggregation", "values", "error", "message"),
    [
        ("maen", [1.0], UserError, "unknown aggregation 'maen'"),
        ("mean", [(0, 1)], UserError, "mean does not fit .* a number"),
        ("mean", ["1"], UserError, "mean does not fit"),
        ("mean", [1.0, None], UserError, "mean does not fit"),
        ("weighted_perplexity", [(-1.0, 2), (-1.0,)], UserError, "weighted_perplexity does not fit"),
        ("brier_score", [0.5], UserError, "brier_score does not fit"),
        ("f1", [(0, 2), (1, 1)], UserError, "two classes"),
        ("bleu", [1.0], UserError, "bleu does not fit"),
        ("mean", [], BottegaError, "has no items"),
        ("mean", [1.0, math.nan], BottegaError, "no finite number"),
        ("nanmean", [math.nan, math.nan], BottegaError, "no finite number"),
        ("perplexity", [-math.inf], BottegaError, "no finite number"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_no_figure_is_an_error(
    aggregation: str, values: list[Any], error: type[BottegaError], message: str
) -> None:
    with pytest.raises(error, match=message):
        estimate(aggregation, values)


def test_groups_are_lm_evaluation_harness_s() -> None:
    parts = [items("mean", count, seed=count) for count in (12, 40, 333)]
    members, sizes = [estimate("mean", part) for part in parts], [len(part) for part in parts]
    values, errors = [each.value for each in members], [each.error or 0.0 for each in members]
    by_size, plain = pooled(members, by_size=True), pooled(members, by_size=False)
    assert by_size.value == pytest.approx(theirs.aggregate_subtask_metrics(values, sizes))
    assert by_size.error == pytest.approx(theirs.pooled_sample_stderr(errors, sizes))
    assert plain.value == pytest.approx(theirs.aggregate_subtask_metrics(values, sizes, weight_by_size=False))
    assert plain.error == pytest.approx(theirs.unweighted_mean_stderr(errors))
    # Of one member, its own; an interval of a group of right answers does not collapse nor leave [0, 1].
    assert pooled(members[:1], by_size=True).low == pytest.approx(members[0].low)
    perfect = pooled([estimate("mean", [1.0] * 20), estimate("mean", [1.0] * 30)], by_size=True)
    assert perfect.low is not None and 0.85 < perfect.low < 0.97 and perfect.high == 1.0
    assert pooled([members[0], estimate("f1", [(1, 1)])], by_size=True).low is None


def test_the_seed_decides_and_items_may_come_in_any_order() -> None:
    values = items("matthews_corrcoef", 60)
    assert estimate("matthews_corrcoef", values, seed=1) == estimate("matthews_corrcoef", values[::-1], seed=1)
    assert estimate("matthews_corrcoef", values, seed=1) != estimate("matthews_corrcoef", values, seed=2)


def test_errors_cost_little_at_the_size_of_the_largest_tasks() -> None:
    for aggregation in ("perplexity", "median", "f1", "matthews_corrcoef"):
        values = items(aggregation, 15_000)
        start = time.perf_counter()
        estimate(aggregation, values)
        assert time.perf_counter() - start < 2.0, aggregation


def share(generator: np.random.Generator, count: int, right: float) -> list[float]:
    return (generator.random(count) < right).astype(float).tolist()


def group(generator: np.random.Generator) -> Estimate:
    parts = [share(generator, count, right) for count, right in ((15, 0.9), (40, 0.5), (100, 0.97))]
    return pooled([estimate("mean", part) for part in parts], by_size=True)


def plain_group(generator: np.random.Generator) -> Estimate:
    parts = [share(generator, count, right) for count, right in ((15, 0.9), (40, 0.5), (100, 0.97))]
    return pooled([estimate("mean", part) for part in parts], by_size=False)


def documents(generator: np.random.Generator, count: int) -> list[tuple[float, float]]:
    sizes = generator.integers(20, 400, size=count).astype(float)
    return list(zip(-sizes * (1 + 0.3 * generator.standard_normal(count)), sizes, strict=True))


def labels(generator: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Gold 1 with 0.4; recognised with 0.8, and 0 with 0.9."""
    gold = generator.random(count) < 0.4
    found = np.where(gold, generator.random(count) < 0.8, generator.random(count) > 0.9)
    return list(zip(gold.astype(int).tolist(), found.astype(int).tolist(), strict=True))


# name → (one simulated estimate, the truth, how often)
SIMULATED: dict[str, tuple[Callable[[np.random.Generator], Estimate], float, int]] = {
    "Wilson, few": (lambda g: wilson(int(g.binomial(12, 0.3)), 12), 0.3, 1000),
    "Wilson, nearly all right": (lambda g: estimate("mean", share(g, 60, 0.95)), 0.95, 1000),
    "Student, few": (lambda g: mean_interval(g.normal(2, 5, size=5)), 2.0, 1000),
    "Student, lopsided": (lambda g: estimate("mean", g.beta(2, 6, size=40).tolist()), 0.25, 1000),
    "ratio": (lambda g: ratio_interval(*np.transpose(documents(g, 30))), -1.0, 1000),
    "perplexity": (lambda g: estimate("perplexity", (-g.gamma(2, 1.5, size=50)).tolist()), math.exp(3), 1000),
    "weighted perplexity": (lambda g: estimate("weighted_perplexity", documents(g, 30)), math.e, 1000),
    "bits per byte": (lambda g: estimate("bits_per_byte", documents(g, 30)), 1 / math.log(2), 1000),
    "bootstrap": (lambda g: bootstrap(g.normal(2, 5, size=40), seed=int(g.integers(1 << 30)), resamples=500), 2.0, 600),
    "paired bootstrap": (
        lambda g: paired_difference(
            (base := g.normal(size=60)) + 0.3 + g.normal(size=60), base, seed=int(g.integers(1 << 30)), resamples=500
        ),
        0.3,
        600,
    ),
    "median": (lambda g: estimate("median", g.exponential(size=81).tolist()), math.log(2), 600),
    # Precision 0.32 / 0.38, recall 0.8.
    "F1": (lambda g: estimate("f1", labels(g, 120)), 2 * 0.32 / (2 * 0.32 + 0.06 + 0.08), 300),
    "Matthews": (
        lambda g: estimate("matthews_corrcoef", labels(g, 120)),
        (0.32 * 0.54 - 0.06 * 0.08) / math.sqrt(0.38 * 0.4 * 0.6 * 0.62),
        300,
    ),
    "group by size": (group, (15 * 0.9 + 40 * 0.5 + 100 * 0.97) / 155, 1000),
    "group, plain": (plain_group, (0.9 + 0.5 + 0.97) / 3, 1000),
}


@pytest.mark.parametrize("name", SIMULATED)
def test_95_percent_intervals_hold_the_truth_about_as_often(name: str) -> None:
    simulate, truth, times = SIMULATED[name]
    generator = np.random.default_rng(20)
    held = 0
    for _ in range(times):
        found = simulate(generator)
        held += found.low is not None and found.high is not None and found.low <= truth <= found.high
    assert 0.90 <= held / times <= 0.99, f"{name}: {held / times:.3f}"
