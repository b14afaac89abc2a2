"""What many tests need: one thread, and a tiny workshop (corpus, tokenizer, tokens) made once a session."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that does not run is a failure: what it would show has not been shown."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped") if reporter is not None and os.environ.get("CI") else None
    if skipped:
        reporter.write_line(f"not run, which fails in CI: {', '.join(sorted({item.nodeid for item in skipped}))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


THINGS = ("river", "stone", "lantern", "garden", "window", "letter", "bridge", "market", "harbour", "clock")
DOINGS = ("opens", "keeps", "carries", "returns", "measures", "follows", "colours", "mends")


def generated_text(seed: int, sentences: int = 40) -> str:
    """A Markdown document of plain sentences under headings; there is something to learn in it."""
    draw = random.Random(seed)
    parts = [f"# Notes on the {draw.choice(THINGS)} {seed}\n"]
    for number in range(sentences // 8):
        parts.append(f"\n## How the {draw.choice(THINGS)} {draw.choice(DOINGS)} {number}\n\n")
        lines = (f"The {draw.choice(THINGS)} {draw.choice(DOINGS)} the {draw.choice(THINGS)}." for _ in range(8))
        parts.append(" ".join(lines) + "\n")
    return "".join(parts)


def peak_of_command(words: list[str], folder: Path) -> int:
    """Run `bottega WORDS` in a process of its own; the most bytes that it held at once, by its own account.

    (What wait4 says of a child is never less than its parent had.)
    """
    code = (
        "import atexit, pathlib, sys; from bottega.cli.main import main; from bottega.core import machine\n"
        "peak = pathlib.Path(sys.argv.pop(1))\n"
        "atexit.register(lambda: peak.write_text(str(machine.peak_memory_bytes())))\n"
        "main()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "peak"), *words], check=True, stdout=subprocess.DEVNULL)
    return int((folder / "peak").read_text())


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bottega(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run a command line in this process, in an empty folder; exit status, standard output, standard error."""
    from bottega.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("BOTTEGA_WORKSPACE", raising=False)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bottega", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return call


@dataclass(frozen=True)
class Workshop:
    """Folders that the lower verbs made from generated documents."""

    documents: Path
    corpus: Path
    tokenizer: Path
    tokens: Path
    heldout: Path
    conversations: Path


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Forty small documents, collected, tokenised and prepared by the verbs themselves."""
    from bottega import verbs

    root = tmp_path_factory.mktemp("workshop")
    made = Workshop(*(root / name for name in ("documents", "corpus", "tokenizer", "tokens", "heldout", "chats")))
    made.documents.mkdir()
    for seed in range(40):
        (made.documents / f"{seed:02d}.md").write_text(generated_text(seed))
    verbs.data_collect(source=str(made.documents), out=made.corpus)
    verbs.tokenizer_train(data=made.corpus, vocab_size=384, out=made.tokenizer)
    verbs.data_prepare(data=made.corpus, tokenizer=made.tokenizer, out=made.tokens)
    verbs.data_prepare(data=made.corpus, tokenizer=made.tokenizer, split="heldout", out=made.heldout)
    verbs.data_prepare(data=made.corpus, tokenizer=made.tokenizer, kind="chat", out=made.conversations)
    return made
