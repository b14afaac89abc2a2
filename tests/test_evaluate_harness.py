"""Measuring tasks: what is refused before anything is computed, what goes on after a kill, what one failure leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from bottega.core.errors import BottegaError, UserError
from bottega.core.progress import Quiet
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness import prepare
from bottega.evaluate.harness.requests import generation_settings
from bottega.evaluate.harness.run import measure_tasks
from bottega.evaluate.items import Item, read_items
from bottega.evaluate.tasks.load import load_tasks
from bottega.generate.engine import Engine
from test_serve_api import TEXT, make_model

WORDS = TEXT.split()
MATCH = [{"metric": "exact_match"}]
CHOICE = {
    "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "{{question}}", "doc_to_target": "answer", "doc_to_choice": "options",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
GENERATE = {"output_type": "generate_until", "doc_to_choice": None, "metric_list": MATCH}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("harness") / "tiny", context=256)


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **changes: Any) -> str:
    """A task file with its documents; the file's path."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
    task = {"task": name, **CHOICE, "dataset_kwargs": files, **changes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task).replace("'!function ", "!function '"))
    return str(path)


def question(number: int, **changes: Any) -> dict[str, Any]:
    words = [WORDS[(number * 7 + place) % len(WORDS)] for place in range(6)]
    options = [f"{words[0]} {number}", words[1], f"{words[2]} {words[3]}"]
    return {"question": " ".join(words), "options": options, "answer": number % 3, **changes}


def measure(model: Path, tasks: list[str], **how: Any) -> tuple[dict[str, Any], list[Item]]:
    config = EvaluateModel.parse({"model": str(model), "tasks": tasks, "reuse": False, **how})
    return measure_tasks(config, Quiet())


def run(arguments: list[str], folder: Path, **how: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bottega", "eval", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=pipe, stderr=pipe, **how)


# ---------------------------------------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        ({}, {"doc_to_choise": "options"}, "unknown key 'doc_to_choise'.*\n.*doc_to_choice"),
        ({}, {"test_split": "other"}, "no file for the split 'other'"),
        ({}, {"output_type": "choose"}, "output_type"),
        ({}, {"doc_to_text": "{{nothing}}"}, "document 0: .*'nothing' is undefined"),
        ({}, {"doc_to_text": "{% if %}"}, "document 0: the template is not valid jinja"),
        (
            {},
            {**GENERATE, "filter_list": [{"name": "x", "filter": [{"function": "regexp"}]}]},
            "no filter 'regexp'.*\n.*'regex'",
        ),
        ({}, {"num_fewshot": 9}, "9 examples are wanted, and there are 2"),
        ({}, {"doc_to_image": "question"}, "doc_to_image cannot be obeyed"),
        ({}, {"metric_list": [{"metric": "accuracy"}]}, "accuracy"),
        ({"options": ["yes", ""]}, {}, "document 1: a choice is empty"),
        ({"options": []}, {}, "document 1: there are no choices"),
        ({"answer": 3}, {}, "document 1: the right answer 3 is no index into 3 choices"),
        ({"options": ["no " * 300, "yes", "x"]}, {}, "document 1: .* tokens exceed the model's context of 256"),
        ({"question": "why " * 300}, {}, "document 1: .* tokens exceed the model's context of 256"),
        (
            {},
            {**GENERATE, "generation_kwargs": {"max_gen_toks": 255}},
            "255 for the answer exceed",
        ),
        (
            {},
            {**GENERATE, "generation_kwargs": {"beams": 2}},
            "generation_kwargs.beams is not understood",
        ),
        ({}, {**GENERATE, "generation_kwargs": {"temperature": "hot"}}, "generation_kwargs.temperature is 'hot'"),
        ({}, {**GENERATE, "generation_kwargs": {"temperature": -1}}, "temperature is -1"),
        ({}, {**GENERATE, "generation_kwargs": {"max_gen_toks": -5}}, "max_new_tokens is -5"),
    ],
)
def test_wrong_tasks_are_refused_before_the_first_pass(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: dict[str, Any],
    changes: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(Engine, "step", lambda _: pytest.fail("something was computed"))
    path = write_task(tmp_path, "wrong", [question(0), question(1, **row)], **changes)
    good = write_task(tmp_path, "good", [question(number) for number in range(3)])
    with pytest.raises(UserError, match=said):
        measure(model, [good, path])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("task: [", "cannot be read"),
        ("- a", "it holds no table"),
        ("include: gone.yaml", "no task file"),
        ("a: 1", "names no task"),
    ],
)
def test_files_that_are_no_tasks_are_refused(model: Path, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.yaml").write_text(content)
    with pytest.raises(UserError, match=said):
        measure(model, [str(tmp_path / "t.yaml")])
    with pytest.raises(UserError, match=r"no task 'hellaswagg'.*\n.*'hellaswag'"):
        measure(model, ["hellaswagg"])
    with pytest.raises(UserError, match=r"needs documents of Rowan/hellaswag.*\n.*--data DIR"):
        measure(model, ["hellaswag"])


def test_all_models_can_be_asked_before_the_first_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "step", lambda _: pytest.fail("something was computed"))
    narrow = make_model(tmp_path / "narrow", context=64)
    path = write_task(tmp_path, "good", [question(0), question(1, question="why " * 60)])
    config = EvaluateModel.parse({"model": [str(model), str(narrow)], "tasks": [path], "reuse": False})
    with pytest.raises(UserError, match=r"document 1: .* exceed the model's context of 64"):
        measure_tasks(config, Quiet())


