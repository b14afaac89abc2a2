"""What quantised bases and lean optimisers cost in time and keep of small steps, beside bitsandbytes.

    python benchmarks/low_precision.py

One matrix of 1024 × 4096 on one thread. Figures are CPU time, the least of several, so that a busy machine changes
them little. Then the way that weights of size 0.02 go in 200 steps of AdamW, as a share of the way in float32.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.codec.blockwise import dequantise_blockwise, dynamic_levels, quantise_blockwise
from bottega.codec.nf4 import dequantise_nf4, quantise_nf4
from bottega.model.quantised import QuantisedLinear, dequantise_int8, quantise_int8
from bottega.train.optimizers.adamw8bit import AdamW8bit
from bottega.train.optimizers.kahan import AdamWKahan
from bottega.train.optimizers.masters import MasterWeights

ROWS, COLUMNS, TOKENS = 1024, 4096, 512


RUNS = 9


def least(work: Callable[[], object]) -> float:
    """Milliseconds of CPU time of the quickest of several runs."""
    work()
    found = []
    for _ in range(RUNS):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return 1000 * min(found)


def show(name: str, ours: float, theirs: float | None = None) -> None:
    """One line of the table."""
    peer = "" if theirs is None else f"{theirs:9.2f} ms   × {theirs / ours:.2f}"
    print(f"{name:38}{ours:9.2f} ms   {peer}")


def numbers(weight: Tensor) -> None:
    """Quantise and dequantise."""
    import bitsandbytes.functional as peer

    stored, (codes, scales) = quantise_nf4(weight), quantise_int8(weight)
    other, state = peer.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    shape = (ROWS, COLUMNS)
    show("NF4, quantise", least(lambda: quantise_nf4(weight)),
         least(lambda: peer.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)))  # fmt: skip
    show("NF4, dequantise", least(lambda: dequantise_nf4(stored, shape)),
         least(lambda: peer.dequantize_4bit(other, state)))  # fmt: skip
    show("NF4, dequantise to bfloat16", least(lambda: dequantise_nf4(stored, shape, torch.bfloat16)))
    show("int8, quantise", least(lambda: quantise_int8(weight)), least(lambda: peer.int8_vectorwise_quant(weight)))
    show("int8, dequantise", least(lambda: dequantise_int8(codes, scales)),
         least(lambda: peer.int8_vectorwise_dequant(codes, scales)))  # fmt: skip
    levels = dynamic_levels(True)
    moments, moment_scales = quantise_blockwise(weight, signed=True)
    _, blocks = peer.quantize_blockwise(weight, code=levels, blocksize=256)
    show("8-bit blocks, quantise", least(lambda: quantise_blockwise(weight, signed=True)),
         least(lambda: peer.quantize_blockwise(weight, code=levels, blocksize=256)))  # fmt: skip
    show("8-bit blocks, dequantise", least(lambda: dequantise_blockwise(moments, moment_scales, levels=levels)),
         least(lambda: peer.dequantize_blockwise(moments, blocks)))  # fmt: skip


def products(weight: Tensor) -> None:
    """A product of 512 tokens, forwards and backwards to the input."""
    x = torch.randn(TOKENS, COLUMNS, requires_grad=True)
    upstream = torch.randn(TOKENS, ROWS)

    def both(layer: Callable[[Tensor], Tensor]) -> None:
        torch.autograd.grad(layer(x), x, upstream)

    show("product, dense", least(lambda: both(lambda x: F.linear(x, weight))))
    for kind in ("nf4", "int8"):
        layer = QuantisedLinear.from_weight(weight, kind)
        show(f"product, {kind}", least(lambda layer=layer: both(layer)))


def steps(weight: Tensor) -> None:
    """One step of an optimiser."""
    from bitsandbytes.optim.adamw import AdamW8bit as Peer

    def step(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], dtype: torch.dtype) -> float:
        parameter = nn.Parameter(weight.to(dtype, copy=True))
        parameter.grad = torch.randn(ROWS, COLUMNS).to(dtype) * 1e-3
        return least(make([parameter]).step)

    def fused(groups: list[dict[str, list[nn.Parameter]]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=1e-4, fused=True)

    show("step, AdamW (torch, fused)", step(lambda own: fused([{"params": own}]), torch.float32))
    show("step, AdamW8bit", step(lambda own: AdamW8bit(own, lr=1e-4), torch.float32),
         step(lambda own: Peer(own, lr=1e-4), torch.float32))  # fmt: skip
    show("step, AdamWKahan", step(lambda own: AdamWKahan(own, lr=1e-4), torch.bfloat16))
    show("step, masters of AdamW", step(lambda own: MasterWeights([{"params": own}], fused), torch.bfloat16))


def ways(rate: float) -> None:
    """Plain bfloat16, Kahan's correction, masters: how far they come of the float32 way, projected on it."""
    start, steady = (torch.randn(200, 200) * 0.02).bfloat16(), torch.randn(200, 200)

    def way(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], dtype: torch.dtype) -> Tensor:
        parameter = nn.Parameter(start.to(dtype, copy=True))
        optimizer, draw = make([parameter]), torch.Generator().manual_seed(1)
        for _ in range(200):
            parameter.grad = (steady + torch.randn(200, 200, generator=draw)).to(dtype) * 1e-3
            optimizer.step()
        return parameter.detach().float() - start.float()

    def adamw(own: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(own, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)

    whole = way(adamw, torch.float32)
    kinds: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "AdamW": adamw,
        "AdamWKahan": lambda own: AdamWKahan(own, lr=rate),
        "AdamW8bit, kahan": lambda own: AdamW8bit(own, lr=rate, betas=(0.9, 0.95), kahan=True),
        "masters": lambda own: MasterWeights([{"params": own}], lambda groups: adamw(groups[0]["params"])),
    }
    for name, make in kinds.items():
        moved = way(make, torch.bfloat16)
        share = float((moved * whole).sum() / whole.square().sum())
        still = float((moved == 0).float().mean())
        print(f"rate {rate:g}, {name:27}{share:9.1%} of the way, {still:6.1%} have not moved")


def main() -> None:
    """Print the table."""
    global RUNS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two runs of each")
    RUNS = 2 if parser.parse_args().quick else RUNS
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SystemExit("bitsandbytes is not installed: pip install bitsandbytes==0.50.2")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{f'{ROWS} × {COLUMNS}, one thread':38}{'ours':>9}{'bitsandbytes':>18}")
    weight = torch.randn(ROWS, COLUMNS) * 0.02
    for part in (numbers, products, steps):
        part(weight)
    for rate in (1e-5, 1e-4):
        ways(rate)


if __name__ == "__main__":
    main()
