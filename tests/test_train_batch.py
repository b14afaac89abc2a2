"""Batches: who is a target, and that splitting or packing a batch does not change its gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bottega.checkpoint.config import ModelConfig
from bottega.data.batches import Row
from bottega.model.decoder import Decoder
from bottega.train.batch import collate
from bottega.train.config import Train
from bottega.train.loop import _accumulate
from bottega.train.settings import Settings
from bottega.train.stage import Forward, Machine
from bottega.train.stages.tokens import TokenStage

CONFIG = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)
MACHINE = Machine(torch.device("cpu"), torch.float32, 1e9)


def row(lengths: list[int], seed: int) -> Row:
    """A row with a ragged random mask."""
    draw = np.random.default_rng(seed)
    size = sum(lengths)
    return Row(draw.integers(0, 61, size), draw.random(size) < 0.5, lengths)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4))
def test_targets_are_the_masked_tokens_that_have_something_before_them(shapes: list[list[int]]) -> None:
    rows = [row(lengths, seed) for seed, lengths in enumerate(shapes)]
    batch = collate(rows)
    expected = []
    for each in rows:
        start = 0
        for length in each.lengths:
            tokens, mask = each.tokens[start : start + length], each.mask[start : start + length]
            expected += [(int(tokens[i - 1]), int(tokens[i])) for i in range(1, length) if mask[i]]
            start += length
    got = list(zip(batch.input_ids[0, batch.positions].tolist(), batch.targets.tolist(), strict=True))
    assert sorted(got) == sorted(expected)
    assert sum(batch.segments) == batch.input_ids.shape[1] == sum(len(each.tokens) for each in rows)
    assert batch.segments == sorted(batch.segments, reverse=True)


class Given:
    """Rows that are the same in every step."""

    def __init__(self, rows: list[Row]) -> None:
        self.given = rows

    def rows(self, start: int, count: int) -> list[Row]:
        return self.given


def accumulated(model: Decoder, rows: list[Row], micro_batch_tokens: int) -> float:
    """The loss of one step over the rows; the gradients are in the model."""
    config = Train.parse({"data": "d", "tokenizer": "t", "out": "o", "micro_batch_tokens": max(8, micro_batch_tokens)})
    settings = Settings(1, len(rows), 64, 64 * len(rows), 1e-3, config)
    stage = TokenStage(Given(rows), settings, Forward(model, MACHINE))  # type: ignore[arg-type]
    loss, _ = _accumulate(stage, stage.parts(0), MACHINE)
    return loss


def gradients(rows: list[Row], micro_batch_tokens: int) -> tuple[float, list[torch.Tensor]]:
    model = Decoder(CONFIG).initialise(torch.Generator().manual_seed(3)).double()
    loss = accumulated(model, rows, micro_batch_tokens)
    return loss, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("micro_batch_tokens", [1, 40, 80])
def test_eight_by_one_equals_two_by_four_with_ragged_masks(micro_batch_tokens: int) -> None:
    rows = [row([5, 9, 3, 7][: 1 + seed % 4], seed) for seed in range(8)]
    loss, whole = gradients(rows, 10_000)
    split_loss, split = gradients(rows, micro_batch_tokens)
    assert abs(loss - split_loss) <= 1e-12 * abs(loss)
    for one, other in zip(whole, split, strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm()


def test_packed_equals_unpacked() -> None:
    packed = row([6, 11, 4], 5)
    starts = np.cumsum([0, *packed.lengths])
    apart = [Row(packed.tokens[a:b], packed.mask[a:b], [int(b - a)]) for a, b in itertools.pairwise(starts)]
    loss, whole = gradients([packed], 10_000)
    apart_loss, split = gradients(apart, 1)
    assert abs(loss - apart_loss) <= 1e-12 * abs(loss)
    for one, other in zip(whole, split, strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm()


def test_a_batch_with_nothing_to_train_has_no_gradient() -> None:
    empty = Row(np.arange(5), np.zeros(5, bool), [5])
    model = Decoder(CONFIG)
    assert accumulated(model, [empty], 100) == 0.0
    assert all(parameter.grad is None for parameter in model.parameters())
