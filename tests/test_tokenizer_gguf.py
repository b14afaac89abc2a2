"""GGUF metadata and llama2.c: equal ids."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import sentencepiece

from bottega.tokenizer.foreign import sentencepiece_file
from bottega.tokenizer.foreign.pieces import Kind, PieceModel
from bottega.tokenizer.tokenizer import Tokenizer
from tokenizer_texts import (
    FEW,
    LLAMA,
    assert_equal,
    gguf_tokenizer,
    trained_model,
)


def piece_metadata(model: PieceModel, **more: Any) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "llama" if model.kind == "bpe" else "t5",
        "tokenizer.ggml.tokens": [piece.text for piece in model.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in model.pieces],
        "tokenizer.ggml.token_type": [int(piece.kind) for piece in model.pieces],
        "tokenizer.ggml.unknown_token_id": 0,
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


def test_gguf_pieces_give_the_ids_of_sentencepiece(tmp_path: Path) -> None:
    content = trained_model("bpe", **LLAMA)
    model = sentencepiece_file.read(content, Path("m"))
    metadata = piece_metadata(model, bos_token_id=1, eos_token_id=2, eot_token_id=5, seperator_token_id=2**32 - 1)
    tokenizer = gguf_tokenizer({**metadata, "tokenizer.chat_template": "{{ bos_token }}"}, tmp_path / "a")
    assert_equal(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=content).encode, FEW)
    assert tokenizer.adds_bos and tokenizer.stop_ids == {2, 5} and tokenizer.chat_template == "{{ bos_token }}"
    bare = gguf_tokenizer({**metadata, "tokenizer.ggml.add_space_prefix": False}, tmp_path / "b")
    assert tokenizer.encode("river") == bare.encode(" river") != bare.encode("river")
    unigram = trained_model("unigram", **LLAMA)
    pieces = sentencepiece_file.read(unigram, Path("m"))
    tokenizer = gguf_tokenizer(piece_metadata(pieces), tmp_path / "c")
    assert_equal(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=unigram).encode, FEW)


def test_gguf_wordpiece_marks_are_turned_round(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581bread", "s", "\u2581."]
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, 3, 1, 1, 1],
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
    }
    assert gguf_tokenizer(metadata, tmp_path).encode("Breads. x") == [4, 5, 6, 1]


def test_llama2c_gives_the_ids_of_sentencepiece(tmp_path: Path) -> None:
    content = trained_model("bpe", **LLAMA)
    pieces = sentencepiece_file.read(content, Path("m")).pieces
    texts = [p.text.replace("\u2581", " ") if p.kind == Kind.NORMAL else p.text for p in pieces]
    texts[1:3] = ["\n<s>\n", "\n</s>\n"]
    encoded = [(piece.score, text.encode()) for piece, text in zip(pieces, texts, strict=True)]
    body = b"".join(struct.pack("<fi", score, len(text)) + text for score, text in encoded)
    (tmp_path / "tokenizer.bin").write_bytes(struct.pack("<i", 16) + body)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert_equal(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=content).encode, FEW)


def test_a_file_is_opened_as_it_stands(tmp_path: Path) -> None:
    """Numbers in the container are arrays, and the verbs name the file itself."""
    import gguf

    from bottega.tokenizer.tokenizer import Tokenizer

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "ab", "\u2581ab"]
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -5.0])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 5)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    tokenizer = Tokenizer.load(tmp_path / "v.gguf")
    assert tokenizer.decode(tokenizer.encode("ab é")) == "ab é" and (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.encode("ab")[0] == tokens.index("\u2581ab")
