"""The functions that task files name: against lm-evaluation-harness's own, brute force, and programs that run."""

from __future__ import annotations

import importlib
import itertools
import math
import random
import re
import string
import sys
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import datasets
import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import BottegaError, UserError
from bottega.core.sandbox import SandboxResult
from bottega.evaluate.tasks import bigbench, code_tasks, multiple_choice, squad, wikitext
from bottega.evaluate.tasks.functions import agg_inst_level_acc, known_function

TEXTS = st.text(st.sampled_from("aB .,:;!?'\"@-=N()[]{}\n°5%é"), max_size=60)


def theirs(name: str) -> Any:
    """A module of lm-evaluation-harness's task folder."""
    return importlib.import_module(f"lm_eval.tasks.{name}")


# ------------------------------------------------------------------ by name


@pytest.mark.parametrize(
    ("task", "dataset", "reference", "name"),
    [
        ("hellaswag", "Rowan/hellaswag", "utils.process_docs", "hellaswag_process_docs"),
        ("hellaswag", "json", "utils.process_docs", "hellaswag_process_docs"),
        ("hellaswag_own", "", "utils.process_docs", "hellaswag_process_docs"),
        ("truthfulqa_mc2", "truthful_qa", "utils.process_results_mc2", "truthfulqa_process_results_mc2"),
        ("humaneval_64", "openai/openai_humaneval", "utils.pass_at_k", "pass_at_k"),
        ("leaderboard_gpqa_main", "Idavidrein/gpqa", "utils.process_docs", "leaderboard_gpqa_process_docs"),
        # Another task over the same data, or the same task over other data, has functions of its own.
        ("gpqa_main_zeroshot", "Idavidrein/gpqa", "utils.process_docs", None),
        ("hellaswag_ar", "alexandrainst/m_hellaswag", "utils.process_docs", None),
        ("humaneval_single_line_infilling", "loubnabnl/humaneval_infilling", "utils.build_predictions", None),
        ("my_hellaswag", "Rowan/hellaswag", "utils.process_docs", None),
        ("hellaswag", "Rowan/hellaswag", "utils.process_results", None),
    ],
)
def test_functions_are_known_by_task_and_data(task: str, dataset: str, reference: str, name: str | None) -> None:
    found = known_function(task, dataset, reference)
    assert (None if found is None else found.__name__) == name


# ------------------------------------------------------------------ multiple choice


@settings(deadline=None)
@given(st.text(st.sampled_from("ab [].tile\n"), max_size=40))
def test_markup_is_removed_as_there(text: str) -> None:
    assert multiple_choice.without_markup(text) == theirs("hellaswag.utils").preprocess(text)


def test_hellaswag_documents() -> None:
    doc = {
        "activity_label": "Fixing roof",
        "ctx_a": "A man is on a roof.",
        "ctx_b": "he [title] KNOWS  it",
        "endings": [" falls [step] down", "sings. [title] Ok", "x", "y"],
        "label": "3",
    }
    (ours,) = multiple_choice.hellaswag_process_docs([doc])
    assert ours == theirs("hellaswag.utils").process_docs(datasets.Dataset.from_list([doc]))[0]
    assert ours["query"] == "Fixing roof: A man is on a roof. He. knows it" and ours["gold"] == 3
    assert multiple_choice.hellaswag_process_docs([{**doc, "label": ""}])[0]["gold"] == -1


def test_gpqa_documents_are_shuffled_as_after_its_seed() -> None:
    docs = [
        {
            "Question": f"q{row}",
            "Correct Answer": f"right [x] {row}",
            **{f"Incorrect Answer {number}": None if row == 1 == number else f"{row} {number}" for number in (1, 2, 3)},
        }
        for row in range(6)
    ]
    ours = multiple_choice.leaderboard_gpqa_process_docs(docs)
    random.seed(0)
    assert ours == list(theirs("leaderboard.gpqa.utils").process_docs(datasets.Dataset.from_list(docs)))
    assert ours == multiple_choice.leaderboard_gpqa_process_docs(docs)
    assert all(doc[f"choice{'ABCD'.index(doc['answer'][1]) + 1}"].startswith("right") for doc in ours)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-40, 0), st.booleans()), min_size=2, max_size=6), st.data())
