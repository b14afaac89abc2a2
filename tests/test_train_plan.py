"""The plan of `train`: what it foresees, and what it refuses before anything is read."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bottega import verbs
from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.core.plan import Plan, Specs
from bottega.core.view import Table
from bottega.data.spec import TokensSpec
from bottega.train.config import Train
from bottega.train.cost import forward_flops, run_flops
from bottega.train.extent import Extent
from bottega.train.plan import plan_train
from bottega.train.refusals import model_checks
from bottega.train.settings import resolve
from conftest import THINGS, Workshop

TINY = {"layers": 1, "hidden_size": 64, "row_length": 64, "tokens_per_step": 256, "tokens": 256, "threads": 1}
LORA = {"type": "lora", "r": 4}
MODEL = ModelConfig(
    vocab_size=1000, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=4096, tie_word_embeddings=True,
)  # fmt: skip
ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {"prompt": f"What does the {thing} keep?", "chosen": f"The {thing} keeps.", "rejected": f"No {thing}, no, no."}
        for thing in THINGS
    ],
    "labelled": [
        {"prompt": f"What of the {thing}?", "completion": f"The {thing}.", "label": n % 2 == 0}
        for n, thing in enumerate(THINGS)
    ],
    "prompts": [{"prompt": f"Say {thing}.", "answer": thing} for thing in THINGS],
    "chat": [
        {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": f"The {thing}."}]}
        for thing in THINGS
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def base(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer has a chat template."""
    out = tmp_path_factory.mktemp("plan") / "base"
    verbs.train(data=workshop.tokens, tokenizer=workshop.tokenizer, out=out, dtype="float32", **TINY)
    return out


def written(folder: Path, form: str, rows: list[dict[str, Any]] | None = None) -> Path:
    path = folder / f"{form}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS[form]))
    return path


def planned(base: Path, folder: Path, stage: str, data: Path, **settings: Any) -> Plan:
    values = {"stage": stage, "data": data, "model": base, "out": folder / "out", "dtype": "float32", "threads": 1}
    return plan_train(Train.parse({**values, **settings}), Specs())


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(UserError) as error:
        yield
    assert words in f"{error.value.message} {error.value.hint}", error.value.message


# ------------------------------------------------------------------ what is foreseen


def test_the_plan_tells_share_operations_and_memory_by_kind(base: Path, tmp_path: Path) -> None:
    plan = planned(base, tmp_path, "dpo", written(tmp_path, "pairs"), adapter=LORA, max_steps=4, batch_size=5)
    plan.require()
    data = json.loads(json.dumps(plan.as_data(), default=str))
    kinds = {"weights", "gradients", "optimizer", "activations", "logits", "process", "total"}
    assert kinds <= data["memory"].keys() and data["memory"]["total"] == data["cost"]["peak_memory"]
    trained = verbs.train(
        stage="dpo", data=tmp_path / "pairs.jsonl", model=base, out=tmp_path / "dpo", adapter=LORA, max_steps=1,
        batch_size=5, dtype="float32", threads=1,
    )  # fmt: skip
    assert trained["steps"] == 1
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "dpo" / "adapter" / "adapter_model.safetensors").values()
    assert data["trainable"]["trained"] == sum(tensor.numel() for tensor in tensors)
    assert data["trainable"]["share"] == pytest.approx(data["trainable"]["trained"] / data["trainable"]["parameters"])
    assert sum(data["flops"].values()) == data["cost"]["flops"] and data["flops"].keys() == {"training", "reference"}
    tables = [block for block in plan.view() if isinstance(block, Table)]
    assert [table.title for table in tables] == ["Plan: train", "Training", "Memory"]
    assert kinds - {"total"} | {"at its highest"} <= {row[0] for row in tables[2].rows}


