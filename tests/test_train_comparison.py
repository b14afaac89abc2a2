"""The comparison of a trained model with its start: against two whole models compared by `eval`, and by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega import verbs
from bottega.checkpoint.card import front_matter, model_card
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.record import Record, read_record
from bottega.core.view import Table
from bottega.data.batches import Batches
from bottega.data.examples import Examples
from bottega.data.raw import prepare_raw
from bottega.model.load import load_decoder
from bottega.model.load_quantised import load_quantised
from bottega.model.lora import adapter_parameters, add_adapter
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.card import card_text
from bottega.train.comparison import compare_texts, held_out, joined_findings, start_of
from bottega.train.comparison_text import PYTHON, comparison_checks, general_text
from bottega.train.comparison_view import TOO_LITTLE, comparison_blocks, comparison_lines, verdict
from bottega.train.config import Train
from bottega.train.plan import plan_train
from bottega.train.stage import Machine
from bottega.train.trainee import make_trainee
from conftest import Workshop

PLAIN: dict[str, Any] = {"threads": 1, "dtype": "float32", "row_length": 96}
BUDGET = 3000


@pytest.fixture(scope="module")
def base(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start") / "base"
    verbs.train(
        data=workshop.tokens, tokenizer=workshop.tokenizer, layers=1, hidden_size=64, tokens_per_step=512,
        tokens=10 * 512, out=out, **PLAIN,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def text(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short documents, none of which is cut in pieces."""
    file = tmp_path_factory.mktemp("text") / "general.jsonl"
    lines = (workshop.corpus / "heldout.jsonl").read_text().splitlines()
    rows = [{"text": json.loads(line)["text"][:300]} for line in lines]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    return file


