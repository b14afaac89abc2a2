"""Running a lab: a process of its own with limits, whose events come one by one and can be stopped at any time.

    python -m bottega.course.run_lab LAB.py '{"steps": 100}' CPU_SECONDS

is that process: it takes the limits, keeps GPUs and further threads out of it (so that every machine gets nearly the
same numbers), and writes one line of JSON per event. What the lab prints goes to standard error. A model of the course
that the lab asks for and that is not there yet is made first, once, outside the lab's own limit.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.errors import BottegaError, UserError
from bottega.course.lab import Event, Say, Step, event_data, event_from, load_lab
from bottega.course.lab_facts import models_of, read_facts
from bottega.course.library import LabFile

DATA_BYTES = 8 << 30  # written memory of a process; torch maps far more than it writes
WALL_PER_CPU = 6.0  # an overloaded machine gives a process this little
MAKING_SECONDS = 900.0  # of a model of the course, on a slow machine
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg",
}  # fmt: skip
"""One thread and no GPU, so that every machine gets nearly the same numbers."""


def cpu_limit(budget: float) -> int:
    """CPU-seconds that a lab may take before it is stopped."""
    return int(4 * budget + 20)


def wall_limit(lab: LabFile) -> float:
    """Seconds after which a lab is stopped whatever it does."""
    facts = read_facts(lab.path)
    return WALL_PER_CPU * cpu_limit(facts.budget) + (MAKING_SECONDS if set(models_of(lab.path)) - {"new"} else 0.0)


def lab_command(lab: LabFile, params: Mapping[str, Any] | None = None) -> list[str]:
    """The command whose standard output is the lab's events, a line of JSON each."""
    limit = cpu_limit(read_facts(lab.path).budget)
    program = [sys.executable, "-m", "bottega.course.run_lab"]
    return [*program, str(lab.path.resolve()), json.dumps(dict(params or {})), str(limit)]


def run_lab(lab: LabFile, params: Mapping[str, Any] | None = None) -> Iterator[Event]:
    """Run a lab and yield its events as they come; closing the iterator stops it.

    Raises:
        UserError: if a setting is wrong.
        BottegaError: if the lab fails, or is stopped by a limit.
    """
    with LabProcess(lab, params) as process:
        yield from process


@dataclass
class LabProcess:
    """A running lab. Leaving the context kills it with everything that it started."""

    lab: LabFile
    params: Mapping[str, Any] | None = None
    cpu_seconds: float = field(default=0.0, init=False)
    """What it took, known when it has ended."""

    def __enter__(self) -> LabProcess:
        self._errors = tempfile.TemporaryFile()
        command = lab_command(self.lab, self.params)
        self._deadline = time.monotonic() + wall_limit(self.lab)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def stop(self) -> None:
        """Kill the lab and all of its group; nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._wait()

    def __iter__(self) -> Iterator[Event]:
        """The events until the lab has ended."""
        for line in self._lines():
            yield event_from(json.loads(line))
        status = self._wait()
        if status:
            raise self._failure(status)

    def _lines(self) -> Iterator[bytes]:
        pipe = self._process.stdout
        assert pipe is not None
        rest = b""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self.stop()
                raise BottegaError(f"the lab {self.lab.id} took too long, and was stopped")
            block = os.read(pipe.fileno(), 1 << 16)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from lines

    def _wait(self) -> int:
        """Wait for the end; the exit status, and what it took."""
        if self._process.returncode is None:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self._process.returncode

    def _failure(self, status: int) -> BottegaError:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 8000))
        said = self._errors.read().decode("utf-8", "replace").strip()
        if status == 2:
            message, _, hint = said.rpartition("\0")[2].partition("\n")
            return UserError(message, hint=hint)
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return BottegaError(f"the lab {self.lab.id} used up its processor time, and was stopped")
        last = said.splitlines()[-1] if said else f"exit status {status}"
        return BottegaError(f"the lab {self.lab.id} failed: {last}", hint=said)


def main(arguments: list[str]) -> None:
    """Be the process of a lab."""
    path, params, limit = Path(arguments[0]), json.loads(arguments[1]), int(arguments[2])
    os.environ.update(ENVIRONMENT)
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the lab or a library prints is no event

    def tell(event: Event) -> None:
        print(json.dumps(event_data(event), default=plain), file=events, flush=True)

    try:
        lab = load_lab(path)
        settings = lab.params.parse(params, where=path.stem)
        make_models(path, tell)
        limit_process(limit)
        for event in lab.run(settings):
            tell(event)
    except UserError as error:
        print(f"\0{error.message}\n{error.hint}", file=sys.stderr)
        sys.exit(2)


def make_models(path: Path, tell: Callable[[Event], None]) -> None:
    """Make the models of the course that the lab asks for and that are not there yet."""
    stages = models_of(path)
    if not stages:
        return
    from bottega.course.companion import companion

    for stage in stages:
        companion(stage, reporter=Told(tell))  # type: ignore[arg-type]


@dataclass
class Told:
    """A reporter whose messages and bars are events."""

    tell: Callable[[Event], None]

    def say(self, message: str) -> None:
        """A message."""
        self.tell(Say(message))

    @contextlib.contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[ToldBar]:  # noqa: ARG002
        """A bar; one without an end is not told."""
        yield ToldBar(self.tell, total or 0, done)


@dataclass
class ToldBar:
    """A bar as events, one a second at most."""

    tell: Callable[[Event], None]
    total: float
    done: float
    _told: float = 0.0

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Go on."""
        self.done += amount
        if self.total and (time.monotonic() - self._told > 1 or self.done >= self.total):
            self._told = time.monotonic()
            self.tell(Step(round(self.done), round(self.total), note))


def plain(value: Any) -> Any:
    """A number of NumPy or torch as Python's."""
    return value.item() if hasattr(value, "item") else str(value)


def limit_process(cpu_seconds: int) -> None:
    """Limit processor time from now on, and memory where the kernel counts what is written (Linux)."""
    cpu_seconds += math.ceil(time.process_time())
    limits = {resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 5), resource.RLIMIT_CORE: (0, 0)}
    if sys.platform == "linux":
        limits[resource.RLIMIT_DATA] = (DATA_BYTES, DATA_BYTES)
    for which, (soft, hard) in limits.items():
        ceiling = resource.getrlimit(which)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(which, (soft, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
