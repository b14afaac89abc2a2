"""From outcomes to figures.

Percentiles are of complete answers alone, interpolated linearly between ranks (NumPy's default);
a failed request counts in `requests`, and against goodput. DistServe (Zhong et al. 2024) defines
goodput: requests per second that meet all goals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bottega.core.machine import Rates
from bottega.serve.bench.client import DONE, HUNG_UP, INTERRUPTED, NOT_ANSWERED, RATE_LIMITED, Outcome
from bottega.serve.bench.load import Run

PERCENTILES = (50, 90, 95, 99)
LATE_MS = 20.0  # a load tool that is later than this is itself what is measured


def summarise(run: Run, goals: dict[str, float]) -> dict[str, Any]:
    """All figures that need nothing but the outcomes."""
    outcomes = run.outcomes
    complete = [outcome for outcome in outcomes if outcome.status == DONE]
    seconds = max([run.started, *(o.ended for o in outcomes)]) - run.started
    spans = [(o.sent, o.ended) for o in outcomes if o.sent]
    output = sum(o.output_tokens for o in outcomes)
    known_input = [o.input_tokens for o in outcomes if o.input_tokens is not None]
    steps = concurrency_steps(spans)
    lag = distribution([1000 * seconds for seconds in run.lags])
    return {
        "requests": _requests(outcomes),
        "seconds": seconds,
        "stopped_early": run.stopped,
        "arrivals_per_second": _arrival_rate(outcomes),
        "requests_per_second": _over(len(complete), seconds),
        "output_tokens_per_second": _over(output, seconds),
        "tokens_per_second": _over(output + sum(known_input), seconds),
        "input_tokens": sum(known_input) if known_input else None,
        "cached_tokens": sum(o.cached_tokens for o in outcomes),
        "output_tokens": output,
        "tokens_counted_by": _counted_by(complete),
        "ttft_ms": distribution([1000 * o.ttft for o in complete if o.ttft is not None]),
        "tpot_ms": distribution([1000 * o.tpot for o in complete if o.tpot is not None]),
        "itl_ms": distribution([1000 * gap for o in complete for gap in o.gaps]),
        "e2el_ms": distribution([1000 * o.e2el for o in complete]),
        "send_ms": distribution([1000 * (o.sent - o.scheduled) for o in outcomes if o.sent]),
        "lag_ms": lag,
        "peak_concurrency": max((count for _, count in steps), default=0),
        "mean_concurrency": _over(sum(end - start for start, end in spans), seconds),
        "goodput": goodput(outcomes, goals, seconds) if goals else None,
        "notes": _notes(run, complete, lag),
    }


def distribution(values: Sequence[float]) -> dict[str, float] | None:
    """Count, mean, extremes and percentiles; None without values."""
    if not values:
        return None
    points = zip(PERCENTILES, np.percentile(values, PERCENTILES).tolist(), strict=True)
    ends = {"min": min(values), "max": max(values)}
    return {"count": len(values), "mean": float(np.mean(values)), **{f"p{p}": value for p, value in points}, **ends}


def goodput(outcomes: Sequence[Outcome], goals: dict[str, float], seconds: float) -> dict[str, Any]:
    """Requests per second that meet all goals (milliseconds), and their share of those that were to be answered."""
    asked = [o for o in outcomes if o.status not in NOT_ANSWERED]
    good = sum(is_good(o, goals) for o in asked)
    met = {name: sum(is_good(o, {name: goal}) for o in asked) for name, goal in goals.items()}
    share = good / len(asked) if asked else None
    return {"goals_ms": goals, "good": good, "requests_per_second": _over(good, seconds), "share": share, "met": met}


def is_good(outcome: Outcome, goals: dict[str, float]) -> bool:
    """Whether a complete answer meets the goals; an answer of one token has no TPOT to miss."""
    values = {"ttft": outcome.ttft, "tpot": outcome.tpot, "e2el": outcome.e2el}
    return outcome.status == DONE and all(1000 * (values[name] or 0.0) <= goal for name, goal in goals.items())


def concurrency_steps(spans: Sequence[tuple[float, float]]) -> list[tuple[float, int]]:
    """From (start, end) of each request to (time, requests under way from then on)."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    steps, under_way = [], 0
    for time, change in changes:
        under_way += change
        steps.append((time, under_way))
    return steps


