"""The travelling model is an ordinary model folder, is made once, and learns what the chapters say that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bottega.course import companion as made
from bottega.course import world
from bottega.course.toolchain import follow_training
from bottega.model.load import load_decoder
from bottega.tokenizer.tokenizer import Tokenizer


def test_the_new_model_opens_in_transformers_with_equal_logits(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = made.companion("new", tmp_path)
    story = next(world.stories(0, 1))
    ids = Tokenizer.load(folder).encode(story.text)
    assert len(ids) == len(story.words)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.encode(story.text, add_special_tokens=False) == ids
    assert Tokenizer.load(folder).decode(ids) == theirs.decode(ids) == story.text
    tokens = torch.tensor([ids])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
        torch.testing.assert_close(load_decoder(folder)(tokens), expected, atol=1e-5, rtol=1e-5)
    assert 100_000 < sum(each.numel() for each in load_decoder(folder).parameters()) < 110_000


def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made.companion("new", tmp_path)
    monkeypatch.setattr(made, "new_model", lambda *_: pytest.fail("it is there already"))
    assert made.companion("new", tmp_path) == first


def test_training_is_followed_row_by_row(tmp_path: Path) -> None:
    data = made.write_rows(tmp_path / "data.jsonl", made.story_rows(0, 300))
    settings = {**made.training("small"), "max_steps": 8, "model": str(made.companion("new", tmp_path))}
    rows = list(follow_training({**settings, "data": str(data), "out": str(tmp_path / "run")}))
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows == [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    with pytest.raises(Exception, match="there is no"):
        list(follow_training({**settings, "data": str(tmp_path / "none"), "out": str(tmp_path / "other")}))


@pytest.mark.parametrize("rows", [made.question_rows, made.pair_rows])
def test_rows_are_repeatable_and_of_known_words(rows) -> None:
    found = list(rows(3, 20))
    assert found == list(rows(3, 20))
    known = {*world.vocabulary(), *world.SPECIAL}
    texts = json.dumps(found)
    for message in (m for row in found for part in row.values() for m in part):
        assert set(message["content"].split()) <= known
    assert "{" not in texts.replace("[{", "").replace(", {", "").replace('": {', "")


@pytest.mark.slow
def test_the_stages_reach_what_they_are_for(tmp_path: Path) -> None:
    folders = {kind: made.companion(kind, tmp_path) for kind in ("small", "pretrained", "fine-tuned", "aligned")}
    floor = world.entropy_per_story()
    losses = {kind: _nats_per_story(folders[kind]) for kind in ("small", "pretrained")}
    assert floor < losses["pretrained"] < losses["small"] < 1.4 * floor
    assert losses["pretrained"] < 1.12 * floor
    accuracy = {kind: _accuracy(folders[kind]) for kind in ("pretrained", "fine-tuned", "aligned")}
    assert accuracy["pretrained"] < 0.2 < 0.6 < accuracy["fine-tuned"]
    assert accuracy["aligned"] > accuracy["fine-tuned"] - 0.03


def _nats_per_story(folder: Path) -> float:
    model, tokenizer = load_decoder(folder), Tokenizer.load(folder)
    begin = tokenizer.id_of("<|story|>")
    total = 0.0
    for story in world.stories(made.HELDOUT_SEED, 100):
        ids = torch.tensor([[begin, *tokenizer.encode(story.text)]])
        with torch.no_grad():
            log_probs = model(ids)[0, :-1].log_softmax(-1)
        total -= log_probs.gather(1, ids[0, 1:, None]).sum().item()
    return total / 100


def _accuracy(folder: Path) -> float:
    model, tokenizer = load_decoder(folder), Tokenizer.load(folder)
    right = 0
    for story in world.stories(made.HELDOUT_SEED, 60):
        for question, answer in world.questions(story):
            asked = tokenizer.encode_markup(f"<|story|> {world.conversation(story, question)}")
            ids = torch.tensor([asked])
            with torch.no_grad():
                right += tokenizer.token_text(int(model(ids)[0, -1].argmax())) == answer
    return right / (60 * len(world.QUESTIONS))
