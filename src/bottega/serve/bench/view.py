"""What a load run shows: tables for the terminal, and with charts the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottega.core.report import Fact, Section
from bottega.core.view import Block, Chart, Series, Table, Text, human_bytes, human_count, human_seconds
from bottega.serve.bench.client import DONE
from bottega.serve.bench.load import Run
from bottega.serve.bench.summary import concurrency_steps

MEASURES = {
    "ttft_ms": "time to first token (TTFT)",
    "tpot_ms": "time per token after it (TPOT)",
    "itl_ms": "gap between pieces (ITL)",
    "e2el_ms": "end to end (E2EL)",
    "send_ms": "scheduled arrival to send",
    "lag_ms": "lateness of the load tool itself",
}
COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")


def result_blocks(data: dict[str, Any]) -> list[Block]:
    """Everything without charts."""
    blocks: list[Block] = [_latency(data), _throughput(data), _requests(data)]
    blocks += [block for block in (_goodput(data), _hardware(data)) if block]
    return blocks + [Text(note) for note in data["notes"]]


def report_sections(data: dict[str, Any], run: Run) -> list[Section]:
    """The report: figures, then how latency and concurrency went over time, and the distributions."""
    complete = [outcome for outcome in run.outcomes if outcome.status == DONE]
    ttft = [1000 * o.ttft for o in complete if o.ttft is not None]
    tpot = [1000 * o.tpot for o in complete if o.tpot is not None]
    at = [o.scheduled - run.started for o in complete]
    spans = [(o.sent - run.started, o.ended - run.started) for o in run.outcomes if o.sent]
    over_time = [
        Series("TTFT", [(x, 1000 * (o.ttft or 0.0)) for x, o in zip(at, complete, strict=True)]),
        Series("E2EL", [(x, 1000 * o.e2el) for x, o in zip(at, complete, strict=True)]),
    ]
    charts: list[Block] = [
        Chart("Latency over time", "scheduled arrival, s", "ms", over_time),
        Chart("Requests under way", "s", "requests", [Series("requests", _stairs(concurrency_steps(spans)))]),
    ]
    parts: list[Block] = [
        Chart("Distribution of TTFT", "ms", "share of answers", [Series("TTFT", _cumulative(ttft))]),
        Chart("Distribution of TPOT", "ms", "share of answers", [Series("TPOT", _cumulative(tpot))]),
    ]
    figures, asked = result_blocks(data), Table("Settings", ("", ""), _settings(data))
    shown = [Section("Over time", charts), Section("Distributions", parts)] if complete else []
    return [Section("Figures", figures), *shown, Section("What was asked", [asked])]


def facts(data: dict[str, Any]) -> list[Fact]:
    """The figures at the top of the report."""
    found = [Fact("Complete answers", str(data["requests"]["complete"]), f"of {data['requests']['arrived']} requests")]
    for name, label in (("ttft_ms", "TTFT"), ("tpot_ms", "TPOT")):
        if values := data[name]:
            found.append(Fact(f"{label}, p50", f"{values['p50']:.1f} ms", f"p99 {values['p99']:.1f} ms"))
    if rate := data["output_tokens_per_second"]:
        found.append(Fact("Output", f"{human_count(rate)} tokens/s"))
    return found


def _latency(data: dict[str, Any]) -> Table:
    rows = [
        (label, *(round(values[column], 3) for column in COLUMNS))
        for name, label in MEASURES.items()
        if (values := data[name])
    ]
    note = "All but the gaps and the time per token count from the scheduled arrival."
    return Table("Latency, ms", ("", *COLUMNS), rows, note)


def _throughput(data: dict[str, Any]) -> Table:
    rows = [
        ("took", human_seconds(data["seconds"])),
        ("arrivals", _per_second(data["arrivals_per_second"], "requests")),
        ("complete answers", _per_second(data["requests_per_second"], "requests")),
        ("output", _per_second(data["output_tokens_per_second"], "tokens")),
        ("input and output", _per_second(data["tokens_per_second"], "tokens")),
        ("requests under way", f"{data['mean_concurrency'] or 0:.1f} on average, {data['peak_concurrency']} at most"),
        ("input tokens", data["input_tokens"]),
        ("of them from a prefix cache", data["cached_tokens"]),
        ("output tokens", data["output_tokens"]),
    ]
    return Table("Throughput", ("", ""), rows)


def _requests(data: dict[str, Any]) -> Table:
    requests = data["requests"]
    rows: list[Sequence[Any]] = [("arrived", requests["arrived"], ""), ("complete", requests["complete"], "")]
    rows += [(name.replace("_", " "), requests[name], "") for name in ("hung_up", "interrupted") if requests[name]]
    for kind, many in requests["errors"].items():
        said = requests["examples"][kind]
        if kind == "rate_limited" and (waits := requests["retry_after_s"]):
            said += f" (Retry-After {waits['min']:g} to {waits['max']:g} s)"
        elif kind == "rate_limited":
            said += " (no Retry-After)"
        rows.append((kind.replace("_", " "), many, said))
    return Table("Requests", ("", "count", "for example"), rows)


def _goodput(data: dict[str, Any]) -> Table | None:
    good = data["goodput"]
    if good is None:
        return None
    rows = [("met all goals", good["good"], _per_second(good["requests_per_second"], "requests"))]
    rows += [(f"{name} ≤ {goal:g} ms", good["met"][name], "") for name, goal in good["goals_ms"].items()]
    share = "" if good["share"] is None else f"{good['share']:.1%} of the requests that were to be answered."
    return Table("Goodput", ("", "requests", ""), rows, share)


def _hardware(data: dict[str, Any]) -> Table | None:
    found = data["hardware"]
    if found is None:
        return None
    rows: list[Sequence[Any]] = []
    if rate := found["bytes_per_second"]:
        memory = found["measured_bytes_per_second"]
        ceiling = f"{memory / 1e9:.1f} GB/s measured here ({rate / memory:.0%})" if memory else ""
        rows.append(("weights read while decoding", f"{rate / 1e9:.2f} GB/s", ceiling))
    if rate := found["flops_per_second"]:
        products = found["measured_flops_per_second"]
        ceiling = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in (products or {}).items())
        ceiling = f"{ceiling} GFLOP/s measured here" if ceiling else ""
        rows.append(("operations", f"{rate / 1e9:.2f} GFLOP/s", ceiling))
    rows.append(("tokens per decoding step", f"{found['tokens_per_step'] or 0:.2f}", "estimated from overlap"))
    about = [f"{human_count(found['parameters'])} parameters"] if found["parameters"] else []
    about += [f"{human_bytes(found['weight_bytes'])} of weights"] if found["weight_bytes"] else []
    return Table("Hardware", ("", "achieved", "ceiling"), rows, ", ".join(about))


def _settings(data: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, data[name]) for name in ("url", "model", "endpoint", "load", "prompts", "seed")]


def _per_second(rate: float | None, unit: str) -> str:
    return "–" if rate is None else f"{human_count(rate)} {unit}/s"


def _cumulative(values: Sequence[float]) -> list[tuple[float, float]]:
    return [(value, (rank + 1) / len(values)) for rank, value in enumerate(sorted(values))]


def _stairs(steps: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for time, count in steps:
        points += [(time, points[-1][1] if points else 0.0), (time, float(count))]
    return points