def test_where_programs_cannot_be_shut_in_their_tasks_fail_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise BottegaError("this machine cannot shut programs off")

    monkeypatch.setattr(prepare, "require_isolation", refuse)
    good = write_task(tmp_path, "good", [question(number) for number in range(3)])
    found, _ = measure(model, ["humaneval", good], keep_going=True)
    assert set(found["results"]) == {"good"}
    assert found["models"][0]["errors"] == {"humaneval": "this machine cannot shut programs off"}
    with pytest.raises(BottegaError, match="cannot shut"):
        measure(model, ["humaneval", good])


def test_documents_stay_in_their_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "test.jsonl").write_text(json.dumps(question(0)) + "\n")
    (tmp_path / "data").mkdir()
    path = write_task(tmp_path, "escape", [question(0)], dataset_path="../secret")
    with pytest.raises(UserError, match="leads out of"):
        measure(model, [path], data=tmp_path / "data")


def test_the_files_of_a_clone_of_the_hub_do_as_they_are(model: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    place = tmp_path / "org" / "set" / "part"
    place.mkdir(parents=True)
    rows = [question(number) for number in range(6)]
    for piece in (0, 1):
        table = pyarrow.Table.from_pylist(rows[3 * piece : 3 * piece + 3])
        pyarrow.parquet.write_table(table, place / f"test-0000{piece}-of-00002.parquet")
    path = write_task(tmp_path, "clone", [question(0)], dataset_path="org/set", dataset_name="part")
    _, items = measure(model, [path], data=tmp_path)
    assert [item.doc for item in items] == rows


def test_code_of_task_files_runs_only_when_allowed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def ask(doc):\n    return doc['question'] + '?'\n")
    path = write_task(tmp_path, "code", [question(0), question(1)], doc_to_text="!function own.ask")
    with pytest.raises(UserError, match=r"(?s)!function own.ask is code.*--allow-code"):
        measure(model, [path])
    _, items = measure(model, [path], allow_code=True)
    assert [item.prompt for item in items] == [f"{question(number)['question']}?" for number in range(2)]


# ---------------------------------------------------------------------------------------------- failures


def test_a_task_that_fails_is_an_error_and_voids_no_other(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def count(doc, results):\n    return {'acc': 1 / doc['answer']}\n")
    rows = [question(number) for number in range(6)]
    bad = write_task(tmp_path, "bad", rows, process_results="!function own.count")
    good = write_task(tmp_path, "good", rows)
    found, items = measure(model, [bad, good], allow_code=True)
    (entry,) = found["models"]
    assert entry["errors"] == {"bad": "task bad, document 0: count fails: ZeroDivisionError: division by zero"}
    assert set(entry["results"]) == {"good"} and {item.task for item in items} == {"good"}
    assert entry["results"]["good"] == measure(model, [good])[0]["results"]["good"]


def test_what_cannot_be_asked_is_listed_where_the_run_shall_go_on(model: Path, tmp_path: Path) -> None:
    good = write_task(tmp_path, "good", [question(number) for number in range(3)])
    found, _ = measure(model, ["hellaswag", good], keep_going=True)
    assert set(found["results"]) == {"good"}
    assert "needs documents of Rowan/hellaswag" in found["models"][0]["errors"]["hellaswag"]


def test_a_damaged_model_gives_an_error_and_no_number(model: Path, tmp_path: Path) -> None:
    damaged = make_model(tmp_path / "damaged", context=256)
    (file,) = damaged.glob("*.safetensors")
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    good = write_task(tmp_path, "good", [question(number) for number in range(3)])
    found, items = measure(damaged, [good])
    assert not items and not found["results"]
    assert "no finite probability" in found["models"][0]["errors"]["good"]


# ---------------------------------------------------------------------------------------------- the store


def test_a_second_run_computes_nothing_and_says_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_task(tmp_path, "good", [question(number) for number in range(8)])
    how: dict[str, Any] = {"reuse": True, "store": tmp_path / "store"}
    first, items = measure(model, [path, "smoke_arithmetic"], limit=6, gen_kwargs={"max_gen_toks": 4}, **how)
    monkeypatch.setattr(Engine, "step", lambda _: pytest.fail("something was computed"))
    again, same = measure(model, [path, "smoke_arithmetic"], limit=6, gen_kwargs={"max_gen_toks": 4}, **how)
    assert again["results"] == first["results"] and items == same
    assert again["models"][0]["cost"]["reused_items"] == 6 * 3 + 6
    # Another metric needs no model; another version of the task, or other settings, are other answers.
    write_task(tmp_path, "good", [question(number) for number in range(8)], metric_list=[{"metric": "acc_bytes"}])
    rescored, _ = measure(model, [path], limit=6, **how)
    assert set(rescored["results"]["good"]) == {"acc_bytes"}
    write_task(tmp_path, "good", [question(number) for number in range(8)], metadata={"version": 2})
    with pytest.raises(pytest.fail.Exception):
        measure(model, [path], limit=6, **how)


def test_an_answer_is_kept_before_the_next_is_there(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_task(tmp_path, "good", [question(number) for number in range(300)])
    step, steps = Engine.step, []

    def fails_late(engine: Engine) -> Any:
        steps.append(sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("store/*.jsonl")))
        if steps[-1] > 100:
            raise KeyboardInterrupt
        return step(engine)

    monkeypatch.setattr(Engine, "step", fails_late)
    with pytest.raises(KeyboardInterrupt):
        measure(model, [path], reuse=True, store=tmp_path / "store")
    assert 100 < steps[-1] < 900


def test_a_temperature_that_is_given_samples_also_where_the_task_does_not(tmp_path: Path) -> None:
    kwargs = {"do_sample": False, "temperature": 0.0}
    path = write_task(tmp_path, "good", [question(0)], **{**GENERATE, "generation_kwargs": kwargs})
    task = load_tasks([path]).tasks["good"]
    assert generation_settings(task, {})["temperature"] == 0
    assert generation_settings(task, {"temperature": 0.7})["temperature"] == 0.7
    assert generation_settings(task, {"temperature": 0.7, "do_sample": False})["temperature"] == 0


def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(model: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path, "good", [question(number) for number in range(300)])
    whole, items = measure(model, [path, "smoke_choice"])
    arguments = [str(model), "--tasks", f"{path},smoke_choice", "--store", "store", "--threads", "1", "--out", "run"]
    process = run(arguments, tmp_path)
    deadline = time.monotonic() + 60
    while not (lines := sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("store/*.jsonl"))) > 100:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "run").exists()
    (store,) = (tmp_path / "store").glob("*.jsonl")
    lines = store.read_bytes().count(b"\n")
    assert lines < 300 * 3
    store.write_bytes(store.read_bytes() + b'["torn')  # as a power cut leaves it
    process = run([*arguments, "--json"], tmp_path)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    found = json.loads(out)
    assert found["models"][0]["cost"]["reused_items"] >= lines
    assert found["results"] == json.loads(json.dumps(whole["results"]))
    assert list(read_items(tmp_path / "run")) == items


