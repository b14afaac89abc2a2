import itertools
import math

import numpy as np
import pytest

from bottega.evaluate.statistics import (
    bootstrap,
    mcnemar,
    mean_interval,
    paired_difference,
    ratio_interval,
    student_probability,
    student_quantile,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_the_published_table(successes: int, count: int, low: float, high: float) -> None:
    estimate = wilson(successes, count)
    assert (round(estimate.low or 0, 4), round(estimate.high or 0, 4)) == (low, high)


def test_wilson_solves_its_defining_equation_and_stays_inside() -> None:
    for count, successes in [(7, 3), (1000, 999), (5, 5), (1, 0)]:
        estimate = wilson(successes, count)
        assert estimate.low is not None and estimate.high is not None
        assert 0 <= estimate.low <= successes / count <= estimate.high <= 1
        for bound in {estimate.low, estimate.high} - {0.0, 1.0}:
            score = abs(successes / count - bound) / math.sqrt(bound * (1 - bound) / count)
            assert score == pytest.approx(1.959964, abs=1e-6)
    assert math.isnan(wilson(0, 0).value) and wilson(0, 0).low is None
    with pytest.raises(ValueError, match="4 successes of 3"):
        wilson(4, 3)


@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"),
    # Tables of Student's t.
    [(0.95, 1, 12.7062), (0.95, 2, 4.3027), (0.95, 9, 2.2622), (0.99, 30, 2.7500), (0.95, 120, 1.9799)],
)
def test_student_quantile_equals_the_table(confidence: float, degrees: int, quantile: float) -> None:
    assert student_quantile(confidence, degrees) == pytest.approx(quantile, abs=6e-5)
    assert student_probability(student_quantile(confidence, degrees), degrees) == pytest.approx(confidence, abs=1e-12)


def test_student_expansion_agrees_with_the_exact_sum_where_it_takes_over() -> None:
    for degrees in (201, 202, 1000):
        assert student_probability(student_quantile(0.95, degrees), degrees) == pytest.approx(0.95, abs=1e-9)


def test_mean_interval_closed_form() -> None:
    values = [2.0, 4.0, 4.0, 6.0]
    estimate = mean_interval(values)
    error = math.sqrt((4 + 0 + 0 + 4) / 3) / 2
    assert estimate.value == 4 and estimate.error == pytest.approx(error)
    assert estimate.high == pytest.approx(4 + 3.182446 * error, abs=1e-5)
    assert mean_interval([1.0]).low is None


def test_ratio_interval_equals_the_mean_when_units_weigh_the_same() -> None:
    values = np.array([0.3, 0.9, 0.4, 0.8, 0.1])
    ratio, mean = ratio_interval(values * 7, np.full(5, 7.0)), mean_interval(values)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((mean.value, mean.low, mean.high))


def test_ratio_interval_covers_at_its_rate() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        sizes = generator.integers(50, 500, size=40).astype(float)
        bits = sizes * (2.0 + 0.5 * generator.standard_normal(40))
        estimate = ratio_interval(bits, sizes)
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= 2.0 <= estimate.high
    assert 0.91 <= covered / 400 <= 0.98


def test_bootstrap_equals_all_resamples_of_a_small_sample() -> None:
    values = [0.0, 1.0, 5.0, 9.0]
    everything = [np.mean(sample) for sample in itertools.product(values, repeat=4)]
    estimate = bootstrap(values, seed=3, resamples=20_000)
    exact_low, exact_high = np.quantile(everything, [0.025, 0.975])
    assert estimate.low == pytest.approx(exact_low, abs=0.3) and estimate.high == pytest.approx(exact_high, abs=0.3)
    assert estimate.error == pytest.approx(np.std(everything), rel=0.03)
    assert estimate == bootstrap(values, seed=3, resamples=20_000)
    assert estimate.error != bootstrap(values, seed=4, resamples=20_000).error


def test_bootstrap_takes_any_statistic_and_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(50.0)
    whole = bootstrap(values, np.median, resamples=300)
    monkeypatch.setattr("bottega.evaluate.statistics.BLOCK_DRAWS", 50 * 7)
    assert bootstrap(values, np.median, resamples=300) == whole


def test_paired_difference_sees_what_unpaired_noise_hides() -> None:
    generator = np.random.default_rng(0)
    base = generator.standard_normal(300) * 10
    estimate = paired_difference(base + 0.1 + 0.01 * generator.standard_normal(300), base)
    assert estimate.value == pytest.approx(0.1, abs=0.01)
    assert estimate.low is not None and estimate.low > 0.09


def test_mcnemar_counts_and_exact_p() -> None:
    first = [True] * 9 + [False] * 1 + [True] * 50
    second = [False] * 9 + [True] * 1 + [True] * 50
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second) == (9, 1)
    assert result.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar([True, False], [True, False]).p_value == 1.0
    many = mcnemar([True] * 3000 + [False] * 2900, [False] * 3000 + [True] * 2900)
    assert 0.15 < many.p_value < 0.25
