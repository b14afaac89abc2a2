"""Examples of a tokens folder: order, truncation, pairs that stay consistent, damaged folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottega.core.atomic import write_json
from bottega.core.errors import UserError
from bottega.data.batches import Batches
from bottega.data.examples import Examples
from bottega.data.shards import ShardWriter
from bottega.data.spec import Form, TokensSpec

Masked = tuple[list[int], list[bool]]


def write_examples(
    folder: Path,
    form: Form,
    documents: list[Masked],
    rows: list[dict[str, Any]] | None,
    shard_tokens: int = 2**20,
) -> Path:
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, vocab_size=1000, chat=True, shard_tokens=shard_tokens)
    for ids, mask in documents:
        writer.add(ids, mask)
    writer.close()
    if rows is not None:
        (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = {
        "kind": "tokens",
        "schema_version": 1,
        "chat": form == "chat",
        "form": form,
        "vocab_size": 1000,
        "tokenizer_hash": "t",
        "template_hash": "",
        "documents": writer.documents,
        "tokens": writer.tokens,
        "trained_tokens": writer.trained_tokens,
        "longest": writer.longest,
        "text_bytes": 0,
        "shards": writer.shards,
    }
    write_json(folder / "manifest.json", manifest)
    return folder


def document(prompt: list[int], completion: list[int]) -> Masked:
    return prompt + completion, [False] * len(prompt) + [True] * len(completion)


def pair(number: int, prompt: int = 3, chosen: int = 2, rejected: int = 4) -> list[Masked]:
    start = [number] * prompt
    return [document(start, [100 + i for i in range(chosen)]), document(start, [200 + i for i in range(rejected)])]


def test_pairs_come_back_in_order_with_their_rows(tmp_path: Path) -> None:
    documents = [part for number in range(40) for part in pair(number, prompt=1 + number % 5)]
    rows = [{"margin": number / 2, "é": "\u2028"} for number in range(40)]
    folder = write_examples(tmp_path / "p", "pairs", documents, rows, shard_tokens=50)
    assert len(TokensSpec.read(folder).shards) > 3
    examples = Examples(folder, row_length=64, seed=0)
    assert (examples.count, examples.dropped, examples.truncated) == (40, 0, 0)
    for number in range(40):
        found = [(d.tokens.tolist(), d.mask.tolist()) for d in examples.documents(number)]
        assert found == [tuple(part) for part in documents[2 * number : 2 * number + 2]]
        assert examples.documents(number)[0].tokens.dtype == np.int64
        assert examples.row(number) == rows[number]
        assert examples.lengths(number) == [len(ids) for ids, _ in found]


def test_every_epoch_is_a_permutation_and_steps_are_a_pure_function(tmp_path: Path) -> None:
    documents = [document([number], [7, 8]) for number in range(11)]
    folder = write_examples(tmp_path / "l", "labelled", documents, [{"label": True}] * 11)
    examples = Examples(folder, row_length=8, seed=3)
    seen = [index for step in range(11) for index in examples.indices(step, 3)]  # three epochs
    epochs = [seen[at : at + 11] for at in (0, 11, 22)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    again = Examples(folder, row_length=8, seed=3)
    assert again.indices(7, 3) == seen[21:24]  # without having asked for the steps before
    assert again.order(4, 9) == seen[4:13]
    assert Examples(folder, row_length=8, seed=4).indices(0, 11) != seen[:11]


def test_a_cut_that_leaves_nothing_to_train_on_drops_the_whole_pair(tmp_path: Path) -> None:
    documents = [
        *pair(3, prompt=7, chosen=2, rejected=2),  # both lose their completion
        *pair(1, prompt=3, chosen=2, rejected=4),  # the longest fits exactly
        *pair(2, prompt=3, chosen=2, rejected=9),  # rejected is cut
        document([4] * 3, [5] * 6 + [1]),  # the same after the cut
        document([4] * 3, [5] * 6 + [2]),
    ]
    folder = write_examples(tmp_path / "p", "pairs", documents, [{"n": n} for n in (3, 1, 2, 4)])
    examples = Examples(folder, row_length=7, seed=0)
    assert (examples.count, examples.dropped, examples.truncated) == (2, 2, 1)
    assert [examples.row(i) for i in range(2)] == [{"n": 1}, {"n": 2}]
    chosen, rejected = examples.documents(1)
    assert chosen.tokens.tolist() == [2, 2, 2, 100, 101]
    assert rejected.tokens.tolist() == [2, 2, 2, 200, 201, 202, 203]
    assert examples.lengths(1) == [5, 7]
    with pytest.raises(UserError, match="none of 4 examples fits into 3 tokens"):
        Examples(folder, row_length=3, seed=0)


def test_a_prompt_is_never_cut(tmp_path: Path) -> None:
    prompts = [([number] * size, [False] * size) for number, size in ((1, 4), (2, 5))]
    folder = write_examples(tmp_path / "p", "prompts", prompts, [{"answer": "42"}, {}])
    examples = Examples(folder, row_length=4, seed=0)
    assert (examples.count, examples.dropped, examples.truncated) == (1, 1, 0)
    assert examples.row(0) == {"answer": "42"}
    assert not examples.documents(0)[0].mask.any()


def test_a_folder_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    documents = [document([1], [2]), document([1], [3]), document([1], [4])]
    with pytest.raises(UserError, match="3 documents are no pairs"):
        TokensSpec.read(write_examples(tmp_path / "a", "pairs", documents, [{}]))
    with pytest.raises(UserError, match=r"examples\.jsonl is missing"):
        TokensSpec.read(write_examples(tmp_path / "b", "labelled", documents, None))
    with pytest.raises(UserError, match="2 lines, the shards hold 3"):
        Examples(write_examples(tmp_path / "c", "labelled", documents, [{}, {}]), row_length=8, seed=0)
    folder = write_examples(tmp_path / "d", "labelled", documents, [{}, {}, {}])
    (folder / "examples.jsonl").write_text("{}\n[1]\n{\n")
    examples = Examples(folder, row_length=8, seed=0)
    assert examples.row(0) == {}
    for number in (1, 2):
        with pytest.raises(UserError, match=f"line {number + 1}"):
            examples.row(number)
    manifest = json.loads((folder / "manifest.json").read_text())
    for wrong in ({"form": "wizard"}, {"form": "text", "chat": True}, {"form": ["pairs"]}):
        write_json(folder / "manifest.json", manifest | wrong)
        with pytest.raises(UserError, match="not a tokens manifest"):
            TokensSpec.read(folder)


def test_pairs_are_no_rows_of_text_and_text_holds_no_examples(tmp_path: Path) -> None:
    folder = write_examples(tmp_path / "p", "pairs", pair(1), [{}])
    with pytest.raises(UserError, match="holds pairs"):
        Batches(folder, row_length=8, seed=0)


def test_a_manifest_without_a_form_is_read_as_before(tmp_path: Path) -> None:
    folder = write_examples(tmp_path / "c", "chat", pair(1), None)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["form"]
    write_json(folder / "manifest.json", manifest)
    assert TokensSpec.read(folder).form == "chat"
    assert Examples(folder, row_length=8, seed=0).row(1) == {}