@pytest.fixture(scope="module")
def tuned(workshop: Workshop, base: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole model and an adapter, fine-tuned with a comparison."""
    root = tmp_path_factory.mktemp("tuned")
    settings = {**PLAIN, "stage": "sft", "model": base, "data": workshop.conversations, "max_steps": 4}
    settings |= {"compare": True, "compare_text": text, "evaluate_tokens": BUDGET}
    verbs.train(
        heldout=workshop.conversations, tokens_per_step=512, learning_rate=3e-3, out=root / "whole", **settings
    )
    verbs.train(
        adapter={"type": "lora", "r": 4, "dropout": 0.5}, tokens_per_step=512, learning_rate=2e-2, tasks=("smoke",),
        out=root / "lora", **settings,
    )  # fmt: skip
    return {name: root / name for name in ("whole", "lora")}


def record_of(folder: Path) -> Record:
    record = read_record(folder)
    assert record is not None
    return record


FIGURES = ("kl_mean", "kl_p99", "top1_agreement", "bits_per_byte", "perplexity", "bits_per_byte_difference")


def test_a_whole_model_is_compared_as_eval_compares_two_folders(
    tuned: dict[str, Path], base: Path, text: Path
) -> None:
    found = record_of(tuned["whole"]).metrics["comparison"]["general"]
    wanted = verbs.eval(
        model=str(tuned["whole"]), against=str(base), text=_head(text, found["documents"]), threads=1, dtype="float32"
    )
    assert found["kl_mean"] > 1e-4, "nothing was learned, so nothing was compared"
    assert found["text"] == "general.jsonl"
    for name in FIGURES:
        assert found[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name


def _head(text: Path, documents: int) -> Path:
    """The documents that fitted into the budget."""
    file = text.with_name("head.jsonl")
    file.write_text("".join(line + "\n" for line in text.read_text().splitlines()[:documents]))
    return file


def test_an_adapter_is_compared_with_the_decoder_without_it(tuned: dict[str, Path], base: Path, text: Path) -> None:
    """The oracle reads base and adapter anew, as two models."""
    found = record_of(tuned["lora"]).metrics["comparison"]["general"]
    wanted = verbs.eval(
        model=str(base), adapter=(str(tuned["lora"] / "adapter"),), against=str(base),
        text=_head(text, found["documents"]), threads=1, dtype="float32",
    )  # fmt: skip
    assert found["kl_mean"] > 1e-4
    for name in FIGURES:
        assert found[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-5), name
    assert found["reference"]["bits_per_byte"] == pytest.approx(wanted["reference"]["bits_per_byte"], rel=1e-5)


def test_of_held_out_conversations_the_answers_count(tuned: dict[str, Path], workshop: Workshop) -> None:
    """The oracle passes each conversation through the model by itself and adds up what its mask names."""
    found = record_of(tuned["whole"]).metrics["comparison"]["heldout"]
    model, (nats, tokens, size) = load_decoder(tuned["whole"] / "model").eval(), (0.0, 0, 0)
    for ids, mask in _conversations(workshop.conversations, BUDGET):
        with torch.no_grad():
            log_probs = model(ids[None])[0].log_softmax(-1)
        nats -= float(log_probs[:-1].gather(1, ids[1:, None])[:, 0][mask[1:]].sum())
        tokens += int(mask[1:].sum())
        size += len(Tokenizer.load(workshop.tokenizer).decode(ids[mask].tolist(), skip_special=False).encode())
    assert found["compared_tokens"] == tokens and found["bytes"] == size
    assert found["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert found["bits_per_byte_difference"] < 0 and verdict(found) == "better than the start"


def _conversations(folder: Path, budget: int) -> Iterator[tuple[Tensor, Tensor]]:
    rows = Batches(folder, row_length=96, seed=0)
    for index in range(rows.epoch_rows):
        row, start = rows.rows(index, 1)[0], 0
        for length in row.lengths:
            if budget <= 0:
                return
            end = start + length
            yield torch.from_numpy(row.tokens[start:end]), torch.from_numpy(row.mask[start:end])
            start, budget = start + length, budget - length


def test_of_pairs_the_chosen_answers_count(workshop: Workshop, tmp_path: Path) -> None:
    rows = [{"prompt": "What opens?", "chosen": f"The river {n}.", "rejected": "A wall."} for n in range(9)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = prepare_raw(source, "pairs", workshop.tokenizer, tmp_path)
    tokenizer = Tokenizer.load(workshop.tokenizer)
    held = held_out(Examples(folder, row_length=64, seed=0), tokenizer, 10**6)
    assert [f"river {n}" in each.content.decode() for n, each in enumerate(held.documents)] == [True] * 9
    assert not any("What" in each.content.decode() for each in held.documents)
    assert len(held_out(Examples(folder, row_length=64, seed=0), tokenizer, 1).documents) == 1


def test_of_judged_answers_the_good_ones_count(workshop: Workshop, tmp_path: Path) -> None:
    rows = [{"prompt": "What opens?", "completion": f"The river {n}.", "label": n % 3 == 0} for n in range(9)]
    source = tmp_path / "judged.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = prepare_raw(source, "labelled", workshop.tokenizer, tmp_path)
    held = held_out(Examples(folder, row_length=64, seed=0), Tokenizer.load(workshop.tokenizer), 10**6)
    said = "".join(each.content.decode() for each in held.documents)
    assert [n for n in range(9) if f"river {n}" in said] == [0, 3, 6]


@pytest.mark.parametrize("adapter", [{}, {"init": "pissa"}, {"type": "qlora"}, {"use_dora": True}])
def test_the_start_is_the_base_whatever_the_adapter(base: Path, text: Path, adapter: dict[str, Any]) -> None:
    """The changed decoder, with its adapter off, against the base read anew (rounded as the adapter's base is)."""
    config = settings(base, text, adapter={"r": 4, **adapter}, compare_text=text)
    assert config.adapter is not None
    machine = Machine(torch.device("cpu"), torch.float32, None)
    model = make_trainee(config, ModelFolder.open(base / "model").config, machine)
    with torch.no_grad():
        for number, parameter in enumerate(adapter_parameters(model).values()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    found = compare_texts(config, model, Tokenizer.load(base / "model"), None, 2048, Quiet())["general"]
    if config.adapter.base == "none":
        wanted = load_decoder(base / "model")
    else:
        wanted = load_quantised(base / "model", config.adapter.base)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        start = start_of(config, model.eval())
        assert torch.allclose(start.logits(start.hidden(ids)), wanted.eval()(ids), atol=1e-5)
        assert not torch.allclose(model(ids), wanted(ids), atol=1e-2)
    assert found["kl_mean"] > 1e-3


def test_nothing_trained_is_no_difference(base: Path, text: Path) -> None:
    config = settings(base, text, adapter={"r": 4}, compare_text=text)
    model = load_decoder(base / "model")
    assert config.adapter is not None
    add_adapter(model, config.adapter, torch.Generator().manual_seed(0))
    found = compare_texts(config, model, Tokenizer.load(base / "model"), None, 2048, Quiet())["general"]
    assert found["kl_mean"] == 0 and found["top1_agreement"] == 1 and verdict(found) == "no difference shown"


def test_an_error_is_told_and_is_no_figure(base: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    config = settings(base, text, adapter={"r": 4}, compare_text=tmp_path / "empty.txt")
    model = load_decoder(base / "model")
    found = compare_texts(config, model, Tokenizer.load(base / "model"), None, 2048, Quiet())
    assert set(found) == {"errors"} and "no text" in found["errors"]["general"]
    both = joined_findings(found, {"errors": {"tasks": "none could be asked"}})
    assert both["errors"] == {**found["errors"], "tasks": "none could be asked"}
    (table,) = comparison_blocks(both)
    assert isinstance(table, Table) and [row[1] for row in table.rows] == list(both["errors"].values())
    assert len(comparison_lines(both)) == 2 and "could not be compared" in comparison_lines(both)[0]


def test_tasks_are_paired_with_the_start(tuned: dict[str, Path]) -> None:
    found = record_of(tuned["lora"]).metrics["comparison"]["tasks"]
    assert (found["first"]["model"], found["second"]["model"]) == ("trained", "start")
    rows = {row["task"]: row for row in found["tasks"]}
    assert rows["smoke_choice"]["items"] == 40 and not found["not_compared"]
    assert rows["smoke_text"]["verdict"] in ("A is better", "B is better", "no difference shown")
    table = next(block for block in comparison_blocks({"tasks": found}) if isinstance(block, Table))
    assert [row[0] for row in table.rows][1:] == list(rows)
    start = next(row for row in table.rows if row[0] == "smoke_choice")[4]
    assert start == f"{100 * rows['smoke_choice']['second']:.1f} %"


def test_the_cards_tell_of_it(tuned: dict[str, Path], base: Path) -> None:
    for name, folder in (("whole", "model"), ("lora", "adapter")):
        card = (tuned[name] / folder / "README.md").read_text()
        head = front_matter(card)
        assert head["base_model"] == base.name
        assert {"bottega", "sft"} <= set(head["tags"])
        for said in ("## Data", "as chat: ", "conversations, ", "Licence of the text", "## Method", "Optimiser ",
                     "4 steps of 480 tokens", "seed 0", "## Compared with the model it came from", "KL from the start",
                     "## Limits"):  # fmt: skip
            assert said in card, (name, said)
        assert "policy." not in card and "preference." not in card
        assert read_record(tuned[name] / folder) is not None
    assert "rank 4" in (tuned["lora"] / "adapter" / "README.md").read_text()
    assert "Tasks, item by item" in (tuned["lora"] / "adapter" / "README.md").read_text()


def test_foreign_names_are_no_markup(base: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "<b>x</b> | [a](b)"
    source = tmp_path / "<img src=x> *it*.jsonl"
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "river"}]}] * 9
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = plan_train(Train.parse({"stage": "sft", "model": base, "data": source, "max_steps": 1, "out": out}), Specs())
    data = {"steps": 1, "passes": 1.0, "row_length": 8, "learning_rate": 1.0, "tokens_per_step": 8,
            "data": {"examples": 9, "tokens": 9, "trained_tokens": 9}}  # fmt: skip
    text_of = card_text(plan, data)
    card = model_card(ModelFolder.open(base / "model").config, text_of)
    assert "<b>" not in card and "<img" not in card and "[a](b)" not in card and "*it*" not in card.replace("\\*", "")
    assert front_matter(card)["base_model"] == "base"


def test_which_general_text(base: Path, text: Path, tmp_path: Path) -> None:
    """A model that learned from this Python's documentation is held against the part that was held out."""
    name, texts = general_text(settings(base, text))
    first = [next(texts) for _ in range(40)]
    assert name == PYTHON and all(0 < len(each) <= 1200 for each in first)
    assert [next(general_text(settings(base, text))[1])] == first[:1]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "train.jsonl").write_text('{"text": "seen"}\n')
    Record("data collect", 1, "00", {"source": "python"}, {}).write(corpus)
    assert "has learned from" in general_text(settings(base, corpus / "train.jsonl"))[0]
    (corpus / "heldout.jsonl").write_text('{"text": "not seen"}\n')
    name, texts = general_text(settings(base, corpus / "train.jsonl"))
    assert name.startswith("held-out part of corpus") and list(texts) == ["not seen"]


