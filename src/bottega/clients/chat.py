"""Asking a model behind an endpoint, one conversation at a time or many at once.

What may pass is tried again: no connection, a time-out, and the statuses of RETRIED (RFC 9110, 6585), after the time
that Retry-After names, else after a wait that doubles, with jitter ("Exponential Backoff And Jitter", AWS, 2015). When
an endpoint says that it is asked too often, all threads wait. Anything else is an error that says what was refused.
"""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from bottega.clients.endpoint import Endpoint, EndpointError, error_of
from bottega.core.errors import UserError, did_you_mean

Messages = Sequence[Mapping[str, str]]
CONNECT_SECONDS = 10.0
LONGEST_BACKOFF = 30.0
# 529 is Anthropic's and Cloudflare's "overloaded".
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
# Of these, what concerns the endpoint and not the one request: a whole run stops when they last.
OF_THE_ENDPOINT = frozenset({401, 403, 404, 405, 429, 502, 503, 529})
SPENT = "insufficient_quota"  # a 429 that no waiting ends


@dataclass(frozen=True)
class Reply:
    """What a model said; token counts are 0 where the endpoint does not tell them."""

    text: str
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatClient:
    """Asks one endpoint; may be used by several threads. A context manager: leaving it ends waits and connections."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        timeout = httpx.Timeout(endpoint.timeout, connect=CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.Client(timeout=timeout, limits=limits, **endpoint.client_settings())
        self._closed = threading.Event()
        self._reached = False
        self._open_at = 0.0  # nobody asks before this time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all waits; no more is asked."""
        self._closed.set()
        self._client.close()

    def ask(self, messages: Messages, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """The answer to a conversation; raises EndpointError."""
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [dict(message) for message in messages],
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        body |= self.endpoint.extra
        body = {name: value for name, value in body.items() if value is not None}
        return _reply(self._post("chat/completions", body))

    def ask_all(
        self, conversations: Sequence[Messages], *, max_tokens: int, temperature: float = 0.0, concurrency: int = 8
    ) -> Iterator[tuple[int, Reply | EndpointError]]:
        """(place, answer or why there is none) of each conversation, as they come, `concurrency` asked at a time.

        An error that would meet every other one as well is raised.
        """

        def ask(messages: Messages) -> Reply:
            return self.ask(messages, max_tokens=max_tokens, temperature=temperature)

        todo: queue.SimpleQueue[tuple[int, Messages]] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Reply | BaseException]] = queue.SimpleQueue()
        stop = threading.Event()
        for entry in enumerate(conversations):
            todo.put(entry)

        def work() -> None:
            while not stop.is_set():
                try:
                    place, messages = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((place, ask(messages)))
                except BaseException as error:  # the thread that waits for it raises it
                    done.put((place, error))

        # Daemons: an answer that is minutes away must not hold up Ctrl-C.
        for _ in range(min(concurrency, len(conversations))):
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in conversations:
                place, reply = done.get()
                if isinstance(reply, BaseException) and not (isinstance(reply, EndpointError) and not reply.stops):
                    raise reply
                yield place, reply
        finally:
            stop.set()

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of the answer, after as many attempts as it takes."""
        content = json.dumps(body).encode()  # ASCII: also halves of surrogate pairs can be sent
        endpoint, attempt = self.endpoint, 0
        while True:
            self._pause()
            try:
                return self._attempt(path, content)
            except _Passing as passing:
                error, wait = passing.error, passing.wait
            if attempt == endpoint.retries:
                raise error
            if wait is None:
                wait = random.uniform(0.5, 1.0) * min(LONGEST_BACKOFF, endpoint.backoff * 2**attempt)
            if wait > endpoint.longest_wait:
                message = f"{error.message} (it asks for {wait:.0f} seconds of patience)"
                raise EndpointError(message, hint="Run it again then.", status=error.status, stops=True)
            attempt += 1
            if error.status in OF_THE_ENDPOINT:
                self._open_at = max(self._open_at, time.monotonic() + wait)
            else:
                self._closed.wait(wait)

    def _pause(self) -> None:
        """Wait until the endpoint may be asked; a little longer, so that not all threads come at once."""
        wait = self._open_at - time.monotonic()
        if wait > 0:
            self._closed.wait(wait * random.uniform(1.0, 1.1))
        if self._closed.is_set():
            raise EndpointError("stopped", stops=True)

    def _attempt(self, path: str, content: bytes) -> Any:
        url = f"{self.endpoint.base}/{path}"
        try:
            response = self._client.post(url, content=content, headers={"Content-Type": "application/json"})
        except httpx.RequestError as error:
            said = str(error) or type(error).__name__
            if isinstance(error, httpx.ConnectError) and not self._reached:
                raise _unreachable(self.endpoint, said) from None
            slow = isinstance(error, httpx.ReadTimeout)
            message = f"no answer in {self.endpoint.timeout:g} s" if slow else said
            raise _Passing(EndpointError(f"{self.endpoint.base}: {message}", stops=not slow), None) from None
        self._reached = True
        data = _json(response.content)
        inner = data.get("error") if isinstance(data, dict) and "choices" not in data else None
        if response.is_success and inner is None:
            return data
        # Some gateways answer 200 with the error of the provider behind them.
        code = inner.get("code") if response.is_success and isinstance(inner, dict) else None
        status = code if isinstance(code, int) else 400 if response.is_success else response.status_code
        raise self._refusal(status, response)

    def _refusal(self, status: int, response: httpx.Response) -> Exception:
        spent = error_of(response.content)[1] == SPENT
        error = EndpointError(
            f"{self.endpoint.base}: {self.endpoint.failure(status, response.content)}",
            hint=_hint(status, bool(self.endpoint.api_key)),
            status=status,
            stops=status in OF_THE_ENDPOINT or 300 <= status < 400,
        )
        return _Passing(error, _wanted_wait(response.headers)) if status in RETRIED and not spent else error


class _Passing(Exception):
    """A failure that may pass, and the seconds that the endpoint asks us to wait, if it does."""

    def __init__(self, error: EndpointError, wait: float | None) -> None:
        super().__init__(error.message)
        self.error, self.wait = error, wait


def find_model(endpoint: Endpoint) -> str:
    """The one model that the endpoint lists; raises UserError if it lists none or several, or EndpointError."""
    try:
        with httpx.Client(timeout=CONNECT_SECONDS, **endpoint.client_settings()) as client:
            response = client.get(f"{endpoint.base}/models")
    except httpx.RequestError as error:
        raise _unreachable(endpoint, str(error) or type(error).__name__) from None
    if response.status_code in (401, 403):
        message = f"{endpoint.base}: {endpoint.failure(response.status_code, response.content)}"
        raise EndpointError(message, hint=_hint(response.status_code, bool(endpoint.api_key)), stops=True)
    data = _json(response.content) if response.is_success else None
    cards = data.get("data") if isinstance(data, dict) else None
    names = [str(card["id"]) for card in cards or () if isinstance(card, dict) and card.get("id")]
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError(f"{endpoint.base}/models lists no model", hint="Name the model that is to be asked.")
    raise UserError(f"{endpoint.base} has {len(names)} models: name one", hint=did_you_mean("", names[:20]))


def _unreachable(endpoint: Endpoint, said: str) -> EndpointError:
    message = f"nobody answers at {endpoint.base}: {said}"
    return EndpointError(message, hint="Start the server first, or correct the URL.", stops=True)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _reply(data: Any) -> Reply:
    """Raises EndpointError if it is no answer in the format."""
    try:
        choice = data["choices"][0]
        said = choice["message"].get("content")
        reason = str(choice.get("finish_reason") or "")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EndpointError("the endpoint's answer has no choices[0].message") from None
    if isinstance(said, list):  # parts, as some providers send them
        said = "".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
    usage = data.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    tokens = [counts.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else 0 for count in tokens)
    return Reply(said if isinstance(said, str) else "", reason, prompt, completion)


def _hint(status: int, has_key: bool) -> str:
    if status in (401, 403):
        return "Correct the API key." if has_key else "Give its API key."
    if status == 404:
        return "Correct the URL (does it end in /v1?) or the model's name."
    if status in (400, 422):
        return "A field that the endpoint does not take is left out with an extra of null."
    return ""


def _wanted_wait(headers: httpx.Headers) -> float | None:
    """Seconds by Retry-After, which is a number or a date (RFC 9110, 10.2.3); None if it says nothing."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time.time())
