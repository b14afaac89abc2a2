"""FlashAttention: the tiles against torch's attention and autograd, the Triton kernels against the tiles.

The kernels run in Triton's interpreter, which must be chosen before triton is imported (other libraries import it):
in a process of its own, this file as a script.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F

from bottega.core.errors import UserError
from bottega.model.attention import Rule, attend, visible
from bottega.model.flash import check, flash_attention, flash_backward, flash_forward

needs_triton = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux")


class Case(NamedTuple):
    tokens: int
    seen: int
    heads: int = 4
    kv_heads: int = 2
    d: int = 16
    causal: bool = True
    window: int | None = None
    cap: float | None = None
    batch: int = 2


CASES = {
    "one token": Case(1, 1),
    "less than a tile": Case(7, 7),
    "whole tiles": Case(64, 64),
    "odd": Case(67, 67, d=32),
    "one head": Case(33, 33, heads=1, kv_heads=1),
    "multi-query": Case(33, 33, heads=6, kv_heads=1),
    "behind a cache": Case(19, 75, d=8),
    "decoding": Case(1, 75, heads=8),
    "all see all": Case(37, 53, causal=False),
    "window": Case(67, 67, window=9),
    "window of one": Case(35, 35, window=1),
    "window behind a cache": Case(5, 90, window=20),
    "window beyond the row": Case(33, 33, window=2**40),
    "cap": Case(37, 37, cap=1.5),
    "cap and window": Case(50, 61, window=17, cap=3.0, kv_heads=4),
}
# In the interpreter: rows above 128, so that every kernel has several tiles.
KERNEL_CASES = {
    "heads of 16, two rows": Case(150, 150, heads=2, kv_heads=1),
    "heads of 32, groups": Case(131, 133, d=32, batch=1),
    "heads of 64, window": Case(141, 141, heads=2, d=64, window=40, batch=1),
    "heads of 24, window and cap": Case(77, 139, heads=2, kv_heads=1, d=24, window=33, cap=2.0, batch=1),
    "decoding": Case(1, 139, heads=2, kv_heads=1, d=64, batch=1),
    "all see all": Case(130, 75, heads=1, kv_heads=1, causal=False, batch=1),
}


def tensors(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """q, k, v that want gradients (q with the strides of a model's), and a gradient of the output."""
    generator = torch.Generator().manual_seed(sum(case[:5]))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    q, grad = (normal(case.batch, case.tokens, case.heads, case.d).transpose(1, 2) for _ in range(2))
    k, v = (normal(case.batch, case.kv_heads, case.seen, case.d) for _ in range(2))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), grad


def settings_of(case: Case) -> dict[str, Any]:
    return {"causal": case.causal, "window": case.window, "cap": case.cap}


def results(out: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The output and the gradients by q, k, v."""
    *wanted, grad = inputs
    return out.detach(), *torch.autograd.grad(out, wanted, grad)


def oracle(case: Case, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """torch's attention, given a mask; where scores are capped, the decoder's products."""
    if case.cap is not None:
        rule = Rule(case.d**-0.5, case.window, case.cap)
        return attend(q.transpose(1, 2), k, v, rule).transpose(1, 2)
    mask = visible(case.tokens, case.seen, case.window, None, q.device) if case.causal else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2**-5)], ids=str
)
def test_tiles_equal_torch(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case = CASES[name]
    q, k, v, grad = tensors(case, dtype)
    ours = results(flash_attention(q, k, v, **settings_of(case), tile=16), q, k, v, grad)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    theirs = results(oracle(case, exact[0], exact[1], exact[2]), *exact, grad.double())
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), expected, atol=tolerance, rtol=tolerance)


def test_the_size_of_tiles_changes_nothing_but_rounding() -> None:
    case = CASES["cap and window"]
    *inputs, grad = tensors(case, torch.float64)
    whole = results(flash_attention(*inputs, **settings_of(case), tile=1000), *inputs, grad)
    for tile in (1, 7, 64):
        pieces = results(flash_attention(*inputs, **settings_of(case), tile=tile), *inputs, grad)
        for a, b in zip(whole, pieces, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_scores_that_overflow_an_exponential() -> None:
    """exp(1000) is beyond float64: a softmax that does not subtract the maximum fails here."""
    *inputs, grad = tensors(CASES["odd"], torch.float64)
    with torch.no_grad():
        inputs[0].mul_(1000)
    ours = results(flash_attention(*inputs, tile=16), *inputs, grad)
    theirs = results(F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True), *inputs, grad)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


def test_log_sum_is_that_of_the_scores() -> None:
    q, k, v, grad = (x.detach() for x in tensors(Case(40, 40, 2, 2), torch.float64))
    scoring = check(q, k, v, None, True, None, None)
    out, log_sum = flash_forward(q, k, v, scoring, 16)
    scores = (q @ k.mT * 0.25).masked_fill(~visible(40, 40, None, None, q.device), float("-inf"))
    torch.testing.assert_close(log_sum, scores.logsumexp(-1), atol=1e-12, rtol=1e-12)
    # The backward pass takes its weights from it: one that is off by log 2 halves them.
    wrong = flash_backward(q, k, v, out, log_sum + torch.log(torch.tensor(2.0)), grad, scoring, 16)[2]
    right = flash_backward(q, k, v, out, log_sum, grad, scoring, 16)[2]
    torch.testing.assert_close(wrong * 2, right)


def test_scores_never_stand_in_memory() -> None:
    """The largest tensor that forward and backward make is that of a tile or of an input, not T × T."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            for x in made if isinstance(made, tuple | list) else [made]:
                if isinstance(x, torch.Tensor):
                    self.numbers = max(self.numbers, x.numel())
            return made

    *inputs, grad = tensors(Case(512, 512, 2, 2), torch.float32)
    with Largest() as largest:
        flash_attention(*inputs, tile=64).backward(grad)
    assert largest.numbers == 2 * 2 * 512 * 16 < 2 * 2 * 512 * 512


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": torch.zeros(2, 3, 9, 16), "v": torch.zeros(2, 3, 9, 16)}, "4 query heads cannot share 3"),
        ({"k": torch.zeros(2, 2, 9, 16)}, "are not"),
        ({"k": torch.zeros(2, 2, 7, 16), "v": torch.zeros(2, 2, 7, 16)}, "8 queries with 7 keys"),
        ({"v": torch.zeros(2, 2, 8, 16).double()}, "one precision"),
        ({"window": 0}, "at least one token"),
        ({"window": 4, "causal": False}, "causal"),
        ({"cap": 0.0}, "above 0"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], words: str) -> None:
    tensors = {"q": torch.zeros(2, 4, 8, 16), "k": torch.zeros(2, 2, 8, 16), "v": torch.zeros(2, 2, 8, 16)}
    with pytest.raises(ValueError, match=words):
        flash_attention(**{**tensors, **change})


