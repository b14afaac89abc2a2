"""Several processes equal one: gradients, norms, weights, states, in every strategy; a state outlives its cut.

The processes are real (Gloo on the loopback device). One process, without any of our parallel code, is the oracle.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.data.batches import Row
from bottega.model.decoder import Decoder
from bottega.train.batch import micro_batches
from bottega.train.loss import linear_cross_entropy
from bottega.train.optimizer import build_optimizers
from bottega.train.parallel.deepspeed import engine_config, read_config
from bottega.train.parallel.enter import entered, ranks_of
from bottega.train.parallel.pieces import read_pieces, write_pieces
from bottega.train.parallel.ranks import Ranks, buckets, deal, packed, trained_of
from bottega.train.parallel_config import ParallelSettings
from processes import together

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
    ranks = ranks_of(ParallelSettings(strategy="zero3", gather_dtype="bfloat16"))
    model = ranks.wrap(tiny())
    found = steps(ranks, model, ranks.adopt(optimizers_of(model)), range(STEPS))
    if ranks.is_first:
        torch.save(found, out / "narrow")


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


def test_weights_sent_in_bfloat16_cost_its_rounding_and_no_more(pair: Path) -> None:
    (narrow, wide) = torch.tensor(torch.load(pair / "narrow")), torch.tensor(alone()[0])
    torch.testing.assert_close(narrow, wide, rtol=0.02, atol=0.0)
    assert (narrow - wide).abs().max() > 1e-4  # it was sent in bfloat16


def assert_equal(result: dict[str, Any], oracle: tuple[list[tuple[float, float]], dict[str, torch.Tensor]]) -> None:
    losses, weights = oracle
    torch.testing.assert_close(torch.tensor(result["found"]), torch.tensor(losses), rtol=1e-5, atol=1e-6)
    assert result["class"] == "Decoder" and result["weights"].keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(
            result["weights"][name], value, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def saved_by_two(out: Path) -> None:
    for strategy in STRATEGIES:
        ranks = ranks_of(ParallelSettings(strategy=strategy))
        model = ranks.wrap(tiny())
        optimizers = ranks.adopt(optimizers_of(model))
        steps(ranks, model, optimizers, range(2))
        (out / strategy).mkdir(exist_ok=True)
        ranks.barrier()
        write_pieces(out / strategy, ranks, model, optimizers)


def gone_on(out: Path, state: str, strategy: str) -> None:
    """Go on from a state that two processes wrote, in however many there are now."""
    ranks = Ranks() if strategy == "none" else ranks_of(ParallelSettings(strategy=strategy))
    model = ranks.wrap(tiny())
    optimizers = ranks.adopt(optimizers_of(model))
    read_pieces(out / state, ranks, model, optimizers)
    found = steps(ranks, model, optimizers, range(2, STEPS))
    whole = ranks.unwrap(model)
    if ranks.is_first:
        kept = {"found": found, "weights": whole.state_dict(), "class": type(whole).__name__}
        torch.save(kept, out / f"{strategy}-on")


def all_gone_on(out: Path) -> None:
    for strategy in STRATEGIES:
        gone_on(out, strategy, strategy)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    together(2, saved_by_two, folder)
    return folder


def behind_two() -> tuple[list[tuple[float, float]], dict[str, torch.Tensor]]:
    losses, weights = alone()
    return losses[2:], weights


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_process_goes_on_from_the_state_of_two(states: Path, strategy: str) -> None:
    gone_on(states, strategy, "none")
    assert_equal(torch.load(states / "none-on"), behind_two())


def test_three_processes_go_on_from_the_state_of_two(states: Path) -> None:
    together(3, all_gone_on, states)
    for strategy in STRATEGIES:
        assert_equal(torch.load(states / f"{strategy}-on"), behind_two())


def test_a_state_is_shared_out_and_whole(states: Path) -> None:
    sizes = {s: [path.stat().st_size for path in sorted((states / s).iterdir())] for s in STRATEGIES}
    first, second = sizes["ddp"]
    assert second < 1000 < first  # the first has everything
    for strategy in ("zero1", "zero2", "zero3"):
        assert max(sizes[strategy]) < 0.6 * first
        assert sum(sizes[strategy]) == pytest.approx(first, rel=0.1)


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_state_that_lacks_a_piece_is_not_read(states: Path, tmp_path: Path, damage: str) -> None:
    for path in (states / "zero3").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    second = tmp_path / "00001-of-00002.safetensors"
    if damage == "missing":
        second.unlink()
    else:
        second.write_bytes((tmp_path / "00000-of-00002.safetensors").read_bytes())
    with pytest.raises((OSError, ValueError)):
        read_pieces(tmp_path, Ranks(), tiny(), [])


def test_shares_are_dealt_without_loss() -> None:
    ranks = Ranks()
    shares = []
    for rank in range(3):
        ranks.rank, ranks.world = rank, 3
        shares.append(ranks.share(range(7)))
    assert sorted(place for share in shares for place in share) == list(range(7))
    assert [len(share) for share in shares] == [3, 2, 2]
    ranks.rank, ranks.world = 2, 3
    assert ranks.share([1, 2]) == []


def test_lots_are_of_about_one_size() -> None:
    parameters = [nn.Parameter(torch.empty(size)) for size in (100, 60, 50, 40, 30, 20)]
    lots = deal(parameters, 2)
    assert {id(p) for lot in lots for p in lot} == {id(p) for p in parameters}
    assert [sum(p.numel() for p in lot) for lot in lots] == [160, 140]


def test_buckets_hold_one_type_and_are_written_back() -> None:
    tensors = [torch.ones(3), torch.ones(2, 2), torch.ones(5, dtype=torch.float64), torch.ones(9), torch.ones(4, 2).T]
    found = buckets(tensors, values=8)
    assert [[t.numel() for t in bucket] for bucket in found] == [[3, 4], [9], [8], [5]]
    for bucket in buckets(tensors, values=100):
        with packed(bucket) as flat:
            flat *= 3
    assert all((tensor == 3).all() for tensor in tensors)


def test_what_cannot_be_cut_is_refused() -> None:
    assert "zero1" in ParallelSettings(strategy="zero3").refusal("muon")
    assert "zero1" in ParallelSettings(strategy="zero2").refusal("adamw", draws=True)
    assert not ParallelSettings(strategy="zero1").refusal("muon", draws=True)
    assert not ParallelSettings(strategy="zero3").refusal("adamw")
    with pytest.raises(UserError, match="gather_dtype is for zero2 and zero3"):
        ParallelSettings.parse({"strategy": "ddp", "gather_dtype": "bfloat16"})


def test_environment_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE in the environment is 'two'"), entered(ParallelSettings(), CPU):
        pass


def test_several_processes_for_a_run_of_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started"), entered(ParallelSettings(strategy="none"), CPU):
        pass


def test_deepspeed_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match="needs the package deepspeed") as raised, entered(
        ParallelSettings(strategy="deepspeed"), CPU
    ):
        pass
    assert "pip install" in (raised.value.hint or "")


def test_deepspeeds_file_is_filled_in_and_may_not_contradict_the_recipe(tmp_path: Path) -> None:
    users = {
        "train_batch_size": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"}, "fp16": {"enabled": False, "loss_scale": 0},
        "optimizer": {"type": "auto", "params": {"lr": "auto"}},
        "zero_optimization": {"stage": 2, "overlap_comm": True, "reduce_bucket_size": "auto"},
        "wall_clock_breakdown": False,
    }  # fmt: skip
    file = tmp_path / "zero2.json"
    file.write_text(json.dumps(users))
    config = engine_config(read_config(file), clip=0.5)
    assert config["zero_optimization"] == {"stage": 2, "overlap_comm": True}
    assert config["gradient_clipping"] == 0.5
    assert config["gradient_accumulation_steps"] == 1  # the loop says where a step ends
    assert not {"train_batch_size", "bf16", "fp16", "optimizer"} & config.keys()
    assert config["wall_clock_breakdown"] is False
    wrong = {
        "train_batch_size is decided": {"train_batch_size": 32}, "bf16 is decided": {"bf16": {"enabled": True}},
        "optimizer is decided": {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}},
        "clipping is 1.0": {"gradient_clipping": 1.0}, "stage 3": {"zero_optimization": {"stage": 3}},
    }  # fmt: skip
    for message, given in wrong.items():
        with pytest.raises(UserError, match=message):
            engine_config(given, clip=0.5)
    file.write_text("[1]")
    with pytest.raises(UserError, match="not a JSON object"):
        read_config(file)
    with pytest.raises(ValueError, match="is for strategy: deepspeed"):
        ParallelSettings(deepspeed={"zero_optimization": {"stage": 1}})
    assert "flat pieces" in ParallelSettings(strategy="deepspeed").refusal("muon")
