"""Names of the hub: a server on this machine plays the hub's part and refuses in its ways."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bottega.checkpoint.hub import locate
from bottega.core.errors import UserError

ANSWERS = {
    "/api/models/org/gated": (403, {"X-Error-Code": "GatedRepo"}),
    "/api/models/org/none": (401, {"X-Error-Code": "RepoNotFound"}),
    "/api/models/org/name": (404, {"X-Error-Code": "RevisionNotFound"}),
    "/api/models/org/broken": (418, {}),
}


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = next((path for path in ANSWERS if self.path.startswith(path)), None)
        status, headers = ANSWERS[path] if path else (404, {"X-Error-Code": "RepoNotFound"})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def ask(model: str, endpoint: str, tmp_path: Path, **environment: str) -> str:
    """What `locate` says in a process of its own (huggingface_hub reads its settings when imported)."""
    code = (
        "import sys\nfrom bottega.checkpoint.hub import locate\nfrom bottega.core.errors import UserError\n"
        "try: locate(sys.argv[1])\nexcept UserError as error: print(error)"
    )
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code, model], env=settings, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/gated", ["is gated", "https://huggingface.co/org/gated", "hf auth login"]),
        ("org/none", ["the hub has no such model"]),
        ("org/name@v9", ["org/name@v9", "no such revision"]),
        ("org/broken", ["HTTP status 418"]),
    ],
)
def test_refusals_say_what_to_do(hub: str, tmp_path: Path, model: str, said: list[str]):
    answer = ask(model, hub, tmp_path)
    assert all(words in answer for words in said), answer


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_connection(tmp_path: Path, offline: str):
    answer = ask("org/name", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE=offline)
    assert "the hub cannot be reached" in answer and "Without a connection" in answer


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="pip install 'bottega"):
        locate("org/name")


@pytest.mark.parametrize("model", ["nothing", "a/b/c", "./org/name", "/org/name", "../x", "org/", "org/na me"])
def test_other_names_never_reach_the_hub(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # reaching it would say that it is missing
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no model at"):
        locate(model)


def test_a_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("org/name") == Path("org/name")
    with pytest.raises(UserError, match="there is no model at"):
        locate("org/nmae")  # the folder org exists: a misspelt path, not a name of the hub
