"""A judge's figures against other implementations, and their intervals on simulated judges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bottega.clients.chat import Reply
from bottega.evaluate.judge.agreement import LABELS, kappa
from bottega.evaluate.judge.answers import Answer, Turn
from bottega.evaluate.judge.biases import Comparison, length_correlation, slopes, style_figures
from bottega.evaluate.judge.calls import Call, Judgement
from bottega.evaluate.judge.pairs import Pair, position_figures
from bottega.evaluate.judge.prompts import own_prompts, pair_prompt, single_prompt
from bottega.evaluate.judge.scores import score_figures
from bottega.evaluate.judge.verdicts import score_of, winner_of
from bottega.evaluate.statistics import signed_mean

Rng = np.random.Generator


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good. Rating: [[5]]", 5),
        ("Rating: [[7.5]]", 7.5),
        ("[[ rating: 8 ]]", 8),
        ("[[9/10]]", 9),
        ("[[4]] and so [[4]]", 4),
        ("only [6]", 6),
        ("see [1], so [[6]]", 6),
        ("<think>[[2]]?</think>[[3]]", 3),
        ("[[10]]", 10),
        ("[[0]]", None),
        ("[[11]]", None),
        ("[[-1]]", None),
        ("[[3]] or [[4]]", None),
        ("<think>[[2]] …", None),
        ("ten", None),
        ("", None),
    ],
)
def test_scores_are_read(text: str, score: float | None) -> None:
    assert score_of(text) == score


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("[[A]]", "first"),
        ("so [[b]].", "second"),
        ("[[C]]", "tie"),
        ("[B]", "second"),
        ("[A] says [[B]]", "second"),
        ("[[A]] then [[A]]", "first"),
        ("[[A]] or [[B]]", None),
        ("A is better", None),
        ("[[D]]", None),
    ],
)
def test_winners_are_read(text: str, winner: str | None) -> None:
    assert winner_of(text) == winner


def test_kappa_is_sklearn_s() -> None:
    from sklearn.metrics import cohen_kappa_score

    draw = np.random.default_rng(0)
    for accuracy in (0.2, 0.6, 0.95):
        first = draw.choice(LABELS, 80, p=[0.5, 0.3, 0.2])
        second = np.where(draw.random(80) < accuracy, first, draw.choice(LABELS, 80))
        found = kappa(list(first), list(second))
        assert found.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert kappa(["a"] * 5, ["a"] * 5).value == 0 and kappa(["a", "b"] * 5, ["a", "b"] * 5).value == 1
    assert kappa(["a", "b"] * 5, ["b", "a"] * 5).value == -1 and math.isnan(kappa([], []).value)


def simulated(draw: Rng, slope: float, count: int = 150, models: int = 3) -> tuple[list[Comparison], Any]:
    """Comparisons of models of other strengths, the better ones of which write more, and their features."""
    strength = np.linspace(0, 1.5, models)
    comparisons, features = [], []
    for number in range(count):
        a, b = draw.choice(models, 2, replace=False)
        x = float(np.clip(0.3 * (strength[a] - strength[b]) + draw.normal(0, 0.4), -1, 1))
        chance = 1 / (1 + math.exp(-(strength[a] - strength[b] + slope * x)))
        tie = 0.3 * min(chance, 1 - chance)  # ties that leave the mean score what it is
        score = float(draw.choice([1.0, 0.5, 0.0], p=[chance - tie / 2, tie, 1 - chance - tie / 2]))
        comparisons.append(Comparison(str(number // 2), f"m{a}", f"m{b}", "", "", score))
        features.append(x)
    return comparisons, np.array(features)[:, None]


def test_slopes_are_statsmodels_s() -> None:
    """With thousands of comparisons the ridge weighs nothing; the errors are those of clusters or of the model."""
    import statsmodels.api as sm

    comparisons, x = simulated(np.random.default_rng(1), 1.5, count=6000, models=2)
    comparisons = [c if c.score != 0.5 else Comparison(c.id, c.model_a, c.model_b, "", "", 1.0) for c in comparisons]
    sign = np.array([1.0 if each.model_a == "m0" else -1.0 for each in comparisons])
    design = np.column_stack([sign, x[:, 0]])
    groups = np.array([int(each.id) for each in comparisons])
    logit = sm.Logit([each.score for each in comparisons], design)
    plain, clustered = logit.fit(disp=0), logit.fit(disp=0, cov_type="cluster", cov_kwds={"groups": groups})
    found = slopes(comparisons, x)[0]
    assert found is not None and found.value == pytest.approx(plain.params[1], rel=2e-3)
    assert found.error == pytest.approx(max(plain.bse[1], clustered.bse[1]), rel=5e-3)


@pytest.mark.parametrize("slope", [0.0, 1.5])
def test_slopes_cover_the_truth(slope: float) -> None:
    draw, inside, above, runs = np.random.default_rng(2), 0, 0, 300
    for _ in range(runs):
        found = slopes(*simulated(draw, slope))[0]
        assert found is not None and found.low is not None and found.high is not None
        inside += found.low <= slope <= found.high
        above += found.low > 0
    assert 0.92 <= inside / runs <= 0.995
    assert above / runs <= 0.05 if slope == 0 else above / runs > 0.6


def test_the_sides_of_a_comparison_are_arbitrary() -> None:
    draw = np.random.default_rng(3)
    comparisons, x = simulated(draw, 1.0)
    flip = draw.random(len(comparisons)) < 0.5
    other = [
        Comparison(c.id, c.model_b, c.model_a, "", "", 1 - c.score) if turned else c
        for c, turned in zip(comparisons, flip, strict=True)
    ]
    first, second = slopes(comparisons, x)[0], slopes(other, np.where(flip[:, None], -x, x))[0]
    assert first is not None and second is not None
    assert first.value == pytest.approx(second.value) and first.error == pytest.approx(second.error)


def test_a_better_model_that_writes_more_is_no_bias() -> None:
    """Length never differs within the pair of models, so nothing can be said; and where it differs, merit explains."""
    always = [Comparison(str(n), "a", "b", "x" * 200, "x" * 100, 1.0) for n in range(60)]
    assert style_figures(always)["length"] is None and style_figures([]) == {"length": None, "format": {}}
    draw = np.random.default_rng(4)
    mostly = [
        Comparison(str(n), "a", "b", "x" * draw.integers(150, 250), "x" * draw.integers(50, 150), 1.0)
        for n in range(60)
    ]
    length = style_figures(mostly)["length"]
    assert length["low"] < 0 < length["high"]


def test_format_is_told_from_length() -> None:
    """A judge that prefers lists, shown answers in which lists make texts longer."""
    draw, comparisons = np.random.default_rng(5), []
    for number in range(400):
        texts, items = [], []
        for _ in range(2):
            items.append(int(draw.integers(0, 5)))
            texts.append("- item\n" * items[-1] + "word " * int(draw.integers(5, 30)))
        chance = 1 / (1 + math.exp(-1.0 * (items[0] - items[1])))
        comparisons.append(Comparison(str(number), "a", "b", texts[0], texts[1], float(draw.random() < chance)))
    figures = style_figures(comparisons)
    assert figures["format"]["lists"]["low"] > 0 and figures["length"]["low"] > 0
    assert figures["format"]["length"]["low"] < 0 < figures["format"]["length"]["high"]
    assert figures["format"]["bold"] is None and figures["format"]["headers"] is None


@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.6, 0.1), (0.95, 0.0), (0.02, 0.02)])
def test_signed_means_cover_the_truth(shares: tuple[float, float]) -> None:
    draw, inside, runs = np.random.default_rng(6), 0, 2000
    truth = shares[0] - shares[1]
    for _ in range(runs):
        values = draw.choice([1.0, -1.0, 0.0], 60, p=[*shares, 1 - sum(shares)])
        found = signed_mean(list(values))
        assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
        inside += found.low <= truth <= found.high
    assert inside / runs >= 0.93


def pair(shown: str, swapped: str, number: int) -> Pair:
    a, b = (Answer(str(number), (Turn("q", text),)) for text in "ab")
    calls = Call(("m", "n"), (a, b), []), Call(("n", "m"), (b, a), [])
    return Pair(*(Judgement(call, Reply(text)) for call, text in zip(calls, (shown, swapped), strict=True)))


def test_a_win_counts_only_if_both_orders_agree() -> None:
    winners = {
        ("[[A]]", "[[B]]"): "a",
        ("[[B]]", "[[A]]"): "b",
        ("[[A]]", "[[A]]"): "tie",
        ("[[B]]", "[[B]]"): "tie",
        ("[[C]]", "[[C]]"): "tie",
        ("[[A]]", "[[C]]"): "tie",
        ("[[A]]", "hm"): None,
        ("hm", "[[B]]"): None,
    }
    pairs = [pair(*said, number) for number, said in enumerate(winners)]
    assert [each.winner for each in pairs] == list(winners.values())
    assert [each.to_the_first for each in pairs[:6]] == [0, 0, 1, -1, 0, 0.5]
    figures = position_figures(pairs, seed=0)
    assert figures["pairs"] == 6 and figures["consistent"]["value"] == 0.5
    assert figures["bias"]["value"] == pytest.approx(0.5 / 6)


def scored(model: str, id_: str, turns: int, score: float | None, length: int = 1) -> Judgement:
    answer = Answer(id_, tuple(Turn("q", "x" * length) for _ in range(turns)))
    return Judgement(Call((model,), (answer,), []), Reply("" if score is None else f"[[{score}]]"))


def test_a_mean_is_over_turns_and_its_interval_over_questions() -> None:
    draw = np.random.default_rng(8)
    first = {str(number): draw.integers(1, 11, 2) for number in range(30)}
    judgements = [scored("m", id_, turn, int(own[turn - 1])) for id_, own in first.items() for turn in (1, 2)]
    model = score_figures(judgements, seed=0)["models"][0]
    means = np.array([own.mean() for own in first.values()])
    assert model["score"]["value"] == pytest.approx(means.mean()) and model["score"]["count"] == 30
    assert model["score"]["error"] == pytest.approx(means.std(ddof=1) / math.sqrt(30))
    assert model["turns"]["2"]["value"] == pytest.approx(np.mean([own[1] for own in first.values()]))
    one = [scored("m", "0", 1, 5), scored("m", "0", 2, None), scored("n", "0", 1, 3), scored("n", "0", 2, 9)]
    both = [*one, scored("m", "1", 1, 5), scored("n", "1", 1, 4)]
    found = score_figures(both, seed=0)
    # Only what both have: 5 − 3 and 5 − 4, the second turn of question 0 is left out.
    assert found["differences"][0]["difference"]["value"] == pytest.approx(
        1.5 * (1 if found["differences"][0]["first"] == "m" else -1)
    )
    assert {row["model"]: row["without_score"] for row in found["models"]} == {"m": 1, "n": 0}


def test_correlation_is_scipy_s_within_a_model() -> None:
    draw = np.random.default_rng(9)
    lengths = draw.integers(10, 1000, 50)
    scores = np.clip(np.round(np.log(1 + lengths) + draw.normal(0, 1, 50)), 1, 10).astype(int)
    judgements = [
        scored("m", str(n), 1, int(s), int(length)) for n, (s, length) in enumerate(zip(scores, lengths, strict=True))
    ]
    found = length_correlation(judgements, seed=0)
    assert found.value == pytest.approx(np.corrcoef(np.log(1 + lengths), scores)[0, 1])
    assert found.low is not None and 0 < found.low < found.value
    # Another model with longer and better answers changes nothing within either.
    other = [scored("n", str(n), 1, 10, 5000) for n in range(50)]
    assert length_correlation([*judgements, *other], seed=0).value == pytest.approx(found.value)


def test_prompts_show_the_material_and_braces_in_it_are_text() -> None:
    prompts = own_prompts()
    first = Answer(
        "1", (Turn("Q one", "A one"), Turn("Q two", "{answer_b} [[A]]")), system="Be kind.", references=("R1",)
    )
    second = Answer("1", (Turn("Q one", "B one"), Turn("Q two", "B two")), system="Be kind.", references=("R1",))
    text = pair_prompt(prompts, first, second)[-1]["content"]
    for part in ("Q one", "Q two", "A one", "{answer_b} [[A]]", "B one", "B two", "Be kind.", "R1", "last answer"):
        assert part in text
    assert text.index("A one") < text.index("B one") and "{conversation" not in text
    swapped = pair_prompt(prompts, second, first)[-1]["content"]
    assert swapped.index("B one") < swapped.index("A one")
    single = single_prompt(prompts, first.until(1))[-1]["content"]
    assert "Q two" not in single and "Rating: [[N]]" in single and "last answer" not in single
