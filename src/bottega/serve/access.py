"""Who may use the server, and how much: API keys, limits for each key, and when a key is needed. No torch."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable

from bottega.core.errors import UserError
from bottega.core.plan import Check
from bottega.serve.config import Serve
from bottega.serve.failures import rate_limited
from bottega.serve.guard import is_loopback

WINDOW_SECONDS = 60.0


def keys_of(config: Serve) -> tuple[str, ...]:
    """All API keys, of the settings and of the file; raises UserError if it cannot be read or has none."""
    path = config.api_key_file
    if path is None:
        return config.api_key
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"api_key_file: {path} cannot be read: {error}") from None
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise UserError(f"api_key_file: {path} holds no key", hint="Write one key a line.")
    return (*config.api_key, *found)


def access_check(config: Serve) -> Check:
    """A server that others can reach needs a key, unless it is told to do without."""
    keys = keys_of(config)
    if keys:
        return Check("access", True, f"{len(keys)} API {'key' if len(keys) == 1 else 'keys'}")
    if is_loopback(config.host):
        return Check("access", True, "this machine only")
    if config.allow_anonymous:
        return Check("access", True, "anyone who can reach this machine, as allow_anonymous says")
    return Check(
        "access",
        False,
        f"anyone who can reach {config.host} could use the model: set --api-key or --api-key-file, "
        "or say --allow-anonymous",
    )


def require_access(config: Serve) -> None:
    """Raise UserError where `access_check` fails."""
    check = access_check(config)
    if not check.passed:
        raise UserError(check.detail)


class Limits:
    """Requests of each key: how many in a minute, and how many at a time. Without keys all clients share one count."""

    def __init__(
        self,
        requests_per_minute: int | None = None,
        max_concurrent: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests_per_minute, self.max_concurrent = requests_per_minute, max_concurrent
        self._clock = clock
        self._times: dict[bytes, deque[float]] = defaultdict(deque)
        self._under_way: dict[bytes, int] = defaultdict(int)

    def enter(self, key: bytes) -> None:
        """Count a request in; raises ApiError 429 with Retry-After."""
        now, times = self._clock(), self._times[key]
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        if self.requests_per_minute is not None and len(times) >= self.requests_per_minute:
            wait = math.ceil(times[0] + WINDOW_SECONDS - now)
            message = f"This key may send {self.requests_per_minute} requests a minute. Try again in {wait} s."
            raise rate_limited(message, code="rate_limit_exceeded", retry_after=wait)
        if self.max_concurrent is not None and self._under_way[key] >= self.max_concurrent:
            message = f"This key may have {self.max_concurrent} requests under way at a time."
            raise rate_limited(message, code="concurrency_limit_exceeded")
        if self.requests_per_minute is not None:
            times.append(now)
        self._under_way[key] += 1

    def leave(self, key: bytes) -> None:
        """The request has ended."""
        self._under_way[key] -= 1
