"""New tokens: the tokenizer writes them, the model has rows for them, and nothing else has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from bottega import verbs
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.model.load import load_decoder
from bottega.tokenizer.chat import encode_chat
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


TALK = [{"role": "user", "content": "Keep?"}, {"role": "assistant", "content": "The river keeps."}]


@pytest.fixture(scope="module")
def bare(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as those are that only learned text: no chat template, one stop token, and a plain BPE's vocabulary."""
    folder = tmp_path_factory.mktemp("bare") / "base"
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator([path.read_text() for path in workshop.documents.rglob("*.md")], trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, max_position_embeddings=128,
    )  # fmt: skip
    transformers.LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


def test_a_base_gets_a_chat_template_and_learns_to_stop(bare: Path, tmp_path: Path) -> None:
    found = verbs.tokenizer_extend(model=str(bare), template="chatml", add=("<think>",), out=tmp_path / "chat")
    start, end = (found["tokens"][text] for text in ("<|im_start|>", "<|im_end|>"))
    assert (start, end, found["tokens"]["<think>"], found["turn_end"]) == (300, 301, 302, "<|im_end|>")
    tokenizer = Tokenizer.load(tmp_path / "chat")
    assert tokenizer.stop_ids == {1, end} and {start, end} <= tokenizer.special_ids and 302 not in tokenizer.special_ids
    chat = encode_chat(tokenizer, TALK)
    assert chat.ids[0] == start and [id_ for id_, on in zip(chat.ids, chat.mask, strict=True) if on][-1] == end
    # What people write is no special token, what the template writes is one, for others' readers too.
    assert start not in tokenizer.encode("<|im_start|>")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "chat")
    assert theirs.apply_chat_template(TALK)["input_ids"] == chat.ids
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "chat")
    assert model.generation_config.eos_token_id == [1, end] and model.config.vocab_size == 303
    # Nothing else has changed, and the rows begin as the mean of their pieces.
    ids = torch.randint(300, (1, 12))
    old, new = load_decoder(bare), load_decoder(tmp_path / "chat")
    rows: Any = new.get_submodule("model.embed_tokens").weight
    with torch.no_grad():
        assert torch.allclose(new(ids)[..., :300], old(ids), atol=1e-6)
        assert torch.allclose(rows[end], rows[Tokenizer.load(bare).encode("<|im_end|>")].mean(0), atol=1e-6)
    # It can be fine-tuned, which the base could not, and the new tokens are those of `auto`.
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": TALK}) + "\n")
    settings = {"stage": "sft", "data": tmp_path / "talk.jsonl", "max_steps": 1, "compare": False, "threads": 1,
                "dtype": "float32"}  # fmt: skip
    with pytest.raises(UserError, match="tokenizer extend MODEL --template chatml"):
        verbs.train(model=bare, out=tmp_path / "no", **settings)
    adapter = {"type": "lora", "r": 2, "new_tokens": "auto"}
    trained = verbs.train(model=tmp_path / "chat", out=tmp_path / "run", adapter=adapter, **settings)
    assert trained["steps"] == 1
    written = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert written["trainable_token_indices"] == {"embed_tokens": [300, 301, 302]}


def test_a_template_of_a_file_and_of_tokens_that_are_there(bare: Path, model: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{{ eos_token if m.role == 'assistant' else '' }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    found = verbs.tokenizer_extend(model=str(bare), template=str(template), out=tmp_path / "mine")
    assert (found["tokens"], found["vocab_size"], found["turn_end"]) == ({}, [300, 300], "</s>")
    chat = encode_chat(Tokenizer.load(tmp_path / "mine"), TALK)
    assert chat.text == "<s>user: Keep?\nassistant: The river keeps.</s>\n" and chat.ids[0] == 0
    # Tokens that the vocabulary has are not made again; a template of its own is replaced.
    again = verbs.tokenizer_extend(model=str(model), template="chatml", out=tmp_path / "again")
    assert again["tokens"] == {} and again["turn_end"] == "<|im_end|>"
    plan = verbs.plan("tokenizer extend", model=str(model), template="chatml", out=tmp_path / "third")
    (check,) = [check for check in plan["checks"] if check["name"] == "chat template"]
    assert check["detail"] == "chatml instead of its own; a turn ends with <|im_end|>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "writes no special token of the tokenizer behind"),
        ("{% for m in messages %}{{ m.role }}{{ eos_token }}{% endfor %}", "does not write what the assistant says"),
        ("{% for m in messages %}{{ m.content }}", "is not valid jinja"),
        ("{{ raise_exception('no') }}", "no"),
        (None, "there is no chat template"),
    ],
)
def test_templates_that_would_not_do_are_refused(text: str | None, said: str, bare: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        verbs.tokenizer_extend(model=str(bare), template=str(path), out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"add": ("<|im_end|>",)}, "already in the vocabulary"),
        ({"add": ("new", "new")}, "given once"),
        ({"add": (" ",)}, "not be empty"),
        ({"add": ()}, "give tokens to add, or a chat template"),
        ({"add": ("\udcff",)}, "lone surrogate"),
    ],
)
def test_wrong_tokens_are_said(settings: dict[str, Any], said: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        verbs.tokenizer_extend(model=str(model), out=tmp_path / "more", **settings)
    assert said in error.value.message and not (tmp_path / "more").exists()
