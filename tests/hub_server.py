"""A hub on 127.0.0.1 for tests: what huggingface_hub asks of the real one, with faults on demand.

The routes and headers are those of huggingface.co's API as huggingface_hub uses it: model info with
files' sizes and hashes, `resolve` with ranges, and for uploads repository, branch, preupload, LFS and commit.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".model", ".gguf")
TOKEN = "hf_test"
SMALL_CHUNK = 8192  # huggingface_hub writes in pieces of 10 MB; the tests' files are smaller


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """A repository: its files, and what goes wrong with it.

    `faults` are taken one by one: ("info", 503) for the next question about the repository,
    (file, 429) for the next request of a file, (file, "cut", n) sends n bytes and closes.
    `served` replaces the content that is sent of a file; `listed` changes the listing.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = ""
    tags: list[str] = field(default_factory=list)
    card: dict[str, Any] | None = None
    gated: bool | str = False
    private: bool = False
    locked: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    faults: list[tuple] = field(default_factory=list)
    served: dict[str, bytes] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    delay: float = 0.0
    redirect: str = ""

    def sha(self) -> str:
        text = json.dumps({name: git_hash(content) for name, content in sorted(self.files.items())})
        return self.commit or hashlib.sha1(text.encode()).hexdigest()

    def siblings(self) -> list[dict[str, Any]]:
        found = []
        for name, content in self.files.items():
            entry = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
            if name.endswith(LFS_SUFFIXES):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": sha256, "oid": sha256, "pointerSize": 130}
            found.append(entry)
        return found + self.listed

    def fault(self, what: str) -> tuple | None:
        for fault in self.faults:
            if fault[0] == what:
                self.faults.remove(fault)
                return fault
        return None


