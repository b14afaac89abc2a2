"""What every request passes before it is looked at: host, origin, key, limits, size.

- *Host*: a page of another site can make its own name resolve to 127.0.0.1 (DNS rebinding)
  and then read answers as "same origin". The browser still sends that name as `Host`, so
  only known names are served.
- *Origin*: a browser sends `Origin` with cross-site requests that can change or cost
  something; under the protected prefixes it must be this server itself or one of the named
  origins. Programs send none.
- *Key*: `Authorization: Bearer KEY` under the protected prefixes, compared in constant time.
- *Limits*: requests of each key, by the minute and at a time (`bottega.serve.access`).
- *Size*: a body is counted while it arrives and refused once it is too large.
- *Type*: a body that is called a form, or nothing, is JSON: the examples of many servers are `curl URL -d '{…}'`.

CORS headers are sent to the named origins only, so no other site can read an answer. Plain ASGI; no torch.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bottega.serve.failures import ApiError

MAX_BODY_BYTES = 4 * 2**20
# RFC 9110, 7.2: a name or an address, and a port; in particular no path, which would become part of URLs.
_HOST = re.compile(r"([\w.-]+|\[[\da-f:.]+\])(?::\d*)?")
_FORM = "application/x-www-form-urlencoded"
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


class Gate(Protocol):
    """Counts the requests of each key (see `access.Limits`)."""

    def enter(self, key: bytes) -> None:
        """Raise ApiError 429, or count one in."""
        ...

    def leave(self, key: bytes) -> None:
        """Count it out."""
        ...


class Guard:
    """ASGI middleware around an app; `prefixes` are the parts that need origin and key."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: HostRule,
        api_keys: Sequence[str] = (),
        prefixes: Sequence[str] = ("/v1",),
        origins: Sequence[str] = (),
        limits: Gate | None = None,
        max_body: int = MAX_BODY_BYTES,
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.api_keys = [key.encode("utf-8") for key in api_keys]
        self.prefixes = tuple(prefixes)
        self.origins = frozenset(origin.lower() for origin in origins)
        self.limits = limits
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with its body counted."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if origin.lower() in self.origins and self._is_protected(scope["path"]):
            send = _with_cors(send, origin)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _send_preflight(headers, send)
                return
        try:
            key = self.check(scope["path"], headers)
            if self._counts(scope):
                assert self.limits
                self.limits.enter(key)
        except ApiError as error:
            await send_error(error, send, scope["path"])
            return
        _read_as_json(scope, headers)
        try:
            await self._pass_on(scope, receive, send)
        finally:
            if self._counts(scope):
                assert self.limits
                self.limits.leave(key)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        counted = _CountedBody(receive, send, self.max_body)
        try:
            await self.app(scope, counted.receive, counted.send)
        except ApiError:
            if not counted.refused:
                raise
        if counted.refused:
            await send_error(too_large(self.max_body), send, scope["path"])

    def _counts(self, scope: Scope) -> bool:
        return self.limits is not None and scope["method"] == "POST" and self._is_protected(scope["path"])

    def _is_protected(self, path: str) -> bool:
        return any(path == prefix or path.startswith(prefix + "/") for prefix in self.prefixes)

    def check(self, path: str, headers: Headers) -> bytes:
        """The key of the request, b"" without one; raises ApiError (403, 401, 413) for one that may not enter."""
        host = headers.get("host", "")
        if not self.hosts.allows(host):
            raise ApiError(
                403,
                f"The host name {host_name(host)!r} is not this server's; start it with --trusted-hosts to allow it.",
                kind="permission_error",
                code="unknown_host",
            )
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.max_body:
            raise too_large(self.max_body)
        if not self._is_protected(path):
            return b""
        self._check_origin(host, headers)
        return self._check_key(headers)

    def _check_origin(self, host: str, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None and origin.lower() in self.origins:
            return
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise ApiError(
                403,
                "Pages of other sites may not use this server.",
                kind="permission_error",
                code="cross_origin",
            )

    def _check_key(self, headers: Headers) -> bytes:
        if not self.api_keys:
            return b""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("utf-8") if scheme.lower() == "bearer" else b""
        # Every key is compared, and in constant time: how long it takes does not tell how much of one is right.
        right = [hmac.compare_digest(given, known) for known in self.api_keys]
        if any(right):
            return given
        said = "This is not this server's API key" if given else "This server needs its API key"
        raise ApiError(
            401,
            f"{said}, sent as `Authorization: Bearer KEY`.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _read_as_json(scope: Scope, headers: Headers) -> None:
    """Let a body without a type be JSON, and one that is called a form, as `curl -d` calls all: there are none here.

    A page could send these two without asking first; its `Origin` has been looked at by now.
    """
    if scope["method"] == "POST" and headers.get("content-type", _FORM).partition(";")[0].strip().lower() == _FORM:
        MutableHeaders(scope=scope)["content-type"] = "application/json"


def _with_cors(send: Send, origin: str) -> Send:
    """A `send` whose responses `origin` may read."""

    async def allowed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": list(message.get("headers", ()))}
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = "retry-after"
            headers.add_vary_header("origin")
        await send(message)

    return allowed


async def _send_preflight(headers: Headers, send: Send) -> None:
    """What a browser asks before it sends a request of another site."""
    wanted = headers.get("access-control-request-headers", "authorization, content-type")
    raw = [
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": raw})
    await send({"type": "http.response.body", "body": b""})


def too_large(limit: int) -> ApiError:
    """Status 413 with the limit."""
    return ApiError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


async def send_error(error: ApiError, send: Send, path: str = "") -> None:
    """Send `error` as a whole response to a request to `path`."""
    content = error.content(path)
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