@needs_triton
def test_kernels_equal_the_tiles() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    differences = json.loads(run.stdout)
    assert differences.keys() == KERNEL_CASES.keys() | {"float16"}
    for name, parts in differences.items():
        assert all(difference < (4e-3 if name == "float16" else 1e-5) for difference in parts.values()), (name, parts)


@needs_triton
def test_kernels_refuse_what_they_cannot_do() -> None:
    from bottega.model import flash_triton

    x = torch.zeros(1, 1, 4, 16)
    with pytest.raises(UserError, match="on a GPU"):
        flash_triton.flash_attention(x, x, x)
    with pytest.raises(ValueError, match="float64"):
        flash_triton.flash_attention(x.double(), x.double(), x.double())
    with pytest.raises(ValueError, match="heads of 256"):
        flash_triton.flash_attention(*[torch.zeros(1, 1, 4, 256)] * 3)


@needs_triton
@pytest.mark.parametrize(
    ("capability", "precision", "d"), [(80, "fp16", 64), pytest.param(90, "bf16", 128, marks=pytest.mark.slow)]
)
def test_kernels_compile_for_a_gpu(
    capability: int, precision: str, d: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to the machine's code, without a GPU; and that code asks for no more shared memory than a GPU has."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bottega.model import flash_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    q = torch.empty(1, 2, 200, d, dtype={"fp16": torch.float16, "bf16": torch.bfloat16}[precision])
    scoring = check(q, q, q, None, True, 64, 30.0)
    (rows, columns, warps), (owned, walked, backward_warps) = flash_triton.tiles(q)
    for kernel, sizes, kernel_warps in (
        (flash_triton._forward, (rows, columns), warps),
        (flash_triton._backward_keys, (walked, owned), backward_warps),
        (flash_triton._backward_queries, (owned, walked), backward_warps),
    ):
        constants = flash_triton.constants(q, scoring, *sizes)
        kinds = dict.fromkeys(("scale", "factor", "cap"), "fp32") | dict.fromkeys(("log_sum", "inner"), "*fp32")
        kinds |= dict.fromkeys(("q", "k", "v", "out", "grad", "d_query", "d_key", "d_value"), "*" + precision)
        kinds |= dict.fromkeys(("q_strides", "k_strides", "v_strides"), ("i32",) * 3)
        kinds |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, {name: kinds.get(name, "i32") for name in kernel.arg_names}, constants)
        options = {"num_warps": kernel_warps, "num_stages": flash_triton.STAGES}
        compiled = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert len(compiled.asm["cubin"]) > 0
        assert compiled.metadata.shared <= 99 * 1024


def compare_kernels() -> dict[str, dict[str, float]]:
    """The largest difference of output, dq, dk, dv between kernels and tiles, by case."""
    from bottega.model import flash_triton

    found = {}
    for name, case in {**KERNEL_CASES, "float16": KERNEL_CASES["heads of 24, window and cap"]}.items():
        *inputs, grad = tensors(case, torch.float16 if name == "float16" else torch.float32)
        kernels = results(flash_triton.flash_attention(*inputs, **settings_of(case)), *inputs, grad)
        tiles = results(flash_attention(*inputs, **settings_of(case)), *inputs, grad)
        pairs = zip(("out", "dq", "dk", "dv"), kernels, tiles, strict=True)
        found[name] = {part: (a - b).abs().max().item() for part, a, b in pairs}
    return found


if __name__ == "__main__":
    print(json.dumps(compare_kernels()))
