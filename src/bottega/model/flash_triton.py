"""FlashAttention for a GPU, in Triton: the algorithm of `flash`, one program for each tile of the result.

Forward (Dao 2023, arXiv:2307.08691, algorithm 1): a program owns a tile of queries and walks over the keys. Backward
(algorithm 2), in two kernels, so that each number of the result has one writer: no atomic additions, the same gradients
each time. One owns a tile of keys and walks over the queries of all heads that share them, for dK and dV; one
owns a tile of queries, for dQ.

Scores are in units of log 2 (their factor is multiplied by log₂ e), as exp2 is what the hardware computes.
The kernels are run in Triton's interpreter (TRITON_INTERPRET=1, on the CPU) and compiled for a GPU by the tests.
Import this module where it is needed: it needs the extra `triton`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import knobs

from bottega.core.errors import UserError
from bottega.model.flash import Scoring, check

LOG2_E = math.log2(math.e)
STAGES = 2  # tiles on their way from memory while one is computed with
# By the bytes of a key (at most): tokens that a program owns, tokens it takes at a time, warps; forward and backward.
# The largest that, compiled for sm_80 and sm_90, fit 99 KiB of shared memory, and the registers but for a few bytes
# (exact float32, which knows no tensor cores, spills more); not tuned by time.
_TILES = {
    128: ((128, 64, 8), (64, 64, 8)),
    256: ((128, 64, 8), (64, 32, 8)),
    512: ((64, 32, 4), (32, 16, 4)),
}
_LOWEST = tl.constexpr(-3e38)  # a score below all; not -∞, as -∞ - -∞ is no number


@triton.jit
def _part(base, rows, limit, stride, D: tl.constexpr, WIDTH: tl.constexpr):
    """The tile of `rows`, (rows, WIDTH), of which D are there; zeros beyond."""
    column = tl.arange(0, WIDTH)
    inside = (rows[:, None] < limit) & (column[None, :] < D)
    return tl.load(base + rows[:, None] * stride + column[None, :], mask=inside, other=0.0)


@triton.jit
def _store(base, rows, limit, x, D: tl.constexpr, WIDTH: tl.constexpr):
    """Put (rows, WIDTH) where rows of D numbers lie side by side."""
    column = tl.arange(0, WIDTH)
    inside = (rows[:, None] < limit) & (column[None, :] < D)
    tl.store(base + rows[:, None] * D + column[None, :], x.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _scores(
    q, k, rows, columns, offset, seen, scale, window, cap,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Q Kᵀ, (rows, columns), scaled, capped, -∞ where the query does not see the key."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    if CAPPED:
        scores = cap * (2 * tl.sigmoid(2 * scores / cap) - 1)  # tanh
    visible = columns[None, :] < seen
    if CAUSAL:
        visible &= columns[None, :] <= rows[:, None] + offset
    if WINDOWED:
        visible &= columns[None, :] > rows[:, None] + offset - window
    return tl.where(visible, scores, float("-inf"))


@triton.jit
def _key_range(
    first, offset, seen, window, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr
):
    """From the first tile of keys to the end of those that any of the queries first … first + ROWS sees."""
    start, end = 0, seen
    if CAUSAL:
        end = tl.minimum(seen, first + ROWS + offset)
    if WINDOWED:
        start = tl.maximum(0, first + offset - window + 1) // COLUMNS * COLUMNS
    return start, end


@triton.jit
def _forward(
    q, k, v, out, log_sum, q_strides, k_strides, v_strides, heads, group, tokens, seen, scale, window, cap,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program for each tile of queries of each of B · heads."""
    tiles, program = tl.cdiv(tokens, ROWS), tl.program_id(0)
    first, place = program % tiles * ROWS, (program // tiles).to(tl.int64)
    batch, head = place // heads, place % heads
    k += batch * k_strides[0] + head // group * k_strides[1]
    v += batch * v_strides[0] + head // group * v_strides[1]
    rows, offset = first + tl.arange(0, ROWS), seen - tokens
    query = _part(q + batch * q_strides[0] + head * q_strides[1], rows, tokens, q_strides[2], D, WIDTH)
    highest = tl.full((ROWS,), _LOWEST, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    weighted = tl.zeros((ROWS, WIDTH), tl.float32)
    start, end = _key_range(first, offset, seen, window, ROWS, COLUMNS, CAUSAL, WINDOWED)
    for column in range(start, end, COLUMNS):
        columns = column + tl.arange(0, COLUMNS)
        key = _part(k, columns, seen, k_strides[2], D, WIDTH)
        value = _part(v, columns, seen, v_strides[2], D, WIDTH)
        scores = _scores(
            query, key, rows, columns, offset, seen, scale, window, cap, CAUSAL, WINDOWED, CAPPED, PRECISION
        )
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        correction = tl.exp2(highest - higher)
        total = total * correction + tl.sum(weights, 1)
        weighted = weighted * correction[:, None]
        weighted += tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        highest = higher
    total = tl.where(rows < tokens, total, 1.0)
    _store(out + place * tokens * D, rows, tokens, weighted / total[:, None], D, WIDTH)
    tl.store(log_sum + place * tokens + rows, highest + tl.log2(total), mask=rows < tokens)


@triton.jit
def _weights_and_slopes(
    query, key, value, grad, log_sum, inner, rows, columns, offset, seen, scale, window, cap,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """P = 2^(S - L), and dS = P ∘ (dO Vᵀ - D), through the cap; (rows, columns) each."""
    scores = _scores(query, key, rows, columns, offset, seen, scale, window, cap, CAUSAL, WINDOWED, CAPPED, PRECISION)
    weights = tl.exp2(scores - log_sum[:, None])
    slopes = weights * (tl.dot(grad, tl.trans(value), input_precision=PRECISION) - inner[:, None])
    if CAPPED:
        bent = tl.where(weights > 0, scores / cap, 0.0)
        slopes *= 1 - bent * bent
    return weights, slopes


@triton.jit
def _backward_keys(
    q, k, v, grad, log_sum, inner, d_key, d_value, q_strides, k_strides, v_strides,
    kv_heads, group, tokens, seen, scale, factor, window, cap,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV; a program for each tile of keys of each of B · kv_heads."""
    tiles, program = tl.cdiv(seen, COLUMNS), tl.program_id(0)
    first, place = program % tiles * COLUMNS, (program // tiles).to(tl.int64)
    batch, head = place // kv_heads, place % kv_heads
    columns, offset = first + tl.arange(0, COLUMNS), seen - tokens
    key = _part(k + batch * k_strides[0] + head * k_strides[1], columns, seen, k_strides[2], D, WIDTH)
    value = _part(v + batch * v_strides[0] + head * v_strides[1], columns, seen, v_strides[2], D, WIDTH)
    key_sum = tl.zeros((COLUMNS, WIDTH), tl.float32)
    value_sum = tl.zeros((COLUMNS, WIDTH), tl.float32)
    # The queries that see any of these keys: from the first key's own place, to the last key's plus the window.
    start, end = 0, tokens
    if CAUSAL:
        start = tl.maximum(0, first - offset) // ROWS * ROWS
    if WINDOWED:
        end = tl.minimum(tokens, first + COLUMNS - 1 + window - offset)
    for member in range(group):
        query_head = head * group + member
        line = (batch * kv_heads * group + query_head) * tokens
        some_q = q + batch * q_strides[0] + query_head * q_strides[1]
        for row in range(start, end, ROWS):
            rows = row + tl.arange(0, ROWS)
            query = _part(some_q, rows, tokens, q_strides[2], D, WIDTH)
            some_grad = _part(grad + line * D, rows, tokens, D, D, WIDTH)
            some_sums = tl.load(log_sum + line + rows, mask=rows < tokens, other=float("inf"))  # weights: 0
            some_inner = tl.load(inner + line + rows, mask=rows < tokens, other=0.0)
            weights, slopes = _weights_and_slopes(
                query, key, value, some_grad, some_sums, some_inner, rows, columns, offset, seen, scale, window, cap,
                CAUSAL, WINDOWED, CAPPED, PRECISION,
            )  # fmt: skip
            value_sum += tl.dot(tl.trans(weights.to(query.dtype)), some_grad, input_precision=PRECISION)
            key_sum += tl.dot(tl.trans(slopes.to(query.dtype)), query, input_precision=PRECISION)
    _store(d_key + place * seen * D, columns, seen, key_sum * factor, D, WIDTH)
    _store(d_value + place * seen * D, columns, seen, value_sum, D, WIDTH)


@triton.jit
def _backward_queries(
    q, k, v, grad, log_sum, inner, d_query, q_strides, k_strides, v_strides,
    heads, group, tokens, seen, scale, factor, window, cap,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ; a program for each tile of queries of each of B · heads."""
    tiles, program = tl.cdiv(tokens, ROWS), tl.program_id(0)
    first, place = program % tiles * ROWS, (program // tiles).to(tl.int64)
    batch, head = place // heads, place % heads
    k += batch * k_strides[0] + head // group * k_strides[1]
    v += batch * v_strides[0] + head // group * v_strides[1]
    rows, offset = first + tl.arange(0, ROWS), seen - tokens
    query = _part(q + batch * q_strides[0] + head * q_strides[1], rows, tokens, q_strides[2], D, WIDTH)
    some_grad = _part(grad + place * tokens * D, rows, tokens, D, D, WIDTH)
    some_sums = tl.load(log_sum + place * tokens + rows, mask=rows < tokens, other=float("inf"))
    some_inner = tl.load(inner + place * tokens + rows, mask=rows < tokens, other=0.0)
    query_sum = tl.zeros((ROWS, WIDTH), tl.float32)
    start, end = _key_range(first, offset, seen, window, ROWS, COLUMNS, CAUSAL, WINDOWED)
    for column in range(start, end, COLUMNS):
        columns = column + tl.arange(0, COLUMNS)
        key = _part(k, columns, seen, k_strides[2], D, WIDTH)
        value = _part(v, columns, seen, v_strides[2], D, WIDTH)
        _, slopes = _weights_and_slopes(
            query, key, value, some_grad, some_sums, some_inner, rows, columns, offset, seen, scale, window, cap,
            CAUSAL, WINDOWED, CAPPED, PRECISION,
        )  # fmt: skip
        query_sum += tl.dot(slopes.to(key.dtype), key, input_precision=PRECISION)
    _store(d_query + place * tokens * D, rows, tokens, query_sum * factor, D, WIDTH)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, causal: bool = True, window: int | None = None,
    cap: float | None = None,
) -> Tensor:  # fmt: skip
    """`bottega.model.flash.flash_attention` on a GPU: the same arguments, the same result.

    Raises:
        ValueError: shapes, precisions or settings that do not go together, or that the kernels do not take.
        UserError: there is no GPU, and Triton's interpreter is not on.
    """
    scoring = check(q, k, v, scale, causal, window, cap)
    interpreted = knobs.runtime.interpret
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"the kernels compute in float32, float16 and bfloat16, not in {q.dtype}")
    if interpreted and q.dtype == torch.bfloat16:
        raise ValueError("Triton's interpreter multiplies bfloat16 wrongly (its codes, as whole numbers)")
    if _width(q) * q.element_size() > max(_TILES):
        raise ValueError(f"heads of {q.shape[-1]} numbers in {q.dtype} do not fit a program's registers")
    if not interpreted and not q.is_cuda:
        raise UserError(
            f"the Triton kernels run on a GPU, and these tensors lie on {q.device}",
            hint="Use bottega.model.flash here, or set TRITON_INTERPRET=1 before Python starts (slow: for tests).",
        )
    return cast(Tensor, _FlashAttention.apply(q, k, v, scoring))


class _FlashAttention(torch.autograd.Function):
    """The kernels, as autograd calls them."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        # A head's numbers must lie side by side; the other strides are taken as they are.
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out, log_sum = flash_forward(q, k, v, scoring)
        ctx.save_for_backward(q, k, v, out, log_sum)
        ctx.scoring = scoring
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, out, log_sum = ctx.saved_tensors
        return *flash_backward(q, k, v, out, log_sum, grad, ctx.scoring), None


def flash_forward(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor]:
    """→ output, like q, and log₂ of the sum of each query's exponentials, (B, heads, T) float32."""
    batch, heads, tokens = q.shape[:3]
    out = q.new_empty(q.shape)
    log_sum = q.new_empty(q.shape[:3], dtype=torch.float32)
    (rows, columns, warps), _ = tiles(q)
    rows = min(rows, max(16, 1 << (tokens - 1).bit_length()))  # decoding: few queries
    _launch(
        _forward, -(-tokens // rows) * batch * heads, warps, constants(q, scoring, rows, columns),
        q, k, v, out, log_sum, *_strides(q, k, v), heads, heads // k.shape[1], tokens, k.shape[2],
        scoring.scale * LOG2_E, *_limits(scoring, k),
    )  # fmt: skip
    return out, log_sum


def flash_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum: Tensor, grad: Tensor, scoring: Scoring
) -> tuple[Tensor, Tensor, Tensor]:
    """From `grad` = dO → dQ, dK, dV, like q, k, v."""
    batch, heads, tokens = q.shape[:3]
    kv_heads, seen = k.shape[1], k.shape[2]
    grad = grad.contiguous()
    inner = (grad.float() * out.float()).sum(-1)
    d_query, d_key, d_value = (x.new_empty(x.shape) for x in (q, k, v))
    inputs, strides = (q, k, v, grad, log_sum, inner), _strides(q, k, v)
    sizes = (heads // kv_heads, tokens, seen, scoring.scale * LOG2_E, scoring.scale, *_limits(scoring, k))
    _, (owned, walked, warps) = tiles(q)
    _launch(
        _backward_keys, -(-seen // owned) * batch * kv_heads, warps, constants(q, scoring, walked, owned),
        *inputs, d_key, d_value, *strides, kv_heads, *sizes,
    )  # fmt: skip
    _launch(
        _backward_queries, -(-tokens // owned) * batch * heads, warps, constants(q, scoring, owned, walked),
        *inputs, d_query, *strides, heads, *sizes,
    )  # fmt: skip
    return d_query, d_key, d_value


def _launch(kernel: Any, programs: int, warps: int, constants: dict[str, Any], *arguments: Any) -> None:
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](*arguments, **constants, num_warps=warps, num_stages=STAGES)


def tiles(q: Tensor) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Tokens that a program owns, tokens it takes at a time, warps; forward and backward."""
    return next(tiles for size, tiles in _TILES.items() if _width(q) * q.element_size() <= size)


def constants(q: Tensor, scoring: Scoring, rows: int, columns: int) -> dict[str, Any]:
    """What a kernel is compiled for. float32 is multiplied as torch's own products do it."""
    exact = torch.get_float32_matmul_precision() == "highest"
    return {
        "D": q.shape[-1], "WIDTH": _width(q), "ROWS": rows, "COLUMNS": columns, "CAUSAL": scoring.causal,
        "WINDOWED": scoring.window is not None, "CAPPED": scoring.cap is not None,
        "PRECISION": "ieee" if exact else "tf32",
    }  # fmt: skip


def _width(q: Tensor) -> int:
    """The power of two that a head's numbers stand in; `tl.dot` takes 16 at least."""
    return max(16, 1 << (q.shape[-1] - 1).bit_length())


def _strides(*tensors: Tensor) -> list[tuple[int, ...]]:
    """Numbers from one batch row, head, token to the next."""
    return [x.stride()[:3] for x in tensors]


def _limits(scoring: Scoring, k: Tensor) -> tuple[int, float]:
    """Window and cap; 0 where there is none."""
    return min(scoring.window or 0, k.shape[2]), (scoring.cap or 0.0) * LOG2_E
