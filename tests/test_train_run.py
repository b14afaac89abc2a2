"""Whole runs of `train` on a tiny workshop: golden losses, resume, early stopping, what is refused."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bottega import verbs
from bottega.checkpoint.card import front_matter
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.spec import ModelSpec
from bottega.checkpoint.writer import write_model_files, write_tensors
from bottega.core.atomic import partial_path
from bottega.core.dial import SIZES
from bottega.core.errors import BottegaError, UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.view import Table
from bottega.data.spec import TokensSpec
from bottega.tokenizer.files import write_tokenizer
from bottega.train.config import Train
from bottega.train.metrics import read_metrics
from bottega.train.plan import plan_train
from bottega.train.samples import read_samples
from bottega.verbs.reports import training
from conftest import Workshop

TINY: dict[str, Any] = {
    "layers": 1, "hidden_size": 64, "row_length": 64, "tokens_per_step": 256, "tokens": 20 * 256, "threads": 1,
    "dtype": "float32", "save_every": 4,
}  # fmt: skip
# The model has its own shape, and a row holds the longest conversation of the workshop.
TUNED = {name: value for name, value in TINY.items() if name not in ("layers", "hidden_size")} | {"row_length": 96}

# Losses of the first, tenth and twentieth step. They change when the arithmetic of a stage changes, and then
# the change must be meant.
GOLDEN = {
    ("pretrain", "muon"): (5.9267, 3.9189, 3.0963),
    ("pretrain", "adamw"): (5.9267, 3.7311, 3.0472),
    ("sft", "muon"): (3.3659, 3.1126, 2.9411),
}


def pretrain(workshop: Workshop, out: Path, **settings: Any) -> dict[str, Any]:
    values = {"data": workshop.tokens, "tokenizer": workshop.tokenizer, **TINY, **settings}
    return verbs.train(out=out, **values)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_golden_losses_of_pretraining(workshop: Workshop, tmp_path: Path, optimizer: str) -> None:
    pretrain(workshop, tmp_path / "model", optimizer=optimizer, learning_rate=3e-3)
    got = losses(tmp_path / "model")
    assert len(got) == 20
    assert (got[0], got[9], got[19]) == pytest.approx(GOLDEN["pretrain", optimizer], abs=2e-3)


def test_golden_losses_of_fine_tuning_and_the_whole_folder(workshop: Workshop, tmp_path: Path) -> None:
    pretrain(workshop, tmp_path / "base", learning_rate=3e-3)
    settings = {**TUNED, "learning_rate": 1e-3, "optimizer": "muon"}
    verbs.train(stage="sft", data=workshop.conversations, model=tmp_path / "base", out=tmp_path / "chat", **settings)
    got = losses(tmp_path / "chat")
    assert (got[0], got[9], got[19]) == pytest.approx(GOLDEN["sft", "muon"], abs=2e-3)
    chat = tmp_path / "chat" / "model"
    assert {path.name for path in chat.parent.iterdir()} == {"model", "record.json", "metrics.jsonl"}
    names = {path.name for path in chat.iterdir()}
    weights_and_words = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"}
    assert names >= weights_and_words | {"chat_template.jinja", "README.md", "record.json"}
    assert not any("state" in name for name in names)
    before, after = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("base", "chat"))
    assert all(not torch.equal(before[name], after[name]) for name in before), "a trained tensor did not move"
    stops = json.loads((chat / "generation_config.json").read_text())["eos_token_id"]
    assert stops, "a chat model must know when to stop"


@pytest.mark.slow
def test_a_compiled_run_has_the_same_losses(workshop: Workshop, tmp_path: Path) -> None:
    pretrain(workshop, tmp_path / "plain", tokens=8 * 256)
    pretrain(workshop, tmp_path / "compiled", tokens=8 * 256, compile=True)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=1e-3)


class Interrupt(Quiet):
    """A reporter whose bar raises after some steps, as a signal would between two of them."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Interrupt]:
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("patience", [None, 2])
def test_an_interrupted_run_goes_on_bitwise(workshop: Workshop, tmp_path: Path, patience: int | None) -> None:
    settings = {"heldout": workshop.heldout, "evaluate_every": 3, "patience": patience}
    pretrain(workshop, tmp_path / "whole", **settings)
    for after in (5, 2, 7):
        with pytest.raises(KeyboardInterrupt):
            pretrain(workshop, tmp_path / "parts", reporter=Interrupt(after), **settings)
        assert not (tmp_path / "parts").exists()
    pretrain(workshop, tmp_path / "parts", **settings)
    strip = [
        [{k: v for k, v in row.items() if k not in ("tokens_per_second", "mfu")} for row in read_metrics(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "parts" / "metrics.jsonl")
    ]
    assert strip[0] == strip[1]
    whole, parts = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not partial_path(tmp_path / "parts").exists()


@pytest.mark.parametrize("name", ["00000-of-00001.safetensors", "progress.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40])
def test_a_damaged_state_is_an_error_that_names_it(
    workshop: Workshop, tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain(workshop, tmp_path / "model", reporter=Interrupt(5))
    (state,) = (path for path in partial_path(tmp_path / "model").rglob("state-*") if path.is_dir())
    (state / name).write_bytes(content)
    with pytest.raises(BottegaError, match=rf"{state.name} cannot be read"):
        pretrain(workshop, tmp_path / "model")


def test_early_stopping_keeps_the_best_weights(workshop: Workshop, tmp_path: Path) -> None:
    data = pretrain(
        workshop, tmp_path / "model", heldout=workshop.heldout, evaluate_every=1, patience=2, learning_rate=0.3,
        optimizer="adamw", schedule="constant", warmup=0.0,
    )  # fmt: skip
    assert data["stopped_early"] and data["steps"] < 20
    rows = [row["heldout_loss"] for row in read_metrics(tmp_path / "model" / "metrics.jsonl") if "heldout_loss" in row]
    assert min(rows) == rows[-3]
    assert data["heldout_loss"] == rows[-3], "the loss of the weights that are kept"
    found = verbs.eval(model=str(tmp_path / "model"), text=workshop.corpus, context=64, threads=1)
    worse = pretrain(
        workshop, tmp_path / "last", learning_rate=0.3, optimizer="adamw", schedule="constant", warmup=0.0,
        tokens=256 * data["steps"],
    )  # fmt: skip
    assert worse["steps"] == data["steps"]
    assert (
        found["bits_per_byte"]
        < verbs.eval(model=str(tmp_path / "last"), text=workshop.corpus, context=64, threads=1)["bits_per_byte"]
    )


class Said(Quiet):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_samples_are_shown_while_training_and_change_nothing(workshop: Workshop, tmp_path: Path) -> None:
    reporter, prompts = Said(), ("The river", "# Notes")
    pretrain(workshop, tmp_path / "plain")
    pretrain(workshop, tmp_path / "shown", prompts=prompts, sample_every=10, reporter=reporter)
    shown = [re.match(r"\s*step (\d+) · '(.+)' → '(.+)'$", line) for line in reporter.lines]
    found = [(int(match[1]), match[2]) for match in shown if match]
    assert found == [(step, prompt) for step in (0, 10, 20) for prompt in prompts]
    last = [match[3] for match in shown if match][-2]
    assert ast.literal_eval(f"'{last}'") == greedy(tmp_path / "shown", prompts[0])
    written = read_samples(tmp_path / "shown" / "samples.jsonl")
    assert [(row["step"], row["prompt"]) for row in written] == found
    assert losses(tmp_path / "shown") == losses(tmp_path / "plain")


def greedy(model: Path, prompt: str) -> str:
    return verbs.generate(model=str(model), prompt=prompt, temperature=0.0, max_new_tokens=64, threads=1)["text"]


def test_tensorboard_reads_what_training_logged(workshop: Workshop, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = {"heldout": workshop.heldout, "evaluate_every": 10, "trackers": ["tensorboard"]}
    pretrain(workshop, tmp_path / "model", **settings)
    events = accumulator.EventAccumulator(str(tmp_path / "model" / "tensorboard")).Reload()
    rows = read_metrics(tmp_path / "model" / "metrics.jsonl")
    for name in ("loss", "learning_rate", "gradient_norm", "heldout_loss"):
        expected = [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row]
        assert expected and [(event.step, event.value) for event in events.Scalars(name)] == expected


def test_data_of_another_tokenizer_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    verbs.tokenizer_train(data=workshop.corpus, vocab_size=300, out=tmp_path / "other")
    with pytest.raises(UserError, match="tokenizer"):
        pretrain(workshop, tmp_path / "model", tokenizer=tmp_path / "other")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rte": 1.0}, "learning_rate"),
        ({"epochs": 1.0}, "tokens or epochs"),
        ({"tokens": None, "epochs": float("inf")}, "epochs"),
        ({"tokens": None, "epochs": 1e300}, "epochs"),
        ({"tokens": 10**400}, "tokens"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"stage": "sft"}, "model to start from"),
        ({"hidden_size": 100}, "multiple of 64"),
        ({"trackers": ["wandb"]}, "wandb is not installed"),
        ({"patience": 2}, "patience needs heldout"),
        ({"dtype": "float16"}, "float32 or bfloat16"),
        ({"seed": -1}, "seed"),
        ({"model": "base"}, "for a new model"),
        ({"heldout": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_settings_are_said(workshop: Workshop, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        pretrain(workshop, tmp_path / "model", **settings)
    assert message in str(error.value)
    assert not (tmp_path / "model").exists()


def test_heldout_tokens_must_fit_the_data(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="held-out data: conversations"):
        pretrain(workshop, tmp_path / "model", heldout=workshop.conversations)
    verbs.tokenizer_train(data=workshop.corpus, vocab_size=300, out=tmp_path / "other")
    verbs.data_prepare(data=workshop.corpus, tokenizer=tmp_path / "other", split="heldout", out=tmp_path / "heldout")
    with pytest.raises(UserError, match="held-out tokenizer"):
        pretrain(workshop, tmp_path / "model", heldout=tmp_path / "heldout")


def test_held_out_tokens_that_measure_nothing_are_refused_by_the_plan(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("\n\n".join(f"A paragraph without a heading, number {n}." for n in range(99)))
    verbs.data_collect(source=str(tmp_path / "plain.txt"), out=tmp_path / "corpus")
    verbs.data_prepare(data=tmp_path / "corpus", tokenizer=workshop.tokenizer, kind="chat", out=tmp_path / "empty")
    with pytest.raises(UserError, match="held-out data: nothing to measure on"):
        pretrain(workshop, tmp_path / "model", heldout=tmp_path / "empty")


def test_a_fine_tuned_model_says_the_precision_it_is_stored_in(workshop: Workshop, tmp_path: Path) -> None:
    pretrain(workshop, tmp_path / "base", tokens=256)
    base, half = ModelFolder.open(tmp_path / "base"), tmp_path / "half"
    half.mkdir()
    write_tensors(half, {name: tensor.load().bfloat16() for name, tensor in base.tensors.items()})
    write_tokenizer(tmp_path / "base", half)
    write_model_files(half, replace(base.config, dtype="bfloat16"))
    verbs.train(stage="sft", data=workshop.conversations, model=half, out=tmp_path / "chat", **TUNED)
    stored = {str(tensor.load().dtype) for tensor in ModelFolder.open(tmp_path / "chat").tensors.values()}
    assert stored == {f"torch.{ModelFolder.open(tmp_path / 'chat').config.dtype}"}


def test_plain_text_is_no_data_for_fine_tuning(workshop: Workshop, tmp_path: Path) -> None:
    pretrain(workshop, tmp_path / "base", tokens=256)
    with pytest.raises(UserError, match="sft on plain text"):
        verbs.train(stage="sft", data=workshop.tokens, model=tmp_path / "base", out=tmp_path / "chat", **TUNED)


def test_fine_tuning_that_trains_no_stop_token_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    pretrain(workshop, tmp_path / "base", tokens=256)
    talk = "The river keeps the stone. " * 40
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": talk}]
    rows = [{"messages": messages} for _ in range(6)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verbs.data_prepare(data=tmp_path / "long.jsonl", tokenizer=workshop.tokenizer, kind="chat", out=tmp_path / "long")
    places = {"data": tmp_path / "long", "model": tmp_path / "base", "out": tmp_path / "chat"}
    settings = {"stage": "sft", **places, **TUNED}
    with pytest.raises(UserError, match="no token that ends an answer is trained") as error:
        verbs.train(**settings)
    longest = json.loads((tmp_path / "long" / "manifest.json").read_text())["longest"]
    assert f"row_length={longest}" in error.value.hint and not (tmp_path / "chat").exists()
    plan = plan_train(Train.parse(settings), Specs())
    assert any(check.name == "row length" and str(longest) in check.detail for check in plan.checks)
    rows += [{"messages": [messages[0], {"role": "assistant", "content": "The river."}]}]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verbs.data_prepare(data=tmp_path / "long.jsonl", tokenizer=workshop.tokenizer, kind="chat", out=tmp_path / "mixed")
    data = verbs.train(**{**settings, "data": tmp_path / "mixed"})
    assert (data["conversations_truncated"], data["conversations_dropped"]) == (6, 0)
    assert "6 conversations, which were cut there" in (tmp_path / "chat" / "model" / "README.md").read_text()


def test_the_card_passes_licences_and_the_base_on(workshop: Workshop, tmp_path: Path) -> None:
    base, chat, corpus = tmp_path / "base", tmp_path / "chat", tmp_path / "corpus"
    shutil.copytree(workshop.corpus, corpus)
    manifest = json.loads((corpus / "corpus.json").read_text())
    (corpus / "corpus.json").write_text(json.dumps(manifest | {"license": "PSF-2.0"}))
    verbs.data_prepare(data=corpus, tokenizer=workshop.tokenizer, out=tmp_path / "tokens")
    pretrain(workshop, base, data=tmp_path / "tokens", tokens=256)
    card = (base / "model" / "README.md").read_text()
    assert "Licence of the text: PSF-2.0." in card and "license" not in front_matter(card)
    (base / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    for empty in (False, True):
        data = workshop.conversations
        if empty:
            (corpus / "conversations.jsonl").write_text("")
            verbs.data_prepare(data=corpus, tokenizer=workshop.tokenizer, kind="chat", out=tmp_path / "none")
            data = tmp_path / "none"
        settings = {
            "stage": "sft",
            "data": data,
            "model": base,
            "out": chat / str(empty),
            "when_empty": "copy",
            **TUNED,
        }
        plan = plan_train(Train.parse(settings), Specs())
        assert isinstance(plan.produces, ModelSpec) and plan.produces.licence == "apache-2.0"
        assert any("model: apache-2.0" in check.detail for check in plan.checks)
        assert bool(verbs.train(**settings).get("copied")) == empty
        assert ModelSpec.read(chat / str(empty)).licence == "apache-2.0"
        card = (chat / str(empty) / "model" / "README.md").read_text()
        assert front_matter(card)["base_model"] == "base" and str(tmp_path) not in card


def test_fine_tuning_by_the_dial_sees_every_conversation(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(workshop, tmp_path / "base", tokens=256)
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], finetune_tokens=256))
    settings = {**TUNED, "stage": "sft", "data": workshop.conversations, "model": tmp_path / "base", "size": "tiny"}
    del settings["tokens"]
    planned = plan_train(Train.parse({**settings, "out": tmp_path / "chat"}), Specs()).details["settings"].tokens
    conversations = TokensSpec.read(workshop.conversations)
    data = verbs.train(**settings, out=tmp_path / "chat")
    assert planned >= conversations.tokens and data["passes"] >= 1
    assert verbs.train(**settings, out=tmp_path / "few", tokens=256)["passes"] < 1, "what the user says counts"
    notes = [
        block.note for block in training(tmp_path / "few") + training(tmp_path / "chat") if isinstance(block, Table)
    ]
    assert "Less than one pass" in notes[0] and not notes[1]


def test_a_diverging_run_stops_and_says_so(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(BottegaError, match=r"is (nan|inf)"):
        pretrain(workshop, tmp_path / "model", optimizer="adamw", learning_rate=1e18, on_bad_step="stop")
