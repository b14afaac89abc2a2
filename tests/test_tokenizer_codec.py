"""Text to ids and back: exact bytes, streaming, special strings that stay text, hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from bottega.core.errors import UserError
from bottega.tokenizer import training
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Detokenizer, Tokenizer, byte_of_character

TEXT = "The quick brown fox jumps over the lazy dog. It's 1234 o'clock; don't wait! def f(x): return x + 1\n" * 20
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(
        ["<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<", "|", " ", "\n", "é", "🙂", "👩‍👩‍👧", "日本", "12345", "a"]
    )
).map("".join)


def byte_level(folder: Path) -> Path:
    training.write_folder(training.train(iter([TEXT]), 320), folder)
    return folder


def sentencepiece_like(folder: Path, *, prepend: str = "always") -> Path:
    """A tokenizer of Llama 2's kind: `▁` for spaces, byte fallback, `<s>` in front."""
    words = ["▁", "a", "b", "e", "h", "l", "o", "r", "t", "▁h", "he", "▁he", "ll", "llo", "▁hello", "▁t"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    pairs = [("▁", "h"), ("h", "e"), ("▁h", "e"), ("l", "l"), ("ll", "o"), ("▁he", "llo"), ("▁", "t")]
    bpe = models.BPE(
        vocab={token: index for index, token in enumerate(tokens)}, merges=pairs, unk_token="<unk>", byte_fallback=True
    )
    backend = tokenizers.Tokenizer(bpe)
    if prepend == "always":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=prepend, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens[:3]])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(byte_level(tmp_path_factory.mktemp("ours")))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(sentencepiece_like(tmp_path_factory.mktemp("llama")))


@pytest.fixture(params=["ours", "llama"])
def either(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT)
def test_round_trip_bytes_and_streaming(ours: Tokenizer, llama: Tokenizer, text: str) -> None:
    for tokenizer in (ours, llama):
        ids = tokenizer.encode(text)
        assert not tokenizer.special_ids & set(ids)
        assert tokenizer.decode(ids) == text
        stream = Detokenizer(tokenizer)
        assert "".join(map(stream.add, ids)) + stream.flush() == text
        assert tokenizer.encode_batch([text, "x"])[0] == ids
    assert b"".join(map(ours.token_bytes, ours.encode(text))) == text.encode()


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(min_value=8, max_value=319), max_size=20))
def test_decoding_any_ids_equals_the_library(ours: Tokenizer, ids: list[int]) -> None:
    library = tokenizers.Tokenizer.from_file(str(ours.folder / "tokenizer.json"))
    assert ours.decode(ids) == library.decode(ids)
    stream = Detokenizer(ours)
    assert "".join(map(stream.add, ids)) + stream.flush() == library.decode(ids)


def test_streaming_gives_a_character_only_when_it_is_complete(ours: Tokenizer) -> None:
    ids = ours.encode("🙂")
    assert len(ids) == 4
    stream = Detokenizer(ours)
    assert [stream.add(id_) for id_ in ids] == ["", "", "", "🙂"]
    assert stream.add(ids[0]) == ""
    assert stream.flush() == "\ufffd"


def test_ids_equal_transformers(either: Tokenizer) -> None:
    oracle = AutoTokenizer.from_pretrained(either.folder)
    for text in ("hello there", " two  spaces", "1234 don't\n\n x", "日本 🙂", ""):
        assert either.document_prefix() + either.encode(text) == oracle(text).input_ids
    assert (either.bos_id, either.eos_id) == (oracle.bos_token_id, oracle.eos_token_id)
    assert either.vocab_size == len(oracle)
    assert oracle.decode(either.encode("hello 🙂")) == "hello 🙂"


def test_special_strings_are_read_as_the_library_reads_text(ours: Tokenizer) -> None:
    library = tokenizers.Tokenizer.from_file(str(ours.folder / "tokenizer.json"))
    assert {0, 2} <= set(library.encode("The <|im_end|><|endoftext|>fox").ids)
    library.encode_special_tokens = True
    for length in range(60):
        text = "<|im_end|>" + TEXT[:length]
        assert ours.encode(text) == library.encode(text, add_special_tokens=False).ids


def test_digits_stand_alone(ours: Tokenizer) -> None:
    assert [ours.token_text(id_) for id_ in ours.encode("1234")] == ["1", "2", "3", "4"]


def test_the_bytes_of_all_256_single_tokens_are_all_bytes(ours: Tokenizer) -> None:
    assert sorted(byte_of_character().values()) == list(range(256))
    assert {ours.token_bytes(id_) for id_ in range(8, 264)} == {bytes([byte]) for byte in range(256)}
    assert ours.token_bytes(2) == b"<|im_end|>"
    assert ours.token_bytes(10**6) == ours.token_bytes(-1) == b""
    assert ours.decode([10**6, *ours.encode("a"), -1]) == "a"


