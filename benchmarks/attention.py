"""Multi-head, grouped-query and multi-query attention: what their cache holds, and the speed of each way to compute.

Decoding is one query per sequence over a long cache, and reads every key and value once; its floor is their bytes
over the bandwidth of memory (or its operations over the rate of products, where that is more). It goes through as many
layers' caches as fit a gigabyte, so that none is found in the processor's own. Prefill is a whole prompt,
causal: its floor is the operations on visible pairs. All ways get the same tensors, are compared first, and run in
turn. With `--device cuda` also our Triton kernels, and a forward and backward pass (3.5 times the operations).
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import alternate
from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.core.machine import resolve_device
from bottega.core.view import human_bytes
from bottega.model.attention import Rule, visible
from bottega.model.flash import flash_attention
from bottega.model.kernels import library
from bottega.model.kernels.library import CacheFormat
from bottega.model.paged import BLOCK, PagedCache

Way = Callable[[int], Tensor]  # a layer's number → its output, (B, heads, T, d)
BUDGET = 2**30  # bytes of caches to go through


@dataclass(frozen=True)
class Shape:
    """One attention layer at work: `tokens` queries over `seen` keys."""

    batch: int
    heads: int
    kv_heads: int
    dim: int
    tokens: int
    seen: int
    dtype: torch.dtype
    device: str

    def cache_bytes(self) -> int:
        """Keys and values of one layer."""
        return 2 * self.batch * self.kv_heads * self.seen * self.dim * self.dtype.itemsize

    def operations(self) -> int:
        """Two products, an addition and a multiplication each, over the pairs that see each other."""
        pairs = self.tokens * self.seen - self.tokens * (self.tokens - 1) // 2
        return 4 * self.batch * self.heads * self.dim * pairs

    def tensors(self, layers: int, seed: int = 0) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """q (B, heads, T, d), and k and v (B, kv_heads, S, d) of each layer."""
        generator = torch.Generator(self.device).manual_seed(seed)

        def normal(heads: int, tokens: int) -> Tensor:
            shape = (self.batch, heads, tokens, self.dim)
            return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)

        keys = [normal(self.kv_heads, self.seen) for _ in range(2 * layers)]
        return normal(self.heads, self.tokens), keys[:layers], keys[layers:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 heads of 64, 512 tokens")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--group", type=int, default=4, help="query heads that share a key head in GQA")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=32, help="of the model whose cache is told")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--context", type=int, default=4096, help="tokens in the cache while decoding")
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of a prefill")
    parser.add_argument("--repeat", type=int, default=7)
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.heads, arguments.head_dim, arguments.context, arguments.prompt = 8, 64, 512, 512
    if arguments.heads % arguments.group:
        raise SystemExit(f"--heads {arguments.heads} is not a multiple of --group {arguments.group}")
    try:
        device = resolve_device(arguments.device)
    except UserError as error:
        raise SystemExit(str(error)) from error
    machine = alternate.machine_settings(arguments)
    rates = alternate.say_machine(machine["threads"])
    compute, memory = getattr(rates, arguments.dtype, rates.float32), rates.memory
    if device == "cuda":
        compute, memory = cuda_rates(getattr(torch, arguments.dtype))
    else:
        compute = max(compute, rates.float32)  # where bfloat16 is slower, kernels widen it
    if device == "cpu" and not library.available():
        print("our paged kernel was not compiled here: left out")
    if device == "cuda" and triton_attention() is None:
        print("Triton is not installed (pip install 'bottega[triton]'): left out")
    rows: list[list[str]] = []
    kinds = {"MHA": arguments.heads, "GQA": arguments.heads // arguments.group, "MQA": 1}
    for kind, kv_heads in kinds.items():
        shape = Shape(
            arguments.batch, arguments.heads, kv_heads, arguments.head_dim, 1, arguments.context,
            getattr(torch, arguments.dtype), device,
        )  # fmt: skip
        cache = arguments.layers * shape.cache_bytes()
        label = [kind, str(kv_heads), human_bytes(cache // (shape.batch * shape.seen)), human_bytes(cache)]
        for phase, made in phases(shape, arguments):
            for way, measured in measure(phase, made, arguments.repeat, machine, (compute, memory)).items():
                rows.append([*label, phase, way, *measured])
                label = [""] * 4
    tokens = f"{arguments.batch} × {arguments.context:,} tokens"
    header = ("", "key heads", f"cache, a token in {arguments.layers} layers", f"cache, {tokens}", "phase", "way")
    alternate.print_table((*header, "ms a layer", "achieved", "floor, ms", "floor / taken"), rows)


def phases(shape: Shape, arguments: argparse.Namespace) -> Iterator[tuple[str, Shape]]:
    """What is measured of a kind of attention."""
    prompt = replace(shape, tokens=arguments.prompt, seen=arguments.prompt)
    yield "decode", shape
    yield "prefill", prompt
    if shape.device == "cuda":
        yield "forward and backward", prompt


def measure(
    phase: str, shape: Shape, repeat: int, machine: dict[str, Any], rates: tuple[float, float]
) -> dict[str, list[str]]:
    """By way: milliseconds a layer, achieved rate, floor, their ratio."""
    layers = min(32, max(1, BUDGET // shape.cache_bytes())) if phase == "decode" else 1
    ways = decode_ways(shape, layers) if phase == "decode" else prefill_ways(shape, phase != "prefill")
    compare(ways, shape.dtype)
    clocks: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way, work in ways.items():
            started = now(shape.device, machine)
            for layer in range(layers):
                work(layer)
            clocks[way].append((now(shape.device, machine) - started) / layers)
    operations = shape.operations() * (3.5 if phase == "forward and backward" else 1)
    size, (compute, memory) = shape.cache_bytes(), rates
    floor = max(operations / compute, size / memory)
    table = {}
    for way, clock in clocks.items():
        taken = statistics.median(clock)
        rate = f"{size / taken / 1e9:,.1f} GB/s" if phase == "decode" else f"{operations / taken / 1e9:,.0f} GFLOP/s"
        table[way] = [f"{taken * 1e3:.3g}", rate, f"{floor * 1e3:.3g}", f"{floor / taken:.2f}"]
    return table


def decode_ways(shape: Shape, layers: int) -> dict[str, Way]:
    """One query per sequence; "as rows": the heads that share a key head as rows of one matrix."""
    q, k, v = shape.tensors(layers)
    rows = q.view(shape.batch, shape.kv_heads, -1, shape.dim)
    scale = shape.dim**-0.5

    def sdpa(layer: int) -> Tensor:
        return F.scaled_dot_product_attention(q, k[layer], v[layer], enable_gqa=True)

    def sdpa_rows(layer: int) -> Tensor:
        return F.scaled_dot_product_attention(rows, k[layer], v[layer]).view_as(q)

    def products(layer: int) -> Tensor:
        return ((rows @ k[layer].mT * scale).softmax(-1) @ v[layer]).view_as(q)

    ways: dict[str, Way] = {"SDPA, enable_gqa": sdpa, "SDPA, as rows": sdpa_rows, "plain products": products}
    if shape.device == "cpu":
        ways.update(paged_way(shape, q, k, v))
    elif (triton := triton_attention()) is not None:
        ways["Triton, as rows"] = lambda layer: triton(rows, k[layer], v[layer], causal=False).view_as(q)
    return ways


def prefill_ways(shape: Shape, backward: bool) -> dict[str, Way]:
    """A whole prompt; with `backward` the output is followed by its gradients."""
    q, (k,), (v,) = shape.tensors(1)
    allowed = visible(shape.tokens, shape.seen, None, None, q.device)

    def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = q.unflatten(1, (shape.kv_heads, -1))
        scores = (rows @ k.unsqueeze(2).mT * shape.dim**-0.5).masked_fill(~allowed, float("-inf"))
        return (scores.softmax(-1) @ v.unsqueeze(2)).flatten(1, 2)

    def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    functions: dict[str, Callable[..., Tensor]] = {"SDPA, enable_gqa": sdpa, "plain products": products}
    if shape.device == "cpu":
        functions["tiles (flash.py)"] = flash_attention
    elif (triton := triton_attention()) is not None:
        functions["Triton"] = triton
    grad = torch.randn_like(q)

    def way(attention: Callable[..., Tensor]) -> Way:
        def forward(_: int) -> Tensor:
            return attention(q, k, v)

        def forward_and_backward(_: int) -> Tensor:
            with torch.enable_grad():
                inputs = [x.detach().requires_grad_() for x in (q, k, v)]
                return torch.autograd.grad(attention(*inputs), inputs, grad)[0]

        return forward_and_backward if backward else forward

    ways = {name: way(attention) for name, attention in functions.items()}
    return {**ways, **paged_way(shape, q, [k], [v])} if shape.device == "cpu" else ways


def paged_way(shape: Shape, q: Tensor, k: list[Tensor], v: list[Tensor]) -> dict[str, Way]:
    """Bottega's own kernel over paged keys and values, where this installation compiled it (it keeps no float16)."""
    if not library.available() or shape.dtype == torch.float16:
        return {}
    config = ModelConfig(
        vocab_size=1, hidden_size=shape.heads * shape.dim, intermediate_size=1, num_hidden_layers=len(k),
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.dim,
        max_position_embeddings=shape.seen, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
        initializer_range=0.02, dtype="float32",
    )  # fmt: skip
    width = -(-shape.seen // BLOCK)
    format_: CacheFormat = "float32" if shape.dtype == torch.float32 else "bfloat16"
    cache = PagedCache(config, shape.batch * width, format_)
    tables = torch.arange(shape.batch * width).view(shape.batch, width).int()
    slots = (torch.arange(shape.batch).unsqueeze(1) * width * BLOCK + torch.arange(shape.seen)).flatten()
    for layer, (key, value) in enumerate(zip(k, v, strict=True)):
        cache.store(layer, key.transpose(1, 2).flatten(0, 1), value.transpose(1, 2).flatten(0, 1), slots)
    spans = torch.tensor([[row * shape.tokens, shape.tokens, shape.seen - shape.tokens] for row in range(shape.batch)])
    query, rule = q.transpose(1, 2).flatten(0, 1).contiguous(), Rule(shape.dim**-0.5)

    def way(layer: int) -> Tensor:
        out = cache.attend(layer, query, tables, spans.int(), rule)
        return out.unflatten(0, (shape.batch, -1)).transpose(1, 2)

    return {"our paged kernel": way}


def triton_attention() -> Callable[..., Tensor] | None:
    """Our Triton kernels, where the extra is installed."""
    try:
        return importlib.import_module("bottega.model.flash_triton").flash_attention
    except ImportError:
        return None


def compare(ways: dict[str, Way], dtype: torch.dtype) -> None:
    """All ways give the same output, within the precision; it also warms them up."""
    first, *others = ((way, work(0).float()) for way, work in ways.items())
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for way, out in others:
        if not torch.allclose(out, first[1], atol=tolerance, rtol=tolerance):
            raise SystemExit(f"{way} and {first[0]} differ by {(out - first[1]).abs().max().item():.3g}")


def now(device: str, machine: dict[str, Any]) -> float:
    """Seconds, when the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return alternate.now(machine)


def cuda_rates(dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a large product, and bytes/s of reading a gigabyte."""
    matrix = torch.ones(8192, 8192, dtype=dtype, device="cuda")
    block = torch.ones(2**28, device="cuda")

    def best(work: Callable[[], object]) -> float:
        clocks = []
        for _ in range(10):
            torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            clocks.append(time.perf_counter() - started)
        return min(clocks)

    compute, memory = 2 * 8192**3 / best(lambda: matrix @ matrix), block.nbytes / best(block.sum)
    name = torch.cuda.get_device_name()
    print(f"{name}: products in {dtype} {compute / 1e12:.0f} TFLOP/s; reading memory: {memory / 1e9:.0f} GB/s")
    return compute, memory


if __name__ == "__main__":
    with torch.inference_mode():
        main()