@pytest.mark.parametrize(("stage", "form"), [("sft", "chat"), ("dpo", "pairs"), ("kto", "labelled"), ("orpo", "pairs")])
def test_tokens_are_foreseen_from_the_first_rows(base: Path, tmp_path: Path, stage: str, form: str) -> None:
    settings: dict[str, Any] = {"adapter": LORA, "max_steps": 2, "batch_size": 5}
    plan = planned(base, tmp_path, stage, written(tmp_path, form), **settings)
    values = {"stage": stage, "data": tmp_path / f"{form}.jsonl", "model": base, "out": tmp_path / "run"}
    found = verbs.train(**values, **settings, dtype="float32", threads=1)
    assert plan.details["settings"].tokens == pytest.approx(found["tokens"], rel=0.1)
    foreseen = found["tokens"] * plan.figures["extent"]["trained"]
    assert foreseen == pytest.approx(found["trained_tokens"], rel=0.15)


def test_only_estimates_are_told_with_about(base: Path, tmp_path: Path, workshop: Workshop) -> None:
    few, many = written(tmp_path, "pairs"), tmp_path / "many.jsonl"
    many.write_text(few.read_text() * 100)

    def told(stage: str, data: Path, **settings: Any) -> str:
        return planned(base, tmp_path, stage, data, **settings).work[1]

    # Ten rows are all looked at; of a thousand, their number is an estimate, and so are the passes.
    assert told("dpo", few, batch_size=5).startswith("2 steps of 5 pairs = about ") and "about" not in told(
        "dpo", few, batch_size=5
    ).rpartition("tokens, ")[2]
    assert told("dpo", many, batch_size=5).startswith("about ") and "tokens, about " in told("dpo", many, batch_size=5)
    assert told("dpo", many, batch_size=5, max_steps=3).startswith("3 steps of 5 pairs = about ")
    # Rows of plain text are full; those of conversations as full as packing makes them.
    assert "about" not in told("pretrain", workshop.tokens, tokens=512, tokens_per_step=256, row_length=64)
    packed = told("sft", workshop.conversations, tokens_per_step=256, row_length=64, size="tiny")
    assert packed.startswith("about ") and " = about " in packed
    # However many passes, it says how many steps.
    assert told("dpo", few, batch_size=5, max_steps=1000).startswith("1,000 steps of 5 pairs")


def test_rows_that_cannot_be_used_are_told_and_not_counted(base: Path, tmp_path: Path) -> None:
    """Every third row calls a tool, which the template has no place for; of three hundred only the first are looked at.
    """
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}], "content": ""}
    talk = ROWS["chat"][0]["messages"]
    data = tmp_path / "talk.jsonl.gz"
    rows = [{"messages": [talk[0], call] if n % 3 == 0 else talk} for n in range(300)]
    data.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    plan = planned(base, tmp_path, "sft", data, adapter=LORA, batch_size=10)
    (told,) = [check for check in plan.checks if check.name == "examples"]
    assert told.passed and "22 of the first 64 rows cannot be used: tool_calls, for which the chat" in told.detail
    assert plan.details["settings"].steps == pytest.approx(20, abs=2)
    whole = planned(base, tmp_path, "sft", written(tmp_path, "chat")).checks
    assert "examples" not in {check.name for check in whole}


def flops(stage: str = "pretrain", **settings: Any) -> dict[str, float]:
    """Of one step on 8 examples (or 800 tokens) of 100 tokens, half of them trained."""
    from bottega.train.config import FORMS

    form = FORMS[stage]
    rows = {"tokens_per_step": 800, "row_length": 100} if stage == "pretrain" else {"batch_size": 8}
    values = {"stage": stage, "data": "d", "model": "m", "out": "o", "max_steps": 1, **rows, **settings}
    documents = 16 if form == "pairs" else 8
    data = TokensSpec(
        tokens=100 * documents, documents=documents, trained_tokens=50 * documents, vocab_size=1000, tokenizer_hash="",
        template_hash="", chat=form == "chat", longest=100, exact=True, form=form,
    )  # fmt: skip
    resolved = resolve(Train.parse(values), MODEL, data)
    return run_flops(resolved, MODEL, data, Extent.of(resolved, data), 0)