def test_mc2_is_the_true_answers_share(results: list[tuple[float, bool]], data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(results), max_size=len(results)))
    doc = {"mc2_targets": {"labels": labels}}
    ours = multiple_choice.truthfulqa_process_results_mc2(doc, results)["acc"]
    assert ours == pytest.approx(theirs("truthfulqa.utils").process_results_mc2(doc, results)["acc"], abs=1e-12)
    far = [(score - 5000.0, greedy) for score, greedy in results]  # all exponentials are 0
    assert multiple_choice.truthfulqa_process_results_mc2(doc, far)["acc"] == pytest.approx(ours, abs=1e-9)


def test_mc2_is_a_number_even_where_nothing_is_possible() -> None:
    doc = {"mc2_targets": {"labels": [1, 0]}}
    assert multiple_choice.truthfulqa_process_results_mc2(doc, [(-math.inf, False)] * 2) == {"acc": 0.0}


@settings(deadline=None)
@given(st.lists(st.floats(-50, -1), min_size=4, max_size=4), st.sets(st.integers(0, 3), min_size=1))
def test_agieval_counts_any_right_answer(scores: list[float], gold: set[int]) -> None:
    doc = {"gold": sorted(gold), "choices": ["(A)1", "(B)longer", "(C)é", "(D)" + "x" * 30]}
    results = [(score, False) for score in scores]
    ours = multiple_choice.agieval_process_results_mcqa(doc, results)
    assert ours == theirs("agieval.utils").process_results_mcqa(doc, results)


def test_bigbench_documents_without_choices_are_left_out() -> None:
    docs = [{"inputs": "a", "multiple_choice_targets": ["x", "y"]}, {"inputs": "b", "multiple_choice_targets": []}]
    kept = bigbench.filter_multiple_choice(docs)
    assert kept == list(theirs("bigbench.utils").filter_multiple_choice(datasets.Dataset.from_list(docs))) == docs[:1]


def test_bigbench_task_file() -> None:
    example = {"input": "What is 1 + 1?", "target_scores": {"2": 1, "3": 0, "two": 0.5}}
    ours = bigbench.process_docs([{"examples": [example, example], "task_prefix": "Add.\n"}])
    order = np.random.RandomState(42).permutation(["2", "3", "two"])
    listed = "".join(f"\n  choice: {choice}" for choice in order)
    assert ours == [
        {
            "query": f"Add.\n\nQ: What is 1 + 1?{listed}\nA: ",
            "choices": ["2", "3", "two"],
            "scores": [1, 0, 0.5],
            "gold": 0,
        }
    ]
    assert bigbench.process_results(ours[0], [(-3.0, False), (-2.0, False), (-1.0, False)]) == {
        "multiple_choice_grade": 0.5
    }
    file = {
        "examples": [example],
        "append_choices_to_input": False,
        "example_input_prefix": "",
        "example_output_prefix": " =",
    }
    assert bigbench.process_docs([file])[0]["query"] == "What is 1 + 1? ="


def test_ifeval_counts_instructions_not_documents() -> None:
    assert agg_inst_level_acc([[True, False, False], [True]]) == 0.5


# ------------------------------------------------------------------ wikitext


@settings(deadline=None)
@given(TEXTS)
def test_pages_are_detokenised_as_there(text: str) -> None:
    doc = {"page": text}
    module = theirs("wikitext.preprocess_wikitext")
    assert wikitext.wikitext_detokenizer(doc) == module.wikitext_detokenizer(doc)
    assert wikitext.process_results(doc, (-3.5,)) == module.process_results(doc, (-3.5,))


def test_units_are_counted_on_the_original_page() -> None:
    doc = {"page": " = Ä = \n about 1 @,@ 000 men"}
    assert wikitext.wikitext_detokenizer(doc).endswith("about 1,000 men")
    assert wikitext.process_results(doc, (-1.0,))["word_perplexity"] == (-1.0, 9)
    assert wikitext.process_results(doc, (-1.0,))["byte_perplexity"] == (-1.0, len(doc["page"].encode()))


