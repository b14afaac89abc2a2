"""What of a model is trained, and what a run counts and keeps beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bottega import verbs
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.core.progress import Quiet
from bottega.data.batches import Row
from bottega.data.spec import TokensSpec
from bottega.model.decoder import Decoder
from bottega.model.trained_rows import TrainedRows
from bottega.train.config import Train
from bottega.train.reference import reference_log_probs
from bottega.train.settings import resolve, training_flops_per_token
from bottega.train.stage import Forward, Machine, told
from bottega.train.trainee import make_trainee
from conftest import Workshop

transformers = pytest.importorskip("transformers")
MACHINE = Machine(torch.device("cpu"), torch.float32, None)


@pytest.fixture(scope="module")
def model(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model with the workshop's tokenizer."""
    folder = tmp_path_factory.mktemp("trainee") / "model"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=TokensSpec.read(workshop.tokens).vocab_size, hidden_size=32, intermediate_size=48,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    for file in workshop.tokenizer.iterdir():
        if file.name.startswith(("tokenizer", "special", "chat")):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def trainee(model: Path, **values: Any) -> Decoder:
    config = Train.parse({"model": str(model), "data": "d", "out": "o", **values})
    return make_trainee(config, ModelFolder.open(model).config, MACHINE)


def trained(decoder: Decoder) -> set[str]:
    return {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("part", [{"new_tokens": [3]}, {"modules_to_save": ["embed_tokens"]}])
def test_a_reward_model_trains_what_embedding_and_head_share(part: dict[str, Any], model: Path) -> None:
    """A head has no part in scores, but a tied one is the embedding."""
    names = trained(trainee(model, stage="reward", adapter={"r": 2, **part}))
    assert any("embed_tokens" in name for name in names) and "score.weight" in names
    assert "model.embed_tokens.weight" in trained(trainee(model, stage="reward"))


def test_new_tokens_are_those_that_were_added(model: Path, tmp_path: Path) -> None:
    adapter = {"r": 2, "new_tokens": "auto"}
    with pytest.raises(UserError, match="tokenizer extend"):
        trainee(model, stage="sft", adapter=adapter)
    found = verbs.tokenizer_extend(model=str(model), add=("river stone", "<|tool|>"), out=tmp_path / "more")
    decoder = trainee(tmp_path / "more", stage="sft", adapter=adapter)
    rows = decoder.get_submodule("model.embed_tokens")
    assert isinstance(rows, TrainedRows)
    assert rows.ids["default"].tolist() == sorted(found["tokens"].values())


def test_an_adapter_names_the_folder_that_others_open(model: Path, tmp_path: Path) -> None:
    """A run's folder is taken for a model, but it is its `model` that PEFT can open."""
    shutil.copytree(model, tmp_path / "run" / "model")
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    verbs.train(
        stage="sft", model=tmp_path / "run", data=tmp_path / "chat.jsonl", adapter={"r": 2}, max_steps=1, batch_size=1,
        threads=1, dtype="float32", out=tmp_path / "out",
    )  # fmt: skip
    written = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert Path(written["base_model_name_or_path"]) == tmp_path / "run" / "model"


def test_attention_is_counted_within_documents() -> None:
    """Where steps count examples, a model's long context is no measure of the work."""
    values: dict[str, Any] = {
        "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 96,
    }  # fmt: skip
    short, long = (ModelConfig.from_data({**values, "max_position_embeddings": n}) for n in (512, 1 << 17))
    data = TokensSpec(6000, 200, 3000, 100, tokenizer_hash="", template_hash="", chat=False, form="pairs")
    config = Train.parse({"model": "m", "data": "d", "out": "o", "stage": "dpo", "adapter": {"r": 2}})
    settings = [resolve(config, each, data) for each in (short, long)]
    assert [each.document_length for each in settings] == [30, 30]
    assert training_flops_per_token(short, settings[0]) == training_flops_per_token(long, settings[1])


def test_a_figure_of_nothing_is_not_told() -> None:
    assert told({"good": torch.tensor([1.0, 2.0]), "bad": torch.empty(0)}) == {"good": (3.0, 2.0)}


def test_reference_log_probs_are_kept_whole(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed while it writes them finds those that it had written before."""
    forward, path = Forward(trainee(model, stage="sft"), MACHINE), tmp_path / "reference.npy"

    def row(i: int) -> Row:
        return Row(np.arange(3, 9 + i, dtype=np.int64), np.arange(6 + i) > 2, [6 + i])

    def found(wanted: list[int]) -> np.ndarray:
        return reference_log_probs(forward, row, 4, wanted, 1, 64, path, Quiet())

    first = found([0, 2])
    assert np.isnan(first[[1, 3]]).all() and np.isfinite(first[[0, 2]]).all()

    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            found([0, 1, 2, 3])
    assert np.array_equal(np.load(path), first, equal_nan=True)

    def until_three(i: int) -> Row:
        return row(i) if i < 3 else killed()

    monkeypatch.setattr("bottega.train.reference.BLOCK", 1)
    with pytest.raises(KeyboardInterrupt):
        reference_log_probs(forward, until_three, 4, [0, 1, 2, 3], 1, 64, path, Quiet())
    assert np.isfinite(np.load(path)[:3]).all() and np.isnan(np.load(path)[3]).all()
    assert np.isfinite(found([0, 1, 2, 3])).all()
