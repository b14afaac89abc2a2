"""`hub push`: what goes up and what stays, licences, tokens, one commit, and going on after a failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottega.checkpoint.hub_content import without_paths
from bottega.core.record import Record, read_record
from hub_server import TOKEN, Bottega, Hub, Repo, make_model, read_folder, running_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


@pytest.fixture(scope="module")
def bottega(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottega]:
    process = Bottega(hub.url, tmp_path_factory.mktemp("home"), HF_TOKEN=TOKEN)
    yield process
    process.close()


@pytest.fixture(autouse=True)
def empty(hub: Hub) -> None:
    hub.repos.clear()
    hub.large.clear()
    hub.requests.clear()
    hub.upload_faults.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model(tmp_path / "model")
    return tmp_path / "model"


def recorded(folder: Path, home: Path = Path("/home/me"), **inputs: Path) -> None:
    """Give the folder a record as `train` writes it."""
    config = {
        "out": str(folder),
        "data": "/data/me/tokens",
        "learning_rate": 0.001,
        "notes": f"see {home}/notes",
    }
    entries = {name: {"path": str(path), "sha256": "0" * 64} for name, path in inputs.items()}
    record = Record("train", 1, "1" * 64, {**config, **{name: str(path) for name, path in inputs.items()}}, entries)
    record.metrics = {"loss": 1.5, "reason": "a/b is a ratio", "checkpoint": "/data/me/checkpoint-3"}
    record.write(folder)


def test_a_model_goes_up_and_comes_back(hub: Hub, bottega: Bottega, folder: Path):
    recorded(folder, bottega.home)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / ".work").mkdir()
    (folder / ".work" / "state.safetensors").write_bytes(b"x")
    (folder / "optimizer.safetensors").write_bytes(b"x")
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / "secrets.env").write_text("x")
    data = bottega("hub", "push", folder, "me/mine", "--message", "First", "--json", "-q").json()
    there = dict(hub.repos["me/mine"].files)
    expected = read_folder(folder)
    for name in ("metrics.jsonl", "optimizer.safetensors", "training_args.bin", "secrets.env"):
        assert expected.pop(name) and name not in there
    record = there.pop("record.json")
    assert expected.pop("record.json") != record
    assert {name: content for name, content in there.items() if name != ".gitattributes"} == expected
    assert not any(str(path).encode() in record for path in ("/data", bottega.home, folder, folder.parent))
    assert data["commit"] == hub.repos["me/mine"].branches["main"] and data["kind"] == "model"
    assert data["files"]["model.safetensors"] == len(expected["model.safetensors"])
    back = bottega("hub", "pull", "me/mine", "--out", folder.parent / "back", "--json", "-q").json()
    assert back["commit"] == data["commit"]
    found = read_folder(folder.parent / "back")
    assert {name: found[name] for name in expected} == expected and found["origin-record.json"] == record
    assert bottega("show", folder.parent / "back", "--json").json()["licence"] == "apache-2.0"


def test_the_plan_says_what_goes_and_what_stays_and_asks_nothing(hub: Hub, bottega: Bottega, folder: Path):
    recorded(folder)
    (folder / ".work").mkdir()
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "notes.txt").write_text("x")
    plan = bottega("hub", "push", folder, "me/mine", "--plan", "--json").json()
    assert plan["kind"] == "model" and plan["warnings"] == [] and hub.requests == []
    assert plan["files"]["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    assert set(plan["left_out"]) == {".work", "metrics.jsonl", "notes.txt"}
    shown = bottega("hub", "push", folder, "me/mine", "--private", "--plan").out
    assert "without paths of this machine" in shown and "stays here" in shown and "if it is new: private" in shown
    assert {check["name"]: check["passed"] for check in plan["checks"]} == {"folder": True, "token": True}


def test_paths_in_records_are_shortened(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    record = Record("eval", 1, "", {"out": "runs/eval", "model": "runs/base", "text": "say /this\nor that"}, {})
    record.inputs = {"model": {"path": "runs/base", "sha256": "1"}}
    record.metrics = {"a": ["/x/y", "C:\\Users\\me\\z", "~/w", "plain", "in /home/me/there"], "b": 1.5}
    data = without_paths(record)
    assert data["inputs"] == {"model": {"path": "base", "sha256": "1"}}
    assert data["config"] == {"out": "eval", "model": "base", "text": "say /this\nor that"}
    assert data["metrics"] == {"a": ["y", "z", "w", "plain", "in ~/there"], "b": 1.5}
    assert record.inputs["model"]["path"] == "runs/base"
    monkeypatch.setenv("HOME", "/")
    assert without_paths(record)["metrics"]["a"][4] == "in /home/me/there"


def test_licences(bottega: Bottega, folder: Path, tmp_path: Path):
    parent = tmp_path / "base"
    make_model(parent)
    (parent / "NOTICE").write_text("keep me")
    (parent / "README.md").write_text("---\nlicense: other\nlicense_name: workshop-1.0\n---\n")
    recorded(folder, model=parent)

    def warnings() -> list[str]:
        return bottega("hub", "push", folder, "me/mine", "--plan", "--json").json()["warnings"]

    assert warnings() == [
        "its parent base is under other (workshop-1.0), this says apache-2.0", "NOTICE of its parent base is not kept",
    ]  # fmt: skip
    (folder / "README.md").write_text("# no front matter\n")
    (folder / "NOTICE").write_text("keep me")
    first, second = warnings()
    assert first.startswith("the licence is not stated") and second.endswith("this says nothing")
    (folder / "README.md").write_text((parent / "README.md").read_text())
    assert warnings() == []
    done = bottega("hub", "push", folder, "me/mine", "--plan")
    assert "warning" not in done.out
    (folder / "README.md").unlink()
    assert "warning: the licence is not stated" in bottega("hub", "push", folder, "me/mine", "--plan").out
    assert "warning: the licence is not stated" in bottega("hub", "push", folder, "me/mine").err


def test_the_licence_of_a_parent_that_the_card_names(hub: Hub, bottega: Bottega, folder: Path, tmp_path: Path):
    files = make_model(tmp_path / "base", seed=1)
    hub.repos["org/base"] = Repo({**files, "README.md": b"---\nlicense: llama3.1\n---\n", "USE_POLICY.md": b"p"})
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: [org/base, ../x, 5]\n---\n")
    assert bottega("hub", "push", folder, "me/mine", "--plan", "--json").json()["warnings"] == []
    assert bottega("hub", "pull", "org/base", "-q").status == 0
    assert bottega("hub", "push", folder, "me/mine", "--plan", "--json").json()["warnings"] == [
        "its parent org/base is under llama3.1, this says mit", "USE_POLICY.md of its parent org/base is not kept",
    ]  # fmt: skip


def test_paths_in_settings_are_warned_of(bottega: Bottega, tmp_path: Path):
    import torch

    from bottega.checkpoint.writer import write_tensors

    folder = tmp_path / "adapter"
    write_tensors(folder, {"base_model.model.q.lora_A.weight": torch.zeros(2, 4)})
    done = bottega("hub", "push", folder, "me/adapter")
    assert done.status == 2 and "is no model, adapter or tokenizer" in done.err
    config = {"peft_type": "LORA", "base_model_name_or_path": "/home/me/base", "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    done = bottega("hub", "push", folder, "me/adapter")
    assert done.status == 2 and "has no adapter_model.safetensors" in done.err
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    plan = bottega("hub", "push", folder, "me/adapter", "--plan", "--json").json()
    assert plan["kind"] == "adapter" and set(plan["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    said = "adapter_config.json names a path of this machine (base_model_name_or_path: /home/me/base)"
    assert said in plan["warnings"]


def test_a_tokenizer(hub: Hub, bottega: Bottega, folder: Path):
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / name).unlink()
    assert bottega("hub", "push", folder, "me/tok", "--json", "-q").json()["kind"] == "tokenizer"
    assert {"tokenizer.json", "README.md", "LICENSE"} <= set(hub.repos["me/tok"].files)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "too short for a safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "config.json").write_text("{}"), "lacks model_type"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickles (.bin)"),
        (lambda folder: (folder / "step.json").write_text("{}"), "is unfinished"),
        (lambda folder: (folder / "record.json").write_text("{}"), "is not a record"),
        (lambda folder: [path.unlink() for path in folder.glob("*.json")], "is no model, adapter or tokenizer"),
        (lambda folder: (folder / "vocab.json").symlink_to("/etc/hostname"), "is a link that leads out of the folder"),
        (lambda folder: (folder / "LICENSE.txt").symlink_to("../secret"), "is a link that leads out of the folder"),
    ],
)
def test_folders_that_are_none(hub: Hub, bottega: Bottega, folder: Path, spoil, said: str):
    (folder.parent / "secret").write_text("x")
    spoil(folder)
    for words in ([], ["--plan"]):
        done = bottega("hub", "push", folder, "me/mine", *words)
        assert done.status == 2 and said in done.err, done
    assert hub.requests == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "me/mine"], "there is no folder nowhere"),
        (["{folder}", "mine"], "Write it as ORG/NAME"),
        (["{folder}", "me/mine@main"], "Pass --revision main"),
        (["{folder}", "me/mine", "--revision", "../x"], "is not the name of a branch"),
        (["{folder}"], "'repository' is required"),
    ],
)
def test_words_that_are_wrong(hub: Hub, bottega: Bottega, folder: Path, words: list[str], said: str):
    done = bottega("hub", "push", *(word.format(folder=folder) for word in words))
    assert done.status == 2 and said in done.err, done
    assert hub.requests == []


def test_without_a_token_or_a_connection(hub: Hub, folder: Path, tmp_path: Path):
    process = Bottega(hub.url, tmp_path / "home", HF_HUB_OFFLINE="1")
    done = process("hub", "push", folder, "me/mine")
    assert done.status == 2 and "token: there is none" in done.err and "hf auth login" in done.err
    assert "HF_HUB_OFFLINE is set" in done.err and hub.requests == []
    plan = process("hub", "push", folder, "me/mine", "--plan")
    assert plan.status == 2 and "model.safetensors" in plan.out
    process.close()
    wrong = Bottega(hub.url, tmp_path / "other", HF_TOKEN="hf_wrong")
    done = wrong("hub", "push", folder, "me/mine")
    assert done.status == 2 and "HTTP status 401" in done.err and "hf auth login" in done.err
    wrong.close()


def test_a_namespace_of_somebody_else(bottega: Bottega, folder: Path):
    done = bottega("hub", "push", folder, "others/mine")
    assert done.status == 2 and "does not allow it (HTTP status 403)" in done.err and "token" in done.err


def test_after_a_failure_what_was_uploaded_is_not_sent_again(hub: Hub, bottega: Bottega, tmp_path: Path):
    make_model(tmp_path / "model", shards=True)
    shards = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 2
    hub.upload_faults = [400]
    done = bottega("hub", "push", tmp_path / "model", "me/mine")
    assert done.status == 2 and "HTTP status 400" in done.err
    assert set(hub.repos["me/mine"].files) == {".gitattributes"}  # no half of a model is ever seen
    hub.upload_faults = []
    assert bottega("hub", "push", tmp_path / "model", "me/mine", "-q").status == 0
    hub.requests.clear()
    done = bottega("hub", "push", tmp_path / "model", "me/mine")
    assert done.status == 0 and [path for method, path, _ in hub.requests if method == "PUT"] == []
    assert set(shards) <= set(hub.repos["me/mine"].files)


def test_a_model_replaces_the_weights_of_the_one_before(hub: Hub, bottega: Bottega, tmp_path: Path):
    first = make_model(tmp_path / "first", shards=True)
    second = make_model(tmp_path / "second")
    assert bottega("hub", "push", tmp_path / "first", "me/mine", "-q").status == 0
    hub.repos["me/mine"].files["notes.md"] = b"mine"
    done = bottega("hub", "push", tmp_path / "second", "me/mine", "--json", "-q")
    gone = sorted(name for name in first if name.startswith("model"))
    assert done.json()["removed"] == gone
    assert hub.repos["me/mine"].files == {**second, ".gitattributes": b"", "notes.md": b"mine"}


def test_a_branch(hub: Hub, bottega: Bottega, folder: Path):
    for _ in range(2):
        data = bottega("hub", "push", folder, "me/mine", "--revision", "try/1", "--json", "-q").json()
        assert data["revision"] == "try/1" and "try/1" in hub.repos["me/mine"].branches
    assert any(path.endswith("/commit/try/1") for _, path, _ in hub.requests)


def test_private_is_never_public(hub: Hub, bottega: Bottega, folder: Path):
    assert bottega("hub", "push", folder, "me/secret", "--private", "-q").status == 0
    assert hub.repos["me/secret"].private
    hub.repos["me/open"] = Repo({".gitattributes": b""})
    done = bottega("hub", "push", folder, "me/open", "--private")
    assert done.status == 2 and "me/open exists and is public" in done.err
    assert set(hub.repos["me/open"].files) == {".gitattributes"}


def test_a_snapshot_of_the_cache_can_be_pushed(hub: Hub, bottega: Bottega, folder: Path):
    hub.repos["org/base"] = Repo(read_folder(folder))
    path = bottega("hub", "pull", "org/base", "--json", "-q").json()["path"]
    assert bottega("hub", "push", path, "me/copy", "-q").status == 0
    assert {**read_folder(folder), ".gitattributes": b""} == hub.repos["me/copy"].files


def test_the_record_that_came_along_can_be_read(folder: Path):
    recorded(folder)
    record = read_record(folder)
    assert record is not None
    Record(**without_paths(record))
