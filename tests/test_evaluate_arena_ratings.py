"""Elo and Bradley–Terry against other implementations, known strengths, and data that have no finite answer."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from arena_votes import Silent, battles, votes_of
from bottega.core.errors import UserError
from bottega.evaluate.arena.battles import Battles, battles_of, connected_groups, rated_models
from bottega.evaluate.arena.bradley_terry import (
    POINTS,
    bootstrap_strengths,
    bound_of_sweep,
    expected_score,
    extended_interval,
    fit_strengths,
    level_to,
)
from bottega.evaluate.arena.elo import bootstrap_elo, elo_ratings
from bottega.evaluate.arena.ratings import rate
from bottega.evaluate.arena.style import RIDGE, Styled, bootstrap_styled, fit_styled, style_counts
from bottega.evaluate.arena.votes import Vote

TRUE = (150.0, 80.0, 40.0, 0.0, -70.0, -200.0)


def design(found: Battles) -> np.ndarray:
    rows = np.zeros((len(found), len(found.models)))
    rows[np.arange(len(found)), found.first] += 1
    rows[np.arange(len(found)), found.second] -= 1
    return rows


def matrix(**wins: int) -> np.ndarray:
    """`ab=3`: model a won 3 times against b."""
    names = sorted({letter for pair in wins for letter in pair})
    found = np.zeros((len(names), len(names)))
    for (winner, loser), count in wins.items():
        found[names.index(winner), names.index(loser)] = count
    return found


def test_two_models_have_the_closed_form() -> None:
    strengths = fit_strengths(matrix(ab=30, ba=10))
    assert strengths[0] - strengths[1] == pytest.approx(math.log(3), abs=1e-12)
    assert strengths.sum() == pytest.approx(0, abs=1e-12)
    assert expected_score(400) == pytest.approx(10 / 11)


@pytest.mark.parametrize("ties", [0.0, 0.2])
def test_bradley_terry_is_logistic_regression(ties: float) -> None:
    found = battles(TRUE, 800, 3, ties)
    rows = design(found)
    # A tie is half a win and half a loss, in sklearn as in the definition.
    labels = np.repeat([1, 0], len(found))
    weights = np.concatenate([found.score, 1 - found.score])
    oracle = LogisticRegression(C=math.inf, fit_intercept=False, tol=1e-10, max_iter=10_000, solver="newton-cg")
    oracle.fit(np.vstack([rows, rows]), labels, sample_weight=weights)
    expected = oracle.coef_[0] - oracle.coef_[0].mean()
    assert fit_strengths(found.wins()) == pytest.approx(expected, abs=2e-6)


def test_many_matrices_at_once_are_each_alone() -> None:
    wins = np.stack([battles(TRUE, 30, seed).wins() for seed in range(20)])
    together = fit_strengths(wins, 2)
    assert not np.isfinite(together).all()  # some resample is hard
    for one, alone in zip(together, wins, strict=True):
        np.testing.assert_allclose(one, fit_strengths(alone, 2), atol=1e-9)


def test_lopsided_votes_converge() -> None:
    strengths = fit_strengths(matrix(ab=10**6, ba=1, bc=10**5, cb=1, ac=10**7))
    assert strengths[0] - strengths[1] > 10 and np.isfinite(strengths).all()


def test_bootstrap_is_the_seeds_and_draws_votes() -> None:
    found = battles(TRUE, 500, 0, 0.1)
    first = bootstrap_strengths(found, 0, seed=7, resamples=200)
    assert (first == bootstrap_strengths(found, 0, seed=7, resamples=200)).all()
    assert (first != bootstrap_strengths(found, 0, seed=8, resamples=200)).any()
    generator = np.random.default_rng(1)
    by_votes = []
    for _ in range(400):
        drawn = generator.integers(0, len(found), len(found))
        again = Battles(found.models, found.first[drawn], found.second[drawn], found.score[drawn])
        by_votes.append(fit_strengths(again.wins()))
    assert first.std(axis=0) == pytest.approx(np.std(by_votes, axis=0), rel=0.25)
    assert first.mean(axis=0) == pytest.approx(np.mean(by_votes, axis=0), abs=0.04)


@pytest.mark.parametrize("ties", [0.0, 0.15])
def test_true_strengths_lie_within_intervals(ties: float) -> None:
    covered, runs = np.zeros(len(TRUE)), 120
    # Ties that fall on any pair alike draw strengths together: the truth is then what a fit of endless votes gives.
    endless = battles(TRUE, 400_000, 0, ties)
    truth = np.array(TRUE) if not ties else POINTS * fit_strengths(endless.wins())
    for run in range(runs):
        found = battles(TRUE, 400, 1000 + run, ties)
        fitted = fit_strengths(found.wins(), 0)
        drawn = level_to(bootstrap_strengths(found, 0, seed=run, resamples=200), fitted, None)
        low, high = extended_interval(POINTS * drawn, 0.95)
        covered += (low <= truth) & (truth <= high)
    assert 0.90 <= covered.mean() / runs <= 0.99
    assert (covered / runs >= 0.85).all()


def test_elo_is_played_vote_by_vote() -> None:
    found = battles(TRUE, 300, 5, 0.2)
    for k in (4.0, 32.0):
        ratings = [1000.0] * len(TRUE)
        for one, other, score in zip(found.first, found.second, found.score, strict=True):
            expected = 1 / (1 + 10 ** ((ratings[other] - ratings[one]) / 400))
            ratings[one] += k * (score - expected)
            ratings[other] -= k * (score - expected)
        assert elo_ratings(found, k) == pytest.approx(ratings, abs=1e-9)


def test_elo_bootstrap_is_the_seeds_and_each_of_its_samples_is_elo() -> None:
    found = battles(TRUE, 50, 5)
    drawn = np.random.default_rng(3).integers(0, 50, size=(50, 20))
    ratings = bootstrap_elo(found, 16.0, seed=3, resamples=20)
    for sample, order in enumerate(drawn.T):
        played = Battles(found.models, found.first[order], found.second[order], found.score[order])
        assert ratings[sample] == pytest.approx(elo_ratings(played, 16.0), abs=1e-9)
    assert ratings.sum(axis=1) == pytest.approx(6000)
    long = battles(TRUE, 9000, 0)  # more votes than are drawn at once
    assert bootstrap_elo(long, 4.0, seed=0, resamples=3)[:, [0, -1]] @ [1, -1] == pytest.approx(350, abs=80)


def test_models_without_a_maximum_are_at_infinity_on_their_side() -> None:
    # d beat b and lost nothing, e lost to b and won nothing, f beat e alone: where it stands is not known.
    wins = matrix(ab=2, ba=1, bc=1, ca=1, db=3, be=1, fe=1)
    strengths = fit_strengths(wins, 0)
    assert np.isfinite(strengths[:3]).all() and strengths[3] == math.inf and strengths[4] == -math.inf
    assert math.isnan(strengths[5])
    np.testing.assert_allclose(strengths[:3], fit_strengths(wins[:3, :3]), atol=1e-12)
    assert rated_models(wins).tolist() == [True, True, True, False, False, False]
    # A single tie connects both ways.
    wins[3, 1] += 0.5
    wins[1, 3] += 0.5
    assert np.isfinite(fit_strengths(wins, 0)[3])


@pytest.mark.parametrize("seed", range(30))
def test_rated_models_are_those_that_each_beat_every_other_in_steps(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(2, 7)
    wins = np.array([[float(i != j and chance.random() < 0.25) for j in range(count)] for i in range(count)])
    closure = (wins > 0) | np.eye(count, dtype=bool)
    for _ in range(count):
        closure = closure | (closure.astype(int) @ closure.astype(int) > 0)
    classes = {tuple(np.flatnonzero(closure[i] & closure[:, i])) for i in range(count)}
    rated = tuple(np.flatnonzero(rated_models(wins)))
    assert rated in classes and len(rated) == max(map(len, classes))
    either = wins + wins.T > 0
    assert sorted(itertools.chain(*connected_groups(wins))) == list(range(count))
    for group in connected_groups(wins):
        assert not either[np.ix_(group, [other for other in range(count) if other not in group])].any()


def test_intervals_of_extended_reals() -> None:
    values = np.random.default_rng(0).normal(size=(101, 3))
    low, high = extended_interval(values, 0.95)
    np.testing.assert_allclose([low, high], np.quantile(values, [0.025, 0.975], axis=0), atol=1e-12)
    values[:4, 0], values[:4, 1], values[:2, 2] = np.inf, np.nan, np.inf
    low, high = extended_interval(values, 0.95)
    assert high[0] == np.inf and np.isfinite(low[0])
    assert (low[1], high[1]) == (-np.inf, np.inf)
    assert np.isfinite([low[2], high[2]]).all()


def test_the_bound_of_a_sweep_is_exact() -> None:
    assert expected_score(bound_of_sweep(np.zeros(10), 0.95)) ** 10 == pytest.approx(0.025)
    mixed = np.array([0.0, 100.0, -50.0])
    assert expected_score(bound_of_sweep(mixed, 0.9) - mixed).prod() == pytest.approx(0.05)


def test_style_control_is_ridge_regression_on_differences() -> None:
    found, generator = battles(TRUE, 400, 2, 0.1), np.random.default_rng(0)
    features = generator.normal(size=(len(found), 3))
    weights = generator.integers(0, 3, len(found)).astype(float)
    rows = np.hstack([design(found), features])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = rows @ parameters
        chance = 1 / (1 + np.exp(-logits))
        likelihood = weights @ (found.score * np.log(chance) + (1 - found.score) * np.log1p(-chance))
        ridge = np.where(np.arange(len(parameters)) < len(TRUE), 0, parameters)
        return -likelihood + RIDGE / 2 * ridge @ ridge, rows.T @ (weights * (chance - found.score)) + RIDGE * ridge

    oracle = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15})
    strengths, effects = fit_styled(Styled(found, features, ("length", "headers", "bold")), weights, 0)
    assert strengths == pytest.approx(oracle.x[:6] - oracle.x[:6].mean(), abs=1e-5)
    assert effects == pytest.approx(oracle.x[6:], abs=1e-5)


def test_style_is_taken_out_of_ratings() -> None:
    """Two models are equal; one writes at length, and judges like length."""
    generator, votes = np.random.default_rng(1), []
    for number in range(1500):
        long, short = int(generator.integers(200, 800)), int(generator.integers(100, 400))
        liked = generator.random() < 1 / (1 + math.exp(-2.0 * (long - short) / (long + short)))
        answers = ("x" * long, "x" * short)
        votes.append(
            Vote("long", "short", "a" if liked else "b", str(number), answer_a=answers[0], answer_b=answers[1])
        )
    found = rate(votes, bar=Silent(), style_control=True, resamples=200)
    long, short = (next(row for row in found["models"] if row["model"] == name) for name in ("long", "short"))
    before = found["style"]["without"]
    assert before["long"]["low"] > before["short"]["high"]
    assert long["low"] < 1000 < long["high"] and short["low"] < 1000 < short["high"]
    assert list(found["style"]["styles"]) == ["length"] and found["style"]["styles"]["length"]["low"] > 0


def test_swapping_sides_changes_nothing_with_style_control() -> None:
    votes = [
        Vote(
            "m0", "m1", "a" if number % 3 else "b", answer_a="# x\n" * (1 + number % 5), answer_b="- y\n" * (number % 7)
        )
        for number in range(60)
    ]
    other = {"a": "b", "b": "a"}
    swapped = [
        Vote(v.model_b, v.model_a, other[v.winner], answer_a=v.answer_b, answer_b=v.answer_a, order="ba") for v in votes
    ]  # fmt: skip
    first, second = (rate(given, bar=Silent(), style_control=True, resamples=100) for given in (votes, swapped))
    assert first["position"] == pytest.approx(second["position"])
    for left, right in zip(first["models"], second["models"], strict=True):
        assert (left["rating"], left["low"]) == pytest.approx((right["rating"], right["low"]), abs=1e-6)


def test_styled_bootstrap_without_styles_is_the_plain_one() -> None:
    found = battles(TRUE, 300, 1)
    data = Styled(found, np.zeros((300, 0)), ())
    fitted = fit_styled(data, np.ones(300), 0)
    assert fitted[0] == pytest.approx(fit_strengths(found.wins()), abs=1e-9)
    drawn, _ = bootstrap_styled(data, 0, fitted, seed=0, resamples=150, bar=Silent())
    plain = bootstrap_strengths(found, 0, seed=0, resamples=150)
    assert drawn.std(axis=0) == pytest.approx(plain.std(axis=0), rel=0.3)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("", (0, 0, 0, 0)),
        ("# One\n\n## Two\ntext #no\n#also no", (31, 2, 0, 0)),
        ("- a\n* b\n  + c\n1. d\n2) e\n-no\n3.no", (32, 0, 5, 0)),
        ("**a** and __b__ but 2 ** 3 ** x", (31, 0, 0, 2)),
        ("```\n# code\n- **x**\n```\n# head", (29, 1, 0, 0)),
        ("~~~python\n# never closed\n- x", (28, 0, 0, 0)),
    ],
)
def test_styles_are_counted_outside_of_code(answer: str, counts: tuple[int, ...]) -> None:
    assert style_counts(answer) == counts


def test_rate_orders_compares_and_counts() -> None:
    found = battles((200, 0, 0), 600, 0, 0.1)
    data = rate(votes_of(found), bar=Silent(), anchor="m1", anchor_rating=1114, resamples=300)
    rows = {row["model"]: row for row in data["models"]}
    best, next_ = data["models"][:2]
    assert best["model"] == "m0" and best["rank"] == 1 and best["over_next"]["shown"]
    assert not next_["over_next"]["shown"] and rows["m1"]["rank"] == rows["m2"]["rank"] == 2
    anchor = rows["m1"]
    assert [anchor["rating"], anchor["low"], anchor["high"], anchor["elo"]["value"]] == pytest.approx([1114] * 4)
    assert best["win_rate"]["value"] == pytest.approx(float(expected_score(best["rating"] - 1114)))
    assert best["win_rate"]["low"] < best["win_rate"]["value"] < best["win_rate"]["high"]
    assert sum(row["votes"] for row in rows.values()) == 2 * data["votes"] == 1200
    assert sum(row["ties"] for row in rows.values()) == 2 * data["ties"]
    assert sum(row["wins"] for row in rows.values()) == data["votes"] - data["ties"]
    assert [row["over_next"] is None for row in data["models"]] == [False, False, True]
    assert data == rate(votes_of(found), bar=Silent(), anchor="m1", anchor_rating=1114, resamples=300)


def test_elo_goes_by_time_where_every_vote_has_one() -> None:
    votes = votes_of(battles(TRUE, 100, 0))
    reverse = votes[::-1]
    by_time = [row["elo"]["value"] for row in rate(votes, bar=Silent(), resamples=100)["models"]]
    assert by_time == [row["elo"]["value"] for row in rate(reverse, bar=Silent(), resamples=100)["models"]]
    timeless = [Vote(vote.model_a, vote.model_b, vote.winner) for vote in reverse]
    data = rate(timeless, bar=Silent(), resamples=100)
    assert data["elo"]["order"] == "file" and by_time != [row["elo"]["value"] for row in data["models"]]


def test_a_model_that_lost_nothing_has_an_open_interval() -> None:
    votes = votes_of(battles((0, 0), 100, 0)) + [Vote("best", "m0", "a")] * 10 + [Vote("m0", "worst", "a")] * 10
    data = rate(votes, bar=Silent(), resamples=300)
    best, *_, worst = data["models"]
    assert (best["model"], best["rating"], best["high"], best["unrated"]) == ("best", None, None, "above")
    assert (worst["model"], worst["rating"], worst["low"], worst["unrated"]) == ("worst", None, None, "below")
    beaten = next(row["rating"] for row in data["models"] if row["model"] == "m0")
    assert expected_score(best["low"] - beaten) ** 10 == pytest.approx(0.025)
    assert expected_score(beaten - worst["high"]) ** 10 == pytest.approx(0.025)
    assert best["win_rate"]["value"] is None and best["win_rate"]["low"] < 1
    assert not data["models"][1]["over_next"]["shown"]
    with pytest.raises(UserError, match=r"anchor 'best' has no finite rating.*\n.*m0, m1"):
        rate(votes, bar=Silent(), anchor="best")


def test_one_vote_gives_no_number_but_a_bound() -> None:
    data = rate([Vote("a", "b", "a")], bar=Silent(), resamples=100)
    assert [row["rating"] for row in data["models"]].count(None) == 1
    assert not any(row["over_next"]["shown"] for row in data["models"] if row["over_next"])


def test_few_votes_open_the_interval_rather_than_close_it_at_some_number() -> None:
    data = rate([Vote("a", "b", "a")] * 4 + [Vote("a", "b", "b")], bar=Silent(), resamples=500)
    best = data["models"][0]  # a third of resamples have no vote for b
    assert best["rating"] == pytest.approx(1000 + 200 * math.log10(4)) and best["high"] is None
    assert not best["over_next"]["shown"]


def test_position_bias_is_told_from_strength() -> None:
    """The first answer wins three of four, whoever gave it; both orders alike, then the strong one always first."""
    generator = np.random.default_rng(0)
    fair = []
    for number in range(800):
        order, first_wins = ("ab", "ba")[number % 2], generator.random() < 0.75
        fair.append(Vote("m0", "m1", "a" if first_wins == (order == "ab") else "b", order=order))  # type: ignore[arg-type]
    position = rate(fair, bar=Silent(), resamples=100)["position"]
    assert position["low"] < 0.75 < position["high"] and position["expected"] == pytest.approx(0.5, abs=0.01)
    strong = rate([Vote("m0", "m1", "a" if number % 4 else "b") for number in range(800)], bar=Silent(), resamples=100)
    assert strong["position"]["low"] < strong["position"]["expected"] < strong["position"]["high"]


def test_unconnected_models_are_refused_by_name() -> None:
    votes = [Vote("a", "b", "a"), Vote("b", "a", "a"), Vote("c", "d", "tie"), Vote("d", "e", "tie")]
    with pytest.raises(UserError, match=r"no common scale: c, d, e; a, b") as caught:
        rate(votes, bar=Silent())
    assert "Compare a model" in caught.value.hint
    with pytest.raises(UserError, match="no vote is about the anchor 'ae'"):
        rate(votes[:2], bar=Silent(), anchor="ae")
    with pytest.raises(UserError, match="no votes to rate: none was blind"):
        rate([Vote("a", "b", "a", blind=False)], bar=Silent())
    with pytest.raises(UserError, match="style_control needs the answers, and 2 of 2 votes have none"):
        rate(votes[:2], bar=Silent(), style_control=True)


def test_models_are_numbered_by_name() -> None:
    found = battles_of([Vote("b", "a", "a"), Vote("c", "b", "tie")])
    assert found.models == ("a", "b", "c") and found.first.tolist() == [1, 2] and found.score.tolist() == [1, 0.5]
    assert found.wins().tolist() == [[0, 0, 0], [1, 0, 0.5], [0, 0.5, 0]]
