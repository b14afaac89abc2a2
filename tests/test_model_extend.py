"""New tokens: the tokenizer writes them, the model has rows for them, and nothing else has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega import verbs
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.model.load import load_decoder
from bottega.tokenizer.tokenizer import Tokenizer
from conftest import Workshop

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["tied", "untied"])
def model(request: pytest.FixtureRequest, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extend") / request.param
    tokenizer = Tokenizer.load(workshop.tokenizer)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, tie_word_embeddings=request.param == "tied", bos_token_id=0, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    for file in workshop.tokenizer.iterdir():
        if file.name.startswith(("tokenizer", "special", "chat")):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("special", [False, True])
def test_new_tokens(model: Path, special: bool, tmp_path: Path) -> None:
    added = ("river stone", "<|tool|>")
    before = Tokenizer.load(model)
    found = verbs.tokenizer_extend(model=str(model), add=added, special=special, out=tmp_path / "more")
    first = before.vocab_size
    assert found["tokens"] == {"river stone": first, "<|tool|>": first + 1}
    tokenizer, text = Tokenizer.load(tmp_path / "more"), "the river stone keeps <|tool|> on"
    assert tokenizer.vocab_size == first + 2
    assert (first in tokenizer.encode(text)) == (not special)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert set(tokenizer.special_ids) - set(before.special_ids) == ({first, first + 1} if special else set())
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "more")
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode_markup(text)
    # The rows: the old ones as they were, the new ones the mean of their pieces.
    old, new = load_decoder(model), load_decoder(tmp_path / "more")
    for name in ("model.embed_tokens", "lm_head"):
        was, is_ = (decoder.get_submodule(name).weight for decoder in (old, new))
        assert torch.equal(is_[:first], was)
        for place, token in enumerate(added, start=first):
            assert torch.allclose(is_[place], was[before.encode(token)].mean(0), atol=1e-6)
    ids = torch.randint(first, (1, 12))
    with torch.no_grad():
        assert torch.allclose(new(ids)[..., :first], old(ids), atol=1e-6)
        expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "more")(ids).logits
        assert torch.allclose(new(ids), expected, atol=1e-5)


def test_rows_of_the_mean_and_a_round_vocabulary(model: Path, tmp_path: Path) -> None:
    verbs.tokenizer_extend(model=str(model), add=("zzz",), start="mean", multiple_of=64, out=tmp_path / "more")
    folder = ModelFolder.open(tmp_path / "more")
    rows = folder.tensors["model.embed_tokens.weight"].load()
    count = Tokenizer.load(model).vocab_size
    assert len(rows) == folder.config.vocab_size == -(-(count + 1) // 64) * 64
    assert torch.allclose(rows[count:], rows[:count].mean(0).expand(len(rows) - count, -1), atol=1e-6)
    # A vocabulary with room takes the next token without growing, and gives it a row of its own.
    found = verbs.tokenizer_extend(model=str(tmp_path / "more"), add=("yyy zzz",), out=tmp_path / "again")
    assert found["vocab_size"] == [len(rows), len(rows)] and found["tokens"] == {"yyy zzz": count + 1}


def with_gap(model: Path, folder: Path, gap: int) -> Path:
    """The model with a tokenizer whose last ordinary token has moved up."""
    shutil.copytree(model, folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    last = max(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"][last] += gap
    path.write_text(json.dumps(data))
    return folder


def test_ids_are_those_that_the_tokenizer_gives(model: Path, tmp_path: Path) -> None:
    folder = with_gap(model, tmp_path / "gap", 3)
    resized = transformers.AutoModelForCausalLM.from_pretrained(folder)
    resized.resize_token_embeddings(Tokenizer.load(folder).vocab_size)
    resized.save_pretrained(folder)
    found = verbs.tokenizer_extend(model=str(folder), add=("<x>", "<y>"), out=tmp_path / "more")
    written = Tokenizer.load(tmp_path / "more")
    assert found["tokens"] == {"<x>": written.id_of("<x>"), "<y>": written.id_of("<y>")}
    with pytest.raises(UserError, match="is taken: the vocabulary has gaps"):
        verbs.tokenizer_extend(model=str(folder), add=tuple(f"<{n}>" for n in range(5)), out=tmp_path / "no")


def test_a_tokenizer_that_is_larger_than_the_embedding_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rows for"):
        verbs.tokenizer_extend(model=str(with_gap(model, tmp_path / "g", 3)), add=("<x>",), out=tmp_path / "no")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"add": ("<|im_end|>",)}, "already in the vocabulary"),
        ({"add": ("new", "new")}, "given once"),
        ({"add": (" ",)}, "not be empty"),
        ({"add": ()}, "add"),
        ({"add": ("\udcff",)}, "lone surrogate"),
    ],
)
def test_wrong_tokens_are_said(settings: dict[str, Any], said: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        verbs.tokenizer_extend(model=str(model), out=tmp_path / "more", **settings)
    assert said in error.value.message and not (tmp_path / "more").exists()