BODY = 2 * (MODEL.parameter_count() - 1000 * 64)  # an embedding is looked up; as the head it multiplies
HEAD, ATTENTION = 2 * 1000 * 64 * 0.5, 2 * 2 * 64 * 100


def test_operations_are_six_four_and_two_a_weight() -> None:
    assert flops() == {"training": 800 * 3 * (BODY + HEAD + ATTENTION)}
    frozen = flops(adapter=LORA)
    assert frozen == {"training": 800 * (2 * (BODY + HEAD) + 3 * ATTENTION)}
    again = flops(checkpointing="full")
    assert again["checkpointing"] == 800 * (BODY + ATTENTION)


def test_operations_of_references_and_rollouts() -> None:
    passed = BODY + HEAD + ATTENTION
    assert flops("dpo", adapter=LORA)["reference"] == 1600 * passed
    # Its answer and another's once by the reference, and another's once more in the step.
    assert flops("kto", adapter=LORA)["reference"] == 3 * 800 * passed
    assert "reference" not in flops("orpo", adapter=LORA)
    rewards, policy = [{"type": "exact"}], {"group": 4, "max_new_tokens": 50}
    drawn = flops("grpo", rewards=rewards, policy=policy)
    weights = MODEL.parameter_count()
    assert drawn["rollouts"] == 2 * weights * 8 * (100 + 4 * 50) and "reference" not in drawn
    held = flops("grpo", rewards=rewards, policy={**policy, "beta": 0.1}, adapter=LORA)
    each = forward_flops(MODEL, Extent(100, 8 * 4 * 150, 4800, 1 / 3, 1, cached=150)).total
    assert held["reference"] == pytest.approx(8 * 4 * 150 * each)


def test_a_large_context_is_not_taken_for_the_length_of_examples() -> None:
    data = TokensSpec(
        tokens=4000, documents=40, trained_tokens=2000, vocab_size=1000, tokenizer_hash="", template_hash="",
        chat=False, longest=120, exact=True, form="pairs",
    )  # fmt: skip
    values = {"stage": "dpo", "data": "d", "model": "m", "out": "o", "batch_size": 1}
    settings = resolve(Train.parse(values), replace(MODEL, max_position_embeddings=131072), data)
    extent = Extent.of(settings, data)
    assert settings.row_length == 131072 and (extent.part, extent.step, extent.document) == (240, 200, 100)


# ------------------------------------------------------------------ what is refused


def test_answers_that_are_cut_off_are_refused(base: Path, tmp_path: Path) -> None:
    question = "What does the river keep, and what does the bridge carry? " * 8
    rows = [{**row, "prompt": question} for row in ROWS["pairs"]]
    with refused("row length: 32 tokens: 10 of the first 10 examples would have nothing left to train on"):
        planned(base, tmp_path, "dpo", written(tmp_path, "pairs", rows), adapter=LORA, row_length=32).require()
    few = [*rows[:3], *ROWS["pairs"]]
    plan = planned(base, tmp_path, "dpo", written(tmp_path, "pairs", few), adapter=LORA, row_length=64)
    plan.require()  # some are left
    assert any("3 of the first 13" in check.detail for check in plan.checks)


def test_prompts_longer_than_a_row_are_refused(base: Path, tmp_path: Path) -> None:
    data, rewards = written(tmp_path, "prompts"), [{"type": "exact"}]
    with refused("10 of the first 10 prompts are longer. Raise row_length to "):
        planned(base, tmp_path, "grpo", data, adapter=LORA, row_length=8, rewards=rewards).require()


