"""Serving through another engine: start it, answer in front of it, end it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from bottega.serve.backends.app import Front, create_front
from bottega.serve.backends.child import Child, free_port
from bottega.serve.backends.programs import program_of
from bottega.serve.config import Serve
from bottega.serve.listen import Server, base_url, make_server, open_socket
from bottega.serve.models import Source


def serve_backend(config: Serve, source: Source, say: Callable[[str], None], ready: Callable[[int], None]) -> None:
    """Answer until SIGINT or SIGTERM; raises UserError where the engine is not there, or cannot obey a setting."""
    port, key = free_port(), secrets.token_urlsafe(32)
    program = program_of(config, source.path, source.name, port, key)
    with open_socket(config.host, config.port) as listener:
        say(f"Starting {program.name}")
        child = Child(program, port, key)
        try:
            child.wait_until_ready()
            front = Front(child, config, source.name)

            def announce() -> None:
                say(f"Serving {source.name} with {program.name} on {base_url(listener, config.host)}/v1 (Ctrl-C stops)")
                ready(listener.getsockname()[1])

            async def end_answers(server: Server) -> None:
                end = time.monotonic() + config.drain_seconds
                while front.under_way and time.monotonic() < end and not server.force_exit:
                    await asyncio.sleep(0.02)

            make_server(create_front(front, config), announce, end_answers).run(sockets=[listener])
        finally:
            child.end()
