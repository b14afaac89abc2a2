"""Whether converted vocabularies give the ids of the reference tokenizers, on odd and random texts.

    python benchmarks/tokenizers_equal_references.py PATH...

PATH is a vocabulary (a file or a folder of one) or a folder of such folders. The reference is
sentencepiece, tiktoken or transformers, whichever the format is from; for GGUF (whose metadata the
PyPI package gguf reads) the one its kind is from. `ties` are texts that a Unigram model can cut in two
equally good ways, of which single precision takes one. Exit status 1 if any text differs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.tokenizer.foreign import llama2c_file, rank_file
from bottega.tokenizer.foreign.assemble import Converted
from bottega.tokenizer.foreign.gguf_metadata import from_gguf_metadata
from bottega.tokenizer.foreign.patterns import GGUF_PATTERNS
from bottega.tokenizer.foreign.source import convert, find
from bottega.tokenizer.tokenizer import Tokenizer, byte_of_character

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from tokenizer_texts import Encode, adversarial, same_cost, sentencepiece_bytes, tiktoken_encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="500 texts")
    arguments = parser.parse_args()
    print(f"{'vocabulary':34} {'reference':34} {'texts':>6} {'equal':>6} {'ties':>5}  seconds, first difference")
    wrong = [compare(path, 500 if arguments.quick else arguments.texts) for path in sources(arguments.paths)]
    raise SystemExit(1 if any(wrong) else 0)


def sources(paths: list[Path]) -> Iterator[Path]:
    """The vocabularies at or below the paths."""
    for path in paths:
        if path.is_file():
            yield path
            continue
        several = [file for suffix in ("*.gguf", "*.tiktoken", "*.bin") for file in sorted(path.glob(suffix))]
        try:
            convert(path)
            yield path
        except UserError:
            folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
            if (path / "tokenizer.json").is_file():
                continue  # there is nothing to convert
            yield from several or (sources(folders) if folders else [path])


def compare(path: Path, count: int) -> bool:
    """Print the row of one vocabulary; whether a text differs."""
    name = f"{path.parent.name}/{path.name}"[-34:]
    try:
        converted, reference, encode = open_both(path)
    except UserError as error:
        print(f"{name:34} refused: {error.message}")
        return False
    with tempfile.TemporaryDirectory() as folder:
        converted.write(Path(folder))
        tokenizer = Tokenizer.load(Path(folder))
    model = tokenizer.files.data["model"]
    scores = [score for _, score in model["vocab"]] if model["type"] == "Unigram" else []
    draw, equal, ties, different, started = random.Random(0), 0, 0, "", time.monotonic()
    for _ in range(count):
        text = adversarial(draw, assigned=True)
        ours, theirs = tokenizer.encode(text), encode(text)
        if ours == theirs:
            equal += 1
        elif scores and same_cost(scores, ours, theirs):
            ties += 1
        elif not different:
            different = f"{text!a}: {ours} but {theirs}"
    seconds = time.monotonic() - started
    print(f"{name:34} {reference:34} {count:6} {equal:6} {ties:5}  {seconds:.1f} s {different[:2000]}", flush=True)
    return equal + ties < count


def open_both(path: Path) -> tuple[Converted, str, Encode]:
    """Our conversion, the reference's name, and its function from text to ids."""
    if path.suffix == ".gguf":
        import gguf

        fields = gguf.GGUFReader(path).fields
        metadata = {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer")}
        return from_gguf_metadata(metadata, path.name), *gguf_reference(metadata)
    converted = convert(path)
    file = path if path.is_file() else find(path)
    assert file is not None
    if converted.source.startswith("SentencePiece"):
        return converted, "sentencepiece", sentencepiece_encode(file.read_bytes())
    if converted.source.startswith("llama2.c"):
        pieces = llama2c_file.read(file.read_bytes(), file).pieces
        return converted, "sentencepiece, same pieces", sentencepiece_encode(sentencepiece_bytes(pieces))
    if converted.source.startswith("tiktoken"):
        ranks = rank_file.read_ranks(file.read_bytes(), file)
        name = next(encoding.name for encoding in rank_file.ENCODINGS if encoding.ranks == len(ranks))
        return converted, f"tiktoken {name}", tiktoken_encode(ranks, name=name)
    if converted.source.startswith("vocab.json"):
        config = path / "tokenizer_config.json"
        kind = json.loads(config.read_text("utf-8"))["tokenizer_class"] if config.is_file() else "GPT2Tokenizer"
        vocab, lines = json.loads((path / "vocab.json").read_text("utf-8")), (path / "merges.txt").read_text("utf-8")
        merges = [line for line in lines.split("\n") if line and not line.startswith("#version")]
        return converted, f"transformers {kind}", transformers_encode(kind, vocab, merges)
    raise UserError(f"{path}: there is no reference for a {converted.source}")


def gguf_reference(metadata: dict[str, Any]) -> tuple[str, Encode]:
    """The reference for a GGUF vocabulary: the library that its kind is from, with the same tokens."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    kind, pre = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")
    defined = {token: id_ for id_, (token, type_) in enumerate(zip(tokens, types, strict=True)) if type_ == 4}
    if kind == "bert":
        import transformers

        marked = [t[1:] if t[0] == "\u2581" else t if t[0] == "[" and t[-1] == "]" else f"##{t}" for t in tokens]
        tokenizer = transformers.BertTokenizer(vocab={token: id_ for id_, token in enumerate(marked)})
        return "transformers BertTokenizer", lambda text: tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
    if kind == "gpt2":
        ranks = {bytes(map(byte_of_character().__getitem__, token)): id_ for id_, token in enumerate(tokens)
                 if types[id_] == 1 and all(character in byte_of_character() for character in token)}  # fmt: skip
        return f"tiktoken cut as {pre}", around(defined, cut_and_merge(ranks, GGUF_PATTERNS[str(pre)].expressions))
    # sentencepiece knows one unknown piece; the others, and what is found in the text first, are control pieces.
    kinds = [3 if type_ in (2, 4) else type_ for type_ in types]
    unknown = metadata["tokenizer.ggml.unknown_token_id"]
    kinds[unknown] = 2
    pieces = zip(tokens, metadata["tokenizer.ggml.scores"], kinds, strict=True)
    encode = sentencepiece_encode(sentencepiece_bytes(pieces, unk=unknown))
    return "sentencepiece, same pieces", around(defined, encode)


def sentencepiece_encode(content: bytes) -> Encode:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=content).encode


def transformers_encode(kind: str, vocab: dict[str, int], merges: list[str]) -> Encode:
    import transformers

    tokenizer = getattr(transformers, kind)(vocab=vocab, merges=[tuple(line.split(" ")) for line in merges])
    return lambda text: tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def cut_and_merge(ranks: dict[bytes, int], expressions: tuple[str, ...]) -> Encode:
    """Cut by one expression after the other with the package regex, then tiktoken on every piece."""
    import regex

    merge = tiktoken_encode(ranks, pattern=r"[\s\S]+")
    compiled = [regex.compile(python_form(expression)) for expression in expressions]

    def encode(text: str) -> list[int]:
        pieces = [text]
        for expression in compiled:
            pieces = [part for piece in pieces for part in isolated(expression, piece)]
        return [id_ for piece in pieces for id_ in merge(piece)]

    return encode


def python_form(expression: str) -> str:
    """An Oniguruma expression as the package regex writes it."""
    return re.sub(r"\\x\{([0-9A-F]+)\}", lambda found: chr(int(found[1], 16)), expression).replace("\\z", "\\Z")


def isolated(expression: Any, text: str) -> Iterator[str]:
    """The matches, and what is between them."""
    at = 0
    for found in expression.finditer(text):
        yield from (part for part in (text[at : found.start()], found.group()) if part)
        at = found.end()
    if at < len(text):
        yield text[at:]


def around(defined: dict[str, int], encode: Encode) -> Encode:
    """What the user defined is found first; the text between is encoded part by part."""
    if not defined:
        return encode
    found = re.compile("(" + "|".join(map(re.escape, sorted(defined, key=len, reverse=True))) + ")")

    def encode_parts(text: str) -> list[int]:
        parts = [part for part in found.split(text) if part]
        return [id_ for part in parts for id_ in ([defined[part]] if part in defined else encode(part))]

    return encode_parts


if __name__ == "__main__":
    main()