@pytest.mark.parametrize("prepared", [False, True])
def test_rewards_without_their_answers_are_refused(base: Path, tmp_path: Path, prepared: bool) -> None:
    data = written(tmp_path, "prompts")
    if prepared:
        verbs.data_prepare(data=data, tokenizer=base / "model", kind="prompts", out=tmp_path / "tokens")
        data = tmp_path / "tokens"
    rewards = [{"type": "exact", "field": "solution"}]
    policy = {"max_new_tokens": 8}
    with refused("10 of 10 prompts have no field 'solution'"):
        planned(base, tmp_path, "grpo", data, adapter=LORA, rewards=rewards, policy=policy).require()
    planned(base, tmp_path, "grpo", data, adapter=LORA, rewards=[{"type": "exact"}], policy=policy).require()
    with refused("there is no nowhere"):
        rewards = [{"type": "model", "path": "nowhere"}]
        planned(base, tmp_path, "grpo", data, adapter=LORA, rewards=rewards, policy=policy).require()


def test_a_reward_model_of_an_earlier_step_is_taken_to_be_there(base: Path, tmp_path: Path) -> None:
    specs, later = Specs(), tmp_path / "later"
    specs.predict(later, TokensSpec(0, 0, 0, 0, "", "", False))
    values = {
        "stage": "grpo", "data": written(tmp_path, "prompts"), "model": base, "out": tmp_path / "o", "adapter": LORA,
        "rewards": [{"type": "model", "path": str(later)}], "policy": {"max_new_tokens": 8},
    }  # fmt: skip
    plan = plan_train(Train.parse(values), specs)
    plan.require()
    assert plan.inputs["scored_by.0"] == later


def test_conversations_whose_end_is_not_trained_are_refused(base: Path, tmp_path: Path) -> None:
    data = written(tmp_path, "chat")
    planned(base, tmp_path, "sft", data, row_length=96).require()
    with refused("no token that ends an answer is trained in the first 10 conversations: give train_on_eos: turn"):
        planned(base, tmp_path, "sft", data, row_length=96, train_on_eos="none").require()
    long = [
        {"messages": [ROWS["chat"][0]["messages"][0], {"role": "assistant", "content": "The river keeps it. " * 30}]}
    ] * 4
    with refused("the ends of the first 4 conversations are cut off at 48 tokens: give a larger row_length"):
        planned(base, tmp_path, "sft", written(tmp_path, "chat", long), row_length=48).require()


def test_examples_without_anything_to_train_on_are_refused(base: Path, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"What of the {thing}?"}]} for thing in THINGS]
    with refused("none of the first"):
        planned(base, tmp_path, "sft", written(tmp_path, "chat", rows)).require()


def test_adapters_that_do_not_fit_the_model_are_refused(base: Path, tmp_path: Path) -> None:
    data = written(tmp_path, "pairs")
    with refused("a llama model has no 'q_projection'"):
        planned(base, tmp_path, "dpo", data, adapter={**LORA, "target_modules": ["q_projection"]}).require()
    with refused("pissa: a matrix has 64 singular directions, r is 100: give r: 64 at most"):
        planned(base, tmp_path, "dpo", data, adapter={**LORA, "r": 100, "init": "pissa"}).require()
    with refused("new tokens: auto are those that `bottega tokenizer extend` added, and there are none"):
        planned(base, tmp_path, "dpo", data, adapter={**LORA, "new_tokens": "auto"}).require()


def test_offload_on_a_cpu_is_refused(base: Path, tmp_path: Path) -> None:
    data = written(tmp_path, "pairs")
    with refused("this run is on the CPU: take checkpointing: full"):
        planned(base, tmp_path, "dpo", data, adapter=LORA, checkpointing="offload", device="cpu").require()


def test_a_quantised_model_is_not_trained_as_a_whole() -> None:
    whole = Train.parse({"stage": "sft", "data": "d", "model": "m", "out": "o"})
    adapted = Train.parse({"stage": "sft", "data": "d", "model": "m", "out": "o", "adapter": {"type": "qlora"}})
    (found,) = [check for check in model_checks(whole, MODEL, "nf4", "cpu", None) if not check.passed]
    assert "adapter: {type: qlora}" in found.detail
    assert all(check.passed for check in model_checks(adapted, MODEL, "nf4", "cpu", None))
    assert not model_checks(whole, MODEL, "", "cpu", None)


