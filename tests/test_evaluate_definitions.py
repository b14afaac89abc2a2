"""The shipped task definitions: key for key lm-evaluation-harness's own, and the same requests from equal documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import datasets
import lm_eval.tasks
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.group import GroupConfig
from lm_eval.config.task import TaskConfig as TheirConfig
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import apply_template

from bottega.evaluate.tasks import load
from bottega.evaluate.tasks.prompts import Asking, Prompts
from bottega.evaluate.tasks.suites import load_suite, suite_names

THEIRS = Path(lm_eval.tasks.__file__).parent
ENTRIES = {entry.name: entry for file in load.DEFINITIONS.rglob("*.yaml") for entry in load.read_file(file)}
# Where lm-evaluation-harness has what we ship under another name than `NAME/NAME.yaml`.
PLACES = {
    "arc_easy": "arc/arc_easy",
    "arc_challenge": "arc/arc_challenge",
    "winogrande": "winogrande/default",
    "lambada_openai": "lambada/lambada_openai",
    "lambada_standard": "lambada/lambada_standard",
    "gsm8k_cot": "gsm8k/gsm8k-cot",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2",
    "boolq": "super_glue/boolq/default",
    "copa": "super_glue/copa/default",
    "record": "super_glue/record/default",
    "coqa": "coqa/default",
    "triviaqa": "triviaqa/default",
    "commonsense_qa": "commonsense_qa/default",
    "social_iqa": "siqa/siqa",
    "humaneval_64": "humaneval/humaneval_64",
    "humaneval_instruct": "humaneval/humaneval_instruct",
    "mbpp_instruct": "mbpp/mbpp_instruct",
    "agieval_nous": "agieval/agieval_nous",
    "blimp": "blimp/_blimp",
    "mmlu": "mmlu/default/_mmlu",
    "leaderboard_bbh": "leaderboard/bbh_mc/_leaderboard_bbh",
    "leaderboard_gpqa": "leaderboard/gpqa/_leaderboard_gpqa",
    "leaderboard_musr": "leaderboard/musr/_musr",
    "leaderboard_mmlu_pro": "leaderboard/mmlu_pro/mmlu_pro",
    "leaderboard_ifeval": "leaderboard/ifeval/ifeval",
    "leaderboard_instruction_following": "leaderboard/ifeval/_leaderboard_instruction_following",
    **{f"mmlu_{field}": f"mmlu/default/_mmlu_{field}" for field in ("stem", "other", "social_sciences", "humanities")},
}
OURS_ALONE = ("smoke", "gauntlet_")


def place(name: str) -> str | None:
    """lm-evaluation-harness's file of a task or group that we ship; None if it is ours."""
    if name in PLACES:
        return PLACES[name]
    if name.startswith(OURS_ALONE) or "bigbench_nous" in ENTRIES[name].tags:
        return None
    for start, folder in (
        ("mmlu_", "mmlu/default/mmlu_{}"),
        ("agieval_", "agieval/{}"),
        ("blimp_", "blimp/{}"),
        ("leaderboard_bbh_", "leaderboard/bbh_mc/{}"),
        ("leaderboard_gpqa_", "leaderboard/gpqa/gpqa_{}_zeroshot"),
        ("leaderboard_musr_", "leaderboard/musr/musr_{}"),
    ):
        if name.startswith(start):
            rest = name.removeprefix(start)
            return folder.format(rest.replace("_", "-") if start == "agieval_" else rest)
    if name.startswith("bigbench_"):
        return "bigbench/multiple_choice/" + name.removeprefix("bigbench_").removesuffix("_multiple_choice")
    return f"{name}/{name}"


def plain(value: Any) -> Any:
    """A definition without empty entries, functions by their names, one thing like a list of it."""
    if isinstance(value, load.FunctionReference):
        return value.text
    if isinstance(value, str) and value.startswith(str(THEIRS)):
        return Path(value).name
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if each is not None and each != {}}
    if isinstance(value, list):
        return plain(value[0]) if len(value) == 1 else [plain(each) for each in value]
    return value


