"""AdamW in fewer bits: against torch's, bitsandbytes' and the formula; small steps; bytes; exact resume."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.optim.adamw import AdamW8bit as PeerAdamW8bit
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bottega.codec.nf4 import quantise_nf4
from bottega.core.errors import UserError
from bottega.model.quantised import QuantisedLinear
from bottega.train.optimizer import Muon
from bottega.train.optimizers import lean, masters
from bottega.train.optimizers.adamw8bit import AdamW8bit
from bottega.train.optimizers.bytes import Optimizer, frozen_bytes, parameter_bytes
from bottega.train.optimizers.kahan import AdamWKahan
from bottega.train.optimizers.lean import LeanAdamW
from bottega.train.optimizers.masters import MasterWeights
from bottega.train.optimizers.paged import paged_adamw8bit

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
BETAS = (0.9, 0.95)


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-2, betas=BETAS, fused=True)


KINDS: dict[str, tuple[torch.dtype, Make]] = {
    "adamw8bit": (torch.float32, lambda groups: AdamW8bit(groups, lr=1e-2, betas=BETAS)),
    "adamw8bit, kahan": (torch.bfloat16, lambda groups: AdamW8bit(groups, lr=1e-2, betas=BETAS, kahan=True)),
    "adamw_kahan": (torch.bfloat16, lambda groups: AdamWKahan(groups, lr=1e-2, betas=BETAS)),
    "masters": (torch.bfloat16, lambda groups: MasterWeights(groups, adamw)),
    "masters of muon": (torch.bfloat16, lambda groups: MasterWeights(groups, lambda own: Muon(own, lr=1e-2))),
    "masters of adamw8bit": (torch.bfloat16, lambda groups: MasterWeights(groups, lambda own: AdamW8bit(own, lr=1e-2))),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: range) -> None:
    """Steps with gradients that depend on the step alone."""
    for step in steps:
        for number, parameter in enumerate(parameters):
            parameter.grad = drawn(*parameter.shape, seed=1000 * number + step).to(parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize("kind", ["float32", "bits: 32", "small"])
def test_float32_moments_are_torchs_adamw(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(lean._CHUNK_VALUES, "cpu", 512)  # several chunks
    start = drawn(40, 50)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    if kind == "float32":
        mine: torch.optim.Optimizer = LeanAdamW([ours], 1e-2, BETAS, 1e-8, 0.1, moments="float32", kahan=False)
    elif kind == "bits: 32":
        group = {"params": [ours], "bits": 32, "weight_decay": 0.1}
        mine = AdamW8bit([group], lr=1e-2, betas=BETAS, minimum=0)
    else:
        mine = AdamW8bit([ours], lr=1e-2, betas=BETAS, weight_decay=0.1)
    oracle = torch.optim.AdamW([theirs], lr=1e-2, betas=BETAS, weight_decay=0.1)
    run(mine, [ours], range(6))
    run(oracle, [theirs], range(6))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_8bit_first_step_is_bitsandbytes():
    """To the last bits: up to here nobody has rounded a moment. The states agree where its search is exact.

    (Its CPU kernel looks levels up in steps of 2⁻¹⁵, which is coarse near zero; its GPU kernel takes the nearest.)
    """
    start, gradient = drawn(64, 100), drawn(64, 100, seed=1)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine, peer = AdamW8bit([ours], lr=1e-2, weight_decay=0.1), PeerAdamW8bit([theirs], lr=1e-2, weight_decay=0.1)
    ours.grad, theirs.grad = gradient.clone(), gradient.clone()
    mine.step()
    peer.step()
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    state, other = mine.state[ours], peer.state[theirs]
    for name, number in (("exp_avg", 1), ("exp_avg_sq", 2)):
        assert torch.allclose(state[f"{name}_scales"], other[f"absmax{number}"], rtol=1e-6)
        away = (state[name].int() - other[f"state{number}"].int()).abs()
        levels = lean.dynamic_levels(name == "exp_avg")[state[name].int()]
        assert ((away <= 1) | (levels.abs() < 2**-12)).all() and (away == 0).float().mean() > 0.95


def test_8bit_steps_are_the_formula():
    """Many steps by hand: widen, move, use, take the nearest level. Chunks do not matter."""
    start = drawn(70, 100)
    ours = nn.Parameter(start.clone())
    optimizer = AdamW8bit([ours], lr=1e-2, betas=BETAS, weight_decay=0.1)
    books = {True: lean.dynamic_levels(True).double(), False: lean.dynamic_levels(False).double()}

    def narrowed(values: Tensor, signed: bool) -> Tensor:
        rows = nn.functional.pad(values.reshape(-1), (0, -values.numel() % 256)).view(-1, 256)
        scale = rows.abs().amax(dim=1, keepdim=True)
        nearest = (rows / scale).unsqueeze(-1).sub(books[signed]).abs().argmin(dim=-1)
        return (books[signed][nearest] * scale).reshape(-1)[: values.numel()].view(values.shape)

    weight, first, second = start.double(), torch.zeros(70, 100).double(), torch.zeros(70, 100).double()
    for step in range(1, 4):
        gradient = drawn(70, 100, seed=step)
        ours.grad = gradient.clone()
        optimizer.step()
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient.double()
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient.double() ** 2
        scale = (second / (1 - BETAS[1] ** step)).sqrt() + 1e-8
        weight = weight * (1 - 1e-2 * 0.1) - 1e-2 * first / (1 - BETAS[0] ** step) / scale
        first, second = narrowed(first, True), narrowed(second, False)
    # A value in the middle between two levels may have gone the other way in float32: few have.
    assert (ours.double() - weight).abs().median() < 1e-6
    assert ((ours.double() - weight).abs() > 1e-5).double().mean() < 0.005


def regression(make: Make, dtype: torch.dtype, steps: int = 150) -> float:
    """The loss that an optimiser reaches: two layers that learn what two other layers do."""
    teacher = [drawn(64, 80, seed=1) / 8, drawn(80, 64, seed=2) / 8]
    model = [nn.Parameter((drawn(64, 80, seed=3) / 8).to(dtype)), nn.Parameter((drawn(80, 64, seed=4) / 8).to(dtype))]
    optimizer, loss = make([{"params": model}]), math.inf
    for step in range(steps):
        x = drawn(128, 64, seed=10 + step)
        target = torch.tanh(x @ teacher[0]) @ teacher[1]
        error = (torch.tanh(x @ model[0].float()) @ model[1].float() - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        optimizer.step()
        loss = float(error.detach())
    return loss


def test_converges_like_float32():
    whole = regression(adamw, torch.float32)
    assert whole < 0.1 * regression(adamw, torch.float32, steps=1)
    for name, (dtype, make) in KINDS.items():
        if "muon" not in name:
            assert regression(make, dtype) < 1.1 * whole + 1e-4, name


@pytest.mark.parametrize("rate", [1e-5, 2e-5])
def test_small_steps_in_bfloat16(rate: float):
    """Plain bfloat16 loses most of the way at a small rate; a correction or masters keep it."""
    start = (drawn(100, 100) * 0.02).bfloat16()

    def way(make: Make, dtype: torch.dtype) -> Tensor:
        parameter = nn.Parameter(start.clone().to(dtype))
        optimizer = make([{"params": [parameter], "lr": rate}])
        for step in range(100):
            parameter.grad = ((drawn(100, 100, seed=5) + 0.5 * drawn(100, 100, seed=step)) * 1e-3).to(dtype)
            optimizer.step()
        return parameter.detach().float() - start.float()

    def share(name: str) -> float:
        moved = way(KINDS[name][1], torch.bfloat16)
        return float((moved * whole).sum() / whole.square().sum())

    whole = way(adamw, torch.float32)
    plain = way(adamw, torch.bfloat16)
    assert (plain == 0).float().mean() > 0.5
    assert float((plain * whole).sum() / whole.square().sum()) < 0.5
    for name in ("adamw8bit, kahan", "adamw_kahan", "masters"):
        assert 0.97 < share(name) < 1.03, name


def test_kahan_keeps_what_rounding_took():
    """Weight and compensation together are the float32 weight, to the 16 bits that two bfloat16 have."""
    start = drawn(30, 30).bfloat16()
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.float())
    optimizer = LeanAdamW([ours], 1e-4, BETAS, 1e-8, 0.1, moments="float32", kahan=True)
    oracle = torch.optim.AdamW([theirs], lr=1e-4, betas=BETAS, weight_decay=0.1)
    for step in range(20):
        gradient = drawn(30, 30, seed=step).bfloat16()
        ours.grad, theirs.grad = gradient.clone(), gradient.float()
        optimizer.step()
        oracle.step()
    together = ours.detach().float() + optimizer.state[ours]["compensation"].float()
    assert (together - theirs).abs().max() < 20 * theirs.abs().max() * 2**-17
    assert (ours.detach().float() - theirs).abs().max() > 1e-4


def test_a_second_moment_in_bfloat16_can_shrink():
    """Where it could not, with torch's default of 0.999, it is float32."""
    for beta, dtype in ((0.95, torch.bfloat16), (0.99, torch.float32), (0.999, torch.float32)):
        parameter = nn.Parameter(torch.zeros(8, dtype=torch.bfloat16))
        optimizer = AdamWKahan([parameter], lr=1e-3, betas=(0.9, beta))
        for step in range(800):
            parameter.grad = torch.full((8,), 10.0 if step == 0 else 1e-3, dtype=torch.bfloat16)
            optimizer.step()
        second = optimizer.state[parameter]["exp_avg_sq"]
        expected = (1 - beta) * 100 * beta**799 + 1e-6 * (1 - beta**799)
        assert second.dtype == dtype
        assert abs(float(second[0]) / expected - 1) < 0.1  # half of bfloat16's last bit, against 1/20 exchanged


