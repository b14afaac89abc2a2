"""A server that answers in OpenAI's format with what a function says: for tests of those who ask."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Refuse(Exception):
    """Raised by the function: answer with this status, body and headers."""

    def __init__(self, status: int, body: Any = None, **headers: str) -> None:
        self.status = status
        self.body = body if body is not None else {"error": {"message": f"refused with {status}"}}
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ChatServer:
    """`answer` gets the request's body and returns the text that the model says. `requests` keeps (headers, body)."""

    def __init__(self, answer: Callable[[dict[str, Any]], str], models: tuple[str, ...] = ("judge",)) -> None:
        self.answer, self.models = answer, models
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.url = ""

    def respond(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        with self.lock:
            self.requests.append((headers, body))
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            text = self.answer(body)
        except Refuse as refusal:
            return refusal.status, refusal.body, refusal.headers
        finally:
            with self.lock:
                self.running -= 1
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}, {}


@contextmanager
def chat_server(answer: Callable[[dict[str, Any]], str], **settings: Any) -> Iterator[ChatServer]:
    """The server on a free port of this machine, in threads of this process."""
    server = ChatServer(answer, **settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(200, {"data": [{"id": name} for name in server.models]}, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send(*server.respond({name.lower(): value for name, value in self.headers.items()}, body))

        def send(self, status: int, body: Any, headers: dict[str, str]) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        listener.handle_error = lambda *_: None  # who asked has gone
        server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
