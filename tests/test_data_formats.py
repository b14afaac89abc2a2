"""Formats of training data: told by keys, read as their documentation says, and nothing that comes in crashes them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.data.detection import detect_form
from bottega.data.formats.detect import examples_of, format_of
from bottega.data.formats.kinds import Completion, Conversation, Labelled, Pair, Prompt, Rejected, Text, Tokens
from bottega.data.formats.read import as_messages
from bottega.data.json_array import array_items
from bottega.data.rows import Skipped, read_rows
from bottega.data.spec import FORMS, Form

QUESTION, ANSWER = (
    {"role": "user", "content": "What color is the sky?"},
    {"role": "assistant", "content": "It is blue."},
)
WORSE = {"role": "assistant", "content": "It is green."}
SYSTEM = {"role": "system", "content": "Be brief."}
HUMAN, GPT = {"from": "human", "value": QUESTION["content"]}, {"from": "gpt", "value": ANSWER["content"]}
SKY = {"instruction": "What color", "input": "is the sky?", "output": "It is blue."}
ASKED = [{"role": "user", "content": "What color\n\nis the sky?"}]


def read_all(row: Any, form: Form, **options: Any) -> list[Any]:
    """The examples of a row."""
    return list(examples_of(row, form, **options)[1])


def read(row: Any, form: Form) -> Any:
    """The one example of a row."""
    examples = read_all(row, form)
    assert len(examples) == 1
    return examples[0]


CONVERSATIONS: list[tuple[str, Any, list[dict[str, Any]]]] = [
    # OpenAI and TRL: messages.
    ("messages", {"messages": [QUESTION, ANSWER]}, [QUESTION, ANSWER]),
    ("messages", [QUESTION, ANSWER], [QUESTION, ANSWER]),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION["content"]}]}, ANSWER]},
        [QUESTION, ANSWER],
    ),
    # ShareGPT, as LLaMA-Factory and Axolotl document it.
    ("sharegpt", {"conversations": [HUMAN, GPT], "system": "Be brief."}, [SYSTEM, QUESTION, ANSWER]),
    ("sharegpt", {"conversation": [{"from": "system", "value": "Be brief."}, HUMAN, GPT]}, [SYSTEM, QUESTION, ANSWER]),
    # Alpaca, with LLaMA-Factory's system and history.
    ("alpaca", SKY, [*ASKED, ANSWER]),
    ("alpaca", {"instruction": QUESTION["content"], "input": "", "response": ANSWER["content"]}, [QUESTION, ANSWER]),
    (
        "alpaca",
        {
            "instruction": "What color is the sky?",
            "output": "It is blue.",
            "system": "Be brief.",
            "history": [["a", "b"]],
        },
        [SYSTEM, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, QUESTION, ANSWER],
    ),
    # TRL: conversational prompt and completion.
    ("completion", {"prompt": [QUESTION], "completion": [ANSWER]}, [QUESTION, ANSWER]),
]


@pytest.mark.parametrize(("name", "row", "messages"), CONVERSATIONS)
def test_conversations(name: str, row: Any, messages: list[dict[str, Any]]) -> None:
    found = format_of(row)
    assert found is not None and (found.name, found.form) == (name, "chat")
    example = read(row, "chat")
    assert isinstance(example, Conversation)
    assert example.messages == messages


def test_only_the_completion_of_a_conversational_prompt_is_trained() -> None:
    row = {"prompt": [QUESTION, ANSWER, QUESTION], "completion": [ANSWER]}
    assert read(row, "chat").weights == [False, False, False, None]


def test_plain_completions_and_texts_stay_plain() -> None:
    assert read({"prompt": "The sky is", "completion": " blue."}, "chat") == Completion("The sky is", " blue.")
    json_text = '[{"role": "user", "content": "no message, but an answer"}]'
    assert read({"prompt": "Write JSON", "completion": json_text}, "chat") == Completion("Write JSON", json_text)
    assert read({"instruction": "List", "output": '["a", "b"]'}, "chat").messages[1]["content"] == '["a", "b"]'
    assert read({"text": "The sky is blue."}, "text") == read("The sky is blue.", "text") == Text("The sky is blue.")


def test_weights_are_told_by_any_of_their_names() -> None:
    for key, off, on in (
        ("weight", 0, 1),
        ("train", False, True),
        ("training", False, True),
        ("loss_weight", 0.0, 1.0),
    ):
        turns = [QUESTION, {**ANSWER, key: off}, QUESTION, {**ANSWER, key: on}, QUESTION, ANSWER]
        assert read({"messages": turns, "system": "s"}, "chat").weights == [None, None, False, None, True, None, None]
    assert read({"messages": [QUESTION, ANSWER]}, "chat").weights == []
    for wrong in ({**ANSWER, "weight": 0.5}, {**ANSWER, "training_detail": []}):
        with pytest.raises(Rejected, match=r"weight other than 0 and 1|training_detail"):
            read({"messages": [QUESTION, wrong]}, "chat")
    with pytest.raises(Rejected, match="not the assistant's"):
        read({"messages": [{**QUESTION, "weight": 1}, ANSWER]}, "chat")


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                QUESTION,
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", **CALL}]},
                {"role": "tool", "content": "2", "tool_call_id": "1", "name": "add"},
                ANSWER,
            ],
            "tools": [TOOL],
        },
        {
            "messages": [
                QUESTION,
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "function": {"name": "add", "arguments": '{"a": 1}'}}],
                },
                {"role": "tool", "content": "2", "tool_call_id": "1", "name": "add"},
                ANSWER,
            ],
            "tools": json.dumps([TOOL["function"]]),
        },
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "2"},
                GPT,
            ],
            "tools": json.dumps([TOOL["function"]]),
        },
        {
            "messages": [
                QUESTION,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_call", "value": '{"name": "add", "arguments": {"a": 1}}'}],
                },
                {"role": "tool", "content": "2"},
                ANSWER,
            ],
            "tools": json.dumps([TOOL]),
        },
    ],
)
def test_calls_of_tools_come_in_one_form(row: Any) -> None:
    example = read(row, "chat")
    call = {key: value for key, value in example.messages[1]["tool_calls"][0].items() if key != "id"}
    assert call == CALL
    assert example.messages[1]["content"] == ""
    assert (example.messages[2]["role"], example.messages[2]["content"]) == ("tool", "2")
    assert example.tools == [TOOL]


def test_reasoning_is_kept_apart() -> None:
    parts = [{"type": "reasoning", "value": "Rayleigh"}, {"type": "text", "value": "It is blue."}]
    for answer in ({"role": "assistant", "content": parts}, {**ANSWER, "thinking": "Rayleigh"}):
        message = read({"messages": [QUESTION, answer]}, "chat").messages[1]
        assert message == {**ANSWER, "reasoning_content": "Rayleigh"}


PAIRS: list[tuple[Any, Pair]] = [
    # TRL: preference with an explicit prompt, and an implicit one; plain and conversational.
    (
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        Pair("The sky is", " blue.", " green."),
    ),
    ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, Pair("The sky is", " blue.", " green.")),
    ({"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [WORSE]}, Pair([QUESTION], [ANSWER], [WORSE])),
    ({"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, WORSE]}, Pair([QUESTION], [ANSWER], [WORSE])),
    # UltraFeedback, binarised: the prompt is given and repeated, and there are scores.
    (
        {
            "prompt": QUESTION["content"],
            "chosen": [QUESTION, ANSWER],
            "rejected": [QUESTION, WORSE],
            "messages": [QUESTION, ANSWER],
            "score_chosen": 8.5,
            "score_rejected": 3,
        },
        Pair([QUESTION], [ANSWER], [WORSE], scores=(8.5, 3.0)),
    ),
    # Intel/orca_dpo_pairs, and Argilla's copy of it with ratings.
    (
        {"system": "Be brief.", "question": QUESTION["content"], "chosen": "It is blue.", "rejected": "It is green."},
        Pair([SYSTEM, QUESTION], [ANSWER], [WORSE]),
    ),
    (
        {"system": "", "input": "The sky is", "chosen": " blue.", "rejected": " green.", "rating": [9, 2]},
        Pair("The sky is", " blue.", " green.", scores=(9.0, 2.0)),
    ),
    # LLaMA-Factory: sharegpt ranking and alpaca ranking, today's and the earlier one.
    (
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "It is green."}},
        Pair([QUESTION], [ANSWER], [WORSE]),
    ),
    (
        {"instruction": "What color", "input": "is the sky?", "chosen": "It is blue.", "rejected": "It is green."},
        Pair(ASKED, [ANSWER], [WORSE]),
    ),
    (
        {"instruction": QUESTION["content"], "output": ["It is blue.", "It is green."]},
        Pair([QUESTION], [ANSWER], [WORSE]),
    ),
    # Axolotl: chatml.argilla. Anthropic's HH.
    (
        {"instruction": QUESTION["content"], "chosen_response": "It is blue.", "rejected_response": "It is green."},
        Pair([QUESTION], [ANSWER], [WORSE]),
    ),
    (
        {
            "chosen": "\n\nHuman: What color is the sky?\n\nAssistant: It is blue.",
            "rejected": "\n\nHuman: What color is the sky?\n\nAssistant: It is green.",
        },
        Pair([QUESTION], [ANSWER], [WORSE]),
    ),
    (
        {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2},
        Pair("q", "a", "b", margin=2.0),
    ),
]


@pytest.mark.parametrize(("row", "expected"), PAIRS)
def test_pairs(row: Any, expected: Pair) -> None:
    found = format_of(row)
    assert found is not None and found.form == "pairs"
    assert read(row, "pairs") == expected
    # What else a pair can be: the better answer to learn from, two labelled answers, a prompt.
    labelled = read_all(row, "labelled")
    assert labelled == [
        Labelled(expected.prompt, side, good, expected.tools)
        for side, good in ((expected.chosen, True), (expected.rejected, False))
    ]
    assert read(row, "prompts") == Prompt(expected.prompt, row)
    chat = read(row, "chat")
    if isinstance(expected.chosen, str):
        assert chat == Completion(str(expected.prompt), expected.chosen)
    else:
        assert chat.messages == [*as_messages(expected.prompt, "user"), *expected.chosen]
        assert chat.weights == [False] * len(expected.prompt) + [None]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "are the same"),
        ({"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, ANSWER]}, "are the same"),
        ({"prompt": "q", "chosen": "a", "rejected": " \n"}, "empty answer"),
        ({"prompt": "q", "chosen": "a", "rejected": [ANSWER]}, "different types"),
        ({"chosen": [ANSWER], "rejected": [WORSE]}, "no prompt in common"),
        (
            {"chosen": [QUESTION, ANSWER, QUESTION, ANSWER], "rejected": [QUESTION, ANSWER, SYSTEM]},
            "begin with the assis",
        ),
        ({"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, ANSWER, QUESTION, ANSWER]}, "empty answer"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": "high", "score_rejected": 1}, "no number"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(row: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        examples_of(row, "pairs")


def test_ranked_answers_become_pairs() -> None:
    row = {"prompt": "q", "responses": ["a", "b", "c", "d"], "scores": [1, 3, 2, 3]}
    assert [(p.chosen, p.rejected, p.scores) for p in read_all(row, "pairs")] == [("b", "a", (3.0, 1.0))]
    every = {(p.chosen, p.rejected) for p in read_all(row, "pairs", every_pair=True)}
    # By hand: every two answers of different scores.
    assert every == {("b", "a"), ("b", "c"), ("d", "a"), ("d", "c"), ("c", "a")}
    ranks = {"instruction": "q", "responses": ["a", "b"], "ranks": [2, 1]}
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in "ba")
    assert read(ranks, "pairs") == Pair([{"role": "user", "content": "q"}], chosen, rejected)
    ultra = {
        "instruction": "q",
        "completions": [{"response": "a", "overall_score": 2}, {"response": "b", "overall_score": 9}],
    }
    assert read(ultra, "pairs").scores == (9.0, 2.0)
    assert read(row, "chat") == Completion("q", "b")
    with pytest.raises(Rejected, match="same score"):
        examples_of(row | {"scores": [1, 1, 1, 1]}, "pairs")
    for wrong in ([1, 2, 3], [1, 2, 3, None], [1, 2, 3, float("nan")]):
        with pytest.raises(Rejected, match="score"):
            examples_of(row | {"scores": wrong}, "pairs")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, Labelled("q", "a", True)),
        ({"prompt": [QUESTION], "completion": [WORSE], "label": False}, Labelled([QUESTION], [WORSE], False)),
        ({"messages": [QUESTION, ANSWER], "label": 1}, Labelled([QUESTION], [ANSWER], True)),
        ({**SKY, "kto_tag": "false"}, Labelled(ASKED, [ANSWER], False)),
    ],
)
def test_labelled(row: Any, expected: Labelled) -> None:
    found = format_of(row)
    assert found is not None and found.form == "labelled"
    assert read(row, "labelled") == expected


def test_a_label_is_true_or_false_and_nothing_else() -> None:
    for label in (2, "good", None, 0.5, [True]):
        row = {"prompt": "q", "completion": "a", "label": label}
        if label is None:
            assert isinstance(read(row, "chat"), Completion)
            continue
        with pytest.raises(Rejected, match="neither true nor false"):
            read(row, "labelled")
    with pytest.raises(Rejected, match="labelled as bad"):
        read({"prompt": "q", "completion": "a", "label": False}, "chat")


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"question": "How many?", "answer": "#### 72"}, "How many?"),
        ({"problem": "How many?", "solution": "72"}, "How many?"),
        ({"prompt": "How many?", "answer": "72"}, "How many?"),
        ({"prompt": [QUESTION], "tests": ["assert True"]}, [QUESTION]),
        ({"prompt": "How many?", "system": "Be brief."}, [SYSTEM, {"role": "user", "content": "How many?"}]),
        ({"messages": [QUESTION]}, [QUESTION]),
        ({"messages": [QUESTION, ANSWER]}, [QUESTION]),
        ({"messages": [QUESTION, ANSWER, QUESTION, ANSWER, WORSE]}, [QUESTION, ANSWER, QUESTION]),
        (SKY, ASKED),
    ],
)
def test_prompts_keep_every_field_of_their_row(row: Any, prompt: Any) -> None:
    assert read(row, "prompts") == Prompt(prompt, row)


def test_a_prompt_without_a_question_is_none() -> None:
    for messages in ([SYSTEM, ANSWER], [ANSWER]):
        with pytest.raises(Rejected, match="no question"):
            read({"messages": messages}, "prompts")


def test_tokens_with_labels_masks_and_padding() -> None:
    assert read({"input_ids": [1, 2, 3]}, "text") == Tokens([1, 2, 3], None)
    assert read({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, "chat") == Tokens([1, 2, 3], [False, True, True])
    padded = {"input_ids": [1, 2, 0], "labels": [-100, 2, -100], "attention_mask": [1, 1, 0]}
    assert read(padded, "chat") == Tokens([1, 2], [False, True])
    assert read({"input_ids": [1, 2], "completion_mask": [0, 1]}, "chat") == Tokens([1, 2], [False, True])
    for wrong in (
        {"labels": [2, 3, -100]},
        {"labels": [1]},
        {"attention_mask": [1]},
        {"labels": "x"},
        {"labels": [1.5] * 3},
    ):
        with pytest.raises(Rejected):
            read({"input_ids": [1, 2, 3], **wrong}, "chat")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "responses": ["a", "b"], "ranks": 1}, "one score for each"),
        ({"prompt": "q", "responses": ["a", "b"], "ranks": False}, "one score for each"),
        ({"instruction": "q", "output": "a", "history": True}, "history"),
        ({"instruction": "q", "output": "a", "history": 10**400}, "history"),
    ],
)
def test_values_of_a_wrong_kind_are_a_reason_and_no_failure(row: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        examples_of(row, "pairs" if "responses" in row else "chat")


def test_a_row_that_is_a_text_can_be_encoded() -> None:
    assert examples_of("half a pair: \ud800", "text")[1] == [Text("half a pair: ?")]


def test_pictures_are_refused_and_not_left_out() -> None:
    picture = {"role": "user", "content": [{"type": "image", "url": "x"}, {"type": "text", "text": "Who?"}]}
    for row in ({"messages": [picture, ANSWER]}, {"messages": [QUESTION, ANSWER], "images": ["a.jpg"]}):
        with pytest.raises(Rejected, match="image"):
            read(row, "chat")


KEYS = st.sampled_from(
    [
        *("messages", "conversations", "role", "from", "content", "value", "type", "weight", "tools", "tool_calls"),
        *("function", "name", "arguments", "instruction", "input", "output", "system", "history", "text", "question"),
        *("prompt", "completion", "chosen", "rejected", "label", "kto_tag", "responses", "scores", "ranks", "rating"),
        *("margin", "score_chosen", "score_rejected", "input_ids", "labels", "attention_mask"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-200, 9)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(
        ["user", "assistant", "system", "tool", "function_call", '{"name": "f"}', "[1", "\n\nHuman: a", "\ud800"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=14,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6) | VALUES)
def test_no_row_crashes_a_reader_and_reasons_quote_nothing(row: Any) -> None:
    for form in FORMS:
        try:
            _, examples = examples_of(row, form, every_pair=True)
        except Rejected as rejected:
            assert len(str(rejected)) < 120
            continue
        assert examples
        for example in examples:
            if isinstance(example, Pair | Labelled):
                sides = [example.prompt, *((example.chosen, example.rejected) if isinstance(example, Pair) else ())]
                assert all(isinstance(side, str) or all(isinstance(m["content"], str) for m in side) for side in sides)
            elif isinstance(example, Conversation):
                assert not example.weights or len(example.weights) == len(example.messages)


def test_deep_nesting_is_a_reason() -> None:
    deep: Any = "x"
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(Rejected):
        read({"messages": [QUESTION, ANSWER], "tools": [{"name": "f", "parameters": deep}]}, "chat")


def test_every_file_format_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [
        {"messages": [QUESTION, {"role": "assistant", "content": f'It is {i}, "yes"\nç.'}], "id": str(i)}
        for i in range(600)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "b.jsonl").write_text(lines)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=100)
    for name, delimiter in (("e.csv", ","), ("f.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["messages", "id"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows({**row, "messages": json.dumps(row["messages"])} for row in rows)
    for path in sorted(tmp_path.iterdir()):
        skipped = Skipped()
        assert [row.value for row in read_rows(path, skipped)] == rows, path.name
        assert detect_form(path) == ("chat", "messages")
        assert not skipped.counts
    assert sum(1 for _ in read_rows(tmp_path, Skipped())) == 6 * len(rows)


def test_csv_texts_that_look_like_json_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\nWrite JSON,"[1, 2]"\nbroken\n"[{""role"": ""user""}]",x\n')
    skipped = Skipped()
    rows = [row.value for row in read_rows(path, skipped)]
    assert rows[0] == {"prompt": "Write JSON", "completion": "[1, 2]"}
    assert rows[1]["prompt"] == [{"role": "user"}]
    assert skipped.as_data() == {"row with more or fewer cells than the header": {"count": 1, "examples": ["a.csv:3"]}}


def test_broken_csv_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.data.rows.MAX_ROW", 100)
    for name, content in (("a", 'text\n"open\n' + "x" * 200), ("b", "text\n" + "y" * 300), ("c", 'text\n"a"b\n')):
        (tmp_path / f"{name}.csv").write_text(content)
        skipped = Skipped()
        list(read_rows(tmp_path / f"{name}.csv", skipped))
        assert any("CSV" in reason for reason in skipped.counts), name


def test_what_cannot_be_told_is_said_with_its_keys(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"colour": "blue"}\n[]\n3\n')
    with pytest.raises(UserError, match=r"cannot be told \(keys: colour\)"):
        detect_form(tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.md").write_text("The sky is blue.")
    assert detect_form(tmp_path / "text") == ("text", "text")
    assert detect_form(tmp_path / "text" / "a.md") == ("text", "text")
    with pytest.raises(UserError, match="does not exist"):
        detect_form(tmp_path / "none")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=6), st.integers(1, 9), st.sampled_from([None, 1]), st.data())
def test_an_array_in_pieces_is_what_json_reads_and_a_cut_one_is_its_beginning(
    values: list[Any], piece: int, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(values, indent=indent)
    found = [item for item, _ in array_items(io.StringIO(text[1:]), piece=piece, longest=10_000)]
    assert found == values
    cut = data.draw(st.integers(1, len(text) - 1))
    read: list[Any] = []
    with pytest.raises(ValueError, match=r"ends inside|not followed"):
        for item, _ in array_items(io.StringIO(text[1:cut]), piece=piece, longest=10_000):
            read.append(item)
    assert read == values[: len(read)]


def test_a_broken_array_gives_the_items_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.data.rows.MAX_ROW", 50)
    monkeypatch.setattr("bottega.data.rows._PIECE", 8)
    for content, count in (
        ('[{"a": 1}, {"a": 2}', 1),
        ('[{"a": 1} {"a": 2}]', 0),
        ('[{"a": 1}, nonsense]', 1),
        ('[{"a": 1}, {"a": "' + "x" * 200 + '"}]', 1),
        ('[1, {"a": 2}] and more', 2),
        ("[]", 0),
        ('\ufeff [ {"a": 1} ]', 1),
    ):
        (tmp_path / "a.json").write_text(content)
        skipped = Skipped()
        assert len(list(read_rows(tmp_path / "a.json", skipped))) == count, content
        assert bool(skipped.counts) == (content not in ('[1, {"a": 2}] and more', '\ufeff [ {"a": 1} ]'))
