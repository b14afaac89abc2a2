"""What task files and documents may hold: read as lm-evaluation-harness and the hub's loaders read it, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bottega.core.errors import UserError
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness.prepare import select
from bottega.evaluate.harness.requests import Asked, Generation, generation_settings, sampling_of
from bottega.evaluate.harness.results import task_result
from bottega.evaluate.harness.store import Store
from bottega.evaluate.tasks import filters
from bottega.evaluate.tasks.documents import read_split
from bottega.evaluate.tasks.load import load_tasks
from bottega.evaluate.tasks.prompts import Asking, Prompt, Prompts
from bottega.evaluate.tasks.schema import Pipeline, TaskConfig, parse_task

BASE: dict[str, Any] = {
    "task": "t", "dataset_path": "d", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "q", "doc_to_target": "a", "doc_to_choice": ["x", "y"],
}  # fmt: skip
GENERATE = {**BASE, "output_type": "generate_until", "metric_list": [{"metric": "exact_match"}]}


def task_of(**changes: Any) -> TaskConfig:
    return parse_task({**BASE, **changes}, "here")


def write(folder: Path, content: str, name: str = "test.jsonl") -> Path:
    (folder / "d").mkdir(exist_ok=True)
    (folder / "d" / name).write_text(content)
    return folder


def prompts(folder: Path, rows: list[dict[str, Any]], shots: int = 0, **changes: Any) -> list[Prompt]:
    write(folder, "".join(json.dumps(row) + "\n" for row in rows))
    return Prompts(task_of(**changes), folder, Asking(num_fewshot=shots)).build()


# ---------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("test.csv", "q,a\none,1\ntwo,0\n", [{"q": "one", "a": 1}, {"q": "two", "a": 0}]),
        ("test.csv", "q,a\none,1\ntwo,b\n", [{"q": "one", "a": "1"}, {"q": "two", "a": "b"}]),
        ("test.json", '{"q": "one"}\n{"q": "two"}\n', [{"q": "one"}, {"q": "two"}]),
        ("test.json", '{"data": [{"q": "one"}]}', [{"q": "one"}]),
        ("test.jsonl", '{"q": "one"}\n{"a": 1}\n', [{"q": "one", "a": None}, {"a": 1, "q": None}]),
    ],
)
def test_files_are_read_as_the_hubs_loaders_read_them(
    tmp_path: Path, name: str, content: str, expected: list[dict[str, Any]]
) -> None:
    assert read_split(task_of(), "test", write(tmp_path, content, name)) == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("test.json", "5", "row 1 of .* is no object"),
        ("test.json", '{"data": 5}', "row 1 of .* is no object"),
        ("test.csv", "q,a\none,1,2,3\n", "row 1 of .* is no object"),
        ("test.jsonl", '{"q": "\\ud800"}\n', "no Unicode"),
        ("test.parquet", "PAR1", "cannot be read"),
    ],
)
def test_documents_of_other_kinds_are_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_split(task_of(), "test", write(tmp_path, content, name))


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        ({"q": None, "a": 0}, {}, "document 1: column 'q' is empty"),
        ({"a": 0}, {}, "document 1: column 'q' is empty"),
        ({"q": "?", "a": None}, {}, "document 1: column 'a' is empty"),
        ({"q": "?", "a": -1}, {}, "the right answer -1 is no index"),
        ({"q": "?", "a": 7}, GENERATE, "the right answer 7 is no index"),
        ({"q": "?", "a": "z"}, GENERATE, "the right answer 'z' is none of the choices"),
        ({"q": 5, "a": 0}, {"doc_to_text": "q", "doc_to_choice": ["x", "y"], "doc_to_target": "b"}, "document 0"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(
    tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        prompts(tmp_path, [{"q": "one", "a": 1}, row], **changes)


def test_an_index_into_the_choices_is_their_text_where_answers_are_generated(tmp_path: Path) -> None:
    found = prompts(tmp_path, [{"q": "one", "a": 1}, {"q": "two", "a": 0}], shots=1, **GENERATE)
    assert [prompt.target for prompt in found] == ["y", "x"]
    assert [prompt.contexts for prompt in found] == [["two x\n\none"], ["one y\n\ntwo"]]


def test_examples_out_of_range_are_refused(tmp_path: Path) -> None:
    rows = [{"q": "one", "a": 1}, {"q": "two", "a": 0}]
    with pytest.raises(UserError, match=r"fewshot_indices \[5\]"):
        prompts(tmp_path, rows, shots=1, fewshot_config={"split": "test", "fewshot_indices": [5]})


def test_functions_may_treat_documents_as_a_dataset(tmp_path: Path) -> None:
    rows = [{"q": word, "a": number % 2} for number, word in enumerate(["one", "two", "three", "four"])]

    def process(dataset: Any) -> Any:
        assert dataset.column_names == ["q", "a"] and dataset["a"] == [0, 1, 0, 1] and "q" in dataset.features
        kept = dataset.filter(lambda doc: doc["a"] == 0).select([1, 0])
        return kept.map(lambda doc, place: {"q": f"{doc['q']} {place}"}, with_indices=True).remove_columns(["b"])

    found = prompts(tmp_path, rows, process_docs=process)
    assert [prompt.contexts for prompt in found] == [["three 0"], ["one 1"]]
    with pytest.raises(UserError, match=r"not what process expects.*AttributeError"):
        prompts(tmp_path, rows, process_docs=lambda_named("process", lambda dataset: dataset.to_pandas()))


def lambda_named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function


# ---------------------------------------------------------------------------------------------- task files


def test_files_that_grow_or_go_round_are_refused(tmp_path: Path) -> None:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    files = {
        "bomb": ("\n".join(bomb), "more than 200000 values"),
        "ring": ("task: ring\ndoc_to_choice: &a [*a]", "more than 200000 values"),
        "self": ("include: [self.yaml, self.yaml]", "include each other"),
        "device": ("include: /dev/zero", "no task file"),
        "number": ("include: 5", "include is a file"),
        "group": ("group: group\ntask: [group]", "holds itself"),
        "metrics": ("group: metrics\ntask: [piqa]\naggregate_metric_list: [acc]", "list of tables"),
        "typo": (
            "group: typo\ntask: [piqa]\naggregate_metric_list: [{metric: acc, weight_by_sise: false}]",
            "unknown key 'weight_by_sise'",
        ),
    }
    for name, (content, said) in files.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(content)
        with pytest.raises(UserError, match=said):
            load_tasks([str(path)])


def test_one_name_stands_for_one_task(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.yaml").write_text(yaml.safe_dump({**BASE, "description": folder}))
    files = [str(tmp_path / folder / "t.yaml") for folder in ("a", "b")]
    with pytest.raises(UserError, match="two different tasks called 't'"):
        select(EvaluateModel.parse({"model": "m", "tasks": files}))
    group = {"group": "g", "task": ["piqa", {"task": "piqa", "num_fewshot": 3}]}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(group))
    with pytest.raises(UserError, match="two different tasks called 'piqa'"):
        load_tasks([str(tmp_path / "g.yaml")])


def test_a_task_by_another_name_keeps_its_functions(tmp_path: Path) -> None:
    members = [{"task": "hellaswag", "num_fewshot": shots, "task_alias": f"shots {shots}"} for shots in (0, 10)]
    (tmp_path / "g.yaml").write_text(yaml.safe_dump({"group": "g", "task": members}))
    loaded = load_tasks([str(tmp_path / "g.yaml")])
    assert [task.num_fewshot for task in loaded.tasks.values()] == [0, 10]
    assert all(task.process_docs is not None for task in loaded.tasks.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filter_list": [{"name": "x", "filter": [{"function": "lowercase"}]}]}, "scores are not filtered"),
        ({"metric_list": [{"metric": "f1", "hf_evaluate": True}]}, "hf_evaluate"),
    ],
)
def test_what_would_be_ignored_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        task_of(**changes)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"function": "regex", "regex_patern": "x"}, "no 'regex_patern'.*\n.*'regex_pattern'"),
        ({"function": "regex", "group_select": "x"}, "group_select cannot be 'x'"),
        ({"function": "regex", "regex_pattern": "("}, "no regular expression"),
        ({"function": "lowercase", "k": 1}, "no 'k'"),
        ({"function": ["regex"]}, "no filter"),
    ],
)
def test_filters_are_checked(step: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        filters.check([Pipeline(name="p", filter=[step])])


def test_a_filter_that_fails_is_an_error_with_its_name() -> None:
    pipeline = Pipeline(name="p", filter=[{"function": "map", "mapping_dict": {}}, {"function": "lowercase"}])
    with pytest.raises(UserError, match="filter p: lowercase fails: AttributeError"):
        filters.apply(pipeline, ["x"], {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": ["m", "m"]}, "given twice"),
        ({"max_tokens": 9}, "max_tokens needs text"),
        ({"max_questions": 9}, "max_questions needs questions"),
        ({"samples": 9}, "samples needs text or questions"),
        ({"tasks": [], "questions": "q", "fewshot_seed": 9}, "fewshot_seed needs tasks"),
        ({"text": "t", "xz_megabytes": 9}, "xz_megabytes needs baselines"),
        ({"fewshot_as_multiturn": True}, "set prompt to chat"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        EvaluateModel.parse({"model": "m", "tasks": ["piqa"], **settings})
    with pytest.raises(UserError, match="none of these tasks generates"):
        select(EvaluateModel.parse({"model": "m", "tasks": ["piqa"], "gen_kwargs": {"temperature": 1}}))


# ---------------------------------------------------------------------------------------------- requests and results


def test_repeats_and_prompts_draw_their_own_numbers() -> None:
    asked = [Generation(ids, 8, ("\n",), 0.7, number=number) for ids in ((1, 2), (1, 3)) for number in range(3)]
    assert len({sampling_of(request).seed for request in asked}) == 6
    assert sampling_of(asked[0]) == sampling_of(asked[0])


def test_what_the_caller_sets_goes_before_the_task_by_whatever_name() -> None:
    task = parse_task({**GENERATE, "generation_kwargs": {"max_gen_toks": 256, "until": ["."]}}, "here")
    settings = generation_settings(task, {"max_new_tokens": 5})
    assert settings["max_tokens"] == 5 and settings["stop"] == (".",)
    wrong = {"until": ["x" * 2000], "max_tokens": float("inf"), "do_sample": "maybe", "top_k": None, "top_p": 0}
    assert generation_settings(task, {"top_k": wrong.pop("top_k")})["top_k"] == 0
    for name, value in wrong.items():
        with pytest.raises(UserError, match="task t: generation_kwargs"):
            generation_settings(task, {name: value})
    with pytest.raises(UserError, match=r"until is \[5\]"):
        generation_settings(task, {"until": [5]})


def test_figures_that_functions_cannot_give_are_errors() -> None:
    def score(**_: Any) -> dict[str, float]:
        return {"pass@1": 1.0}

    def worst(values: list[float]) -> float:
        return min(values) - 1

    def broken(values: list[float]) -> float:
        return values[9]

    prompt = Prompt(0, {"q": "?"}, ["?"], [], [], "x", None)
    for aggregation, expected in ((worst, 0.0), (broken, None)):
        task = parse_task({**GENERATE, "metric_list": [{"metric": score, "aggregation": aggregation}]}, "here")
        asked = [Asked(prompt, generations=[Generation((1,), 8, ())])]
        if expected is None:
            with pytest.raises(UserError, match="pass@1 has no figure: IndexError"):
                task_result("m", task, asked, {0: ["x"]}, num_fewshot=0, is_chat=False)
        else:
            result = task_result("m", task, asked, {0: ["x"]}, num_fewshot=0, is_chat=False)
            assert result.estimates["pass@1"].value == expected


def test_two_processes_may_write_one_store(tmp_path: Path) -> None:
    first, second = Store(tmp_path, "m"), Store(tmp_path, "m")
    for number in range(20):
        first.put(f"a{number}", "x" * 20_000)
        second.put(f"b{number}", (-float(number), True))
    first.close()
    second.close()
    again = Store(tmp_path, "m")
    again.close()
    assert all(again.get(f"a{number}") == "x" * 20_000 for number in range(20))
    assert all(again.get(f"b{number}") == (-float(number), True) for number in range(20))