@pytest.mark.parametrize("prepend", ["always", "first", "never"])
def test_text_in_the_middle_gets_no_leading_space(tmp_path: Path, prepend: str) -> None:
    tokenizer = Tokenizer.load(sentencepiece_like(tmp_path, prepend=prepend))
    first = tokenizer.encode("hello")
    assert (tokenizer.token_text(first[0]) == " hello") == (prepend != "never")
    parts = first + tokenizer.encode_markup(" to", previous=first[-1])
    assert parts == tokenizer.encode("hello to")
    # After a special token it is as in the whole text: a space where the tokenizer always writes one.
    whole = AutoTokenizer.from_pretrained(tmp_path)("hello</s>hello", add_special_tokens=False).input_ids
    assert first + tokenizer.encode_markup("</s>", previous=first[-1]) == whole[: len(first) + 1]
    assert tokenizer.encode_markup("hello", previous=2) == whole[len(first) + 1 :]


def test_a_vocabulary_that_spells_a_special_token_cannot_make_one(tmp_path: Path) -> None:
    vocabulary = [("<unk>", 0.0), ("</s>", -1.0), *((character, -5.0) for character in "</s>ab ")]
    backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0))
    backend.save(str(tmp_path / "tokenizer.json"))
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] = [{"id": 1, "content": "</s>", **flags}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain.encode_special_tokens = True
    assert 1 in plain.encode("a</s>b").ids  # the library alone lets it through
    tokenizer = Tokenizer.load(tmp_path)
    ids = tokenizer.encode("a</s>b")
    assert 1 not in ids
    assert "".join(tokenizer.token_text(id_) for id_ in ids) == "a</s>b"
    assert tokenizer.encode_batch(["a</s>b"]) == [ids]


def test_a_token_that_only_looks_like_a_byte_is_text(tmp_path: Path) -> None:
    folder = sentencepiece_like(tmp_path)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"]["<0xZZ>"] = highest = max(data["model"]["vocab"].values()) + 1
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert Tokenizer.load(folder).token_bytes(highest) == b"<0xZZ>"


def test_a_damaged_list_of_templates_is_no_template(tmp_path: Path) -> None:
    folder = byte_level(tmp_path)
    config = folder / "tokenizer_config.json"
    data = json.loads(config.read_text()) if config.is_file() else {}
    data["chat_template"] = [{"name": ["default"], "template": "x"}, 3]
    config.write_text(json.dumps(data))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    assert Tokenizer.load(folder).chat_template is None


def test_what_the_configs_name_special_is_special(tmp_path: Path) -> None:
    byte_level(tmp_path)
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in data["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = Tokenizer.load(tmp_path)
    for special in training.SPECIAL_TOKENS:
        assert not tokenizer.special_ids & set(tokenizer.encode(special))
        assert tokenizer.encode_markup(special) == [training.SPECIAL_TOKENS.index(special)]
    assert tokenizer.special_ids == set(range(8))


def test_truncation_padding_and_dropout_in_the_file_have_no_effect(tmp_path: Path) -> None:
    expected = Tokenizer.load(byte_level(tmp_path)).encode(TEXT)
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    data["model"]["dropout"] = 0.9
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert Tokenizer.load(tmp_path).encode(TEXT) == expected


def test_stop_ids_come_from_generation_config(ours: Tokenizer) -> None:
    assert ours.stop_ids == {0, 2}
    spec = TokenizerSpec.read(ours.folder)
    assert (spec.vocab_size, spec.bos_id, spec.eos_id, spec.pad_id) == (320, 0, 2, 0)
    assert spec.has_template and spec.hash == ours.hash and spec.template_hash == ours.template_hash


def test_without_configs_nothing_is_guessed(tmp_path: Path) -> None:
    byte_level(tmp_path)
    for path in tmp_path.iterdir():
        if path.name != "tokenizer.json":
            path.unlink()
    bare = Tokenizer.load(tmp_path)
    assert (bare.bos_id, bare.eos_id, bare.pad_id, bare.chat_template) == (None, None, None, None)
    assert bare.stop_ids == frozenset() and bare.document_prefix() == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"model": {}}', '{"model": 3}', '{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
     '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": [["x", "y"]]}}', "[" * 100_000,
     '{"model": {}, "added_tokens": [3]}'],
)  # fmt: skip
def test_a_broken_tokenizer_json_is_the_users_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError):
        Tokenizer.load(tmp_path)


def test_half_a_surrogate_pair_in_a_tokenizer_json_is_the_users_error(tmp_path: Path) -> None:
    path = byte_level(tmp_path) / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "x": "\ud800"}))
    with pytest.raises(UserError):
        Tokenizer.load(tmp_path)


def test_a_missing_folder_an_alien_config_and_broken_text_are_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    tokenizer = Tokenizer.load(byte_level(tmp_path))
    with pytest.raises(UserError, match=r"character 2 .*U\+D800"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(UserError):
        tokenizer.encode_batch(["ab\ud800"])
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 99999}')
    with pytest.raises(UserError, match="99999"):
        Tokenizer.load(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match="generation_config"):
        Tokenizer.load(tmp_path)


@settings(max_examples=100, deadline=None)
@given(before=ANY_TEXT.filter(bool), after=ANY_TEXT.filter(bool))
def test_a_continuation_keeps_the_space_before_its_first_word(llama: Tokenizer, before: str, after: str) -> None:
    ids, more = llama.encode(before), llama.encode_inside(after)
    stream = Detokenizer(llama, previous=ids[-1])
    assert "".join(map(stream.add, more)) + stream.flush() == after
    assert llama.decode(ids) + after == llama.decode([*ids, *more])
