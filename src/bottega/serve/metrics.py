"""What the server counts, in Prometheus' text format (version 0.0.4): written by hand, it is one line a value."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from bottega.serve.engine import Job

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Of the generator's statistics: name, kind and meaning of the metric that each becomes.
GAUGES = {
    "running": ("bottega_requests_running", "Answers that are being generated."),
    "waiting": ("bottega_requests_waiting", "Answers that wait for their turn."),
    "blocks_total": ("bottega_kv_blocks", "Blocks of the cache of keys and values."),
    "blocks_used": ("bottega_kv_blocks_used", "Blocks of the cache that running answers hold."),
}
COUNTERS = {
    "prompt_tokens": ("bottega_prompt_tokens_total", "Tokens of prompts."),
    "cached_tokens": ("bottega_cached_tokens_total", "Of these, found in the prefix cache."),
    "generated_tokens": ("bottega_generated_tokens_total", "Tokens generated."),
    "preemptions": ("bottega_preemptions_total", "Answers that gave up their blocks and were computed again."),
    "proposed": ("bottega_speculation_proposed_tokens_total", "Tokens guessed ahead."),
    "accepted": ("bottega_speculation_accepted_tokens_total", "Of these, accepted."),
}


class Histogram:
    """Counts of seconds by upper bound, for each model."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        self.name, self.meaning, self.bounds = name, meaning, bounds
        self._counts: dict[str, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums: dict[str, float] = defaultdict(float)

    def observe(self, model: str, seconds: float) -> None:
        """Count one."""
        self._counts[model][bisect_left(self.bounds, seconds)] += 1
        self._sums[model] += seconds

    def lines(self) -> Iterator[str]:
        """In Prometheus' format: cumulative buckets, sum and count."""
        yield from _head(self.name, "histogram", self.meaning)
        for model, counts in self._counts.items():
            total = 0
            for bound, count in zip((*self.bounds, float("inf")), counts, strict=True):
                total += count
                edge = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f"{self.name}_bucket{_labels(model=model, le=edge)} {total}"
            yield f"{self.name}_sum{_labels(model=model)} {self._sums[model]:.6f}"
            yield f"{self.name}_count{_labels(model=model)} {total}"


class Metrics:
    """All that is counted."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.first_token = Histogram(
            "bottega_time_to_first_token_seconds", "From the request to its first token.", SECONDS
        )
        self.per_token = Histogram(
            "bottega_time_per_output_token_seconds", "Between two tokens of an answer, its mean.", TOKEN_SECONDS
        )
        self.whole = Histogram("bottega_request_seconds", "From the request to its last token.", SECONDS)

    def ended(self, model: str, job: Job) -> None:
        """Count an answer's times; one that was cut off before its first token has none."""
        if not job.first_piece:
            return
        self.first_token.observe(model, job.first_piece - job.submitted)
        self.whole.observe(model, job.last_piece - job.submitted)
        if job.tokens > 1:
            self.per_token.observe(model, (job.last_piece - job.first_piece) / (job.tokens - 1))

    def text(self, models: Mapping[str, Mapping[str, int]]) -> str:
        """Everything; `models` are the generators' statistics by model."""
        return "\n".join(self._lines(models)) + "\n"

    def _lines(self, models: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
        name = "bottega_requests_total"
        yield from _head(name, "counter", "Requests by route and status.")
        for (route, status), count in sorted(self.requests.items()):
            yield f"{name}{_labels(route=route, status=str(status))} {count}"
        for kind, table in (("gauge", GAUGES), ("counter", COUNTERS)):
            for key, (name, meaning) in table.items():
                yield from _head(name, kind, meaning)
                for model, statistics in models.items():
                    yield f"{name}{_labels(model=model)} {statistics.get(key, 0)}"
        for histogram in (self.first_token, self.per_token, self.whole):
            yield from histogram.lines()


class CountRequests:
    """ASGI middleware: counts each response by its route and status."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and look at the status."""
        status = 499  # nginx's number for a client that has gone before the answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            if scope["type"] == "http":
                # Known routes only: a path that is none would make a new line for whatever a client sends.
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.requests[route, status] += 1


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _labels(**labels: str) -> str:
    quoted = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
