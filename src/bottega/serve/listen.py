"""Taking a port and answering on it until told to stop; shared by `serve` and `web`. No torch."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from bottega.core.errors import BusyError, UserError
from bottega.core.plan import Check

# How long answers under way may go on after Ctrl-C or SIGTERM, in seconds.
GRACE_SECONDS = 1


def open_socket(host: str, port: int) -> socket.socket:
    """Bind `host`:`port` (0: any free port) without listening yet.

    So the port is ours, or the error is said, before a model is loaded, and a client that
    comes too early is turned away at once instead of waiting. Raises BusyError when another
    program has the port, UserError when the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        raise UserError(f"{host!r} is not an address of this machine", hint="Use --host 127.0.0.1.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _bind_error(error, host, port) from None
    return listener


def _bind_error(error: OSError, host: str, port: int) -> UserError:
    match error.errno:
        case errno.EADDRINUSE:
            return BusyError(
                f"port {port} on {host} is in use by another program",
                hint=f"Stop that program, or take another port: --port {port + 1 if port < 65535 else 8000}.",
            )
        case errno.EACCES:
            return UserError(f"port {port} needs special rights", hint="Take a port above 1023, for example 8000.")
        case _:
            return UserError(f"cannot listen on {host}:{port}: {error.strerror}", hint="Use --host 127.0.0.1.")


def port_check(host: str, port: int) -> Check:
    """Whether the port can be taken now."""
    try:
        open_socket(host, port).close()
    except UserError as error:
        return Check("port", False, f"{error.message}. {error.hint}")
    return Check("port", True, f"{host}:{port} is free")


def base_url(listener: socket.socket, host: str) -> str:
    """`http://host:port` as a browser on this machine can open it."""
    port = listener.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host.strip("[]"), host)
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"http://{name}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server, for which SIGINT and SIGTERM are a normal end (exit status 0).

    `ready` is called once requests are answered and signals handled; `stopping`, with this server, when the end
    has been asked for, to end the answers under way before they are cut off (at once if `force_exit`: a second
    Ctrl-C).
    """

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[Server], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End answers, then connections."""
        await self._stopping(self)
        self.force_exit = False  # the hurry was about the answers; connections and app still end in order
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the two signals while serving; uvicorn would raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(app: ASGIApp, ready: Callable[[], None], stopping: Callable[[Server], Awaitable[None]]) -> Server:
    """A server for `app` with our settings; run it with `server.run(sockets=[listener])`."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return Server(config, ready, stopping)
