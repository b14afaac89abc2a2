from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.atomic import write_json
from bottega.core.errors import UserError
from bottega.data.batches import Batches
from bottega.data.packing import BLOCK_PIECES, best_fit, pack
from bottega.data.shards import ShardWriter
from bottega.data.spec import TokensSpec


def write_tokens(
    folder: Path,
    documents: list[list[int]],
    masks: list[list[bool]] | None = None,
    vocab_size: int = 2**16,
    shard_tokens: int = 2**20,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, vocab_size=vocab_size, chat=masks is not None, shard_tokens=shard_tokens)
    for number, ids in enumerate(documents):
        writer.add(ids, masks[number] if masks else None)
    writer.close()
    manifest = {
        "kind": "tokens",
        "schema_version": 1,
        "chat": masks is not None,
        "vocab_size": vocab_size,
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


def numbered(lengths: list[int]) -> list[list[int]]:
    """Documents in which every token of the corpus is another number."""
    starts = np.cumsum([0, *lengths]).tolist()
    return [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=False)]


@given(st.lists(st.integers(1, 40), max_size=200), st.integers(40, 90))
def test_best_fit_holds_every_piece_once_and_no_two_rows_could_be_one(lengths: list[int], capacity: int) -> None:
    rows = best_fit(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    sums = sorted(sum(lengths[index] for index in row) for row in rows)
    assert all(total <= capacity for total in sums)
    # Any fitting heuristic leaves at most one row at most half full.
    assert len(sums) < 2 or sums[0] + sums[1] > capacity


def test_best_fit_equals_the_naive_definition() -> None:
    random = np.random.default_rng(1)
    for capacity in (10, 64, 1000):
        lengths = random.integers(1, capacity + 1, 500).tolist()
        room: list[int] = []
        for length in sorted(lengths, reverse=True):
            fitting = [number for number, left in enumerate(room) if left >= length]
            if fitting:
                room[min(fitting, key=lambda number: room[number])] -= length
            else:
                room.append(capacity - length)
        rows = best_fit(lengths, capacity)
        assert sorted(capacity - sum(lengths[i] for i in row) for row in rows) == sorted(room)


def test_best_fit_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="11 tokens"):
        best_fit([3, 11], 10)


def test_packing_goes_over_several_blocks() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 2 * BLOCK_PIECES + 5)
    order, starts = pack(lengths, 256, seed=3)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    sums = np.add.reduceat(lengths[order], starts[:-1])
    assert sums.max() <= 256
    assert sums.mean() / 256 > 0.98


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=60),
    row_length=st.integers(2, 50),
    seed=st.integers(0, 5),
    shard_tokens=st.sampled_from([1, 30, 10_000]),
)
def test_an_epoch_has_every_token_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], row_length: int, seed: int, shard_tokens: int
) -> None:
    folder = write_tokens(tmp_path_factory.mktemp("t"), numbered(lengths), shard_tokens=shard_tokens)
    batches = Batches(folder, row_length=row_length, seed=seed)
    starts = set(np.cumsum([0, *lengths]).tolist())
    for epoch in range(2):
        rows = batches.rows(epoch * batches.epoch_rows, batches.epoch_rows)
        assert Counter(token for row in rows for token in row.tokens.tolist()) == Counter(range(sum(lengths)))
        for row in rows:
            assert len(row.tokens) == len(row.mask) == sum(row.lengths) <= row_length
            assert row.tokens.dtype == np.int64
            assert row.mask.all()
            at = 0
            for length in row.lengths:
                piece = row.tokens[at : at + length].tolist()
                at += length
                assert piece == list(range(piece[0], piece[0] + length))
                # No piece reaches into the next document.
                assert not starts & set(piece[1:])