@pytest.mark.parametrize("name", KINDS)
def test_resume_is_exact(name: str, tmp_path: Path):
    """Through a file of plain tensors, as the training state is written."""
    dtype, make = KINDS[name]
    shapes = [(80, 100), (30, 10)] if "muon" in name else [(80, 100), (30, 10), (17,)]

    def new() -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
        parameters = [nn.Parameter(drawn(*shape).to(dtype)) for shape in shapes]
        return parameters, make([{"params": parameters[:1], "weight_decay": 0.1}, {"params": parameters[1:]}])

    parameters, optimizer = new()
    run(optimizer, parameters, range(3))
    optimizer.param_groups[0]["lr"] = 3e-3
    saved = optimizer.state_dict()
    tensors = {f"{index}.{key}": value for index, found in saved["state"].items() for key, value in found.items()}
    save_file(tensors, tmp_path / "optimizer.safetensors")
    weights = [parameter.detach().clone() for parameter in parameters]
    run(optimizer, parameters, range(3, 6))

    others, again = new()
    for other, weight in zip(others, weights, strict=True):
        other.data.copy_(weight)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(tmp_path / "optimizer.safetensors").items():
        state.setdefault(int(key.split(".")[0]), {})[key.split(".")[1]] = value
    again.load_state_dict({"state": state, "param_groups": copy.deepcopy(saved["param_groups"])})
    kept = again.state_dict()["state"]
    assert all(kept[index][key].dtype == value.dtype for index, found in state.items() for key, value in found.items())
    run(again, others, range(3, 6))
    assert again.param_groups[0]["lr"] == 3e-3
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(others, parameters, strict=True))