# ---------------------------------------------------------------------------------------------- what comes out


def test_several_models_and_variants(model: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", context=256)
    path = write_task(tmp_path, "good", [question(number) for number in range(12)], num_fewshot=2)
    config = EvaluateModel.parse({"model": [str(model), str(other)], "tasks": [path], "reuse": False, "vary": 2})
    found, items = measure_tasks(config, Quiet())
    assert [entry["model"] for entry in found["models"]] == ["tiny", "other"] and "results" not in found
    assert {(item.model, item.task) for item in items} == {("tiny", "good"), ("other", "good")}
    labels = [variant["variant"] for variant in found["models"][0]["variants"]]
    assert labels == ["examples drawn with seed 1235", "examples drawn with seed 1236", "with the chat template"]
    facts = found["models"][0]["tasks"]["good"]
    assert facts["num_fewshot"] == 2 and facts["items"] == 12 and facts["chance"] == pytest.approx(1 / 3)
    assert facts["main_metric"] == "acc" and facts["higher_is_better"] == {"acc": True, "acc_norm": True}


def test_a_small_cache_computes_no_context_twice(model: Path, tmp_path: Path) -> None:
    rows = [question(number) for number in range(60)]
    path = write_task(tmp_path, "good", rows, num_fewshot=9, fewshot_config={"split": "test"})
    (small, items), (large, same) = (measure(model, [path], cache_tokens=tokens) for tokens in (1024, 1 << 16))
    assert items == same
    assert small["models"][0]["cost"]["tokens"] == large["models"][0]["cost"]["tokens"]


def test_the_command_prints_what_scripts_read(model: Path, tmp_path: Path) -> None:
    process = run(
        [str(model), "--suite", "smoke", "--limit", "3", "--gen-kwargs", "max_gen_toks=4", "--json"], tmp_path
    )
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    results = json.loads(out)["results"]
    assert set(results) == {"smoke_choice", "smoke_completion", "smoke_text", "smoke_arithmetic"}
    for figures in results.values():
        for figure in figures.values():
            assert set(figure) == {"value", "stderr", "ci95"}
    assert {"acc", "acc_norm"} <= set(results["smoke_choice"]) and "exact_match" in results["smoke_arithmetic"]
    assert list((tmp_path / "workspace" / "evaluations").glob("*.jsonl"))


def test_a_plan_reads_no_weights_and_counts_the_work(model: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path, "good", [question(number) for number in range(50)])
    process = run([str(model), "--tasks", path, "--plan"], tmp_path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "good, 50 documents" in " ".join(out.split())
    process = run([str(model), "--tasks", "hellaswag", "--plan"], tmp_path)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and "needs documents" in error


def test_tasks_are_listed_with_the_place_of_their_documents(tmp_path: Path) -> None:
    from bottega import verbs

    place = tmp_path / "cais" / "mmlu" / "anatomy"
    place.mkdir(parents=True)
    (place / "test.jsonl").write_text("{}\n")
    listed = verbs.tasks(pattern=["mmlu_a*", "smoke"], data=tmp_path)
    found = {task["task"]: bool(task["found"]) for task in listed["tasks"]}
    assert found["mmlu_anatomy"] and found["smoke_choice"] and not found["mmlu_astronomy"]
    every = verbs.tasks()
    assert len(every["tasks"]) > 300 and set(every["suites"]) == {"smoke", "nous", "openllm", "openllm-v2"}
    with pytest.raises(UserError, match="called like nothing"):
        verbs.tasks(pattern="nothing*")
