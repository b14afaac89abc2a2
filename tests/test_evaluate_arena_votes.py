"""Files of votes: both forms, what is refused and where, writers at once, writers that are killed."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from bottega.core.errors import UserError
from bottega.evaluate.arena.votes import Vote, append_vote, read_votes, votes_as_preferences

PLAIN = {"model_a": "x", "model_b": "y", "winner": "a"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def read(tmp_path: Path, *rows: Any) -> list[Vote]:
    return read_votes([write(tmp_path / "votes.jsonl", *rows)])


def turns(*texts: str) -> list[dict[str, Any]]:
    return [
        {"role": ("user", "assistant")[place % 2], "content": text, "num_tokens": 3} for place, text in enumerate(texts)
    ]


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "votes.jsonl"
    votes = [
        Vote(
            "x", "y", "a", "1", 12.5, "prompt\nof two lines", answer_a="A é \u2028", answer_b="B", judge="z", order="ba"
        ),
        Vote("x", "y", "both_bad", messages=[{"role": "user", "content": "hi"}], blind=False),
        Vote("x", "y", "tie", "3", answer_a="half a pair \ud800"),
    ]
    for vote in votes:
        append_vote(path, vote)
    assert read_votes([path]) == votes
    assert path.read_bytes().count(b"\n") == 3
    assert [vote.score for vote in votes] == [1, 0.5, 0.5]


def test_fastchats_battles_are_read(tmp_path: Path) -> None:
    metadata = {
        f"{name}_{side}{end}": count
        for side, add in (("a", 0), ("b", 5))
        for name, end, count in (
            ("sum_assistant", "_tokens", 100 + add), ("header_count", "", {"h1": 1, "h2": add}),
            ("list_count", "", {"ordered": 2, "unordered": 0}), ("bold_count", "", {"**": 0, "__": 3}),
        )
    }  # fmt: skip
    row = {
        **PLAIN, "question_id": "q7", "winner": "tie (bothbad)", "judge": "arena_user_1", "tstamp": 1682351591.1,
        "turn": 1, "anony": True, "language": "English", "conv_metadata": metadata,
        "conversation_a": turns("hi", "hello"), "conversation_b": turns("hi", "what?"),
    }  # fmt: skip
    named = [{**PLAIN, "winner": winner, "anony": False} for winner in ("model_a", "model_b", "tie")]
    first, *others = read(tmp_path, row, *named)
    assert (first.winner, first.id, first.time, first.judge) == ("both_bad", "q7", 1682351591.1, "arena_user_1")
    assert (first.messages, first.answer_a, first.answer_b) == ([{"role": "user", "content": "hi"}], "hello", "what?")
    assert (first.style_a, first.style_b) == ((100, 1, 2, 3), (105, 6, 2, 3))
    assert [(vote.winner, vote.blind) for vote in others] == [("a", False), ("b", False), ("tie", False)]
    array = tmp_path / "battles.json"
    array.write_text(" \n" + json.dumps([row, *named]))
    packed = tmp_path / "battles.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "votes.jsonl").read_bytes()))
    assert read_votes([array]) == read_votes([packed]) == [first, *others]


def test_conversations_that_differ_before_their_end_have_no_common_prompt(tmp_path: Path) -> None:
    first, second = turns("hi", "one", "and?", "two"), turns("hi", "three", "and?", "four")
    (vote,) = read(tmp_path, {**PLAIN, "conversation_a": first, "conversation_b": second})
    assert (vote.messages, vote.prompt, vote.answer_a, vote.answer_b) == ([], "", "one\n\ntwo", "three\n\nfour")
    assert votes_as_preferences([vote]) == []


def test_votes_become_preferences() -> None:
    texts = {"answer_a": "A", "answer_b": "B"}
    chat = [{"role": "user", "content": "hi"}]
    rows = votes_as_preferences(
        [
            Vote("x", "y", "a", prompt="P", **texts),
            Vote("x", "y", "b", messages=chat, **texts),
            Vote("x", "y", "tie", prompt="P", **texts),
            Vote("x", "y", "both_bad", prompt="P", **texts),
            Vote("x", "y", "a", **texts),
            Vote("x", "y", "a", prompt="P", answer_a="A"),
        ]
    )
    assert rows == [
        {"prompt": "P", "chosen": "A", "rejected": "B"},
        {
            "prompt": chat,
            "chosen": [{"role": "assistant", "content": "B"}],
            "rejected": [{"role": "assistant", "content": "A"}],
        },
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**PLAIN, "winner": "model_c"}, "unknown winner 'model_c'. Did you mean 'model_"),
        ({**PLAIN, "winner": "A"}, "unknown winner 'A'"),
        ({**PLAIN, "winner": ["a"]}, r"unknown winner \['a'\]"),
        ({"model_a": "x", "model_b": "y"}, "unknown winner None"),
        ({"model_a": "x", "winner": "a"}, "model_a and model_b must be named"),
        ({**PLAIN, "model_b": "x"}, "'x' is on both sides"),
        ({**PLAIN, "model_b": 3}, "model_b must be text, not 3"),
        ({**PLAIN, "answer_a": ["x"]}, "answer_a must be text"),
        ({**PLAIN, "order": "left"}, 'the order must be "ab" or "ba"'),
        ({**PLAIN, "order": ["ab"]}, 'the order must be "ab" or "ba"'),
        ({**PLAIN, "time": "yesterday"}, "Invalid isoformat string: 'yesterday'"),
        ({**PLAIN, "time": True}, "the time must be seconds"),
        ({**PLAIN, "time": float("inf")}, "the time must be seconds"),
        ({**PLAIN, "messages": "hi"}, "messages must be a list of messages"),
        ({**PLAIN, "messages": [{"role": "user"}]}, "messages must be a list of messages"),
        ({**PLAIN, "conversation_a": 3}, "conversation_a must be a list of messages"),
        ({**PLAIN, "conv_metadata": {}}, "conv_metadata has no counts sum_assistant_a_tokens"),
        ({**PLAIN, "conv_metadata": [1]}, "conv_metadata has no counts"),
        ([PLAIN], "it is not a JSON object"),
        ("null", "it is not a JSON object"),
    ],
)
def test_what_is_no_vote_is_refused_with_its_line(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(UserError, match=rf"votes\.jsonl, line 3 is no vote: {said}"):
        read(tmp_path, PLAIN, "", row, PLAIN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"model_a": "x"\n', "line 2 is not JSON"),
        (b'{"model_a": "x"', "line 2 is not JSON: .* may have been cut off: then remove it"),
        (b"\xff\xfe\n", "line 2 is not UTF-8 text"),
        (b"[" * 100_000 + b"\n", "line 2 is not JSON: .*(recursion|too deeply)"),
        (b"1" * 5000 + b"\n", "line 2 is not JSON"),
    ],
)
def test_lines_that_are_no_json_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = write(tmp_path / "votes.jsonl", PLAIN)
    path.write_bytes(path.read_bytes() + content)
    with pytest.raises(UserError, match=said):
        read_votes([path])


def test_damaged_archives_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl.gz"
    for content in (b"no gzip", gzip.compress(json.dumps(PLAIN).encode() * 99)[:-12]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*votes\.jsonl\.gz"):
            read_votes([path])
    with pytest.raises(UserError, match=r"cannot read .*none: No such file"):
        read_votes([tmp_path / "none"])


def test_a_vote_of_ours_counts_once(tmp_path: Path) -> None:
    row = {**PLAIN, "id": "7", "time": 1}
    others = [{**row, "judge": "z"}, {**row, "order": "ba"}, {**row, "time": 2}, {**PLAIN, "question_id": "7"}]
    path = write(tmp_path / "votes.jsonl", row, *others, others[-1])
    assert len(read_votes([path])) == 6
    again = write(tmp_path / "copy.jsonl", PLAIN, row)
    with pytest.raises(UserError, match=r"copy\.jsonl, line 2 repeats the vote '7' of .*votes\.jsonl, line 1"):
        read_votes([path, again])


def test_times_may_be_dates(tmp_path: Path) -> None:
    votes = read(tmp_path, *({**PLAIN, "time": time} for time in (60, "1970-01-01T00:01:00", "1970-01-01T01:01+01:00")))
    assert [vote.time for vote in votes] == [60.0] * 3


def _append_many(path: Path, writer: int, size: int) -> None:
    for number in range(40):
        append_vote(path, Vote("x", "y", "a", f"{writer}-{number}", answer_a=str(writer) * size))


def test_writers_at_once_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    start = multiprocessing.get_context("spawn")
    writers = [start.Process(target=_append_many, args=(path, number, 10_000)) for number in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            read_votes([path])  # a reader in between never sees half a line
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    votes = read_votes([path])
    assert len(votes) == 120
    for writer in range(3):
        mine = [vote for vote in votes if vote.id.startswith(f"{writer}-")]
        assert [vote.id for vote in mine] == [f"{writer}-{number}" for number in range(40)]
        assert all(vote.answer_a == str(writer) * 10_000 for vote in mine)


@pytest.mark.parametrize("size", [5, 200_000])
def test_half_a_line_of_a_killed_writer_is_removed_by_the_next(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "votes.jsonl", PLAIN)
    whole = path.read_bytes()
    path.write_bytes(whole + (b'{"model_a": "' + b"x" * size))
    append_vote(path, Vote("x", "z", "b"))
    assert path.read_bytes().startswith(whole)
    assert [vote.model_b for vote in read_votes([path])] == ["y", "z"]


def test_a_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text(json.dumps(PLAIN))
    append_vote(path, Vote("x", "z", "b"))
    assert [vote.model_b for vote in read_votes([path])] == ["y", "z"]


def test_a_full_disk_leaves_no_half_of_a_vote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "votes.jsonl", PLAIN)
    whole, real = path.read_bytes(), os.write

    def cut(descriptor: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(28, "No space left on device")
        return real(descriptor, content[: len(content) // 2])

    monkeypatch.setattr("os.write", cut)
    with pytest.raises(OSError, match="No space left"):
        append_vote(path, Vote("x", "z", "b", answer_a="y" * 1000))
    assert path.read_bytes() == whole


def test_a_vote_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="'x' is on both sides"):
        Vote("x", "x", "a")
    with pytest.raises(ValueError, match="not 'model_a'"):
        Vote("x", "y", "model_a")  # type: ignore[arg-type]