class Hub(ThreadingHTTPServer):
    """The server; `repos` by name, `requests` as (method, path, Range), `large` the uploaded LFS objects."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.tokens: list[str | None] = []
        self.large: dict[str, bytes] = {}
        self.upload_faults: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error of the server's."""

    def fetched(self, name: str) -> list[tuple[str, str | None]]:
        """File and Range of each request of a file of the repository, in order."""
        part = f"/{name}/resolve/"
        return [(path.split("/", 5)[5], range_) for _, path, range_ in self.requests if path.startswith(part)]


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        self.server.tokens.append(self.headers.get("Authorization"))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(match[1], match[2])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            entries = self.server.repos[match[1]].siblings()
            return self._json(
                [{**entry, "type": "file", "path": entry["rfilename"], "oid": entry["blobId"]} for entry in entries]
            )
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(match[1], match[3])
        return self._fail(404)

    do_HEAD = do_GET

    def _info(self, name: str, revision: str | None) -> None:
        repo = self.server.repos.get(name)
        if repo is None:
            return self._fail(401, "RepoNotFound")
        fault = repo.fault("info")
        if fault is not None:
            return self._fail(fault[1])
        if revision not in (None, "main", repo.sha(), *repo.branches):
            return self._fail(404, "RevisionNotFound")
        data = {
            "id": name, "sha": repo.branches.get(revision or "", repo.sha()), "siblings": repo.siblings(),
            "tags": repo.tags, "gated": repo.gated, "private": repo.private, "cardData": repo.card,
        }  # fmt: skip
        return self._json({**data, **repo.answer})

    def _file(self, name: str, file: str) -> None:
        repo = self.server.repos.get(name)
        if repo is None or file not in repo.files:
            return self._fail(404, "EntryNotFound")
        if repo.locked and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._fail(401 if "Authorization" not in self.headers else 403, "GatedRepo")
        fault = repo.fault(file)
        if fault is not None and isinstance(fault[1], int):
            return self._fail(fault[1])
        if repo.redirect not in ("", self.server.url):
            return self._begin(302, {"Location": repo.redirect + self.path}, 0)
        content, status = repo.served.get(file, repo.files[file]), 200
        headers = {"ETag": f'"{git_hash(content)}"', "X-Repo-Commit": repo.sha()}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            if start >= len(content):
                return self._fail(416)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if fault is None or fault[1] != "ignore range":
                content, status = content[start:], 206
            else:
                del headers["Content-Range"]
        end = fault[2] if fault is not None and fault[1] == "cut" else len(content)
        self._begin(status, headers, len(content))
        if self.command == "HEAD":
            return None
        for at in range(0, end, 1 << 14):
            self.wfile.write(content[at : min(at + (1 << 14), end)])
            self.wfile.flush()
            time.sleep(repo.delay)
        self.close_connection = end < len(content)
        return None

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, None))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            return self._json({"warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._fail(401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path):
            repo = self.server.repos[match[1]]
            return {"branch": self._branch, "preupload": self._preupload, "commit": self._commit}[match[2]](
                repo, match[3], body
            )
        return self._fail(404)

    def do_PUT(self) -> None:
        self.server.requests.append((self.command, self.path, None))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.upload_faults:
            return self._fail(self.server.upload_faults.pop(0))
        self.server.large[self.path.rpartition("/")[2]] = body
        return self._json({})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "others":
            return self._fail(403)
        if name in self.server.repos:
            return self._json({"url": f"{self.server.url}/{name}"}, 409)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.server.repos[name] = Repo({".gitattributes": b""}, private=private)
        return self._json({"url": f"{self.server.url}/{name}"})

    def _branch(self, repo: Repo, branch: str, body: bytes) -> None:
        if branch in repo.branches:
            return self._fail(409)
        repo.branches[branch] = repo.sha()
        return self._json({})

    def _preupload(self, repo: Repo, branch: str, body: bytes) -> None:
        files = json.loads(body)["files"]
        answer = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        return self._json({"files": answer})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for wanted in asked["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.large:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/put/{wanted['oid']}"}}
            objects.append(entry)
        return self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repo: Repo, branch: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repo.files[value["path"]] = self.server.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del repo.files[value["path"]]
        repo.branches[branch] = repo.sha()
        name = next(name for name, known in self.server.repos.items() if known is repo)
        return self._json({"commitUrl": f"{self.server.url}/{name}/commit/{repo.sha()}", "commitOid": repo.sha()})

    def _begin(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _json(self, data: Any, status: int = 200) -> None:
        content = json.dumps(data).encode()
        self._begin(status, {"Content-Type": "application/json"}, len(content))
        self.wfile.write(content)

    def _fail(self, status: int, code: str = "") -> None:
        self._begin(status, {"X-Error-Code": code} if code else {}, 0)


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


def settings(hub: str, home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that knows no other hub than this one."""
    source = str(Path(__file__).parents[1] / "src")
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    own = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": path,
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "COLUMNS": "200",
    }
    quick = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return {**own, **quick, "HF_ENDPOINT": hub, **more}


class Bottega:
    """`bottega` in a process of its own that takes one command line after the other.

    (huggingface_hub reads its settings when it is imported, and importing takes most of a second.)
    """

    def __init__(self, hub: str, home: Path, **environment: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.cache = home / "hf" / "hub"
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=settings(hub, home, **environment), cwd=home, text=True,
        )  # fmt: skip

    def __call__(self, *words: object) -> Done:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()
        return Done(*json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def make_model(folder: Path, *, shards: bool = False, seed: int = 0, tokenizer: Path | None = None) -> dict[str, bytes]:
    """A random little model with card and licence; its files by name."""
    import torch

    from bottega.checkpoint.config import ModelConfig
    from bottega.checkpoint.writer import TensorWriter, expected_tensors, write_model_files
    from bottega.tokenizer.files import write_tokenizer

    config = ModelConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, bos_token_id=None, eos_token_id=(2,),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    declared = expected_tensors(config)
    with TensorWriter(folder, declared, max_shard_bytes=60_000 if shards else 1 << 30) as writer:
        for name, info in declared.items():
            writer.add(name, torch.randn(info.shape, generator=generator))
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder)
    write_model_files(folder, config)
    if tokenizer is None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "LICENSE").write_text("Apache License\n")
    return read_folder(folder)


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder, hidden ones apart."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}


def _serve_commands() -> None:
    from huggingface_hub import constants

    from bottega.cli.main import main

    constants.DOWNLOAD_CHUNK_SIZE = SMALL_CHUNK
    answers = sys.stdout
    for line in sys.stdin:
        sys.argv = ["bottega", *json.loads(line)]
        out, err = io.StringIO(), io.StringIO()
        status: Any = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as ended:
                status = ended.code
        answers.write(json.dumps([status, out.getvalue(), err.getvalue()]) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve_commands()
