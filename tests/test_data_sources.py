from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bottega.core.errors import UserError
from bottega.data import rows, sources
from bottega.data.convert import to_messages
from bottega.data.markup import html_to_text
from bottega.data.sources import Skipped, read_documents
from bottega.data.split import choose_heldout, parts


def read(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    skipped = Skipped()
    found = {document.id: document.text for document in read_documents(path, skipped)}
    return found, dict(skipped.counts)


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffplain\r\ntext")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("# Head\n\ntext")
    (tmp_path / "c.html").write_text("<title>no</title><h2>Head</h2><p>a &amp; b</p><script>x</script>")
    message = {"role": "assistant", "content": "two"}
    (tmp_path / "d.jsonl").write_text(f'{{"text": "one"}}\n\n{json.dumps({"messages": [message]})}\n"three"\n')
    (tmp_path / "e.json").write_text(json.dumps([{"instruction": "ask", "input": "", "output": "answer"}]))
    pq.write_table(pa.table({"text": ["row one", "row two"], "n": [1, 2]}), tmp_path / "f.parquet")
    with gzip.open(tmp_path / "g.jsonl.gz", "wt") as file:
        file.write('{"text": "packed"}\n')
    (tmp_path / "h.txt").write_bytes("sechzehn".encode("utf-16"))
    (tmp_path / ".hidden.txt").write_text("no")
    found, skipped = read(tmp_path)
    assert found == {
        "a.txt": "plain\ntext",
        "sub/b.md": "# Head\n\ntext",
        "c.html": "## Head\n\na & b",
        "d.jsonl#0": "one",
        "d.jsonl#1": "two",
        "d.jsonl#2": "three",
        "e.json#0": "ask\n\nanswer",
        "f.parquet#0": "row one",
        "f.parquet#1": "row two",
        "g.jsonl.gz#0": "packed",
        "h.txt": "sechzehn",
    }
    assert skipped == {}


def test_bad_files_are_counted_and_do_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_WHOLE", 1000)
    monkeypatch.setattr(rows, "MAX_ROW", 1000)
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0\0")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "empty.md").write_text(" \n")
    (tmp_path / "broken.json").write_text('{"text": ')
    (tmp_path / "deep.json").write_text("[" * 900)
    (tmp_path / "large.html").write_text("x" * 1001)
    (tmp_path / "rows.jsonl").write_text(
        '{"text": "first"}\nnot json\n{"other": 1}\n{"text": "' + "y" * 3000 + '"}\n{"text": "\\ud800 last"}\n'
    )
    (tmp_path / "broken.parquet").write_bytes(b"PAR1nothing")
    damaged = bytearray(gzip.compress(b"some text, and more of it" * 50))
    damaged[12:16] = b"\xff" * 4
    (tmp_path / "damaged.txt.gz").write_bytes(damaged)
    (tmp_path / "record.json").write_text('{"text": "how it was made"}')
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"some text" * 50)[:30])
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "gone.txt")
    found, skipped = read(tmp_path)
    assert found == {"rows.jsonl#0": "first", "rows.jsonl#2": "? last"}
    reasons = " | ".join(skipped)
    for part in (
        "binary", "not UTF-8", "nothing in it", "broken JSON", "larger than", "broken JSON row", "row without",
        "row longer", "broken parquet", "cannot be read", "unknown kind .png", "link to a folder", "not a regular",
    ):  # fmt: skip
        assert part in reasons
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "missing")


def test_a_name_that_is_no_utf8_can_be_written_down(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")).write_text("text")
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")).write_text("picture")
    skipped = Skipped()
    (document,) = read_documents(tmp_path, skipped)
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as file:
        sources.write_row(file, {"id": document.id, "skipped": skipped.as_data()})
    assert document.id == "caf\\udce9.txt"


def test_a_text_larger_than_memory_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE", 1000)
    text = "\n\n".join(f"Paragraph {i} " + "x" * (i * 7 % 90) for i in range(300)) + "\n" + "z" * 5000
    (tmp_path / "a.txt").write_text(text)
    found, _ = read(tmp_path / "a.txt")
    assert "".join(found.values()) == text
    assert len(found) > 10
    assert max(map(len, found.values())) <= 2000
    assert all(piece.startswith("Paragraph") for piece in list(found.values())[:10])


def test_broken_html_is_read_as_browsers_do() -> None:
    head = "<html><head><style>p{}</style><title>no</title>"
    body = "<body><h1>Title<p>One\n two<ul><li>a<li>b</ul><pre>x\n  y</pre><nav>menu</nav>"
    assert html_to_text(head + body) == "# Title\n\nOne two\n\n- a\n- b\n\nx\n  y"
    assert html_to_text("<p>a<![if !supportLists]>b<![foo[bar]]>c<p>d <![ e").startswith("abc\n\nd")


@pytest.mark.parametrize(
    ("row", "format_", "roles"),
    [
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            "messages",
            "user assistant",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}, "messages", "assistant"),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
            "sharegpt",
            "system user assistant",
        ),
        ({"instruction": "q", "input": "i", "output": "a"}, "alpaca", "user assistant"),
        ({"prompt": "q", "completion": "a"}, "completion", "user assistant"),
    ],
)
def test_formats_are_told_from_their_keys(row: dict[str, object], format_: str, roles: str) -> None:
    found = to_messages(row)
    assert found is not None
    assert found.format == format_
    assert " ".join(message["role"] for message in found.messages) == roles
    assert found.messages[-1]["content"] == "a"


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {},
        {"messages": []},
        {"messages": [3]},
        {"messages": "x"},
        {"prompt": "q"},
        {"instruction": "q", "output": 3},
        {"messages": [{"role": "user", "content": "only a question"}]},
        {"messages": [{"role": "wizard", "content": "x"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "  "}]},
    ],
)
def test_rows_without_a_conversation_to_learn_from_are_refused(row: object) -> None:
    assert to_messages(row) is None


def test_alpaca_input_stands_below_the_instruction() -> None:
    found = to_messages({"instruction": "Sum up.", "input": "Long text", "output": "Short"})
    assert found is not None
    assert found.messages[0] == {"role": "user", "content": "Sum up.\n\nLong text"}


def test_held_out_share_is_met_closely_and_depends_on_the_seed_alone() -> None:
    sizes = {f"m{i}": 500 + i * 37 % 900 for i in range(300)}
    chosen = choose_heldout(sizes, 0.08, 0)
    share = sum(sizes[name] for name in chosen) / sum(sizes.values())
    assert 0.075 <= share <= 0.08
    assert chosen == choose_heldout(dict(reversed(sizes.items())), 0.08, 0)
    assert chosen != choose_heldout(sizes, 0.08, 1)
    # The small ones are not preferred to fill the rest.
    assert abs(sum(sizes[n] for n in chosen) / len(chosen) - sum(sizes.values()) / 300) < 150
    assert choose_heldout({"a": 10, "b": 1}, 0.08, 0) == {"b"}
    with pytest.raises(UserError, match="too little text"):
        choose_heldout({"a": 10}, 0.08, 0)


def test_large_texts_are_cut_at_blank_lines_and_headings_stay_with_their_text() -> None:
    text = "\n\n".join(f"# Head {i}\n\n" + "word " * 40 for i in range(200))
    cut = list(parts(text, len(text)))
    assert "".join(cut) == text
    assert len(cut) > 40
    assert not any(part.rstrip().rpartition("\n")[2].startswith("#") for part in cut)
    assert list(parts(text, 100 * len(text))) == [text]
