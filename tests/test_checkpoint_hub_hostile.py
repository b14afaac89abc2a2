"""A hub that means harm: names that lead elsewhere, contents that are not what was announced, answers that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bottega.checkpoint.hub_repository import belongs, parse_name
from hub_server import TOKEN, Bottega, Hub, Repo, make_model, read_folder, running_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


@pytest.fixture(scope="module")
def bottega(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottega]:
    process = Bottega(hub.url, tmp_path_factory.mktemp("hostile") / "home")
    yield process
    process.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def repo(hub: Hub, files: dict[str, bytes]) -> Repo:
    hub.repos.clear()
    hub.repos["org/evil"] = Repo(dict(files))
    return hub.repos["org/evil"]


def entry(name: Any, size: Any = 2, digest: Any = "0" * 40) -> dict[str, Any]:
    return {"rfilename": name, "size": size, "blobId": digest}


def everything(bottega: Bottega) -> list[Path]:
    return sorted(bottega.home.parent.rglob("*"))


@pytest.mark.parametrize(
    "words", [["hub", "pull", "org/evil"], ["hub", "pull", "org/evil", "--out", "mine"], ["show", "org/evil"]]
)
@pytest.mark.parametrize(
    "name",
    [
        "../evil.json", "a/../../evil.json", "/etc/evil.json", "./config.json", "a//b.json", "", ".", "..", "a/",
        "..\\evil.json", "\\\\host\\share\\evil.json", "C:evil.json", "C:/evil.json", "a\0.json", "a\n.json",
        "a\x1b[2J.json", "con.json", "AUX.json", "lpt1.model", "NUL.safetensors",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(
    bottega: Bottega, hub: Hub, repo: Repo, name: str, words: list[str]
):
    repo.listed = [entry(name)]
    hub.requests.clear()
    before = everything(bottega)
    done = bottega(*words)
    assert done.status == 2 and repr(name) in done.err and "Traceback" not in done.err, done
    assert everything(bottega) == before and hub.fetched("org/evil") == []


@pytest.mark.parametrize(
    "name", ["notes on it.json", "weights:latest.json", "ünlü.json", "deep/er/config.json", "-rf.json", ".env.json"]
)
def test_odd_names_are_left_where_they_are(bottega: Bottega, repo: Repo, files: dict[str, bytes], name: str):
    assert not belongs(name)
    repo.files[name] = b"{}"
    data = bottega("hub", "pull", "org/evil", "--json", "-q").json()
    assert read_folder(Path(data["path"])) == files


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (entry("more.json", None), "does not tell the size and the hash of more.json"),
        (entry("more.json", -1), "does not tell"),
        (entry("more.json", 2.5), "does not tell"),
        (entry("more.json", True), "does not tell"),
        (entry("more.json", 2, None), "does not tell"),
        (entry("more.json", 2, "../../../home"), "does not tell"),
        (entry("more.json", 2, "0" * 41), "does not tell"),
        (entry("more.json", 1 << 40), "more.json has 1.0 TiB, which is more than can be fetched"),
        (entry("more.safetensors", 1 << 60), "more.safetensors has 1048576.0 TiB"),
        (entry("config.json"), "names a file 'config.json', twice"),
        (entry(7), "names a file 7"),
        ({"rfilename": "x.json", "lfs": {"size": 1}}, "cannot be understood"),
        ({"rfilename": "x.json", "lfs": {"size": 1, "sha256": "..", "pointerSize": 1}}, "does not tell"),
        ({}, "cannot be understood"),
        ("model.safetensors", "cannot be understood"),
    ],
)  # fmt: skip
def test_listings_that_cannot_be_right(bottega: Bottega, repo: Repo, listed: Any, said: str):
    repo.listed = [listed]
    before = everything(bottega)
    done = bottega("hub", "pull", "org/evil")
    assert done.status == 2 and said in done.err, done
    assert everything(bottega) == before


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"sha": "../../../../evil"}, "names no commit but '../../../../evil'"),
        ({"sha": None}, "names no commit"),
        ({"sha": ["x"]}, "names no commit"),
        ({"siblings": 5}, "cannot be understood"),
        ({"lastModified": 5}, "cannot be understood"),
        ({"tags": ["license:\x1b[2Jfree"]}, ""),
        ({"cardData": {"license": {"a": 1}}, "tags": [1, None]}, ""),
        ({"cardData": [1], "gated": {"x": 1}, "tags": None}, ""),
    ],
)
def test_answers_that_are_none(bottega: Bottega, repo: Repo, answer: dict[str, Any], said: str):
    repo.answer = answer
    done = bottega("hub", "pull", "org/evil", "--plan")
    assert (done.status, said in done.err) == (2 if said else 0, True), done
    assert "\x1b" not in done.out + done.err


def test_more_files_than_any_model_has(bottega: Bottega, repo: Repo):
    repo.listed = [{"rfilename": f"{number}.txt"} for number in range(50_001)]
    done = bottega("hub", "pull", "org/evil")
    assert done.status == 2 and "more than 50000 files" in done.err


@pytest.mark.parametrize("out", [False, True])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "LICENSE"])
@pytest.mark.parametrize("kind", ["changed", "longer", "shorter", "empty"])
def test_contents_that_were_not_announced_are_refused(
    hub: Hub, bottega: Bottega, repo: Repo, kind: str, file: str, out: bool
):
    right = repo.files[file]
    repo.served[file] = {
        "changed": bytes([right[0] ^ 1]) + right[1:],
        "longer": right + b"x",
        "shorter": right[:-1],
        "empty": b"",
    }[kind]
    name = f"org/{kind}-{file.partition('.')[0].lower()}-{out}".lower()
    bottega.home.joinpath("out").mkdir(exist_ok=True)
    hub.repos[name] = repo
    before = [path for path in everything(bottega) if path.is_file()]
    words = ["hub", "pull", name, *(["--out", f"out/{name[4:]}"] if out else [])]
    said = {
        "changed": f"{file} is not what the hub announced",
        "longer": f"{file} is larger than the {len(right)} bytes that the hub announced",
        "shorter": f"{len(right) - 1} of {len(right)} bytes came",
        "empty": f"0 of {len(right)} bytes came",
    }[kind]
    for _ in range(2):  # what was left by the first attempt makes the second no better
        done = bottega(*words)
        assert done.status == 2 and (said in done.err or "HTTP status 416" in done.err), done
    after = [path for path in everything(bottega) if path.is_file()]
    new = {path.name for path in after if path not in before}
    wrong = {path for path in after if path not in before and path.read_bytes() == repo.served[file]}
    assert not {path for path in wrong if path.suffix != ".incomplete"}
    assert file not in new and not (bottega.home / "out" / name[4:]).exists()
    repo.served.clear()
    assert bottega(*words, "-q").status == 0


def test_a_wrong_beginning_is_found_and_all_is_fetched_anew(hub: Hub, bottega: Bottega, repo: Repo):
    """An interrupted run left bytes that are not the file's: the whole is wrong, so it is fetched once more."""
    hub.repos["org/begun"] = repo
    repo.faults = [("model.safetensors", "cut", 50_000), ("model.safetensors", 500)]
    assert bottega("hub", "pull", "org/begun").status == 2
    (part,) = (bottega.cache / "models--org--begun" / "blobs").glob("*.incomplete")
    part.write_bytes(bytes(len(part.read_bytes())))
    hub.requests.clear()
    assert bottega("hub", "pull", "org/begun", "-q").status == 0
    assert [range_ for _, range_ in hub.fetched("org/begun")] == ["bytes=49152-", None]
    part.with_suffix("").write_bytes(b"")
    data = bottega("hub", "pull", "org/begun", "--json", "-q").json()
    assert read_folder(Path(data["path"])) == repo.files


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "../../../../../etc/passwd"}}, "not a file name beside the index"),
        ({"weight_map": {"a": "/etc/passwd"}}, "not a file name beside the index"),
        ({"weight_map": {"a": "model-2.safetensors"}}, "which the repository does not have"),
        ({"weight_map": {"a": "weights.pkl"}}, "'weights.pkl', which the repository does not have"),
        ({"weight_map": 5}, "has no weight_map"),
        ("[", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_indexes_that_lead_elsewhere(bottega: Bottega, repo: Repo, index: Any, said: str):
    del repo.files["model.safetensors"]
    repo.files |= {
        "weights.pkl": b"",
        "model.safetensors.index.json": (index if isinstance(index, str) else json.dumps(index)).encode(),
    }
    for words in (["hub", "pull", "org/evil"], ["hub", "pull", "org/evil", "--out", "mine"], ["show", "org/evil"]):
        done = bottega(*words)
        assert done.status == 2 and said in done.err, done
    assert not list(bottega.home.glob("mine*"))


def test_hostile_files_are_files(bottega: Bottega, repo: Repo):
    """A record, a card and a config from elsewhere are read as data, and shown without control characters."""
    repo.files |= {
        "record.json": b"[" * 50_000,
        "README.md": b"---\nlicense: !!python/object/apply:os.system ['touch owned']\n---\n",
        "config.json": b'{"model_type": "\\u001b[2J[bold]x[/bold]", "hidden_size": 1e999}',
        "tokenizer_config.json": b"\xff",
    }
    done = bottega("hub", "pull", "org/evil", "--out", "hostile", "-q")
    assert done.status == 0 and "not stated" in done.out, done
    assert not (bottega.home / "owned").exists()
    assert "\x1b" not in bottega("hub", "pull", "org/evil", "--plan").out
    assert bottega("hub", "pull", "org/evil", "-q").status == 0
    listed = bottega("hub", "list")
    assert listed.status == 0 and "not supported" in listed.out


def test_the_token_goes_to_the_hub_only(hub: Hub, repo: Repo, tmp_path: Path):
    with running_hub() as other:
        other.repos["org/evil"] = repo
        repo.redirect = other.url
        with_token = Bottega(hub.url, tmp_path, HF_TOKEN=TOKEN)
        assert with_token("hub", "pull", "org/evil", "-q").status == 0
        with_token.close()
        assert len(other.requests) >= len(repo.files) and set(other.tokens) == {None}
        assert f"Bearer {TOKEN}" in hub.tokens


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("org/name", ("org/name", None)),
        ("org/name@main", ("org/name", "main")),
        ("org/name@refs/pr/1", ("org/name", "refs/pr/1")),
        ("org/n.a-me_2@v1.0", ("org/n.a-me_2", "v1.0")),
        ("org/name@../../x", None), ("org/name@/x", None), ("org/name@a//b", None), ("org/name@a/..", None),
        ("org/..", None), ("../name", None), ("org/name@", None), ("name", None), ("org/name\n", None),
    ],
)  # fmt: skip
def test_names_of_models(text: str, parsed: tuple[str, str | None] | None):
    assert parse_name(text) == parsed