def test_what_cannot_be_compared_is_refused_before_the_run(base: Path, text: Path, tmp_path: Path) -> None:
    def failed(**more: Any) -> list[str]:
        checks = comparison_checks(settings(base, text, **more), Specs(), 2048)
        return [each.detail for each in checks if not each.passed]

    assert not failed(tasks=("smoke",), compare_text=text)
    told = comparison_checks(settings(base, text, tasks=("smoke",), compare_text=text), Specs(), 2048)
    assert told[0].name == "comparison" and "2.05 k tokens" in told[0].detail
    assert "smok_choice" in failed(tasks=("smok_choice",))[0]
    assert failed(compare_text=tmp_path / "none.txt") == ["is not there"]
    assert "nous" in failed(tasks=("smoke", "nous"))[0]
    with pytest.raises(UserError, match="compare: true"):
        settings(base, text, compare=False, tasks=("smoke",))
    with pytest.raises(UserError, match="reward model says nothing"):
        settings(base, text, stage="reward")


def settings(base: Path, data: Path, **more: Any) -> Train:
    values = {"stage": "sft", "model": base, "data": data, "compare": True, "evaluate_tokens": BUDGET}
    return Train.parse({**values, "out": data.parent / "none", **more})


def test_one_document_has_no_interval(base: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("The river keeps the stone.")
    config = settings(base, tmp_path, adapter={"r": 4}, compare_text=tmp_path / "one.txt")
    found = compare_texts(config, load_decoder(base / "model"), Tokenizer.load(base / "model"), None, 2048, Quiet())
    assert found["general"]["documents"] == 1 and verdict(found["general"]) == TOO_LITTLE