# ------------------------------------------------------------------ SQuAD


@pytest.fixture
def squad_metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """SQuAD's official comparison, where lm-evaluation-harness looks for it (transformers 5 has it no more)."""
    module, parent = ModuleType("squad_metrics"), ModuleType("metrics")

    def tokens(text: str) -> list[str]:
        kept = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
        return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", kept)) if word]

    def compute_f1(gold: str, predicted: str) -> float:
        first, second = tokens(gold), tokens(predicted)
        if not first or not second:
            return int(first == second)
        same = sum((Counter(first) & Counter(second)).values())
        if not same:
            return 0
        precision, recall = same / len(second), same / len(first)
        return 2 * precision * recall / (precision + recall)

    module.compute_f1 = compute_f1  # type: ignore[attr-defined]
    module.compute_exact = lambda gold, predicted: int(tokens(gold) == tokens(predicted))  # type: ignore[attr-defined]
    parent.squad_metrics = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers.data.metrics", parent)
    monkeypatch.setitem(sys.modules, "transformers.data.metrics.squad_metrics", module)
    yield module
    for name in ("coqa.utils", "super_glue.record.util"):
        sys.modules.pop(f"lm_eval.tasks.{name}", None)


ANSWERS = ["The Eiffel Tower.", "eiffel tower", "a tower in Paris", "", "the", "Paris, Paris"]


def test_answers_are_compared_as_squad_does(squad_metrics: Any) -> None:
    for gold, predicted in itertools.product(ANSWERS, repeat=2):
        assert squad.exact(gold, predicted) == squad_metrics.compute_exact(gold, predicted)
        assert squad.f1(gold, predicted) == pytest.approx(squad_metrics.compute_f1(gold, predicted))
    assert squad.f1("the tall tower", "a tall red tower") == pytest.approx(0.8)


@pytest.mark.parametrize("response", ["YES\nQ: more", " no idea ", "", "4"])
def test_coqa(squad_metrics: Any, response: str) -> None:
    module = theirs("coqa.utils")
    for count in (1, 2, 3):
        doc = {
            "story": "A story.",
            "questions": {"input_text": [f"q{index}" for index in range(count)]},
            "answers": {"input_text": ["the four", "No", "yes"][:count]},
            "additional_answers": {"0": {"input_text": ["4", "no", "indeed"][:count]}},
        }
        assert squad.coqa_doc_to_text(doc) == module.doc_to_text(doc)
        assert squad.coqa_doc_to_target(doc) == module.doc_to_target(doc)
        assert squad.coqa_process_results(doc, [response]) == pytest.approx(module.process_results(doc, [response]))


def test_record(squad_metrics: Any) -> None:
    module = theirs("super_glue.record.util")
    doc = {
        "passage": "Text.\n@highlight\nOne",
        "query": "@placeholder won",
        "entities": ["New York", "York", "Rome", "Rome"],
        "answers": ["York", "York"],
    }
    (ours,) = squad.record_process_docs([doc])
    assert ours == dict(module.process_docs(datasets.Dataset.from_list([doc]))[0])
    for scores in itertools.permutations([-1.0, -2.0, -3.0]):
        results = [(score, False) for score in scores]
        assert squad.record_process_results(ours, results) == pytest.approx(module.process_results(ours, results))


# ------------------------------------------------------------------ programs


@pytest.mark.parametrize(
    ("n", "c", "k"), [(n, c, k) for n in range(1, 7) for c in range(n + 1) for k in range(1, n + 1)]
)
def test_pass_at_k_is_the_share_of_drawings_with_a_pass(n: int, c: int, k: int) -> None:
    drawings = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert code_tasks.unbiased_pass_at_k(n, c, k) == pytest.approx(sum(map(any, drawings)) / len(drawings))


def test_pass_at_k_needs_k_programs() -> None:
    with pytest.raises(UserError, match="pass@2 needs at least 2 responses"):
        code_tasks.pass_at_k(["assert True"], [["pass"]], k=[1, 2])


@pytest.fixture
def isolated() -> None:
    """Skip where the kernel cannot isolate programs."""
    try:
        code_tasks.require_isolation()
    except BottegaError as error:
        pytest.skip(str(error))


