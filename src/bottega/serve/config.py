"""Settings of `bottega serve`. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bottega.core.schema import OnModel


class Serve(OnModel):
    """Settings of the API server."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the server to the network (then set an API key)."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""
    name: str | None = None
    """Name by which clients ask for the model (default: the folder's name)."""
    api_key: str | None = Field(default=None, min_length=1)
    """Key that clients of /v1 must send as `Authorization: Bearer KEY`."""
    max_queue: int = Field(default=8, ge=0)
    """Requests that may wait while one is answered; further ones are refused with status 429."""
    trusted_hosts: list[str] = []
    """Further names under which the server may be addressed, beside localhost and HOST."""

    def as_data(self) -> dict[str, Any]:
        """Plain JSON-able values with the API key masked: this goes into plans and records."""
        data = super().as_data()
        if self.api_key is not None:
            data["api_key"] = "(set)"
        return data
