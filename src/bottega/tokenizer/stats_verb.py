"""`bottega tokenizer stats`: what a vocabulary is made of, and how many tokens it needs for texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.progress import Bar as Progress
from bottega.core.verb import Context, Result
from bottega.core.view import Bar, Bars, Block, Table, human_bytes
from bottega.tokenizer import texts
from bottega.tokenizer.config import TokenizerStats
from bottega.tokenizer.measure import Measure, measure
from bottega.tokenizer.samples import SAMPLES
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

# How much of each text is read, and the speed at which it and single tokens are encoded, on one core.
SAMPLE_BYTES = 2 * 2**20
BYTES_PER_SECOND = 5e5
TOKENS_PER_SECOND = 2e4
MOST_SCRIPTS, MOST_EXAMPLES, MOST_LISTED = 16, 8, 1000
# The upper ends of the bars of lengths.
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 32)


def plan_stats(config: TokenizerStats, specs: Specs) -> Plan:
    """Check that the tokenizer and the texts are there."""
    spec = specs.of(config.tokenizer, TokenizerSpec)
    sizes = {name: sum(file.stat().st_size for file in files) for name, files in text_files(config.text).items()}
    checks = [Check(name, size > 0, human_bytes(size) if size else "it is empty") for name, size in sizes.items()]
    read = sum(min(size, SAMPLE_BYTES) for size in sizes.values())
    return Plan(
        verb="tokenizer stats",
        config=config,
        inputs={"tokenizer": config.tokenizer},
        checks=checks,
        work=[f"encode each of {spec.vocab_size:,} tokens, and {len(sizes) or len(SAMPLES)} texts"],
        cost=Cost(bytes_read=read, seconds=0.5 + spec.vocab_size / TOKENS_PER_SECOND + read / BYTES_PER_SECOND),
    )


def text_files(given: Sequence[str]) -> dict[str, list[Path]]:
    """Name → files of each FILE, FOLDER or NAME=FILE; raises UserError if one is missing or a name is there twice."""
    found: dict[str, list[Path]] = {}
    for entry in given:
        name, separator, rest = entry.partition("=")
        named = bool(separator and name and rest) and not Path(entry).exists()
        path = Path(rest if named else entry)
        label = name if named else path.name or str(path)
        if label in found:
            raise UserError(f"two texts are called {label!r}", hint="Give each a name: --text NAME=FILE.")
        found[label] = texts.find_files(path)
    return found


def run_stats(plan: Plan, context: Context) -> Result:
    """Count, encode, show."""
    config = plan.config
    assert isinstance(config, TokenizerStats)
    tokenizer = Tokenizer.load(config.tokenizer)
    with context.reporter.bar("tokens", tokenizer.vocab_size) as bar:
        vocabulary = describe(tokenizer, bar)
    files = text_files(config.text)
    if files:
        measured = {
            name: measure(tokenizer, texts.read_texts(paths, max_bytes=SAMPLE_BYTES)) for name, paths in files.items()
        }
    else:
        measured = {name: measure(tokenizer, [text]) for name, text in SAMPLES.items()}
    data = {
        "vocabulary": vocabulary,
        "texts": {
            name: {**vars(found), "bytes_per_token": found.bytes_per_token, "tokens_per_word": found.tokens_per_word}
            for name, found in measured.items()
        },
    }
    view: list[Block] = [*_vocabulary_view(tokenizer, vocabulary), *_text_view(measured, parallel=not files)]
    return Result(data, view)


def describe(tokenizer: Tokenizer, progress: Progress) -> dict[str, Any]:
    """Counts of the vocabulary, and the tokens that their own text is not encoded to.

    A token is unreachable if its text, inside a longer text, becomes other tokens. Tokens that are part
    of a character only, or marked as a word's inside, have no text of their own and are not tried.
    """
    kinds: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    scripts: Counter[str] = Counter()
    spaced, unreachable = 0, []
    for id_ in range(tokenizer.vocab_size):
        progress.advance()
        kind = tokenizer.token_kind(id_)
        kinds[kind] += 1
        if kind != "normal":
            continue
        content = tokenizer.token_bytes(id_)
        lengths[len(content)] += 1
        spaced += content.startswith(b" ") and len(content) > 1
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            scripts["parts of characters"] += 1
            continue
        scripts[script_of(text)] += 1
        if tokenizer.family == "other" and text.startswith("##"):
            continue  # WordPiece's mark of a word's inside, which no text has
        if tokenizer.encode_inside(text) != [id_]:
            unreachable.append(id_)
    return {
        "size": tokenizer.vocab_size,
        "kinds": dict(kinds),
        "lengths": {str(length): count for length, count in sorted(lengths.items())},
        "begin_with_space": spaced,
        "scripts": dict(scripts.most_common()),
        "unreachable": {"count": len(unreachable), "ids": unreachable[:MOST_LISTED]},
        "hash": tokenizer.hash,
    }


def script_of(text: str) -> str:
    """The script of the first letter (the first word of its Unicode name); else digits, punctuation or spaces."""
    for character in text:
        if unicodedata.category(character)[0] == "L":
            return unicodedata.name(character, "UNNAMED").split()[0].title().replace("Cjk", "Han")
    if any(character.isdigit() for character in text):
        return "digits"
    return "spaces" if not text.strip() else "punctuation and symbols"


def _vocabulary_view(tokenizer: Tokenizer, data: dict[str, Any]) -> list[Block]:
    kinds, unreachable, size = data["kinds"], data["unreachable"], data["size"]
    normal = max(kinds.get("normal", 0), 1)
    examples = ", ".join(repr(tokenizer.token_text(id_)) for id_ in unreachable["ids"][:MOST_EXAMPLES])
    rows = [
        (f"{kind} tokens", f"{kinds[kind]:,}") for kind in ("special", "added", "byte", "unused") if kinds.get(kind)
    ]
    rows = [
        ("tokens", f"{size:,}"),
        *rows,
        ("begin with a space", f"{data['begin_with_space'] / normal:.1%}"),
        ("not reached by their own text", f"{unreachable['count']:,}" + (f": {examples}" if examples else "")),
    ]
    shown = list(data["scripts"].items())[:MOST_SCRIPTS]
    return [
        Table(f"Vocabulary {tokenizer.folder.name}", ("", ""), rows),
        _length_bars({int(length): count for length, count in data["lengths"].items()}),
        Table(
            "Scripts",
            ("script of the first letter", "tokens", "share"),
            [(script, f"{count:,}", f"{count / normal:.1%}") for script, count in shown],
            note=f"{len(data['scripts']) - len(shown)} more are left out." if len(shown) < len(data["scripts"]) else "",
        ),
    ]


def _length_bars(lengths: dict[int, int]) -> Bars:
    bars, low = [], 1
    for high in (*LENGTHS, max([*lengths, LENGTHS[-1] + 1])):
        count = sum(lengths.get(length, 0) for length in range(low, high + 1))
        bars.append(Bar(str(low) if low == high else f"{low} to {high}", count))
        low = high + 1
    return Bars("Length of tokens in bytes", "tokens", bars)


def _text_view(measured: dict[str, Measure], *, parallel: bool) -> list[Block]:
    first = next(iter(measured.values()))
    columns = ("text", "bytes", "tokens", "unknown", "bytes per token", "characters per token", "tokens per word")
    rows: list[Sequence[Any]] = []
    for name, found in measured.items():
        row: list[Any] = [name, f"{found.bytes:,}", f"{found.tokens:,}", f"{found.unknown:,}"]
        row += [
            f"{found.bytes_per_token:.2f}",
            f"{found.characters / max(found.tokens, 1):.2f}",
            f"{found.tokens_per_word:.2f}",
        ]
        rows.append([*row, f"{found.tokens / max(first.tokens, 1):.2f}"] if parallel else row)
    note = "A word is what stands between spaces."
    if any(found.unknown for found in measured.values()):
        note += " Unknown tokens stand for text that is lost, of any length: such a text is not short, but not written."
    if parallel:
        columns = (*columns, "tokens, English = 1")
        note += " The texts say the same in each language."
    bars = [Bar(name, found.bytes_per_token) for name, found in measured.items()]
    return [Table("Tokens needed", columns, rows, note=note), Bars("Bytes per token", "bytes per token", bars)]
