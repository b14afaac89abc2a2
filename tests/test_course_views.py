"""Interactive views: what they show is what the model computes, and their process answers every request."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega.core.errors import UserError
from bottega.core.view import Bars, Block, Heat, Spans, Table, Tree
from bottega.course.check.lesson import views
from bottega.course.lab import block_data, block_from, load_module
from bottega.course.lab_facts import read_facts
from bottega.course.library import load_course
from bottega.course.views import VIEWS, view_path
from bottega.course.views.models import Models
from bottega.web.course.views import ViewProcess


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOTTEGA_WORKSPACE", str(tmp_path_factory.mktemp("views")))
        yield Models()


def shown(models: Models, view: str, **params: Any) -> list[Block]:
    module = load_module(view_path(view))
    return list(module.show(module.Params.parse(params), models))


def one(blocks: list[Block], kind: type) -> Any:
    return next(block for block in blocks if isinstance(block, kind))


def test_the_list_is_whole() -> None:
    course = load_course()
    assert views() == tuple(VIEWS) and set(VIEWS.values()) <= set(course.chapters)
    files = {path.stem for path in view_path("merges").parent.glob("*.py")} - {"__init__", "models", "process"}
    assert files == {view_path(name).stem for name in VIEWS}
    for name in VIEWS:
        facts = read_facts(view_path(name), has_budget=False)
        assert facts.title and facts.about and all(setting.about for setting in facts.settings)
        defaults = {setting.name: setting.default for setting in facts.settings}
        assert load_module(view_path(name)).Params().as_data() == defaults  # pages read them without running the file
        assert "torch" not in {
            alias.name for node in ast.parse(view_path(name).read_text("utf-8")).body if isinstance(node, ast.Import)
            for alias in node.names
        }  # fmt: skip
    with pytest.raises(UserError, match="there is no view 'merge'"):
        view_path("merge")


def test_tokens_join_as_merges_are_learned(models: Models) -> None:
    counts = []
    for merges in (0, 20, 200):
        spans = one(shown(models, "merges", text="the little fox 漢", merges=merges), Spans)
        counts.append(int(spans.title.partition(" in ")[2].split()[0]))
        assert "".join(text for text, _ in spans.spans) == "the little fox 漢"
    assert counts[0] == len("the little fox 漢".encode()) and all(a > b for a, b in pairwise(counts))


def test_attention_looks_back_and_adds_up_to_one(models: Models) -> None:
    heat = one(shown(models, "attention", text="once upon a time there was", stage="new", layer=1), Heat)
    assert list(heat.rows) == ["<|story|>", "once", "upon", "a", "time", "there", "was"]
    for row, values in enumerate(heat.values):
        assert values[row + 1 :] == [None] * (6 - row) and sum(values[: row + 1]) == pytest.approx(1, abs=1e-5)
    other = one(shown(models, "attention", text="once upon a time there was", stage="new", layer=1, head=2), Heat)
    assert other.values != heat.values
    with pytest.raises(UserError, match="no word 'hello'"):
        shown(models, "attention", text="hello world", stage="new")
    with pytest.raises(UserError, match="too many"):
        shown(models, "attention", text="a " * 200, stage="new")


def test_the_last_layer_of_the_lens_is_the_model(models: Models) -> None:
    heat = one(shown(models, "logit-lens", text="once upon a time", stage="new"), Heat)
    ids, words = models.read("once upon a time")
    says = models.decoder("new")(torch.tensor([ids]))[0].softmax(-1).max(-1)
    assert list(heat.rows) == words and list(heat.columns) == ["embedding", "layer 1", "layer 2"]
    assert [row[-1] for row in heat.values] == pytest.approx(says.values.tolist(), abs=1e-5)
    assert [row[-1] for row in heat.texts] == [models.tokenizer().token_text(int(each)) for each in says.indices]


def test_the_explorer_shows_what_is_cut_and_what_the_search_kept(models: Models) -> None:
    blocks = shown(models, "decoding", stage="new", top_k=3, beams=2, depth=3)
    bars = one(blocks, Bars).bars
    assert sum(bar.value > 0 for bar in bars) == 3 and sum("cut by top_k" in bar.name for bar in bars) == len(bars) - 3
    assert sum(bar.value for bar in bars) == pytest.approx(1, abs=1e-6)
    assert sum("← drawn" in bar.name for bar in bars) == 1
    tree = one(blocks, Tree)
    ids, _ = models.read("once upon a time there was a")
    way, node = [], next(i for i, b in enumerate(tree.branches) if _depth(tree, i) == 3 and b.kept)
    total = tree.branches[node].value
    while node > 0:
        way.append(models.tokenizer().id_of(tree.branches[node].text))
        node = tree.branches[node].parent
    log_probs = models.decoder("new")(torch.tensor([[*ids, *way[::-1]]]))[0].log_softmax(-1).detach()
    expected = sum(float(log_probs[len(ids) - 1 + at, token]) for at, token in enumerate(way[::-1]))
    assert total == pytest.approx(expected, abs=0.01)


def _depth(tree: Tree, at: int) -> int:
    return 0 if tree.branches[at].parent < 0 else 1 + _depth(tree, tree.branches[at].parent)


def test_the_middle_of_the_landscape_is_the_model(models: Models) -> None:
    heat = one(shown(models, "loss-landscape", stage="new", points=5, span=2.0), Heat)
    assert heat.values[2][2] == pytest.approx(4.4, abs=0.1)  # ln 85, of a model that knows nothing
    assert heat.values == one(shown(models, "loss-landscape", stage="new", points=5, span=2.0), Heat).values
    assert max(map(max, heat.values)) > heat.values[2][2]


@pytest.mark.slow
def test_trained_models_have_a_basin_and_a_rank(models: Models) -> None:
    """Half of the move that fine-tuning makes lies in few directions; the whole in all of them."""
    heat = one(shown(models, "loss-landscape", points=7), Heat)
    assert heat.values[3][3] < 0.5 and heat.values[0][0] > 2
    table = one(shown(models, "lora-rank", rank=64), Table)
    assert table.rows[0][1] == "100.0 %"
    few = one(shown(models, "lora-rank", rank=8), Table)
    assert float(few.rows[0][1].split()[0]) > 100 * 8 / 64  # more than a random move has


def test_blocks_survive_their_way_through_the_process(models: Models) -> None:
    for view, params in (("attention", {"text": "once", "stage": "new"}), ("decoding", {"stage": "new"})):
        for block in shown(models, view, **params):
            sent = json.dumps(block_data(block))
            assert json.dumps(block_data(block_from(json.loads(sent)))) == sent


def test_the_process_answers_wrong_requests_too(tmp_path: Path) -> None:
    requests = [
        {"view": "merges", "params": {"merges": 3}}, {"view": "none", "params": {}},
        {"view": "merges", "params": {"merges": 1000}}, {"view": "merges", "params": {"text": "x"}},
    ]  # fmt: skip
    command = [sys.executable, "-m", "bottega.course.views.process"]
    lines = "".join(json.dumps(each) + "\n" for each in requests)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(answer) for answer in answers] == [["blocks"], ["error", "hint"], ["error", "hint"], ["blocks"]]
    assert "no view 'none'" in answers[1]["error"] and "merges" in answers[2]["error"]


def test_a_process_that_died_is_started_again(tmp_path: Path) -> None:
    async def ask() -> None:
        process = ViewProcess(tmp_path)
        assert "blocks" in await process.ask("merges", {"merges": 1})
        assert process._process is not None
        first = process._process.pid
        process._process.kill()
        await process._process.wait()
        assert "blocks" in await process.ask("merges", {"merges": 2})
        assert process._process.pid != first
        task = asyncio.create_task(process.ask("merges", {"merges": 300}))
        await asyncio.sleep(0.01)
        task.cancel()  # the page was left: its answer must not become that of the next one
        with pytest.raises(asyncio.CancelledError):
            await task
        answer = await process.ask("merges", {"merges": 0, "text": "ab"})
        assert answer["blocks"][0]["title"].startswith("2 bytes in 2 tokens")
        await process.stop()
        assert process._process is None

    asyncio.run(ask())


def test_models_are_looked_for_in_the_servers_own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`learn --workspace X` says where the course's models are, whatever the environment says."""
    monkeypatch.setenv("BOTTEGA_WORKSPACE", str(tmp_path / "another"))

    async def ask() -> dict[str, Any]:
        process = ViewProcess(tmp_path / "mine")
        answer = await process.ask("attention", {"text": "once upon", "stage": "new"})
        await process.stop()
        return answer

    assert "blocks" in asyncio.run(ask())
    assert list((tmp_path / "mine" / "course" / "models").glob("new-*")) and not (tmp_path / "another").exists()
