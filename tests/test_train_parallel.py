"""Several processes equal one: gradients, norms, weights and states, in every strategy; and a state outlives its cut.

The processes are real (Gloo on the loopback device). One process alone, without any of our parallel code, is the oracle.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.data.batches import Row
from bottega.model.decoder import Decoder
from bottega.train.batch import micro_batches
from bottega.train.loss import linear_cross_entropy
from bottega.train.optimizer import build_optimizers
from bottega.train.parallel.enter import entered, meet, ranks_of
from bottega.train.parallel.pieces import read_pieces, write_pieces
from bottega.train.parallel.ranks import Ranks, buckets, deal, packed, trained_of
from bottega.train.parallel_config import ParallelSettings

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
STEPS = 4
ROWS = 5  # a number that neither two nor three processes share evenly
CPU = torch.device("cpu")


def tiny(*, tied: bool = False, frozen: bool = False) -> Decoder:
    config = ModelConfig(
        vocab_size=37, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=64,
        tie_word_embeddings=tied, initializer_range=0.2,
    )  # fmt: skip
    model = Decoder(config).initialise(torch.Generator().manual_seed(0))
    if frozen:  # as under an adapter: most of it does not move
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("o_proj" in name or name.endswith("norm.weight"))
    return model


def rows_of(step: int) -> list[Row]:
    """Rows of very different lengths, so that processes have different numbers of micro-batches."""
    generator = np.random.default_rng(step)
    lengths = [40, 7, 33, 21, 12][:ROWS]
    return [Row(generator.integers(0, 37, n), generator.random(n) < 0.7, [n]) for n in lengths]


def steps(
    ranks: Ranks, model: Decoder, optimizers: list[torch.optim.Optimizer], which: Sequence[int]
) -> list[tuple[float, float]]:
    """What the loop does, in its smallest form: loss and norm of each step."""
    found = []
    for step in which:
        parts = [part for part in micro_batches(ranks.share(rows_of(step)), 40) if len(part.targets)]
        weight = ranks.sum([sum(len(part.targets) for part in parts)])[0]
        loss = 0.0
        for part, counts in ranks.turns(parts):
            states = model.hidden(part.input_ids, segments=part.segments)[0, part.positions]
            summed = linear_cross_entropy(states, model.lm_head.weight, part.targets)
            (summed * (counts / weight)).backward()
            loss += counts * float(summed.detach()) / weight
        trained = trained_of(model)
        ranks.reduce_gradients(trained)
        norm = ranks.clip(trained, 0.5)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        ranks.finish_step()
        found.append((ranks.sum([loss])[0], norm))
    return found


def optimizers_of(model: nn.Module, name: Any = "adamw") -> list[torch.optim.Optimizer]:
    return build_optimizers(model, name, learning_rate=0.01, weight_decay=0.1, work_dtype=torch.float32)


def alone(optimizer: str = "adamw", **kind: bool) -> tuple[list[tuple[float, float]], dict[str, torch.Tensor]]:
    model = tiny(**kind)
    return steps(Ranks(), model, optimizers_of(model, optimizer), range(STEPS)), model.state_dict()


def together(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in `world` processes that know of each other, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_child, args=(rank, world, port, work, arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes) and not any(process.exitcode for process in processes):
        multiprocessing.connection.wait([process.sentinel for process in processes if process.is_alive()], timeout=60)
    for process in processes:
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0] * world


def _child(rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    meet(ParallelSettings(timeout=1), CPU)
    work(*arguments)
    dist.destroy_process_group()


def equal_one(out: Path) -> None:
    """Every strategy, whole, tied and mostly frozen, with AdamW and (where it may) Muon."""
    for strategy in STRATEGIES:
        for kind in ({}, {"tied": True}, {"frozen": True}):
            for optimizer in ("adamw", "muon") if strategy in ("ddp", "zero1") and not kind else ("adamw",):
                ranks = ranks_of(ParallelSettings(strategy=strategy))
                model = ranks.wrap(tiny(**kind))
                found = steps(ranks, model, ranks.adopt(optimizers_of(model, optimizer)), range(STEPS))
                whole = ranks.unwrap(model)
                if ranks.is_first:
                    name = "-".join([strategy, optimizer, *kind])
                    found = {"found": found, "weights": whole.state_dict(), "class": type(whole).__name__}
                    torch.save(found, out / name)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    together(2, equal_one, folder)
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", [{}, {"tied": True}, {"frozen": True}], ids=lambda kind: "-".join(kind) or "whole")
def test_two_processes_equal_one(pair: Path, strategy: str, kind: dict[str, bool]) -> None:
    assert_equal(torch.load(pair / "-".join([strategy, "adamw", *kind])), alone(**kind))


@pytest.mark.parametrize("strategy", ["ddp", "zero1"])
def test_two_processes_equal_one_with_whole_matrices(pair: Path, strategy: str) -> None:
    assert_equal(torch.load(pair / f"{strategy}-muon"), alone("muon"))


def assert_equal(result: dict[str, Any], oracle: tuple[list[tuple[float, float]], dict[str, torch.Tensor]]) -> None:
    losses, weights = oracle
    torch.testing.assert_close(torch.tensor(result["found"]), torch.tensor(losses), rtol=1e-5, atol=1e-6)
    assert result["class"] == "Decoder" and result["weights"].keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(result["weights"][name], value, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