def texts(definition: dict[str, Any]) -> dict[str, Any]:
    """Those entries that may be written differently, as they come out for a document."""
    doc = {"question": "Who's there?\n"}
    written = {"description": definition.get("description", "")}
    if str(definition.get("task", "")).startswith("truthfulqa_mc"):
        written["doc_to_text"] = definition["doc_to_text"]
    return {key: apply_template(text, doc) for key, text in written.items()}


@pytest.mark.parametrize("name", sorted(name for name in ENTRIES if name and place(name)))
def test_definition_is_lm_evaluation_harness_s(name: str) -> None:
    ours = plain(ENTRIES[name].data)
    theirs = plain(load_yaml(THEIRS / f"{place(name)}.yaml", resolve_func=False))
    if "group" in ours:
        for each in (ours, theirs):
            each["task"] = members(each["task"])
            each["group_alias"] = each.get("group_alias", "").replace("_", " ")
    if name.startswith("blimp_"):
        ours.pop("tag")  # how the group finds them; theirs lists them
    if name == "leaderboard_ifeval":
        theirs = {**theirs, "fewshot_config": {"sampler": "first_n"}}
    assert texts(ours) == texts(theirs)
    for key in texts(ours):
        ours.pop(key, None)
        theirs.pop(key, None)
    assert ours == theirs


def members(names: str | list[str]) -> list[str]:
    """A group's members, tags resolved."""
    found: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        tagged = sorted(key for key, entry in ENTRIES.items() if name in entry.tags)
        found += tagged or [name]
    return sorted(found)


def test_every_file_has_only_keys_of_the_schema() -> None:
    tasks = {each.name for each in fields(TheirConfig)}
    groups = {each.name for each in fields(GroupConfig)}
    for entry in ENTRIES.values():
        allowed = groups if "group" in entry.data else tasks
        assert not set(entry.data) - allowed, entry.file


def test_every_shipped_task_loads_without_foreign_code() -> None:
    names = load.shipped_names()
    loaded = load.load_tasks(names)
    assert set(names) == set(loaded.tasks) | set(loaded.groups)
    assert len(loaded.groups["mmlu"].members) == 4
    assert len(load.expand(["mmlu"], loaded)) == 57
    assert len(load.expand(["blimp"], loaded)) == 67
    assert len(load.expand(["leaderboard_bbh"], loaded)) == 24


def test_suites_name_tasks_and_metrics_that_are_there() -> None:
    assert suite_names() == ["smoke", "nous", "openllm", "openllm-v2"]
    for suite in suite_names():
        for entry in load_suite(suite).entries:
            loaded = load.load_tasks([entry.task])
            if entry.metric is None:
                continue
            wanted, _, pipeline = entry.metric.partition(",")
            for task in loaded.tasks.values():
                assert wanted in [metric.name for metric in task.metrics], (suite, entry)
                assert not pipeline or pipeline in [each.name for each in task.pipelines], (suite, entry)
            if entry.task in loaded.groups:
                assert wanted in [metric for metric, _, _ in loaded.groups[entry.task].metrics], (suite, entry)


def test_nous_has_the_sections_of_auto_eval() -> None:
    nous = load_suite("nous")
    counts = {section: sum(entry.section == section for entry in nous.entries) for section in nous.sections}
    assert counts == {"AGIEval": 8, "GPT4All": 7, "TruthfulQA": 1, "Bigbench": 18}
    assert all(entry.num_fewshot == 0 for entry in nous.entries)