CHECK = "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(-1, 1) == 0\n"


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("    return a + b\n", True),
        ("    print('x' * 3_000_000)\n    return a + b\n", True),
        ("    return a + b\nif __name__ == '__main__':\n    raise SystemExit(3)\n", True),
        ("    return a * b\n", False),
        ("    return a +\n", False),
        ("    import sys; sys.exit(0)\n", False),
        ("    import os; os._exit(0)\n", False),
        ("    import numpy\n    return a + b\n", False),
        ("    open('/etc/passwd').read()\n    return a + b\n", False),
        ("    return a + b + len(input())\n", False),
    ],
)
def test_programs_pass_their_tests_or_not(body: str, right: bool) -> None:
    program = "def add(a, b):\n" + body
    assert code_tasks.pass_at_k([CHECK + "check(add)"], [[program]]) == {"pass@1": float(right)}


@pytest.mark.usefixtures("isolated")
def test_a_program_that_does_not_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_tasks, "SECONDS", 1.0)
    assert code_tasks.pass_at_1("assert f()", ["def f():\n    while True: pass"]) == 0.0


@pytest.mark.usefixtures("isolated")
def test_several_problems_and_sizes() -> None:
    good, bad = "def f(): return 1", "def f(): return 2"
    scores = code_tasks.pass_at_k(["assert f() == 1"] * 2, [[good, bad, bad, bad], [good, good, bad, bad]], k=[1, 2])
    assert scores == pytest.approx({"pass@1": (1 / 4 + 2 / 4) / 2, "pass@2": (1 / 2 + 5 / 6) / 2})


def test_no_program_runs_where_it_could_do_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def unprotected(code: str, **_: Any) -> SandboxResult:
        ran.append(code)
        return SandboxResult("", "", 0, False, False, 0.0, False, False, False, False)

    monkeypatch.setattr(code_tasks, "run_python", unprotected)
    code_tasks.require_isolation.cache_clear()
    try:
        with pytest.raises(BottegaError, match="cannot shut programs off"):
            code_tasks.pass_at_1("assert True", ["pass"])
    finally:
        code_tasks.require_isolation.cache_clear()
    assert ran == [""]


@pytest.fixture
def code_utils(monkeypatch: pytest.MonkeyPatch) -> Any:
    """lm-evaluation-harness's modules fetch a metric from the hub when imported; what is used here is not it."""

    class Fetched:
        def compute(self, **_: Any) -> None:
            return None

    monkeypatch.setattr(evaluate, "load", lambda _: Fetched())
    return lambda name: theirs(f"{name}.utils")


def test_predictions_are_cut_as_there(code_utils: Any) -> None:
    docs = [{"prompt": "def f():\n"}, {"prompt": "def g():\n"}]
    responses = [["    return 1", "    return 2\n```\nDone"], ["```x", ""]]
    for ours, name in (
        (code_tasks.humaneval_build_predictions, "build_predictions"),
        (code_tasks.humaneval_build_predictions_instruct, "build_predictions_instruct"),
    ):
        assert ours(responses, docs) == getattr(code_utils("humaneval"), name)(responses, docs)
    blocks = [
        "x = 1\n```\ntext",
        "python\nx = 1\n```",
        "x = 1",
        "```python\ny\n```\n```\nz\n```",
        "",
        "\n\ndef f():\n  pass\n```",
    ]
    assert code_tasks.mbpp_build_predictions([blocks], docs[:1]) == code_utils("mbpp").build_predictions(
        [blocks], docs[:1]
    )


def test_mbpp_examples_are_the_data_set_s(code_utils: Any) -> None:
    assert code_tasks.mbpp_list_fewshot_samples() == code_utils("mbpp").list_fewshot_samples()


@pytest.mark.usefixtures("isolated")
def test_mbpp_examples_pass_their_own_tests() -> None:
    docs = code_tasks.mbpp_list_fewshot_samples()
    assert code_tasks.pass_at_1(["\n".join(doc["test_list"]) for doc in docs], [doc["code"] for doc in docs]) == 1.0