def test_masters_are_the_inner_optimiser(monkeypatch: pytest.MonkeyPatch):
    """Portions, mixed dtypes, a parameter without a gradient, a rate that changes."""
    monkeypatch.setattr(masters, "_WIDENED_VALUES", 100)
    starts = [drawn(8, 20, seed=seed).bfloat16() for seed in range(4)]
    ours = [nn.Parameter(start.clone()) for start in starts[:3]] + [nn.Parameter(starts[3].float())]
    theirs = [nn.Parameter(start.float()) for start in starts]
    mine, oracle = MasterWeights([{"params": ours}], adamw), adamw([{"params": theirs}])
    for step in range(5):
        for number in (0, 1, 3):
            gradient = drawn(8, 20, seed=10 * step + number).bfloat16()
            ours[number].grad, theirs[number].grad = gradient.to(ours[number].dtype), gradient.float()
        for optimizer in (mine, oracle):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.step()
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own, other.to(own.dtype))
    assert ours[0].grad is not None and ours[3].grad is not None
    mine.zero_grad()
    assert ours[0].grad is None and ours[3].grad is None


@pytest.mark.parametrize("name", ["adamw", "muon", "adamw8bit", "adamw_kahan", "adamw_masters"])
@pytest.mark.parametrize("shape", [(64, 100), (4095,), (37, 111)])
def test_bytes_are_those_held(name: Optimizer, shape: tuple[int, ...]):
    dtype = torch.bfloat16 if name in ("adamw_kahan", "adamw_masters") else torch.float32
    parameter = nn.Parameter(drawn(*shape).to(dtype))
    made: dict[str, Make] = {
        "adamw": adamw,
        "muon": (lambda groups: Muon(groups, lr=1e-2)) if len(shape) == 2 else adamw,
        "adamw8bit": KINDS["adamw8bit"][1],
        "adamw_kahan": KINDS["adamw_kahan"][1],
        "adamw_masters": KINDS["masters"][1],
    }
    optimizer = made[name]([{"params": [parameter]}])
    run(optimizer, [parameter], range(1))
    held = sum(value.nbytes for value in optimizer.state_dict()["state"][0].values())
    counted = parameter_bytes(name, shape)
    assert counted.states == held
    assert parameter.grad is not None
    assert (counted.weights, counted.gradients) == (parameter.nbytes, parameter.grad.nbytes)


