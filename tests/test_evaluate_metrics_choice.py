"""Metrics of multiple choice and of matched text are those of lm-evaluation-harness's own task class."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest

from bottega.core.errors import UserError
from bottega.evaluate.metrics.choice import choice_metrics
from bottega.evaluate.metrics.matching import TEXT_METRICS, score_text

pytest.importorskip("lm_eval")
datasets = pytest.importorskip("datasets")
from lm_eval.api.task import ConfigurableTask  # noqa: E402

CHOICE = ["acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1", "mcc", "brier_score", "likelihood"]
WORDS = ["été", "a", "the answer", "Straße", "日本語", "42", "no, never", "Да"]


def their_task(documents: list[dict[str, Any]], **config: Any) -> ConfigurableTask:
    rows = datasets.Dataset.from_list(documents)
    settings = {"task": "t", "test_split": "test", "doc_to_text": "{{question}}", **config}
    return ConfigurableTask(config={**settings, "custom_dataset": lambda **_: {"test": rows}})


def flat(value: Any) -> list[float]:
    return [number for each in value for number in flat(each)] if np.iterable(value) else [float(value)]


@pytest.mark.parametrize("several", [False, True])
def test_choice_metrics_are_lm_evaluation_harness_s(several: bool) -> None:
    source = random.Random(several)
    documents = []
    for number in range(60):
        choices = [
            f"{source.choice(WORDS)} {source.choice(WORDS) * source.randrange(3)}" for _ in range(2 + number % 4)
        ]
        gold = source.sample(range(len(choices)), 1 + number % 2) if several else source.randrange(len(choices))
        documents.append({"question": "?", "choices": choices, "gold": gold})
    wanted = ["acc", "acc_norm", "acc_bytes", "exact_match"] if several else CHOICE
    task = their_task(
        documents,
        output_type="multiple_choice",
        doc_to_choice="choices",
        doc_to_target="gold",
        metric_list=[{"metric": name} for name in wanted],
    )
    for doc in documents:
        count = len(doc["choices"])
        # Few values, so that choices tie.
        scores = [-float(source.randint(1, 4)) for _ in range(2 * count)]
        greedy = [source.random() < 0.3 for _ in scores]
        results = list(zip(scores, greedy, strict=True))
        theirs = task.process_results(doc, results[:count] if several else results)
        unconditional = None if several else scores[count:]
        ours = choice_metrics(
            scores[:count], greedy[:count], doc["choices"], doc["gold"], unconditional=unconditional, wanted=wanted
        )
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert flat(ours[name]) == pytest.approx(flat(value), rel=1e-12)


def test_of_equal_choices_the_first_wins_and_any_right_one_counts() -> None:
    first = {"greedy": [False] * 3, "choices": ["aa", "bb", "cc"], "wanted": ["acc", "acc_norm"]}
    assert choice_metrics([-2.0, -1.0, -1.0], gold=1, **first) == {"acc": 1.0, "acc_norm": 1.0}
    assert choice_metrics([-2.0, -1.0, -1.0], gold=2, **first) == {"acc": 0.0, "acc_norm": 0.0}
    assert choice_metrics([-2.0, -1.0, -1.0], gold=[0, 1], **first) == {"acc": 1.0, "acc_norm": 1.0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"wanted": ["accuracy"]}, "not a metric of multiple choice"),
        ({"gold": 2}, r"\[2\] is none of the 2 choices"),
        ({"gold": -1}, r"\[-1\] is none of the 2 choices"),
        ({"gold": []}, "none of the 2 choices"),
        ({"gold": [0, 1], "wanted": ["brier_score"]}, "needs one right choice, and there are 2"),
        ({"choices": ["a", ""], "wanted": ["acc_norm"]}, "acc_norm divides by the length of a choice"),
    ],
)
def test_a_choice_item_that_has_no_value_is_refused(changed: dict[str, Any], message: str) -> None:
    item = {"choices": ["a", "b"], "gold": 0, "wanted": ["acc"], **changed}
    with pytest.raises(UserError, match=message):
        choice_metrics([-1.0, -2.0], [True, False], **item)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"ignore_case": True},
    {"ignore_punctuation": True},
    {"ignore_numbers": True, "ignore_case": False},
    {"regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"], "ignore_case": True},
    {"regexes_to_ignore": [r"\s+"], "ignore_punctuation": True, "ignore_numbers": True, "ignore_case": True},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("several", [False, True])
def test_exact_match_is_lm_evaluation_harness_s(options: dict[str, Any], several: bool) -> None:
    answers = ["1,000", "$1000", "Yes.", "yes", "so\n#### 1000.", "ÉTÉ", "été", "a 1", "A", "", " yes", "x—y", "x y"]
    documents = [
        {"question": "?", "gold": [gold, other] if several else gold} for gold in answers for other in answers[::5]
    ]
    task = their_task(
        documents,
        output_type="generate_until",
        doc_to_target="gold",
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, **options}],
    )
    values = set()
    for doc in documents:
        references = doc["gold"] if several else [doc["gold"]]
        for answer in answers:
            ours = score_text("exact_match", answer, references, options)
            assert ours == task.process_results(doc, [answer])["exact_match"], (answer, references)
            values.add(ours)
    assert values == {0.0, 1.0}


def test_contains_em_and_f1() -> None:
    assert score_text("contains", "It is PARIS.", ["Rome", "Paris"], {"ignore_case": True}) == 1.0
    assert score_text("contains", "It is PARIS.", ["Rome", "Paris"], {}) == 0.0
    assert score_text("em", "The  Paris!", ["Rome", "paris"], {}) == 1.0
    # SQuAD: 2 common words of 3 and of 2, without the article.
    assert score_text("f1", "the big red car", ["no", "red car"], {}) == pytest.approx(2 * 2 / (3 + 2))


@pytest.mark.parametrize(
    ("metric", "references", "options", "message"),
    [
        ("exactmatch", ["a"], {}, "not a metric of generated text"),
        ("exact_match", ["a"], {"ignorecase": True}, "has no option 'ignorecase'"),
        ("bleu", ["a"], {"ignore_case": True}, "has no option"),
        ("exact_match", ["a"], {"regexes_to_ignore": ["("]}, r"'\(' is not a pattern"),
        ("exact_match", ["a"], {"regexes_to_ignore": ","}, "must be a list"),
        ("f1", [], {}, "needs a reference"),
    ],
)
def test_wrong_metrics_and_options_are_refused(
    metric: str, references: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        score_text(metric, "a", references, options)


def test_an_unknown_metric_names_the_known() -> None:
    with pytest.raises(UserError) as caught:
        score_text("zzzz", "a", ["a"], {})
    assert set(TEXT_METRICS) <= set(re.findall(r"[\w+]+", caught.value.hint))
