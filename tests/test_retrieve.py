"""Chunks have exact offsets, words meet their other forms, BM25 is the formula."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.retrieve.bm25 import Bm25
from bottega.retrieve.chunks import markdown_chunks, python_chunks, slug, text_chunks
from bottega.retrieve.words import content_words, stem, words

PIECES = st.sampled_from(
    ["# Title\n", "## Part {#part leaf=x}\n", "text here. ", "\n\n", "```\n", "# no\n", "~~~\n", "  ", "é文字", "x" * 9]
)


@given(st.lists(PIECES, max_size=60).map("".join), st.integers(20, 200))
def test_every_chunk_is_the_text_at_its_offsets(text: str, longest: int) -> None:
    for make in (markdown_chunks, text_chunks):
        chunks = make(text, "a.md", longest=longest)
        assert all(text[c.start : c.end] == c.text == c.text.strip() != "" and len(c.text) <= longest for c in chunks)
        assert all(a.end <= b.start for a, b in itertools.pairwise(chunks))


@given(st.lists(PIECES, max_size=60).map("".join))
def test_nothing_but_headings_is_left_out(text: str) -> None:
    covered = set()
    for chunk in text_chunks(text, "a.txt", longest=50):
        covered.update(range(chunk.start, chunk.end))
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)


def test_headings_and_anchors() -> None:
    text = "# Top\n\nfirst\n\n## The *KL* term {#kl leaf=dpo}\n\nsecond\n\n```\n# not a heading\n```\n\n"
    text += "## A & b\n\nthird\n\n## A & b\n\nfourth\n"
    chunks = markdown_chunks(text, "a.md")
    assert [(c.headings, c.anchor) for c in chunks] == [
        (("Top",), "top"),
        (("Top", "The KL term"), "kl"),
        (("Top", "A & b"), "a--b"),
        (("Top", "A & b"), "a--b-1"),
    ]
    assert "# not a heading" in chunks[1].text
    assert slug("What `top_p` does, exactly?") == "what-top_p-does-exactly"


def test_a_fenced_block_stays_whole() -> None:
    block = "```\n" + "line\n\n" * 50 + "```"
    chunks = markdown_chunks("word " * 60 + "\n\n" + block + "\n", "a.md", longest=400)
    assert block in [chunk.text for chunk in chunks]


def test_docstrings_by_name_with_exact_offsets() -> None:
    source = Path(markdown_chunks.__code__.co_filename).read_text("utf-8")
    chunks = python_chunks(source, "chunks.py", "bottega.retrieve.chunks")
    names = {chunk.anchor for chunk in chunks}
    assert {"", "Chunk", "Chunk.title", "markdown_chunks"} <= names
    assert not any(part.startswith("_") for name in names for part in name.split("."))
    assert all(source[c.start : c.end] == c.text and '"""' not in c.text for c in chunks)
    odd = 'é = "文"; \n\n\ndef f():\n    \'\'\'Größe.\'\'\'\n'
    assert [c.text for c in python_chunks(odd, "x.py", "x")] == ["Größe."]
    with pytest.raises(UserError, match=r"bad\.py is not Python"):
        python_chunks("def f(:", "bad.py", "bad")


@pytest.mark.parametrize(
    "family",
    [
        "tokenise tokenises tokenized tokenizing tokenizer tokenizers tokenization tokenisation",
        "loss losses", "train trains trained training", "clip clipped clipping", "merge merges merged merging",
        "gradient gradients", "query queries", "sample sampled sampling samples", "cache caches cached caching",
    ],
)  # fmt: skip
def test_forms_of_a_word_meet(family: str) -> None:
    assert len({stem(word) for word in family.split()}) == 1, {word: stem(word) for word in family.split()}


def test_different_words_stay_apart() -> None:
    assert len({stem(word) for word in ["bias", "bios", "analysis", "news", "king", "kind", "red", "read", "bed"]}) == 9


def test_identifiers_numbers_and_chinese() -> None:
    assert words("top_p") == ["top_p", "top"]
    assert words("KeyError") == ["keyerror", "key", "error"]
    assert words("r=16, 2.5 (v2)") == ["r", "16", "2.5", "v2", "2"]
    assert words("注意力机制") == ["注意", "意力", "力机", "机制"]
    assert content_words("What is the learning rate?") == ["learn", "rate"]


def brute_force(texts: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    mean = sum(map(len, texts)) / len(texts)
    total = []
    for text in texts:
        score = 0.0
        for word in query:
            holders = sum(word in other for other in texts)
            frequency = text.count(word)
            idf = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
            score += idf * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * len(text) / mean)) if frequency else 0
        total.append(score)
    return total


WORD = st.sampled_from("abcdefgh")


@settings(max_examples=60)
@given(
    st.lists(st.lists(WORD, min_size=1, max_size=12), min_size=1, max_size=15),
    st.lists(WORD, max_size=6), st.floats(0, 3), st.floats(0, 1),
)  # fmt: skip
def test_scores_equal_the_formula(texts: list[list[str]], query: list[str], k1: float, b: float) -> None:
    index = Bm25.build(map(" ".join, texts), k1=k1, b=b, analyse=str.split)
    expected = brute_force(texts, query, k1, b)
    np.testing.assert_allclose(index.scores(query), expected, rtol=1e-5, atol=1e-6)
    hits = index.search(query, top=5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(hits) == min(5, sum(score > 0 for score in expected))


def test_filter_save_and_load(tmp_path: Path) -> None:
    index = Bm25.build(["a cat sleeps", "a dog sleeps", "the cat and the dog"])
    assert [hit.document for hit in index.search(["cat"], among=np.array([False, True, True]))] == [2]
    index.save(tmp_path / "index.json")
    again = Bm25.load(tmp_path / "index.json")
    assert again.search(["dog", "sleep"]) == index.search(["dog", "sleep"])
    assert Bm25.build([]).search(["a"]) == []


@pytest.mark.parametrize("damage", ["documents", "starts", "weights"])
def test_a_damaged_index_is_refused(tmp_path: Path, damage: str) -> None:
    Bm25.build(["a cat", "a dog"]).save(tmp_path / "index.json")
    with np.load(tmp_path / "index.npz") as arrays:
        values = dict(arrays)
    values[damage] = values[damage] + 7 if damage != "weights" else values[damage][:-1]
    np.savez(tmp_path / "index.npz", **values)
    with pytest.raises(UserError, match="is not an index"):
        Bm25.load(tmp_path / "index.json")