def decoding(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Decoding steps of a server that batches, as seen from outside, and the seconds in which it decoded.

    A step gives one token to each answer under way, so where n of them get r₁ … rₙ tokens per
    second, Σr/n steps were done per second. Speculation makes fewer steps than this, a server
    that serves its answers in turn more.
    """
    changes: list[tuple[float, int, float]] = []
    for outcome in outcomes:
        if outcome.tpot:
            changes += [(outcome.chunks[0], 1, 1 / outcome.tpot), (outcome.chunks[-1], -1, -1 / outcome.tpot)]
    steps = seconds = before = rate = 0.0
    count = 0
    for time, change, rate_change in sorted(changes):
        if count:
            steps += (time - before) * rate / count
            seconds += time - before
        before, count, rate = time, count + change, rate + rate_change
    return steps, seconds


def hardware(
    outcomes: Sequence[Outcome], parameters: float | None, weight_bytes: float | None, rates: Rates | None
) -> dict[str, Any] | None:
    """Bytes/s of weights while decoding and FLOP/s while anything is under way, beside measured `rates`.

    Two operations per parameter and token that was computed (prompts without what a cache held);
    attention is left out. None if neither parameters nor bytes are known.
    """
    if parameters is None and weight_bytes is None:
        return None
    steps, decode_seconds = decoding(outcomes)
    complete = [o for o in outcomes if o.status == DONE]
    spans = concurrency_steps([(o.sent, o.ended) for o in complete])
    busy = sum(after[0] - here[0] for here, after in pairwise(spans) if here[1])
    tokens = sum((o.input_tokens or 0) - o.cached_tokens + o.output_tokens for o in complete)
    return {
        "parameters": parameters,
        "weight_bytes": weight_bytes,
        "decoding_steps": steps,
        "tokens_per_step": _over(sum(o.output_tokens - 1 for o in outcomes if o.tpot), steps),
        "bytes_per_second": _over(steps * weight_bytes, decode_seconds) if weight_bytes else None,
        "flops_per_second": _over(2 * parameters * tokens, busy) if parameters else None,
        "measured_bytes_per_second": rates.memory if rates else None,
        "measured_flops_per_second": {"float32": rates.float32, "bfloat16": rates.bfloat16} if rates else None,
    }


def _over(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 else None


def _requests(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    counts = Counter(o.status for o in outcomes)
    errors = {kind: n for kind, n in counts.most_common() if kind not in (DONE, HUNG_UP, INTERRUPTED)}
    examples = {kind: next(o.message for o in outcomes if o.status == kind) for kind in errors}
    waits = [o.retry_after for o in outcomes if o.status == RATE_LIMITED]
    seconds = [float(wait) for wait in waits if wait is not None and wait.replace(".", "", 1).isdigit()]
    return {
        "arrived": len(outcomes),
        "complete": counts[DONE],
        "hung_up": counts[HUNG_UP],
        "interrupted": counts[INTERRUPTED],
        "failed": sum(errors.values()),
        "rate_limited": counts[RATE_LIMITED],
        "errors": errors,
        "examples": examples,
        "retry_after_s": distribution(seconds),
        "without_retry_after": sum(wait is None for wait in waits),
    }


def _arrival_rate(outcomes: Sequence[Outcome]) -> float | None:
    times = [o.scheduled for o in outcomes]
    return _over(len(times) - 1, max(times) - min(times)) if len(times) > 1 else None


def _counted_by(complete: Sequence[Outcome]) -> str:
    kinds = {"pieces" if o.usage_tokens is None else "server" for o in complete}
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "none"


def _notes(run: Run, complete: Sequence[Outcome], lag: dict[str, float] | None) -> list[str]:
    notes = []
    if run.stopped:
        notes.append("Ended early: requests under way were broken off and count in no percentile.")
    if complete and _counted_by(complete) != "server":
        notes.append("The server sent no usage for some answers: their tokens are pieces of text, counted here.")
    if len(complete) < 100:
        notes.append(f"p99 of {len(complete)} answers is little more than the slowest of them.")
    if lag and lag["p99"] > LATE_MS:
        notes.append(
            f"The load tool itself was late (p99 {lag['p99']:.0f} ms), and with it the times that it took: "
            "it shares the machine with the server, or the load is too much for one process."
        )
    return notes
