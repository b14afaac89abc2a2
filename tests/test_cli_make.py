"""`make run`, with a `bottega` that only writes down how it was called."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOTTEGA = '#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n'


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What the Makefile takes for a finished installation."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".installed").touch()
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (venv / "bin" / "bottega").write_text(BOTTEGA)
    for name in ("python", "bottega"):
        (venv / "bin" / name).chmod(0o755)
    return venv


def make(venv: Path, *words: str) -> tuple[int, str, list[str]]:
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")  # of the make that runs the tests
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment["PYTHONPATH"] = str(ROOT / "src")
    command = ["make", "-C", str(ROOT), f"VENV={venv}", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    calls = venv / "bin" / "calls"
    return done.returncode, done.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_a_port_in_use_is_said_before_anything_is_built(installed: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said, calls = make(installed, "run", f"PORT={port}")
        assert status != 0 and calls == []
        assert f"error: port {port} on 127.0.0.1 is in use" in said and "make run PORT=" in said
        status, said, calls = make(installed, "run", f"PORT={port}", "SERVE=0")
        assert (status, len(calls)) == (0, 1), said


@pytest.mark.parametrize("port", ["http", "70000", "-1"])
def test_what_is_no_port_is_said_before_anything_is_built(installed: Path, port: str) -> None:
    status, said, calls = make(installed, "run", f"PORT={port}")
    assert status != 0 and calls == [] and f"error: PORT={port} is no port" in said and "Traceback" not in said


def test_make_run_builds_then_serves_with_what_it_is_given(installed: Path) -> None:
    status, said, calls = make(installed, "run", "PORT=0", "SIZE=tiny", "TEXT=my notes", "WORKSPACE=w", "THREADS=2")
    assert status == 0, said
    assert calls == [
        "run quickstart --size tiny --text my notes --workspace w --threads 2",
        "learn w/quickstart/model --port 0 --report w/quickstart/report.html --workspace w --threads 2",
    ]
    assert make(installed, "build")[2][2] == "run quickstart --size small --text python --workspace workspace"
