"""`hub pull` against a hub on this machine: cache and folder, going on after every kind of interruption, offline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from bottega.checkpoint.hub_cache import link_snapshot
from bottega.checkpoint.hub_pull import _names
from bottega.checkpoint.hub_repository import RemoteFile, Repository
from bottega.core.atomic import WORK_FOLDER, partial_path
from bottega.core.record import read_record
from conftest import Workshop
from hub_server import SMALL_CHUNK, TOKEN, Bottega, Hub, Repo, make_model, read_folder, running_hub, settings


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


@pytest.fixture(scope="module")
def bottega(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottega]:
    process = Bottega(hub.url, tmp_path_factory.mktemp("home"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_model(tmp_path_factory.mktemp("sharded"), shards=True)


@pytest.fixture
def repo(hub: Hub, files: dict[str, bytes], request: pytest.FixtureRequest) -> Iterator[tuple[str, Repo]]:
    """A model on the hub, under a name of its own for each test."""
    name = "org/" + "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60].strip("-")
    while "--" in name:
        name = name.replace("--", "-")
    hub.repos[name] = Repo(dict(files), tags=["license:apache-2.0"])
    hub.requests.clear()
    yield name, hub.repos[name]
    del hub.repos[name]


def cached(bottega: Bottega, name: str) -> Path:
    return bottega.cache / ("models--" + name.replace("/", "--"))


def snapshot(bottega: Bottega, name: str, repo: Repo) -> Path:
    return cached(bottega, name) / "snapshots" / repo.sha()


def unfinished(bottega: Bottega, name: str) -> list[Path]:
    return sorted((cached(bottega, name) / "blobs").glob("*.incomplete"))


def test_into_the_cache(hub: Hub, bottega: Bottega, repo: tuple[str, Repo], files: dict[str, bytes]):
    name, there = repo
    there.files |= {
        "pytorch_model.bin": b"a pickle", "model.gguf": b"GGUF", "onnx/model.onnx": b"o", "onnx/config.json": b"{}",
        "pytorch_model.bin.index.json": b"{}", ".gitattributes": b"x", "modeling_custom.py": b"import os",
        "flax_model.msgpack": b"m", "NOTICE.txt": b"notice", "USE_POLICY.md": b"policy",
    }  # fmt: skip
    data = bottega("hub", "pull", name, "--json", "--quiet").json()
    folder = snapshot(bottega, name, there)
    expected = {**files, "NOTICE.txt": b"notice", "USE_POLICY.md": b"policy"}
    assert read_folder(folder) == expected
    assert data["path"] == str(folder) and data["commit"] == there.sha() and data["licence"] == "apache-2.0"
    assert data["gated"] is False and data["repository"] == name and data["bytes"] == sum(map(len, expected.values()))
    hashes = {
        file: {"bytes": len(content), "sha256": sha256(content).hexdigest()} for file, content in expected.items()
    }
    assert data["files"] == hashes
    hub.requests.clear()
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert hub.fetched(name) == []
    assert bottega("show", name, "--json").json()["licence"] == "apache-2.0"
    assert hub.fetched(name) == [] and unfinished(bottega, name) == []


def test_the_cache_is_huggingface_hubs_own(hub: Hub, bottega: Bottega, repo: tuple[str, Repo], files: dict[str, bytes]):
    """What we fetched, its reader finds without a connection and without a complaint; what it fetched, we need not."""
    name, there = repo
    there.branches["v1"] = there.sha()
    assert bottega("hub", "pull", f"{name}@v1", "--quiet").status == 0
    code = (
        "import sys, huggingface_hub as h\n"
        "print(h.snapshot_download(sys.argv[1], revision=sys.argv[2], local_files_only=sys.argv[3] == 'local'))\n"
        "found = h.scan_cache_dir()\n"
        "assert not found.warnings, found.warnings\n"
        "assert sys.argv[1] in {repo.repo_id for repo in found.repos}"
    )

    def library(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=settings(hub.url, bottega.home), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert library(name, "v1", "local") == str(snapshot(bottega, name, there))
    there.files["LICENSE"] = b"another\n"  # a new commit
    library(name, "main", "ask")
    hub.requests.clear()
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert hub.fetched(name) == []
    assert read_folder(snapshot(bottega, name, there)) == there.files


def test_a_new_commit_fetches_only_what_changed(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    assert bottega("hub", "pull", name, "--quiet").status == 0
    there.files["README.md"] = b"---\nlicense: mit\n---\nchanged\n"
    hub.requests.clear()
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert [file for file, _ in hub.fetched(name)] == ["README.md"]
    assert read_folder(snapshot(bottega, name, there)) == there.files


@pytest.mark.parametrize(
    ("listed", "taken"),
    [
        ({"model.safetensors": b"s", "pytorch_model.bin": b"p", "other.safetensors": b"o"}, ["model.safetensors"]),
        ({"pytorch_model.bin": b"p", "training_args.bin": b"t"}, ["pytorch_model.bin"]),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"a", "adapter_model.bin": b"b"},
         ["adapter_config.json", "adapter_model.safetensors"]),
        ({"tokenizer.json": b"{}", "vocab.txt": b"v", "spiece.model": b"m", "notes.txt": b"n"},
         ["spiece.model", "tokenizer.json", "vocab.txt"]),
        ({"additional_chat_templates/tool.jinja": b"t", "1_Pooling/config.json": b"{}", "a/b/config.json": b"{}"},
         ["1_Pooling/config.json", "additional_chat_templates/tool.jinja"]),
    ],
)  # fmt: skip
def test_what_is_taken(bottega: Bottega, repo: tuple[str, Repo], listed: dict[str, bytes], taken: list[str]):
    name, there = repo
    there.files = listed
    plan = bottega("hub", "pull", name, "--plan", "--json").json()
    assert sorted(plan["files"]) == taken


def test_shards_are_those_of_the_index(bottega: Bottega, repo: tuple[str, Repo], sharded: dict[str, bytes]):
    name, there = repo
    there.files = {**sharded, "consolidated.safetensors": b"x", "model-00009-of-00009.safetensors": b"stale"}
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert read_folder(snapshot(bottega, name, there)) == sharded
    assert bottega("show", name, "--json").status == 0


def test_weights_of_other_kinds_are_said(bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.files = {"config.json": b"{}", "model-Q4_K_M.gguf": b"GGUF", "tf_model.h5": b"h"}
    done = bottega("hub", "pull", name)
    assert done.status == 2 and ".gguf, .h5" in done.err and "not read here" in done.err
    assert not snapshot(bottega, name, there).exists()


def test_the_plan_reads_no_weights_and_writes_nothing(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.gated = "manual"
    before = sorted(bottega.home.rglob("*"))
    plan = bottega("hub", "pull", name, "--plan", "--json").json()
    assert plan["bytes_to_fetch"] == plan["bytes"] == sum(map(len, there.files.values()))
    assert plan["licence"] == "apache-2.0" and plan["gated"] is True
    assert {check["name"]: check["passed"] for check in plan["checks"]} == {
        "disk": True,
        "licence": True,
        "family": True,
    }
    assert {file for file, _ in hub.fetched(name)} <= {"config.json", "tokenizer_config.json"}
    assert sorted(bottega.home.rglob("*")) == before
    done = bottega("hub", "pull", name, "--plan")
    words = ["model.safetensors", "apache-2.0", "LlamaForCausalLM, supported", f"https://huggingface.co/{name}", "free"]
    assert done.status == 0 and all(word in done.out for word in words), done.out
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert bottega("hub", "pull", name, "--plan", "--json").json()["bytes_to_fetch"] == 0


def test_a_family_that_we_do_not_know_is_said_and_can_be_fetched(bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.files["config.json"] = json.dumps({"model_type": "flamingo-9"}).encode()
    plan = bottega("hub", "pull", name, "--plan")
    assert plan.status == 0 and "not run here" in plan.out and "flamingo-9" in plan.out
    assert bottega("hub", "pull", name, "--quiet").status == 0


def test_a_disk_that_is_too_small(bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.files = {"config.json": b"{}"}
    names = [f"model-{number:05d}-of-03000.safetensors" for number in range(1, 3001)]
    there.listed = [
        {"rfilename": file, "lfs": {"size": 40 * 10**9, "sha256": f"{number:064x}", "pointerSize": 1}}
        for number, file in enumerate(names)
    ]
    there.files["model.safetensors.index.json"] = json.dumps({"weight_map": {file: file for file in names}}).encode()
    for words in ([], ["--plan"], ["--out", "never"]):
        done = bottega("hub", "pull", name, *words)
        assert done.status == 2 and "disk: 109.1 TiB needed" in done.err, done
    assert not (bottega.home / "never").exists() and not partial_path(bottega.home / "never").exists()


def test_as_a_folder(hub: Hub, bottega: Bottega, repo: tuple[str, Repo], files: dict[str, bytes]):
    name, there = repo
    there.files |= {"record.json": b'{"verb": "train"}', "step.json": b"{}"}
    there.card = {"license": "other", "license_name": "workshop-1.0"}
    there.tags = ["license:other"]
    data = bottega("hub", "pull", name, "--out", "models/mine", "--json", "--quiet").json()
    folder = bottega.home / "models" / "mine"
    record = read_record(folder)
    assert record is not None and record.verb == "hub pull" and record.metrics == data
    assert data["licence"] == "other (workshop-1.0)" and data["commit"] == there.sha() and data["repository"] == name
    found = read_folder(folder)
    assert found.pop("record.json") != there.files["record.json"]
    assert found == {**files, "origin-record.json": b'{"verb": "train"}', "origin-step.json": b"{}"}
    assert data["files"]["LICENSE"] == {"bytes": 15, "sha256": sha256(files["LICENSE"]).hexdigest()}
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in folder.iterdir())
    assert not partial_path(folder).exists() and not list(folder.glob(".*"))
    assert not snapshot(bottega, name, there).exists()
    hub.requests.clear()
    done = bottega("hub", "pull", name, "--out", "models/mine")
    assert done.status == 2 and "models/mine exists already" in done.err and hub.requests == []
    assert bottega("hub", "pull", name, "--out", "models/mine", "--overwrite", "--quiet").status == 0


def test_a_folder_from_the_cache_asks_for_no_file_twice(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    assert bottega("hub", "pull", name, "--quiet").status == 0
    hub.requests.clear()
    assert bottega("hub", "pull", name, "--out", "copy", "--quiet").status == 0
    assert hub.fetched(name) == []
    assert {**read_folder(bottega.home / "copy"), "record.json": b""} == {**there.files, "record.json": b""}
    blob = snapshot(bottega, name, there).joinpath("LICENSE").resolve()
    assert not blob.samefile(bottega.home / "copy" / "LICENSE")  # changing the folder leaves the cache alone


def test_in_a_recipe(hub: Hub, bottega: Bottega, workshop: Workshop, tmp_path: Path):
    """A chain is planned before anything is fetched; a finished pull is skipped without asking the hub."""
    files = make_model(tmp_path / "model", tokenizer=workshop.tokenizer)
    hub.repos["org/chain"] = Repo({**files, "record.json": b"{}"})
    recipe = bottega.home / "chain.yaml"
    recipe.write_text(
        "steps:\n  base: {verb: hub pull, model: org/chain}\n"
        "  said: {verb: generate, model: '${base}', prompt: The, max_new_tokens: 3, temperature: 0}\n"
    )
    planned = bottega("run", "chain.yaml", "--plan", "--json")
    assert [step["done"] for step in planned.json()] == [False, False]
    assert not (bottega.home / "workspace").exists()
    done = bottega("run", "chain.yaml", "--json")
    assert done.json()["steps"]["base"]["repository"] == "org/chain"
    assert len(done.json()["steps"]["said"]["token_ids"]) == 3
    hub.requests.clear()
    again = bottega("run", "chain.yaml")
    assert again.status == 0 and "done already" in again.err and hub.requests == []
    licence = bottega.home / "workspace" / "chain" / "base" / "LICENSE"
    licence.write_text("changed")
    assert bottega("run", "chain.yaml").status == 0 and licence.read_bytes() == files["LICENSE"]


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.faults = [("model.safetensors", "cut", 50_000)]
    assert bottega("hub", "pull", name, "--quiet").status == 0
    ranges = [range_ for file, range_ in hub.fetched(name) if file == "model.safetensors"]
    assert ranges[0] is None and ranges[1] == "bytes=49152-"
    assert read_folder(snapshot(bottega, name, there)) == there.files


def test_a_server_that_begins_anew(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.faults = [("model.safetensors", "cut", 50_000), ("model.safetensors", "ignore range")]
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert read_folder(snapshot(bottega, name, there)) == there.files


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub(bottega: Bottega, repo: tuple[str, Repo], status: int):
    name, there = repo
    there.faults = [("info", status)]
    done = bottega("hub", "pull", name)
    assert done.status == 2 and f"the hub is busy (HTTP status {status})" in done.err and "Try again" in done.err
    assert bottega("hub", "pull", name, "--quiet").status == 0
    there.faults = [("info", status)]
    done = bottega("hub", "pull", name)
    assert done.status == 0 and "using what was fetched before" in done.err


def test_a_file_is_asked_for_again_after_429(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.faults = [("LICENSE", 429)]
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert [file for file, _ in hub.fetched(name)].count("LICENSE") == 2


def test_what_came_before_an_error_is_kept(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.faults = [("model.safetensors", "cut", 50_000), ("model.safetensors", 500)]
    done = bottega("hub", "pull", name)
    assert done.status == 2 and "goes on from there" in done.err and "48.0 KiB of model.safetensors" in done.err
    assert [path.stat().st_size for path in unfinished(bottega, name)] == [49_152]
    assert not snapshot(bottega, name, there).exists()
    plan = bottega("hub", "pull", name, "--plan", "--json").json()
    assert plan["bytes_to_fetch"] == len(there.files["model.safetensors"]) - 49_152
    hub.requests.clear()
    assert bottega("hub", "pull", name, "--quiet").status == 0
    assert hub.fetched(name)[-1] == ("model.safetensors", "bytes=49152-") and unfinished(bottega, name) == []


@pytest.mark.parametrize(("kind", "out"), [(signal.SIGINT, True), (signal.SIGKILL, True), (signal.SIGKILL, False)])
def test_stopped_and_taken_up_again(
    hub: Hub, repo: tuple[str, Repo], tmp_path: Path, files: dict[str, bytes], kind: signal.Signals, out: bool
):
    name, there = repo
    there.delay = 0.1  # of each 16 KiB
    words = ["hub", "pull", name, *(["--out", "mine"] if out else [])]
    environment = {**settings(hub.url, tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "10"}
    command = [sys.executable, "-c", f"import huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = {SMALL_CHUNK}\n"
               "from bottega.cli.main import main; main()", *words]  # fmt: skip
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    store = (
        tmp_path / "mine.partial" / WORK_FOLDER
        if out
        else tmp_path / "hf/hub" / f"models--{name.replace('/', '--')}/blobs"
    )
    part = store / f"{sha256(files['model.safetensors']).hexdigest()}.incomplete"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 30_000):
        time.sleep(0.01)
    process.send_signal(kind)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL), said
    assert kind == signal.SIGKILL or "the same command goes on from there" in said
    size = part.stat().st_size
    assert 30_000 < size < len(files["model.safetensors"]) and not (tmp_path / "mine").exists()
    there.delay = 0.0
    hub.requests.clear()
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("model.safetensors", f"bytes={size}-") in hub.fetched(name)
    folder = tmp_path / "mine" if out else store.parent / "snapshots" / there.sha()
    found = read_folder(folder)
    assert {file: found[file] for file in files} == files


def test_what_shows_that_a_folder_is_whole_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["config.json", "README.md", "tokenizer.json", "model.safetensors"]
    repository = Repository("org/name", "v1", "0" * 40, {})
    linked: list[str] = []
    monkeypatch.setattr("bottega.checkpoint.hub_cache._link", lambda blob, path: linked.append(path.name))
    link_snapshot(repository, [RemoteFile(name, 1, "1" * 40) for name in names], tmp_path)
    assert linked[-1] == "config.json" and sorted(linked) == sorted(names)
    assert (tmp_path / "models--org--name" / "refs" / "v1").read_text() == "0" * 40


def test_a_disk_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    repository = Repository("org/name", None, "0" * 40, {})
    blob = tmp_path / "models--org--name" / "blobs" / ("1" * 40)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x")
    folder = link_snapshot(repository, [RemoteFile("config.json", 1, "1" * 40)], tmp_path)
    assert (folder / "config.json").read_bytes() == b"x" and [path.name for path in folder.iterdir()] == ["config.json"]


def test_files_that_are_ours_are_not_written_over():
    """What a step keeps in the folder it writes (`step.json`, the record) is never a file of the repository."""
    files = [RemoteFile(name, 1, "1" * 40) for name in ("config.json", "record.json", "step.json", "origin-step.json")]
    names = _names(files)
    assert sorted(names) == ["config.json", "origin-record.json", "origin-step.json"]
    assert names["origin-step.json"].name == "step.json"


def test_two_at_once(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    there.delay = 0.2
    environment = settings(hub.url, bottega.home)
    first = subprocess.Popen(
        [sys.executable, "-m", "bottega", "hub", "pull", name, "-q"], env=environment, cwd=bottega.home
    )
    while not unfinished(bottega, name):
        time.sleep(0.01)
    done = bottega("hub", "pull", name)
    assert done.status == 2 and "in use by another process" in done.err
    there.delay = 0.0
    assert first.wait(30) == 0


def test_gated(hub: Hub, bottega: Bottega, repo: tuple[str, Repo], tmp_path: Path):
    name, there = repo
    there.gated, there.locked = "manual", True
    for words in (["hub", "pull", name], ["hub", "pull", name, "--plan"], ["show", name]):
        done = bottega(*words)
        assert done.status == 2 and f"{name} is gated" in done.err
        assert f"https://huggingface.co/{name}" in done.err and "hf auth login" in done.err
    with_token = Bottega(hub.url, tmp_path, HF_TOKEN=TOKEN)
    assert with_token("hub", "pull", name, "--json", "-q").json()["gated"] is True
    there.locked = False
    with_token.close()


def test_offline(hub: Hub, bottega: Bottega, repo: tuple[str, Repo], files: dict[str, bytes]):
    name, there = repo
    assert bottega("hub", "pull", name, "--quiet").status == 0
    for endpoint, environment in ((hub.url, {"HF_HUB_OFFLINE": "1"}), ("http://127.0.0.1:9", {})):
        offline = Bottega(endpoint, bottega.home, **environment)
        done = offline("hub", "pull", name, "--json")
        assert done.json()["commit"] == there.sha()
        plan = offline("hub", "pull", name, "--plan")
        assert "the hub cannot be reached" in plan.out and "using what was fetched before" in plan.out
        out = f"offline-{bool(environment)}"
        assert offline("hub", "pull", name, "--out", out, "-q").status == 0
        found = read_folder(bottega.home / out)
        assert {file: found[file] for file in files} == files
        assert offline("show", name, "--json").status == 0
        for other in ("org/never", f"{name}@v9"):
            done = offline("hub", "pull", other)
            assert done.status == 2 and "the hub cannot be reached" in done.err, done
        offline.close()


def test_offline_half_a_model_is_not_used(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    assert bottega("hub", "pull", name, "--quiet").status == 0
    (snapshot(bottega, name, there) / "model.safetensors").resolve().unlink()
    offline = Bottega(hub.url, bottega.home, HF_HUB_OFFLINE="1")
    for words in (["hub", "pull", name], ["show", name]):
        done = offline(*words)
        assert done.status == 2 and "the hub cannot be reached" in done.err, done
    offline.close()
    assert bottega("hub", "pull", name, "--quiet").status == 0  # online it is mended


def test_a_damaged_file_in_the_cache_is_fetched_anew(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, there = repo
    assert bottega("hub", "pull", name, "--quiet").status == 0
    blob = (snapshot(bottega, name, there) / "model.safetensors").resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = bottega("hub", "pull", name)
    assert done.status == 0 and "model.safetensors is damaged in the cache" in done.err
    assert blob.read_bytes() == content


def test_progress_is_the_projects_own(bottega: Bottega, repo: tuple[str, Repo]):
    name, _ = repo
    done = bottega("hub", "pull", name)
    assert f"fetch {name}:" in done.err and "B/s" in done.err and "%|" not in done.err
    assert "apache-2.0" in done.out and "all checked" in done.out


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "org/na me", "org/name@../x", "org/name@", "-org/name@x y"])
def test_names_that_are_none(bottega: Bottega, hub: Hub, name: str):
    hub.requests.clear()
    done = bottega("hub", "pull", "--", name)
    assert done.status == 2 and "Write it as ORG/NAME[@REVISION]" in done.err and hub.requests == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from bottega.cli.main import main

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    os.makedirs("folder")  # noqa: PTH103
    for words in ("pull org/name", "list", "rm org/name", "push folder org/name"):
        monkeypatch.setattr("sys.argv", ["bottega", "hub", *words.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and "pip install 'bottega[hub]'" in capsys.readouterr().err


def test_a_plan_of_another_verb_fetches_no_weights(hub: Hub, bottega: Bottega, repo: tuple[str, Repo]):
    name, _ = repo
    planned = bottega("show", name, "--plan")
    assert planned.status == 2 and "a plan fetches nothing" in planned.err and f"hub pull {name}" in planned.err
    assert not [path for path in hub.requests if path[1].endswith(".safetensors")]
    assert bottega("show", name, "--json", "--quiet").json()["parameters"]["total"] > 0  # run, it is fetched
    assert bottega("show", name, "--plan").status == 0  # and then it can be planned
