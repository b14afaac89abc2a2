"""Pairs, labelled answers, prompts and plain completions as tokens folders, and raw data tokenised once."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.verb import execute
from bottega.data.batches import Batches
from bottega.data.config import ExampleOptions, PrepareData
from bottega.data.encode import encode_example
from bottega.data.examples import Examples
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Rejected
from bottega.data.raw import plan_raw, prepare_raw
from bottega.data.spec import Form, TokensSpec
from bottega.tokenizer import training
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.verbs.registry import VERBS

WITH_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '[' + call.function.name + call.function.arguments | tojson + ']' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    training.write_folder(training.train(iter(["the cat sat on the mat and the dog sat too"] * 5), 300), folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A tokenizer without a chat template, with a BOS and an end of sequence."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    config = {"eos_token": "<|endoftext|>", "bos_token": "<|im_start|>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def prepare(tmp_path: Path, rows: list[Any], tokenizer: Path, kind: str, **settings: Any) -> Path:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / kind
    values = {"data": data, "tokenizer": tokenizer, "out": out, "kind": kind, **settings}
    verb = VERBS["data prepare"]
    plan = verb.make_plan(PrepareData.parse(values), Specs())
    made = plan.produces
    execute(verb, plan, Quiet())
    spec = TokensSpec.read(out)
    assert isinstance(made, TokensSpec) and made.form == spec.form == kind
    return out


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ASKED = [turn("system", "s"), turn("user", "the cat?"), turn("assistant", "sat"), turn("user", "and the dog?")]
GOOD, BAD = turn("assistant", "the dog sat too"), turn("assistant", "on the mat")


def test_pairs_equal_what_transformers_writes_for_prompt_and_answer(tmp_path: Path, tokenizer: Path) -> None:
    row = {"chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD], "score_chosen": 2, "score_rejected": 1}
    plain = {"prompt": "the cat?", "chosen": "sat", "rejected": "too", "margin": 0.5}
    examples = Examples(prepare(tmp_path, [row, plain], tokenizer, "pairs"), row_length=500, seed=0)
    oracle = AutoTokenizer.from_pretrained(tokenizer)
    prompt = oracle.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=True)["input_ids"]
    for document, answer in zip(examples.documents(0), (GOOD, BAD), strict=True):
        whole = oracle.apply_chat_template([*ASKED, answer], return_dict=True)["input_ids"]
        assert document.tokens.tolist() == whole
        assert whole[: len(prompt)] == prompt
        # The answer and its stop token; the line break behind it is the template's.
        trained = document.tokens[document.mask].tolist()
        assert whole[: len(prompt)] + trained + whole[len(prompt) + len(trained) :] == whole
        assert oracle.decode(trained) == answer["content"] + "<|im_end|>"
        assert not document.mask[: len(prompt)].any()
    assert [examples.row(i) for i in range(2)] == [{"scores": [2.0, 1.0]}, {"margin": 0.5}]
    known = Tokenizer.load(tokenizer)
    chat = encode_chat(known, [turn("user", "the cat?"), turn("assistant", "sat")])
    assert examples.documents(1)[0].tokens.tolist() == chat.ids


def test_labelled_answers_and_prompts(tmp_path: Path, tokenizer: Path) -> None:
    rows: list[Any] = [{"prompt": [*ASKED], "completion": [GOOD], "label": True}]
    rows += [{"messages": [*ASKED, BAD], "kto_tag": False}]
    examples = Examples(prepare(tmp_path, rows, tokenizer, "labelled"), row_length=500, seed=0)
    assert [examples.row(i) for i in range(2)] == [{"label": True}, {"label": False}]
    known = Tokenizer.load(tokenizer)
    for i, answer in enumerate((GOOD, BAD)):
        (document,) = examples.documents(i)
        assert document.tokens.tolist() == encode_chat(known, [*ASKED, answer]).ids
        assert known.decode(document.tokens[document.mask].tolist()) == answer["content"]
    rows = [{"question": "the cat?", "answer": "#### 72", "tests": ["a"], "n": float("nan"), "s": "\ud800"}]
    prompts = Examples(prepare(tmp_path, rows, tokenizer, "prompts"), row_length=500, seed=0)
    (document,) = prompts.documents(0)
    served = encode_chat(known, [turn("user", "the cat?")], add_generation_prompt=True)
    assert document.tokens.tolist() == served.ids and not document.mask.any()
    expected = {"question": "the cat?", "answer": "#### 72", "tests": ["a"], "n": None, "s": "?"}
    assert prompts.row(0) == expected


def test_without_a_template_texts_stand_as_they_are_and_end_with_eos(tmp_path: Path, base: Path) -> None:
    known = Tokenizer.load(base)
    bos, eos = known.document_prefix(), known.eos_id
    assert len(bos) == 1 and eos is not None
    out = prepare(tmp_path, [{"prompt": "the cat", "completion": " sat"}], base, "chat")
    (row,) = Batches(out, row_length=64, seed=0).rows(0, 1)
    asked, answer = known.encode("the cat"), known.encode(" sat")
    assert row.tokens.tolist() == [*bos, *asked, *answer, eos]
    assert row.mask.tolist() == [False] * (1 + len(asked)) + [True] * (len(answer) + 1)
    pairs = Examples(
        prepare(tmp_path, [{"prompt": "the cat", "chosen": " sat", "rejected": " too"}], base, "pairs"),
        row_length=64,
        seed=0,
    )
    assert pairs.documents(0)[0].tokens.tolist() == row.tokens.tolist()
    prompts = Examples(prepare(tmp_path, [{"prompt": "the cat"}], base, "prompts"), row_length=64, seed=0)
    assert prompts.documents(0)[0].tokens.tolist() == [*bos, *asked]
    with pytest.raises(UserError, match="conversations have no form"):
        prepare(tmp_path, [{"messages": [*ASKED, GOOD]}], base, "chat", overwrite=True)


def test_tools_are_written_as_the_template_has_them_or_as_text(tmp_path: Path, tokenizer: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    messages = [turn("user", "q"), turn("assistant", "", tool_calls=[call]), turn("tool", "2"), GOOD]
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = {"messages": messages, "tools": tools}
    with pytest.raises(UserError, match=r"no place for tools|tool_calls"):
        prepare(tmp_path, [row], tokenizer, "chat")
    out = prepare(tmp_path, [row], tokenizer, "chat", tools="text")
    known = Tokenizer.load(tokenizer)
    (packed,) = Batches(out, row_length=500, seed=0).rows(0, 1)
    said = '{"name": "f", "arguments": {"a": 1}}'
    spoken = [turn("system", '{"name": "f"}'), messages[0], turn("assistant", said), turn("tool", "2"), GOOD]
    assert packed.tokens.tolist() == encode_chat(known, spoken).ids
    folder = tmp_path / "with"
    folder.mkdir()
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(WITH_TOOLS)
    out = prepare(tmp_path, [row], folder, "chat", overwrite=True)
    (packed,) = Batches(out, row_length=500, seed=0).rows(0, 1)
    oracle = AutoTokenizer.from_pretrained(folder)
    assert packed.tokens.tolist() == oracle.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"]
    assert known.decode(packed.tokens[packed.mask].tolist()) == f'[f{{"a": 1}}]{GOOD["content"]}'


def test_pretokenised_rows_keep_their_labels(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [5, 999999], "labels": [5, 999999]}]
    out = prepare(tmp_path, rows, tokenizer, "chat")
    (row,) = Batches(out, row_length=64, seed=0).rows(0, 1)
    assert (row.tokens.tolist(), row.mask.tolist()) == ([5, 6, 7], [False, True, True])
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest["dropped"]) == ["token ids that the tokenizer does not have"]
    out = prepare(tmp_path, [{"input_ids": [5, 6, 7]}], tokenizer, "text")
    (row,) = Batches(out, row_length=64, seed=0).rows(0, 1)
    assert row.tokens.tolist() == [5, 6, 7]


def test_options_reach_the_mask_and_the_manifest(tmp_path: Path, tokenizer: Path) -> None:
    row = {"messages": [turn("user", "a"), {**BAD, "weight": 0}, turn("user", "b"), GOOD]}
    known = Tokenizer.load(tokenizer)

    def trained(**options: Any) -> str:
        out = prepare(tmp_path, [row], tokenizer, "chat", overwrite=True, **options)
        (packed,) = Batches(out, row_length=500, seed=0).rows(0, 1)
        return known.decode(packed.tokens[packed.mask].tolist(), skip_special=False)

    assert trained() == "the dog sat too<|im_end|>"
    assert trained(train_on_eos="none") == "the dog sat too"
    manifest = json.loads((tmp_path / "chat" / "manifest.json").read_text())
    assert (manifest["stops"], manifest["options"]["train_on_eos"]) == (0, "none")
    assert trained(train_on="all").count("<|im_end|>") == 3


def test_prompts_of_judged_answers_are_not_trained(tmp_path: Path, tokenizer: Path) -> None:
    rows: dict[Any, Any] = {
        "pairs": {"prompt": "q", "chosen": "sat", "rejected": "too"},
        "labelled": {"prompt": "q", "completion": "sat", "label": True},
    }
    for kind, row in rows.items():
        with pytest.raises(UserError, match="train_on: all"):
            prepare(tmp_path, [row], tokenizer, kind, train_on="all")


def test_raw_data_is_tokenised_once_for_the_same_source_tokenizer_and_options(tmp_path: Path, tokenizer: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "q", "chosen": "sat", "rejected": "too"}) + "\n")
    spec = TokenizerSpec.read(tokenizer)
    plan = plan_raw(data, None, spec)
    assert (plan.spec.form, plan.format, plan.spec.exact) == ("pairs", "preference", False)
    assert all(check.passed for check in plan.checks)
    work = tmp_path / "work"
    first = prepare_raw(data, None, tokenizer, work)
    written = (first / "manifest.json").stat().st_mtime_ns
    assert TokensSpec.read(first).examples == 1
    assert prepare_raw(data, "pairs", tokenizer, work) == first
    assert (first / "manifest.json").stat().st_mtime_ns == written
    others = {prepare_raw(data, "chat", tokenizer, work), prepare_raw(data, None, tokenizer, work, train_on_eos="none")}
    data.write_text(data.read_text() * 2)
    others.add(prepare_raw(data, None, tokenizer, work))
    assert len(others | {first}) == 4
    with pytest.raises(UserError, match="train_one"):
        prepare_raw(data, None, tokenizer, work, train_one="all")


def test_raw_data_that_was_interrupted_is_written_anew(tmp_path: Path, tokenizer: Path, monkeypatch: Any) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "q", "completion": "a"}) + "\n")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare_raw(data, None, tokenizer, tmp_path / "work")
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "work").iterdir() if not path.name.endswith(".partial")]
    assert TokensSpec.read(prepare_raw(data, None, tokenizer, tmp_path / "work")).documents == 1


def test_a_folder_that_holds_what_is_to_be_measured_with_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    row = json.dumps({"prompt": "q", "completion": "a"})
    for name in ("train-00000-of-00001.jsonl", "trainer.jsonl", "latest.jsonl"):
        (folder / "data" / name).write_text(row)
    spec = TokenizerSpec.read(tokenizer)
    assert all(check.passed for check in plan_raw(folder, None, spec).checks)
    (folder / "data" / "test-00000-of-00001.jsonl").write_text(row)
    failed = [check for check in plan_raw(folder, None, spec).checks if not check.passed]
    assert [check.name for check in failed] == ["files"] and "test, train" in failed[0].detail


def test_raw_data_that_cannot_be_used_is_said(tmp_path: Path, tokenizer: Path, base: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"messages": [*ASKED, GOOD]}) + "\n")
    plan = plan_raw(data, "pairs", TokenizerSpec.read(tokenizer))
    assert [check.name for check in plan.checks if not check.passed] == ["format"]
    plan = plan_raw(data, None, TokenizerSpec.read(base))
    assert [check.name for check in plan.checks if not check.passed] == ["chat template"]
    with pytest.raises(UserError, match="none of 1 rows can be used as pairs"):
        prepare_raw(data, "pairs", tokenizer, tmp_path / "work")


def test_reasoning_is_shown_written_or_dropped_but_never_lost_silently(tmp_path: Path, tokenizer: Path) -> None:
    row = {"messages": [turn("user", "q"), turn("assistant", "too", reasoning_content="the cat sat")]}
    known = Tokenizer.load(tokenizer)
    with pytest.raises(UserError, match="reasoning, for which the chat template has no place"):
        prepare(tmp_path, [row], tokenizer, "chat")
    for how, said in (("text", "<think>\nthe cat sat\n</think>\n\ntoo"), ("drop", "too")):
        out = prepare(tmp_path, [row], tokenizer, "chat", reasoning=how, overwrite=True)
        (packed,) = Batches(out, row_length=500, seed=0).rows(0, 1)
        assert known.decode(packed.tokens[packed.mask].tolist()) == said


GARBAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.text(max_size=5)
    | st.sampled_from(["<|im_end|>", "\ud800", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "content", "name"]), inner),
    max_leaves=6,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"])},
        optional={
            "content": GARBAGE,
            "tool_calls": st.lists(
                st.fixed_dictionaries({"name": st.text(max_size=3), "arguments": GARBAGE}), max_size=2
            ),
            "weight": st.sampled_from([0, 1]),
            "reasoning": GARBAGE,
        },
    ),
    min_size=1,
    max_size=4,
)
ROWS = (
    st.fixed_dictionaries({"messages": TURNS}, optional={"tools": GARBAGE, "system": GARBAGE, "label": GARBAGE})
    | st.fixed_dictionaries({"chosen": TURNS, "rejected": TURNS}, optional={"prompt": TURNS | st.text(max_size=5)})
    | st.fixed_dictionaries({"prompt": GARBAGE, "completion": GARBAGE}, optional={"label": st.booleans()})
    | st.fixed_dictionaries({"input_ids": st.lists(st.integers(-1, 400))}, optional={"labels": GARBAGE})
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=ROWS, kind=st.sampled_from(["chat", "pairs", "labelled", "prompts"]))
def test_every_row_is_encoded_or_rejected_and_masks_stand_on_answers_only(
    tokenizer: Path, row: dict[str, Any], kind: Form
) -> None:
    known = _loaded(tokenizer)
    for options in (ExampleOptions(), ExampleOptions(tools="text", reasoning="text", ranked="all")):
        try:
            _, examples = examples_of(row, kind, every_pair=True)
            encoded = [encode_example(known, example, options) for example in examples]
        except Rejected as rejected:
            assert "\n" not in str(rejected)
            continue
        for documents in encoded:
            assert len(documents) == (2 if kind == "pairs" else 1)
            for ids, mask in documents:
                assert len(ids) == len(mask) and all(0 <= id_ < known.vocab_size for id_ in ids)
                assert any(mask[1:]) == (kind != "prompts")
            if kind == "pairs":
                (chosen, mask), (rejected, other) = documents
                start = mask.index(True)
                assert other.index(True) == start and chosen[:start] == rejected[:start]


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)