def test_smoke_documents_are_whole() -> None:
    for split in ("train", "test"):
        docs = rows("choice", split)
        golds = [doc["answer"] for doc in docs]
        assert all(len(set(doc["choices"])) == 4 and 0 <= doc["answer"] < 4 for doc in docs)
        assert {golds.count(place) for place in range(4)} == {len(docs) // 4}
        operations = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
        for doc in rows("arithmetic", split):
            _, _, first, operation, second = doc["question"].rstrip("?").split()
            assert operations[operation](int(first), int(second)) == int(doc["answer"])
    questions = [doc["question"] for split in ("train", "test") for doc in rows("choice", split)]
    questions += [doc["question"] for split in ("train", "test") for doc in rows("arithmetic", split)]
    assert len(questions) == len(set(questions))
    assert all(doc["text"] == " ".join(doc["text"].split()) for doc in rows("completion", "test"))


def rows(name: str, split: str) -> list[dict[str, Any]]:
    """A split of the smoke suite."""
    file = load.DEFINITIONS / "smoke" / name / f"{split}.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_bigbench_reads_its_own_task_files(tmp_path: Path) -> None:
    example = {"input": "(a) or (b)?", "target_scores": {"(b)": 0, "(a)": 1}}
    (tmp_path / "bigbench").mkdir()
    (tmp_path / "bigbench" / "snarks.json").write_text(json.dumps({"name": "snarks", "examples": [example]}), "utf-8")
    task = load.load_tasks(["bigbench_snarks"]).tasks["bigbench_snarks"]
    (prompt,) = Prompts(task, tmp_path, Asking()).build()
    assert set(prompt.contexts[0].removesuffix("\nA: ").split("\n  choice: ")[1:]) == {"(a)", "(b)"}
    assert prompt.contexts[0].startswith("\nQ: (a) or (b)?")
    assert (prompt.continuations, prompt.gold) == (["(b)", "(a)"], 1)


# ------------------------------------------------------------------ the same requests


def words(random: Random, least: int = 1, most: int = 6) -> str:
    """A few words, some of them with markup, marks or white space that preprocessing has to do with."""
    some = ["apple", "Tree", "[edit]", "of", "it's", "the", "Ü-boot", "two  spaces", "[title]", "a,", "b;", "42", "  "]
    return " ".join(random.choices(some, k=random.randint(least, most))) + random.choice(["", ".", " "])


def listed(random: Random, count: int) -> list[str]:
    """Different texts that are not empty."""
    return [f"{words(random)} {index}" for index in range(count)]


def arc(random: Random) -> dict[str, Any]:
    labels = random.choice([["A", "B", "C", "D"], ["1", "2", "3"]])
    return {
        "question": words(random),
        "choices": {"text": listed(random, len(labels)), "label": labels},
        "answerKey": random.choice(labels),
    }


def hellaswag(random: Random) -> dict[str, Any]:
    return {
        "activity_label": words(random),
        "ctx_a": words(random),
        "ctx_b": random.choice(["", words(random)]),
        "endings": listed(random, 4),
        "label": str(random.randrange(4)),
    }


def winogrande(random: Random) -> dict[str, Any]:
    return {
        "sentence": f"{words(random)} _ {words(random)} end",
        "option1": "Ann",
        "option2": "Bob",
        "answer": random.choice("12"),
    }


def mmlu(random: Random) -> dict[str, Any]:
    return {"question": words(random), "choices": listed(random, 4), "answer": random.randrange(4), "subject": "x"}


def truthfulqa(random: Random) -> dict[str, Any]:
    count = random.randint(2, 5)
    return {
        "question": words(random),
        "mc1_targets": {"choices": listed(random, count), "labels": [1] + [0] * (count - 1)},
        "mc2_targets": {"choices": listed(random, count), "labels": [1, 1] + [0] * (count - 2)},
    }


def copa(random: Random) -> dict[str, Any]:
    return {
        "premise": f"The {words(random)} fell.",
        "question": random.choice(["cause", "effect"]),
        "choice1": "It was " + words(random),
        "choice2": "He is " + words(random),
        "label": random.randrange(2),
    }


def boolq(random: Random) -> dict[str, Any]:
    return {"passage": words(random), "question": words(random), "label": random.randrange(2)}


def record(random: Random) -> dict[str, Any]:
    entities = ["Rome", "Paris", "Oslo", "Rome"]
    random.shuffle(entities)
    return {
        "passage": f"{words(random)}\n@highlight\n{words(random)}\n@highlight\n{words(random)}",
        "query": "the mayor of @placeholder",
        "entities": entities,
        "answers": random.sample(["Rome", "Paris"], k=random.randint(1, 2)),
    }


def openbookqa(random: Random) -> dict[str, Any]:
    return {
        "question_stem": words(random),
        "choices": {"text": listed(random, 4), "label": list("ABCD")},
        "answerKey": random.choice("ABCD"),
    }


def pubmedqa(random: Random) -> dict[str, Any]:
    return {
        "CONTEXTS": listed(random, 3),
        "QUESTION": words(random),
        "final_decision": random.choice(["yes", "no", "maybe"]),
    }


def commonsense_qa(random: Random) -> dict[str, Any]:
    return {"question": words(random), "choices": {"text": listed(random, 5)}, "answerKey": random.choice("ABCDE")}


def social_iqa(random: Random) -> dict[str, Any]:
    answers = {f"answer{letter}": text for letter, text in zip("ABC", listed(random, 3), strict=True)}
    return {"context": words(random), "question": words(random), "label": random.choice("123"), **answers}


def agieval(random: Random) -> dict[str, Any]:
    return {"query": words(random), "choices": listed(random, 4), "gold": random.sample(range(4), k=1)}


def bigbench(random: Random) -> dict[str, Any]:
    choices = listed(random, random.choice([0, 3, 3]))
    right = random.randrange(3)
    return {
        "inputs": words(random),
        "targets": [choices[right]] if choices else ["free"],
        "multiple_choice_targets": choices,
        "multiple_choice_scores": [int(index == right) for index in range(len(choices))],
    }


def gpqa(random: Random) -> dict[str, Any]:
    wrong = {f"Incorrect Answer {number}": text for number, text in enumerate(listed(random, 3), 1)}
    return {"Question": words(random), "Correct Answer": words(random) + "right", **wrong}


def musr(random: Random) -> dict[str, Any]:
    choices = listed(random, 3)
    return {
        "narrative": words(random),
        "question": words(random),
        "choices": str(choices),
        "answer_choice": random.choice(choices),
    }


def mmlu_pro(random: Random) -> dict[str, Any]:
    count = random.randint(3, 10)
    return {
        "question": words(random),
        "options": listed(random, count),
        "answer": "ABCDEFGHIJ"[random.randrange(count)],
    }


def bbh(random: Random) -> dict[str, Any]:
    return {"input": words(random), "target": random.choice(["(A)", "(B)"])}


def blimp(random: Random) -> dict[str, Any]:
    return {"sentence_good": words(random) + "good", "sentence_bad": words(random) + "bad"}


def piqa(random: Random) -> dict[str, Any]:
    return {"goal": words(random), "sol1": words(random), "sol2": words(random) + "x", "label": random.randrange(2)}


def text(random: Random) -> dict[str, Any]:
    return {"text": words(random, 3, 9) + "last"}


def page(random: Random) -> dict[str, Any]:
    return {
        "page": f' \n = {words(random)} = \n\n {words(random)} @-@ ( {words(random)} ) , " {words(random)} " \'s .\n'
    }


def gsm8k(random: Random) -> dict[str, Any]:
    return {"question": words(random), "answer": f"{words(random)}\n#### {random.randrange(99)}"}


def coqa(random: Random) -> dict[str, Any]:
    count = random.randint(1, 3)
    return {
        "story": words(random),
        "questions": {"input_text": listed(random, count)},
        "answers": {"input_text": listed(random, count)},
        "additional_answers": {"0": {"input_text": listed(random, count)}, "1": {"input_text": ["YES"] * count}},
    }


def triviaqa(random: Random) -> dict[str, Any]:
    return {"question": words(random), "answer": {"aliases": listed(random, 3)}}


SAME_REQUESTS: dict[str, tuple[Callable[[Random], dict[str, Any]], int | None]] = {
    "arc_easy": (arc, None),
    "arc_challenge": (arc, 3),
    "hellaswag": (hellaswag, 2),
    "winogrande": (winogrande, 2),
    "mmlu_us_foreign_policy": (mmlu, 2),
    "truthfulqa_mc1": (truthfulqa, None),
    "truthfulqa_mc2": (truthfulqa, None),
    "copa": (copa, None),
    "boolq": (boolq, 1),
    "record": (record, None),
    "openbookqa": (openbookqa, 2),
    "pubmedqa": (pubmedqa, 1),
    "commonsense_qa": (commonsense_qa, 2),
    "social_iqa": (social_iqa, 2),
    "agieval_aqua_rat": (agieval, None),
    "bigbench_snarks_multiple_choice": (bigbench, None),
    "bigbench_strategyqa_multiple_choice": (bigbench, None),
    "leaderboard_gpqa_diamond": (gpqa, None),
    "leaderboard_musr_team_allocation": (musr, None),
    "leaderboard_mmlu_pro": (mmlu_pro, None),
    "leaderboard_bbh_snarks": (bbh, None),
    "blimp_causative": (blimp, None),
    "piqa": (piqa, 1),
    "lambada_openai": (text, None),
    "lambada_standard": (text, None),
    "wikitext": (page, None),
    "gsm8k": (gsm8k, None),
    "gsm8k_cot": (gsm8k, None),
    "coqa": (coqa, None),
    "triviaqa": (triviaqa, 2),
}


@pytest.mark.parametrize("name", SAME_REQUESTS)
def test_requests_are_lm_evaluation_harness_s(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two tasks import a module for their scores that transformers 5 does not have; requests do without it.
    absent = ModuleType("metrics")
    absent.squad_metrics = ModuleType("squad_metrics")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers.data.metrics", absent)
    monkeypatch.setitem(sys.modules, "transformers.data.metrics.squad_metrics", absent.squad_metrics)
    document, shots = SAME_REQUESTS[name]
    task = load.load_tasks([name]).tasks[name]
    config = load_yaml(THEIRS / f"{place(name)}.yaml")
    splits = {"train", "validation", "test", "default", "dev", "team_allocation"}
    random = Random(name)
    found = {split: [document(random) for _ in range(8)] for split in sorted(splits)}
    folder = tmp_path / task.dataset_path / (task.dataset_name or "")
    folder.mkdir(parents=True)
    for split, docs in found.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs), "utf-8")

    ours = Prompts(task, tmp_path, Asking(num_fewshot=shots)).build()
    if name.startswith("leaderboard_gpqa"):  # there the choices are shuffled anew at every look
        assert task.process_docs is not None
        process = task.process_docs
        config["process_docs"] = lambda docs: datasets.Dataset.from_list(process(list(docs)))
    data = datasets.DatasetDict({split: datasets.Dataset.from_list(docs) for split, docs in found.items()})
    theirs = ConfigurableTask(config={**config, "custom_dataset": lambda **_: data})
    if shots is not None:
        theirs.set_config("num_fewshot", shots)
    theirs.set_fewshot_seed(1234)
    theirs.build_all_requests(rank=0, world_size=1)

    wanted: dict[int | None, list[tuple[str, ...]]] = {}
    for instance in theirs.instances:
        arguments = tuple(each for each in instance.args if isinstance(each, str))
        wanted.setdefault(instance.doc_id, []).append(arguments)
    assert len(ours) == len(wanted)
    for prompt in ours:
        if task.output_type == "loglikelihood_rolling":
            got = [(each,) for each in prompt.continuations]
        elif task.output_type == "generate_until":
            got = [(each,) for each in prompt.contexts]
        else:
            contexts = prompt.contexts * (len(prompt.continuations) // len(prompt.contexts))
            got = list(zip(contexts, prompt.continuations, strict=True))
        assert got == wanted[prompt.doc_id]