def test_more_memory_than_there_is_is_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottega.core import machine

    small = replace(machine.facts(), memory_available=300 * 2**20)
    monkeypatch.setattr(machine, "facts", lambda *_: small)
    with refused("memory: needs about"):
        planned(base, tmp_path, "dpo", written(tmp_path, "pairs"), adapter=LORA).require()


def test_a_plan_loads_no_torch(base: Path, tmp_path: Path) -> None:
    code = (
        "import sys, json; from bottega.train.plan import plan_train; from bottega.train.config import Train\n"
        "from bottega.core.plan import Specs\n"
        "plan_train(Train.parse(json.loads(sys.argv[1])), Specs()).require(); print('torch' in sys.modules)"
    )
    values = {"stage": "dpo", "data": str(written(tmp_path, "pairs")), "model": str(base), "out": str(tmp_path / "o")}
    words = [sys.executable, "-c", code, json.dumps({**values, "adapter": LORA, "device": "cpu"})]
    assert subprocess.run(words, capture_output=True, check=True, text=True).stdout.strip() == "False"


def test_prompts_of_samples_without_a_chat_template_are_plain_text(base: Path, tmp_path: Path) -> None:
    """As the data's are then; the run does what the plan says."""
    bare = shutil.copytree(base / "model", tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    config = json.loads((bare / "tokenizer_config.json").read_text())
    (bare / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    settings = {"adapter": LORA, "max_steps": 1, "batch_size": 5, "prompts": ["The river"], "compare": False}
    for model, said in ((base, False), (bare, True)):
        checks = planned(model, tmp_path, "dpo", written(tmp_path, "pairs"), **settings).checks
        assert any(check.name == "prompts" and "are plain text" in check.detail for check in checks) == said
    values = {"stage": "dpo", "data": tmp_path / "pairs.jsonl", "model": bare, "out": tmp_path / "run", **settings}
    verbs.train(**values, dtype="float32", threads=1)
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [(row["step"], row["prompt"]) for row in rows] == [(0, "The river"), (1, "The river")]


# ------------------------------------------------------------------ time


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_predicted_over_actual_seconds_of_fine_tuning(workshop: Workshop, tmp_path: Path, stage: str) -> None:
    """An adapter on a model of four layers. The rates are measured just before, as what else runs slows down both."""
    base = tmp_path / "base"
    shape = {**TINY, "layers": 4, "hidden_size": 256, "row_length": 256}
    verbs.train(data=workshop.tokens, tokenizer=workshop.tokenizer, out=base, dtype="float32", **shape)
    rows = [{**row, "chosen": row["chosen"] * 4, "rejected": row["rejected"] * 4} for row in ROWS["pairs"]] * 12
    data = written(tmp_path, "pairs", rows) if stage == "dpo" else workshop.conversations
    settings = {
        "stage": stage, "data": data, "model": base, "adapter": '{"type": "lora", "r": 8}', "max_steps": 10,
        "batch_size": 24, "threads": 1, "dtype": "float32", "save_every": 1000, "row_length": 256,
    }  # fmt: skip
    words = [sys.executable, "-m", "bottega", "train", *(f"{name}={value}" for name, value in settings.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)}
    ratios = []
    for number in range(3):
        (tmp_path / "bottega" / "machine.json").unlink(missing_ok=True)
        out = [f"out={tmp_path / str(number)}"]
        plan = subprocess.run([*words, *out, "--plan", "--json"], capture_output=True, check=True, env=environment)
        foreseen = json.loads(plan.stdout)["cost"]["seconds"]
        started = time.perf_counter()
        subprocess.run([*words, *out], capture_output=True, check=True, env=environment)
        ratios.append(foreseen / (time.perf_counter() - started))
    print("predicted over actual:", [round(ratio, 2) for ratio in ratios])
    assert 0.5 <= statistics.median(ratios) <= 2.0, ratios
