"""`bottega bench serve`: find the server, put it under load, show and write what came of it."""

from __future__ import annotations

import math
from typing import Any

from bottega.core.atomic import write_json
from bottega.core.machine import measure
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.report import write_report
from bottega.core.verb import Context, Result
from bottega.serve.bench.client import Outcome
from bottega.serve.bench.config import BenchServe, parse_goodput
from bottega.serve.bench.load import Run, run_load
from bottega.serve.bench.prompts import Prompts, from_file, make_prompts
from bottega.serve.bench.summary import hardware, summarise
from bottega.serve.bench.target import Target, find_target
from bottega.serve.bench.view import facts, report_sections, result_blocks

RESULTS_FILE, REPORT_FILE = "results.json", "report.html"
_FILES_BESIDE = 64  # open files of the process, beside its connections


def plan_bench(config: BenchServe, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Ask the server for its models, read the prompts of a file; raises UserError where one of them is not there."""
    target = find_target(config)
    if config.dataset is not None:
        from_file(config.dataset, target.endpoint, config)
    load = describe_load(config)
    return Plan(
        "bench serve",
        config,
        config.out,
        inputs={"dataset": config.dataset} if config.dataset else {},
        checks=[Check("server", True, f"{target.base} answers"), Check("model", True, f"{target.model} is served")],
        work=[f"send {load} to {target.url}"],
        cost=Cost(seconds=_least_seconds(config), bytes_written=1 << 20 if config.out else 0),
        details={"target": target},
    )


def run_bench(plan: Plan, context: Context) -> Result:
    """Measure as planned; Ctrl-C ends early, with the figures so far."""
    config, target = plan.config, plan.details["target"]
    assert isinstance(config, BenchServe) and isinstance(target, Target)
    prompts = make_prompts(config, target)
    context.reporter.say(f"{target.model} at {target.url}: {describe_load(config)}; {prompts.note}")
    _allow_connections(config)
    parameters = config.parameters or _number(target, "parameters")
    weight_bytes = config.weight_bytes or _number(target, "weight_bytes")
    # Before the load, as both would disturb each other. What another machine could do is not known here.
    rates = measure() if (parameters or weight_bytes) and target.is_local else None
    run = run_load(config, target, prompts, context.reporter)
    goals = parse_goodput(config.goodput) if config.goodput else {}
    data = _head(config, target, prompts) | summarise(run, goals)
    data["hardware"] = hardware(run.outcomes, parameters, weight_bytes, rates)
    blocks = result_blocks(data)
    if plan.out is not None:
        results = {**data, "outcomes": [as_row(outcome, run) for outcome in run.outcomes]}
        write_json(context.out / RESULTS_FILE, results)
        title = f"Load on {target.model}"
        sections = report_sections(data, run)
        write_report(context.out / REPORT_FILE, title, sections, subtitle=data["load"], facts=facts(data))
    return Result(data, blocks)


def describe_load(config: BenchServe) -> str:
    """The load in words."""
    if math.isinf(config.request_limit):
        many = f"requests for {config.duration:g} s"
    else:
        many = f"{config.request_limit:g} requests" + (f", {config.duration:g} s at most" if config.duration else "")
    if config.rate is None:
        return f"{many} from {config.concurrency} clients, each as soon as it is answered"
    if math.isinf(config.rate):
        how = "all at once"
    else:
        even = "" if config.burstiness == 1 else f" (burstiness {config.burstiness:g})"
        how = f"{config.rate:g} per second{even}"
    return f"{many}, {how}" + (f", at most {config.concurrency} at a time" if config.concurrency else "")


def as_row(outcome: Outcome, run: Run) -> dict[str, Any]:
    """One request for results.json: seconds from the start of the load, durations in milliseconds."""

    def milliseconds(seconds: float | None) -> float | None:
        return None if seconds is None else round(1000 * seconds, 3)

    return {
        "index": outcome.index,
        "status": outcome.status,
        "scheduled_s": round(outcome.scheduled - run.started, 6),
        "sent_s": round(outcome.sent - run.started, 6) if outcome.sent else None,
        "ended_s": round(outcome.ended - run.started, 6) if outcome.ended else None,
        "ttft_ms": milliseconds(outcome.ttft),
        "tpot_ms": milliseconds(outcome.tpot),
        "itl_ms": [milliseconds(gap) for gap in outcome.gaps],
        "input_tokens": outcome.input_tokens,
        "cached_tokens": outcome.cached_tokens,
        "output_tokens": outcome.output_tokens,
        "finish_reason": outcome.finish_reason,
        "retry_after": outcome.retry_after,
        "message": outcome.message,
    }


def _head(config: BenchServe, target: Target, prompts: Prompts) -> dict[str, Any]:
    return {
        "url": target.url,
        "model": target.model,
        "endpoint": target.endpoint,
        "load": describe_load(config),
        "prompts": prompts.note,
        "rate": config.as_data()["rate"],
        "concurrency": config.concurrency,
        "seed": config.seed,
    }


def _number(target: Target, name: str) -> float | None:
    value = target.facts.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _least_seconds(config: BenchServe) -> float | None:
    """How long arrivals take; a closed loop depends on the server."""
    if config.rate is None or math.isinf(config.rate):
        return config.duration
    return min(config.duration or math.inf, config.request_limit / config.rate)


def _allow_connections(config: BenchServe) -> None:
    """Let this process have a connection for each request at once, as far as the system's hard limit goes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.concurrency or (1 << 16 if math.isinf(config.request_limit) else int(config.request_limit))
    wanted += _FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
