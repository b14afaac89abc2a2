"""Settings of `bottega serve`. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from bottega.core.schema import Names
from bottega.generate.config import OnEngine

_ORIGIN = re.compile(r"https?://[^/\s*]+")


class Serve(OnEngine):
    """Settings of the API server."""

    sections = {
        "engine": "Engine",
        "host": "Server",
        "max_loaded": "Limits",
        "api_key": "Who may use it",
        "requests_per_minute": "Limits",
        "cors_origin": "Who may use it",
    }

    model: Names = Field(min_length=1)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Model folder, or org/name[@revision] of the hub; several are loaded when asked for. NAME=FOLDER names it."""
    adapter: Names = ()
    """PEFT adapter served as a model of its own: [MODEL:][NAME=]FOLDER; MODEL says to which of several it belongs."""
    engine: Literal["native", "vllm", "llama.cpp"] = "native"
    """What computes; the others must be installed, and obey less."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the server to the network, which needs an API key."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""
    name: str | None = None
    """Name by which clients ask for the model (default: the folder's name)."""
    max_loaded: int | None = Field(default=None, ge=1)
    """Models in memory at a time; the one not used for longest makes room (default: all that are given)."""
    max_batch: int = Field(default=8, ge=1)
    """Answers that are generated together."""
    max_queue: int = Field(default=128, ge=0)
    """Answers that may wait for their turn; further ones are refused with status 429."""
    timeout: float | None = Field(default=600, gt=0)
    """Seconds that an answer may take, waiting included; null: any."""
    drain_seconds: float = Field(default=8, ge=0)
    """Seconds that answers under way may go on after SIGTERM or Ctrl-C (Docker kills after 10)."""
    api_key: Names = ()
    """Key that clients must send as `Authorization: Bearer KEY` (may be given several times)."""
    api_key_file: Path | None = None
    """File with further keys, one a line; read at the start."""
    allow_anonymous: bool = False
    """Let others than this machine's users in without a key."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests that each key may send in a minute; further ones are refused with status 429."""
    max_concurrent_per_key: int | None = Field(default=None, ge=1)
    """Requests of each key that may be under way at a time; further ones are refused with status 429."""
    cors_origin: Names = ()
    """Site whose pages may use the API from a browser, such as https://app.example (may be given several times)."""
    trusted_hosts: list[str] = []
    """Further names under which the server may be addressed, beside localhost and HOST."""

    @field_validator("api_key")
    @classmethod
    def _no_empty_key(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("a key must not be empty")
        return value

    @field_validator("cors_origin")
    @classmethod
    def _named_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("name an origin as the browser sends it, such as https://app.example; no path, no '*'")
        return value

    def as_data(self) -> dict[str, Any]:
        """Plain JSON-able values with the API keys masked: this goes into plans and records."""
        data = super().as_data()
        if self.api_key:
            data["api_key"] = "(set)"
        return data
