"""`bottega errors` and calibration: planted causes of mistakes are found, absent ones are not."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from sklearn.calibration import calibration_curve
from statsmodels.stats import contingency_tables, multitest, proportion

from bottega import verbs
from bottega.core.errors import UserError
from bottega.evaluate.analysis.answers import Answered
from bottega.evaluate.analysis.calibration import calibration
from bottega.evaluate.analysis.errors import positions
from bottega.evaluate.analysis.errors_view import errors_report
from bottega.evaluate.analysis.groups import groups_of, measure_groups
from bottega.evaluate.analysis.log_odds import FEWEST_ITEMS, PRIOR, log_odds, ngrams
from bottega.evaluate.analysis.words import question_parts, words
from bottega.evaluate.items import Item, items_text
from evaluation_runs import write_run

TOPICS = ("physics", "history", "law", "music")
FILLER = [f"word{number}" for number in range(400)]
RARE = "notwithstanding the foregoing"


def choice_item(
    generator: Generator, doc_id: int, wrong: bool, *, model: str = "m", task: str = "t", chosen: int | None = None,
    rare: bool = False, words_more: int = 0, margin: float | None = None, **doc: Any,
) -> Item:  # fmt: skip
    """An item of four choices of which the model takes a wrong one, or the right one."""
    gold = int(generator.integers(4)) if chosen is None or wrong else chosen
    if wrong and chosen is not None:
        gold = int(generator.choice([each for each in range(4) if each != chosen]))
    if chosen is None:
        chosen = (gold + int(generator.integers(1, 4))) % 4 if wrong else gold
    scores = generator.normal(-5, 0.3, 4)
    scores[chosen] = np.delete(scores, chosen).max() + (margin if margin is not None else generator.exponential(1.0))
    text = " ".join([*generator.choice(FILLER, 25 + words_more), *([RARE] if rare else [])])
    return Item(
        model=model, task=task, doc_id=doc_id, doc={"question": text, **doc}, prompt=f"An example.\n\nQ: {text}\nA:",
        prompt_hash=f"{task}{doc_id}", gold=gold, target=f"answer {gold}", choices=[f"answer {n}" for n in range(4)],
        loglikelihoods=scores.tolist(), greedy=[False] * 4, metrics={"acc": float(not wrong)},
    )  # fmt: skip


def write_items(folder: Path, items: list[Item]) -> str:
    """A run of these items."""
    tasks = list(dict.fromkeys(item.task for item in items))
    models = list(dict.fromkeys(item.model for item in items))
    entries = []
    for model in models:
        own = {task: [i.metrics["acc"] for i in items if (i.model, i.task) == (model, task)] for task in tasks}
        results = {task: {"acc": {"value": float(np.mean(each)), "stderr": None, "ci95": None}}
                   for task, each in own.items() if each}  # fmt: skip
        entries.append({"model": model, "results": results, "errors": {}})
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps({"models": entries}))
    (folder / "items.jsonl").write_text(items_text(items))
    return str(folder)


def shown(data: dict[str, Any]) -> set[str]:
    return {f"{row['kind']}: {row['name']}" for row in data["models"][0]["groups"] if row["shown"]}


def test_planted_causes_are_found_and_nothing_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    items = []
    for number in range(1600):
        task, topic, rare = ("t", "u")[number % 2], TOPICS[number // 2 % 4], number % 9 == 3
        chance = 0.2 + 0.35 * (topic == "law") + 0.5 * rare * (topic != "law")
        items.append(
            choice_item(generator, number // 2, generator.random() < chance, task=task, rare=rare, topic=topic,
                        coin=bool(generator.integers(2)), number=number)
        )  # fmt: skip
    run = write_items(tmp_path / "run", items)
    data = verbs.errors(runs=[run], out=str(tmp_path / "out"))
    model = data["models"][0]
    law = next(row for row in model["groups"] if (row["kind"], row["name"]) == ("column topic", "law"))
    assert model["groups"][0] == law and law["items"] == 400 and law["share"]["value"] > 0.45
    assert law["difference"] > 0.2 and law["ci95"][0] > 0.15
    names = {name for name in shown(data) if not name.startswith("column topic: ")}
    # What is rare is also longer, and so is the upper quarter of lengths; nothing else was planted.
    assert all(name.startswith("length of the prompt") for name in names)
    assert {row["kind"] for row in model["groups"]} == {
        "task", "column topic", "column coin", "length of the prompt", "margin of the choice",
        "place of the right answer",
    }  # fmt: skip
    assert model["words"][0]["words"] == RARE and model["words"][0]["z"] > 5
    typical = [row["words"] for row in model["words"] if row["shown"]]
    assert all(word in RARE for each in typical for word in each.split())
    assert not any(row["shown"] for row in model["positions"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert len(rows) == model["mistakes"] == sum(item.metrics["acc"] == 0 for item in items)
    assert {*rows[0]} == {"task", "doc_id", "prompt", "target", "choices", "said", "wrong", "tags"}
    for row in rows:
        assert row["said"]["m"] != row["target"] and row["said"]["m"] in row["choices"] and row["wrong"] == ["m"]
        assert (f"words: {RARE}" in row["tags"]["m"]) == (RARE in row["prompt"])
    assert len(errors_report(tmp_path / "out")) > 4 and "notwithstanding" in (tmp_path / "out/report.html").read_text()


def test_mistakes_by_chance_have_no_cause(tmp_path: Path) -> None:
    groups = grams = places = 0
    for seed in range(25):
        generator = np.random.default_rng([7, seed])
        items = [choice_item(generator, number, generator.random() < 0.35, task=f"t{number % 3}",
                             topic=TOPICS[generator.integers(4)]) for number in range(300)]  # fmt: skip
        model = verbs.errors(runs=[write_items(tmp_path / str(seed), items)])["models"][0]
        groups += any(row["shown"] for row in model["groups"])
        grams += any(row["shown"] for row in model["words"])
        places += any(row["shown"] for row in model["positions"])
    assert groups <= 4 and grams <= 4 and places <= 4  # of 25, with a chance of 5 % each


def test_a_place_that_is_chosen_too_often() -> None:
    generator = np.random.default_rng(1)
    biased = [choice_item(generator, n, generator.random() < 0.6, chosen=2 if n % 2 else None) for n in range(500)]
    answers = [Answered(item, item.prompt_hash, "acc", item.metrics["acc"] == 0) for item in biased]
    rows = positions(answers)
    assert [row["position"] for row in rows] == ["A", "B", "C", "D"]
    assert rows[2]["shown"] and rows[2]["difference"] > 0.15 and rows[2]["ci95"][0] > 0.1
    chosen = [int(np.argmax(item.loglikelihoods)) for item in biased]
    for place, row in enumerate(rows):
        only = [sum((a == place) > (i.gold == place) for a, i in zip(chosen, biased, strict=True)),
                sum((a == place) < (i.gold == place) for a, i in zip(chosen, biased, strict=True))]  # fmt: skip
        exact = contingency_tables.mcnemar([[0, only[0]], [only[1], 0]], exact=True).pvalue
        assert row["p_value"] == pytest.approx(float(exact)) and row["items"] == 500
    always_first = [Answered(Item(**{**vars(item), "gold": 0}), "", "acc", True) for item in biased]
    assert positions(always_first) == []  # where the right answer always stands first, the place says nothing


def test_groups_equal_statsmodels() -> None:
    generator = np.random.default_rng(2)
    items = [choice_item(generator, n, n % 3 == 0 or n % 8 == 1, topic=TOPICS[n % 4]) for n in range(240)]
    items += [choice_item(generator, n, False, task="small", topic="rare") for n in range(3)]
    answers = [Answered(item, item.prompt_hash, "acc", item.metrics["acc"] == 0) for item in items]
    wrong = np.array([each.wrong for each in answers])
    rows = measure_groups(groups_of(answers), wrong)
    tested = [row for row in rows if row["p_value"] is not None]
    assert [row["p_adjusted"] for row in tested] == pytest.approx(
        list(multitest.multipletests([row["p_value"] for row in tested], method="fdr_bh")[1])
    )
    for row in tested:
        rest = len(items) - row["items"] if row["kind"] in ("task", "column topic") else 240 - row["items"]
        if row["kind"] == "column topic":
            others = int(wrong.sum()) - row["mistakes"]
            _, p_value = proportion.proportions_ztest([row["mistakes"], others], [row["items"], rest])
            assert row["p_value"] == pytest.approx(float(p_value)) and row["rest"] == pytest.approx(others / rest)
        low, high = proportion.proportion_confint(row["mistakes"], row["items"], method="wilson")
        assert row["share"]["ci95"] == pytest.approx([low, high], abs=1e-9)
    small = [row for row in rows if row["name"] in ("small", "rare")]
    assert [(row["items"], row["p_value"], row["shown"]) for row in small] == [(3, None, False)] * 2


def test_lengths_are_quarters_of_their_own_task() -> None:
    generator = np.random.default_rng(3)
    items = [choice_item(generator, n, False, task="short", words_more=n % 40) for n in range(80)]
    items += [choice_item(generator, n, False, task="long", words_more=300 + n % 40) for n in range(80)]
    answers = [Answered(item, item.prompt_hash, "acc", False) for item in items]
    groups = [group for group in groups_of(answers) if group.kind == "length of the prompt"]
    assert [group.name.split()[0] for group in groups] and len(groups) == 4
    for group in groups:
        inside = Counter(items[place].task for place in np.flatnonzero(group.members).tolist())
        assert abs(inside["short"] - 20) <= 2 and abs(inside["long"] - 20) <= 2
    lengths = {group.name: np.mean([len(items[p].prompt) for p in np.flatnonzero(group.members)]) for group in groups}
    assert lengths["lowest quarter"] < lengths["second quarter"] < lengths["third quarter"] < lengths["highest quarter"]


def test_log_odds_are_the_papers() -> None:
    wrong = [{"a", "b"}] * 6 + [{"b"}] * 4
    right = [{"a"}] * 2 + [{"b", "c"}] * 9
    found = {gram.words: gram for gram in log_odds([(wrong, right)])}
    counts = {"a": (6, 2), "b": (10, 9), "c": (0, 9)}
    n_i, n_j = 16, 20
    for word, (y_i, y_j) in counts.items():
        prior = PRIOR * (y_i + y_j)
        alpha_0 = PRIOR * (n_i + n_j)
        one, other = (y_i + prior) / (n_i + alpha_0 - y_i - prior), (y_j + prior) / (n_j + alpha_0 - y_j - prior)
        delta, error = math.log(one) - math.log(other), math.sqrt(1 / (y_i + prior) + 1 / (y_j + prior))
        assert (found[word].log_odds, found[word].z) == pytest.approx((delta, delta / error))
        assert (found[word].wrong, found[word].right) == (y_i, y_j)
    adjusted = multitest.multipletests([2 * _tail(gram.z) for gram in found.values()], method="fdr_bh")[1]
    assert [gram.p_adjusted for gram in found.values()] == pytest.approx(list(adjusted))
    twice = {gram.words: gram for gram in log_odds([(wrong, right)] * 2)}
    assert twice["a"].log_odds == pytest.approx(found["a"].log_odds)
    assert twice["a"].z == pytest.approx(math.sqrt(2) * found["a"].z)


def _tail(z: float) -> float:
    return 0.5 * math.erfc(abs(z) / math.sqrt(2))


def test_a_word_does_not_stand_for_its_task() -> None:
    generator = np.random.default_rng(4)
    hard = [ngrams([[f"hard{k}" for k in generator.integers(0, 20, 8)]]) for _ in range(300)]
    easy = [ngrams([[f"easy{k}" for k in generator.integers(0, 20, 8)]]) for _ in range(300)]
    strata = [(hard[:200], hard[200:]), (easy[:30], easy[30:])]
    assert not any(gram.shown for gram in log_odds(strata))
    together = log_odds([(hard[:200] + easy[:30], hard[200:] + easy[30:])])
    assert sum(gram.shown for gram in together) > 10


def test_ngrams_and_the_longest_of_equals() -> None:
    assert ngrams([["a", "b", "c", "d"], ["e"]]) == {
        "a", "b", "c", "d", "e", "a b", "b c", "c d", "a b c", "b c d",
    }  # fmt: skip
    wrong, right = [ngrams([["x", "y", "z"]])] * FEWEST_ITEMS, [{"other"}] * FEWEST_ITEMS
    assert [gram.words for gram in log_odds([(wrong, right)])] == ["x y z", "other"]
    assert log_odds([(wrong, [])]) == [] and log_odds([]) == []


def test_the_question_without_what_stands_around_it() -> None:
    doc = {"id": 3, "question": "Which river crosses Paris?", "choices": {"text": ["the river Seine", "the Thames"]},
           "hint": "not in the prompt at all"}  # fmt: skip
    prompt = "Q: Which river crosses London?\nA: the Thames\n\nQ: which  river crosses Paris\nA: the river Seine; B:"
    assert question_parts(doc, prompt) == [["which", "river", "crosses", "paris"], ["the", "river", "seine"]]
    assert question_parts({"question": "2 + 2?"}, "2 + 2?") == []
    assert words("Don't  STOP—now_ (e.g. 1.5%)") == ["dont", "stopnow", "eg", "15"]
    assert words("日本語の abc") == ["日", "本", "語", "の", "abc"]


def test_two_models_and_what_they_disagree_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"one": {"arc": 0.4, "piqa": 0.5}, "two": {"arc": 0.8, "piqa": 0.5}})
    path = run / "items.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:  # ten items of the second model were asked in another way
        if (row["model"], row["task"]) == ("two", "arc") and row["doc_id"] < 10:
            row["prompt_hash"] = "another"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = verbs.errors(runs=[str(run)], out=str(tmp_path / "out"), most=5)
    apart = data["disagreements"]
    arc = apart["tasks"][0]
    right = {(row["model"], row["doc_id"]): row["metrics"]["acc"] for row in rows if row["task"] == "arc"}
    both = Counter((right["one", n], right["two", n]) for n in range(10, 200))
    assert arc == {
        "task": "arc", "items": 190, "both_right": both[1, 1], "only_first": both[1, 0], "only_second": both[0, 1],
        "both_wrong": both[0, 0], "p_value": arc["p_value"],
    }  # fmt: skip
    assert arc["p_value"] < 1e-6 and apart["not_compared"] == 20 and apart["tasks"][-1]["items"] == 390
    assert len(apart["only_second"]) == 5 and all(row["said"][1] == row["target"] for row in apart["only_second"])
    assert all(row["said"][0] == row["target"] != row["said"][1] for row in apart["only_first"])
    exported = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    split = [row for row in exported if len(row["said"]) == 2 and len(row["wrong"]) == 1]
    whole = apart["tasks"][-1]
    assert len(split) == whole["only_first"] + whole["only_second"]
    assert verbs.errors(runs=[str(run)], models=["two"])["disagreements"] is None


def test_the_surest_mistakes_come_first(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    items = [choice_item(generator, n, n % 2 == 0, margin=0.1 * n) for n in range(40)]
    found = verbs.errors(runs=[write_items(tmp_path / "run", items)], most=3)["models"][0]["confident"]
    assert [row["doc_id"] for row in found] == [38, 36, 34]
    for row in found:
        scores = np.array(items[row["doc_id"]].loglikelihoods)
        assert row["confidence"] == pytest.approx(float(np.exp(scores).max() / np.exp(scores).sum()))


def test_what_is_said_is_what_the_metric_counts() -> None:
    item = Item(
        "m", "t", 0, {}, "", "", gold=1, choices=["yes", "certainly not"], loglikelihoods=[-3.0, -6.0, -2.9, -9.0]
    )
    said = {name: Answered(item, "", name, False).said for name in ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")}
    assert said == {
        "acc": "yes", "acc_norm": "certainly not", "acc_bytes": "certainly not", "acc_mutual_info": "certainly not",
    }  # fmt: skip
    written = Item("m", "t", 0, {}, "", "", responses=["So 5."], filtered={"strict": ["[invalid]"], "loose": ["5"]})
    assert Answered(written, "", "exact_match,loose", False).said == "5"
    assert Answered(Item("m", "t", 0, {}, "", "", responses=["five"]), "", "exact_match", False).said == "five"
    scored = Answered(Item("m", "t", 0, {}, "", "", loglikelihoods=[-1.0]), "", "acc", True)
    assert scored.said is None and scored.margin is None and scored.confidence is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"runs": ["three"]}, "the runs have 3 models: a, b, c"),
        ({"runs": ["one"], "metric": "f1"}, "x has no items that are right or wrong: arc: f1 does not count"),
        ({"runs": ["none"]}, "none has no evaluation.json"),
        ({"runs": ["graded"]}, "x has no items that are right or wrong: arc: no metric counts its items"),
        ({"runs": ["damaged"]}, "items.jsonl, line 3 is no item"),
        ({"runs": ["one"], "most": 0}, "most"),
        ({"runs": ["one"], "model": "x"}, "unknown setting 'model'"),
    ],
)
def test_wrong_inputs(settings: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("one"), {"x": {"arc": 0.5}})
    write_run(Path("three"), {name: {"arc": 0.5} for name in "abc"})
    graded = write_run(Path("graded"), {"x": {"arc": 0.5}}) / "items.jsonl"
    graded.write_text(graded.read_text().replace('"acc": 1.0', '"acc": 0.7'))
    damaged = write_run(Path("damaged"), {"x": {"arc": 0.5}}) / "items.jsonl"
    lines = damaged.read_text().splitlines()
    damaged.write_text("\n".join([*lines[:2], "{", *lines[3:]]))
    with pytest.raises(UserError) as raised:
        verbs.errors(**settings)
    assert said in raised.value.message


# ------------------------------------------------------------------ calibration


def drawn_items(generator: Generator, count: int, sharpness: float) -> list[Item]:
    """Items whose answers are drawn from softmax(scores); the model says sharpness · scores."""
    scores = generator.normal(0, 1.5, (count, 4))
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    golds = (chances.cumsum(1) > generator.random((count, 1))).argmax(1)
    return [
        Item("m", "t", n, {}, "", "", gold=int(gold), choices=list("abcd"), loglikelihoods=(sharpness * row).tolist())
        for n, (gold, row) in enumerate(zip(golds, scores, strict=True))
    ]


def test_calibration_equals_scikit_learn() -> None:
    items = drawn_items(np.random.default_rng(0), 700, 1.6)
    found = calibration(items)
    assert found is not None and found["count"] == 700 == sum(each["count"] for each in found["bins"])
    scores = np.array([item.loglikelihoods for item in items])
    sure = np.exp(scores).max(1) / np.exp(scores).sum(1)
    right = scores.argmax(1) == [item.gold for item in items]
    accuracy, confidence = calibration_curve(right, sure, n_bins=10)
    assert [each["confidence"] for each in found["bins"]] == pytest.approx(confidence)
    assert [each["accuracy"] for each in found["bins"]] == pytest.approx(accuracy)
    weights = np.array([each["count"] for each in found["bins"]]) / 700
    assert found["ece"] == pytest.approx(float(weights @ np.abs(accuracy - confidence)))
    for each in found["bins"]:
        low, high = proportion.proportion_confint(
            round(each["accuracy"] * each["count"]), each["count"], method="wilson"
        )
        assert each["interval"] == pytest.approx([low, high], abs=1e-9)
    assert calibration(items) == found


def test_calibration_intervals_cover_and_overconfidence_is_seen() -> None:
    generator = np.random.default_rng(1)
    for sharpness, at_least in ((1.0, 0.93), (2.0, 0.85)):
        large = calibration(drawn_items(generator, 30_000, sharpness))
        assert large is not None
        inside = noise = 0.0
        for _ in range(40):
            found = calibration(drawn_items(generator, 400, sharpness))
            assert found is not None
            inside += found["interval"][0] <= large["ece"] <= found["interval"][1]
            noise += found["if_calibrated"] / 40
        assert inside / 40 >= at_least
        if sharpness == 1.0:
            assert large["ece"] < 0.015 and noise == pytest.approx(0.045, abs=0.01)
        else:
            assert large["ece"] == pytest.approx(0.158, abs=0.01) and large["interval"][0] > 0.15


def test_calibration_of_what_chooses_nothing() -> None:
    assert calibration([]) is None
    written = Item("m", "t", 0, {}, "", "", responses=["x"])
    one_choice = Item("m", "t", 0, {}, "", "", gold=0, choices=["a"], loglikelihoods=[-1.0])
    broken = Item("m", "t", 0, {}, "", "", gold=0, choices=["a", "b"], loglikelihoods=[math.nan, -1.0])
    assert calibration([written, one_choice, broken]) is None
    several = Item("m", "t", 0, {}, "", "", gold=[1, 2], choices=list("abc"), loglikelihoods=[-9.0, -1.0, -math.inf])
    found = calibration([several])
    assert found is not None and found["accuracy"] == 1.0 and found["bins"][0]["low"] == 0.9


def test_a_column_that_only_says_which_choice_is_right_is_no_group() -> None:
    golds = [0, 1, 2, 3] * 5
    columns = {
        "from 0": lambda n: golds[n], "from 1": lambda n: str(golds[n] + 1), "letter": lambda n: "ABCD"[golds[n]],
        "topic": lambda n: n % 3, "nearly": lambda n: golds[n] if n else 3,
    }  # fmt: skip
    items = [
        Item("m", "t", n, {name: of(n) for name, of in columns.items()}, "", "", gold=golds[n], choices=list("wxyz"))
        for n in range(20)
    ]
    kinds = {group.kind for group in groups_of([Answered(item, "", "acc", False) for item in items])}
    assert kinds == {"column topic", "column nearly", "place of the right answer"}
