"""`bottega compare`: planted differences are found, absent ones are not; statsmodels is the oracle of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats import contingency_tables, multitest, proportion

from bottega import verbs
from bottega.core.errors import UserError
from bottega.evaluate.analysis import significance
from bottega.evaluate.analysis.compare_view import comparison_report, verdict_text
from bottega.evaluate.statistics import paired_difference, ratio_interval
from evaluation_runs import write_perplexities, write_run

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
TASKS = {"arc": 0.5, "piqa": 0.6, "boolq": 0.55}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    weak = write_run(tmp_path / "weak", {"weak": TASKS})
    strong = write_run(tmp_path / "strong", {"strong": {**TASKS, "arc": 0.8}})
    return str(weak), str(strong)


def edit_items(run: str, change: Any) -> None:
    path = Path(run) / "items.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in rows if change(row)))


def edit_figures(run: str, change: Any) -> None:
    path = Path(run) / "evaluation.json"
    data = json.loads(path.read_text())
    change(data["models"][0])
    path.write_text(json.dumps(data))


@settings(max_examples=40, deadline=None)
@given(P_VALUES)
def test_corrections_equal_statsmodels(p_values: list[float]) -> None:
    for ours, name in ((significance.holm, "holm"), (significance.benjamini_hochberg, "fdr_bh")):
        assert ours(p_values) == pytest.approx(multitest.multipletests(p_values, method=name)[1], abs=1e-12)


def test_corrections_of_nothing() -> None:
    assert significance.holm([]) == significance.benjamini_hochberg([]) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_two_proportions_equal_statsmodels(n: int, m: int, p: float, q: float) -> None:
    first, second = (round(p * n), n), (round(q * m), m)
    found = significance.proportions_difference(first, second)
    low, high = proportion.confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    if 0 < first[0] + second[0] < n + m:
        _, p_value = proportion.proportions_ztest([first[0], second[0]], [n, m])
        assert significance.proportions_p(first, second) == pytest.approx(float(p_value), abs=1e-9)


def test_sign_flips_of_yes_and_no_are_mcnemars_test() -> None:
    generator = np.random.default_rng(0)
    for only_first, only_second in ((3, 9), (10, 12), (0, 6), (0, 0), (25, 8)):
        differences = np.r_[np.ones(only_first), -np.ones(only_second), np.zeros(50)]
        generator.shuffle(differences)
        table = [[20, only_first], [only_second, 30]]
        exact = float(contingency_tables.mcnemar(table, exact=True).pvalue)
        found = significance.sign_flip([differences], resamples=100_000)
        assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 100_000) + 2e-5)


def test_sign_flips_of_numbers_equal_all_flips() -> None:
    differences = np.array([0.3, -0.1, 0.8, 0.25, 0.4, -0.05, 0.9, 0.11])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    exact = float((np.abs(signs.T @ differences) >= abs(differences.sum()) - 1e-12).mean())
    assert significance.sign_flip([differences], resamples=200_000) == pytest.approx(exact, abs=0.003)


def test_the_bootstrap_of_counts_is_the_bootstrap_of_items() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.random(150), generator.random(150)
    ours, plain = significance.resampled_mean([first - second]), paired_difference(first, second)
    assert ours.value == pytest.approx(plain.value) and ours.error == pytest.approx(plain.error or 0, rel=0.04)
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=0.004)


def test_strata_have_the_same_weight_whatever_their_size() -> None:
    small, large = np.r_[np.ones(30), np.zeros(10)], np.zeros(4000)
    found = significance.resampled_mean([small, large])
    assert found.value == pytest.approx(0.375) and found.error == pytest.approx(small.std() / np.sqrt(40) / 2, rel=0.05)
    assert significance.resampled_mean([[1.0], large]).low is None


def test_what_is_detectable_is_detected_in_four_of_five_samples() -> None:
    generator, count, shown = np.random.default_rng(2), 500, 0
    # Of 500 items the models differ in a fifth; 5.6 points apart is then what can be seen.
    pilot = generator.choice([-1.0, 0.0, 1.0], 200_000, p=[0.1, 0.8, 0.1])[: count * 400]
    effect = significance.detectable([pilot])
    assert effect is not None
    effect *= np.sqrt(len(pilot) / count)
    for _ in range(400):
        drawn = generator.choice([-1, 0, 1], count, p=[0.1 - effect / 2, 0.8, 0.1 + effect / 2])
        one, other = int((drawn == 1).sum()), int((drawn == -1).sum())
        shown += float(contingency_tables.mcnemar([[0, one], [other, 0]], exact=True).pvalue) < 0.05
    assert 0.70 <= shown / 400 <= 0.86


def test_models_that_never_differ_could_have_differed_by_six_items_unseen() -> None:
    assert significance.fewest_different() == 6
    assert significance.detectable([np.zeros(100)]) == pytest.approx(0.06)
    assert significance.detectable([np.zeros(100)], tests=10) == pytest.approx(0.09)
    assert significance.detectable([[0.25] * 10]) is None and significance.detectable([[1.0]]) is None


def test_a_planted_difference_is_found_where_it_is(tmp_path: Path, runs: tuple[str, str]) -> None:
    data = verbs.compare(runs=list(runs), out=str(tmp_path / "out"))
    rows = {row["task"]: row for row in data["tasks"]}
    assert [row["verdict"] for row in data["tasks"]] == ["B is better", "no difference shown", "no difference shown"]
    assert data["overall"]["verdict"] == "B is better" and data["overall"]["items"] == 600
    assert rows["arc"]["difference"] == pytest.approx(-0.3, abs=0.07) and rows["arc"]["ci95"][1] < 0
    for row in rows.values():
        table = [[0, row["only_first"]], [row["only_second"], 0]]
        assert row["p_value"] == pytest.approx(float(contingency_tables.mcnemar(table, exact=True).pvalue))
        assert row["difference"] == pytest.approx((row["only_first"] - row["only_second"]) / 200)
        assert 0 < row["detectable"] < 0.12
    corrected = multitest.multipletests([row["p_value"] for row in data["tasks"]], method="holm")[1]
    assert [row["p_holm"] for row in data["tasks"]] == pytest.approx(list(corrected))
    assert data["overall"]["difference"] == pytest.approx(np.mean([row["difference"] for row in data["tasks"]]))
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == data
    page = (tmp_path / "out" / "report.html").read_text()
    assert "arc (strong is better)" in page and "no difference shown" in page and "Detectable" in page
    assert len(comparison_report(tmp_path / "out")) == 4


def test_the_other_way_round_everything_is_the_other_way_round(runs: tuple[str, str]) -> None:
    one, other = verbs.compare(runs=list(runs)), verbs.compare(runs=list(reversed(runs)))
    assert other["overall"]["difference"] == -one["overall"]["difference"]
    assert other["overall"]["verdict"] == "A is better"
    assert [row["p_value"] for row in one["tasks"]] == [row["p_value"] for row in other["tasks"]]
    assert verbs.compare(runs=list(runs)) == one and verbs.compare(runs=list(runs), seed=1) != one


def test_equal_models_are_seldom_told_apart(tmp_path: Path) -> None:
    wrongly = overall = 0
    for seed in range(60):
        run = write_run(tmp_path / str(seed), {"one": TASKS, "two": TASKS}, items=100, seed=seed)
        data = verbs.compare(runs=[str(run)])
        wrongly += any(row["shown"] for row in data["tasks"])
        overall += data["overall"]["shown"]
    assert wrongly <= 6 and overall <= 8  # of 60, with a chance of 5 % each: over these with a chance under 2 %


def test_items_that_were_asked_otherwise_are_counted_and_left_out(runs: tuple[str, str]) -> None:
    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["task"] == "piqa" or (row["task"] == "arc" and row["doc_id"] < 20):
            return {**row, "prompt_hash": "another"}
        if row["task"] == "arc" and row["doc_id"] < 50:
            return {**row, "gold": 3 - row["gold"]}
        return None if row["task"] == "arc" and row["doc_id"] >= 190 else row

    edit_items(runs[1], change)
    edit_figures(runs[1], lambda model: model["results"]["arc"]["acc"].update(value=mean_of(runs[1], "arc")))
    data = verbs.compare(runs=list(runs))
    arc = data["tasks"][0]
    assert arc["items"] == 140 and arc["task"] == "arc"
    assert arc["refused"] == {"asked differently": 20, "another right answer": 30, "asked of one model only": 10}
    assert data["not_compared"] == {"piqa": "asked differently: 200"}
    assert [row["task"] for row in data["tasks"]] == ["arc", "boolq"]
    edit_items(runs[1], lambda row: {**row, "prompt_hash": "another"})
    with pytest.raises(UserError, match="no items in common: arc: asked differently: 190"):
        verbs.compare(runs=list(runs))


def mean_of(run: str, task: str) -> float:
    rows = [json.loads(line) for line in (Path(run) / "items.jsonl").read_text().splitlines()]
    return float(np.mean([row["metrics"]["acc"] for row in rows if row["task"] == task]))


def test_of_errors_fewer_is_better_and_numbers_are_tested_by_sign_flips(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    run = str(write_run(tmp_path / "run", {"good": {"mt": 0.5}, "bad": {"mt": 0.5}}, metric="ter"))
    values = {"good": generator.gamma(4, 10, 200)}
    values["bad"] = values["good"] + generator.normal(6, 20, 200)
    edit_items(run, lambda row: {**row, "metrics": {"ter": values[row["model"]][row["doc_id"]]}})
    path = Path(run) / "evaluation.json"
    data = json.loads(path.read_text())
    for model in data["models"]:
        value = float(values[model["model"]].mean())
        model["results"]["mt"]["ter"] = {"value": value, "stderr": 1.0, "ci95": [value - 2, value + 2]}
        model["tasks"]["mt"]["higher_is_better"] = {"ter": False}
    path.write_text(json.dumps(data))
    found = verbs.compare(runs=[run])
    row = found["tasks"][0]
    assert row["difference"] < 0 and row["verdict"] == "A is better" and row["test"] == "sign flips"
    assert row["only_first"] is None and not row["is_share"] and found["overall"] is None
    assert verdict_text(found).startswith("mt: good is better, -")


def test_a_metric_that_is_no_mean_of_its_items_is_not_compared(runs: tuple[str, str]) -> None:
    for run in runs:
        edit_figures(run, lambda model: model["results"]["arc"]["acc"].update(value=0.987))
        edit_items(run, lambda row: {**row, "metrics": {**row["metrics"], "acc_norm": 1.0}})
        edit_figures(run, lambda model: model["results"]["piqa"].update(acc_norm={"value": 1.0}))
    data = verbs.compare(runs=list(runs))
    assert data["not_compared"] == {"arc": "no metric of it is the mean of its items'"}
    assert [row["metric"] for row in data["tasks"]] == ["acc", "acc"]
    named = verbs.compare(runs=list(runs), metric="acc_norm")
    assert [row["task"] for row in named["tasks"]] == ["piqa"] and named["tasks"][0]["only_first"] == 0
    assert named["not_compared"]["boolq"] == "acc_norm is not counted item by item (but acc)"


def test_what_failed_or_was_not_asked_is_named(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"a": TASKS}, errors={"a": {"gsm8k": "no split"}})
    second = write_run(tmp_path / "b", {"b": {"arc": 0.6, "gsm8k": 0.1, "piqa": 0.6}})
    data = verbs.compare(runs=[str(first), str(second)])
    assert data["not_compared"] == {"gsm8k": "failed for a: no split", "boolq": "b was not asked"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"runs": []}, "at least 1 item"),
        ({"runs": ["a", "b", "c"]}, "at most 2 items"),
        ({"runs": ["none"]}, "none has no evaluation.json"),
        ({"runs": ["a", "a"]}, "a run is given twice"),
        ({"runs": ["a"]}, "there is one model, one, to compare"),
        ({"runs": ["a", "c"]}, "the runs have 4 models: one, two, three, four"),
        ({"runs": ["a", "c"], "models": ["one", "tow"]}, "models: 'tow' is in no run"),
        ({"runs": ["a", "c"], "models": ["one", "one"]}, "models: one is given twice"),
        ({"runs": ["a", "c"], "models": ["one", "two", "three"]}, "at most 2 items"),
        ({"runs": ["a", "a2"], "models": ["one", "one"]}, "given twice"),
        ({"runs": ["a", "a2"], "models": ["one"]}, "models: 'one' is in both runs"),
        ({"runs": ["a", "b"], "metric": "accc"}, "arc: accc is not counted item by item (but acc)"),
        ({"runs": ["empty"]}, "no tasks were measured in it"),
    ],
)
def test_wrong_inputs(settings: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("a"), {"one": {"arc": 0.5}})
    write_run(Path("a2"), {"one": {"arc": 0.5}})
    write_run(Path("b"), {"two": {"arc": 0.5}})
    write_run(Path("c"), {name: {"arc": 0.5} for name in ("two", "three", "four")})
    Path("empty").mkdir()
    Path("empty/evaluation.json").write_text("{}")
    with pytest.raises(UserError) as raised:
        verbs.compare(**settings)
    assert said in raised.value.message


def test_analyses_import_no_torch() -> None:
    code = "import sys; from bottega.evaluate.analysis import calibration, verb; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_perplexities_are_compared_and_eight_of_eight_is_better(tmp_path: Path) -> None:
    texts = ["x" * (30 * place + 50) for place in range(8)]
    weak = [-2.0 * len(text) for text in texts]
    strong = [value + 0.1 * len(text) + place % 3 for place, (value, text) in enumerate(zip(weak, texts, strict=True))]
    expected = ratio_interval(np.subtract(weak, strong), [len(text) for text in texts])
    run = write_perplexities(tmp_path / "run", {"strong": strong, "weak": weak}, texts, metric="word_perplexity")
    data = verbs.compare(runs=[str(run)])
    (row,) = data["tasks"]
    assert data["not_compared"] == {} and row["verdict"] == "A is better" and row["p_value"] == 2 / 256
    assert row["difference"] == pytest.approx(expected.value)
    assert row["ci95"] == pytest.approx([expected.low, expected.high]) and row["is_ratio"]
    assert row["first"] / row["second"] == pytest.approx(np.exp(row["difference"]))
    assert row["detectable"] == pytest.approx((1.959964 + 0.841621) * (expected.error or 0), rel=1e-5)
    assert verdict_text(data).startswith(f"wiki: strong is better, ×{np.exp(row['difference']):.4g} [×")
    # Of fewer documents than either was asked, the rest is left out and counted.
    edit_items(str(run), lambda row: row if row["model"] == "weak" else {**row, "prompt_hash": row["prompt_hash"] * 2}
               if row["doc_id"] == 7 else row)  # fmt: skip
    (row,) = verbs.compare(runs=[str(run)])["tasks"]
    assert row["items"] == 7 and row["refused"] == {"asked differently": 1}
    part = ratio_interval(np.subtract(weak, strong)[:7], [len(text) for text in texts[:7]])
    assert row["difference"] == pytest.approx(part.value)


def test_yes_no_without_any_difference_has_an_interval(tmp_path: Path) -> None:
    run = str(
        write_run(tmp_path / "run", {"one": {"arc": 0.5, "piqa": 0.5}, "two": {"arc": 0.5, "piqa": 0.5}}, items=32)
    )
    edit_items(run, lambda row: {**row, "metrics": {"acc": 0.0}})
    path = Path(run) / "evaluation.json"
    data = json.loads(path.read_text())
    for model in data["models"]:
        for figures in model["results"].values():
            figures["acc"]["value"] = 0.0
    path.write_text(json.dumps(data))
    found = verbs.compare(runs=[run])
    half = 1.959964 / 34
    assert [row["ci95"] for row in found["tasks"]] == [pytest.approx([-half, half], abs=1e-6)] * 2
    assert found["overall"]["ci95"] == pytest.approx([-half / 2**0.5, half / 2**0.5], abs=1e-6)
    assert found["overall"]["verdict"] == "no difference shown" and found["overall"]["p_value"] == 1


def test_of_few_differences_the_p_of_sign_flips_is_exact() -> None:
    assert significance.sign_flip([[0.3, 0.1, 0.7, 0.2, 0.5, 0.4, 0.9, 0.6]]) == 2 / 256
    assert significance.sign_flip([[1.0, -1.0, 1.0, 1.0, 0.0]]) == 10 / 16
    assert significance.sign_flip([np.zeros(9)]) == 1.0