def test_bytes_of_special_cases():
    embedding = nn.Parameter(drawn(100, 50))
    optimizer = AdamW8bit([{"params": [embedding], "bits": 32}], lr=1e-2)
    run(optimizer, [embedding], range(1))
    held = sum(value.nbytes for value in optimizer.state_dict()["state"][0].values())
    assert parameter_bytes("adamw8bit", (100, 50), bits=32).states == held
    slow = nn.Parameter(drawn(100, 50).bfloat16())
    optimizer = AdamWKahan([slow], lr=1e-2, betas=(0.9, 0.999))
    run(optimizer, [slow], range(1))
    held = sum(value.nbytes for value in optimizer.state_dict()["state"][0].values())
    assert parameter_bytes("adamw_kahan", (100, 50), beta=0.999).states == held
    assert parameter_bytes("adamw_kahan", (1000, 1000)).total == 10_000_004


@pytest.mark.parametrize("shape", [(64, 100), (37, 33), (512, 640)])
def test_bytes_of_bases(shape: tuple[int, int]):
    weight = drawn(*shape)
    for double in (True, False):
        layer = QuantisedLinear.from_weight(weight, "nf4", double)
        assert frozen_bytes("nf4", shape, double_quant=double) == layer.stored_bytes()
    assert frozen_bytes("int8", shape) == QuantisedLinear.from_weight(weight, "int8").stored_bytes()
    assert frozen_bytes("none", shape, 2) == weight.bfloat16().nbytes
    assert quantise_nf4(weight).codes.nbytes == -(-weight.numel() // 2)


def test_paged_is_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        paged_adamw8bit([{"params": [nn.Parameter(drawn(3))]}], lr=1e-3)