def test_rows_are_a_pure_function_of_seed_and_index(tmp_path: Path) -> None:
    lengths = np.random.default_rng(2).integers(1, 60, 300).tolist()
    folder = write_tokens(tmp_path, numbered(lengths), shard_tokens=1000)

    def content(batches: Batches, index: int) -> list[int]:
        return batches.rows(index, 1)[0].tokens.tolist()

    one = Batches(folder, row_length=64, seed=7)
    indices = [0, 5 * one.epoch_rows + 3, 2, one.epoch_rows, one.epoch_rows - 1, 2]
    forwards = {index: content(one, index) for index in indices}
    fresh = Batches(folder, row_length=64, seed=7)
    assert {index: content(fresh, index) for index in reversed(indices)} == forwards
    run = fresh.rows(one.epoch_rows - 2, 4)
    assert run[1].tokens.tolist() == forwards[one.epoch_rows - 1]
    assert run[2].tokens.tolist() == forwards[one.epoch_rows]
    first, second = ([content(one, e * one.epoch_rows + i) for i in range(one.epoch_rows)] for e in range(2))
    assert first != second
    assert sorted(first) == sorted(second)
    other = Batches(folder, row_length=64, seed=8)
    assert [content(other, i) for i in range(5)] != [content(one, i) for i in range(5)]


def test_rows_are_nearly_full_and_long_documents_are_not_all_first(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lengths = np.minimum(random.geometric(1 / 90, 3000), 500).tolist()
    batches = Batches(write_tokens(tmp_path, numbered(lengths), vocab_size=2**20), row_length=512, seed=0)
    assert batches.fill >= 0.95
    assert batches.epoch_tokens == sum(lengths)
    longest = [max(row.lengths) for row in batches.rows(0, batches.epoch_rows)]
    half = len(longest) // 2
    assert abs(np.mean(longest[:half]) - np.mean(longest[half:])) < 0.15 * np.mean(longest)


def test_long_conversations_are_truncated_or_dropped_but_never_cut_in_two(tmp_path: Path) -> None:
    documents = numbered([5, 30, 30, 30])
    masks = [[False] * 4 + [True], [False] * 15 + [True] * 15, [False] * 29 + [True], [True] + [False] * 28 + [True]]
    batches = Batches(write_tokens(tmp_path, documents, masks), row_length=20, seed=0)
    assert (batches.truncated, batches.dropped) == (1, 2)
    rows = batches.rows(0, batches.epoch_rows)
    found = sorted((row.tokens.tolist(), row.mask.tolist()) for row in rows)
    assert found == [(documents[0], masks[0]), (documents[1][:20], masks[1][:20])]


def test_large_vocabularies_keep_their_ids(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path, [[0, 65_535, 65_536, 99_999]], vocab_size=100_000)
    assert Batches(folder, row_length=8, seed=0).rows(0, 1)[0].tokens.tolist() == [0, 65_535, 65_536, 99_999]
    assert np.load(folder / "tokens-00000.npy").dtype == np.uint32


def test_an_empty_folder_is_valid_but_cannot_be_trained_on(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path, [], [])
    assert TokensSpec.read(folder).documents == 0
    with pytest.raises(UserError, match="nothing to train on"):
        Batches(folder, row_length=8, seed=0)


def _edit(folder: Path, change: dict[str, object]) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_folder_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        return write_tokens(tmp_path / name, numbered([4, 5]))

    def refused(folder: Path, words: str) -> None:
        with pytest.raises(UserError, match=words):
            Batches(folder, row_length=8, seed=0)

    folder = fresh("cut")
    data = (folder / "tokens-00000.npy").read_bytes()
    (folder / "tokens-00000.npy").write_bytes(data[:-2])
    refused(folder, "cut or changed")
    folder = fresh("missing")
    (folder / "offsets-00000.npy").unlink()
    refused(folder, "cannot be read")
    folder = fresh("counts")
    _edit(folder, {"tokens": 10})
    refused(folder, "the manifest says 10")
    folder = fresh("negative")
    _edit(folder, {"documents": -1})
    refused(folder, "not a count")
    folder = fresh("type")
    _edit(folder, {"shards": 3})
    refused(folder, "not a tokens manifest")
    folder = fresh("version")
    _edit(folder, {"schema_version": 99})
    refused(folder, "schema version 99")
    folder = fresh("offsets")
    np.save(folder / "offsets-00000.npy", np.array([0, 12, 9]))
    refused(folder, "does not cut")
    folder = fresh("pickle")
    np.save(folder / "tokens-00000.npy", np.array([{}] * 9), allow_pickle=True)
    refused(folder, "tokens-00000.npy")
    folder = fresh("vocabulary")
    _edit(folder, {"vocab_size": 8})
    with pytest.raises(UserError, match="token 8"):
        Batches(folder, row_length=16, seed=0).rows(0, 1)
