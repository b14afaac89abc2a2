"""The program behind `--engine`: started, waited for, watched, ended. No torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import httpx

from bottega.core.errors import BottegaError
from bottega.serve.backends.programs import Program

START_SECONDS = 900.0  # compiling and loading a large model takes minutes
POLL_SECONDS = 0.2


def free_port() -> int:
    """A port of the loopback address that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Child:
    """A running program; `url` and `key` are how to reach it."""

    def __init__(self, program: Program, port: int, key: str) -> None:
        self.program, self.key = program, key
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bottega.serve.backends.leash", *program.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **program.environment},
        )

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Block until it answers; raises BottegaError if it ends first, or takes too long."""
        deadline = time.monotonic() + seconds
        headers = {"Authorization": f"Bearer {self.key}"}
        while time.monotonic() < deadline:
            if not self.is_alive:
                raise BottegaError(f"{self.program.name} ended while it started", hint="Its output above says why.")
            try:
                if httpx.get(f"{self.url}/v1/models", headers=headers, timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(POLL_SECONDS)
        self.end()
        raise BottegaError(f"{self.program.name} did not answer within {seconds:g} seconds")

    def end(self) -> None:
        """Let go of the leash, and wait."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
