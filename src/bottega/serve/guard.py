"""What every request passes before it is looked at: host, origin, key, size.

- *Host*: a page of another site can make its own name resolve to 127.0.0.1 (DNS rebinding)
  and then read answers as "same origin". The browser still sends that name as `Host`, so
  only known names are served.
- *Origin*: a browser sends `Origin` with cross-site requests that can change or cost
  something; under the protected prefix it must be this server itself. Programs send none.
- *Key*: `Authorization: Bearer KEY` under the protected prefix, compared in constant time.
- *Size*: a body is counted while it arrives and refused once it is too large.

No CORS header is ever sent, so no other site can read an answer. Plain ASGI; no torch.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bottega.serve.failures import ApiError

MAX_BODY_BYTES = 4 * 2**20
# RFC 9110, 7.2: a name or an address, and a port; in particular no path, which would become part of URLs.
_HOST = re.compile(r"([\w.-]+|\[[\da-f:.]+\])(?::\d*)?")
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def host_name(netloc: str) -> str:
    """'Example.org:8000' → 'example.org', '[::1]:8000' → '::1'; '' if it is malformed."""
    match = _HOST.fullmatch(netloc.lower())
    return match[1].strip("[]").rstrip(".") if match else ""


class HostRule:
    """Which names in `Host` are this server's own."""

    def __init__(self, host: str, trusted: Iterable[str] = ()) -> None:
        self.names = {*LOCAL_NAMES, *(name.lower() for name in trusted)}
        self.any_address = is_wildcard(host)
        self.names.add(socket.gethostname().lower() if self.any_address else host.strip("[]").lower())

    def allows(self, netloc: str) -> bool:
        """Known names always; on a wildcard address also any IP literal, which no DNS answer can forge."""
        name = host_name(netloc)
        return name in self.names or (self.any_address and _is_address(name))


def is_wildcard(host: str) -> bool:
    """Whether `host` means every interface."""
    return _is_address(host) and ipaddress.ip_address(host.strip("[]")).is_unspecified


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware around an app; `prefix` is the part that needs origin and key."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: HostRule,
        api_key: str | None = None,
        prefix: str = "/v1",
        max_body: int = MAX_BODY_BYTES,
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.api_key = api_key.encode("utf-8") if api_key is not None else None
        self.prefix = prefix
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with its body counted."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self.check(scope["path"], Headers(scope=scope))
        except ApiError as error:
            await send_error(error, send)
            return
        counted = _CountedBody(receive, send, self.max_body)
        try:
            await self.app(scope, counted.receive, counted.send)
        except ApiError:
            if not counted.refused:
                raise
        if counted.refused:
            await send_error(too_large(self.max_body), send)

    def check(self, path: str, headers: Headers) -> None:
        """Raise ApiError (403, 401, 413) for a request that may not enter."""
        host = headers.get("host", "")
        if not self.hosts.allows(host):
            raise ApiError(
                403,
                f"The host name {host_name(host)!r} is not this server's; start it with trusted_hosts to allow it.",
                kind="permission_error",
                code="unknown_host",
            )
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.max_body:
            raise too_large(self.max_body)
        if path == self.prefix or path.startswith(self.prefix + "/"):
            self._check_origin(host, headers)
            self._check_key(headers)

    def _check_origin(self, host: str, headers: Headers) -> None:
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise ApiError(
                403,
                "Pages of other sites may not use this server.",
                kind="permission_error",
                code="cross_origin",
            )

    def _check_key(self, headers: Headers) -> None:
        if self.api_key is None:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("utf-8") if scheme.lower() == "bearer" else b""
        if not hmac.compare_digest(given, self.api_key):
            raise ApiError(
                401,
                "This server needs its API key, sent as `Authorization: Bearer KEY`.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def too_large(limit: int) -> ApiError:
    """Status 413 with the limit."""
    return ApiError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


async def send_error(error: ApiError, send: Send) -> None:
    """Send `error` as a whole response."""
    content = error.content()
    headers = {"content-type": "application/json", "content-length": str(len(content)), **error.headers}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


class _CountedBody:
    """A `receive` that fails once more than `limit` bytes have come.

    Frameworks turn a failing body into an answer of their own; `send` drops that one, so that
    the guard can give the right one.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._count = 0
        self._answered = False
        self.refused = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        if self._count > self._limit:
            self.refused = not self._answered
            raise too_large(self._limit)
        return message

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._answered = True
            await self._send(message)
