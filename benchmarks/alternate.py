"""What the benchmarks share: two sides in a fresh process each, asked in turn, and a table of what they took.

A side is a worker: this script's own file started again with `--side NAME`, which answers each
line of JSON on its standard input with one on its standard output. Both stay alive, so that the parent can
alternate block by block (A B A B …): what else happens on the machine then hits both alike. Peak
memory is each process's own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bottega.core.machine import Rates, facts, measure, peak_memory_bytes, resolve_threads

Answer = dict[str, Any]


class Side:
    """A worker process."""

    def __init__(self, script: str, name: str, settings: dict[str, Any], python: str = sys.executable) -> None:
        command = [python, script, "--side", name, "--settings", json.dumps(settings)]
        self.name = name
        source = str(Path(__file__).parents[1] / "src")  # for a peer's own environment, which has no bottega
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source}
        )
        self._read()  # ready

    def ask(self, request: Any = None) -> Answer:
        """Send a request, wait for its answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> Answer:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without an answer")
        return json.loads(line)


def reply(answer: Answer) -> None:
    """A worker's answer, with its peak memory so far."""
    print(json.dumps({**answer, "peak": peak_memory_bytes()}), flush=True)


def next_request() -> Any:
    """A worker's next request; ends the process when the parent is gone."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    return json.loads(line)


def serve(work: Callable[[Any], Answer]) -> None:
    """Answer requests until the parent ends."""
    reply({})
    while True:
        reply(work(next_request()))


def alternate(sides: Sequence[Side], requests: Sequence[Any], *, warm_up: int) -> list[list[Answer]]:
    """Each side's answers to `requests`, asked in turn; the first `warm_up` are not kept."""
    answers: list[list[Answer]] = [[] for _ in sides]
    for number, request in enumerate(requests):
        for side, kept in zip(sides, answers, strict=True):
            answer = side.ask(request)
            if number >= warm_up:
                kept.append(answer)
    return answers


def median(answers: Sequence[Answer], key: str) -> float:
    """The median of one value."""
    return statistics.median(answer[key] for answer in answers)


def peer_installed() -> bool:
    """Whether transformers can be compared with; says so where it cannot."""
    there = importlib.util.find_spec("transformers") is not None
    if not there:
        print("transformers is not installed: only our side is measured (pip install 'bottega[dev]')")
    return there


def say_machine(threads: int) -> Rates:
    """Print the machine and its measured rates, which the floors are computed from."""
    import torch

    torch.set_num_threads(threads)
    rates, machine = measure(refresh=True), facts()
    versions = [f"torch {torch.__version__}"]
    if importlib.util.find_spec("transformers"):
        from importlib.metadata import version

        versions.append(f"transformers {version('transformers')}")
    print(f"{machine.cores} cores, {' '.join(machine.flags)}; {threads} threads; {', '.join(versions)}")
    print(
        f"products: float32 {rates.float32 / 1e9:.0f} GFLOP/s, bfloat16 {rates.bfloat16 / 1e9:.0f} GFLOP/s; "
        f"reading memory: {rates.memory / 1e9:.1f} GB/s"
    )
    return rates


class OtherWork:
    """How busy others kept the machine while we measured: the share of all cores that was not ours."""

    def __init__(self) -> None:
        self._before, self._ended_before = self._read(), _ended_ticks()

    def say(self, sides: Sequence[Side] = ()) -> None:
        """Print it, as a warning where it matters. `sides` are those that still run; ended ones are known."""
        busy, total = (now - then for now, then in zip(self._read(), self._before, strict=True))
        ours = sum(_process_ticks(side._process.pid) for side in sides) + _ended_ticks() - self._ended_before
        share = max(0.0, (busy - ours) / max(total, 1))
        advice = ": run again when it is quiet" if share > 0.1 else ""
        print(f"other processes used {share:.0%} of the cores meanwhile{advice}")

    @staticmethod
    def _read() -> tuple[int, int]:
        try:
            ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        except OSError:
            return 0, 0
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _ended_ticks() -> float:
    """What this process's ended children used."""
    times = os.times()
    return (times.children_user + times.children_system) * os.sysconf("SC_CLK_TCK")


def _process_ticks(process: int) -> int:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, as `docs/benchmarks.md` holds it."""
    print()
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def now(settings: dict[str, Any]) -> float:
    """Seconds: of the wall's clock, or those that this process was computing (`--processor-time`)."""
    return time.process_time() if settings["processor_time"] else time.perf_counter()


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """The options that every comparison has."""
    parser.add_argument("--threads", type=int, default=None, help="default: one per core")
    parser.add_argument(
        "--processor-time", action="store_true", help="one thread, and the seconds it computed: for a busy machine"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)


def machine_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the workers need to know of those options."""
    threads = 1 if arguments.processor_time else resolve_threads(arguments.threads)
    return {"threads": threads, "processor_time": arguments.processor_time}
