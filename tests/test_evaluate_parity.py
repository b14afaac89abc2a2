"""The harness against lm-evaluation-harness itself: the same model, files, examples and template give the same items.

lm-evaluation-harness runs its own task files with its own code on transformers; documents come from the same files, in
place of the hub.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega.core.progress import Quiet
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness.run import measure_tasks
from bottega.evaluate.items import Item
from test_serve_api import TEXT, make_model

lm_eval = pytest.importorskip("lm_eval")
datasets = pytest.importorskip("datasets")
from lm_eval.tasks import TaskManager  # noqa: E402 (after the check that it is there)

LM_EVAL_TASKS = Path(lm_eval.__file__).parent / "tasks"
WORDS = TEXT.split()
DOCUMENTS = 12
EVERY = ["train", "validation", "test"]
CONTEXT = 768
# task → folders of lm-evaluation-harness that hold its files
FOLDERS = {
    "hellaswag": ["hellaswag"], "arc_easy": ["arc"], "winogrande": ["winogrande"], "boolq": ["super_glue/boolq"],
    "openbookqa": ["openbookqa"], "piqa": ["piqa"], "truthfulqa_mc1": ["truthfulqa"], "truthfulqa_mc2": ["truthfulqa"],
    "mmlu_anatomy": ["mmlu/default"], "lambada_openai": ["lambada"], "wikitext": ["wikitext"], "gsm8k": ["gsm8k"],
}  # fmt: skip


class Source:
    """Random documents in the columns that the tasks' datasets have."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def say(self, low: int = 3, high: int = 12) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(self.random.randint(low, high)))

    def options(self, count: int = 4) -> list[str]:
        return [f"{self.say(1, 5)} {number}" for number in range(count)]

    def document(self, path: str) -> dict[str, Any]:
        pick = self.random.randrange
        match path:
            case "Rowan/hellaswag":
                ctx = {"activity_label": self.say(1, 2), "ctx_a": self.say(), "ctx_b": self.say(1, 3)}
                return {
                    **ctx,
                    "ctx": self.say(),
                    "endings": [f"{e} [x] y" for e in self.options()],
                    "label": str(pick(4)),
                }
            case "allenai/ai2_arc":
                choices = {"text": self.options(), "label": ["A", "B", "C", "D"]}
                return {"id": self.say(1, 1), "question": self.say(), "choices": choices, "answerKey": "ABCD"[pick(4)]}
            case "allenai/winogrande":
                sentence = f"{self.say(2, 5)} _ {self.say(2, 5)}"
                return {"sentence": sentence, "option1": "the cat", "option2": "a dog", "answer": str(1 + pick(2))}
            case "aps/super_glue":
                return {"question": self.say(), "passage": self.say(10, 30), "idx": pick(99), "label": pick(2)}
            case "allenai/openbookqa":
                choices = {"text": self.options(), "label": ["A", "B", "C", "D"]}
                return {"question_stem": self.say(), "choices": choices, "answerKey": "ABCD"[pick(4)]}
            case "baber/piqa":
                first, second = self.options(2)
                return {"goal": self.say(), "sol1": first, "sol2": second, "label": pick(2)}
            case "truthfulqa/truthful_qa":
                one = {"choices": self.options(), "labels": [1, 0, 0, 0]}
                many = {"choices": self.options(5), "labels": [1, 1, 0, 0, 0]}
                return {"question": self.say(), "mc1_targets": one, "mc2_targets": many}
            case "cais/mmlu":
                return {"question": self.say(), "subject": "anatomy", "choices": self.options(), "answer": pick(4)}
            case "EleutherAI/lambada_openai":
                return {"text": self.say(8, 20)}
            case "EleutherAI/wikitext_document_level":
                return {"page": "\n".join(self.say(30, 90) + " , said @-@ so ." for _ in range(6))}
            case "openai/gsm8k":
                return {"question": self.say(), "answer": f"{self.say()}\n#### {pick(99)}"}
        raise AssertionError(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents where ours looks for them."""
    folder = tmp_path_factory.mktemp("data")
    places = {
        ("Rowan/hellaswag", ""): ["train", "validation"], ("allenai/ai2_arc", "ARC-Easy"): EVERY,
        ("allenai/winogrande", "winogrande_xl"): ["train", "validation"],
        ("aps/super_glue", "boolq"): ["train", "validation"], ("allenai/openbookqa", "main"): EVERY,
        ("baber/piqa", ""): ["train", "validation"], ("truthfulqa/truthful_qa", "multiple_choice"): ["validation"],
        ("cais/mmlu", "anatomy"): ["dev", "test"], ("EleutherAI/lambada_openai", "default"): ["test"],
        ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1"): EVERY,
        ("openai/gsm8k", "main"): ["train", "test"],
    }  # fmt: skip
    for seed, ((path, name), splits) in enumerate(places.items()):
        source, place = Source(seed), folder / path / name
        place.mkdir(parents=True)
        for split in splits:
            rows = [source.document(path) for _ in range(3 if "wikitext" in path else DOCUMENTS)]
            (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("parity") / "tiny", context=CONTEXT)


@pytest.fixture(scope="module")
def peer(model: Path) -> Any:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return HFLM(pretrained=loaded, tokenizer=AutoTokenizer.from_pretrained(model), batch_size=4, max_length=CONTEXT)


def theirs(peer: Any, tasks: list[str], data: Path, monkeypatch: pytest.MonkeyPatch, **how: Any) -> dict[str, Any]:
    """lm-evaluation-harness's own run; its documents are read from our files."""

    def load_dataset(path: str, name: str | None = None, **_: Any) -> Any:
        folder = data / path / (name or "")
        return datasets.DatasetDict(
            {f.stem: datasets.Dataset.from_list([json.loads(row) for row in f.open()]) for f in folder.glob("*.jsonl")}
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    folders = sorted({str(LM_EVAL_TASKS / folder) for task in tasks for folder in FOLDERS[task]})
    manager = TaskManager(include_path=folders, include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=peer, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, log_samples=True, **how
    )
    assert found is not None
    return found


def ours(model: Path, tasks: list[str], data: Path, **how: Any) -> tuple[dict[str, Any], dict[str, list[Item]]]:
    config = EvaluateModel.parse({"model": str(model), "tasks": tasks, "data": data, "reuse": False, **how})
    found, items = measure_tasks(config, Quiet())
    assert not found["models"][0]["errors"]
    by_task = {task: [item for item in items if item.task == task] for task in found["results"]}
    return found["models"][0]["results"], by_task


def compare(peers: dict[str, Any], results: dict[str, Any], items: dict[str, list[Item]]) -> None:
    """Every item's prompt, log-likelihoods (1e-4), choice and response; every metric and its standard error."""
    for task, own in items.items():
        samples = {}
        for sample in peers["samples"][task]:
            samples.setdefault(sample["doc_id"], sample)
        assert len(samples) == len(own)
        for item in own:
            sample = samples[item.doc_id]
            arguments = sample["arguments"]
            if item.responses:
                assert item.prompt == arguments[0][0], task
                assert item.responses == sample["resps"][0], task
                continue
            if len(arguments[0]) == 2:
                assert item.prompt == arguments[0][0], task
            scored = [each[0] for each in sample["resps"]]
            sums = [each[0] if isinstance(each, tuple) else each for each in scored]
            for ours_, theirs_ in zip(item.loglikelihoods, sums, strict=True):
                assert ours_ == pytest.approx(theirs_, abs=1e-4 * max(1, abs(theirs_) / 100)), task
            greedy = [each[1] for each in scored if isinstance(each, tuple)]
            assert not greedy or item.greedy == greedy
        figures = peers["results"][task]
        names = {key: key.removesuffix(",none") for key in figures if "," in key and "_stderr" not in key}
        assert set(names.values()) == set(results[task]), task
        for key, name in names.items():
            metric, _, pipeline = key.partition(",")
            assert results[task][name]["value"] == pytest.approx(figures[key], rel=1e-5, abs=1e-9), (task, name)
            error = figures[f"{metric}_stderr,{pipeline}"]
            if isinstance(error, float) and error == error:
                assert results[task][name]["stderr"] == pytest.approx(error, rel=1e-4, abs=1e-9), (task, name)


CHOICES = ["hellaswag", "arc_easy", "winogrande", "boolq", "openbookqa", "piqa"]


@pytest.mark.parametrize("shots", [0, 3])
def test_multiple_choice(peer: Any, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, shots: int) -> None:
    compare(theirs(peer, CHOICES, data, monkeypatch, num_fewshot=shots), *ours(model, CHOICES, data, num_fewshot=shots))


@pytest.mark.parametrize("multiturn", [False, True])
def test_through_the_chat_template(
    peer: Any, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, multiturn: bool
) -> None:
    tasks = ["arc_easy", "mmlu_anatomy", "gsm8k", "winogrande"]
    how = {"num_fewshot": 2, "fewshot_as_multiturn": multiturn, "system_instruction": "Be brief."}
    expected = theirs(peer, tasks, data, monkeypatch, apply_chat_template=True, gen_kwargs={"max_gen_toks": 8}, **how)
    compare(expected, *ours(model, tasks, data, prompt="chat", gen_kwargs={"max_gen_toks": 8}, **how))


def test_fixed_examples_whole_texts_and_generation(
    peer: Any, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = ["mmlu_anatomy", "truthfulqa_mc1", "truthfulqa_mc2", "lambada_openai", "wikitext", "gsm8k"]
    how: dict[str, Any] = {"gen_kwargs": {"max_gen_toks": 12}}
    compare(theirs(peer, tasks, data, monkeypatch, **how), *ours(model, tasks, data, **how))


def test_their_own_files_run_unchanged(model: Path, data: Path) -> None:
    files = ["hellaswag/hellaswag.yaml", "arc/arc_easy.yaml", "mmlu/default/mmlu_anatomy.yaml", "gsm8k/gsm8k.yaml"]
    how: dict[str, Any] = {"gen_kwargs": {"max_gen_toks": 4}, "limit": 5}
    theirs_, _ = ours(model, [str(LM_EVAL_TASKS / file) for file in files], data, **how)
    ours_, _ = ours(model, ["hellaswag", "arc_easy", "mmlu_anatomy", "gsm8k"], data, **how)
    assert theirs_ == ours_
